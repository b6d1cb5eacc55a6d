"""Pictures of the query that takes each pixel at every layer of a mask decoder, drawn as kMaX-DeepLab shows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from attention_zoo.analysis.figures import Cell, sheet
from attention_zoo.models.mask_decoder import MaskOutputs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NO_LABEL = -1
"""The label of a pixel that has no class; the picture leaves it grey."""


@dataclass(frozen=True)
class Scene:
    """The contents of one row of the sheet.

    Attributes:
        image: (3, H, W) uint8, the image.
        layers: for each prediction of the decoder, the query (h, w) int64 that every pixel belongs to.
        predicted: (H, W) int64, the predicted class of every pixel.
        label: (H, W) int64, the true class; `NO_LABEL` where there is none.
    """

    image: Tensor
    layers: Sequence[Tensor]
    predicted: Tensor
    label: Tensor


def assignments(outputs: MaskOutputs) -> list[Tensor]:
    """Return the query of each pixel, (B, h, w) int64, for every layer of the decoder; the final prediction is last."""
    return [prediction.mask_logits.argmax(1) for prediction in outputs.predictions]


def assignment_sheet(scenes: Sequence[Scene]) -> "Figure":
    """Return a sheet with a row for each scene: image, assignment at every layer, predicted and true classes.

    A colour stands for one query in all assignments of an image, and for one class in the last two columns.
    """
    depth = len(scenes[0].layers) - 1
    titles = ["image", *(f"layer {number}" for number in range(1, depth + 1)), "final", "classes", "label"]
    rows = [
        [Cell(scene.image), *(Cell(scene.image, x) for x in (*scene.layers, scene.predicted, scene.label))]
        for scene in scenes
    ]
    return sheet(rows, titles)
