"""Pictures of who reads whom in a model, drawn over the image; `maps` lists the pictures that can be drawn."""

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

__all__ = [
    "Cell",
    "LayerInput",
    "Pictures",
    "Subject",
    "atom_pictures",
    "attention_maps",
    "attention_pictures",
    "cluster_pictures",
    "observe",
    "overlay",
    "sheet",
    "side_by_side",
    "step_pictures",
]
