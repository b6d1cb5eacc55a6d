"""The result of an evaluation that ends in a few numbers, each with a name."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from attention_zoo.errors import InputError
from attention_zoo.evaluation import OF_THE_LOADING, Evaluated, Result
from attention_zoo.reports.table import Table
from attention_zoo.reports.writing import whole
from attention_zoo.runs.files import read_json
from attention_zoo.runs.results import is_number, refuse_existing
from attention_zoo.scales import NEITHER, Scale, read_scales

FORMAT = "attention_zoo scores 1"
"""The value of ``format`` in a result's file, by which the file is recognised."""

NOT_MEASURED = (*OF_THE_LOADING, "augment", "repeated_augmentation", "predict_dir")
"""Options of data modules that no score of a test depends on: how fast it is read, and what training or prediction
alone makes of it. All other options count. So does the path of the data, since another folder may hold other images."""

ROUNDING = 1e-6
"""The amount by which rounding may take a score beyond the bounds of its scale."""


@dataclass(frozen=True)
class Scores(Result):
    """The scores of one model under one protocol.

    A subclass names its ``file``; the files of its tables have the same name with other endings. Scores can be compared
    that share the ``protocol``, and, as far as the command line has put a config among the ``facts``, the class of the
    data and its options, but for those of `NOT_MEASURED`.

    Attributes:
        scores: the finite numbers, by name.
        protocol: what two results must share to be compared, as plain values: data, images, settings.
        scales: which way a score is better, by the score's name.
        title: the name of the model in tables.
        facts: further facts that a reader needs, as plain values.

    Raises:
        InputError: there is no score, or one is not a finite number or out of the bounds of its scale.
    """

    scores: Mapping[str, float]
    protocol: Mapping[str, Any]
    scales: Mapping[str, Scale] = field(default_factory=dict)
    title: str = "model"
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that there are scores, all of them finite numbers within the bounds of their scales."""
        if not self.scores:
            raise InputError(f"{type(self).__name__} holds no score; give at least one number by its name")
        for name, value in self.scores.items():
            if not is_number(value):
                kind = type(value).__name__
                other = "" if isinstance(value, float) or value is None else f" of type {kind}; float() makes it one"
                raise InputError(f"the score {name} must be a finite number, got {value!r:.60}{other}")
            scale = self.scale_of(name)
            least, most = scale.limits
            if not least - ROUNDING <= value <= most + ROUNDING:
                bounds = " and ".join(
                    f"{words} {bound:g}"
                    for words, bound in (("at least", scale.least), ("at most", scale.most))
                    if bound is not None
                )
                raise InputError(f"the score {name} must by its scale be {bounds}, got {value!r:.60}")

    def scale_of(self, name: str) -> Scale:
        """Return the scale of a score; one without direction and bounds if none is stated."""
        return self.scales.get(name, NEITHER)

    def of(self, evaluated: Evaluated) -> Self:
        """Return this result with the title and the facts of the evaluated model."""
        known = {entry.name: getattr(evaluated, entry.name) for entry in fields(evaluated)}
        return replace(self, title=evaluated.mixer or evaluated.model or self.title, facts={**self.facts, **known})

    def write(self, folder: Path) -> None:
        """Write the result, and its table as CSV and markdown, into a folder.

        Raises:
            InputError: the folder holds a result already, or a file cannot be written.
        """
        refuse_existing(folder / self.file)
        content = {"format": FORMAT, **{entry.name: getattr(self, entry.name) for entry in fields(self)}}
        content["scales"] = {name: scale.plain() for name, scale in self.scales.items()}
        with whole(folder) as stage:
            text = json.dumps(content, indent=1, allow_nan=False)
            (stage / self.file).write_text(text + "\n", encoding="utf-8")
            self._write_table(stage, self.compare({self.title: self}))

    def tables(self) -> list[tuple[str, Table]]:
        """Return the one table to print, which has a single row."""
        heading = f"weights: {self.facts['weights']}" if "weights" in self.facts else self.title
        return [(heading, self.compare({self.title: self}))]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a result that `write` wrote.

        Raises:
            InputError: the file is no such result, or it holds impossible values.
        """
        kind = f"no {cls.file} of this program"
        try:
            content = read_json(path)
            if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
                raise InputError(f"it does not say that it is {FORMAT!r}")
            content["scales"] = read_scales(content.get("scales", {}), "scales")
            for key in ("scores", "protocol", "facts"):
                if not isinstance(content.get(key), dict):
                    raise InputError(f"{key} must be a mapping, got {content.get(key)!r:.60}")
            if not isinstance(content.get("title"), str):
                raise InputError(f"title must be a word, got {content.get('title')!r:.60}")
            return cls(**content)
        except (TypeError, InputError) as error:
            raise InputError(f"{path} is {kind}: {error}") from error

    @classmethod
    def differences(cls, results: Mapping[str, Self]) -> list[str]:
        """Return a line for each result and key of protocol and data in which it differs from the first result."""
        by_protocol = _differing({label: result.protocol for label, result in results.items()})
        return [*by_protocol, *_of_other_data({label: result.facts for label, result in results.items()})]

    @classmethod
    def compare(cls, results: Mapping[str, Self], *, mixed: bool = False) -> Table:
        """Return a table with a row for each result and a column for each score that any of them has.

        Raises:
            InputError: protocols differ and ``mixed`` does not allow it.
        """
        differing = cls.differences(results)
        if differing and not mixed:
            more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
            raise InputError(
                f"different protocols: {differing[0]}{more}; --mixed true puts them into one table with notes"
            )
        scales = {name: result.scale_of(name) for result in results.values() for name in result.scores}
        rows = [
            (label, *(f"{result.scores[name]:.4g}" if name in result.scores else "" for name in scales))
            for label, result in results.items()
        ]
        told = [", ".join(f"{key} {value}" for key, value in result.protocol.items()) for result in results.values()]
        notes = [*(f"not comparable: {line}" for line in differing), *dict.fromkeys(filter(None, told))]
        arrows = [f"{name} {scale.arrow}".rstrip() for name, scale in scales.items()]
        return Table(("model", *arrows), tuple(rows), tuple(notes))

    @classmethod
    def write_comparison(cls, folder: Path, results: Mapping[str, Self], table: Table) -> None:
        """Write the table of several results into a folder, as CSV and markdown."""
        with whole(folder) as stage:
            cls._write_table(stage, table)

    @classmethod
    def _write_table(cls, folder: Path, table: Table) -> None:
        stem = Path(cls.file).stem
        (folder / f"{stem}.csv").write_text(table.csv(), encoding="utf-8")
        (folder / f"{stem}.md").write_text(table.markdown(), encoding="utf-8")


def _differing(protocols: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    first, *others = protocols
    for label in others:
        for key in dict.fromkeys([*protocols[first], *protocols[label]]):
            one, other = (protocols[each].get(key, "not said") for each in (first, label))
            if json.dumps(one, sort_keys=True, default=str) != json.dumps(other, sort_keys=True, default=str):
                yield f"{key} is {one} in {first}, {other} in {label}"


def _of_other_data(facts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each result and option of the data in which it differs from the first whose data are known."""
    configs = {label: fact.get("config") for label, fact in facts.items()}
    known = {
        label: config["data"]
        for label, config in configs.items()
        if isinstance(config, Mapping) and isinstance(config.get("data"), Mapping)
    }
    first, *others = known or [""]
    for label in others:
        one, other = known[first], known[label]
        if one.get("class_path") != other.get("class_path"):
            yield from _differing({name: {"data": known[name].get("class_path")} for name in (first, label)})
            continue
        yield from _differing({name: dict(_that_count(known[name])) for name in (first, label)})


def _that_count(data: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the options of data on which a score may depend, each after ``data.``."""
    for name, value in (data.get("init_args") or {}).items():
        if name not in NOT_MEASURED:
            yield f"data.{name}", value
