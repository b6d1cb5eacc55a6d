"""Gather the curves of the study's sweeps, and draw and tabulate what key adaptation is worth.

    python results/key_adaptation/report.py collect OUT SWEEP [SWEEP ...]     # OUT/curves.csv and OUT/runs
    python results/key_adaptation/report.py draw OUT                          # OUT/table.md, OUT/key_adaptation.png

Differences are those of a way to adapt from no adaptation, taken seed by seed; intervals are 95 % by Student's t over
the seeds, p-values those of paired t-tests, corrected by Holm over all rows of the table.
"""

import csv
import shutil
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_zoo.reports.statistics import Difference, Estimate, holm

DOMAINS = {"camvid": "own domain: CamVid", "bsds": "BSDS500", "davis": "DAVIS"}
CELLS = {
    "nopositions,magnitude": "no positions",
    "factored,magnitude": "factored positions",
    "full,magnitude": "full positions",
    "nopositions,uniform": "no positions, uniform prior",
    "factored,uniform": "factored positions, uniform prior",
    "full,uniform": "full positions, uniform prior",
    "factored,shared": "factored positions, shared projection",
    "factored,trainedthrough": "factored positions, trained through",
}
WAYS = ["as trained", "centred", "matched", "positions", "matched, positions"]
NONE = "no adaptation"
CLICKS = (0, 1, 3, 6)
"""The numbers of clicks that the table has."""

Curves = dict[tuple[str, str, str], dict[int, np.ndarray]]
"""Mean IoU in percent by clicks, by cell, domain and way, by seed."""


def collect(out: Path, sweeps: Sequence[Path]) -> None:
    """Write the mean curves of all finished evaluations, and copy the configs and records of their runs."""
    rows = []
    for folder in sorted(each for sweep in sweeps for each in sweep.glob("runs/*")):
        cell, seed = folder.name.removeprefix("run=").rsplit(",seed=", 1)
        for table in sorted(folder.glob("*/clicks_objects.csv")):
            rows += [[cell, seed, *row] for row in means(table)]
        kept = out / "runs" / folder.name
        kept.mkdir(parents=True, exist_ok=True)
        for name in ("config.yaml", "run.json", "cost.json"):
            if (folder / name).exists():
                shutil.copy(folder / name, kept / name)
    with (out / "curves.csv").open("w", newline="") as file:
        head = ["cell", "seed", "domain", "way", "objects", *(f"iou_{count}" for count in range(7))]
        csv.writer(file, lineterminator="\n").writerows([head, *rows])


def means(table: Path) -> list[list[str]]:
    """Return domain, way, number of objects and mean IoU by clicks, for each way of an evaluation."""
    found: dict[str, list[list[float]]] = defaultdict(list)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    domain = next(name for name in DOMAINS if name in rows[0]["object"])
    for row in rows:
        found[row["setting"]].append([float(row[f"iou_{count}"]) for count in range(7)])
    return [[domain, way, str(len(ious)), *(f"{x:.6f}" for x in np.mean(ious, 0))] for way, ious in found.items()]


def read(path: Path) -> Curves:
    """Return the curves of a table that `collect` wrote."""
    curves: Curves = defaultdict(dict)
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            key = (row["cell"], row["domain"], row["way"])
            curves[key][int(row["seed"])] = np.array([100 * float(row[f"iou_{count}"]) for count in range(7)])
    return curves


def draw(out: Path) -> None:
    """Write the table and the figure from the curves and the gauges."""
    curves = read(out / "curves.csv")
    cells = [cell for cell in CELLS if (cell, "camvid", NONE) in curves]
    (out / "table.md").write_text(table(curves, cells))
    size = (4.2 * len(DOMAINS), 2.9 * len(cells))
    figure = Figure(size, dpi=110, layout="constrained")
    for axes, cell in zip(figure.subplots(len(cells), len(DOMAINS), squeeze=False, sharex=True), cells, strict=True):
        for each, domain in zip(axes, DOMAINS, strict=True):
            panel(each, curves, cell, domain)
    figure.savefig(out / "key_adaptation.png")
    if (out / "gauges.csv").exists():
        gauges(out).savefig(out / "gauges.png")


