"""The clicks of an annotator, as tasks, models and data modules exchange them, and the number of clicks a mask takes.

A click has two forms. `Click` is one click of one person, in a file or in an annotator's memory; `Clicks` are all on
a batch of images, as tensors for a model. `ClickedImage` is everything that a person said about one object.
"""

import math
import reprlib
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field, fields
from numbers import Real
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from attention_zoo.errors import InputError, unknown
from attention_zoo.run_lengths import RunLengths

POSITIVE, NEGATIVE, PADDING = 1, 0, -1
"""The labels of clicks: on the object, on the background, and no click at all."""

LONGEST_SHOWN = 120
"""Characters of a wrong value that an error repeats."""

FARTHEST = 2**24
"""A number of pixels that no side of an image reaches; up to it float32 holds every row and column exactly."""


class _Click(NamedTuple):
    y: float
    x: float
    positive: bool


class Click(_Click):
    """One click: row, column, and whether it is on the object. Equal to the plain tuple of the three.

    Args:
        y: row in pixels; the centre of the first row is 0.
        x: column in pixels.
        positive: whether it is on the object.

    Raises:
        InputError: a coordinate is no finite number of at least 0, or ``positive`` is neither true nor false.
    """

    __slots__ = ()

    def __new__(cls, y: float, x: float, positive: bool) -> Self:
        """Check the values, then make the tuple."""
        if not (_is_number(y) and _is_number(x) and isinstance(positive, bool)):
            raise InputError('a click is {"y": row, "x": column, "positive": true or false}')
        if not (_is_place(y) and _is_place(x)):
            raise InputError(f"the click at y={_short(y)}, x={_short(x)} is outside of every image")
        return super().__new__(cls, y, x, positive)

    @classmethod
    def parse(cls, content: Any) -> Self:
        """Return a click made from plain values ``{"y": row, "x": column, "positive": true or false}``.

        Raises:
            InputError: the content does not have this form.
        """
        if not isinstance(content, Mapping) or content.keys() != set(cls._fields):
            raise InputError('a click is {"y": row, "x": column, "positive": true or false}')
        return cls(**content)


class _Box(NamedTuple):
    y: float
    x: float
    opposite_y: float
    opposite_x: float


class Box(_Box):
    """A box roughly around an object: row and column of one corner, then of the opposite one, in pixels.

    Args:
        y: row of a corner.
        x: column of that corner.
        opposite_y: row of the corner opposite to it.
        opposite_x: column of the opposite corner.

    Raises:
        InputError: a coordinate is no finite number of at least 0.
    """

    __slots__ = ()

    def __new__(cls, y: float, x: float, opposite_y: float, opposite_x: float) -> Self:
        """Check the values, then make the tuple."""
        corners = y, x, opposite_y, opposite_x
        if not all(map(_is_number, corners)):
            raise InputError(f"a box is [row, column, row, column] of two opposite corners, got {_short(corners)}")
        if not all(map(_is_place, corners)):
            raise InputError(f"the box {_short(list(corners))} is outside of every image")
        return super().__new__(cls, *corners)

    @classmethod
    def parse(cls, content: Any) -> Self:
        """Return a box made from a list of its four coordinates.

        Raises:
            InputError: the content does not have this form.
        """
        if not isinstance(content, (list, tuple)) or len(content) != len(cls._fields):
            raise InputError(f"a box is [row, column, row, column] of two opposite corners, got {_short(content)}")
        return cls(*content)


