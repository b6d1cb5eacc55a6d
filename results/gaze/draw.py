"""Draw the study of gaze from the results beside this file.

python results/gaze/draw.py
"""

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attention_zoo.results.saliency import SaliencyScores

matplotlib.use("Agg")
FOLDER = Path(__file__).parent
CENTRE, GAUSSIAN, TRAINED = "other images/-", "Gaussian/-", "as trained"
TITLES = {"nss": "NSS", "auc_judd": "AUC-Judd", "cc": "CC", "sim": "SIM", "kl": "KL"}


def draw_layers(axes: Axes, result: SaliencyScores, score: str) -> None:
    """Draw a score of every layer as trained, beside what is known without the image."""
    layers = sorted({int(name.split("/")[1]) for name in result.scores if name.startswith(TRAINED)})
    names = [f"{TRAINED}/{layer}/{score}" for layer in layers]
    means = [result.scores[name] for name in names]
    ends = [[abs(result.scores[name] - result.intervals[name][end]) for name in names] for end in (0, 1)]
    axes.errorbar(layers, means, ends, marker="o", markersize=4, linewidth=1, capsize=2, label="attention as trained")
    for row, colour, title in ((CENTRE, "C3", "other images' fixations"), (GAUSSIAN, "C1", "Gaussian")):
        low, high = result.intervals[f"{row}/{score}"]
        axes.axhspan(low, high, color=colour, alpha=0.15, linewidth=0)
        axes.axhline(result.scores[f"{row}/{score}"], color=colour, linewidth=1, label=title)
    axes.set(xlabel="layer", ylabel=TITLES[score], xticks=layers)


def draw_readings(axes: Axes, result: SaliencyScores, layer: int, score: str) -> None:
    """Draw by how much each reading is above the centre bias in a layer."""
    readings = list(dict.fromkeys(name.split("/")[0] for name in result.over_centre))[::-1]
    for place, reading in enumerate(readings):
        mean, low, high = result.over_centre[f"{reading}/{layer}/{score}"]
        colour = "k" if reading == TRAINED else "C0"
        axes.errorbar(
            mean, place, xerr=[[mean - low], [high - mean]], marker="o", markersize=4, capsize=2, color=colour
        )
    axes.axvline(0, color="C3", linewidth=1)
    axes.set(yticks=range(len(readings)), yticklabels=readings, title=f"layer {layer}")
    axes.set_xlabel(f"{TITLES[score]} above the other images' fixations")


def main() -> None:
    """Draw ``gaze.png``."""
    layers, readings = (SaliencyScores.read(FOLDER / name / "saliency.json") for name in ("layers", "readings"))
    figure = Figure(figsize=(10, 7), layout="constrained")
    axes = figure.subplots(2, 2)
    for place, score in zip(axes[0], ("nss", "auc_judd"), strict=True):
        draw_layers(place, layers, score)
    axes[0, 0].legend(fontsize=8)
    shown = sorted({int(name.split("/")[1]) for name in readings.over_centre})
    for place, layer in zip(axes[1], shown, strict=True):
        draw_readings(place, readings, layer, "nss")
    figure.savefig(FOLDER / "gaze.png", dpi=110)


if __name__ == "__main__":
    main()
