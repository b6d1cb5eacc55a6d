"""Robustness of a classifier: clean, corrupted, other and attacked images in one pass over the data."""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import Metric, SumMetric

from attention_zoo import MixerFactory, swap_mixers
from attention_zoo.attacks import FGSM, PGD, Attack, OnPixels, unheard
from attention_zoo.errors import InputError
from attention_zoo.evaluation import Benchmark, Cell
from attention_zoo.functional.checks import check_finite, check_integer
from attention_zoo.results.robustness import CellCount, Column, RobustnessResult, Row, blind_spots
from attention_zoo.seeding import run_seed, seeded
from tasks.classification import Classification
from tasks.metrics import CalibrationError, MeanCorruptionError, SubsetAccuracy

AS_TRAINED = "as trained"
"""The row of the model itself."""

VARIANT_SALT = 0xBA
"""Sets the seed of what variants start fresh with apart from others."""

PACKAGES = ("attention_zoo", "torch", "torchvision", "timm", "lightning", "torchmetrics", "numpy")
"""Whose versions a result records."""


class Robustness(Classification):
    """Top-1 accuracy and calibration of a classifier on each cell of a robustness data module, and under attacks.

    Only ``test`` differs from `Classification`. Batches have ``cell`` (B,) int64, the position in the data module's
    ``cells``, and ``number`` (B,) int64, that of the image in its cell; a batch may mix cells. Released weights
    (``pretrained``) get pixels normalised as in their training, whatever the data's own mean and standard deviation.

    Args:
        attacks: of the images of the benchmark ``clean``, by the name of their column; None is FGSM and PGD with the
            settings of the VARS, AbSViT and RVT tables, ``{}`` is none.
        attacked_images: how many of those images are attacked, evenly spread; None is all.
        variants: further rows, by name: mixers that take the place of all the model's own in a copy of it, the
            weights carried over and nothing trained (see `attention_zoo.swap_mixers`).
        **classification: see `Classification`.

    Attributes:
        result: what was found, after a test.
        seen: samples that this process has behind it in a test.
        report: is told in a few words what an attack does, before each of its passes through a model.
    """

    result: RobustnessResult | None = None

    def __init__(
        self,
        *,
        attacks: dict[str, Attack] | None = None,
        attacked_images: int | None = None,
        variants: dict[str, MixerFactory] | None = None,
        **classification: Any,
    ) -> None:
        super().__init__(**classification)
        if attacked_images == 0:
            raise InputError("attacked_images=0 must be at least 1; for no attacks give attacks: {}")
        if attacked_images is not None:
            check_integer("attacked_images", attacked_images, 1)
        if variants and AS_TRAINED in variants:
            raise InputError(f"variants: {AS_TRAINED!r} is the model itself; choose another name")
        self.attacks = {"fgsm": FGSM(), "pgd": PGD()} if attacks is None else attacks
        self.attacked_images, self.variants = attacked_images, variants or {}
        self.released = _normalisation(self.model) if classification.get("pretrained") else {}
        self.parts: list[Part] = []
        self.tallies = nn.ModuleList()
        self.networks: dict[str, OnPixels] = {}
        self.seen = 0
        self.report: Callable[[str], None] = unheard

    def setup(self, stage: str) -> None:
        """Know what is counted, once the data are there."""
        if stage != "test":
            return
        precision = self.trainer.precision
        if precision.endswith("-true") and precision != "32-true":
            raise InputError(
                f"trainer.precision={precision}: attacks differentiate in float32; choose 32 or a -mixed one"
            )
        data = self.trainer.datamodule
        cells = getattr(data, "cells", None)
        if cells is None:
            raise InputError(f"Robustness needs data with benchmarks, which {type(data).__name__} has not")
        self.parts = list(self._parts(cells, data.num_classes))
        rows = [AS_TRAINED, *self.variants]
        self.seen = 0
        self.tallies = nn.ModuleList(nn.ModuleList(Tally(part) for part in self.parts) for _ in rows)

    def on_test_start(self) -> None:
        """Build the rows from the weights, which are loaded by now; attacks need them outside of inference mode."""
        data = self.trainer.datamodule
        facts = {"mean": data.mean, "std": data.std, **self.released}
        with torch.inference_mode(False), seeded(run_seed(), VARIANT_SALT):  # some mixers start fresh with random parts
            models = {AS_TRAINED: self.model}
            for name, mixer in self.variants.items():
                models[name] = swap_mixers(deepcopy(self.model), mixer)
            self.networks = {name: OnPixels(model, **facts).to(self.device) for name, model in models.items()}

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Count one batch, in every row."""
        self.seen += len(batch["index"])
        counted = batch["index"] >= 0
        batch = {name: batch[name][counted] for name in ("image", "label", "cell", "number")}
        pixels = self._pixels(batch["image"])
        for (row, network), tallies in zip(self.networks.items(), self.tallies, strict=True):
            if not len(pixels):
                continue
            logits = check_finite(f"logits ({row})", network(pixels).float(), batch["number"])
            for part, tally in zip(self.parts, tallies, strict=True):
                chosen = part.choose(batch["cell"], batch["number"])
                if not chosen.any():
                    continue
                label, cell = batch["label"][chosen], batch["cell"][chosen] - part.first
                if part.attack is None:
                    tally.update(logits[chosen], label, cell)
                else:
                    number = batch["number"][chosen]
                    attacked = part.attack.run(network, pixels[chosen], label, number, self.report)
                    name = f"logits ({row}) after {part.column.title}"
                    tally.update(check_finite(name, network(attacked.pixels).float(), number), label, cell)
                    if attacked.no_gradient is not None:
                        tally.no_gradient.update(attacked.no_gradient.sum())

    def on_test_epoch_end(self) -> None:
        """Log the numbers of the table over all processes, and keep all that was counted."""
        rows = []
        for name, tallies in zip(self.networks, self.tallies, strict=True):
            prefix = "test/" if name == AS_TRAINED else f"test/{name}/"
            for part, tally in zip(self.parts, tallies, strict=True):
                self.log(f"{prefix}{part.column.name}", tally.top1)
            counts = {part.column.name: tally.counts() for part, tally in zip(self.parts, tallies, strict=True)}
            rows.append(Row(name, counts))
            for part in self.parts:
                for line in blind_spots(part.column, counts[part.column.name], name):
                    rank_zero_warn(line)
        self.result = RobustnessResult(tuple(part.column for part in self.parts), tuple(rows), self._facts())
        self.networks = {}

    def progress(self) -> dict[str, Tensor]:
        """What this process has counted so far; `go_on` in another process takes it up."""
        for metric in self._metrics():
            metric.persistent(True)
        counts = {name: value.clone() for name, value in self.tallies.state_dict().items()}
        for metric in self._metrics():
            metric.persistent(False)  # else a checkpoint would have to have them
        return {**counts, "seen": torch.tensor(self.seen)}

    def go_on(self, progress: dict[str, Tensor]) -> None:
        """Take up what `progress` gave; the data must begin after the samples ``seen``."""
        counts = dict(progress)
        self.seen = int(counts.pop("seen"))
        new = {name: value for name, value in self.progress().items() if ".no_gradient." in name}
        self.tallies.load_state_dict({**new, **counts})  # counts of before know nothing of gradients

    def place(self, batch: dict[str, Tensor]) -> str:
        """Title of the benchmark that the first image of a batch is of, and its corruption and severity."""
        cell = self.trainer.datamodule.cells[int(batch["cell"][0])]
        words = [cell.benchmark.title, cell.corruption and cell.corruption.replace("_", " "), cell.severity]
        return " ".join(str(word) for word in words if word)

    def _metrics(self) -> list[Metric]:
        return [module for module in self.tallies.modules() if isinstance(module, Metric)]

    def _pixels(self, image: Tensor) -> Tensor:
        """Pixels in 0..1 of images that the data module normalised."""
        data = self.trainer.datamodule
        mean, std = (image.new_tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
        return (image * std + mean).clamp(0, 1)

    def _parts(self, cells: Sequence[Cell], num_classes: int) -> Iterator["Part"]:
        """Benchmarks in the order of the cells, and the attacks after the clean one."""
        benchmarks = dict.fromkeys(cell.benchmark for cell in cells)
        taken = {benchmark.name for benchmark in benchmarks} & self.attacks.keys()
        if taken:
            raise InputError(f"attacks: {taken.pop()!r} is a benchmark of the data; choose another name")
        if self.attacks and not any(benchmark.name == "clean" for benchmark in benchmarks):
            raise InputError("attacks need the clean images: give the data's clean benchmark too, or attacks: {}")
        for benchmark in benchmarks:
            own = [cell for cell in cells if cell.benchmark == benchmark]
            first = cells.index(own[0])
            column = Column.of(benchmark, own, num_classes)
            yield Part(column, benchmark, first)
            if benchmark.name != "clean":
                continue
            wanted = min(self.attacked_images or own[0].images, own[0].images)
            for name, attack in self.attacks.items():
                protocol = {**column.protocol, **attack.settings, "images": wanted}
                kind = type(attack).__name__
                title = kind if name == kind.lower() else name
                attacked = Column(name, title, column.classes, protocol)
                yield Part(attacked, benchmark, first, attack, (wanted, own[0].images))

    def _facts(self) -> dict[str, Any]:
        data = self.trainer.datamodule
        return {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "num_classes": data.num_classes,
            "normalisation": {"mean": list(data.mean), "std": list(data.std), **self.released},
            "precision": str(self.trainer.precision),
            "processes": self.trainer.world_size,
            "versions": {package: version(package) for package in PACKAGES},
        }


@dataclass(frozen=True)
class Part:
    """What one column counts.

    Attributes:
        column: how the result describes it.
        benchmark: whose images.
        first: its first cell among all.
        attack: on them, or None.
        spread: how many of how many images; None is all.
    """

    column: Column
    benchmark: Benchmark
    first: int
    attack: Attack | None = None
    spread: tuple[int, int] | None = None

    @property
    def cells(self) -> int:
        """How many."""
        return max(1, len(self.column.corruptions) * len(self.column.severities))

    def choose(self, cell: Tensor, number: Tensor) -> Tensor:
        """Which images of a batch it counts, (B,) bool."""
        chosen = (cell >= self.first) & (cell < self.first + self.cells)
        if self.spread is None:
            return chosen
        wanted, images = self.spread
        return chosen & ((number + 1) * wanted // images > number * wanted // images)


class Tally(nn.Module):
    """Accuracy and calibration in the cells of a part.

    Args:
        part: what is counted.
    """

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.column, classes = part.column, part.benchmark.classes
        self.top1: Metric = SubsetAccuracy(classes)
        if self.column.corruptions:
            corruptions, severities = self.column.corruptions, len(self.column.severities)
            normalised = self.column.normalised
            self.top1 = MeanCorruptionError(corruptions, severities, normalised=normalised, classes=classes)
        self.calibration = CalibrationError(classes, part.cells)
        self.looks = part.attack is not None and part.attack.looks_at_gradients
        self.no_gradient = SumMetric().set_dtype(torch.float64)

    def update(self, logits: Tensor, label: Tensor, cell: Tensor) -> None:
        """Count images; ``cell`` is among the part's own."""
        self.top1.update(logits, label, cell)
        self.calibration.update(logits, label, cell)

    def counts(self) -> tuple[CellCount, ...]:
        """What all processes counted."""
        with self.top1.sync_context():
            total, correct = self.top1.total.tolist(), self.top1.correct.tolist()
        calibration = self.calibration.compute().view(-1).tolist()
        with self.no_gradient.sync_context():
            no_gradient = int(self.no_gradient.sum_value) if self.looks else None
        column = self.column
        names = [(name, severity) for name in column.corruptions for severity in column.severities] or [(None, None)]
        found = zip(total, correct, calibration, names, strict=True)
        return tuple(
            CellCount(total, correct, calibration if total else None, *name, no_gradient=no_gradient)
            for total, correct, calibration, name in found
        )


def _normalisation(model: nn.Module) -> dict[str, tuple[float, ...]]:
    """Mean and standard deviation of the pixels that timm's released weights of ``model`` were trained on.

    Raises:
        InputError: they are of other classes, so that timm has put a random classifier on them.
    """
    facts = model.pretrained_cfg
    if facts["num_classes"] != model.num_classes:
        name = f"{facts['architecture']}.{facts['tag']}"
        raise InputError(f"{name} was trained on {facts['num_classes']} classes, the data have {model.num_classes}")
    return {"mean": tuple(facts["mean"]), "std": tuple(facts["std"])}
