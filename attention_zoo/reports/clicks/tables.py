"""Tables of interactive segmentation: numbers of clicks, curves, and what keeps results from being compared."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from attention_zoo.reports.table import Table
from attention_zoo.results.clicks import THRESHOLDS, ClickCurve, ClickResult

Named = Mapping[str, ClickResult] | Sequence[tuple[str, ClickResult]]
"""Results by name, or with a name each; results on several data sets may share one."""


def labelled(results: Named) -> list[tuple[str, ClickResult, ClickCurve]]:
    """Return all curves, each with a name that tells it apart (of the setting, the result, or both) and its result."""
    named = list(results.items()) if isinstance(results, Mapping) else list(results)
    every = [(name, result, curve) for name, result in named for curve in result.curves]
    one_result = len({name for name, _ in named}) == 1
    one_setting = all(len(result.curves) == 1 for _, result in named)
    return [
        (curve.name if one_result else name if one_setting else f"{name}: {curve.name}", result, curve)
        for name, result, curve in every
    ]


def differences(results: Mapping[str, ClickResult]) -> list[str]:
    """Return the keys of the protocol, or ``objects``, in which results on the same data differ."""
    differing: dict[str, None] = {}
    for data in {result.data for result in results.values()}:
        every = [{**one.protocol, "objects": one.objects} for one in results.values() if one.data == data]
        keys = dict.fromkeys(key for one in every for key in one)
        differing |= {key: None for key in keys if len({json.dumps(one.get(key)) for one in every}) > 1}
    return list(differing)


def write_tables(folder: Path, results: Mapping[str, ClickResult]) -> Table:
    """Write the curves as ``clicks.csv`` and the `noc_table` as ``noc.csv`` and ``noc.md``; return the latter table."""
    rows = tuple(
        (name, result.data, str(clicks), f"{mean:.6f}", _blank(error), str(len(curve.trials)))
        for name, result, curve in labelled(results)
        for clicks, (mean, error) in enumerate(zip(curve.mean, curve.standard_error, strict=True))
    )
    curves = Table(("curve", "data", "clicks", "mean_iou", "standard_error", "trials"), rows)
    table = noc_table(results)
    (folder / "clicks.csv").write_text(curves.csv(), encoding="utf-8")
    (folder / "noc.csv").write_text(table.csv(), encoding="utf-8")
    (folder / "noc.md").write_text(table.markdown(), encoding="utf-8")
    return table


def noc_table(results: Mapping[str, ClickResult]) -> Table:
    """Return a table with a row for each curve.

    It holds the mean number of clicks until each IoU of `THRESHOLDS` that a result has, the objects that took all
    clicks, the mean IoU in percent after some numbers of clicks, the numbers of objects and trials, and the seconds per
    click.
    """
    curves = labelled(results)
    keys = [key for key in (f"{each:.2f}" for each in THRESHOLDS) if any(key in curve.noc for _, _, curve in curves)]
    percents = [f"{100 * float(key):.0f}" for key in keys]
    last = max(len(curve.mean) - 1 for _, _, curve in curves)
    marks = [mark for mark in (0, 1, 2, 3, 5, 10, 20) if mark <= last]
    header = ["", "data", *(f"NoC@{percent}" for percent in percents)]
    header += [*(f">={last}@{percent}" for percent in percents), *(f"mIoU@{mark}" for mark in marks)]
    rows = []
    for name, result, curve in curves:
        row = [name, result.data, *(f"{curve.noc[key]:.2f}" if key in curve.noc else "" for key in keys)]
        row += [f"{curve.unreached[key]:g}" if key in curve.unreached else "" for key in keys]
        row += [f"{100 * curve.mean[mark]:.2f}" if mark < len(curve.mean) else "" for mark in marks]
        rows.append((*row, str(result.objects), str(len(curve.trials)), f"{curve.seconds_per_click:.4f}"))
    notes = [f"not comparable: {key} differs" for key in differences(results)]
    return Table((*header, "objects", "trials", "s/click"), tuple(rows), tuple(notes))


def _blank(value: float) -> str:
    return f"{value:.6f}" if math.isfinite(value) else ""
