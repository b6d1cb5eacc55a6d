"""Cut the objects of CamVid out once, so that a training need not decode whole photographs again and again.

    python results/key_adaptation/cut_objects.py CAMVID OUT

OUT is a root of ``MaskFolder``. Each object is in the middle of a view of 128 x 128 pixels with 0.4 of its box around
it, which leaves room for the padding of 0.25 and the noise of 0.05 that a training cuts it out with at 64 x 64.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from datamodules import CamVidObjects
from datamodules.interactive.crops import Viewing

LEAST = {"train": 900, "val": 1600, "test": 1600}
"""The pixels that an object must have, by part."""


def main(camvid: str, out: str) -> None:
    """Write the objects of all parts of the data set ``camvid`` below the folder ``out``."""
    for part, least in LEAST.items():
        data = CamVidObjects(camvid, image_size=128, padding=0.4, corner_noise=0.0, min_area=least)
        split = data.load([part])[part]
        folder = Path(out) / part
        for kind in ("images", "masks"):
            (folder / kind).mkdir(parents=True)
        for place, (image, objects) in enumerate(zip(split.images, split.columns["objects"], strict=True)):
            write(image, objects.mask(objects.numbers[0]), data.viewing, folder, f"{place:04}.png")


def write(image: Tensor, mask: Tensor, viewing: Viewing, folder: Path, name: str) -> None:
    """Write one object's view and its mask: 255 on the object, 128 where nothing counts."""
    view = viewing.around(image, mask)
    Image.fromarray(view.image.permute(1, 2, 0).numpy()).save(folder / "images" / name)
    grey = np.array([0, 255, 128], dtype=np.uint8)[view.mask.clamp(max=2).numpy()]
    Image.fromarray(grey).save(folder / "masks" / name)


if __name__ == "__main__":
    main(*sys.argv[1:])
