"""The plan of a sweep: its runs, each of which has a name and options that it adds to the common recipe."""

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
from attention_zoo.runs.shipped import find_config, no_config
from attention_zoo.sweeps.axes import drawn, is_config, is_range, label_of, labelled, option, options
from attention_zoo.sweeps.checks import EXCEPT, check_keys, check_plan, several

PLAN = "sweep.yaml"
"""The name of the file in a sweep's folder that keeps the plan."""

LOCK = "lock"
"""The name of the file that the process that works on a folder holds a lock on."""

ENGINE = "engine"
"""The name of the folder inside a sweep's folder for files of the engine."""

COMMON = ("configs", "options", "evaluations")
"""The parts of a plan that must be the same for all sweeps that go into one folder; evaluations may be added, and
which runs they follow may change."""

DRAWS_SEED = 20_240_607
"""The seed of random draws: the same sweep draws the same runs, and a larger number of draws begins with them."""

LONGEST = 250
"""The most bytes in a run's name; file systems take 255, and the copy of its config adds the ending .yaml."""


@dataclass(frozen=True)
class Run:
    """One training with its evaluations, as a plan lists it.

    Attributes:
        name: the name of its folder, such as ``mixer=VarsD,seed=0``.
        values: the label of every axis's value, for tables.
        seed: the seed of the run.
        arguments: the words that it adds to the command line of the recipe.
    """

    name: str
    values: dict[str, Any]
    seed: int
    arguments: list[str]


@dataclass(frozen=True)
class Plan:
    """The runs and evaluations of a sweep.

    Args:
        configs: the config files of every run, in order.
        axes: the axes by name. An axis is a mapping of labels to values, a list of values, or a range
            (``{log_uniform: [0.01, 1]}``, only with ``draws``). A value is a config file, a mapping of options
            (``{model.mixer: VarsD, model.mixer.steps: 5}``), or else the value of the option that the axis is named
            after.
        seeds: the seeds; every combination runs with each.
        options: further options of every run, by key (``data.root: data/cifar10``).
        draws: how many combinations to draw at random; None runs all.
        runs: the runs instead of axes: a mapping of labels to mappings of options.
        evaluations: the evaluations after a training, by name; each is a mapping of options of ``test``, where
            ``config`` is a file, and ``except`` names the runs that it does not follow: ``{mixer: [A, B]}`` those
            with one of these labels, ``{mixer: A, width: 8}`` those with both.
        baseline: the values of axes that a report compares with, such as ``{mixer: DotProduct}``.
        collect: the metrics that tables show, as ``<evaluation>/<metric>``; None shows all.
        with_files: whether the configs must exist; running a sweep needs them, reporting on it does not.

    Raises:
        InputError: the arguments make no sweep, or a config does not exist.
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
        check_plan(self)
        if with_files:
            for path in self.files():
                if not Path(find_config(path)).is_file():
                    raise no_config(path, where="sweep: config")
            check_keys(self)

    def labels_and_values(self, name: str) -> Iterable[tuple[Any, Any]]:
        """Return pairs of label and value for each value of an axis; a range counts as its two ends."""
        if self.runs is not None:
            return self.runs.items()
        axis = self.axes[name]
        return [(end, end) for end in next(iter(axis.values()))] if is_range(axis) else labelled(axis).items()

    @property
    def names(self) -> list[str]:
        """The names of the axes; ``run`` alone where runs are listed."""
        return ["run"] if self.runs is not None else list(self.axes)

    @property
    def titles(self) -> dict[str, str]:
        """The title of each axis in tables: the last part of its name, or all of it if another axis ends alike."""
        last = {name: name.rpartition(".")[2] for name in self.names}
        return {name: title if list(last.values()).count(title) == 1 else name for name, title in last.items()}

    def labels(self, name: str) -> list[Any]:
        """Return the labels of an axis's values, which tables show."""
        return list(self.runs if self.runs is not None else labelled(self.axes[name]))

    def choices(self, name: str) -> list[Any]:
        """Return the values of an axis; a range counts as its two ends."""
        return [value for _, value in self.labels_and_values(name)]

    def files(self) -> list[str]:
        """Return every config file that the sweep names."""
        values = list((self.runs or {}).values())
        values += [value for axis in self.axes.values() if not is_range(axis) for value in labelled(axis).values()]
        options = [value.get("config") for value in [*values, *self.evaluations.values()] if isinstance(value, dict)]
        return [*self.configs, *filter(is_config, values), *filter(None, options)]

    def all_runs(self) -> list[Run]:
        """Return every run, ordered by seed, so that a sweep that is stopped early still compares all combinations."""
        return list(self._every_run)

    @cached_property
    def _every_run(self) -> list[Run]:
        runs = [self._run(combination, seed) for seed in self.seeds for combination in self._combinations()]
        return list(_told_apart(runs))

    def _combinations(self) -> list[dict[str, tuple[Any, Any]]]:
        """Return the combinations to run; each is a label and a value by the name of the axis."""
        if self.runs is not None:
            return [{"run": (label, value)} for label, value in self.runs.items()]
        if self.draws is not None:
            return self._draw(self.draws)
        choices = [[(name, choice) for choice in labelled(axis).items()] for name, axis in self.axes.items()]
        return [dict(combination) for combination in itertools.product(*choices)]

    def _draw(self, count: int) -> list[dict[str, tuple[Any, Any]]]:
        generator = random.Random(DRAWS_SEED)
        combinations: dict[str, dict[str, tuple[Any, Any]]] = {}
        ranges = any(map(is_range, self.axes.values()))
        most = count if ranges else min(count, math.prod(len(self.labels(name)) for name in self.names))
        for _ in range(100 * count):
            combination = {name: drawn(axis, generator) for name, axis in self.axes.items()}
            combinations.setdefault(str([label for label, _ in combination.values()]), combination)
            if len(combinations) == most:
                break
        return list(combinations.values())

    def _run(self, combination: dict[str, tuple[Any, Any]], seed: int) -> Run:
        arguments = option("seed_everything", seed)
        for name, (_, value) in combination.items():
            arguments += options(name, value)
        labels = {name: label for name, (label, _) in combination.items()}
        parts = [f"{self.titles[name]}={label}" for name, label in labels.items()] + [f"seed={seed}"]
        return Run(",".join(parts).replace("/", "-").replace(" ", ""), labels, seed, arguments)

    def recipe(self) -> list[str]:
        """Return the words of the command line that all runs share."""
        configs = [word for path in self.configs for word in ("--config", path)]
        return configs + options("", self.options)

    def evaluation(self, name: str) -> list[str]:
        """Return the words that an evaluation adds to the command line of ``test``."""
        return options("", _tested(self.evaluations[name]))

    def follows(self, name: str, run: Run) -> bool:
        """Return whether an evaluation follows the training of a run, which its ``except`` does not name."""
        left_out = self.evaluations[name].get(EXCEPT)
        return left_out is None or not all(
            run.values[axis] in map(label_of, several(labels)) for axis, labels in left_out.items()
        )

    def evaluations_of(self, run: Run) -> list[str]:
        """Return the names of the evaluations that follow the training of a run, in order."""
        return [name for name in self.evaluations if self.follows(name, run)]

    def check(self, folder: Path) -> None:
        """Check that a folder is new, or holds this sweep, perhaps with other runs or fewer evaluations.

        Raises:
            InputError: the folder holds another sweep, or other files.
        """
        if not (folder / PLAN).exists():
            if folder.exists() and any(entry.name not in (LOCK, ENGINE) for entry in folder.iterdir()):
                raise InputError(f"{folder} exists and holds no sweep: choose another folder with --out")
            return
        before = read_plan(folder)
        changed = [key for key in COMMON if getattr(before, key) != getattr(self, key)]
        now, then = ({name: _tested(each) for name, each in plan.evaluations.items()} for plan in (self, before))
        if {**now, **then} == now:  # finished runs get those that are new
            changed = [key for key in changed if key != "evaluations"]
        known = {run.name: run.arguments for run in before.all_runs()}
        changed += [
            f"options of {run.name}" for run in self.all_runs() if known.get(run.name, run.arguments) != run.arguments
        ]
        if changed:
            raise InputError(f"{folder} holds a sweep with other {changed[0]}: choose another folder with --out")

    def keep(self, folder: Path) -> None:
        """Write the plan into the sweep's folder.

        Raises:
            InputError: the plan cannot be written, or the folder holds another sweep or other files.
        """
        self.check(folder)
        write(folder / PLAN, yaml.safe_dump(asdict(self), sort_keys=False))


