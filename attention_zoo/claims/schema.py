"""The claims of papers and the studies that test them, as ``claims.yaml`` states them.

The file may come from somebody else: it is read as plain values, every key and name in it is checked, and a study lies
in the folder of the file.
"""

import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, TypeVar

from attention_zoo.domains import PositiveFloat, SignedFloat, checked, shown
from attention_zoo.errors import InputError, unknown
from attention_zoo.runs.files import read_yaml

CLAIMS = "claims.yaml"
"""The name of the file in a folder of results that states the claims."""

MOST_BYTES = 1 << 22
"""The most bytes that the file may have."""

NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
"""The pattern of a claim's name: lower-case words and digits, joined by hyphens."""

_ONE = r"python -m attention_zoo [\w ./:=,{}\[\]'\"+-]+"
COMMAND = re.compile(f"{_ONE}( && {_ONE})*")
"""The pattern of a command that a page shows: commands of this project, with nothing that a shell would expand."""

FOLDER = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*")
"""The pattern of a study's folder, a path of plain names that a page can link to."""

Expected = Literal["higher", "lower", "same"]
"""What a claim expects of the setting, measured against the baseline."""

Measure = Literal["points", "percent"]
"""How two numbers are compared: by their difference, or by the difference as a percentage of the baseline's."""

_Kind = TypeVar("_Kind")


@checked
@dataclass(frozen=True)
class Paper:
    """The figure that a document gives for a claim: two numbers, or their difference alone.

    Args:
        metric: what the numbers are of, with the unit, such as ``mCE``.
        setting: the number of the setting.
        baseline: the number of the baseline.
        difference: the difference, where the document gives no more; in the measure of the comparison.

    Raises:
        InputError: it is neither two numbers nor a difference.
    """

    metric: str
    setting: float | None = None
    baseline: float | None = None
    difference: SignedFloat | None = None

    def __post_init__(self) -> None:
        given = [value is not None for value in (self.setting, self.baseline, self.difference)]
        if given not in ([True, True, False], [False, False, True]):
            raise InputError("give setting and baseline, or difference alone")

    def compared(self, measure: Measure) -> float:
        """Return the figure as a difference in the measure of the comparison."""
        if self.setting is None or self.baseline is None:
            return self.difference or 0.0
        return compared(self.setting, self.baseline, measure)


@checked
@dataclass(frozen=True)
class Column:
    """A column of a study that claims may name.

    Args:
        name: the name for readers, with the unit.
        factor: the factor from the logged value to that unit, such as 100 for a proportion that is shown in percent.
    """

    name: str
    factor: PositiveFloat = 1.0


@checked
@dataclass(frozen=True)
class Study:
    """Runs that test claims.

    Args:
        folder: the folder of the runs, below that of the claims; it need not exist yet.
        scale: the scale of the runs in a few words: model, data, length of training.
        command: the command that makes the runs again.
        columns: the columns that claims may name, by the column's name or a pattern of names (``*/miou_0``).

    Raises:
        InputError: the folder is no path of plain names, or the command is none of this project.
    """

    folder: str
    scale: str
    command: str
    columns: dict[str, Column]

    def __post_init__(self) -> None:
        if not FOLDER.fullmatch(self.folder):
            raise InputError(f"folder must be a path of plain names below that of the claims, got {shown(self.folder)}")
        _check_command(self.command)

    def column(self, name: str) -> Column:
        """Return the column that has a name.

        Raises:
            InputError: there is none.
        """
        column = next((column for pattern, column in self.columns.items() if fnmatchcase(name, pattern)), None)
        if column is None:
            raise unknown("column", name, self.columns)
        return column


