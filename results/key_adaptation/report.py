"""Gather the objects of the study's runs, and draw and tabulate what key adaptation is worth.

    python results/key_adaptation/report.py collect OUT SWEEP [SWEEP ...]     # OUT/runs
    python results/key_adaptation/report.py draw OUT                          # OUT/{table,spaces,controls}.md, figures

Differences are those of a way to adapt from no adaptation, object by object, of which the mean over the trained
networks of a setting is taken first. Intervals are 95 % by Student's t: over networks where there are three or more,
else over objects, which says nothing of other networks. p-values are those of the same tests, corrected by Holm over
the table.
"""

import csv
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_zoo.reports.statistics import LEAST_SEEDS, LEVEL, Difference, Estimate, holm

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
STRENGTHS = ["as trained", "theta 0.001", "theta 1", "theta 10", "five steps"]
"""Ways that differ in how far keys go: as trained is theta 0, one step."""
NONE = "no adaptation"
COUNTS = range(7)
"""The numbers of clicks of a test."""
SHOWN = (0, 1, 3, 6)
"""The numbers of clicks that the table has."""
STAR = " \\*"
"""What marks a difference whose corrected p-value is below the level."""
COLUMNS = [f"iou_{clicks}" for clicks in COUNTS]

Runs = dict[tuple[str, str, str], dict[int, np.ndarray]]
"""IoU in percent (objects, clicks) of each network by its seed, by cell, domain and way."""


def collect(out: Path, sweeps: Sequence[Path]) -> None:
    """Keep of every run with a finished test its config, its record, and the IoU of every object, in one table."""
    for folder in sorted(each for sweep in sweeps for each in sweep.glob("runs/*")):
        tables = sorted(folder.glob("*/clicks_objects.csv"))
        if not tables:
            continue
        kept = out / "runs" / folder.name
        kept.mkdir(parents=True, exist_ok=True)
        for name in ("config.yaml", "run.json", "cost.json"):
            shutil.copy(folder / name, kept / name)
        rows = [row for path in tables for row in objects(path)]
        write(kept / "objects.csv", ["domain", "way", "object", *COLUMNS], rows)


def objects(path: Path) -> Iterable[list[str]]:
    """Yield the domain, the way, the object and its IoUs, to four digits, of each row of a test's table."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    domain = next(name for name in DOMAINS if name in rows[0]["object"])
    for row in rows:
        yield [domain, row["setting"], Path(row["object"]).stem, *(f"{float(row[name]):.4f}" for name in COLUMNS)]


def write(path: Path, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table of rows under a head."""
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *rows])


def read(out: Path) -> Runs:
    """Return what `collect` has kept."""
    runs: Runs = defaultdict(dict)
    for path in sorted(out.glob("runs/*/objects.csv")):
        cell, seed = path.parent.name.removeprefix("run=").rsplit(",seed=", 1)
        found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(dict)
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                found[row["domain"], row["way"]][row["object"]] = [100 * float(row[name]) for name in COLUMNS]
        for (domain, way), ious in found.items():
            runs[cell, domain, way][int(seed)] = np.array([ious[name] for name in sorted(ious)])
    return dict(runs)


def compared(runs: Runs, cell: str, domain: str, way: str) -> tuple[int, list[Estimate], list[float]] | None:
    """Return the number of networks, and differences from no adaptation with their p-values, by clicks."""
    adapted, plain = runs.get((cell, domain, way), {}), runs.get((cell, domain, NONE), {})
    seeds = sorted(adapted.keys() & plain.keys())
    if not seeds:
        return None
    each = np.array([adapted[seed] - plain[seed] for seed in seeds])  # (networks, objects, clicks)
    samples = each.mean(1) if len(seeds) >= LEAST_SEEDS else each.mean(0)
    nothing = dict.fromkeys(range(len(samples)), 0.0)
    tested = [Difference.of(dict(enumerate(column.tolist())), nothing).chance for column in samples.T]
    return len(seeds), [Estimate.of(column.tolist()) for column in samples.T], tested


