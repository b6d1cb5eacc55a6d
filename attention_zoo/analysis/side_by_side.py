"""Figures that show, side by side, what several models read in the same images.

subjects = [Subject(lambda size: model, prepare=resize), Subject(lambda size: other, prepare=resize)]
figure = side_by_side(subjects, {"photo": decode("photo.jpg")}, partial(attention_pictures, query="cls"))
figure.savefig("maps.png")
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from attention_zoo.analysis.figures import Cell, sheet
from attention_zoo.analysis.maps import LayerInput, Pictures, attention_pictures, observe
from attention_zoo.functional.checks import check_finite

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ImageFunction = Callable[[Tensor], Tensor]
"""A function from one uint8 image (3, H, W) to another."""


@dataclass(frozen=True)
class Subject:
    """A model to look at, and how it is shown images.

    Attributes:
        model: returns the model for images of a height and width.
        prepare: resizes an image to the size that the model sees.
        mean: of each channel, for images in 0..1.
        std: of each channel, for images in 0..1.
        class_names: names of the model's outputs; None if its predictions mean nothing.
        name: the model's name in titles, used where another model has the same mixer.
    """

    model: Callable[[tuple[int, int]], nn.Module]
    prepare: ImageFunction
    mean: Sequence[float] = IMAGENET_DEFAULT_MEAN
    std: Sequence[float] = IMAGENET_DEFAULT_STD
    class_names: Sequence[str] | None = None
    name: str | None = None

    def show(self, image: Tensor) -> tuple[nn.Module, Tensor]:
        """Return the model for a uint8 image (3, H, W) of the size it sees, and the image as a batch for it."""
        height, width = image.shape[-2:]
        model = self.model((height, width))
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return model, ((image.float() / 255 - mean) / std)[None].to(next(model.parameters()).device)


def side_by_side(
    subjects: Sequence[Subject],
    images: Mapping[str, Tensor],
    read: Callable[[LayerInput], Pictures] = attention_pictures,
    *,
    layers: str = "last",
    corruptions: Mapping[str, ImageFunction] | None = None,
) -> "Figure":
    """Return a sheet with a row for each image and corruption: the image as the first model sees it, then the models.

    Args:
        subjects: the models.
        images: uint8 (3, H, W) by name.
        read: makes the pictures of a layer, e.g. `step_pictures`.
        layers: which layers to draw, see `observe`.
        corruptions: functions that corrupt an image at the size that a model sees, by name; their rows come after the
            row of the clean image.

    Raises:
        InputError: a model lacks what ``read`` or ``layers`` asks for, or gives a number that is not finite.
    """
    rows, names = [], []
    for name, image in images.items():
        for corruption, corrupt in {"": unchanged, **(corruptions or {})}.items():
            looks = [_look(subject, corrupt(subject.prepare(image)), read, layers) for subject in subjects]
            rows.append([Cell(looks[0].cells[0].image), *(cell for look in looks for cell in look.cells)])
            names.append("\n".join(filter(None, (name, corruption))))
    return sheet(rows, ["image", *_titles(subjects, looks)], names)


class _Look(NamedTuple):
    """The tiles of one model for one image, the mixer that each shows, and further words for the title of each."""

    cells: list[Cell]
    mixers: list[str]
    details: list[str]


def _look(subject: Subject, image: Tensor, read: Callable[[LayerInput], Pictures], layers: str) -> _Look:
    """Return the tiles of ``subject`` for an image (3, H, W) uint8 that has the size the model sees."""
    output, observed = observe(*subject.show(image), layers)
    look = _Look([], [], [])
    for seen in observed:
        for title, picture in read(seen).items():
            check_finite(f"pictures of {type(seen.mixer).__name__}", picture)
            caption = prediction(output, subject.class_names) if not look.cells else ""
            look.cells.append(Cell(image, picture[0].cpu(), caption))
            look.mixers.append(type(seen.mixer).__name__)
            look.details.append(", ".join(filter(None, (f"layer {seen.layer}" * (len(observed) > 1), title))))
    return look


def prediction(logits: Tensor, class_names: Sequence[str] | None) -> str:
    """Return the most probable class, shortened to fit a tile, and its probability; empty without class names."""
    if class_names is None:
        return ""
    probability, label = check_finite("logits", logits)[0].float().softmax(-1).max(-1)
    name = class_names[int(label)]
    return f"{name if len(name) <= 20 else name[:19] + '…'} ({100 * probability:.0f} %)"


def _titles(subjects: Sequence[Subject], looks: Sequence[_Look]) -> list[str]:
    """Return the title of every column: mixer, the model's name or number if mixers are shared, and details."""
    shared = Counter(look.mixers[0] for look in looks)
    titles = []
    for number, (subject, look) in enumerate(zip(subjects, looks, strict=True), 1):
        name = (subject.name or f"model {number}") if shared[look.mixers[0]] > 1 else ""
        lines = zip(look.mixers, [name] * len(look.mixers), look.details, strict=True)
        titles += ["\n".join(filter(None, line)) for line in lines]
    return titles


def unchanged(image: Tensor) -> Tensor:
    """Return the image itself: the corruption of the first row."""
    return image
