"""What came out of a sweep, setting by setting; everything is read from the files that the runs left."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from attention_zoo.errors import InputError
from attention_zoo.reports.settings import Facts
from attention_zoo.reports.statistics import Difference, Estimate, extremes, holm
from attention_zoo.runs.results import Measurement, read_cost, read_metrics, read_run_config, scales_of
from attention_zoo.scales import Scale, Scales
from attention_zoo.sweeps.axes import flat, label_of
from attention_zoo.sweeps.driver import Row, collected, flat_metrics, folder_of, rows
from attention_zoo.sweeps.plan import Run, read_plan

COSTS = {
    "parameters": ("parameters, M", 1e-6),
    "flops": ("GFLOPs an image", 1e-9),
    "train_images_per_second": ("training, images/s", 1.0),
    "peak_memory": ("peak memory, MB", 2.0**-20),
}
"""Of ``cost.json``: how tables call them, and their unit."""

MACHINE = ("device", "processes", "threads", "versions")
"""Of ``cost.json``: what a run ran on."""

QUALITY = ("accuracy", "mean_iou", "miou", "panoptic_quality")
"""Metrics that a sweep is about, if its plan does not say, before any other."""


@dataclass(frozen=True)
class Group:
    """The runs of one setting: they differ in their seed only.

    Attributes:
        values: of the axes.
        name: the values, for tables and legends.
        metrics: of each run that is done, by seed.
        costs: of each run that is done, as its ``cost.json`` has them, by seed.
        configs: the resolved config of each run that is done, its keys joined by dots, by seed.
        failures: reasons of runs that failed, by seed.
    """

    values: dict[str, Any]
    name: str
    metrics: dict[int, dict[str, float | None]] = field(default_factory=dict)
    costs: dict[int, dict[str, Any]] = field(default_factory=dict)
    configs: dict[int, dict[str, Any]] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)

    def of(self, metric: str) -> dict[int, float]:
        """The finite values of a metric, by seed."""
        found = {seed: metrics.get(metric) for seed, metrics in self.metrics.items()}
        return {seed: value for seed, value in found.items() if value is not None and math.isfinite(value)}

    def estimate(self, metric: str) -> Estimate | None:
        """Mean and confidence interval; None where no run has the metric."""
        values = list(self.of(metric).values())
        return Estimate.of(values) if values else None

    def cost(self, name: str) -> float | None:
        """The mean of a cost over the runs that have it."""
        found = [cost[name] for cost in self.costs.values() if cost.get(name) is not None]
        return float(np.mean(found)) if found else None

    def facts(self) -> Iterator[Facts]:
        """How each run that is done was made."""
        for seed, config in self.configs.items():
            if not config:
                continue
            machine = flat({name: value for name, value in self.costs[seed].items() if name in MACHINE})
            yield Facts(self.name, self.values, seed, config, machine)


class SweepReport:
    """A sweep's results, from its folder.

    Attributes:
        left_out: files that could not be read, with the reason; the report goes on without them.

    Args:
        out: folder of the sweep.

    Raises:
        InputError: it holds no sweep, or none of its runs is done.
    """

    def __init__(self, out: Path) -> None:
        self.out, self.plan = out, read_plan(out)
        self.found: list[Row] = rows(self.plan, out)
        self.left_out: list[str] = [row.problem for row in self.found if row.problem]
        self.groups = list(self._groups())
        if not any(group.metrics for group in self.groups):
            raise InputError(f"no run of the sweep in {out} is done yet")

    def _groups(self) -> Iterator[Group]:
        settings: dict[str, Group] = {}
        for run, record, *_ in self.found:
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

    def _read(self, read: Callable[[Path], dict[str, Any]], folder: Path) -> dict[str, Any]:
        """What a file says; nothing where it cannot be read, which is told."""
        try:
            return read(folder)
        except InputError as error:
            self.left_out.append(str(error))
            return {}

    def measured(self, run: Run) -> list[Measurement]:
        """What a run measured on its way; nothing where its log cannot be read, which is told already."""
        try:
            return read_metrics(folder_of(self.out, run))
        except InputError:
            return []

    def called(self, values: dict[str, Any]) -> str:
        """Values of axes for tables and legends; of numbers with the axis."""
        titles = self.plan.titles
        parts = [value if isinstance(value, str) else f"{titles[axis]} {value}" for axis, value in values.items()]
        return ", ".join(parts) or "all runs"

    @cached_property
    def metrics(self) -> list[str]:
        """Those of the plan, or all that were measured but speed, which is a cost."""
        return [name for name in collected(self.plan, self.found) if not name.endswith("images_per_second")]

    @cached_property
    def quality(self) -> str | None:
        """The metric that figures of cost are about: the plan's first, or what tasks are judged by."""
        if self.plan.collect is not None:
            return next(iter(self.metrics), None)
        judged = [name for wanted in QUALITY for name in self.metrics if name.rpartition("/")[2] == wanted]
        return next(iter([*judged, *self.metrics]), None)

    @cached_property
    def costs(self) -> list[str]:
        """Those that any run has."""
        return [name for name in COSTS if any(group.cost(name) is not None for group in self.groups)]

    @property
    def baseline(self) -> str | None:
        """What tables call the baseline, if the plan has one."""
        return None if self.plan.baseline is None else self.called(self._baseline)

    @property
    def _baseline(self) -> dict[str, Any]:
        return {axis: label_of(value) for axis, value in (self.plan.baseline or {}).items()}

    def baseline_of(self, group: Group) -> Group | None:
        """The setting with the baseline's values, the other axes as in ``group``; None for one that is a baseline."""
        wanted = {**group.values, **self._baseline}
        found = next((other for other in self.groups if other.values == wanted), None)
        return None if found is group else found

    def against_baseline(self, metric: str) -> dict[str, Difference]:
        """Of every other setting by name, seed by seed, corrected for the number of comparisons (Holm)."""
        pairs = [(group, base) for group in self.groups if (base := self.baseline_of(group)) and group.of(metric)]
        found = [Difference.of(group.of(metric), base.of(metric)) for group, base in pairs]
        chances = holm([difference.chance for difference in found])
        return {
            group.name: replace(difference, chance=chance)
            for (group, _), difference, chance in zip(pairs, found, chances, strict=True)
        }

    @cached_property
    def _scales(self) -> Scales:
        done = [row.run for row in self.found if row.record.status == "done"]
        return scales_of(line for run in done for line in self.measured(run))

    def scale(self, metric: str) -> Scale:
        """Which way of a metric is better, and its bounds; runs log an evaluation's metric as one of ``test``."""
        values = [value for group in self.groups for value in group.of(metric).values()]
        return self._scales.of(metric, f"test/{metric.partition('/')[2]}", values=values)

    def limits(self, metric: str) -> tuple[float, float]:
        """What no value of a metric leaves."""
        return self.scale(metric).limits

    def extremes(self, metric: str) -> dict[str, str]:
        """``best`` and ``worst`` by the name of the setting, where that is more than noise."""
        return extremes({group.name: group.of(metric) for group in self.groups}, metric, self.scale(metric))
