"""The table and the figure of what mixers cost in time, memory and operations."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from attention_zoo.analysis.costs import Cost, growth
from attention_zoo.reports.table import Table
from attention_zoo.runs.files import replacing, write_text

UNCOUNTED = "FLOPs as torch counts them, a multiplication and an addition as two: Fourier transforms are missing"
"""Note below tables that show numbers of operations."""

COLUMNS = (
    "mixer",
    "tokens",
    "forward ms",
    "forward / baseline",
    "training ms",
    "training / baseline",
    "forward MB",
    "training MB",
    "MFLOPs",
    "parameters",
)


def cost_table(costs: Sequence[Cost], notes: Sequence[str] = ()) -> Table:
    """Return a table with one row for each mixer and number of tokens, and notes on how time grows with the tokens."""
    rows = [
        (
            cost.label,
            f"{cost.tokens:,}",
            f"{1e3 * cost.forward:.2f}",
            f"{cost.forward_ratio:.2f}",
            f"{1e3 * cost.training:.2f}",
            f"{cost.training_ratio:.2f}",
            f"{cost.forward_memory / 2**20:.1f}",
            f"{cost.training_memory / 2**20:.1f}",
            f"{cost.flops / 1e6:.1f}" if cost.flops else "-",
            f"{cost.parameters:,}",
        )
        for cost in costs
    ]
    grown = [
        f"{name}: time ~ N^{exponents[0]:.2f} forward, N^{exponents[1]:.2f} in training"
        for name, exponents in growths(costs).items()
    ]
    return Table(COLUMNS, tuple(rows), (*notes, UNCOUNTED, *grown))


def growths(costs: Sequence[Cost]) -> dict[str, tuple[float, float]]:
    """Return the exponents e of time ~ N^e, forward and in training, by the mixer's label.

    A mixer that was measured at a single number of tokens is left out.
    """
    exponents = {}
    for name in dict.fromkeys(cost.label for cost in costs):
        own = [cost for cost in costs if cost.label == name]
        tokens = [cost.tokens for cost in own]
        if len(set(tokens)) > 1:
            times = ([cost.forward for cost in own], [cost.training for cost in own])
            exponents[name] = (growth(tokens, times[0]), growth(tokens, times[1]))
    return exponents


def cost_figure(costs: Sequence[Cost]) -> Figure:
    """Draw training time (ms) and memory (MB) over the number of tokens, with a line for each mixer.

    All axes are logarithmic.
    """
    names = list(dict.fromkeys(cost.label for cost in costs))
    columns = max(1, -(-len(names) // 22))  # of the legend, by what its height has room for
    figure = Figure(figsize=(7.5 + 2.5 * columns, 4.6), layout="constrained")
    panels = figure.subplots(1, 2)
    exponents = growths(costs)
    for place, name in enumerate(names):
        own = [cost for cost in costs if cost.label == name]
        tokens = [cost.tokens for cost in own]
        style = {"marker": "osD^vP*Xhd<>"[place % 12], "linestyle": "-" if place < 10 else "--"}
        label = f"{name}  N^{exponents[name][1]:.2f}" if name in exponents else name
        panels[0].plot(tokens, [1e3 * cost.training for cost in own], label=label, **style)
        panels[1].plot(tokens, [cost.training_memory / 2**20 for cost in own], **style)
    for axes, what in zip(panels, ("forward and backward, ms", "memory held, MB"), strict=True):
        axes.set(xscale="log", yscale="log", xlabel="tokens", ylabel=what)
        axes.set_xticks(sorted({cost.tokens for cost in costs}), [f"{n:,}" for n in sorted({c.tokens for c in costs})])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right center", frameon=False, fontsize="small", ncols=columns)
    return figure


def write_costs(folder: Path, costs: Sequence[Cost], note: str) -> Table:
    """Write ``costs.csv``, ``costs.md`` and ``costs.png``, each whole or not at all, and return the table.

    Args:
        folder: the folder to write to; it is made if it does not exist.
        costs: what was measured, by rising number of tokens.
        note: the circumstances of the measurement, which stand below the table.
    """
    table = cost_table(sorted(costs, key=lambda cost: cost.label), [note])
    write_text(folder / "costs.csv", table.csv())
    write_text(folder / "costs.md", table.markdown())
    with replacing(folder / "costs.png") as file:
        cost_figure(costs).savefig(file, dpi=150, format="png")
    return table
