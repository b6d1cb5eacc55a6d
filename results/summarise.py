"""Table and figure of a few runs, from their own files.

    python results/summarise.py OUT RUN [RUN ...]

Reads ``config.yaml`` and ``metrics.jsonl`` of each run folder and writes ``table.csv``, ``table.md``, ``accuracy.png``
and the config of each run to OUT.
"""

import csv
import json
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

import attention_zoo as az
from attention_zoo.models import build_model


def main(out: Path, runs: list[Path]) -> None:
    """Write the summary of ``runs`` to ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    found = [read_run(run) for run in runs]
    rows = [row for row, _ in found]
    with (out / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (out / "table.md").write_text(markdown(rows))
    draw(out / "accuracy.png", [(row["mixer"], curve) for row, curve in found])
    for run, row in zip(runs, rows, strict=True):
        config = yaml.safe_load((run / "config.yaml").read_text())
        config["data"]["init_args"]["root"] = Path(config["data"]["init_args"]["root"]).name  # not where it lay
        (out / f"{row['mixer']}.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def read_run(run: Path) -> tuple[dict[str, Any], list[float]]:
    """The row of a run, and its validation accuracy after each epoch."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    curve = [line["metrics"]["val/accuracy"] for line in lines if line["stage"] == "validate"]
    test = [line for line in lines if line["stage"] == "test"][-1]["metrics"]
    parameters, flops = cost(config["model"]["init_args"], config["data"]["init_args"].get("image_size") or 32)
    mixer = config["model"]["init_args"]["mixer"]
    row = {
        "mixer": mixer["class_path"].rpartition(".")[2],
        "options": ", ".join(f"{k}={v}" for k, v in mixer.get("init_args", {}).items()),
        "seed": config["seed_everything"],
        "test accuracy": round(test["test/accuracy"], 4),
        "test top-5": round(test["test/accuracy_top5"], 4),
        "test loss": round(test["test/loss"], 4),
        "parameters": parameters,
        "MFLOPs an image": round(flops / 1e6, 1),
        "torch": torch.__version__.partition("+")[0],
        "timm": version("timm"),
        "lightning": version("lightning"),
    }
    return row, curve


def cost(model: dict[str, Any], side: int) -> tuple[int, int]:
    """Parameters of the model, and multiplications and additions of its forward pass of one image."""
    mixer = partial(az.MIXERS[model["mixer"]["class_path"].rpartition(".")[2]], **model["mixer"].get("init_args", {}))
    net = build_model(
        model["model"], num_classes=10, image_size=(side, side), mixer=mixer, model_args=model["model_args"]
    )
    with FlopCounterMode(display=False) as counter:
        net.eval()(torch.zeros(1, 3, side, side))
    return sum(parameter.numel() for parameter in net.parameters()), counter.get_total_flops()


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a markdown table."""
    lines = [rows[0], dict.fromkeys(rows[0], "---"), *rows]
    head = " | ".join(lines[0])
    body = [" | ".join(str(value) for value in line.values()) for line in lines[1:]]
    return "\n".join(f"| {line} |" for line in (head, *body)) + "\n"


def draw(path: Path, curves: list[tuple[str, list[float]]]) -> None:
    """Validation accuracy over epochs, one curve for each run."""
    figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    for (name, curve), marker in zip(curves, "os^D" * len(curves), strict=False):
        axes.plot(range(1, len(curve) + 1), curve, marker=marker, markersize=4, label=f"{name}  {curve[-1]:.3f}")
    axes.set(xlabel="epoch", ylabel="validation accuracy", xticks=range(1, 1 + max(len(c) for _, c in curves)))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]])
