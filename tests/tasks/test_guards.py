"""No task scores a model whose numbers are not finite, and a normalisation of one value says so."""

import math
from functools import partial
from typing import Annotated

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import attention_zoo as az
from attention_zoo.attacks import FGSM, PGD, OnPixels
from attention_zoo.domains import Domain, require
from attention_zoo.functional.checks import check_finite
from attention_zoo.models.mask_decoder import PanopticThresholds
from datamodules.images import Split
from datamodules.predictions import ClassTable
from tasks import AttentionSaliency, AttentionSegmentation, DrawAssignments
from tasks.classification import Mixing
from tasks.dense_inference import Inference
from tasks.guards import check_weights
from tasks.mask_losses import LossWeights, Sampling
from tasks.metrics import CalibrationError, Saliency, SubsetAccuracy
from tasks.schedules import Poly
from tasks.sync_norm import ProcessBatchNorm
from tests.mixers import costly
from tests.tasks import test_classification, test_interactive, test_mask_segmentation, test_robustness, test_semantic
from tests.tasks.cells import DigitBenchmarks

LARGE = 3e38
"""A finite weight with which no model's output is finite."""


def trainer(**options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return L.Trainer(devices=1, enable_checkpointing=False, num_sanity_val_steps=0, **quiet, **options)


def samples(**columns):
    """A loader of one batch of two images of 32 x 48, with further columns."""
    generator = torch.Generator().manual_seed(0)
    rows = [
        {"image": torch.randn(3, 32, 48, generator=generator), "index": 5 + place, "size": torch.tensor([32, 48])}
        for place in range(2)
    ]
    return DataLoader(
        [{**row, **{name: value[place] for name, value in columns.items()}} for place, row in enumerate(rows)], 2
    )


def attention(kind):
    return kind(
        "vit_tiny_patch16_224",
        3,
        (32, 48),
        mixer=az.MIXERS["DotProduct"],
        model_args=test_classification.SMALL,
        layer="last",
    )


MASKS = torch.randint(0, 2, (2, 32, 48))


class Gaze(L.LightningDataModule):
    """Where people looked at `samples`, all of them at all pixels."""

    image_size = (32, 48)

    def __init__(self):
        super().__init__()
        columns = {"fixations": MASKS.bool(), "density": torch.full((2, 32, 48), 1 / (32 * 48))}
        self.splits, self.loader = {"test": Split(MASKS, columns)}, samples(**columns)

    def test_dataloader(self):
        return self.loader


TASKS = {
    "classification": (test_classification.task, test_classification.loader, ("validate", "test", "predict")),
    "robustness": (
        lambda: test_robustness.task(attacks={"fgsm": FGSM()}),
        lambda: DigitBenchmarks(images=4, batch_size=8),
        ("test",),
    ),
    "semantic": (test_semantic.task, lambda: samples(mask=MASKS), ("validate", "test", "predict")),
    "semantic, views": (
        lambda: test_semantic.task(inference=Inference(window=(32, 32), flip=True)),
        lambda: samples(mask=MASKS),
        ("test", "predict"),
    ),
    "masks": (
        lambda: test_mask_segmentation.task(things=[1, 2]),
        lambda: test_mask_segmentation.data(panoptic=True),
        ("validate", "test"),
    ),
    "clicks": (
        lambda: test_interactive.tiny(max_clicks=1, val_clicks=1),
        test_interactive.scenes,
        ("validate", "test"),
    ),
    "objects": (lambda: attention(AttentionSegmentation), lambda: samples(mask=MASKS.byte()), ("test",)),
    "saliency": (lambda: attention(AttentionSaliency), Gaze, ("test",)),
}


@pytest.mark.parametrize("name", TASKS)
def test_what_is_not_finite_is_not_scored(name):
    build, data, stages = TASKS[name]
    task, data = build(), data()
    weights = {key: value.clone() for key, value in task.model.state_dict().items()}
    last = list(weights)[-1]
    for stage in stages:
        with torch.no_grad():
            for parameter in task.model.parameters():
                parameter.fill_(LARGE)
        with pytest.raises(az.InputError, match=r"logits|attention maps") as caught:
            getattr(trainer(), stage)(task, data, verbose=False) if stage != "predict" else trainer().predict(
                task, data
            )
        assert "images are not finite" in str(caught.value)
        task.model.load_state_dict(weights)
        with torch.no_grad():
            next(iter(task.model.parameters())).view(-1)[0] = math.nan
        with pytest.raises(az.InputError, match="the weight model.* is not finite"):
            getattr(trainer(), stage)(task, data)
        task.model.load_state_dict(weights)
    assert last in weights


def test_every_task_is_tried():
    import tasks

    tried = {type(build()) for build, _, _ in TASKS.values()}
    assert {
        cls for cls in map(tasks.__dict__.get, tasks.__all__) if isinstance(cls, type) and issubclass(cls, tasks.Task)
    } <= {
        *tried,
        tasks.Task,
        tasks.PerturbationStability,  # in test_stability
        tasks.TopDownControl,  # in test_top_down_control
    }


def test_a_single_sample_is_named():
    logits = torch.zeros(4, 3)
    logits[2, 1] = math.inf
    with pytest.raises(az.InputError, match=r"^logits of 1 of 4 images are not finite \(inf at sample 12\)"):
        check_finite("logits", logits, torch.arange(10, 14))
    assert check_finite("logits", logits[:2]) is not logits


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("metric", [SubsetAccuracy, CalibrationError])
def test_metrics_of_logits(metric, bad):
    logits = torch.zeros(2, 3)
    logits[1, 0] = bad
    with pytest.raises(az.InputError, match="logits of 1 of 2 images"):
        metric([0, 1]).update(logits, torch.zeros(2, dtype=torch.long))


def test_saliency_that_is_not_finite():
    with pytest.raises(az.InputError, match="saliency maps"):
        seen = torch.ones(2, 2, dtype=torch.bool)
        Saliency(1, 1).update(0, [torch.full((2, 2), math.nan)], seen, torch.full((2, 2), 0.25))


def test_a_loss_that_is_not_finite_stays_in_the_mean():
    metric = test_classification.classification_metrics(3)["loss"]
    metric.update(torch.tensor([1.0, math.nan]))
    assert metric.compute().isnan()


@pytest.mark.parametrize("name", costly())
def test_fresh_weights_are_finite(name):
    check_weights(test_classification.task(mixer=az.MIXERS[name]).model)


def test_buffers_may_be_infinite_and_not_nan():
    layer = nn.Linear(2, 2)
    layer.register_buffer("mask", torch.tensor([0.0, -math.inf]))
    check_weights(layer)
    layer.mask[0] = math.nan
    with pytest.raises(az.InputError, match=r"the weight mask is not finite \(nan, 1 of 2 entries\)"):
        check_weights(layer)


def test_large_weights_whose_sum_is_infinite_are_finite():
    layer = nn.Linear(2, 2)
    nn.init.constant_(layer.weight, 3e38)
    check_weights(layer)
    nn.init.constant_(layer.bias, -math.inf)
    with pytest.raises(az.InputError, match=r"the weight bias is not finite \(-inf, 2 of 2 entries\)"):
        check_weights(layer)


def test_training_says_that_the_loss_is_lost():
    task = test_classification.task()
    with torch.no_grad():
        next(iter(task.model.parameters())).fill_(math.nan)
    loader = test_classification.loader()
    with pytest.raises(az.InputError, match="the training loss is nan in epoch 1:"):
        trainer(max_epochs=1).fit(task, loader, loader)


def test_no_class_is_written_with_a_probability_of_nan(tmp_path):
    table = ClassTable(tmp_path / "predictions.csv", None, {"top_k": 2})
    with pytest.raises(az.InputError, match=r"cat\.png: the predicted probabilities are not finite"):
        table.add(0, "cat.png", torch.tensor([math.nan, 0.5]))
    assert not list(tmp_path.iterdir())


class TestOneValue:
    """Of which a batch normalisation can take no variance."""

    def test_one_image_under_upernet(self):
        task = test_semantic.task(decode_head={"type": "UPerHead", "channels": 8, "pool_scales": (1, 2)})
        single = DataLoader(samples(mask=MASKS).dataset, 1)
        said = r"model\.decode_head\.psp_modules\..* has one value there, of \(1, 8, 1, 1\)"
        with pytest.raises(az.InputError, match=said):
            trainer(max_epochs=1).fit(task, single)
        trainer().test(task, single, verbose=False)  # evaluation takes what training learned
        trainer(max_epochs=1).fit(task, samples(mask=MASKS))
        assert not any(layer._forward_pre_hooks for layer in task.modules())

    def test_any_model(self):
        task = test_classification.task()
        task.model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3), nn.BatchNorm1d(3))
        odd = DataLoader(test_classification.Colours(5), 2)
        with pytest.raises(az.InputError, match=r"model\.2 normalises .* of \(1, 3\)"):
            trainer(max_epochs=1).fit(task, odd)
        trainer(max_epochs=1, limit_train_batches=2).fit(task, odd)

    def test_over_processes(self, monkeypatch):
        monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
        monkeypatch.setattr("tasks.sync_norm.all_reduce", lambda x: x)
        with pytest.raises(az.InputError, match="one value a channel"):
            ProcessBatchNorm(3)(torch.ones(1, 3, 1, 1))
        assert ProcessBatchNorm(3)(torch.ones(1, 3, 1, 2)).isfinite().all()


