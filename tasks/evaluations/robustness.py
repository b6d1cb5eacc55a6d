"""Robustness of a classifier: clean, corrupted, other and attacked images in one pass over the data."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, NamedTuple, cast

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import Metric, SumMetric

from attention_zoo import MixerFactory, swap_mixers
from attention_zoo.attacks import FGSM, PGD, Attack, OnPixels, Transfer, unheard
from attention_zoo.errors import InputError, unknown
from attention_zoo.evaluation import Benchmark, Cell
from attention_zoo.functional.checks import check_finite
from attention_zoo.mixers.swapping import layer_indices, mixer_layers
from attention_zoo.results.paired_attacks import Pair, best_of_all
from attention_zoo.results.robustness import CellCount, Column, RobustnessResult, Row, alarms, blind_spots, grid_of
from attention_zoo.scales import Scale
from attention_zoo.seeding import run_seed, seeded
from tasks.classification import Classification
from tasks.evaluations.confidence import ConfidenceColumns
from tasks.evaluations.provenance import circumstances
from tasks.metrics import CalibrationError, MeanCorruptionError, PairCount, SubsetAccuracy
from tasks.metrics.subset import ClassSubset

AS_TRAINED = "as trained"
"""The name of the row of the model itself."""

VARIANT_SALT = 0xBA
"""Number that keeps the seed of the fresh parts of variants different from other seeds."""

CONFIDENCES = "confidences."
"""The beginning of the names that the confidences have in what a test has counted so far."""

PACKAGES = ("attention_zoo", "torch", "torchvision", "timm", "lightning", "torchmetrics", "numpy")
"""The packages whose versions a result records."""


class Robustness(Classification):
    """Top-1 accuracy and calibration of a classifier on each cell of a robustness data module, and under attacks.

    Only ``test`` differs from `Classification`. Batches have ``cell`` (B,) int64, the position in the data module's
    ``cells``, and ``number`` (B,) int64, that of the image in its cell; a batch may mix cells. Released weights
    (``pretrained``) get pixels normalised as in their training, whatever the data's own mean and standard deviation.

    Args:
        attacks: of the images of the benchmark ``clean``, by the name of their column; None is FGSM and PGD with the
            settings of the VARS, AbSViT and RVT tables, ``{}`` is none.
        attacked_images: how many of those images are attacked, evenly spread; None is all. An attack with ``images``
            of its own takes so many of them.
        variants: further rows, by name: mixers that take the place of all the model's own in a copy of it, the
            weights carried over and nothing trained (see `attention_zoo.swap_mixers`).
        variant_layers: for some of the variants, the layers that they take alone: ``"3"``, ``"0-3"``, ``"last"`` or
            ``"last-4"``; the other layers stay as they were trained.
        outliers: benchmarks whose images are to be told from the clean ones by the model's confidence, such as
            ``imagenet_sketch`` or ``ood``: further columns with AUROC and FPR95, and with the AURC of the clean images;
            an empty list gives the last alone, None none of them.
        **classification: see `Classification`.

    Attributes:
        result: the result of the last test; None before.
        seen: number of samples that this process is done with in a test.
        report: function that is told in a few words what an attack does, before each of its passes through a model.
    """

    METRICS = {"*_minus_best": Scale("lower", 0.0, 1.0)}

    result: RobustnessResult | None = None

    def __init__(
        self,
        *,
        attacks: dict[str, Attack] | None = None,
        attacked_images: int | None = None,
        variants: dict[str, MixerFactory] | None = None,
        variant_layers: dict[str, str] | None = None,
        outliers: list[str] | None = None,
        **classification: Any,
    ) -> None:
        super().__init__(**classification)
        if attacked_images == 0:
            raise InputError("attacked_images=0 must be at least 1; for no attacks give attacks: {}")
        if variants and AS_TRAINED in variants:
            raise InputError(f"variants: {AS_TRAINED!r} is the model itself; choose another name")
        self.variant_layers = variant_layers or {}
        for name, layers in self.variant_layers.items():
            if name not in (variants or {}):
                raise unknown("variant in variant_layers", name, variants or {})
            layer_indices(layers, len(mixer_layers(self.model)))
        self.attacks = {"fgsm": FGSM(), "pgd": PGD()} if attacks is None else attacks
        self.attacked_images, self.variants, self.outliers = attacked_images, variants or {}, outliers
        self.released = _normalisation(self.model) if classification.get("pretrained") else {}
        self.parts: list[Part] = []
        self.tallies = nn.ModuleList()
        self.confidences = ConfidenceColumns((), (), None)
        self.networks: dict[str, OnPixels] = {}
        self.seen = 0
        self.report: Callable[[str], None] = unheard

    def setup(self, stage: str) -> None:
        """Choose the columns and rows of a test from the data, and set all counts to zero.

        Raises:
            InputError: the precision is not one that attacks can differentiate in, or the data have no benchmarks, or
                none that the attacks need, or other classes than the model that an attack is transferred from.
        """
        if stage != "test":
            return
        precision = self.trainer.precision
        if precision.endswith("-true") and precision != "32-true":
            raise InputError(
                f"trainer.precision={precision}: attacks differentiate in float32; choose 32 or a -mixed one"
            )
        data = self._data
        cells = getattr(data, "cells", None)
        if cells is None:
            raise InputError(f"Robustness needs data with benchmarks, which {type(data).__name__} has not")
        for transfer in self.transfers.values():
            transfer.check(data.class_names, data.image_size)
        self.parts = list(self._parts(cells, data.num_classes))
        rows = [AS_TRAINED, *self.variants]
        self.seen = 0
        self.tallies = nn.ModuleList(nn.ModuleList(Tally(part) for part in self.parts) for _ in rows)
        self.confidences = ConfidenceColumns(cells, rows, self.outliers)

    def on_test_start(self) -> None:
        """Build the model of each row from the weights, which are loaded by now.

        They are built outside of inference mode, since attacks need gradients.
        """
        data = self._data
        facts = {"mean": data.mean, "std": data.std, **self.released}
        with torch.inference_mode(False), seeded(run_seed(), VARIANT_SALT):  # some mixers start fresh with random parts
            models = {AS_TRAINED: self.model}
            for name, mixer in self.variants.items():
                layers = self.variant_layers.get(name)
                chosen = {"mixer": mixer} if layers is None else {"layers": {layers: mixer}}
                models[name] = swap_mixers(deepcopy(self.model), **chosen)
            self.networks = {name: OnPixels(model, **facts).to(self.device) for name, model in models.items()}

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Count one batch, in every row."""
        self.seen += len(batch["index"])
        counted = batch["index"] >= 0
        batch = {name: batch[name][counted] for name in ("image", "label", "cell", "number")}
        pixels = self._pixels(batch["image"])
        for row, tallies in self._of_rows():
            network = self.networks[row]
            if not len(pixels):
                continue
            logits = check_finite(f"logits ({row})", network(pixels).float(), batch["number"])
            self.confidences.update(row, logits, batch)
            outcomes: dict[str, Outcome] = {}
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
                    after = check_finite(name, network(attacked.pixels).float(), number)
                    tally.update(after, label, cell)
                    if attacked.no_gradient is not None:
                        tally.no_gradient.update(attacked.no_gradient.sum())
                    right = tally.right(logits[chosen], label) & tally.right(after, label)
                    outcomes[part.column.name] = Outcome(chosen, torch.zeros_like(chosen).masked_scatter(chosen, right))
            _count_pairs(self.parts, tallies, outcomes)

    def on_test_epoch_end(self) -> None:
        """Log the numbers of the table over all processes, and keep all that was counted."""
        rows = []
        for name, tallies in self._of_rows():
            prefix = "test/" if name == AS_TRAINED else f"test/{name}/"
            for part, tally in zip(self.parts, tallies, strict=True):
                self.log(f"{prefix}{part.column.name}", tally.top1)
            counts = {part.column.name: tally.counts() for part, tally in zip(self.parts, tallies, strict=True)}
            pairs = [tally.pair_of(part) for part, tally in zip(self.parts, tallies, strict=True) if part.reference]
            rows.append(Row(name, counts, tuple(pairs), self.confidences.of(name)))
            for reference, pair in best_of_all(pairs).items():
                self.log(f"{prefix}{reference}_minus_best", max(pair.gap, 0.0) / 100)
        columns = tuple(part.column.counted(rows[0].counts[part.column.name]) for part in self.parts)
        self.result = RobustnessResult(columns, tuple(rows), self._facts())
        for row in rows:
            spots = (blind_spots(part.column, row.counts[part.column.name], row.name) for part in self.parts)
            for line in (*alarms(self.result, row, row.name), *chain.from_iterable(spots)):
                rank_zero_warn(line)
        self.networks = {}

    def progress(self) -> dict[str, Tensor]:
        """Return what this process has counted so far, by name, for `go_on` in another process to take up."""
        for metric in self._metrics():
            metric.persistent(True)
        counts = {name: value.clone() for name, value in self.tallies.state_dict().items()}
        counts |= {f"{CONFIDENCES}{name}": value.clone() for name, value in self.confidences.state_dict().items()}
        for metric in self._metrics():
            metric.persistent(False)  # else a checkpoint would have to have them
        return {**counts, "seen": torch.tensor(self.seen)}

    def go_on(self, progress: dict[str, Tensor]) -> None:
        """Take up what `progress` gave; the data must begin after the samples ``seen``."""
        counts = dict(progress)
        self.seen = int(counts.pop("seen"))
        confidences = {name: counts.pop(name) for name in list(counts) if name.startswith(CONFIDENCES)}
        self.confidences.load_state_dict({name.removeprefix(CONFIDENCES): each for name, each in confidences.items()})
        new = {name: value for name, value in self.progress().items() if {"no_gradient", "pair"} & {*name.split(".")}}
        self.tallies.load_state_dict({**new, **counts})  # counts of before know nothing of gradients and pairs

    def place(self, batch: dict[str, Tensor]) -> str:
        """Return in words where the test is: benchmark, corruption and severity of the first image of a batch."""
        cell = self._data.cells[int(batch["cell"][0])]
        words = [cell.benchmark.title, cell.corruption and cell.corruption.replace("_", " "), cell.severity]
        return " ".join(str(word) for word in words if word)

    @property
    def transfers(self) -> dict[str, Transfer]:
        """The attacks that are transferred from another model, by the names of their columns."""
        return {name: attack for name, attack in self.attacks.items() if isinstance(attack, Transfer)}

    @property
    def _data(self) -> Any:
        trainer: Any = self.trainer
        return trainer.datamodule

    def _of_rows(self) -> Iterator[tuple[str, list["Tally"]]]:
        """Yield the name and the tallies of each row; its tallies are in the order of ``parts``."""
        for name, tallies in zip([AS_TRAINED, *self.variants], self.tallies, strict=True):
            yield name, [tally for tally in cast(nn.ModuleList, tallies) if isinstance(tally, Tally)]

    def _metrics(self) -> list[Metric]:
        counting = (*self.tallies.modules(), *self.confidences.modules())
        return [module for module in counting if isinstance(module, Metric)]

    def _pixels(self, image: Tensor) -> Tensor:
        """Return the pixels (B, 3, H, W) in 0..1 of images that the data module normalised."""
        data = self._data
        mean, std = (image.new_tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
        return (image * std + mean).clamp(0, 1)

    def _parts(self, cells: Sequence[Cell], num_classes: int) -> Iterator["Part"]:
        """Yield a part for each benchmark in the order of the cells, and one for each attack after the clean one.

        Raises:
            InputError: an attack has the name of a benchmark, or there are attacks and no clean images.
        """
        benchmarks = dict.fromkeys(cell.benchmark for cell in cells)
        taken = {benchmark.name for benchmark in benchmarks} & self.attacks.keys()
        if taken:
            raise InputError(f"attacks: {taken.pop()!r} is a benchmark of the data; choose another name")
        if self.attacks and not any(benchmark.name == "clean" for benchmark in benchmarks):
            raise InputError("attacks need the clean images: give the data's clean benchmark too, or attacks: {}")
        for benchmark in benchmarks:
            if not benchmark.labelled:
                continue
            own = [cell for cell in cells if cell.benchmark == benchmark]
            first = cells.index(own[0])
            column = Column.of(benchmark, own, num_classes)
            yield Part(column, benchmark, first)
            if benchmark.name != "clean":
                continue
            most = min(self.attacked_images or own[0].images, own[0].images)
            for name, attack in self.attacks.items():
                wanted = min(attack.images or most, most)
                protocol = {**column.protocol, **attack.settings, "images": wanted}
                kind = type(attack).__name__
                title = kind if name == kind.lower() else name
                attacked = Column(name, title, column.classes, protocol)
                yield Part(attacked, benchmark, first, attack, (own[0].images, most, wanted), self._reference(name))

    def _reference(self, name: str) -> str | None:
        """Return the first attack along the model's own gradients in the ball of another one, or None."""
        ball = self.attacks[name].ball
        if ball is None:
            return None
        found = (other for other, attack in self.attacks.items() if attack.trusts_gradients and attack.ball == ball)
        first = next(found, None)
        return None if first == name else first

    def _facts(self) -> dict[str, Any]:
        data = self._data
        return {
            **circumstances(self.trainer, PACKAGES),
            "num_classes": data.num_classes,
            "normalisation": {"mean": list(data.mean), "std": list(data.std), **self.released},
            "processes": self.trainer.world_size,
        }


@dataclass(frozen=True)
class Part:
    """The images that one column of the result counts.

    Attributes:
        column: the description of the column in the result.
        benchmark: the benchmark that the images are from.
        first: position of its first cell among all cells.
        attack: the attack on the images, or None.
        spread: numbers of images, each of which is evenly spread over those of the number before; the last are those
            that count. None is all.
        reference: the column that an attack is compared with image by image; None without.
    """

    column: Column
    benchmark: Benchmark
    first: int
    attack: Attack | None = None
    spread: tuple[int, ...] | None = None
    reference: str | None = None

    @property
    def cells(self) -> int:
        """The number of cells of the part."""
        return max(1, len(self.column.corruptions) * len(self.column.severities))

    def choose(self, cell: Tensor, number: Tensor) -> Tensor:
        """Return which images of a batch the part counts, (B,) bool.

        Args:
            cell: (B,) int64, position of each image's cell among all.
            number: (B,) int64, position of each image in its cell.
        """
        chosen = (cell >= self.first) & (cell < self.first + self.cells)
        for images, wanted in pairwise(self.spread or ()):
            chosen = chosen & ((number + 1) * wanted // images > number * wanted // images)
            number = number * wanted // images
        return chosen


class Outcome(NamedTuple):
    """What an attack did to the images of a batch.

    Attributes:
        attacked: (B,) bool, the images that it attacked.
        withstood: (B,) bool, those of them that the model gets right before and after.
    """

    attacked: Tensor
    withstood: Tensor


def _count_pairs(parts: Sequence[Part], tallies: Sequence["Tally"], outcomes: Mapping[str, Outcome]) -> None:
    """Count how each attack and its reference fared on the images that both attacked."""
    for part, tally in zip(parts, tallies, strict=True):
        reference, other = outcomes.get(part.reference or ""), outcomes.get(part.column.name)
        if reference is not None and other is not None:
            both = reference.attacked & other.attacked
            tally.pair.update(reference.withstood[both], other.withstood[both])


class Tally(nn.Module):
    """Accuracy and calibration of one model in the cells of a part.

    Args:
        part: the part that is counted.
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
        self.pair = PairCount()
        self.subset = ClassSubset(classes)

    def update(self, logits: Tensor, label: Tensor, cell: Tensor) -> None:
        """Count the images of a batch in their cells.

        Args:
            logits: (N, C).
            label: (N,) int64.
            cell: (N,) int64, position among the cells of the part.
        """
        self.top1.update(logits, label, cell)
        self.calibration.update(logits, label, cell)

    def right(self, logits: Tensor, label: Tensor) -> Tensor:
        """Return which of the images the model gets right, (N,) bool, given as in `update`."""
        logits, label = self.subset(logits, label)
        return logits.argmax(1) == label

    def pair_of(self, part: Part) -> Pair:
        """Return what all processes counted of the part's attack and its reference."""
        with self.pair.sync_context():
            images, only_other, only_reference = self.pair.counts.tolist()
        return Pair(str(part.reference), part.column.name, images, only_other, only_reference)

    def counts(self) -> tuple[CellCount, ...]:
        """Return what all processes counted in each cell of the part, in order."""
        with self.top1.sync_context():
            top1: Any = self.top1
            total, correct = top1.total.tolist(), top1.correct.tolist()
        calibration = self.calibration.compute().view(-1).tolist()
        with self.no_gradient.sync_context():
            blind: Any = self.no_gradient
            no_gradient = int(blind.sum_value) if self.looks else None
        column = self.column
        names = grid_of(column.corruptions, column.severities)
        counted = zip(total, correct, calibration, names, strict=True)
        return tuple(
            CellCount(total, correct, calibration if total else None, *name, no_gradient=no_gradient)
            for total, correct, calibration, name in counted
        )


def _normalisation(model: nn.Module) -> dict[str, tuple[float, ...]]:
    """Return ``mean`` and ``std`` of the pixels that timm's released weights of ``model`` were trained on.

    Raises:
        InputError: the weights are of another number of classes, so that timm has put a random classifier on them.
    """
    facts: Any = model.pretrained_cfg
    if facts["num_classes"] != model.num_classes:
        name = f"{facts['architecture']}.{facts['tag']}"
        raise InputError(f"{name} was trained on {facts['num_classes']} classes, the data have {model.num_classes}")
    return {"mean": tuple(facts["mean"]), "std": tuple(facts["std"])}