def read_plan(folder: Path) -> Plan:
    """Read the plan in a sweep's folder; the configs that it names need not exist any more.

    Raises:
        InputError: the folder holds no plan, or the file is no plan.
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
        InputError: the file cannot be written; the one that was there before is unchanged.
    """
    try:
        write_text(path, text)
    except InputError as error:
        raise InputError(f"{error}; finished runs are kept: mend that and start the same command again") from error


def _tested(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Return what an evaluation sets: its options and config, without the runs that it does not follow."""
    return {key: value for key, value in evaluation.items() if key != EXCEPT}


def _told_apart(runs: Sequence[Run]) -> Iterator[Run]:
    """Yield the runs, each with a name that can be a folder of its own on every file system.

    A name gets a digest of its run's values and seed at its end if an earlier run has the same name, up to case and
    Unicode form, or if it is too long.
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


def told_apart(names: Sequence[str]) -> list[str]:
    """Return the names of runs of a sweep without what all of them share, such as "VarsD" of "mixer=VarsD,seed=0".

    Names that are no such list of settings, or not of the same settings, stay as they are.
    """
    runs = [[part.partition("=") for part in name.split(",")] for name in names]
    keys = [[key if equals else None for key, equals, _ in run] for run in runs]
    if len(names) < 2 or None in keys[0] or any(others != keys[0] for others in keys[1:]):
        return list(names)
    differs = [place for place, parts in enumerate(zip(*runs, strict=True)) if len(set(parts)) > 1]
    if len(differs) == 1:
        return [run[differs[0]][2] for run in runs]
    return [",".join("".join(run[place]) for place in differs) for run in runs] if differs else list(names)
