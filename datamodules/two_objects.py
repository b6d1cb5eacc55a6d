"""Pictures of two objects, made of two images of different classes each, to ask a classifier about one of them.

B. Shi, T. Darrell, X. Wang, Top-Down Visual Attention from Analysis by Synthesis, CVPR 2023; technical report
EECS-2024-49, section 2.6: "randomly sampling two images from ImageNet and concatenating them side by side".
"""

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from attention_zoo.domains import PositiveInt, Seed, SignedInt
from attention_zoo.errors import InputError, unknown
from datamodules.base import EvaluationDataModule, ImageDataModule
from datamodules.digits import Digits
from datamodules.images import Images, Split

Layout = Literal["beside", "above"]

STAGES = {"val": "validate", "test": "test"}
"""The stage of Lightning that reads a part."""


class ObjectPairs(EvaluationDataModule):
    """Base of data for the question whether a model looks at the one of two objects that it is asked for.

    Batches have ``labels`` (B, 2) int64, the classes A and B; ``masks`` (B, 2, H, W) bool, the pixels of both; and
    ``group`` (B,) int64, equal for pictures that show the same objects and so are no two independent measurements.

    Args:
        loading: the arguments of ImageDataModule.
    """

    @property
    def protocol(self) -> dict[str, str | int | float | bool]:
        """The plain values that two measurements must share to be compared."""
        return {"data": type(self).__name__, "height": self.image_size[0], "width": self.image_size[1]}


