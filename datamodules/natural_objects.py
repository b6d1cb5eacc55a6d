"""Photographs of several objects that a classifier of ImageNet knows, from COCO and LVIS, to ask it for one of them.

B. Shi, T. Darrell, X. Wang, Top-Down Visual Attention from Analysis by Synthesis, CVPR 2023; technical report
EECS-2024-49, appendix A.4: images of LVIS with "object categories that also appear in ImageNet".
"""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as transform

from attention_zoo.domains import Fraction, PositiveInt
from attention_zoo.errors import InputError
from datamodules.imagenet import ImageNet, synsets
from datamodules.images import ImageFiles, Split
from datamodules.interactive.coco import cover
from datamodules.interactive.lvis import LVIS
from datamodules.known_objects import coco_labels, label_of
from datamodules.segmentation.panoptic import COCOPanoptic
from datamodules.two_objects import ObjectPairs


class Scene(NamedTuple):
    """An image with objects that a classifier knows.

    Attributes:
        image: its file.
        areas: the share of the image that the objects of each class cover, 0..1, by the output of the classifier.
        mask: gives the pixels (H, W) bool of the objects of a class.
    """

    image: str
    areas: dict[int, float]
    mask: Callable[[int], Tensor]


class NaturalObjects(ObjectPairs):
    """Base of photographs of two or more objects that are classes of ImageNet.

    A sample is an image and two of its classes, A the one of the lower number; an image of three has three samples. The
    mask of a class is all its objects. The whole image is squeezed to ``image_size``, so that no object is cut off, as
    the authors' demonstration does it.

    Args:
        root: the folder of the data.
        least: share of the image that the objects of a class must cover, 0..1.
        pairs: number of samples, the first of the file; None is all.
        loading: the arguments of ImageDataModule.
    """

    IMAGE_SIZE = 224
    MEAN, STD = ImageNet.MEAN, ImageNet.STD

    def __init__(self, root: str, least: Fraction = 0.01, pairs: PositiveInt | None = None, **loading: Any) -> None:
        super().__init__(**loading)
        self.root, self.least, self.pairs = Path(root), least, pairs

    @property
    def class_names(self) -> list[str]:
        """The 1000 synsets of ImageNet."""
        return list(synsets())

    @property
    def protocol(self) -> dict[str, str | int | float | bool]:
        """The plain values that two measurements must share to be compared."""
        return {**super().protocol, "least": self.least, "pairs": self.pairs or "all"}

    def default_resize(self) -> nn.Module:
        """Squeeze the whole image."""
        return v2.Resize(self.image_size, antialias=True)

    @abstractmethod
    def scenes(self) -> list[Scene]:
        """Return the images with objects of two or more classes of ImageNet.

        Raises:
            InputError: the data are not there, or not as they should be.
        """

    def load_test(self) -> Split:
        """Read the pairs of classes, as `EvaluationDataModule` says."""
        known = [
            (scene, pair)
            for scene in self.scenes()
            for pair in combinations(sorted(label for label, area in scene.areas.items() if area >= self.least), 2)
        ][: self.pairs]
        if not known:
            raise InputError(
                f"{type(self).__name__}: no image in {self.root} shows two classes of ImageNet of at least "
                f"{self.least:g} of it"
            )
        scenes = [scene for scene, _ in known]
        labels = torch.tensor([pair for _, pair in known])
        groups = {scene.image: group for group, scene in enumerate({one.image: one for one in scenes}.values())}
        return Split(
            ImageFiles([scene.image for scene in scenes]),
            {
                "labels": labels,
                "masks": SceneMasks(scenes, labels, self.image_size),
                "group": torch.tensor([groups[scene.image] for scene in scenes]),
            },
        )


class SceneMasks:
    """The masks (2, H, W) bool of the two classes of each sample, made each time that they are asked for.

    Args:
        scenes: the image of each sample.
        labels: (P, 2) int64, its two classes.
        size: height and width that the masks are brought to, by the nearest pixel.
    """

    def __init__(self, scenes: Sequence[Scene], labels: Tensor, size: tuple[int, int]) -> None:
        self.scenes, self.labels, self.size = scenes, labels, size

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Tensor:
        masks = torch.stack([self.scenes[index].mask(label) for label in self.labels[index].tolist()])
        return transform.resize(masks, list(self.size), v2.InterpolationMode.NEAREST_EXACT)


class COCOObjects(NaturalObjects):
    """Images of COCO val2017 with objects of two or more of the 23 categories that are classes of ImageNet.

    Those are listed in `datamodules.known_objects.COCO_SYNSETS`.

    Args:
        root: as of `COCOPanoptic`.
        objects: the arguments of NaturalObjects.
    """

    def __init__(self, root: str, **objects: Any) -> None:
        super().__init__(root, **objects)

    def scenes(self) -> list[Scene]:
        """Return the images with objects of two or more classes, as `NaturalObjects` says."""
        data = COCOPanoptic(str(self.root))
        split = data.load(["test"])["test"]
        files: Any = split.images
        column: Any = split.columns["mask"]
        outputs = coco_labels(data.class_names)
        scenes = []
        for place, segments in enumerate(column.segments):
            wanted = {outputs[label]: label for label in segments[:, 1].tolist() if label in outputs}
            if len(wanted) > 1:
                labels = column[place].mask
                areas = {output: float((labels == label).float().mean()) for output, label in wanted.items()}
                scenes.append(Scene(files.names[place], areas, _Labelled(column, place, wanted)))
        return scenes


class _Labelled:
    """The pixels of a class in an image of the panoptic format."""

    def __init__(self, column: Any, place: int, wanted: dict[int, int]) -> None:
        self.column, self.place, self.wanted = column, place, wanted

    def __call__(self, output: int) -> Tensor:
        return self.column[self.place].mask == self.wanted[output]


class LVISObjects(NaturalObjects):
    """Images of LVIS val with objects of two or more categories that are classes of ImageNet (report A.4, Figure A.7).

    LVIS names each category's synset of WordNet, see `datamodules.known_objects.offset_of`.

    Args:
        root: as of `LVIS`.
        objects: the arguments of NaturalObjects.
    """

    def __init__(self, root: str, **objects: Any) -> None:
        super().__init__(root, **objects)

    def scenes(self) -> list[Scene]:
        """Return the images with objects of two or more classes, as `NaturalObjects` says."""
        data = LVIS(str(self.root))
        file = self.root / "val" / "lvis_val.json"
        records, outlines, categories = data.outlines(file)
        outputs = {
            number: label for number, category in categories.items() if (label := label_of(category)) is not None
        }
        scenes = []
        for record, drawn in zip(records, outlines, strict=True):
            shapes, size = defaultdict(list), (record["height"], record["width"])
            for outline in drawn:
                if outline.category in outputs:
                    shapes[outputs[outline.category]].append(outline.shape)
            if len(shapes) > 1:
                mask = _Outlined(dict(shapes), size)
                areas = {output: float(mask(output).float().mean()) for output in shapes}
                scenes.append(Scene(str(data.image_file("val", record)), areas, mask))
        return scenes


class _Outlined:
    """The pixels of a class in an image whose objects are outlined."""

    def __init__(self, shapes: dict[int, list[Any]], size: tuple[int, int]) -> None:
        self.shapes, self.size = shapes, size

    def __call__(self, output: int) -> Tensor:
        return torch.from_numpy(np.any([cover(shape, self.size) for shape in self.shapes[output]], axis=0))
