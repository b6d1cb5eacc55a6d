"""What a robustness evaluation consists of: data modules offer it, tasks count it, reports compare it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

RECORD = "generated.json"
"""In a folder of corrupted images that were not released but made: how."""


@dataclass(frozen=True)
class Benchmark:
    """Images that give one column of a robustness table.

    Attributes:
        name: such as ``clean``, ``imagenet_c``, ``imagenet_a``.
        title: as tables print it; of generated images it says so.
        classes: the outputs of the model that compete, in ascending order; None is all of them. Labels are outputs
            of the model in either case.
        protocol: what two numbers must share to be compared, as plain values: source, preprocessing, and so on.
    """

    name: str
    title: str
    classes: tuple[int, ...] | None = None
    protocol: Mapping[str, str | int | float | bool] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Cell:
    """A part of a benchmark that is counted on its own, such as one corruption at one severity.

    Attributes:
        benchmark: what it is a part of.
        images: how many there are.
        corruption: its name, or None.
        severity: 1 to 5, or None.
    """

    benchmark: Benchmark
    images: int
    corruption: str | None = None
    severity: int | None = None
