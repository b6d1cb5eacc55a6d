"""Checks of the settings of a corrupted data set, before anything is written."""

from collections.abc import Sequence

from attention_zoo.errors import InputError
from datamodules.checks import MOST_WORKERS, require_whole, two_sides
from datamodules.corruptions.apply import require_corruption, require_severity
from datamodules.corruptions.textures import textures_folder


def check_choices(names: Sequence[str], severities: Sequence[int]) -> None:
    """Check the corruptions and severities of a data set.

    Args:
        names: names of corruptions; frost needs its textures on this machine.
        severities: numbers from 1 to 5.

    Raises:
        InputError: there is none, or no such one, or the textures are missing.
    """
    if not names or not severities:
        raise InputError("--corruptions and --severities need at least one")
    for name in names:
        require_corruption(name)
    for severity in severities:
        require_severity(severity)
    if "frost" in names:
        textures_folder()


def check_numbers(size: int | None, workers: int | None, **numbers: int | None) -> None:
    """Check the numbers of a data set; None is always right.

    Args:
        size: side of the images in pixels.
        workers: number of processes beside this one.
        numbers: numbers of images, by the names that the error calls them.

    Raises:
        InputError: a number is out of range.
    """
    if size is not None:
        two_sides("size", size)
    if workers is not None:
        require_whole("workers", workers, 0, MOST_WORKERS)
    for name, value in numbers.items():
        if value is not None:
            require_whole(name, value, 1)
