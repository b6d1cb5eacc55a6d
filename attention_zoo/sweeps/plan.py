"""The runs of a sweep: every one is a name and the options that it adds to the recipe."""

import hashlib
import itertools
import json
import math
import random
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import InitVar, asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from attention_zoo.errors import InputError, unknown
from attention_zoo.runs.files import read_yaml, write_text
from attention_zoo.sweeps import axes as of_axes
from attention_zoo.sweeps.axes import drawn, is_config, is_range, labelled, option, options, settings

PLAN = "sweep.yaml"
"""What a sweep's folder keeps of it."""

LOCK = "lock"
"""What the process that works on a folder holds."""

ENGINE = "engine"
"""Folder in a sweep's for what an engine keeps."""

COMMON = ("configs", "options", "evaluations")
"""What all sweeps share that go into one folder."""

DRAWS_SEED = 20_240_607
"""Of random sweeps: the same sweep draws the same runs, and more of them begin with the same."""

MOST_RUNS = 10_000
"""A sweep of more is a slip of the hand."""

MOST_SEED = 2**32 - 1
"""The largest seed that numpy and Lightning take."""

LONGEST = 250
"""Bytes of a run's name; file systems take 255, and copies of its config end in .yaml."""

OWNED = {
    "seed_everything": "seeds set it",
    "trainer.default_root_dir": "every run has a folder of its own",
    "ckpt_path": "every run goes on from its own checkpoint",
}
"""Keys that no axis and no option of a sweep sets, and why."""

FIT = "fit"
"""What a run's training is called beside its evaluations."""


@dataclass(frozen=True)
class Run:
    """One training with its evaluations.

    Attributes:
        name: of its folder, such as ``mixer=VarsD,seed=0``.
        values: of every axis, for tables.
        seed: of the run.
        arguments: what it adds to the command line of the recipe.
    """

    name: str
    values: dict[str, Any]
    seed: int
    arguments: list[str]


