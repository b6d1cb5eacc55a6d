"""The benchmarks that classifiers of CIFAR-10 are tested on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from attention_zoo.errors import InputError
from datamodules.cifar10 import CIFAR10, CLASSES
from datamodules.corruptions.generate import SEVERITIES
from datamodules.robustness.base import Clean, Part, RobustnessDataModule
from datamodules.robustness.images import ArrayRows, Labelled, open_array


class CIFAR10Robustness(RobustnessDataModule):
    """CIFAR-10's test images, and CIFAR-10-C (D. Hendrycks, T. Dietterich, ICLR 2019): those that are given.

    Args:
        test: the data of CIFAR-10, in any form that the data module CIFAR10 reads.
        c: folder of ``<corruption>.npy``, uint8 (50000, 32, 32, 3), severity 1 first, and ``labels.npy``.
        kwargs: the arguments of RobustnessDataModule and ImageDataModule.

    Raises:
        InputError: an argument is out of range, or there is no benchmark among them.
    """

    IMAGE_SIZE = CIFAR10.IMAGE_SIZE
    MEAN = CIFAR10.MEAN
    STD = CIFAR10.STD
    SCALE = "cifar"
    C = ("cifar10_c", "CIFAR-10-C")

    def __init__(self, test: str | None = None, c: str | None = None, **kwargs: Any) -> None:
        super().__init__(test, c, **kwargs)

    @property
    def class_names(self) -> list[str]:
        """The ten classes in the official order."""
        return list(CLASSES)

    def parts(self) -> Iterator[Part]:
        """Yield all cells, as `RobustnessDataModule` says: clean and -C."""
        clean = None
        root = self.there(self.clean_root, "CIFAR-10 test images")
        if root is not None:
            split = CIFAR10(str(root)).load(["test"])["test"]
            labels = np.array(split.columns["label"])
            clean = Clean.of(split.images, labels, [str(number) for number in range(len(labels))])
        yield from self.clean_and_corrupted(clean)

    def read_corrupted(self, root: Path) -> Iterator[tuple[str, int, Labelled]]:
        """Yield the cells of the corrupted images, as `RobustnessDataModule` says."""
        labels = _labels(root / "labels.npy")
        side = self.IMAGE_SIZE
        for corruption in self.corruptions:
            path = root / f"{corruption}.npy"
            array = open_array(path)
            if array.dtype != np.uint8 or array.shape != (len(SEVERITIES) * len(labels), side, side, 3):
                raise InputError(
                    f"{path} is {array.dtype} {array.shape}; expected uint8 ({len(SEVERITIES) * len(labels)}, {side}, "
                    f"{side}, 3), as many as {root / 'labels.npy'} has"
                )
            for severity in self.severities:
                yield corruption, severity, Labelled(ArrayRows(path, (severity - 1) * len(labels), len(labels)), labels)


def _labels(path: Path) -> np.ndarray:
    """Labels of one severity, which are those of each."""
    labels = open_array(path)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels) or len(labels) % len(SEVERITIES):
        raise InputError(
            f"{path} is {labels.dtype} {labels.shape}; expected 50000 whole numbers, 10000 for each severity"
        )
    each = np.array(labels, dtype=np.int64).reshape(len(SEVERITIES), -1)
    if (each != each[0]).any() or each.min() < 0 or each.max() >= len(CLASSES):
        raise InputError(f"{path}: expected labels 0 to {len(CLASSES) - 1}, the same ones for each of five severities")
    return each[0]