@checked
@dataclass(frozen=True)
class Comparison:
    """A comparison of two settings of a study in a column, or of two columns in a setting, seed by seed.

    Args:
        study: the name of the study.
        column: the column: ``<evaluation>/<metric>``, ``cost/<key>`` of ``cost.json``, or
            ``cells/<benchmark>/<category>``, the mean error in percent under the corruptions of a category.
        setting: the setting of which something is claimed.
        baseline: the setting that it is measured against; None is ``setting``.
        baseline_column: the column of the baseline; None is ``column``.
        measure: how the two are compared.

    Raises:
        InputError: it compares a number with itself.
    """

    study: str
    column: str
    setting: str
    baseline: str | None = None
    baseline_column: str | None = None
    measure: Measure = "points"

    def __post_init__(self) -> None:
        if self.one == self.other:
            raise InputError("give a baseline or a baseline_column that is another than the setting's")

    @property
    def one(self) -> tuple[str, str]:
        """The setting and the column of which something is claimed."""
        return self.setting, self.column

    @property
    def other(self) -> tuple[str, str]:
        """The setting and the column that are the baseline."""
        return self.baseline or self.setting, self.baseline_column or self.column


@checked
@dataclass(frozen=True)
class Claim:
    """A claim of a document, and how it is tested.

    Args:
        words: the claim in a sentence.
        document: the name of the document.
        place: the table, figure or section that it stands in.
        expect: what is claimed of the setting, measured against the baseline.
        tolerance: of ``same``, the largest difference that counts as none, in the measure of the comparison.
        paper: the document's figure; None where it gives none.
        test: the comparison that tests the claim; None where no study does.
        command: without a comparison, the command that would test the claim.
        lacks: without either, what the project lacks to test it.
        note: what a reader has to know beside the verdict.

    Raises:
        InputError: the tolerance does not go with ``expect``, not exactly one of ``test``, ``command`` and ``lacks`` is
            given, or the figure would be a percentage of a baseline that is 0.
    """

    words: str
    document: str
    place: str
    expect: Expected
    tolerance: PositiveFloat | None = None
    paper: Paper | None = None
    test: Comparison | None = None
    command: str | None = None
    lacks: str | None = None
    note: str | None = None

    def __post_init__(self) -> None:
        if (self.expect == "same") == (self.tolerance is None):
            raise InputError("a tolerance goes with expect: same, and with nothing else")
        if sum(part is not None for part in (self.test, self.command, self.lacks)) != 1:
            raise InputError("give one of test, command and lacks")
        if self.measure == "percent" and self.paper is not None and self.paper.baseline == 0:
            raise InputError("paper: a percentage of a baseline that is 0; give difference alone")
        if self.command is not None:
            _check_command(self.command)

    @property
    def way(self) -> int:
        """Return 1 if higher is claimed, -1 if lower, 0 if the same."""
        return {"higher": 1, "lower": -1, "same": 0}[self.expect]

    @property
    def measure(self) -> Measure:
        """The measure of the comparison; points where no study tests the claim."""
        return self.test.measure if self.test else "points"

    @property
    def paper_difference(self) -> float | None:
        """The document's figure as a difference; None where it gives none."""
        return None if self.paper is None else self.paper.compared(self.measure)


@dataclass(frozen=True)
class Claims:
    """The content of a file of claims.

    Attributes:
        folder: the folder of the file, which the studies lie in.
        documents: the title of each document, by its name.
        studies: the studies, by name.
        claims: the claims, by name, in the order of the page.
    """

    folder: Path
    documents: dict[str, str]
    studies: dict[str, Study]
    claims: dict[str, Claim]

    def study_folder(self, name: str) -> Path:
        """Return the folder of a study.

        Raises:
            InputError: it lies outside of the folder of the claims.
        """
        folder = self.folder / self.studies[name].folder
        if not folder.resolve().is_relative_to(self.folder.resolve()):
            raise InputError(f"{self.folder / CLAIMS}: studies.{name}.folder: {folder} is outside of {self.folder}")
        return folder


def compared(one: float, other: float, measure: Measure) -> float:
    """Return the difference ``one`` minus ``other``, by ``measure`` as a percentage of ``other``."""
    return one - other if measure == "points" else 100 * (one / other - 1)


