"""The two evaluation protocols of the literature: how a model is asked for a mask, click after click."""

from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from torch import Tensor

from attention_zoo.clicks import Clicks
from attention_zoo.domains import Domain, checked, require
from attention_zoo.errors import unknown
from tasks.clicks.annotator import Strategy
from tasks.clicks.domains import NumberFromOne
from tasks.clicks.views import Ask, ClickModel, WholeImages, ZoomIn

LONGEST_SIDE = 2**14
"""The largest longer side, in pixels, to which an image may be enlarged."""


@checked
@dataclass(frozen=True)
class ClickProtocol:
    """An evaluation protocol: number and placing of the clicks, and how the model is asked.

    Attributes:
        clicks: number of clicks for each object.
        threshold: probability above which a pixel is of the object.
        strategy: how the clicks are placed, see `next_click`.
        box: whether the box is given, and with it a mask before the first click.
        flip: average the logits with those of the mirror image.
        zoom_in: longer side of what is looked at from the second click on, in pixels; None: always the whole.

    Raises:
        InputError: one of them is out of range.
    """

    clicks: NumberFromOne
    threshold: Annotated[float, Domain(least=0, below=1)]
    strategy: Strategy
    box: bool
    flip: bool
    zoom_in: Annotated[int, Domain(least=1, most=LONGEST_SIDE)] | None


PROTOCOLS = {
    "paper": ClickProtocol(20, 0.5, "random", box=True, flip=False, zoom_in=None),
    "ritm": ClickProtocol(20, 0.49, "center", box=False, flip=True, zoom_in=400),
}
"""``paper`` is that of P. Gabbur et al., NeurIPS 2021, appendix C.3; ``ritm`` that of K. Sofiiuk et al., ICIP 2022, and
of f-BRS before."""


def asking(
    model: ClickModel, image: Tensor, box: Tensor | None, protocol: ClickProtocol, adaptation: dict[str, Any]
) -> Ask:
    """Return the function by which ``protocol`` asks a model about a batch of images.

    It keeps from click to click what does not change, such as features.

    Args:
        model: in evaluation mode.
        image: (B, 3, H, W), normalised.
        box: (B, 4), or None.
        protocol: the protocol that is followed.
        adaptation: options of the model's ``decode``.
    """
    if protocol.zoom_in is None:
        return WholeImages(model, image, box, flip=protocol.flip, adaptation=adaptation)
    boxes = [None] * len(image) if box is None else box.split(1)
    pairs = zip(image.split(1), boxes, strict=True)
    parts = [asking_one(model, one, its, protocol, adaptation) for one, its in pairs]

    def ask(clicks: Clicks, previous: Tensor) -> Tensor:
        return torch.cat([part(clicks[i : i + 1], previous[i : i + 1]) for i, part in enumerate(parts)])

    return ask


def asking_one(
    model: ClickModel, image: Tensor, box: Tensor | None, protocol: ClickProtocol, adaptation: dict[str, Any]
) -> WholeImages | ZoomIn:
    """Return what `asking` returns for one image (1, 3, H, W), whose `branch` can be asked beside it."""
    if protocol.zoom_in is None:
        return WholeImages(model, image, box, flip=protocol.flip, adaptation=adaptation)
    return ZoomIn(model, image, box, size=protocol.zoom_in, flip=protocol.flip, adaptation=adaptation)


def protocol_of(name: str, clicks: int | None = None, zoom_size: int | None = None) -> ClickProtocol:
    """Return a protocol of `PROTOCOLS`, with other numbers where they are given.

    Args:
        name: name of the protocol.
        clicks: another number of clicks; None keeps the protocol's.
        zoom_size: another size of what is zoomed into, 0 for no zoom; None keeps the protocol's. A protocol that does
            not zoom ignores it.

    Raises:
        InputError: there is no such protocol, or a number is out of range.
    """
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    protocol = PROTOCOLS[name]
    if clicks is not None:
        require("max_clicks", clicks, NumberFromOne)
        protocol = replace(protocol, clicks=clicks)
    if zoom_size is not None:
        require("zoom_size", zoom_size, Annotated[int, Domain(least=0, most=LONGEST_SIDE)])
        protocol = replace(protocol, zoom_in=(zoom_size or None) if protocol.zoom_in else None)
    return protocol
