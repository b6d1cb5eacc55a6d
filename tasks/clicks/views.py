"""Views of a clicked image that a model is shown: the whole, its mirror image, or the object's surroundings."""

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from attention_zoo.clicks import PADDING, POSITIVE, Clicks
from attention_zoo.functional.checks import check_finite

Ask = Callable[[Clicks, Tensor], Tensor]
"""Function from the clicks so far and the probabilities before (B, 1, H, W) to the new ones (B, 1, H, W)."""


class ClickModel(Protocol):
    """The interface that a protocol needs of a model, such as `attention_zoo.models.interactive.InteractiveModel`."""

    encoder_sees_clicks: bool

    def encode(self, image: Tensor, clicks: Clicks, box: Tensor | None = None, previous: Tensor | None = None) -> Any:
        """Return the features of images (B, 3, H, W), in the form that ``decode`` takes."""

    @property
    def decode(self) -> Callable[..., Tensor]:
        """The function from features, clicks and options of adaptation to logits (B, 1, H, W)."""


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
        """Return the probabilities (B, 1, H, W) of the whole images; see `Ask`.

        Raises:
            InputError: a logit is not finite.
        """
        if self.flip:
            clicks, previous = clicks.cat(clicks.flip(self.width)), torch.cat([previous, previous.flip(-1)])
        if self.features is None or self.model.encoder_sees_clicks:
            self.features = self.model.encode(self.image, clicks, self.box, previous)
        logits = self.model.decode(self.features, clicks, **self.adaptation)
        if self.flip:
            here, mirrored = logits.chunk(2)
            logits = (here + mirrored.flip(-1)) / 2
        return check_finite("logits", logits).sigmoid()

    def branch(self) -> Self:
        """Return what asks about the next click, and leaves this one as it is: itself, for no click changes it."""
        return self

    @property
    def whole(self) -> Self:
        """What asks about the whole images: itself."""
        return self


class Window(tuple[int, int, int, int]):
    """A part of an image: its first row, last row, first column and last column."""

    @classmethod
    def around(cls, mask: Tensor, expansion: float, least: int) -> "Window":
        """Return the window around a mask, enlarged and then cut to the image.

        Args:
            mask: (H, W) bool, not empty.
            expansion: factor by which the sides of the mask's bounding box grow.
            least: least side in pixels, before the window is cut.
        """
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
        """The number of rows."""
        return self[1] - self[0] + 1

    @property
    def width(self) -> int:
        """The number of columns."""
        return self[3] - self[2] + 1

    def holds(self, points: Tensor) -> bool:
        """Return whether all points (n, 2) are inside; the last row and column count as outside."""
        inside = (points >= points.new_tensor([self[0], self[2]])) & (points < points.new_tensor([self[1], self[3]]))
        return bool(inside.all())

    def overlap(self, other: "Window") -> float:
        """Return the intersection over union of rows times that of columns (as RITM does)."""
        shares = []
        for low, high in ((0, 1), (2, 3)):
            shared = max(min(self[high], other[high]) - max(self[low], other[low]) + 1, 0)
            covered = max(self[high], other[high]) - min(self[low], other[low]) + 1
            shares.append(shared / covered)
        return shares[0] * shares[1]

    def cut(self, image: Tensor) -> Tensor:
        """Return the window of images (B, C, H, W), as a view of them."""
        return image[..., self[0] : self[1] + 1, self[2] : self[3] + 1]

    def placing(self, size: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
        """Return origin and scale (2,) for `Clicks.moved` where the window is resized to ``size``.

        Args:
            size: height and width of the resized window.
            like: tensor whose dtype and device both have.
        """
        scale = [size[0] / self.height, size[1] / self.width]
        return like.new_tensor([self[0], self[2]]), like.new_tensor(scale)


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
        flip: see `WholeImages`.
        adaptation: see `WholeImages`.
    """

    SKIP, EXPANSION, LEAST, SAME = 1, 1.4, 200, 0.5
    """Clicks without zoom, growth of the window, its least side in pixels, overlap from which a window stays."""

    def __init__(self, model: ClickModel, image: Tensor, box: Tensor | None, *, size: int, **options: Any) -> None:
        self.model, self.image, self.box, self.size, self.options = model, image, box, size, options
        self.whole = WholeImages(model, image, box, **options)
        self.window: Window | None = None
        self.near: WholeImages | None = None

    def __call__(self, clicks: Clicks, previous: Tensor) -> Tensor:
        """Return the probabilities (1, 1, H, W) of the image, 0 outside of the window once there is one; see `Ask`."""
        clicked = clicks.labels[0] != PADDING
        if int(clicked.sum()) > self.SKIP:
            self._move(clicks.points[0][clicks.labels[0] == POSITIVE], previous)
        if self.window is None or self.near is None:
            return self.whole(clicks, previous)
        window, size = self.window, tuple(self.near.image.shape[-2:])
        before = F.interpolate(window.cut(previous), size, mode="bilinear", align_corners=True)
        seen = self.near(clicks.moved(*window.placing(size, clicks.points)), before)
        probability = torch.zeros_like(previous)
        inside = F.interpolate(seen, (window.height, window.width), mode="bilinear", align_corners=True)
        window.cut(probability).copy_(inside)
        return probability

    def branch(self) -> Self:
        """Return what asks about the next click, and leaves this one, and its window, as it is."""
        return copy(self)

    def _move(self, positive: Tensor, previous: Tensor) -> None:
        """Take a new window if there is none, a positive click is outside of it, or the mask has moved away.

        An empty mask changes nothing.
        """
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
        size = max(round(window.height * scale), 1), max(round(window.width * scale), 1)
        image = F.interpolate(window.cut(self.image), size, mode="bilinear", align_corners=True)
        box = self.box
        if box is not None:
            origin, scales = window.placing(size, box)
            box = ((box.view(1, 2, 2) - origin) * scales).view(1, 4)
        self.near = WholeImages(self.model, image, box, **self.options)