@dataclass(frozen=True)
class Plan:
    """What a sweep does.

    Args:
        configs: of every run, in order.
        axes: by name. A mapping of labels to values, a list of values, or a range (``{log_uniform: [0.01, 1]}``, only
            with ``draws``). A value is a config file, a mapping of options (``{model.mixer: VarsD,
            model.mixer.steps: 5}``), or else what the option of the axis's name gets.
        seeds: every combination runs with each.
        options: further options of every run, by key (``data.root: data/cifar10``).
        draws: how many combinations to draw at random; None runs all.
        runs: instead of axes, a list of runs, each a mapping of labels and options, as an axis has.
        evaluations: what follows a training, by name; a mapping of options of ``test``, where ``config`` is a file.
        baseline: values of axes that a report compares with, ``{mixer: DotProduct}``.
        collect: metrics that tables show, ``<evaluation>/<metric>``; None is all.
        with_files: whether the configs must be there, as they must to run it, not to report on it.

    Raises:
        InputError: what does not make a sweep.
    """

    configs: list[str]
    axes: dict[str, Any] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [0])
    options: dict[str, Any] = field(default_factory=dict)
    draws: int | None = None
    runs: dict[str, dict[str, Any]] | None = None
    evaluations: dict[str, dict[str, Any]] = field(default_factory=lambda: {"test": {}})
    baseline: dict[str, Any] | None = None
    collect: list[str] | None = None
    with_files: InitVar[bool] = True

    def __post_init__(self, with_files: bool) -> None:
        if self.runs is not None and (self.axes or self.draws is not None):
            raise InputError("sweep: give axes or a list of runs, not both")
        self._check_types()
        self._check_seeds()
        for name, axis in self.axes.items():
            of_axes.check_axis(name, axis, drawing=self.draws is not None)
        if self.runs is not None:
            of_axes.check_labels("sweep: runs", list(self.runs), self.runs)
            for label, given in self.runs.items():
                of_axes.check_options(f"sweep: run {label!r}", given)
        self._check_count()
        self._check_evaluations()
        self._check_baseline()
        if with_files:
            for path in self.files():
                if not Path(path).is_file():
                    raise InputError(f"sweep: config {path} does not exist")
            self._check_keys()

    def _check_types(self) -> None:
        wanted = {"configs": list, "axes": dict, "options": dict, "evaluations": dict}
        wanted |= {"runs": dict, "baseline": dict, "collect": list}
        for key, kind in wanted.items():
            value = getattr(self, key)
            if not isinstance(value, kind) and not (value is None and key in ("runs", "baseline", "collect")):
                word = "list" if kind is list else "mapping"
                raise InputError(f"sweep: {key} must be a {word}, got {type(value).__name__} {value!r:.60}")
        for key in ("configs", "collect"):
            for text in getattr(self, key) or []:
                if not isinstance(text, str) or not text:
                    raise InputError(f"sweep: {key} must be a list of words, got {text!r:.60}")
        for key in ("runs", "evaluations"):
            for name, given in (getattr(self, key) or {}).items():
                if not isinstance(given, dict):
                    raise InputError(f"sweep: {name!r} of {key} must be a mapping of options, got {given!r:.60}")
        for key in ("options", "runs", "evaluations", "baseline"):
            of_axes.check_plain(f"sweep: {key}", getattr(self, key))
        for name in self.axes:
            if not isinstance(name, str) or not name.strip() or not name.isprintable():
                raise InputError(f"sweep: {name!r} is no name of an axis")

    def _check_seeds(self) -> None:
        if not isinstance(self.seeds, list) or not self.seeds:
            raise InputError(f"sweep: seeds must be different numbers, at least one; got {self.seeds!r:.60}")
        for seed in self.seeds:
            if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MOST_SEED:
                raise InputError(f"sweep: a seed must be a whole number from 0 to {MOST_SEED:,}, got {_short(seed)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"sweep: seeds must be different numbers, at least one; got {self.seeds!r:.60}")

    def _check_count(self) -> None:
        if self.draws is not None and (isinstance(self.draws, bool) or not isinstance(self.draws, int)):
            raise InputError(f"sweep: draws must be a whole number, got {self.draws!r:.60}")
        if self.draws is not None and self.draws < 1:
            raise InputError(f"sweep: draws={_short(self.draws)} must be at least 1")
        count = self.draws or math.prod(len(self.labels(name)) for name in self.names)
        if count * len(self.seeds) > MOST_RUNS:
            raise InputError(f"sweep: {_short(count * len(self.seeds))} runs; at most {MOST_RUNS:,} make a sweep")

    def _check_evaluations(self) -> None:
        for name, given in self.evaluations.items():
            if not isinstance(name, str) or not name.strip() or not name.isprintable() or "/" in name:
                raise InputError(f"sweep: {name!r} is no name of an evaluation; use words, without /")
            if name == FIT:
                raise InputError(f"sweep: {FIT!r} is the training; call the evaluation something else")
            of_axes.check_options(f"sweep: evaluation {name!r}", given)

    def _check_baseline(self) -> None:
        if self.baseline is not None and not self.baseline:
            raise InputError("sweep: the baseline names no axis; leave it out, or give AXIS: LABEL")
        for name, value in (self.baseline or {}).items():
            if name not in self.names:
                raise unknown("axis of the baseline", str(name), self.names)
            labels = [] if self.runs is None and is_range(self.axes[name]) else self.labels(name)
            if labels and of_axes.label_of(value) not in labels:
                raise unknown(f"{name} of the baseline", str(value), map(str, labels))

    def _check_keys(self) -> None:
        """Refuse keys that the sweep sets, and keys that are set twice: of these one would be lost without a word."""
        shared = settings("", self.options)
        _refuse_owned("options", shared, OWNED)
        for name, given in self.evaluations.items():
            _refuse_owned(f"evaluation {name!r}", settings("", given), ["trainer.default_root_dir"])
            if given.get("ckpt_path") not in (None, "last", "best"):
                raise InputError(f"sweep: evaluation {name!r}: ckpt_path is last or best, of the run's own checkpoints")
        earlier: list[tuple[str, Any, dict[str, Any]]] = [("options", "", shared)]
        for name in self.names:
            found = [(label, settings(name, value)) for label, value in self._labelled(name)]
            for label, later in found:
                here = f"run {label!r}" if self.runs is not None else f"axis {name!r}"
                _refuse_owned(here, later, OWNED)
                for other, its_label, before in earlier:
                    for key, old in of_axes.overrules(later, before):
                        if key == old == of_axes.plain(name) and other != "options":
                            continue  # the axis is named after the option: its column shows the value
                        of = f"{other} ({its_label})" if other != "options" else other
                        raise InputError(
                            f"sweep: {here} ({label}) and {of} both set {old}; one of them would be lost"
                            if key == old
                            else f"sweep: {here} ({label}) sets {key} anew, and {old} of {of} would be lost"
                        )
            earlier += [(f"axis {name!r}", label, before) for label, before in found]

    def _labelled(self, name: str) -> Iterable[tuple[Any, Any]]:
        """Label and value of each value of an axis; of a range its ends."""
        if self.runs is not None:
            return self.runs.items()
        axis = self.axes[name]
        return [(end, end) for end in next(iter(axis.values()))] if is_range(axis) else labelled(axis).items()

    @property
    def names(self) -> list[str]:
        """Of the axes."""
        return ["run"] if self.runs is not None else list(self.axes)

    @property
    def titles(self) -> dict[str, str]:
        """What tables call the axes: the last part of a name, if no other axis ends alike."""
        last = {name: name.rpartition(".")[2] for name in self.names}
        return {name: title if list(last.values()).count(title) == 1 else name for name, title in last.items()}

    def labels(self, name: str) -> list[Any]:
        """What tables call the values of an axis."""
        return list(self.runs if self.runs is not None else labelled(self.axes[name]))

    def choices(self, name: str) -> list[Any]:
        """The values of an axis; of a range its ends."""
        return [value for _, value in self._labelled(name)]

    def files(self) -> list[str]:
        """Every config file that the sweep names."""
        values = list((self.runs or {}).values())
        values += [value for axis in self.axes.values() if not is_range(axis) for value in labelled(axis).values()]
        options = [value.get("config") for value in [*values, *self.evaluations.values()] if isinstance(value, dict)]
        return [*self.configs, *filter(is_config, values), *filter(None, options)]

    def all_runs(self) -> list[Run]:
        """Every run, all combinations with the first seed first: a sweep that is stopped early compares them all."""
        return list(self._every_run)

    @cached_property
    def _every_run(self) -> list[Run]:
        runs = [self._run(combination, seed) for seed in self.seeds for combination in self._combinations()]
        return list(_told_apart(runs))

    def _combinations(self) -> list[dict[str, tuple[Any, Any]]]:
        """Label and value of every axis."""
        if self.runs is not None:
            return [{"run": (label, value)} for label, value in self.runs.items()]
        if self.draws is not None:
            return self._draw(self.draws)
        choices = [[(name, choice) for choice in labelled(axis).items()] for name, axis in self.axes.items()]
        return [dict(combination) for combination in itertools.product(*choices)]

    def _draw(self, count: int) -> list[dict[str, tuple[Any, Any]]]:
        generator = random.Random(DRAWS_SEED)
        found: dict[str, dict[str, tuple[Any, Any]]] = {}
        ranges = any(map(is_range, self.axes.values()))
        most = count if ranges else min(count, math.prod(len(self.labels(name)) for name in self.names))
        for _ in range(100 * count):
            combination = {name: drawn(axis, generator) for name, axis in self.axes.items()}
            found.setdefault(str([label for label, _ in combination.values()]), combination)
            if len(found) == most:
                break
        return list(found.values())

    def _run(self, combination: dict[str, tuple[Any, Any]], seed: int) -> Run:
        arguments = option("seed_everything", seed)
        for name, (_, value) in combination.items():
            arguments += options(name, value)
        labels = {name: label for name, (label, _) in combination.items()}
        parts = [f"{self.titles[name]}={label}" for name, label in labels.items()] + [f"seed={seed}"]
        return Run(",".join(parts).replace("/", "-").replace(" ", ""), labels, seed, arguments)

    def recipe(self) -> list[str]:
        """The command line that all runs share."""
        configs = [word for path in self.configs for word in ("--config", path)]
        return configs + options("", self.options)

    def evaluation(self, name: str) -> list[str]:
        """What an evaluation adds to the command line of ``test``."""
        return options("", self.evaluations[name])

    def check(self, folder: Path) -> None:
        """Check that a folder is new, or holds this sweep, perhaps with other runs.

        Raises:
            InputError: it holds another sweep, or something else.
        """
        if not (folder / PLAN).exists():
            if folder.exists() and any(entry.name not in (LOCK, ENGINE) for entry in folder.iterdir()):
                raise InputError(f"{folder} exists and holds no sweep: choose another folder with --out")
            return
        before = read_plan(folder)
        changed = [key for key in COMMON if getattr(before, key) != getattr(self, key)]
        known = {run.name: run.arguments for run in before.all_runs()}
        changed += [
            f"options of {run.name}" for run in self.all_runs() if known.get(run.name, run.arguments) != run.arguments
        ]
        if changed:
            raise InputError(f"{folder} holds a sweep with other {changed[0]}: choose another folder with --out")

    def keep(self, folder: Path) -> None:
        """Write the plan into the sweep's folder.

        Raises:
            InputError: it cannot be written, or see `check`.
        """
        self.check(folder)
        write(folder / PLAN, yaml.safe_dump(asdict(self), sort_keys=False))


def read_plan(folder: Path) -> Plan:
    """The plan of a sweep's folder; its configs may be gone.

    Raises:
        InputError: there is none, or what is there is no plan.
    """
    path = folder / PLAN
    if not path.exists():
        raise InputError(f"{folder} holds no sweep: there is no {PLAN} in it")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} is no sweep: it holds no keys")
    keys = [entry.name for entry in fields(Plan)]
    for key in content:
        if key not in keys:
            raise unknown(f"key of {path}:", str(key), keys)
    if "configs" not in content:
        raise InputError(f"{path} is no sweep: it has no configs")
    try:
        return Plan(**content, with_files=False)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def write(path: Path, text: str) -> None:
    """Write a file of a sweep whole or not at all.

    Raises:
        InputError: it cannot be written; what was there before still is.
    """
    try:
        write_text(path, text)
    except InputError as error:
        raise InputError(f"{error}; finished runs are kept: mend that and start the same command again") from error


def _told_apart(runs: Sequence[Run]) -> Iterator[Run]:
    """The runs, each with a name that is a folder of its own on every file system.

    A name that another run has before it, but for case and the form of its letters, gets a digest of what it stands
    for, and so does one that is too long.
    """
    taken: set[str] = set()
    for run in runs:
        name = run.name
        if _folded(name) in taken or len(name.encode()) > LONGEST:
            content = json.dumps([*run.values.items(), run.seed])
            digest = hashlib.sha256(content.encode()).hexdigest()[:12]
            name = f"{name.encode()[: LONGEST - 13].decode(errors='ignore')}~{digest}"
        taken.add(_folded(name))
        yield run if name == run.name else replace(run, name=name)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _refuse_owned(here: str, given: dict[str, Any], owned: Iterable[str]) -> None:
    for key in owned:
        if given.get(key) is not None:
            raise InputError(f"sweep: {here} sets {key}, which is not its to set: {OWNED[key]}")


def _short(number: Any) -> str:
    """A number for a message, whose digits may be more than Python writes."""
    big = isinstance(number, int) and abs(number) >= of_axes.LARGEST
    return f"a number of {number.bit_length()} bits" if big else f"{number!r:.60}"