@dataclass(frozen=True)
class ClickedImage:
    """All that an annotator said about one object of an image: an entry of a file of clicks.

    Attributes:
        image: name of the image.
        clicks: the clicks in the order they were made.
        box: a box roughly around the object; None if there is none.
        mask: a mask that the clicks correct; None if there is none.
        setting: options of the model's adaptation by name, which the task checks; None leaves them to the task.
        threshold: probability above which a pixel is of the object; None leaves it to the task.

    Raises:
        InputError: there are neither clicks nor a box nor a mask, or the threshold is not in [0, 1).
    """

    image: str
    clicks: tuple[Click, ...] = ()
    box: Box | None = None
    mask: RunLengths | None = None
    setting: Mapping[str, Any] | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        if not self.clicks and self.box is None and self.mask is None:
            raise InputError("neither clicks nor a box, there is nothing to segment")
        if self.threshold is not None and not (_is_number(self.threshold) and 0 <= self.threshold < 1):
            raise InputError(f"threshold={_short(self.threshold)} must be at least 0 and below 1")
        if self.setting is not None and not isinstance(self.setting, Mapping):
            raise InputError(f"setting must be options by name, got {_short(self.setting)}")

    @classmethod
    def parse(cls, content: Any) -> Self:
        """Return an entry made from plain values ``{"image": name, "clicks": [...], "box": [...], ...}``.

        All but the image may be absent, if there are clicks, a box or a mask.

        Raises:
            InputError: the content does not have this form; the message says what was expected.
        """
        if not isinstance(content, Mapping) or not isinstance(content.get("image"), str):
            raise InputError('no image: expected {"image": path, "clicks": [...]}')
        keys = [each.name for each in fields(cls)]
        for key in content:
            if key not in keys:
                raise unknown("key", str(key), keys)
        clicks, box = content.get("clicks", []), content.get("box")
        if not isinstance(clicks, list):
            raise InputError(f"clicks must be a list, got {_short(clicks)}")
        mask, rest = content.get("mask"), {name: content.get(name) for name in ("setting", "threshold")}
        return cls(
            content["image"],
            tuple(map(Click.parse, clicks)),
            None if box is None else Box.parse(box),
            None if mask is None else RunLengths.parse(mask),
            **rest,
        )

    def plain(self) -> dict[str, Any]:
        """Return the plain values that `parse` takes; what is None is left out."""
        parts = {
            "image": self.image,
            "clicks": [click._asdict() for click in self.clicks],
            "box": None if self.box is None else list(self.box),
            "mask": None if self.mask is None else self.mask.plain(),
            "setting": None if self.setting is None else dict(self.setting),
            "threshold": self.threshold,
        }
        return {name: value for name, value in parts.items() if value is not None}

    @property
    def points(self) -> Tensor:
        """The rows and columns (n, 2) of the clicks, float32, in pixels."""
        return torch.tensor([[click.y, click.x] for click in self.clicks], dtype=torch.float32).view(-1, 2)

    @property
    def labels(self) -> Tensor:
        """The labels (n,) of the clicks, int64: 1 for positive, 0 for negative."""
        return torch.tensor([POSITIVE if click.positive else NEGATIVE for click in self.clicks], dtype=torch.int64)

    @property
    def corners(self) -> Tensor:
        """The coordinates (4,) of the box, float32, in pixels; NaN if there is no box."""
        return torch.tensor([math.nan] * 4 if self.box is None else self.box, dtype=torch.float32)

    def check_inside(self, size: tuple[int, int]) -> None:
        """Refuse clicks, a box and a mask that do not fit the image; corners may be on its far edges.

        Args:
            size: height and width of the image in pixels.

        Raises:
            InputError: a click or the box is outside, or the mask has another size.
        """
        height, width = size
        what = f"is outside the image of {width} x {height} pixels"
        for click in self.clicks:
            if round(click.y) >= height or round(click.x) >= width:
                raise InputError(f"the click at y={click.y:g}, x={click.x:g} {what}")
        box = self.box
        if box and (max(box.y, box.opposite_y) > height or max(box.x, box.opposite_x) > width):
            raise InputError(f"the box {list(box)} {what}")
        if self.mask and self.mask.size != size:
            rows, columns = self.mask.size
            raise InputError(f"a mask of {columns} x {rows} pixels for an image of {width} x {height}")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_place(value: float) -> bool:
    return 0 <= value < FARTHEST  # false of NaN


def _short(value: Any) -> str:
    """Return a value as text for a message, cut if it is long."""
    text = reprlib.repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."


def _no_points() -> Tensor:
    return torch.zeros(1, 0, 2)


def _no_labels() -> Tensor:
    return torch.zeros(1, 0, dtype=torch.int64)