def read_claims(folder: Path) -> Claims:
    """Read the claims that a folder of results states in its ``claims.yaml``.

    Raises:
        InputError: the file cannot be read, has a key, name or value that it cannot have, or two claims that are tested
            by the same comparison.
    """
    path = folder / CLAIMS
    content = read_yaml(path, MOST_BYTES)
    names = ("documents", "studies", "claims")
    parts = {name: _mapping(content, name, str(path), names) for name in names}
    for name, title in parts["documents"].items():
        if not isinstance(title, str):
            raise InputError(f"{path}: documents.{shown(name)} must be a title, got {shown(title)}")
    studies = {name: _study(entry, f"{path}: studies.{shown(name)}") for name, entry in parts["studies"].items()}
    claims = {name: _claim(entry, f"{path}: claims.{shown(name)}") for name, entry in parts["claims"].items()}
    read = Claims(folder, parts["documents"], studies, claims)
    _check_names(read, path)
    for name in studies:
        read.study_folder(name)
    return read


def _check_names(read: Claims, path: Path) -> None:
    """Refuse names of documents, studies and columns that are not there, and comparisons that stand twice."""
    tested: dict[tuple[Any, ...], str] = {}
    for name, claim in read.claims.items():
        here = f"{path}: claims.{shown(name)}"
        if not NAME.fullmatch(str(name)):
            raise InputError(f"{here}: a name is lower-case words and digits, joined by hyphens")
        if claim.document not in read.documents:
            raise InputError(f"{here}: {unknown('document', claim.document, read.documents)}")
        if claim.test is None:
            continue
        if claim.test.study not in read.studies:
            raise InputError(f"{here}: {unknown('study', claim.test.study, read.studies)}")
        for _, column in (claim.test.one, claim.test.other):
            try:
                read.studies[claim.test.study].column(column)
            except InputError as error:
                raise InputError(f"{here}: {error}") from error
        key = (claim.test.study, claim.test.measure, *sorted([claim.test.one, claim.test.other]))
        if key in tested:
            raise InputError(f"{here}: the same comparison tests {tested[key]}; a test counts once")
        tested[key] = name


def _study(entry: Any, here: str) -> Study:
    columns = _mapping(entry, "columns", here, [part.name for part in fields(Study)])
    made = {str(name): _built(Column, column, f"{here}.columns.{shown(name)}") for name, column in columns.items()}
    return _built(Study, {**entry, "columns": made}, here)


def _claim(entry: Any, here: str) -> Claim:
    content = dict(entry) if isinstance(entry, dict) else entry
    kinds: Mapping[str, type] = {"paper": Paper, "test": Comparison}
    for key, kind in kinds.items():
        if isinstance(content, dict) and content.get(key) is not None:
            content[key] = _built(kind, content[key], f"{here}.{key}")
    return _built(Claim, content, here)


def _mapping(content: Any, key: str, here: str, known: Any) -> dict[Any, Any]:
    """Return the mapping at a key that must be there."""
    if not isinstance(content, dict):
        raise InputError(f"{here} must be keys with values, got {shown(content)}")
    for name in content:
        if name not in known:
            raise unknown(f"key of {here}:", shown(name), known)
    if not isinstance(content.get(key), dict) or not content[key]:
        raise InputError(f"{here}: {key} must be keys with values, got {shown(content.get(key))}")
    return content[key]


def _built(kind: type[_Kind], content: Any, here: str) -> _Kind:
    """Return an object of a data class from plain values, which an error calls ``here``."""
    parts: dict[str, Field[Any]] = {part.name: part for part in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(content, dict):
        raise InputError(f"{here} must be keys with values, got {shown(content)}")
    for key in content:
        if key not in parts:
            raise unknown(f"key of {here}:", shown(key), parts)
    for name, part in parts.items():
        if part.default is MISSING and name not in content:
            raise InputError(f"{here} has no {name}")
    try:
        return kind(**content)
    except InputError as error:
        raise InputError(f"{here}: {str(error).removeprefix(f'{kind.__name__}: ')}") from error


def _check_command(command: str) -> None:
    if not COMMAND.fullmatch(command):
        raise InputError(f"command must be one of this project, python -m attention_zoo ..., got {shown(command)}")
