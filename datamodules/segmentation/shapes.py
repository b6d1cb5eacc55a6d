"""The data for a machine that reaches no data: generated scenes."""

from collections.abc import Collection
from functools import lru_cache
from typing import Any

from torch import Tensor

from datamodules.checks import require_between, require_counts, two_sides
from datamodules.images import Split
from datamodules.segmentation.base import SegmentationDataModule
from datamodules.segmentation.masks import LabelMap
from datamodules.segmentation.scenes import draw_scene, split_classes

_SEED = 20_240_607
"""Of all scenes; the seed of a run does not change them."""

MOST_SCENES = 1_000_000
"""Of a part."""

_scene = lru_cache(maxsize=1)(draw_scene)
"""An image and its labels are asked for one after the other, and drawn at once."""


class Scenes:
    """The images of a part, drawn each time they are asked for.

    Args:
        part: sets the parts' scenes apart.
        count: how many.
        size: height and width in pixels.
        num_classes: see `draw_scene`.
    """

    def __init__(self, part: int, count: int, size: tuple[int, int], num_classes: int) -> None:
        self.part, self.count, self.shape, self.num_classes = part, count, size, num_classes

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        """The image (3, H, W), uint8."""
        return _scene((_SEED, self.part, index), self.shape, self.num_classes).image

    def size(self, index: int) -> tuple[int, int]:
        """Height and width."""
        return self.shape


class SceneLabels(Scenes):
    """The labels of a part.

    Args:
        panoptic: whether segments are given with the classes.
        scenes: the arguments of `Scenes`.
    """

    def __init__(self, panoptic: bool, **scenes: Any) -> None:
        super().__init__(**scenes)
        self.panoptic = panoptic

    def __getitem__(self, index: int) -> LabelMap:
        """The labels."""
        label = _scene((_SEED, self.part, index), self.shape, self.num_classes).label
        return label if self.panoptic else LabelMap(label.mask)


class Shapes(SegmentationDataModule):
    """Generated scenes: textured grounds, and objects told apart by shape, texture and hue. Nothing is downloaded.

    Args:
        scenes: number of scenes to train on, validate and test.
        scene_size: height and width of a scene in pixels; None is ``image_size``.
        classes: number of classes, 2 to 100; a third of them are grounds, without instances.
        panoptic: whether batches have ``segments``.
        image_size: as in `SegmentationDataModule`.
        kwargs: the other arguments of `SegmentationDataModule`.

    Raises:
        InputError: an argument is out of range.
    """

    def __init__(
        self,
        scenes: tuple[int, int, int] = (256, 64, 64),
        scene_size: tuple[int, int] | None = None,
        classes: int = 8,
        panoptic: bool = False,
        image_size: int | tuple[int, int] = 128,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_size, **kwargs)
        require_between("classes", classes, 2, 100)
        require_counts("scenes", scenes, 3, MOST_SCENES)
        self.scene_size = two_sides("scene_size", self.image_size if scene_size is None else scene_size, 16)
        self.counts = dict(zip(("train", "val", "test"), scenes, strict=True))
        self.grounds, self.objects = split_classes(classes)
        self.panoptic = panoptic

    @property
    def class_names(self) -> list[str]:
        """The grounds, then the objects."""
        return [*self.grounds, *self.objects]

    @property
    def things(self) -> list[int]:
        """The objects, where batches tell them apart."""
        return list(range(len(self.grounds), self.num_classes)) if self.panoptic else []

    def load(self, parts: Collection[str]) -> dict[str, Split]:
        """See `DataModule`."""
        return {part: self._split(list(self.counts).index(part), self.counts[part]) for part in parts}

    def _split(self, part: int, count: int) -> Split:
        scenes = {"part": part, "count": count, "size": self.scene_size, "num_classes": self.num_classes}
        return Split(Scenes(**scenes), {"mask": SceneLabels(self.panoptic, **scenes)})