@dataclass(frozen=True)
class Clicks:
    """Clicks on a batch of images, in the order they were made; images with fewer clicks than others are padded.

    Clicks may be outside the image, as happens when a part of it was cut out: whoever knows the whole image
    checks them with `check_inside`.

    Attributes:
        points: (B, n, 2) float32, row and column (y, x) in pixels of the image; the first pixel's centre is (0, 0).
        labels: (B, n) int64: 1 on the object, 0 on the background, -1 padding.
        checked: whether the values are known to be right, as those of moved clicks are, and need no check.

    Raises:
        InputError: the shapes do not fit, a coordinate is NaN or infinite, or a label is none of the three.
    """

    points: Tensor = field(default_factory=_no_points)
    labels: Tensor = field(default_factory=_no_labels)
    checked: InitVar[bool] = False

    def __post_init__(self, checked: bool) -> None:
        if self.points.dim() != 3 or self.points.shape[-1] != 2 or self.labels.shape != self.points.shape[:2]:
            shapes = tuple(self.points.shape), tuple(self.labels.shape)
            raise InputError(f"clicks are points (B, n, 2) and labels (B, n), got {shapes[0]} and {shapes[1]}")
        # what is compiled, or has shapes only, has no values to look at
        if not (checked or torch.compiler.is_compiling() or self.points.is_meta):
            self._check_values()

    def _check_values(self) -> None:
        finite = self.points.isfinite().all(-1)
        known = (self.labels == POSITIVE) | (self.labels == NEGATIVE) | (self.labels == PADDING)
        if (finite & known).all():  # asked once, since an accelerator waits for the answer
            return
        if not finite.all():
            y, x = self.points[~finite][0].tolist()
            raise InputError(f"the click at y={y:g}, x={x:g} is nowhere: coordinates must be finite")
        label = self.labels[~known][0].item()
        raise InputError(f"labels of clicks are {POSITIVE}, {NEGATIVE} and {PADDING} (padding), got {label}")

    @classmethod
    def empty(cls, batch_size: int, device: torch.device | str | None = None) -> Self:
        """Return clicks on ``batch_size`` images that have no click yet."""
        points = torch.zeros(batch_size, 0, 2, device=device)
        return cls(points, torch.zeros(batch_size, 0, dtype=torch.int64, device=device), checked=True)

    @property
    def batch_size(self) -> int:
        """The number of images, B."""
        return len(self.labels)

    @property
    def count(self) -> int:
        """The number of clicks on each image, n, padding included."""
        return self.labels.shape[1]

    def check_inside(self, size: tuple[int, int]) -> None:
        """Refuse clicks outside images whose height and width in pixels are ``size``; padding is ignored.

        Raises:
            InputError: a click is outside.
        """
        rounded = self.points.round()
        inside = ((rounded >= 0) & (rounded < rounded.new_tensor(size))).all(-1) | (self.labels == PADDING)
        if not inside.all():
            y, x = self.points[~inside][0].tolist()
            raise InputError(f"the click at y={y:g}, x={x:g} is outside the image of {size[1]} x {size[0]} pixels")

    def append(self, points: Tensor, labels: Tensor) -> Self:
        """Return these clicks and further ones after them: points (B, 2) or (B, n, 2), labels (B,) or (B, n)."""
        points = points.unsqueeze(1) if points.dim() == 2 else points
        labels = labels.unsqueeze(1) if labels.dim() == 1 else labels
        return self.then(Clicks(points.to(self.points), labels.to(self.labels)))

    def then(self, later: "Clicks") -> Self:
        """Return these clicks and, after them, later clicks on the same images."""
        points, labels = torch.cat([self.points, later.points], 1), torch.cat([self.labels, later.labels], 1)
        return type(self)(points, labels, checked=True)

    def until(self, count: int) -> Self:
        """Return the first ``count`` clicks of each image."""
        return type(self)(self.points[:, :count], self.labels[:, :count], checked=True)

    def flip(self, width: int) -> Self:
        """Return the clicks on the mirrored images (left and right swapped) of images ``width`` pixels wide."""
        mirrored = torch.stack([self.points[..., 0], width - 1 - self.points[..., 1]], -1)
        return type(self)(mirrored, self.labels, checked=True)

    def moved(self, origin: Tensor, scale: Tensor) -> Self:
        """Return the clicks on a part of the image that was cut out and then resized: ``(point - origin) * scale``.

        Args:
            origin: (2,) or (B, 1, 2), row and column of the part's first pixel.
            scale: (2,) or (B, 1, 2), size of the resized part over its size in the image.
        """
        return type(self)((self.points - origin) * scale, self.labels, checked=True)

    def cat(self, other: Self) -> Self:
        """Return the clicks of two batches as one batch, padded to the same number of clicks on each image."""
        longest = max(self.count, other.count)
        first, second = self.padded(longest), other.padded(longest)
        points, labels = torch.cat([first.points, second.points]), torch.cat([first.labels, second.labels])
        return type(self)(points, labels, checked=True)

    def padded(self, count: int) -> Self:
        """Return the clicks with padding up to ``count`` clicks on each image; no click is left out."""
        missing = max(count - self.count, 0)
        points = self.points.new_zeros(self.batch_size, missing, 2)
        return self.then(Clicks(points, self.labels.new_full((self.batch_size, missing), PADDING), checked=True))

    def __getitem__(self, images: slice | Tensor) -> Self:
        """Return the clicks on some of the images."""
        return type(self)(self.points[images], self.labels[images], checked=True)

    def to(self, device: torch.device | str) -> Self:
        """Return the clicks on another device."""
        return type(self)(self.points.to(device), self.labels.to(device), checked=True)


def number_of_clicks(ious: Any, threshold: float, max_clicks: int = 20) -> Tensor:
    """Return the number of clicks that each image takes (NoC): the first after which the IoU is at least ``threshold``.

    Args:
        ious: (images, clicks), IoU after the first click, the second, and so on; an array or a tensor.
        threshold: the IoU that is wanted, such as 0.9.
        max_clicks: the number for images that never reach it; later clicks do not count.

    Returns:
        (images,) int64, 1 to ``max_clicks``.

    Raises:
        InputError: ``ious`` has another shape, no click, or a NaN, or the other arguments are out of range.
    """
    ious = torch.as_tensor(ious)
    if ious.dim() != 2 or not ious.shape[1]:
        raise InputError(f"ious must be (images, clicks) with at least one click, got {tuple(ious.shape)}")
    if ious.isnan().any():
        raise InputError("ious must be numbers, got NaN")
    if not 0 <= threshold <= 1:
        raise InputError(f"threshold={threshold} must be an IoU, in [0, 1]")
    if max_clicks < 1:
        raise InputError(f"max_clicks={max_clicks} must be at least 1")
    reached = ious[:, :max_clicks] >= threshold
    first = reached.to(torch.int64).argmax(1) + 1
    return torch.where(reached.any(1), first, max_clicks)