def panel(axes: Axes, curves: Curves, cell: str, domain: str) -> None:
    """Draw the differences of every way from no adaptation against clicks, with intervals over seeds."""
    plain = curves[cell, domain, NONE]
    for place, way in enumerate(WAYS):
        adapted = curves.get((cell, domain, way), {})
        seeds = sorted(adapted.keys() & plain.keys())
        if not seeds:
            continue
        values = np.array([adapted[seed] - plain[seed] for seed in seeds])
        x = np.arange(values.shape[1]) + 0.07 * (place - 2)
        widths = [Estimate.of(list(column)).half_width for column in values.T]
        axes.errorbar(x, values.mean(0), widths if len(seeds) > 1 else None, marker="osD^v"[place], label=way)
        axes.lines[-1].set(markersize=3, linewidth=1.1)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_title(f"{CELLS[cell]} · {DOMAINS[domain]} · {len(plain)} seeds", fontsize=8)
    axes.set_ylabel("mean IoU − without, points", fontsize=8)
    axes.set_xlabel("clicks", fontsize=8)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=7)


def table(curves: Curves, cells: Sequence[str]) -> str:
    """Return the table of differences, one row for each cell, domain and way."""
    rows, chances = [], []
    for cell in cells:
        for domain in DOMAINS:
            plain = curves.get((cell, domain, NONE), {})
            for way in WAYS:
                adapted = curves.get((cell, domain, way), {})
                if not adapted.keys() & plain.keys():
                    continue
                found = [compared(adapted, plain, clicks) for clicks in CLICKS]
                rows.append((cell, domain, way, plain, found))
                chances += [difference.chance for _, difference in found]
    corrected = iter(holm(chances))
    head = ["trained with", "domain", "adapted", "seeds", *(f"{clicks} clicks" for clicks in CLICKS)]
    lines = [head, ["---"] * len(head)]
    for cell, domain, way, plain, found in rows:
        told = [f"{estimate}{' *' if next(corrected) < 0.05 else ''}" for estimate, _ in found]
        lines.append([CELLS[cell], domain, way, str(found[0][1].count), *told])
        if way == WAYS[0]:
            without = [str(Estimate.of([float(curve[clicks]) for curve in plain.values()])) for clicks in CLICKS]
            lines.insert(-1, [CELLS[cell], domain, "(none: mean IoU, %)", str(len(plain)), *without])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def compared(
    adapted: Mapping[int, np.ndarray], plain: Mapping[int, np.ndarray], clicks: int
) -> tuple[Estimate, Difference]:
    """Return the difference after so many clicks, as an estimate and as a test."""
    one, other = ({seed: float(curve[clicks]) for seed, curve in each.items()} for each in (adapted, plain))
    seeds = sorted(one.keys() & other.keys())
    return Estimate.of([one[seed] - other[seed] for seed in seeds]), Difference.of(one, other)


def gauges(out: Path) -> Figure:
    """Draw the mean IoU of every gauge of the same trained layers."""
    found: dict[tuple[str, str], list[tuple[int, float]]] = defaultdict(list)
    with (out / "gauges.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            place = f"{CELLS[row['cell']]}\nseed {row['seed']}"
            found[place, row["way"]].append((int(row["gauge"]), 100 * float(row["mean_iou"])))
    places = list(dict.fromkeys(place for place, _ in found))
    figure = Figure((1.5 * len(places) + 1.5, 3.4), dpi=110, layout="constrained")
    axes = figure.subplots()
    for shift, (way, colour) in enumerate((("no adaptation", "C7"), ("as trained", "C0"), ("matched", "C2"))):
        for x, place in enumerate(places):
            values = [value for _, value in found[place, way]]
            axes.plot([x + 0.2 * (shift - 1)] * len(values), values, "o", color=colour, markersize=4, alpha=0.6)
            axes.plot(x + 0.2 * (shift - 1), values[0], "_", color=colour, markersize=16, label=way if x == 0 else None)
    axes.set_xticks(range(len(places)), places, fontsize=8)
    axes.set_ylabel("mean IoU before the first click, %", fontsize=8)
    axes.set_title("one trained layer in nine gauges; the bar is the training's own", fontsize=8)
    axes.grid(alpha=0.3, axis="y")
    axes.legend(frameon=False, fontsize=7)
    return figure


if __name__ == "__main__":
    command, place, *rest = sys.argv[1:]
    if command == "collect":
        collect(Path(place), [Path(each) for each in rest])
    else:
        draw(Path(place))
