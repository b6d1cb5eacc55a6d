"""A tiny robustness data module: digits, clean, under two corruptions, and some of the classes."""

import torch

from attention_zoo.evaluation import Benchmark, Cell
from datamodules import Digits
from datamodules.images import Split

CLASSES = (0, 2, 8)


class DigitBenchmarks(Digits):
    """Cells of the first ``images`` test digits: clean, with noise and darker at two severities, and three classes.

    Args:
        images: of each cell.
        corrupted: name of the benchmark with corruptions.
        clean: whether to have the clean benchmark.
        kwargs: as for Digits.
    """

    def __init__(self, images: int = 40, corrupted: str = "digits_c", clean: bool = True, **kwargs) -> None:
        super().__init__(**kwargs)
        self.images, self.corrupted, self.clean = images, corrupted, clean
        self.cells = []

    def load(self, parts):
        """See ImageDataModule; ``test`` is all cells, one after the other."""
        if list(parts) != ["test"]:
            return super().load(parts)
        split = super().load(["test"])["test"]
        images, label = split.images, torch.tensor(split.columns["label"])
        same = {"source": "scikit-learn", "preprocessing": "none"}
        clean = Benchmark("clean", "clean", protocol=same)
        corrupted = Benchmark(self.corrupted, "Digits-C (generated)", protocol={**same, "seed": 0})
        some = Benchmark("some", "some digits", classes=CLASSES, protocol=same)
        found = []
        if self.clean:
            found.append((Cell(clean, self.images), images[: self.images], label[: self.images]))
        for name in ("noise", "darkness"):
            for severity in (1, 2):
                changed = _corrupt(images[: self.images].float(), name, severity)
                found.append((Cell(corrupted, self.images, name, severity), changed, label[: self.images]))
        chosen = torch.isin(label, torch.tensor(CLASSES))
        found.append((Cell(some, int(chosen.sum())), images[chosen], label[chosen]))
        self.cells = [cell for cell, _, _ in found]
        columns = {
            "label": torch.cat([labels for _, _, labels in found]).tolist(),
            "cell": [place for place, (cell, _, _) in enumerate(found) for _ in range(cell.images)],
            "number": [number for cell, _, _ in found for number in range(cell.images)],
        }
        return {"test": Split(torch.cat([part for _, part, _ in found]), columns)}


def _corrupt(images: torch.Tensor, name: str, severity: int) -> torch.Tensor:
    if name == "noise":
        noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(severity))
        images = images + 60 * severity * noise
    else:
        images = images / (1 + severity)
    return images.clamp(0, 255).to(torch.uint8)
