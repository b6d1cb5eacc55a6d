"""Measure the cost of the corruptions: the package imagecorruptions-imaug over ours, on one image of 224 x 224.

    python benchmarks/corruptions.py [--pairs 5]

Times are CPU seconds of this process. Every call makes all five severities, ours of one `Picture`, as the command
``corrupt`` and robustness evaluation do. Both make the same images except for frost, and for elastic_transform, where
that package has another, simpler algorithm. The first case is ours alone: what a picture saves that is shared over the
severities.
"""

from collections.abc import Callable, Iterator, Sequence

import cv2
import imagecorruptions
import numpy as np
import skimage.data
import torch
from jsonargparse import auto_cli
from timing import Case, compare

from datamodules.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, Picture, corrupt

SEVERITIES = range(1, 6)


def main(pairs: int = 5, size: int = 224) -> None:
    """Time all cases and print a table.

    Args:
        pairs: the number of interleaved repetitions.
        size: the height and width of the image, in pixels.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    image = cv2.resize(skimage.data.chelsea()[:300, 75:375], (size, size))
    compare(cases(image), pairs, cpu_time=True)


def cases(image: np.ndarray) -> Iterator[Case]:
    """Yield the cases of the benchmark's 15 corruptions together, then one for each corruption."""
    shared, alone = (by_us(image, CORRUPTIONS, share) for share in (True, False))
    yield Case("all 15: each severity alone / of one picture", alone, shared, "> 1")
    for title, names, goal in (
        ("all 15", CORRUPTIONS, "> 1.5"),
        *((name, [name], "") for name in CORRUPTIONS + EXTRA_CORRUPTIONS),
    ):
        yield Case(f"{title}: package / ours", by_package(image, names), by_us(image, names), goal)


def by_package(image: np.ndarray, names: Sequence[str]) -> Callable[[], None]:
    """Return a call that makes the corruptions at all severities with the package."""

    def call() -> None:
        for name in names:
            for severity in SEVERITIES:
                imagecorruptions.corrupt(image, severity, name)

    return call


def by_us(image: np.ndarray, names: Sequence[str], share: bool = True) -> Callable[[], None]:
    """Return a call that makes the corruptions at all severities with our code, of one picture or of the image."""

    def call() -> None:
        source = Picture(image) if share else image
        for name in names:
            for severity in SEVERITIES:
                corrupt(source, name, severity)

    return call


if __name__ == "__main__":
    auto_cli(main)