NUMBERS = {
    "label_smoothing": lambda value: test_classification.task(label_smoothing=value),
    "warmup_epochs": lambda value: test_classification.task(warmup_epochs=value),
    "min_lr_ratio": lambda value: test_classification.task(min_lr_ratio=value),
    "layer_decay": lambda value: test_classification.task(layer_decay=value),
    "attacked_images": lambda value: test_robustness.task(attacked_images=value),
    "mixup_alpha": lambda value: Mixing(mixup_alpha=value),
    "cutmix_alpha": lambda value: Mixing(cutmix_alpha=value),
    "mixing.prob": lambda value: Mixing(prob=value),
    "switch_prob": lambda value: Mixing(switch_prob=value),
    "scales": lambda value: Inference(scales=[value]),
    "window": lambda value: Inference(window=(value, 8)),
    "backbone_lr": lambda value: test_mask_segmentation.task(backbone_lr=value),
    "loss_weights.dice": lambda value: LossWeights(dice=value),
    "contrastive_samples": lambda value: Sampling(contrastive_samples=value),
    "semantic_samples": lambda value: Sampling(semantic_samples=value),
    "contrastive_temperature": lambda value: Sampling(contrastive_temperature=value),
    "power": lambda value: Poly(power=value),
    "warmup_ratio": lambda value: Poly(warmup_ratio=value),
    "thresholds.pixel": lambda value: PanopticThresholds(pixel=value),
    "mask_exponent": lambda value: PanopticThresholds(mask_exponent=value),
    "threshold": lambda value: attention(partial(AttentionSegmentation, threshold=value)),
    "images": lambda value: DrawAssignments(images=value),
    "eps": PGD,
    "step": lambda value: PGD(step=value),
    "steps": lambda value: PGD(steps=value),
    "std": lambda value: OnPixels(nn.Identity(), [0.5], [value]),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_arguments_that_are_no_sensible_numbers(name):
    for value in (math.nan, math.inf, -math.inf, -1, "many", [1]):
        with pytest.raises(az.InputError, match=f"{name}.*="):
            NUMBERS[name](value)


def test_an_optimizer_that_torch_refuses():
    with pytest.raises(az.InputError, match="optimizer: Invalid learning rate: -1.0"):
        test_classification.task(optimizer=lambda groups: torch.optim.SGD(groups, lr=-1.0))


@pytest.mark.parametrize("value", [math.nan, math.inf, -1, 2, "0.5", None, True, 10**400])
def test_numbers_out_of_range(value):
    rate = Annotated[float, Domain(least=0, below=1)]
    with pytest.raises(az.InputError, match="^rate=.* must be"):
        require("rate", value, rate)
    require("rate", 0, rate)


@pytest.mark.parametrize("value", [math.nan, 1.5, -1, "1", None, True, 10**20])
def test_integers_out_of_range(value):
    with pytest.raises(az.InputError, match="^steps="):
        require("steps", value, int)
    require("steps", 0, int)


def test_integers_that_python_does_not_print():
    with pytest.raises(az.InputError, match="steps=a number of about 5001 digits"):
        require("steps", -(10**5000), int)
