"""Does matched key adaptation follow gaze better only because its maps are smoother? The same maps, all blurred.

    python results/gaze/blur.py WEIGHTS [--root data/osie] [--images 100]

Writes blur.csv: NSS of layers 9 and 10, as trained and under key adaptation in the matched gauge, of maps that were
blurred by Gaussians of several widths in tokens. Means over images with 95 % intervals by bootstrap.
"""

import csv
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import lightning as L
import torch
from jsonargparse import auto_cli
from torch import Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur

import attention_zoo as az
from attention_zoo.domains import PositiveInt
from attention_zoo.mixers.switches import Adapt
from datamodules import OSIE
from tasks.evaluations.saliency import AttentionSaliency

WIDTHS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
"""Standard deviations of the blur in tokens; 0 is none."""


class Blurred(AttentionSaliency):
    """The evaluation of gaze, where each layer has a row for each width, at ``100 * layer + place of the width``."""

    def attention(self, image: Tensor, model: nn.Module | None = None) -> dict[int, Tensor]:
        """Return the maps of all layers and widths."""
        found: Mapping[int, Tensor] = super().attention(image, model)
        return {
            100 * layer + place: gaussian_blur(maps, 2 * int(3 * width) + 1, width) if width else maps
            for layer, maps in found.items()
            for place, width in enumerate(WIDTHS)
        }


def main(weights: Path, root: str = "data/osie", images: PositiveInt = 100) -> None:
    """Measure.

    Args:
        weights: state dict of timm's ``vit_small_patch14_dinov2``.
        root: the data.
        images: number of photographs.
    """
    matched = partial(az.create_mixer, "Probabilistic", key_adaptation=1, adapt=Adapt(gauge="moments", centre=True))
    task = Blurred(
        "vit_small_patch14_dinov2",
        num_classes=1000,
        image_size=(168, 224),
        weights=str(weights),
        layer="9-10",
        query="mean",
        readings={"key adaptation, matched": matched},
    )
    data = OSIE(root, images=images, image_size=(168, 224), batch_size=8, num_workers=0)
    torch.set_num_threads(1)
    L.Trainer(accelerator="cpu", logger=False, enable_model_summary=False).test(task, data, verbose=False)
    assert task.result is not None
    with (Path(__file__).parent / "blur.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["reading", "layer", "blur in tokens", "NSS", "low", "high"])
        for name, mean in task.result.scores.items():
            reading, row, score = name.split("/")
            if score == "nss":
                layer, place = divmod(int(row), 100) if row.isdigit() else ("-", 0)
                ends = task.result.intervals[name]
                writer.writerow([reading, layer, WIDTHS[place], *(f"{value:.3f}" for value in (mean, *ends))])


if __name__ == "__main__":
    auto_cli(main)
