"""Defines what an evaluation is to the rest of the project: the parts of its data, and its result.

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
"""File that says how corrupted images were made, in a folder of images that were generated and not released."""

OF_THE_LOADING = ("batch_size", "num_workers")
"""Options of the data that no result depends on."""


@dataclass(frozen=True)
class Benchmark:
    """Images that give one column of a robustness table.

    Attributes:
        name: the short name, such as ``clean``, ``imagenet_c``, ``imagenet_a``.
        title: the name that tables print; it says so if the images are generated.
        classes: the outputs of the model that compete, in ascending order; None is all of them. Labels are outputs
            of the model in either case.
        protocol: the plain values that two numbers must share to be compared: source, preprocessing, and so on.
        labelled: whether its images are of the model's classes; if not, nothing that it answers can be right.
    """

    name: str
    title: str
    classes: tuple[int, ...] | None = None
    protocol: Mapping[str, str | int | float | bool] = field(default_factory=dict, compare=False)
    labelled: bool = True


@dataclass(frozen=True)
class Cell:
    """A part of a benchmark that is counted on its own, such as one corruption at one severity.

    Attributes:
        benchmark: the benchmark that it is a part of.
        images: the number of its images.
        corruption: the name of the corruption; None without one.
        severity: the severity of the corruption, 1 to 5; None without one.
    """

    benchmark: Benchmark
    images: int
    corruption: str | None = None
    severity: int | None = None


def part_of(counted: int, every: int, samples: str = "images") -> dict[str, int]:
    """Return what the protocol of a result says of a test of a part of the data; nothing where all was tested.

    Without it the result would pass for one of all data, and be compared with those.

    Args:
        counted: the number of samples that were tested.
        every: the number of samples there are.
        samples: what they are.
    """
    return {} if counted == every else {samples: counted, "part_of": every}


@dataclass(frozen=True)
class Evaluated:
    """The facts about an evaluated model that only the command line knows.

    Attributes:
        model: its name in the config; None where that names none.
        mixer: its mixer, with the options that are not as by default; None where it keeps its own attention.
        weights: the checkpoint or file they are from, ``random``, or words on what was released.
        epoch: the epoch of the checkpoint, from 0; None without one.
        config: the config of model and data, as plain values.
    """

    model: str | None
    mixer: str | None
    weights: str
    epoch: int | None
    config: Mapping[str, Any]

    @property
    def title(self) -> str:
        """Return the names of model and mixer with a space between, as far as they are known."""
        return " ".join(filter(None, (self.model, self.mixer)))


class Result(ABC):
    """The result of an evaluation, as a dataclass of plain values that can be written, read and compared.

    A subclass that names its ``file`` is known to the command ``report`` as soon as its module is imported.
    `attention_zoo.results.scores.Scores` is one for an evaluation that ends in a few numbers.

    Attributes:
        file: name of the JSON file that holds a result; a folder that has it inside, at any depth, can be reported on.
        shows_metrics: whether its tables hold all metrics, so that Lightning's own list of them would be a repetition.
    """

    file: ClassVar[str]
    shows_metrics: ClassVar[bool] = False

    if TYPE_CHECKING:  # a property of this class would be taken for the default of a dataclass's field

        @property
        def title(self) -> str:
            """Return the name that tables give the model."""

        @property
        def protocol(self) -> Mapping[str, Any]:
            """Return the plain values that two results must share to be compared."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse a subclass whose ``file`` another kind of result writes already."""
        super().__init_subclass__(**options)
        if "file" not in cls.__dict__:
            return
        for other in _kinds():
            if other.file == cls.file and _place(other) != _place(cls):
                file, cls.file = cls.file, ""  # the class stays among the subclasses
                raise InputError(f"{_place(cls)}: {_place(other)} writes {file} too")

    @abstractmethod
    def of(self, evaluated: Evaluated) -> Self:
        """Return this result with the facts about the model added."""

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write ``file`` and the other files of the result, each whole or not at all.

        Args:
            folder: the folder to write to; it is made if it does not exist.

        Raises:
            InputError: the folder holds a result already, or a file cannot be written.
        """

    @abstractmethod
    def tables(self) -> list[tuple[str, Table]]:
        """Return heading and table of everything that is printed, the most important last."""

    @classmethod
    @abstractmethod
    def read(cls, path: Path) -> Self:
        """Return the result that `write` wrote to the file ``path``.

        Raises:
            InputError: the file is something else, or holds impossible values.
        """

    @classmethod
    @abstractmethod
    def differences(cls, results: Mapping[str, Self]) -> Sequence[str]:
        """Return a line or a word for each thing that keeps ``results``, by name, from being compared."""

    @classmethod
    @abstractmethod
    def compare(cls, results: Mapping[str, Self], *, mixed: bool = False) -> Table:
        """Return a table of several results side by side.

        Args:
            results: the results, by the names that the table gives them.
            mixed: whether to put different protocols into one table, with notes that say so.

        Raises:
            InputError: protocols differ and ``mixed`` does not allow it.
        """

    @classmethod
    @abstractmethod
    def write_comparison(cls, folder: Path, results: Mapping[str, Self], table: Table) -> None:
        """Write the table of `compare`, and the other files about several results, to ``folder``.

        Raises:
            InputError: a file cannot be written.
        """

    def comparable_with(self, other: Self) -> bool:
        """Return whether this and ``other`` were measured under the same protocol."""
        return not self.differences({"one": self, "other": other})

    @classmethod
    def holds(cls, path: Path) -> bool:
        """Return whether ``path`` is a result file of this kind, or a folder with one at any depth, whole or broken."""
        return path.name == cls.file if path.is_file() else any(path.rglob(cls.file))

    @classmethod
    def names_of(cls, read: Mapping[Path, Self]) -> list[list[str]]:
        """Return four lists of names for the results in ``read``: by title, run, both, or path of the folder."""
        titles, runs = [result.title for result in read.values()], [_run(file) for file in read]
        both = [f"{run}: {title}" for run, title in zip(runs, titles, strict=True)]
        return [titles, runs, both, [str(file.parent) for file in read]]


@runtime_checkable
class Evaluation(Protocol):
    """A task whose test leaves a `Result`.

    Attributes:
        result: the result of the last test; None before one.
    """

    result: Result | None


@runtime_checkable
class Resumable(Protocol):
    """A task whose test goes on after an interruption, on data whose ``tested`` says how many samples to leave out."""

    def progress(self) -> dict[str, Tensor]:
        """Return the counts of this process so far; ``seen`` is the number of samples that it has processed."""

    def go_on(self, progress: dict[str, Tensor]) -> None:
        """Take up the counts of `progress` from an earlier process; the data begin after the ``seen`` samples."""


@runtime_checkable
class Narrating(Protocol):
    """A task that says what it is doing, in a few words for the progress bar.

    Attributes:
        report: the function that the task calls with words on steps that take long within a batch.
    """

    report: Callable[[str], None]

    def place(self, batch: Any) -> str:
        """Return words on where in the evaluation ``batch`` is."""


def result_kinds() -> list[type[Result]]:
    """Return all kinds of results that can be reported on, sorted by the names of their files."""
    by_file = {kind.file: kind for kind in _kinds()}
    return [by_file[file] for file in sorted(by_file)]


def _kinds() -> Iterator[type[Result]]:
    open_kinds = Result.__subclasses__()
    while open_kinds:
        kind = open_kinds.pop()
        open_kinds += kind.__subclasses__()
        if kind.__dict__.get("file"):
            yield kind


def _place(kind: type[Result]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def read_results(kind: type[Result], paths: Sequence[Path], left_out: list[str] | None = None) -> dict[str, Result]:
    """Return the results of one kind at or below ``paths``, by names that tell them apart.

    Args:
        kind: the kind of the results.
        paths: folders or files.
        left_out: a list that gets a line for each file that is no result, while the others are read; without it such
            a file is an error.

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
    files = sorted(path.rglob(kind.file))
    if not files:
        raise InputError(f"nothing to report on in {path}: no {kind.file}, which a test writes")
    return files


def _run(file: Path) -> str:
    """Return the name of a result's run: the folder above that of the evaluation if it is a run, else the latter."""
    above = file.parent.parent
    return above.name if (above / "config.yaml").is_file() else file.parent.name
