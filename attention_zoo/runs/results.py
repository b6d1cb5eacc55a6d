"""Reads the metrics, the cost and the config of a run. A file that cannot be right is refused by name."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from attention_zoo.errors import InputError
from attention_zoo.runs.files import read_json, read_json_lines, read_yaml
from attention_zoo.scales import Scale, Scales, read_scales

METRICS, COST, CONFIG = "metrics.jsonl", "cost.json", "config.yaml"
"""Files of a run's folder: measurements, a line each; what the training cost; its resolved config."""

SPEED = "images_per_second"
"""The end of the names of metrics that are costs, not quality."""

NUMBERS = ("parameters", "flops", "train_images_per_second", "train_seconds", "peak_memory")
"""Keys of ``cost.json`` that are numbers, or null where they are not known."""


class Measurement(NamedTuple):
    """The content of a line of ``metrics.jsonl``.

    Attributes:
        stage: ``validate`` or ``test``.
        epoch: the epoch, from 0; None if it is not known, as for weights that were not trained here.
        metrics: values by the names of the metrics; None where the value was no finite number.
        checkpoint: path of the checkpoint that was measured; None during a training.
        scales: scales by the names of the metrics; None in an older line, which states none.
        part: how many batches of how many were measured, in words; None for all, and in older lines.
    """

    stage: str
    epoch: int | None
    metrics: dict[str, float | None]
    checkpoint: str | None
    scales: dict[str, Scale] | None = None
    part: str | None = None


def exists(path: Path) -> bool:
    """Return whether there is anything at ``path``, be it a broken link.

    Raises:
        InputError: its folder cannot be searched.
    """
    try:
        return path.is_symlink() or path.exists()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


class ResultExists(InputError, FileExistsError):
    """A result is in the place of another one, and is not overwritten."""


def refuse_existing(path: Path) -> None:
    """Refuse to write a result where there is one already, be it a broken link.

    Raises:
        ResultExists: there is something at ``path``.
    """
    if exists(path):
        raise ResultExists(f"{path} exists; a result is never overwritten: choose another folder, or move it away")


def read_metrics(folder: Path) -> list[Measurement]:
    """Return every line of a run's ``metrics.jsonl`` but a torn last one; none without the file.

    Raises:
        InputError: the file cannot be read or holds something else.
    """
    path = folder / METRICS
    if not exists(path):
        return []
    measurements = []
    for number, line in enumerate(read_json_lines(path), 1):
        here = f"record {number} of {path}"
        stage, epoch, path_or_null = line.get("stage"), line.get("epoch"), line.get("checkpoint")
        checkpoint = path_or_null if isinstance(path_or_null, str) else None
        if not isinstance(stage, str):
            raise InputError(f"{here}: stage must be a word, got {stage!r:.60}")
        if epoch is not None and (isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 0):
            raise InputError(f"{here}: epoch must be a whole number from 0, got {epoch!r:.60}")
        metrics = numbers_in(line.get("metrics"), f"{here}: metrics")
        scales = read_scales(line["scales"], f"{here}: scales") if "scales" in line else None
        part = line.get("part")
        if part is not None and not isinstance(part, str):
            raise InputError(f"{here}: part must be words, got {part!r:.60}")
        measurements.append(Measurement(stage, epoch, metrics, checkpoint, scales, part))
    return measurements


def scales_of(lines: Iterable[Measurement]) -> Scales:
    """Return the scales that measurements state for their metrics."""
    return Scales((line.metrics, line.scales) for line in lines)


def read_cost(folder: Path) -> dict[str, Any]:
    """Return the content of a run's ``cost.json``; empty without the file.

    Raises:
        InputError: the file cannot be read or holds something else.
    """
    path = folder / COST
    content = _mapping(path, read_json, "record of costs")
    for key in NUMBERS:
        value = content.get(key)
        if value is not None and (not is_number(value) or value < 0):
            raise InputError(f"{path}: {key} must be a number from 0 or null, got {value!r:.60}")
    return content


def read_run_config(folder: Path) -> dict[str, Any]:
    """Return the content of a run's ``config.yaml``; empty without the file.

    Raises:
        InputError: the file cannot be read or holds something else.
    """
    return _mapping(folder / CONFIG, read_yaml, "config")


def _mapping(path: Path, read: Callable[[Path], Any], kind: str) -> dict[str, Any]:
    """Return what ``read`` reads of a file that holds keys, and is called a ``kind``; empty without the file."""
    if not exists(path):
        return {}
    content = read(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} is no {kind}: it holds no keys")
    return content


def numbers_in(content: Any, here: str) -> dict[str, float | None]:
    """Return the numbers in ``content`` by name; values that are null, NaN, infinite or too large become None.

    Raises:
        InputError: ``content`` is no mapping to numbers or null; the message calls it ``here``.
    """
    if not isinstance(content, dict):
        raise InputError(f"{here} must be numbers by name, got {content!r:.60}")
    for name, value in content.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise InputError(f"{here}: {name} must be a number or null, got {value!r:.60}")
    return {name: value if is_number(value) else None for name, value in content.items()}


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number, small enough for floating point."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) if isinstance(value, float) else value.bit_length() < 1000
