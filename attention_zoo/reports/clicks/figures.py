"""Draw figures of interactive segmentation without matplotlib's global state."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import AutoLocator

from attention_zoo.reports.clicks.tables import Named, labelled
from attention_zoo.results.clicks import ClickCurve, ClickResult

DPI, FONT = 150, 9
MARKERS = "osD^vP*X"


def overlay(results: Named) -> Figure:
    """Draw mean IoU in percent over clicks, with a panel for each data set and a line for each curve.

    A band around a line is one standard error over trials.
    """
    curves = labelled(results)
    panels = list(dict.fromkeys(result.data for _, result, _ in curves))
    figure = Figure((5.6 * len(panels), 4.4), dpi=DPI, layout="constrained")
    for axes, data in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _panel(axes, [entry for entry in curves if entry[1].data == data])
    return figure


def _panel(axes: Axes, curves: Sequence[tuple[str, ClickResult, ClickCurve]]) -> None:
    for place, (name, _, curve) in enumerate(curves):
        clicks, mean = np.arange(len(curve.mean)), 100 * np.asarray(curve.mean)
        error = 100 * np.asarray(curve.standard_error)
        (line,) = axes.plot(clicks, mean, marker=MARKERS[place % len(MARKERS)], markersize=3, linewidth=1.2, label=name)
        if np.isfinite(error).all():
            low, high = np.maximum(mean - error, 0), np.minimum(mean + error, 100)
            axes.fill_between(clicks, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    result = curves[0][1]
    trials = max(len(curve.trials) for _, _, curve in curves)
    band = f"; band: standard error over {trials} trials" if trials > 1 else ""
    title = f"{result.data}, {result.objects} objects, protocol {result.protocol.get('name')}{band}"
    axes.set_title(title, fontsize=FONT)
    axes.set_xlabel("clicks", fontsize=FONT)
    axes.set_ylabel("mean IoU, %", fontsize=FONT)
    locator = AutoLocator()
    locator.set_params(integer=True)
    axes.xaxis.set_major_locator(locator)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=FONT)
