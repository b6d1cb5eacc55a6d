"""How a model is asked, click after click: the two evaluation protocols of the literature, and their extras."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from attention_zoo.clicks import PADDING, POSITIVE, Clicks
from attention_zoo.functional.checks import check_finite
from attention_zoo.seeding import derive_seed
from tasks.clicks import Click, next_click


class ClickModel(Protocol):
    """What a protocol needs of a model; see `attention_zoo.models.interactive.InteractiveModel`."""

    encoder_sees_clicks: bool

    def encode(self, image: Tensor, clicks: Clicks, box: Tensor | None = None, previous: Tensor | None = None) -> Any:
        """Features of images (B, 3, H, W)."""

    def decode(self, features: Any, clicks: Clicks, **adaptation: Any) -> Tensor:
        """Logits (B, 1, H, W)."""


@dataclass(frozen=True)
class ClickProtocol:
    """What an evaluation consists of.

    Attributes:
        clicks: how many, for each object.
        threshold: probability above which a pixel is of the object.
        strategy: of `next_click`.
        box: whether the box is given, and with it a mask before the first click.
        flip: average the logits with those of the mirror image.
        zoom_in: longer side of what is looked at from the second click on, in pixels; None: always the whole.
    """

    clicks: int
    threshold: float
    strategy: str
    box: bool
    flip: bool
    zoom_in: int | None


PROTOCOLS = {
    "paper": ClickProtocol(20, 0.5, "random", box=True, flip=False, zoom_in=None),
    "ritm": ClickProtocol(20, 0.49, "center", box=False, flip=True, zoom_in=400),
}
"""``paper``: P. Gabbur et al., NeurIPS 2021, appendix C.3. ``ritm``: K. Sofiiuk et al., ICIP 2022, and f-BRS before."""

Ask = Callable[[Clicks, Tensor], Tensor]
"""Clicks so far and the probabilities before (B, 1, H, W) to the probabilities (B, 1, H, W)."""


def asking(
    model: ClickModel, image: Tensor, box: Tensor | None, protocol: ClickProtocol, adaptation: dict[str, Any]
) -> Ask:
    """How ``protocol`` asks a model about a batch of images; what can be kept from click to click is.

    Args:
        model: in evaluation mode.
        image: (B, 3, H, W), normalised.
        box: (B, 4), or None.
        protocol: which.
        adaptation: options of the model's ``decode``.
    """
    if protocol.zoom_in is None:
        return WholeImages(model, image, box, flip=protocol.flip, adaptation=adaptation)
    boxes = [None] * len(image) if box is None else box.split(1)
    parts = [
        ZoomIn(model, one, its, size=protocol.zoom_in, flip=protocol.flip, adaptation=adaptation)
        for one, its in zip(image.split(1), boxes, strict=True)
    ]

    def ask(clicks: Clicks, previous: Tensor) -> Tensor:
        return torch.cat([part(clicks[i : i + 1], previous[i : i + 1]) for i, part in enumerate(parts)])

    return ask


class WholeImages:
    """Asks about all of the images; encodes them once where the clicks do not enter the encoder.

    Args:
        model: in evaluation mode.
        image: (B, 3, H, W), normalised.
        box: (B, 4), or None.
        flip: average the logits with those of the mirror image.
        adaptation: options of the model's ``decode``.
    """

    def __init__(
        self, model: ClickModel, image: Tensor, box: Tensor | None, *, flip: bool, adaptation: dict[str, Any]
    ) -> None:
        self.model, self.flip, self.adaptation = model, flip, adaptation
        self.width = image.shape[-1]
        self.image = torch.cat([image, image.flip(-1)]) if flip else image
        self.box = box
        if flip and box is not None:
            mirrored = box.clone()
            mirrored[:, 1::2] = self.width - 1 - box[:, 1::2]
            self.box = torch.cat([box, mirrored])
        self.features: Any = None

    def __call__(self, clicks: Clicks, previous: Tensor) -> Tensor:
        """See `Ask`."""
        if self.flip:
            clicks, previous = clicks.cat(clicks.flip(self.width)), torch.cat([previous, previous.flip(-1)])
        if self.features is None or self.model.encoder_sees_clicks:
            self.features = self.model.encode(self.image, clicks, self.box, previous)
        logits = self.model.decode(self.features, clicks, **self.adaptation)
        if self.flip:
            here, mirrored = logits.chunk(2)
            logits = (here + mirrored.flip(-1)) / 2
        return check_finite("logits", logits).sigmoid()


class Window(tuple[int, int, int, int]):
    """First row, last row, first column and last column of a part of an image."""

    @classmethod
    def around(cls, mask: Tensor, expansion: float, least: int) -> "Window":
        """The window of a mask (H, W) bool that is not empty, made larger and then cut to the image."""
        sides = []
        for axis, length in ((1, mask.shape[0]), (0, mask.shape[1])):
            places = mask.any(axis).nonzero()
            first, last = int(places[0]), int(places[-1])
            half = max(expansion * (last - first + 1), least) / 2
            centre = (first + last) / 2
            sides += [max(round(centre - half), 0), min(round(centre + half), length - 1)]
        return cls(sides)

    @property
    def height(self) -> int:
        """Rows."""
        return self[1] - self[0] + 1

    @property
    def width(self) -> int:
        """Columns."""
        return self[3] - self[2] + 1

    def holds(self, points: Tensor) -> bool:
        """Whether all points (n, 2) are inside; the last row and column are not."""
        inside = (points >= points.new_tensor([self[0], self[2]])) & (points < points.new_tensor([self[1], self[3]]))
        return bool(inside.all())

    def overlap(self, other: "Window") -> float:
        """Intersection over union, taken apart for rows and columns and multiplied (as RITM does)."""
        shares = []
        for low, high in ((0, 1), (2, 3)):
            shared = max(min(self[high], other[high]) - max(self[low], other[low]) + 1, 0)
            covered = max(self[high], other[high]) - min(self[low], other[low]) + 1
            shares.append(shared / covered)
        return shares[0] * shares[1]

    def cut(self, image: Tensor) -> Tensor:
        """The part of images (B, C, H, W)."""
        return image[..., self[0] : self[1] + 1, self[2] : self[3] + 1]


class ZoomIn:
    """Asks about the surroundings of the object, enlarged, as soon as a second click has been made.

    The window is the predicted mask's with all positive clicks, ``EXPANSION`` times as large. It stays as long as it
    holds all positive clicks and the window that would be taken next is much the same. (K. Sofiiuk et al., f-BRS, CVPR
    2020, and RITM.)

    Args:
        model: in evaluation mode.
        image: (1, 3, H, W), normalised.
        box: (1, 4), or None.
        size: longer side of what the model is given, in pixels.
        flip: as of `WholeImages`.
        adaptation: as of `WholeImages`.
    """

    SKIP, EXPANSION, LEAST, SAME = 1, 1.4, 200, 0.5
    """Clicks before the first zoom, growth of the window, its least side in pixels, overlap of windows that stay."""

    def __init__(self, model: ClickModel, image: Tensor, box: Tensor | None, *, size: int, **options: Any) -> None:
        self.model, self.image, self.box, self.size, self.options = model, image, box, size, options
        self.whole = WholeImages(model, image, box, **options)
        self.window: Window | None = None
        self.near: WholeImages | None = None

    def __call__(self, clicks: Clicks, previous: Tensor) -> Tensor:
        """See `Ask`; of one image."""
        made = clicks.labels[0] != PADDING
        if int(made.sum()) > self.SKIP:
            self._move(clicks.points[0][clicks.labels[0] == POSITIVE], previous)
        if self.window is None:
            return self.whole(clicks, previous)
        window, size = self.window, tuple(self.near.image.shape[-2:])
        near = Clicks(self._points(clicks.points), clicks.labels)
        seen = self.near(near, F.interpolate(window.cut(previous), size, mode="bilinear", align_corners=True))
        found = torch.zeros_like(previous)
        inside = F.interpolate(seen, (window.height, window.width), mode="bilinear", align_corners=True)
        window.cut(found).copy_(inside)
        return found

    def _move(self, positive: Tensor, previous: Tensor) -> None:
        """Look elsewhere if the mask has moved on."""
        mask = previous[0, 0] > 0.5
        if not mask.any():
            return
        places = positive.long()
        mask[places[:, 0], places[:, 1]] = True
        window = Window.around(mask, self.EXPANSION, self.LEAST)
        if self.window and self.window.holds(positive) and window.overlap(self.window) >= self.SAME:
            return
        self.window = window
        scale = self.size / max(window.height, window.width)
        size = round(window.height * scale), round(window.width * scale)
        image = F.interpolate(window.cut(self.image), size, mode="bilinear", align_corners=True)
        box = None if self.box is None else self._points(self.box.view(1, 2, 2), size).view(1, 4)
        self.near = WholeImages(self.model, image, box, **self.options)

    def _points(self, points: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """Points (..., 2) in the window."""
        size = self.near.image.shape[-2:] if size is None else size
        scale = points.new_tensor([size[0] / self.window.height, size[1] / self.window.width])
        return (points - points.new_tensor([self.window[0], self.window[2]])) * scale


@dataclass(frozen=True)
class Session:
    """What came of asking about a batch of objects.

    Attributes:
        ious: (B, clicks + 1) float64, before the first click and after each; before the first and without a box, 0.
        made: (B,) int64, clicks until nothing was wrong any more, or all.
        prediction: (B, H, W) bool, the last masks.
        history: the clicks on each.
    """

    ious: Tensor
    made: Tensor
    prediction: Tensor
    history: list[list[Click]]


def simulate(ask: Ask, mask: Tensor, protocol: ClickProtocol, seeds: Sequence[int]) -> Session:
    """An annotator clicks at what is wrong until there is no click left.

    An object whose mask is right keeps it, and gets no further click.

    Args:
        ask: the model.
        mask: (B, H, W) uint8: 1 object, 0 background, 255 ignored.
        protocol: which.
        seeds: of each object's clicks.
    """
    target, ignore = mask == 1, mask == 255
    on_cpu = target.cpu().numpy(), ignore.cpu().numpy()
    generators = [np.random.default_rng(seed) for seed in seeds]
    clicks, history = Clicks.empty(len(mask), mask.device), [[] for _ in seeds]
    probability = torch.zeros(len(mask), 1, *mask.shape[1:], device=mask.device)
    if protocol.box:
        probability = ask(clicks, probability)
    prediction = probability[:, 0] > protocol.threshold
    ious = [iou(prediction, target, ignore)]
    for _ in range(protocol.clicks):
        found = _next_clicks(prediction.cpu().numpy(), *on_cpu, history, protocol.strategy, generators)
        if any(found):
            clicks = _appended(clicks, found)
            wrong = torch.tensor([click is not None for click in found], device=mask.device)
            probability = torch.where(wrong[:, None, None, None], ask(clicks, probability), probability)
            prediction = probability[:, 0] > protocol.threshold
        ious.append(iou(prediction, target, ignore) if any(found) else ious[-1])
    return Session(torch.stack(ious, 1), torch.tensor([len(one) for one in history]), prediction, history)


def _next_clicks(
    prediction: np.ndarray,
    target: np.ndarray,
    ignore: np.ndarray,
    history: list[list[Click]],
    strategy: str,
    generators: Sequence[np.random.Generator],
) -> list[Click | None]:
    """The next click on each object, also appended to its history."""
    found = []
    for place, (made, generator) in enumerate(zip(history, generators, strict=True)):
        masks = prediction[place], target[place]
        click = next_click(*masks, ignore=ignore[place], clicks=made, strategy=strategy, generator=generator)
        made += [] if click is None else [click]
        found.append(click)
    return found


def _appended(clicks: Clicks, found: Sequence[Click | None]) -> Clicks:
    points = torch.tensor([click[:2] if click else (0, 0) for click in found], dtype=torch.float32)
    return clicks.append(points, torch.tensor([int(click[2]) if click else PADDING for click in found]))


def iou(prediction: Tensor, target: Tensor, ignore: Tensor) -> Tensor:
    """Intersection over union (B,) float64 of masks (B, H, W) bool where pixels are not ignored; 1 without any."""
    union = ((prediction | target) & ~ignore).sum((1, 2)).double()
    shared = (prediction & target & ~ignore).sum((1, 2)).double()
    return torch.where(union > 0, shared / union.clamp(min=1), 1.0)


def click_seeds(run: int, index: Sequence[int]) -> list[int]:
    """Seeds of the clicks on the samples ``index`` of a split; the same whatever is evaluated, and with whom."""
    return [derive_seed(run, CLICK_SALT, max(place, 0)) for place in index]


CLICK_SALT = 0xC11C
"""Sets the seeds of clicks apart from those of views, steps and samples."""


def protocol_of(name: str, clicks: int | None, zoom_size: int | None) -> ClickProtocol:
    """The protocol of a name, with another number of clicks or another size of what is zoomed into (0: no zoom)."""
    protocol = PROTOCOLS[name]
    protocol = protocol if clicks is None else replace(protocol, clicks=clicks)
    if zoom_size is None or protocol.zoom_in is None:
        return protocol
    return replace(protocol, zoom_in=zoom_size or None)
