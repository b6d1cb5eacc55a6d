"""Small files for the tests."""

import numpy as np
from PIL import Image

COLOURS = ("blue", "green", "red")


def write_images(folder, classes, count, size):
    """``count`` images of noise for each class, all different, lossless."""
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            seed = sum(map(ord, str(folder.name))) * 10_000 + label * 100 + i
            noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / name / f"{i:03}.png")


def truncate(path):
    """Cut a file in half: the header stays, so that opening it works and decoding does not."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
