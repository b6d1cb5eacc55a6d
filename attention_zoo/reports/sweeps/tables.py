"""The tables of a sweep: its settings for readers, its settings for programs, and its runs."""

import math
from collections.abc import Iterator

from attention_zoo.reports.costs import UNCOUNTED
from attention_zoo.reports.settings import differences, shared
from attention_zoo.reports.statistics import LEAST_SEEDS, LEVEL, TEST, arrow
from attention_zoo.reports.sweeps.report import COSTS, SweepReport
from attention_zoo.reports.table import Table
from attention_zoo.sweeps.driver import flat_metrics


def settings_table(report: SweepReport, *, with_costs: bool = True) -> Table:
    """Return a table with a row for each setting: means with confidence intervals, differences to a baseline, costs."""
    base, costs = report.baseline, report.costs if with_costs else []
    header = [*report.plan.titles.values(), "seeds"]
    for metric in report.metrics:
        header += [arrow(metric, report.scale(metric)), *([f"to {base}"] if base else [])]
    header += [COSTS[name][0] for name in costs]
    compared = {metric: report.against_baseline(metric) for metric in report.metrics}
    extremes = {metric: report.extremes(metric) for metric in report.metrics}
    lines = []
    for group in report.groups:
        line = [*map(str, group.values.values()), str(len(group.metrics))]
        for metric in report.metrics:
            estimate, mark = group.estimate(metric), extremes[metric].get(group.name)
            line.append("" if estimate is None else f"{estimate}{f' ({mark})' if mark else ''}")
            line += [str(compared[metric].get(group.name, ""))] if base else []
        values = [(group.cost(name), COSTS[name][1]) for name in costs]
        lines.append((*line, *("" if value is None else f"{value * unit:.4g}" for value, unit in values)))
    return Table(tuple(header), tuple(lines), tuple(_notes(report)))


def numbers_table(report: SweepReport) -> Table:
    """Return the numbers of `settings_table` for a program, with a column for each number and all its digits."""
    parts = ["mean", "half width", "seeds"] + (["to baseline", "p"] if report.baseline else [])
    metrics = [f"{metric} {part}" for metric in report.metrics for part in parts]
    lines = []
    compared = {metric: report.against_baseline(metric) for metric in report.metrics}
    for group in report.groups:
        numbers: list[float | None] = []
        for metric in report.metrics:
            estimate, difference = group.estimate(metric), compared[metric].get(group.name)
            numbers += [estimate.mean, estimate.half_width, estimate.count] if estimate else [None, None, 0]
            if report.baseline:
                numbers += [difference.mean, difference.chance] if difference else [None, None]
        numbers += [group.cost(name) for name in report.costs]
        lines.append((*map(str, group.values.values()), *map(_exact, numbers)))
    return Table((*report.plan.names, *metrics, *report.costs), tuple(lines))


def runs_table(report: SweepReport) -> Table:
    """Return a table with a row for each run: its axes, seed, state, own metrics, and the reason if it failed."""
    names = list(dict.fromkeys(name for row in report.found for name in flat_metrics(row.record)))
    lines = []
    for run, record, *_ in report.found:
        flat = flat_metrics(record)
        values = [str(run.values[name]) for name in report.plan.names]
        numbers = [_exact(flat.get(name)) for name in names]
        lines.append((*values, str(run.seed), record.status, *numbers, record.reason or ""))
    return Table((*report.plan.titles.values(), "seed", "state", *names, "reason"), tuple(lines))


def _notes(report: SweepReport) -> Iterator[str]:
    """Yield the notes on a table: how to read it, what was left out or failed, and in what the runs differ."""
    counts = sorted({len(group.metrics) for group in report.groups if group.metrics})
    if counts[-1] > 1:
        yield "mean over seeds ± half of its 95 % confidence interval (Student's t)"
        yield (
            f"(best) and (worst) only where {TEST} tell a setting from every other one "
            f"(each p < {LEVEL}); no mark: not more than noise"
        )
    else:
        yield "one seed each: no interval and no test, so that nothing tells a difference from noise"
    if report.baseline and counts[-1] > 1:
        yield (
            f"to {report.baseline}: mean difference, seed by seed, ± half of its interval; "
            f"* where a paired t-test over {LEAST_SEEDS} or more seeds tells it from none (p < {LEVEL}, corrected by "
            "Holm for the number of settings)"
        )
    if len(counts) > 1:
        yield f"settings have different numbers of finished seeds: {', '.join(map(str, counts))}"
    left = sum(row.record.status in ("waiting", "running") for row in report.found)
    if left:
        yield f"{left} of {len(report.found)} runs are not done yet"
    for problem in report.left_out:
        yield f"left out: {problem}"
    if "flops" in report.costs:
        yield UNCOUNTED
    runs = [facts for group in report.groups for facts in group.facts()]
    yield from differences(report.plan, runs)
    yield from shared(runs)
    yield from _failures(report)


def _failures(report: SweepReport) -> Iterator[str]:
    """Yield a line for each reason of failures, with the settings and seeds that failed for it."""
    by_reason: dict[str, list[str]] = {}
    for group in report.groups:
        for reason in dict.fromkeys(group.failures.values()):
            seeds = [str(seed) for seed, own in group.failures.items() if own == reason]
            by_reason.setdefault(reason, []).append(f"{group.name} (seed {', '.join(seeds)})")
    for reason, failed in by_reason.items():
        yield f"failed: {'; '.join(failed)}: {reason}"


def _exact(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else repr(value)
