"""Masks of several models side by side: image, annotation, and one column for each folder that ``predict`` wrote.

    python results/masks.py OUT.png IMAGES ANNOTATIONS NAME=FOLDER [NAME=FOLDER ...]

IMAGES are the photographs predicted on; ANNOTATIONS has index masks of their names, of which any more are left out.
"""

import csv
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Patch
from PIL import Image


def main(out: str, images: str, annotations: str, *models: str) -> None:
    """Draw the figure and write it to ``out``."""
    folders = {name: Path(folder) for name, _, folder in (model.partition("=") for model in models)}
    first = next(iter(folders.values()))
    photographs = sorted(Path(images).iterdir())
    with (first / "legend.csv").open() as file:
        classes = list(csv.DictReader(file))
    palette = np.array([[int(row[colour]) for colour in ("red", "green", "blue")] for row in classes])
    figure, rows = plt.subplots(
        len(photographs), 2 + len(folders), figsize=(2.4 * (2 + len(folders)), 1.9 * len(photographs)), squeeze=False
    )
    for photograph, row in zip(photographs, rows, strict=True):
        row[0].imshow(Image.open(photograph))
        row[1].imshow(coloured(Path(annotations) / f"{photograph.stem}.png", palette))
        for folder, axes in zip(folders.values(), row[2:], strict=True):
            axes.imshow(coloured(folder / "masks" / f"{photograph.stem}.png", palette))
    for title, axes in zip(("image", "annotation", *folders), rows[0], strict=True):
        axes.set_title(title, fontsize=9)
    for axes in rows.flat:
        axes.axis("off")
    patches = [Patch(color=colour / 255, label=row["class"]) for colour, row in zip(palette, classes, strict=True)]
    figure.subplots_adjust(0.005, 0.1, 0.995, 0.94, wspace=0.03, hspace=0.04)
    figure.legend(handles=patches, loc="lower center", ncol=len(patches), frameon=False, fontsize=9)
    figure.savefig(out, dpi=110)


def coloured(path: Path, palette: np.ndarray) -> np.ndarray:
    """An index mask in the colours of the palette; what is annotated as no class is white."""
    indices = np.array(Image.open(path))
    colours = np.vstack([palette, [[255, 255, 255]]])
    return colours[np.minimum(indices, len(palette))].astype(np.uint8)


if __name__ == "__main__":
    main(*sys.argv[1:])
