"""PACS's domains side by side: the held-out images of those that a model was trained on, and the one left out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from attention_zoo.errors import InputError
from datamodules.pacs import PACS
from datamodules.robustness.base import Facts, Part, RobustnessDataModule
from datamodules.robustness.images import Labelled


class PACSRobustness(RobustnessDataModule):
    """Images of the source domains that validated, called clean, and those of the target domain, in one pass.

    Which images validate is as in `PACS` with the same ``target``, ``holdout`` and ``lists``; if a training chose its
    model by them, the number under ``clean`` is that much too good.

    Args:
        root: the folder with the four domains.
        target: the domain that was left out of training.
        holdout: share of the images of each source domain that validated.
        lists: folder with the authors' lists, see `PACS`.
        kwargs: the arguments of RobustnessDataModule and ImageDataModule.

    Raises:
        InputError: an argument is out of range, or ``target`` is no domain.
    """

    IMAGE_SIZE = PACS.IMAGE_SIZE
    MEAN = PACS.MEAN
    STD = PACS.STD
    SCALE = "imagenet"
    C = ("pacs_c", "PACS-C")

    def __init__(self, root: str, target: str, holdout: float = 0.2, lists: str | None = None, **kwargs: Any) -> None:
        super().__init__(None, None, **kwargs)
        if self.c_generated:
            raise InputError("c_generated: there are no corruptions of PACS")
        self.pacs = PACS(root, target, holdout, lists, image_size=self.image_size)

    @property
    def class_names(self) -> list[str]:
        """The seven classes that all domains share."""
        return self.pacs.class_names

    def default_resize(self) -> nn.Module:
        """The centre of the image, as on ImageNet."""
        return self.pacs.default_resize()

    @property
    def clean_facts(self) -> Facts:
        """How images are prepared, and what was left out of training."""
        prepared = f"centre of {self.image_size[0]} x {self.image_size[1]}"
        return {"preprocessing": prepared, "left_out": self.pacs.target}

    def parts(self) -> Iterator[Part]:
        """Yield the images of the source domains that validated, and those of the target domain."""
        splits = self.pacs.load(["val", "test"])
        names = {"val": ("clean", "own domains"), "test": (f"pacs_{self.pacs.target}", self.pacs.target)}
        for part, name in names.items():
            images, columns = splits[part]
            labels = np.array([columns["label"][place] for place in range(len(images))], dtype=np.int64)
            yield self.part(self.benchmark(*name, self.clean_facts), Labelled(images, labels))

    def read_corrupted(self, root: Path) -> Iterator[tuple[str, int, Labelled]]:
        """Yield nothing: there are no corruptions of PACS."""
        yield from ()
