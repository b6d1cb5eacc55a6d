"""Benchmarks of fine or faulty masks: DAVIS-585, which starts from masks to correct, and HQSeg-44K."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from attention_zoo.errors import InputError, unknown
from datamodules.decoding import decode_colours
from datamodules.images import ImageFiles, Split, matches
from datamodules.interactive.base import InteractiveDataModule
from datamodules.interactive.folder import objects_of, pair_objects
from datamodules.interactive.objects import CorrectedFiles, read_bright

InitialMask = Literal["sp", "stm", "zero"]
INITIAL = "init"
"""A part of the names of all masks to start from."""


class DAVIS585(InteractiveDataModule):
    """DAVIS-585: 585 objects of DAVIS, each with faulty masks to start from (X. Chen et al., FocalClick, CVPR 2022).

    A batch has ``initial`` (B, H, W) uint8 as well, 1 in the mask that the first click corrects. For number of clicks
    at 95 % IoU and failures, see ``noc_95``.

    Args:
        root: holds a folder for each sequence, with ``FRAME.jpg``, ``OBJECT_FRAME.png``, the object, and
            ``init_sp_OBJECT_FRAME.png`` and ``init_stm_OBJECT_FRAME.png``, masks to start from; all above 128 is in.
        initial_mask: which of them to start from: ``sp``, superpixels that were left out or taken too much; ``stm``,
            that of a network of video segmentation; ``zero``, none.
        kwargs: the arguments of `InteractiveDataModule`.
    """

    def __init__(self, root: str, initial_mask: InitialMask = "sp", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root, self.initial_mask = Path(root), initial_mask

    def load(self, parts: Collection[str]) -> dict[str, Split]:
        """Read the asked parts, as `DataModule` says; there is a test split only."""
        _test_only(self, parts)
        masks = sorted(str(path) for path in matches(self.root, "*/*.png") if INITIAL not in path.name)
        if not masks:
            raise InputError(
                f"no masks in {self.root}: expected SEQUENCE/OBJECT_FRAME.png beside SEQUENCE/FRAME.jpg (DAVIS-585)"
            )
        images = [_beside(mask, f"{Path(mask).stem.rpartition('_')[2]}.jpg") for mask in masks]
        starts = None
        if self.initial_mask != "zero":
            starts = [_beside(mask, f"{INITIAL}_{self.initial_mask}_{Path(mask).name}") for mask in masks]
        objects = CorrectedFiles(masks, read_half, starts)
        return {"test": Split(ImageFiles(images), {"objects": objects, "name": masks})}


class HQSeg44K(InteractiveDataModule):
    """The 1,537 validation images of HQSeg-44K, whose masks are fine (L. Ke et al., HQ-SAM, NeurIPS 2023).

    Args:
        root: holds the folders of `SETS`, each of images and of masks of the same names; what is not black in a mask is
            the object.
        kwargs: the arguments of `InteractiveDataModule`.
    """

    SETS = (
        ("DIS5K/DIS-VD/im", "DIS5K/DIS-VD/gt"),
        ("thin_object_detection/ThinObject5K/images_test", "thin_object_detection/ThinObject5K/masks_test"),
        ("thin_object_detection/COIFT/images", "thin_object_detection/COIFT/masks"),
        ("thin_object_detection/HRSOD/images", "thin_object_detection/HRSOD/masks_max255"),
    )

    def __init__(self, root: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = Path(root)

    def load(self, parts: Collection[str]) -> dict[str, Split]:
        """Read the asked parts, as `DataModule` says; there is a test split only."""
        _test_only(self, parts)
        pairs = [pair for images, masks in self.SETS for pair in pair_objects(self.root / images, self.root / masks)]
        return {"test": objects_of(pairs, read_bright)}


def read_half(path: str) -> Tensor:
    """Return the labels (H, W) int32 of a mask that is brighter than 128 on the object, in the first channel.

    Raises:
        InputError: the file is no image, or has more than 8 bits a channel.
    """
    return (decode_colours(path)[0] > 128).int()


def _test_only(data: InteractiveDataModule, parts: Collection[str]) -> None:
    for part in parts:
        if part != "test":
            raise unknown(f"part of {type(data).__name__}", part, ["test"])


def _beside(mask: str, name: str) -> str:
    """Return the path of the file of a name in the folder of a mask.

    Raises:
        InputError: there is none.
    """
    path = Path(mask).with_name(name)
    if not path.is_file():
        raise InputError(f"mask {mask} needs {path}, which does not exist")
    return str(path)