def draw(out: Path) -> None:
    """Write the tables and the figures."""
    runs = read(out)
    cells = [cell for cell in CELLS if any((cell, domain, NONE) in runs for domain in DOMAINS)]
    (out / "table.md").write_text(table(runs, cells, WAYS))
    stronger = [cell for cell in cells if any((cell, domain, STRENGTHS[-1]) in runs for domain in DOMAINS)]
    (out / "theta.md").write_text(table(runs, stronger, STRENGTHS))
    figure = Figure((4.2 * len(DOMAINS), 2.8 * len(cells)), dpi=100, layout="constrained")
    named: dict[str, Any] = {}
    for axes, cell in zip(figure.subplots(len(cells), len(DOMAINS), squeeze=False), cells, strict=True):
        for one, domain in zip(axes, DOMAINS, strict=True):
            panel(one, runs, cell, domain)
            named |= dict(zip(*reversed(one.get_legend_handles_labels()), strict=True))
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=len(named), frameon=False, fontsize=9)
    figure.savefig(out / "key_adaptation.png")
    (out / "spaces.md").write_text(spaces(out))
    (out / "controls.md").write_text(controls(out))
    gauges(out).savefig(out / "gauges.png")
    compared_with_flat(out).savefig(out / "controls.png")


def panel(axes: Axes, runs: Runs, cell: str, domain: str) -> None:
    """Draw the differences of every way from no adaptation against clicks, with their intervals."""
    number = 0
    for place, way in enumerate(WAYS):
        found = compared(runs, cell, domain, way)
        if found is None:
            continue
        number, estimates, _ = found
        x = np.arange(len(estimates)) + 0.08 * (place - 2)
        means, widths = ([getattr(one, name) for one in estimates] for name in ("mean", "half_width"))
        axes.errorbar(x, means, widths, marker="osD^v"[place], markersize=3, linewidth=1, elinewidth=0.7, label=way)
    if not number:
        axes.set_axis_off()
        return
    axes.axhline(0, color="black", linewidth=0.6)
    over = "networks" if number >= LEAST_SEEDS else "objects"
    title = f"{CELLS[cell]}, {DOMAINS[domain]}\nnetworks: {number}, intervals over {over}"
    axes.set_title(title, fontsize=8)
    axes.set_ylabel("mean IoU gained, points", fontsize=8)
    axes.set_xlabel("clicks", fontsize=8)
    axes.grid(alpha=0.3)


def table(runs: Runs, cells: Sequence[str], ways: Sequence[str]) -> str:
    """Return the table of differences, one row for each cell, domain and way, as Markdown."""
    rows: list[tuple[list[str], list[Estimate]]] = []
    chances: list[float] = []
    for cell in cells:
        for domain in DOMAINS:
            plain = runs.get((cell, domain, NONE))
            if plain is None:  # not tested
                continue
            means = [Estimate.of([float(ious[:, clicks].mean()) for ious in plain.values()]).mean for clicks in SHOWN]
            rows.append(([CELLS[cell], domain, "without: mean IoU, %", *(f"{mean:.1f}" for mean in means)], []))
            for way in ways:
                found = compared(runs, cell, domain, way)
                if found is not None:
                    number, estimates, tested = found
                    rows.append(([CELLS[cell], domain, f"{way} ({number})"], [estimates[clicks] for clicks in SHOWN]))
                    chances += [tested[clicks] for clicks in SHOWN]
    corrected = iter(holm(chances))
    head = ["trained with", "domain", "adapted (networks)", *(f"clicks: {clicks}" for clicks in SHOWN)]
    lines = [head, ["---"] * len(head)]
    for words, estimates in rows:
        lines.append(words + [str(one) + STAR * (next(corrected) < LEVEL) for one in estimates])
    return markdown(lines)


def measured(out: Path, name: str) -> Iterable[tuple[str, int, dict[str, str]]]:
    """Yield cell, seed and row of each row of a table that `measure.py` wrote for the runs, in the order of `CELLS`."""
    for cell in CELLS:
        for path in sorted(out.glob(f"runs/run={cell},seed=*/{name}")):
            with path.open(newline="") as file:
                for row in csv.DictReader(file):
                    yield cell, int(path.parent.name.rpartition("=")[2]), row


