"""The data for a machine that reaches no data: objects of generated scenes."""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from attention_zoo.errors import InputError
from datamodules.checks import require_between, require_counts, require_whole, two_sides
from datamodules.images import Split
from datamodules.interactive.base import InteractiveDataModule
from datamodules.interactive.objects import Instances, object_numbers
from datamodules.segmentation.masks import LabelMap
from datamodules.segmentation.shapes import MOST_SCENES, SceneLabels, Scenes


class ScenesInMemory:
    """Scenes, some of them several times; drawn once, since every epoch asks for all of them.

    Args:
        images: (3, H, W) uint8 each.
        places: which, one a sample.
    """

    def __init__(self, images: Sequence[Tensor], places: Sequence[int]) -> None:
        self.images, self.places = images, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Tensor:
        """The image (3, H, W), uint8."""
        return self.images[self.places[index]]

    def size(self, index: int) -> tuple[int, int]:
        """Height and width."""
        return tuple(self[index].shape[1:])


class SceneObjects:
    """Objects of scenes.

    Args:
        labels: of each scene, as of `Instances`.
        chosen: scene and number of the object, one a sample.
    """

    def __init__(self, labels: Sequence[Tensor], chosen: Sequence[tuple[int, int]]) -> None:
        self.labels, self.chosen = labels, chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> Instances:
        """The object."""
        scene, number = self.chosen[index]
        return Instances(self.labels[scene], (number,))


def object_labels(found: LabelMap) -> Tensor:
    """Labels of a scene's objects (H, W), as of `Instances`; the grounds are background."""
    segments = found.segments.long()
    return torch.where(found.is_thing[segments], segments + 1, 0).int()


class ObjectScenes(InteractiveDataModule):
    """Objects of generated scenes, told from the rest by shape, texture and hue. Nothing is downloaded.

    The scenes are those of `Shapes`: several objects, of which some may look alike, on textured grounds.

    Args:
        scenes: number of scenes to train on, validate and test; each has a few objects, and each is a sample.
        scene_size: height and width of a scene in pixels.
        classes: see `Shapes`.
        min_area: pixels of an object that must be in sight.
        image_size: as in `InteractiveDataModule`.
        num_workers: as in `DataModule`.
        kwargs: the other arguments of `InteractiveDataModule`.

    Raises:
        InputError: an argument is out of range.
    """

    def __init__(
        self,
        scenes: tuple[int, int, int] = (256, 16, 32),
        scene_size: tuple[int, int] = (96, 96),
        classes: int = 8,
        min_area: int = 60,
        image_size: int | tuple[int, int] = 64,
        num_workers: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_size, num_workers=num_workers, **kwargs)
        require_between("classes", classes, 2, 100)
        require_counts("scenes", scenes, 3, MOST_SCENES)
        require_whole("min_area", min_area, 1)
        self.scene_size, self.classes, self.min_area = two_sides("scene_size", scene_size, 16), classes, min_area
        self.counts = dict(zip(("train", "val", "test"), scenes, strict=True))

    def load(self, parts: Collection[str]) -> dict[str, Split]:
        """See `DataModule`."""
        return {part: self._part(list(self.counts).index(part), part) for part in parts}

    def _part(self, place: int, part: str) -> Split:
        drawn = {"part": place, "count": self.counts[part], "size": self.scene_size, "num_classes": self.classes}
        scenes, segments = Scenes(**drawn), SceneLabels(panoptic=True, **drawn)
        images, labels = zip(*((scenes[i], object_labels(segments[i])) for i in range(len(scenes))), strict=True)
        chosen = [
            (scene, number) for scene, found in enumerate(labels) for number in object_numbers(found, self.min_area)
        ]
        if not chosen:
            raise InputError(f"no object of at least min_area={self.min_area} pixels in {len(labels)} scenes")
        names = [f"{part} scene {scene}#{number}" for scene, number in chosen]
        objects = {"objects": SceneObjects(labels, chosen), "name": names}
        return Split(ScenesInMemory(images, [scene for scene, _ in chosen]), objects)
