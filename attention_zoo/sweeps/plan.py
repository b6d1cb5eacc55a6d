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
from attention_zoo.sweeps.axes import drawn, is_config, is_range, labelled, option, options
from attention_zoo.sweeps.checks import check_keys, check_plan

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

LONGEST = 250
"""Bytes of a run's name; file systems take 255, and copies of its config end in .yaml."""


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
    """The runs and evaluations of a sweep.

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
        check_plan(self)
        if with_files:
            for path in self.files():
                if not Path(path).is_file():
                    raise InputError(f"sweep: config {path} does not exist")
            check_keys(self)

    def labels_and_values(self, name: str) -> Iterable[tuple[Any, Any]]:
        """Pair each value of an axis with its label; a range has its ends."""
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
        """What tables call the axes: the last part of a name, if no other axis ends alike."""
        last = {name: name.rpartition(".")[2] for name in self.names}
        return {name: title if list(last.values()).count(title) == 1 else name for name, title in last.items()}

    def labels(self, name: str) -> list[Any]:
        """Return what tables call the values of an axis."""
        return list(self.runs if self.runs is not None else labelled(self.axes[name]))

    def choices(self, name: str) -> list[Any]:
        """Return the values of an axis; of a range its ends."""
        return [value for _, value in self.labels_and_values(name)]

    def files(self) -> list[str]:
        """Return every config file that the sweep names."""
        values = list((self.runs or {}).values())
        values += [value for axis in self.axes.values() if not is_range(axis) for value in labelled(axis).values()]
        options = [value.get("config") for value in [*values, *self.evaluations.values()] if isinstance(value, dict)]
        return [*self.configs, *filter(is_config, values), *filter(None, options)]

    def all_runs(self) -> list[Run]:
        """Return every run, all combinations with the first seed first: one that is stopped early compares them all."""
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
        """Return the command line that all runs share."""
        configs = [word for path in self.configs for word in ("--config", path)]
        return configs + options("", self.options)

    def evaluation(self, name: str) -> list[str]:
        """Return what an evaluation adds to the command line of ``test``."""
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
    """Read the plan of a sweep's folder; its configs may be gone.

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
