"""The record of a run of a sweep: its state, measurements and times, kept in the run's folder."""

from dataclasses import dataclass, field, fields
from pathlib import Path

from attention_zoo.errors import InputError
from attention_zoo.runs.files import read_json
from attention_zoo.runs.results import exists, is_number, numbers_in

RECORD = "run.json"
"""The name of the record's file in a run's folder."""

STATES = ("waiting", "running", "done", "failed")
"""The states that a run can be in."""

ENDED = ("done", "failed")
"""The states of a run that nobody goes on with by itself."""


@dataclass
class Record:
    """The state of a run, its measurements and the time that it took.

    Attributes:
        status: ``waiting``, ``running``, ``done`` or ``failed``.
        reason: why the run failed; None where it did not.
        parts: the seconds that each finished part took: ``fit``, and the evaluations by name.
        begun: the seconds spent on a part that was interrupted.
        metrics: the metrics of each evaluation, by the evaluation's name.
        kills: how often a process of the run was killed.
        part_kills: how often one was killed of the part that is not finished yet.
    """

    status: str = "waiting"
    reason: str | None = None
    parts: dict[str, float] = field(default_factory=dict)
    begun: float = 0.0
    metrics: dict[str, dict[str, float | None]] = field(default_factory=dict)
    kills: int = 0
    part_kills: int = 0

    @property
    def seconds(self) -> float:
        """Seconds spent on the run so far."""
        return sum(self.parts.values()) + self.begun


def read_record(folder: Path) -> Record:
    """Read the record in a run's folder; a run without one is waiting.

    Raises:
        InputError: its ``run.json`` is no record, or holds impossible values.
    """
    path = folder / RECORD
    if not exists(path):
        return Record()
    content = read_json(path)
    known = [entry.name for entry in fields(Record)]
    if not isinstance(content, dict) or not content or not set(content) <= set(known):
        raise InputError(f"{path} is no record of a run; its keys are {', '.join(known)}")
    record = Record(**content)
    wrong = [
        *(["status"] if record.status not in STATES else []),
        *(["reason"] if not isinstance(record.reason, (str, type(None))) else []),
        *(["begun"] if not is_number(record.begun) or record.begun < 0 else []),
        *(name for name in ("kills", "part_kills") if not _is_count(getattr(record, name))),
    ]
    if not isinstance(record.parts, dict) or not all(is_number(part) and part >= 0 for part in record.parts.values()):
        wrong.append("parts")
    if not isinstance(record.metrics, dict):
        wrong.append("metrics")
    if wrong:
        raise InputError(f"{path}: {wrong[0]} cannot be {content.get(wrong[0])!r:.60}")
    record.metrics = {name: numbers_in(values, f"{path}: metrics of {name}") for name, values in record.metrics.items()}
    return record


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def known_record(folder: Path) -> tuple[Record, str | None]:
    """Return the record of a run, and a message on what is wrong with it, or None.

    A record that cannot be read counts as an empty one.
    """
    try:
        return read_record(folder), None
    except InputError as error:
        return Record(), str(error)
