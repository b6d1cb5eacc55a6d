"""Small files of segmentation data for the tests."""

import numpy as np
from PIL import Image

PALETTE = [(0, 0, 0), (200, 30, 40), (20, 160, 60), (40, 60, 220)]
"""Colours of four classes, far from each other."""


def painted(mask):
    """An image (H, W, 3) that shows each class of ``mask`` (H, W) in its colour."""
    return np.array(PALETTE, dtype=np.uint8)[mask]


def random_mask(seed, size, num_classes=4, block=8):
    """Blocks of random classes, (H, W) uint8."""
    coarse = np.random.default_rng(seed).integers(0, num_classes, (-(-size[0] // block), -(-size[1] // block)))
    return np.kron(coarse, np.ones((block, block)))[: size[0], : size[1]].astype(np.uint8)


def write_pairs(root, part, count, sizes=((24, 32),), images="images", masks="annotations"):
    """``count`` lossless images and masks below ``root``, of the sizes in turn; the colours say the class."""
    for folder in (images, masks):
        (root / folder / part).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        mask = random_mask(sum(map(ord, part)) * 1000 + number, sizes[number % len(sizes)])
        Image.fromarray(mask).save(root / masks / part / f"scene{number:02}.png")
        Image.fromarray(painted(mask)).save(root / images / part / f"scene{number:02}.png")
