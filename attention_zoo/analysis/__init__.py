"""Pictures of who reads whom in a model and of what flows back in it, drawn over the image or as images.

`maps` lists the pictures of a layer, `top_down` has those of two passes, `decoder` the images of signals.
"""

from attention_zoo.analysis.decoder import ImageDecoder, decode_signals, fit_decoder
from attention_zoo.analysis.figures import Cell, overlay, sheet
from attention_zoo.analysis.maps import (
    LayerInput,
    Pictures,
    atom_pictures,
    attention_maps,
    attention_pictures,
    cluster_pictures,
    observe,
    step_pictures,
)
from attention_zoo.analysis.side_by_side import Subject, side_by_side
from attention_zoo.analysis.top_down import Look, top_down_sheet

__all__ = [
    "Cell",
    "ImageDecoder",
    "LayerInput",
    "Look",
    "Pictures",
    "Subject",
    "atom_pictures",
    "attention_maps",
    "attention_pictures",
    "cluster_pictures",
    "decode_signals",
    "fit_decoder",
    "observe",
    "overlay",
    "sheet",
    "side_by_side",
    "step_pictures",
    "top_down_sheet",
]
