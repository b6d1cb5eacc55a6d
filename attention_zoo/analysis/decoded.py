"""Images decoded from the signals of a model's first layer: pictures side by side, and how near they are to the image.

The tech report EECS-2024-49 shows such pictures (Figure 2.9) and says that from the sum of both signals "only the
foreground object is reconstructed". The number for that is the signal-to-noise ratio on the object minus the one beside
it, where it is known which pixels are the object.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attention_zoo.analysis.decoder import ImageDecoder, decode_signals, require_feedback, signal_to_noise
from attention_zoo.analysis.figures import Cell, sheet
from attention_zoo.analysis.maps import evaluating
from attention_zoo.analysis.priors import LEARNED, prior_of
from attention_zoo.analysis.side_by_side import Subject

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BOTTOM_UP = "bottom-up"
"""The signal that no prior changes."""


@dataclass(frozen=True)
class Mask:
    """Which pixels of an image are the object, (H, W) bool each.

    Attributes:
        inside: the object.
        outside: what is beside it; pixels in neither count nowhere.
    """

    inside: Tensor
    outside: Tensor


@dataclass(frozen=True)
class Decoded:
    """An image and what was decoded of it.

    Attributes:
        image: (3, H, W) uint8, as the model sees it.
        pictures: (3, H, W) uint8 by the name of the signal: ``bottom-up``, and for each prior ``top-down`` and ``sum``.
        ratios: signal-to-noise ratios in dB by the name of the signal: of the whole image (``all``), and where there is
            a mask ``inside``, ``outside`` and their ``difference``; without those that no pixel counts for.
    """

    image: Tensor
    pictures: dict[str, Tensor]
    ratios: dict[str, dict[str, float]]


@torch.no_grad()
def decode_image(
    subject: Subject,
    decoder: ImageDecoder,
    image: Tensor,
    priors: Sequence[str] = (LEARNED,),
    alpha: float | None = None,
    mask: Mask | None = None,
) -> Decoded:
    """Return what is decoded from the first layer's signals for an image under each prior.

    Args:
        subject: a model with a top-down pass that feeds back to the first layer.
        decoder: the decoder of its tokens.
        image: (3, H, W) uint8, of the size that the model sees.
        priors: what to look for, see `prior_of`.
        alpha: scale of what is sent back; None is the model's own.
        mask: which pixels are the object.

    Raises:
        InputError: the model feeds nothing back, or there is no such class.
    """
    model, batch = subject.show(image)
    looks = require_feedback(model)
    with evaluating(looks):
        first = looks.first_pass(batch)
    signals: dict[str, Tensor] = {}
    for word in priors:
        seen = decode_signals(looks, decoder, first, prior_of(looks, word, subject.class_names), alpha)
        asked = "learned query" if word == LEARNED else f"prior {word}"
        signals |= {BOTTOM_UP: seen.bottom_up, f"top-down\n{asked}": seen.top_down, f"sum\n{asked}": seen.both}
    truth = image[None].to(batch) / 255
    pictures = {kind: (255 * decoded[0].clamp(0, 1)).round().byte().cpu() for kind, decoded in signals.items()}
    return Decoded(image, pictures, {kind: _ratios(decoded, truth, mask) for kind, decoded in signals.items()})


def _ratios(decoded: Tensor, image: Tensor, mask: Mask | None) -> dict[str, float]:
    """Return the signal-to-noise ratios of `Decoded` for one decoded image (1, 3, H, W)."""
    found = {"all": float(signal_to_noise(decoded, image))}
    for name, where in (("inside", mask.inside), ("outside", mask.outside)) if mask else ():
        found[name] = float(signal_to_noise(decoded, image, where[None].to(image.device)))
    found = {name: ratio for name, ratio in found.items() if math.isfinite(ratio)}
    if {"inside", "outside"} <= found.keys():
        found["difference"] = found["inside"] - found["outside"]
    return found


def decoded_sheet(decoded: Mapping[str, Decoded]) -> "Figure":
    """Return a sheet with a row for each image: the image, then what is decoded from each signal (Figure 2.9).

    Args:
        decoded: what was decoded, by the names of the images; at least one.
    """
    kinds = list(next(iter(decoded.values())).pictures)
    rows = [
        [Cell(each.image), *(Cell(each.pictures[kind], caption=_caption(each.ratios[kind])) for kind in kinds)]
        for each in decoded.values()
    ]
    return sheet(rows, ["image", *kinds], list(decoded))


def _caption(ratios: Mapping[str, float]) -> str:
    if "difference" in ratios:
        return f"in {ratios['inside']:.1f}, out {ratios['outside']:.1f} dB"
    return f"{ratios['all']:.1f} dB"


class Averages:
    """Averages of signal-to-noise ratios over images, kept without the images."""

    def __init__(self) -> None:
        self.sums: dict[str, dict[str, list[float]]] = {}

    def add(self, ratios: Mapping[str, Mapping[str, float]]) -> None:
        """Take the ratios of an image, see `Decoded`."""
        for kind, each in ratios.items():
            for name, ratio in each.items():
                entry = self.sums.setdefault(kind.replace("\n", ", "), {}).setdefault(name, [0, 0.0])
                entry[0] += 1
                entry[1] += ratio

    def record(self) -> dict[str, Any]:
        """Return for each signal the average of each ratio in dB, and the number of images that it is over."""
        return {
            kind: {name: {"psnr": total / number, "images": int(number)} for name, (number, total) in each.items()}
            for kind, each in self.sums.items()
        }
