"""Draw what a layer of a trained ViT-S/14 reads in a photograph, by eight readings of the same queries, keys, values.

    python results/maps/eight_readings.py --weights WEIGHTS.pth --queries '["6,9", "12,22"]'

Only the layer that is looked at has another mixer: all eight see the same tokens. Nothing is trained.
"""

import copy
from functools import partial
from pathlib import Path

import skimage
import timm
import torch
from jsonargparse import auto_cli
from torch import Tensor
from torchvision.transforms import v2

import attention_zoo as az
from attention_zoo.analysis.figures import Cell, sheet
from attention_zoo.analysis.maps import attention_pictures, observe
from datamodules.images import decode

MODEL, PATCH = "vit_small_patch14_dinov2", 14
CAT = Path(skimage.data.__file__).with_name("chelsea.png")
"""A photograph that comes with scikit-image, in the public domain."""
READINGS = {
    "dot product": "DotProduct",
    "in neighbourhoods\n7 x 7": partial(az.MIXERS["Neighborhood"], kernel=7),
    "doubly stochastic\n(Sinkhorn, 5 half-steps)": partial(az.MIXERS["Sinkhorn"], iterations=5),
    "twice (Twicing)": "Twicing",
    "Hopfield retrieval\n1 step": partial(az.MIXERS["Hopfield"], steps=1),
    "mixture, keys\nadapted once": partial(az.MIXERS["Probabilistic"], key_adaptation=1),
    "robust mean\n(Pro, L1)": partial(az.MIXERS["Pro"], penalty="l1", distance_gradient=False),
    "sparse reconstruction\n(VARS-D)": "VarsD",
}
"""What is drawn, by title."""


def main(
    weights: Path,
    queries: list[str],
    photo: Path = CAT,
    layer: int = 8,
    rows: int = 16,
    out: Path = Path("results/maps/eight_readings.png"),
) -> None:
    """Write the figure.

    Args:
        weights: a state dict of timm's ``vit_small_patch14_dinov2``.
        queries: places of the grid, as ROW,COLUMN from 0, whose reading is drawn beside that of the average token.
        photo: an image file.
        layer: the layer that is looked at, from 0.
        rows: rows of the token grid; the columns follow from the photograph's aspect.
        out: file to write.
    """
    image = decode(str(photo))
    height, width = rows * PATCH, round(rows * image.shape[2] / image.shape[1]) * PATCH
    image = v2.functional.resize(image, [height, width], v2.InterpolationMode.BICUBIC, antialias=True)
    model = timm.create_model(MODEL, checkpoint_path=str(weights)).eval()
    model.set_input_size((height, width))
    mean, std = (torch.tensor(model.pretrained_cfg[name])[:, None, None] for name in ("mean", "std"))
    batch = ((image.float() / 255 - mean) / std)[None]
    lines: list[list[Cell]] = [[Cell(marked(image, query))] for query in ("mean", *queries)]
    for mixer in READINGS.values():
        torch.manual_seed(0)  # of the random features of VARS-D
        reader = az.swap_mixers(copy.deepcopy(model), layers={str(layer): mixer})
        (seen,) = observe(reader, batch, str(layer)).layers
        for line, query in zip(lines, ("mean", *queries), strict=True):
            line.append(Cell(image, attention_pictures(seen, query)[""][0]))
    figure = sheet(lines, ["image", *READINGS], ["average token", *(f"token {query}" for query in queries)])
    figure.savefig(out, dpi=80)


def marked(image: Tensor, query: str) -> Tensor:
    """Return the image (3, H, W) with a red frame around the patch of a query, if it is one."""
    if query == "mean":
        return image
    top, left = (int(place) * PATCH for place in query.split(","))
    framed, inside = image.clone(), image[:, top + 2 : top + PATCH - 2, left + 2 : left + PATCH - 2].clone()
    framed[:, top : top + PATCH, left : left + PATCH] = torch.tensor([255, 0, 0], dtype=image.dtype)[:, None, None]
    framed[:, top + 2 : top + PATCH - 2, left + 2 : left + PATCH - 2] = inside
    return framed


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