class TwoObjects(ObjectPairs):
    """Pictures of two images of different classes, A left of B or above it.

    Every couple of images is there in both orders, one after the other, unless ``pairs`` is odd. Which couples they are
    follows from ``seed`` and the images' labels alone: any number of processes, workers and images a batch gives the
    same pictures, and a smaller number of pairs is the beginning of a larger one.

    The released pictures of AbSViT (demo/multi_object_artificial_*.jpg) are squares with both images squeezed into
    half: that is ``squeeze``. The report says of the data only that images are concatenated side by side.

    Args:
        images: the data that the images are taken from, any classification data; None is `Digits`.
        pairs: number of pictures.
        part: the part that the images are from.
        layout: ``beside``, A left and B right, or ``above``, A at the top and B at the bottom.
        squeeze: squeeze each image, whatever its aspect, into one half of a picture of the size that the data's images
            have; otherwise every image is prepared as the data do it, and the picture is twice as wide or high.
        seed: seed of the choice of couples.
        classes: names of the classes that take part, such as ``3`` of the digits; None is all.
        num_workers: as in ImageDataModule; images that are in memory load fast enough without.
        loading: the arguments of ImageDataModule; ``image_size`` is that of the picture, and ``mean`` and ``std`` are
            by default those of ``images``.

    Raises:
        InputError: the picture cannot be halved, or a class is none of the data; in ``setup``, that the images have no
            labels or one class alone, or that there are fewer couples.
    """

    def __init__(
        self,
        images: ImageDataModule | None = None,
        pairs: PositiveInt = 1000,
        part: Literal["val", "test"] = "test",
        layout: Layout = "beside",
        squeeze: bool = False,
        seed: Seed = 0,
        classes: list[str | int] | None = None,
        num_workers: SignedInt = 0,
        **loading: Any,
    ) -> None:
        source = Digits() if images is None else images
        height, width = source.image_size
        if not squeeze:
            height, width = (height, 2 * width) if layout == "beside" else (2 * height, width)
        self.MEAN, self.STD = source.mean, source.std  # type: ignore[misc]  # of this object, not of the class
        self.IMAGE_SIZE: tuple[int, int] = (height, width)  # type: ignore[assignment,misc]  # two sides are one too
        super().__init__(num_workers=num_workers, **loading)
        self.pairs, self.part, self.layout, self.squeeze, self.seed = pairs, part, layout, squeeze, seed
        self.classes = [str(name) for name in classes] if classes is not None else None
        for name in self.classes or ():
            if name not in source.class_names:
                raise unknown(f"class of {type(source).__name__}", name, source.class_names)
        height, width = self.image_size
        if (width if layout == "beside" else height) % 2:
            raise InputError(f"TwoObjects: image_size={height, width} cannot be halved for layout={layout}")
        self.half = (height, width // 2) if layout == "beside" else (height // 2, width)
        self.source = copy(source)
        self.source.image_size = self.half  # for how it prepares its images

    @property
    def class_names(self) -> list[str]:
        """The classes of the images."""
        return self.source.class_names

    @property
    def protocol(self) -> dict[str, str | int | float | bool]:
        """The plain values that two measurements must share to be compared."""
        return {
            **super().protocol,
            **{"images": type(self.source).__name__, "part": self.part, "pairs": self.pairs, "seed": self.seed},
            **{"layout": self.layout, "squeeze": self.squeeze, "classes": ", ".join(self.classes or ["all"])},
        }

    def prepare_data(self) -> None:
        """Fetch the images, where their data do so."""
        self.source.prepare_data()

    def load_test(self) -> Split:
        """Choose the couples, as `EvaluationDataModule` says."""
        self.source.setup(STAGES[self.part])
        images, columns = self.source.splits[self.part]
        if "label" not in columns:
            raise InputError(f"TwoObjects needs images with labels, which {type(self.source).__name__} has not")
        column = columns["label"]
        labels = np.asarray([int(column[index]) for index in range(len(column))])
        names = np.asarray(self.class_names)[labels]
        places = np.flatnonzero(np.isin(names, self.classes or names))
        if len(np.unique(labels[places])) < 2:
            where = f"the {self.part} images of {type(self.source).__name__}"
            seen = f"class {names[places[0]]} alone" if len(places) else "none"
            raise InputError(f"TwoObjects needs images of two classes; {where} have {seen}")
        couples = torch.from_numpy(places)[choose_couples(labels[places], self.pairs, self.seed)]
        prepare = v2.Resize(self.half, antialias=True) if self.squeeze else self.source.default_resize()
        masks = halves(self.image_size, self.layout).expand(len(couples), -1, -1, -1)
        pictures = Concatenated(images, couples, prepare, dim=-1 if self.layout == "beside" else -2)
        group = torch.arange(len(couples)) // 2
        return Split(pictures, {"labels": torch.from_numpy(labels)[couples], "masks": masks, "group": group})

    def default_resize(self) -> nn.Module:
        """Nothing: the pictures are made in their size."""
        return nn.Identity()


class Concatenated:
    """Two images each in one picture (3, H, W) uint8, made each time that it is asked for.

    Args:
        images: the images.
        couples: (P, 2) int64, the positions of the two images of each picture.
        prepare: brings an image to the size of a half.
        dim: dimension along which the images follow one another.
    """

    def __init__(self, images: Images, couples: Tensor, prepare: Callable[[Tensor], Tensor], dim: int) -> None:
        self.images, self.couples, self.prepare, self.dim = images, couples, prepare, dim

    def __len__(self) -> int:
        return len(self.couples)

    def __getitem__(self, index: int) -> Tensor:
        return torch.cat([self.prepare(self.images[place]) for place in self.couples[index].tolist()], self.dim)


def halves(size: tuple[int, int], layout: Layout) -> Tensor:
    """Return the masks (2, H, W) bool of the halves of a picture of height and width ``size``: left, right or so."""
    height, width = size
    first = torch.zeros(height, width, dtype=torch.bool)
    if layout == "beside":
        first[:, : width // 2] = True
    else:
        first[: height // 2] = True
    return torch.stack([first, ~first])


def choose_couples(labels: Sequence[int] | np.ndarray, number: int, seed: int) -> Tensor:
    """Return positions (number, 2) int64 of two images of different classes; each couple in both orders, in turn.

    Args:
        labels: the class of each image.
        number: how many; an odd number leaves out the second order of the last couple.
        seed: seed of the draw.

    Raises:
        InputError: there are fewer couples of images.
    """
    classes = np.asarray(labels)
    counts = np.unique(classes, return_counts=True)[1].astype(object)  # Python's integers do not overflow
    most = int(len(classes) ** 2 - (counts**2).sum())
    if number > most:
        raise InputError(f"pairs={number} must be at most {most}, the pairs of images of two classes in both orders")
    generator = np.random.default_rng(seed)
    chosen: dict[tuple[int, int], None] = {}
    while 2 * len(chosen) < number:
        one, other = generator.integers(len(classes), size=2).tolist()
        if classes[one] != classes[other] and (other, one) not in chosen:
            chosen.setdefault((one, other))
    both = [order for one, other in chosen for order in ((one, other), (other, one))]
    return torch.tensor(both[:number])
