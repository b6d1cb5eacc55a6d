"""What an evaluation is to the rest of the project: the parts of its data, and what it found.

An evaluation is a task whose ``test`` leaves a `Result` in ``result``. The command line writes and prints it, goes on
with it after an interruption and puts several side by side, whatever evaluation it is of.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, runtime_checkable

from torch import Tensor

from attention_zoo.errors import InputError
from attention_zoo.reports.table import Table

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


@dataclass(frozen=True)
class Evaluated:
    """What only the command line knows of the model that was evaluated.

    Attributes:
        model: its name in the config; None where that names none.
        mixer: its mixer, with the options that are not as by default; None where it keeps its own attention.
        weights: the checkpoint or file they are from, ``random``, or words on what was released.
        epoch: of the checkpoint, from 0; None without one.
        config: of model and data, as plain values.
    """

    model: str | None
    mixer: str | None
    weights: str
    epoch: int | None
    config: Mapping[str, Any]

    @property
    def title(self) -> str:
        """Model and mixer, as far as they are known."""
        return " ".join(filter(None, (self.model, self.mixer)))


class Result(ABC):
    """What an evaluation found, as a dataclass of plain values that can be written, read and compared.

    A subclass that names its ``file`` is known to the command ``report`` as soon as its module is imported.
    `attention_zoo.results.scores.Scores` is one for an evaluation that ends in a few numbers.

    Attributes:
        file: name of the JSON file that holds a result; the folder with it in it, or below it, can be reported on.
        shows_metrics: whether its tables hold all metrics, so that Lightning's own list of them would be a repetition.
    """

    file: ClassVar[str]
    shows_metrics: ClassVar[bool] = False

    if TYPE_CHECKING:  # a property of this class would be taken for the default of a dataclass's field

        @property
        def title(self) -> str:
            """What tables call the model."""

        @property
        def protocol(self) -> Mapping[str, Any]:
            """What two results must share to be compared, as plain values."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse a file that is another result's."""
        super().__init_subclass__(**options)
        if "file" not in cls.__dict__:
            return
        for other in _kinds():
            if other.file == cls.file and _place(other) != _place(cls):
                file, cls.file = cls.file, ""  # the class stays among the subclasses
                raise InputError(f"{_place(cls)}: {_place(other)} writes {file} too")

    @abstractmethod
    def of(self, evaluated: Evaluated) -> Self:
        """This result with what is known of the model."""

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write ``file`` and all else there is to say, whole or not at all.

        Args:
            folder: made if it is not there.

        Raises:
            InputError: it cannot be written.
        """

    @abstractmethod
    def tables(self) -> list[tuple[str, Table]]:
        """Heading and table of all that is printed, the most important last."""

    @classmethod
    @abstractmethod
    def read(cls, path: Path) -> Self:
        """What `write` wrote.

        Raises:
            InputError: the file is something else, or what it says cannot be.
        """

    @classmethod
    @abstractmethod
    def differences(cls, results: Mapping[str, Self]) -> Sequence[str]:
        """What keeps results, by what to call each, from being compared; a line or a word for each thing."""

    @classmethod
    @abstractmethod
    def compare(cls, results: Mapping[str, Self], *, mixed: bool = False) -> Table:
        """Results side by side, by what to call each.

        Args:
            results: what to put side by side.
            mixed: put different protocols into one table, with notes that say so.

        Raises:
            InputError: protocols differ and ``mixed`` does not allow it.
        """

    @classmethod
    @abstractmethod
    def write_comparison(cls, folder: Path, results: Mapping[str, Self], table: Table) -> None:
        """Write the table of `compare`, and what else there is to say of several results.

        Raises:
            InputError: it cannot be written.
        """

    def comparable_with(self, other: Self) -> bool:
        """Whether both were found under the same protocol."""
        return not self.differences({"one": self, "other": other})

    @classmethod
    def holds(cls, path: Path) -> bool:
        """Whether a path is a result of this kind, or a folder with one in it or below it, whole or broken."""
        return path.name == cls.file if path.is_file() else any(path.rglob(cls.file))

    @classmethod
    def names_of(cls, read: Mapping[Path, Self]) -> list[list[str]]:
        """Ways to call results, by their files, the first that tells all apart is taken: title, run, both, or path."""
        titles, runs = [result.title for result in read.values()], [_run(file) for file in read]
        both = [f"{run}: {title}" for run, title in zip(runs, titles, strict=True)]
        return [titles, runs, both, [str(file.parent) for file in read]]


@runtime_checkable
class Evaluation(Protocol):
    """A task whose test leaves a `Result`.

    Attributes:
        result: what the last test found; None before.
    """

    result: Result | None


@runtime_checkable
class Resumable(Protocol):
    """A task whose test goes on after an interruption, on data whose ``tested`` says how many samples to leave out."""

    def progress(self) -> dict[str, Tensor]:
        """What this process has counted so far; under ``seen`` the number of samples that it has behind it."""

    def go_on(self, progress: dict[str, Tensor]) -> None:
        """Take up what `progress` gave, in another process; the data begin after the samples ``seen``."""


@runtime_checkable
class Narrating(Protocol):
    """A task that says what it is at, in a few words for the progress bar.

    Attributes:
        report: is told what takes long, within a batch.
    """

    report: Callable[[str], None]

    def place(self, batch: Any) -> str:
        """Where in the evaluation a batch is."""


def result_kinds() -> list[type[Result]]:
    """All results that can be reported on, in the order of their files' names."""
    found = {kind.file: kind for kind in _kinds()}
    return [found[file] for file in sorted(found)]


def _kinds() -> Iterator[type[Result]]:
    open_kinds: list[type[Result]] = [Result]
    while open_kinds:
        kind = open_kinds.pop()
        open_kinds += kind.__subclasses__()
        if kind.__dict__.get("file"):
            yield kind


def _place(kind: type[Result]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def read_results(kind: type[Result], paths: Sequence[Path], left_out: list[str] | None = None) -> dict[str, Result]:
    """The results of one kind at or below ``paths``, by names that tell them apart.

    Args:
        kind: of the results.
        paths: folders or files.
        left_out: gets a line for each file that is no result, and the others are read; without it such a file is an
            error.

    Raises:
        InputError: a path does not exist or holds none, or a file is no result.
    """
    named = list(dict.fromkeys(file.resolve() for path in paths for file in _files(kind, path)))
    read: dict[Path, Result] = {}
    for file in named:
        try:
            read[file] = kind.read(file)
        except InputError as error:
            if left_out is None or len(named) == 1:
                raise
            left_out.append(str(error))
    if not read:
        raise InputError(f"nothing to report on: {'; '.join(left_out or [])}")
    ways = kind.names_of(read)
    names = next((way for way in ways if len(set(way)) == len(way)), ways[-1])
    return dict(zip(names, read.values(), strict=True))


def _files(kind: type[Result], path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.exists():
        raise InputError(f"{path} does not exist")
    found = sorted(path.rglob(kind.file))
    if not found:
        raise InputError(f"nothing to report on in {path}: no {kind.file}, which a test writes")
    return found


def _run(file: Path) -> str:
    """The run that a result is of: the folder above that of the evaluation, if it is one."""
    above = file.parent.parent
    return above.name if (above / "config.yaml").is_file() else file.parent.name
