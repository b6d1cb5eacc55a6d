"""Compare trainings from the files that every run leaves: their metrics, their costs and their curves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from attention_zoo.errors import InputError
from attention_zoo.reports.costs import UNCOUNTED
from attention_zoo.reports.panels import finish, panels, visible
from attention_zoo.reports.settings import Facts, changes, shared
from attention_zoo.reports.statistics import arrow
from attention_zoo.reports.sweeps.figures import curves_of
from attention_zoo.reports.sweeps.report import COSTS, MACHINE, QUALITY
from attention_zoo.reports.table import Table
from attention_zoo.reports.writing import save, whole
from attention_zoo.runs.results import METRICS, SPEED, Measurement, read_cost, read_metrics, read_run_config, scales_of
from attention_zoo.sweeps.axes import flat

MOST_CURVES = 6
"""The largest number of validation metrics that get a panel; those that tasks are judged by come first."""

COST_COLUMNS = {"train_seconds": ("training, s", 1.0), **COSTS}


@dataclass(frozen=True)
class TrainedRun:
    """A run, read from the files in its folder.

    Attributes:
        name: the name of the run in tables and legends.
        measured: the lines of ``metrics.jsonl``.
        cost: the content of ``cost.json``; empty without it.
        config: the content of ``config.yaml``; empty without it.
    """

    name: str
    measured: list[Measurement]
    cost: dict[str, Any]
    config: dict[str, Any]

    @property
    def data(self) -> str | None:
        """The class name of the data; None where the config does not name it."""
        data = self.config.get("data")
        name = data.get("class_path") if isinstance(data, dict) else None
        return name.rpartition(".")[2] if isinstance(name, str) else None

    @property
    def test(self) -> Measurement | None:
        """The last test, joined by metrics of earlier tests of the same epoch and checkpoint; None without a test."""
        tests = [line for line in self.measured if line.stage == "test" and _known(line)]
        if not tests:
            return None
        alike = [line for line in tests if (line.epoch, line.checkpoint) == (tests[-1].epoch, tests[-1].checkpoint)]
        return tests[-1]._replace(metrics={name: value for line in alike for name, value in _known(line).items()})

    @property
    def best(self) -> tuple[Measurement | None, str]:
        """The best validation, and the metric it is the best by: the task's own, else the loss, else the first one.

        Only metrics of which a direction is better are asked. Without one it is the last validation, with an empty
        name; for a run without a validation it is None.
        """
        lines = [line for line in self.measured if line.stage == "validate" and _known(line)]
        scales = scales_of(self.measured)
        metric = _judged([name for line in lines for name in _known(line) if scales.of(name).way])
        if metric is None:
            return (lines[-1] if lines else None), ""
        having = [line for line in lines if metric in _known(line)]
        way = scales.of(metric).way
        return max(having, key=lambda line: way * _known(line)[metric]), metric

    @property
    def facts(self) -> Facts:
        """The facts about how the run was made: its seed, config and machine."""
        seed = self.config.get("seed_everything")
        machine = flat({key: value for key, value in self.cost.items() if key in MACHINE})
        return Facts(self.name, {}, seed, flat(self.config) if self.config else {}, machine)


def holds_run(path: Path) -> bool:
    """Return whether a path is a log of measurements, or a folder with one in it or below it."""
    return path.name == METRICS if path.is_file() else any(path.rglob(METRICS))


def read_runs(paths: Sequence[Path], left_out: list[str]) -> list[TrainedRun]:
    """Read the runs at or below ``paths``, and give them names that tell them apart.

    Args:
        paths: folders, or files ``metrics.jsonl``.
        left_out: a list to which a line is added for each file that cannot be read.

    Raises:
        InputError: a path holds no log of a run, or no run has a measurement.
    """
    folders: list[Path] = []
    for path in paths:
        logs = [path] if path.is_file() else sorted(path.rglob(METRICS))
        if not logs:
            raise InputError(f"nothing to report on in {path}: no {METRICS}, which every training and test writes")
        folders += [file.parent for file in logs]
    folders = list(dict.fromkeys(folder.resolve() for folder in folders))
    short = [folder.name for folder in folders]
    names = short if len(set(short)) == len(short) else list(map(str, folders))
    runs = []
    for name, folder in zip(names, folders, strict=True):
        measured = _read(read_metrics, folder, left_out)
        if measured is None:
            continue
        if not any(map(_known, measured)):
            left_out.append(f"{folder / METRICS} holds no measurement")
            continue
        cost, config = _read(read_cost, folder, left_out) or {}, _read(read_run_config, folder, left_out) or {}
        runs.append(TrainedRun(name, measured, cost, config))
    if not runs:
        raise InputError(f"nothing to report on: {'; '.join(left_out)}")
    return runs


def check_comparable(runs: Sequence[TrainedRun], *, mixed: bool) -> None:
    """Refuse to compare runs on different data.

    Raises:
        InputError: two runs have different data, and ``mixed`` does not allow it.
    """
    first = next((run for run in runs if run.data), None)
    for run in runs:
        if first and run.data and run.data != first.data and not mixed:
            raise InputError(
                f"different data: {first.data} in {first.name}, {run.data} in {run.name}; "
                "--mixed true puts them into one table with notes"
            )


def runs_table(
    runs: Sequence[TrainedRun], left_out: Sequence[str] = (), notes: Sequence[str] = (), *, exact: bool = False
) -> Table:
    """Return a table with a row for each run: its last test, its best validation where needed, and its cost.

    The best validations are shown only where some run has no test.

    Args:
        runs: the runs to put side by side.
        left_out: lines on files that could not be read, for the notes.
        notes: further notes below the table.
        exact: whether to write all digits, and plain names as headings, for a program.
    """
    tested = [run.test for run in runs]
    bests = [run.best if None in tested else (None, "") for run in runs]
    metrics = _names(tested) + _names([best for best, _ in bests])
    costs = [name for name in COST_COLUMNS if any(run.cost.get(name) is not None for run in runs)]
    rows = []
    for run, test, (best, judge) in zip(runs, tested, bests, strict=True):
        values = {**(_known(best) if best else {}), **(_known(test) if test else {})}
        cells = [_number(values.get(name), exact) for name in metrics]
        for name in costs:
            value = run.cost.get(name)
            cells.append(_number(None if value is None else value * (1 if exact else COST_COLUMNS[name][1]), exact))
        rows.append((run.name, _sources(test, best, judge), *cells))
    scales = scales_of(line for run in runs for line in run.measured)
    arrows = [arrow(name, scales.of(name)) for name in metrics]
    headings = metrics + costs if exact else [*arrows, *(COST_COLUMNS[name][0] for name in costs)]
    notes = [*(f"left out: {problem}" for problem in left_out), *notes]
    notes += [UNCOUNTED] if "flops" in costs else []
    facts = [run.facts for run in runs]
    return Table(("run", "measured", *headings), tuple(rows), (*notes, *changes(facts), *shared(facts)))


def training_figure(runs: Sequence[TrainedRun]) -> Figure | None:
    """Draw a panel for each validation metric over epochs, with a line for each run; None where no run validated."""
    curves = {run.name: curves_of(run.measured) for run in runs}
    names = list(dict.fromkeys(name for curve in curves.values() for name in curve))
    names = sorted(names, key=lambda name: (_leaf(name) not in QUALITY, "loss" not in name))[:MOST_CURVES]
    if not names:
        return None
    figure, every = panels(len(names), len(runs))
    scales = scales_of(line for run in runs for line in run.measured)
    for axes, metric in zip(every, names, strict=True):
        for place, (label, curve) in enumerate(curves.items()):
            series = sorted(curve.get(metric, {}).items())
            style: dict[str, Any] = {
                "color": f"C{place % 10}",
                "linestyle": "-" if place < 10 else "--",
                "linewidth": 1.2,
            }
            alone: dict[str, Any] = {"marker": "o", "markersize": 4} if len(series) == 1 else {}
            axes.plot(
                [epoch + 1 for epoch, _ in series],
                [value for _, value in series],
                label=visible(label),
                **style,
                **alone,
            )
        axes.set(xlabel="epoch", ylabel=arrow(metric, scales.of(metric)))
        locator: Any = axes.xaxis.get_major_locator()
        locator.set_params(integer=True)
    return finish(figure, every)


def write_runs(folder: Path, runs: Sequence[TrainedRun], table: Table) -> None:
    """Write ``runs.md`` for readers, ``runs.csv`` for programs, and the training curves as ``training.png``."""
    figure = training_figure(runs)
    with whole(folder) as stage:
        (stage / "runs.md").write_text(table.markdown(), encoding="utf-8")
        (stage / "runs.csv").write_text(runs_table(runs, exact=True).csv(), encoding="utf-8")
        if figure is not None:
            save(figure, stage / "training.png")


def _read(read: Callable[[Path], Any], folder: Path, left_out: list[str]) -> Any:
    try:
        return read(folder)
    except InputError as error:
        left_out.append(str(error))
        return None


def _known(line: Measurement) -> dict[str, float]:
    return {name: value for name, value in line.metrics.items() if value is not None and not name.endswith(SPEED)}


def _judged(names: Sequence[str]) -> str | None:
    judged = [name for wanted in QUALITY for name in names if _leaf(name) == wanted]
    return next(iter([*judged, *(name for name in names if "loss" in name), *names]), None)


def _names(lines: Sequence[Measurement | None]) -> list[str]:
    return list(dict.fromkeys(name for line in lines if line for name in _known(line)))


def _sources(test: Measurement | None, best: Measurement | None, judge: str) -> str:
    """Return the words that say which measurements a row shows."""
    words = []
    if test:
        epoch = "" if test.epoch is None else f" of epoch {test.epoch + 1}"
        words.append(f"test{epoch}{_part(test)}")
    if best:
        epoch = "" if best.epoch is None else f", epoch {best.epoch + 1}"
        words.append(f"{f'best validation by {judge}' if judge else 'last validation'}{epoch}{_part(best)}")
    return "; ".join(words)


def _part(line: Measurement) -> str:
    return "" if line.part is None else f" on {line.part} alone"


def _leaf(name: str) -> str:
    return name.rpartition("/")[2]


def _number(value: float | None, exact: bool) -> str:
    return "" if value is None else repr(value) if exact else f"{value:.4g}"
