"""The runs of a sweep: every one is a name and the options that it adds to the recipe."""

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from attention_zoo.errors import InputError, unknown

PLAN = "sweep.yaml"
"""What a sweep's folder keeps of it."""

LOCK = "lock"
"""What the process that works on a folder holds."""

ENGINE = "engine"
"""Folder in a sweep's for what an engine keeps."""

RANGES = ("uniform", "log_uniform", "integers")
"""Axes to draw from, each with its least and its largest value."""

COMMON = ("configs", "options", "evaluations")
"""What all sweeps share that go into one folder."""

DRAWS_SEED = 20_240_607
"""Of random sweeps: the same sweep draws the same runs, and more of them begin with the same."""

Axis = Mapping[str, Any] | Sequence[Any]


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

    def __post_init__(self) -> None:
        if self.runs is not None and (self.axes or self.draws is not None):
            raise InputError("sweep: give axes or a list of runs, not both")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"sweep: seeds must be different numbers, at least one; got {self.seeds}")
        for name, axis in self.axes.items():
            if not axis or not isinstance(axis, (dict, list)):
                raise InputError(f"sweep: axis {name!r} must be a list of values, labels with values, or a range")
            if _is_range(axis) and self.draws is None:
                raise InputError(f"sweep: axis {name!r} is a range; say with draws how many runs to draw from it")
        if self.draws is not None and self.draws < 1:
            raise InputError(f"sweep: draws={self.draws} must be at least 1")
        for name, value in (self.baseline or {}).items():
            if name not in self.names:
                raise unknown("axis of the baseline", name, self.names)
            labels = [] if self.runs is None and _is_range(self.axes[name]) else self.labels(name)
            if labels and value not in labels:
                raise unknown(f"{name} of the baseline", str(value), map(str, labels))
        for path in self.files():
            if not Path(path).is_file():
                raise InputError(f"sweep: config {path} does not exist")

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
        return list(self.runs if self.runs is not None else _labelled(self.axes[name]))

    def choices(self, name: str) -> list[Any]:
        """The values of an axis; of a range its ends."""
        if self.runs is not None:
            return list(self.runs.values())
        axis = self.axes[name]
        return list(next(iter(axis.values()))) if _is_range(axis) else list(_labelled(axis).values())

    def files(self) -> list[str]:
        """Every config file that the sweep names."""
        values = list((self.runs or {}).values())
        values += [value for axis in self.axes.values() if not _is_range(axis) for value in _labelled(axis).values()]
        options = [value.get("config") for value in [*values, *self.evaluations.values()] if isinstance(value, dict)]
        return [*self.configs, *filter(is_config, values), *filter(None, options)]

    def all_runs(self) -> list[Run]:
        """Every run, all combinations with the first seed first: a sweep that is stopped early compares them all."""
        return [self._run(combination, seed) for seed in self.seeds for combination in self._combinations()]

    def _combinations(self) -> list[dict[str, tuple[Any, Any]]]:
        """Label and value of every axis."""
        if self.runs is not None:
            return [{"run": (label, value)} for label, value in self.runs.items()]
        if self.draws is not None:
            return self._draw(self.draws)
        choices = [[(name, choice) for choice in _labelled(axis).items()] for name, axis in self.axes.items()]
        return [dict(combination) for combination in itertools.product(*choices)]

    def _draw(self, count: int) -> list[dict[str, tuple[Any, Any]]]:
        generator = random.Random(DRAWS_SEED)
        drawn: dict[str, dict[str, tuple[Any, Any]]] = {}
        for _ in range(100 * count):
            combination = {name: _drawn(axis, generator) for name, axis in self.axes.items()}
            drawn.setdefault(str([label for label, _ in combination.values()]), combination)
            if len(drawn) == count:
                break
        return list(drawn.values())

    def _run(self, combination: dict[str, tuple[Any, Any]], seed: int) -> Run:
        arguments = _option("seed_everything", seed)
        for name, (_, value) in combination.items():
            arguments += _options(name, value)
        labels = {name: label for name, (label, _) in combination.items()}
        parts = [f"{self.titles[name]}={label}" for name, label in labels.items()] + [f"seed={seed}"]
        return Run(",".join(parts).replace("/", "-").replace(" ", ""), labels, seed, arguments)

    def recipe(self) -> list[str]:
        """The command line that all runs share."""
        configs = [word for path in self.configs for word in ("--config", path)]
        return configs + _options("", self.options)

    def evaluation(self, name: str) -> list[str]:
        """What an evaluation adds to the command line of ``test``."""
        return _options("", self.evaluations[name])

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
    """The plan of a sweep's folder.

    Raises:
        InputError: there is none.
    """
    path = folder / PLAN
    if not path.is_file():
        raise InputError(f"{folder} holds no sweep: there is no {PLAN} in it")
    return Plan(**yaml.safe_load(path.read_text(encoding="utf-8")))


def write(path: Path, text: str) -> None:
    """Write a file at once or not at all.

    Raises:
        InputError: it cannot be written; what was there before still is.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}; finished runs are kept: mend that and start the same command again"
        ) from error


def _labelled(axis: Axis) -> dict[Any, Any]:
    """Values by label; those of a list are their own."""
    if isinstance(axis, Mapping):
        return dict(axis)
    return {_label(value): value for value in axis}


def _label(value: Any) -> Any:
    if is_config(value):
        return Path(value).stem
    return ",".join(f"{key.rpartition('.')[2]}={v}" for key, v in value.items()) if isinstance(value, dict) else value


def _is_range(axis: Axis) -> bool:
    return isinstance(axis, Mapping) and len(axis) == 1 and next(iter(axis)) in RANGES


def _drawn(axis: Axis, generator: random.Random) -> tuple[Any, Any]:
    """Label and value of one draw."""
    if not _is_range(axis):
        return generator.choice(list(_labelled(axis).items()))
    (kind, (least, largest)) = next(iter(axis.items()))
    if kind == "integers":
        value: float = generator.randint(least, largest)
    elif kind == "uniform":
        value = float(f"{generator.uniform(least, largest):.4g}")
    else:
        value = float(f"{math.exp(generator.uniform(math.log(least), math.log(largest))):.4g}")
    return value, value


def is_config(value: Any) -> bool:
    """Whether the value of an axis names a config file."""
    return isinstance(value, str) and value.endswith((".yaml", ".yml"))


def _options(name: str, value: Any) -> list[str]:
    """What the value of an axis adds to a command line: a config file, several options, or the axis's own option."""
    if isinstance(value, Mapping):
        return [word for key, each in value.items() for word in _option(key, each)]
    return ["--config", value] if is_config(value) else _option(name, value)


def _option(key: str, value: Any) -> list[str]:
    """An option as words; the YAML of a number, a list or a mapping is one."""
    text = value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True, width=math.inf)
    return [f"--{key}", text.removesuffix("\n").removesuffix("\n...")]