def spaces(out: Path) -> str:
    """Return the table of where queries and keys are, means over seeds, as Markdown."""
    found: dict[str, dict[str, dict[str, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for cell, _, row in measured(out, "spaces.csv"):
        found[row["measure"]][cell][row["domain"]].append(float(row["value"]))
    lines = [["measure", "trained with", *DOMAINS], ["---"] * (2 + len(DOMAINS))]
    for measure, cells in found.items():
        for cell, values in cells.items():
            lines.append([measure, CELLS[cell], *(f"{np.mean(values[domain]):.3g}" for domain in DOMAINS)])
    return markdown(lines)


def controls(out: Path) -> str:
    """Return the table of layers with all keys at their mean beside those that adapt, means over seeds, as Markdown."""
    found = controlled(out)
    head = ["trained with", "domain", "keys", *(f"clicks: {clicks}" for clicks in range(4))]
    lines = [head, ["---"] * len(head)]
    for (cell, domain, way), ious in found.items():
        lines.append([CELLS[cell], domain, way, *(f"{iou:.1f}" for iou in np.mean(ious, 0))])
    flat, adapted = (np.concatenate(each) for each in zip(*gains(found).values(), strict=True))
    apart = np.abs(flat - adapted)
    said = f"{apart.mean():.2f} points in the mean, {apart.max():.2f} at most, over {len(apart)} pairs of means"
    alike = f"correlation {np.corrcoef(flat, adapted)[0, 1]:.3f}"
    first = f"What keys at their mean gain and what key adaptation gains are apart by {said}; {alike}."
    return f"{first}\n\n{markdown(lines)}"


Controls = dict[tuple[str, str, str], list[list[float]]]
"""Mean IoU in percent by clicks of each network, by cell, domain and what the keys are."""


def controlled(out: Path) -> Controls:
    """Return the controls that were measured."""
    found: Controls = defaultdict(list)
    for cell, _, row in measured(out, "controls.csv"):
        found[cell, row["domain"], row["way"]].append([100 * float(row[f"iou_{clicks}"]) for clicks in range(4)])
    return found


def gains(found: Controls) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """Return what keys at their mean and keys adapted as trained gain over those as they are, by cell and domain."""
    means = {key: np.mean(ious, 0) for key, ious in found.items()}
    plain = {(cell, domain): mean for (cell, domain, way), mean in means.items() if way == NONE}
    ways = ("keys at their mean", WAYS[0])
    return {
        (cell, domain): (means[cell, domain, ways[0]] - mean, means[cell, domain, ways[1]] - mean)
        for (cell, domain), mean in plain.items()
    }


def compared_with_flat(out: Path) -> Figure:
    """Draw what key adaptation gains against what a layer with all keys at their mean gains."""
    figure = Figure((5.2, 4.2), dpi=100, layout="constrained")
    axes = figure.subplots()
    places = gains(controlled(out))
    for (cell, domain), (flat, adapted) in places.items():
        marker, colour = "osD"[list(DOMAINS).index(domain)], f"C{list(CELLS).index(cell)}"
        axes.plot(flat, adapted, marker, color=colour, markersize=4, label=f"{CELLS[cell]}, {domain}")
    every = np.concatenate([np.concatenate(pair) for pair in places.values()])
    ends = [every.min(), every.max()]
    axes.plot(ends, ends, color="black", linewidth=0.6)
    axes.set_xlabel("gained by putting all keys at their mean, points of mean IoU", fontsize=8)
    axes.set_ylabel("gained by key adaptation, as trained", fontsize=8)
    axes.set_title("0 to 3 clicks; on the line both are the same", fontsize=8)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=6)
    return figure


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, of which the first line is the head and the second its rule."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def gauges(out: Path) -> Figure:
    """Draw the mean IoU of every gauge of the same trained layers."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for cell, seed, row in measured(out, "gauges.csv"):
        found[f"{CELLS[cell]}\nseed {seed}", row["way"]].append(100 * float(row["mean_iou"]))
    places = list(dict.fromkeys(place for place, _ in found))
    figure = Figure((1.8 * len(places) + 2, 3.4), dpi=100, layout="constrained")
    axes = figure.subplots()
    for shift, (way, colour) in enumerate(((NONE, "C7"), ("as trained", "C0"), ("matched", "C2"))):
        for x, place in enumerate(places):
            values, middle = found[place, way], x + 0.2 * (shift - 1)
            axes.plot([middle] * len(values), values, "o", color=colour, markersize=4, alpha=0.6)
            axes.plot(middle, values[0], "_", color=colour, markersize=16, label="" if x else way)
    axes.set_xticks(range(len(places)), places, fontsize=8)
    axes.set_ylabel("mean IoU before the first click, %", fontsize=8)
    axes.set_title("each network in six gauges; bars: the training's own", fontsize=8)
    axes.grid(alpha=0.3, axis="y")
    axes.legend(frameon=False, fontsize=7)
    return figure


if __name__ == "__main__":
    command, place, *rest = sys.argv[1:]
    if command == "collect":
        collect(Path(place), [Path(each) for each in rest])
    else:
        draw(Path(place))
