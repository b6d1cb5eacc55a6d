"""Read the results of a sweep, setting by setting, from the files that its runs left."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from attention_zoo.errors import InputError
from attention_zoo.reports.settings import Facts
from attention_zoo.reports.statistics import Difference, Estimate, arrow, extremes, holm
from attention_zoo.reports.words import in_words
from attention_zoo.results.clicks import ClickResult
from attention_zoo.runs.results import SPEED, Measurement, read_cost, read_metrics, read_run_config, scales_of
from attention_zoo.scales import Scale, Scales
from attention_zoo.sweeps.axes import flat, label_of
from attention_zoo.sweeps.driver import Row, collected, flat_metrics, folder_of, rows
from attention_zoo.sweeps.plan import Run, read_plan
from attention_zoo.terminal import tracked

COSTS = {
    "parameters": ("parameters, M", 1e-6),
    "flops": ("GFLOPs an image", 1e-9),
    "train_images_per_second": ("training, images/s", 1.0),
    "peak_memory": ("peak memory, MB", 2.0**-20),
}
"""The costs of ``cost.json`` that tables show: the heading of each, and the factor to its unit."""

MACHINE = ("device", "processes", "threads", "versions")
"""The keys of ``cost.json`` that say what a run ran on."""

QUALITY = ("accuracy", "mean_iou", "miou", "panoptic_quality")
"""The ends of the names of metrics that tasks are judged by, the first choice first."""


@dataclass(frozen=True)
class Group:
    """The runs of one setting, which differ only in their seed.

    Attributes:
        values: the label of each axis's value, by the axis's name.
        name: the name of the setting in tables and legends.
        metrics: the metrics of each run that is done, by seed.
        costs: the content of ``cost.json`` of each run that is done, by seed.
        configs: the resolved config of each run that is done, its keys joined by dots, by seed.
        failures: the reason of each run that failed, by seed.
    """

    values: dict[str, Any]
    name: str
    metrics: dict[int, dict[str, float | None]] = field(default_factory=dict)
    costs: dict[int, dict[str, Any]] = field(default_factory=dict)
    configs: dict[int, dict[str, Any]] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)

    def of(self, metric: str) -> dict[int, float]:
        """Return the finite values of a metric, by seed."""
        values = {seed: metrics.get(metric) for seed, metrics in self.metrics.items()}
        return {seed: value for seed, value in values.items() if value is not None and math.isfinite(value)}

    def estimate(self, metric: str) -> Estimate | None:
        """Return the mean of a metric and its confidence interval; None where no run has the metric."""
        values = list(self.of(metric).values())
        return Estimate.of(values) if values else None

    def cost(self, name: str) -> float | None:
        """Return the mean of a cost over the runs that have it; None where none has."""
        values = [cost[name] for cost in self.costs.values() if cost.get(name) is not None]
        return float(np.mean(values)) if values else None

    def facts(self) -> Iterator[Facts]:
        """Yield the facts about how each run that is done was made; runs without a config are left out."""
        for seed, config in self.configs.items():
            if not config:
                continue
            machine = flat({name: value for name, value in self.costs[seed].items() if name in MACHINE})
            yield Facts(self.name, self.values, seed, config, machine)


class SweepReport:
    """The results of a sweep, read from its folder.

    Attributes:
        left_out: a line for each file that could not be read, with the reason; the report goes on without it.
        clicks: the results of interactive segmentation, each with the name of its setting, and seed if there are more.

    Args:
        out: the folder of the sweep.

    Raises:
        InputError: the folder holds no sweep, or none of its runs is done.
    """

    def __init__(self, out: Path) -> None:
        self.out, self.plan = out, read_plan(out)
        self.found: list[Row] = rows(self.plan, out)
        self.left_out: list[str] = [row.problem for row in self.found if row.problem]
        self.groups = list(self._groups())
        if not any(group.metrics for group in self.groups):
            raise InputError(f"no run of the sweep in {out} is done yet")
        self.clicks = self._clicks()

    def _groups(self) -> Iterator[Group]:
        settings: dict[str, Group] = {}
        for run, record, *_ in tracked(self.found, "reading runs"):
            group = settings.setdefault(repr(run.values), Group(run.values, self.called(run.values)))
            folder = folder_of(self.out, run)
            if record.status == "failed":
                group.failures[run.seed] = record.reason or ""
            if record.status != "done":
                continue
            group.metrics[run.seed] = flat_metrics(record)
            group.costs[run.seed] = self._read(read_cost, folder)
            config = self._read(read_run_config, folder)
            group.configs[run.seed] = flat(config) if config else {}
        yield from settings.values()

    def _clicks(self) -> list[tuple[str, ClickResult]]:
        """Return the results of interactive segmentation; of several tests of a run on the same data the last."""
        found: dict[tuple[str, str], ClickResult] = {}
        for run, record, *_ in self.found:
            name = self.called(run.values)
            name = f"{name}, seed {run.seed}" if len(self.plan.seeds) > 1 else name
            files = folder_of(self.out, run).rglob(ClickResult.file) if record.status == "done" else ()
            for file in sorted(files):
                try:
                    result = ClickResult.read(file)
                except InputError as error:
                    self.left_out.append(str(error))
                else:
                    found[name, result.data] = result
        return [(name, result) for (name, _), result in found.items()]

    def _read(self, read: Callable[[Path], dict[str, Any]], folder: Path) -> dict[str, Any]:
        """Return the content of a file; if it cannot be read, return an empty mapping and note why in ``left_out``."""
        try:
            return read(folder)
        except InputError as error:
            self.left_out.append(str(error))
            return {}

    def measured(self, run: Run) -> list[Measurement]:
        """Return the lines of a run's log; none where it cannot be read, which ``left_out`` says already."""
        try:
            return read_metrics(folder_of(self.out, run))
        except InputError:
            return []

    def called(self, values: dict[str, Any]) -> str:
        """Return the name of a setting in tables and legends: its values, with the axis before each that is no text."""
        titles = self.plan.titles
        parts = [value if isinstance(value, str) else f"{titles[axis]} {value}" for axis, value in values.items()]
        return ", ".join(parts) or "all runs"

    @cached_property
    def metrics(self) -> list[str]:
        """The names of the metrics to show: those of the plan, or else all that were measured, always without speed."""
        return [name for name in collected(self.plan, self.found) if not name.endswith(SPEED)]

    @cached_property
    def quality(self) -> str | None:
        """The metric that figures of cost show; None where there is no metric.

        It is the first of the plan; if the plan lists none, one that tasks are judged by, or else the first measured.
        """
        if self.plan.collect is not None:
            return next(iter(self.metrics), None)
        judged = [name for wanted in QUALITY for name in self.metrics if name.rpartition("/")[2] == wanted]
        return next(iter([*judged, *self.metrics]), None)

    @cached_property
    def costs(self) -> list[str]:
        """The names of the costs that any run has."""
        return [name for name in COSTS if any(group.cost(name) is not None for group in self.groups)]

    @property
    def baseline(self) -> str | None:
        """The name of the baseline in tables; None where the plan has none."""
        return None if self.plan.baseline is None else self.called(self._baseline)

    @property
    def _baseline(self) -> dict[str, Any]:
        return {axis: label_of(value) for axis, value in (self.plan.baseline or {}).items()}

    def baseline_of(self, group: Group) -> Group | None:
        """Return the setting with the baseline's values and the other axes as in ``group``.

        It is None where there is no such setting, or where ``group`` is that setting.
        """
        wanted = {**group.values, **self._baseline}
        baseline = next((other for other in self.groups if other.values == wanted), None)
        return None if baseline is group else baseline

    def against_baseline(self, metric: str) -> dict[str, Difference]:
        """Return the difference of each other setting to its baseline, by the setting's name.

        Differences are taken seed by seed; p-values are corrected for the number of comparisons (Holm).
        """
        pairs = [(group, base) for group in self.groups if (base := self.baseline_of(group)) and group.of(metric)]
        differences = [Difference.of(group.of(metric), base.of(metric)) for group, base in pairs]
        chances = holm([difference.chance for difference in differences])
        return {
            group.name: replace(difference, chance=chance)
            for (group, _), difference, chance in zip(pairs, differences, chances, strict=True)
        }

    @cached_property
    def _scales(self) -> Scales:
        done = [row.run for row in self.found if row.record.status == "done"]
        return scales_of(line for run in done for line in self.measured(run))

    def scale(self, metric: str) -> Scale:
        """Return the scale of a metric: which way is better, and its bounds.

        Runs log the metrics of every evaluation under ``test``, so that their scales are looked up there too.
        """
        values = [value for group in self.groups for value in group.of(metric).values()]
        return self._scales.of(metric, f"test/{metric.partition('/')[2]}", values=values)

    def heading(self, metric: str) -> str:
        """Return the name of a metric in words, with an arrow to where it is better."""
        words = in_words([*self.metrics, metric])
        return arrow(words[metric], self.scale(metric))

    def limits(self, metric: str) -> tuple[float, float]:
        """Return the least and the largest value that a metric can have."""
        return self.scale(metric).limits

    def extremes(self, metric: str) -> dict[str, str]:
        """Return the marks ``best`` and ``worst`` by the name of the setting, where they are more than noise."""
        return extremes({group.name: group.of(metric) for group in self.groups}, metric, self.scale(metric))
