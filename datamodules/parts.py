"""Folders of the parts of a data set under the names that people give them."""

import os
from collections.abc import Callable
from pathlib import Path

from attention_zoo.errors import InputError
from datamodules.images import is_image, subfolders

PARTS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
"""The parts, and the usual names of their folders in lower case, whose case says nothing."""

_MEANT = {name: part for part, names in PARTS.items() for name in names}


def part_folders(root: Path, is_part: Callable[[Path], bool] = lambda folder: True, below: str = "") -> dict[str, str]:
    """Find the folders of the parts in a folder.

    ``train``, ``val`` and ``test`` are parts as soon as one of them surely is, and folders of the other names beside
    them. Other names alone are, where one of them surely is and another part is there too, or no other data.

    Args:
        root: the folder.
        is_part: whether a folder of such a name surely is no class.
        below: the folder in that of a part that must be there, and that ``is_part`` is asked of.

    Returns:
        The name of the folder of each part that is there, in the order of `PARTS`; nothing if there are no parts.

    Raises:
        InputError: there are two folders of one part.
    """
    names = [name for name in subfolders(root) if (root / name / below).is_dir()]
    plain = [name for name in names if name in PARTS]
    other = [name for name in names if name.lower() in _MEANT and name not in PARTS and _holds(root / name / below)]
    if not any(is_part(root / name / below) for name in plain):
        if not any(is_part(root / name / below) for name in other):
            return {}
        strangers = (name for name in names if name.lower() not in _MEANT)
        one_part = len({_MEANT[name.lower()] for name in plain + other}) == 1
        if one_part and any(_holds(root / name / below) for name in strangers):
            return {}
    found: dict[str, str] = {}
    for part in PARTS:
        own = [name for name in plain + other if _MEANT[name.lower()] == part]
        if len(own) > 1:
            raise InputError(f"two folders for {part} in {root}: {' and '.join(own[:2])}; keep one of them")
        if own:
            found[part] = own[0]
    return found


def _holds(folder: Path) -> bool:
    """Whether there is an image or a folder in a folder."""
    return bool(subfolders(folder)) or any(is_image(entry.name) for entry in os.scandir(folder))
