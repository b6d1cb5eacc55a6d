"""Every step of every task on a CUDA device that is not there: see `fake`, and `tasks` for what a step needs."""

import contextlib
import inspect
from types import SimpleNamespace

import lightning as L
import pytest
import torch

import attention_zoo as az
import tasks
from attention_zoo.attacks import gradient
from attention_zoo.clicks import Clicks
from tasks import semantic
from tests.attention_zoo.cuda.answers import Answers
from tests.attention_zoo.cuda.fake import Watch, device
from tests.attention_zoo.cuda.tasks import BATCH, CASES, numbers_for_others

STEPS = [(name, step, torch.bfloat16) for name, case in CASES.items() for step in case.waits]
STEPS += [(name, step, None) for name, step, _ in STEPS if step == "training_step"]


def below(base):
    for cls in base.__subclasses__():
        yield cls
        yield from below(cls)


def test_every_task_and_each_step_of_its_own_is_run():
    found = [cls for cls in set(below(tasks.Task)) if cls.__module__.startswith("tasks.")]
    bases = {"AttentionEvaluation"}
    concrete = {cls.__name__: cls for cls in found if not inspect.isabstract(cls) and cls.__name__ not in bases}
    assert sorted(concrete) == sorted(CASES)
    steps = ("training_step", "validation_step", "test_step")
    for name, cls in concrete.items():
        owners = {step: next((one for one in cls.__mro__ if step in vars(one)), None) for step in steps}
        own = {step for step, owner in owners.items() if owner is not tasks.Classification or owner is cls}
        assert own <= set(CASES[name].waits), name


@pytest.fixture
def quiet(monkeypatch):
    """Steps that log nowhere, without the checks of a step of training that name what is wrong in a batch."""
    for name in ("log", "log_dict"):
        monkeypatch.setattr(L.LightningModule, name, lambda *args, **options: None)
    monkeypatch.setattr(gradient, "_gradient", lambda loss, pixels: torch.randn_like(pixels) * loss.sum())


def without_checks_of_training(monkeypatch, name):
    if name == "SemanticSegmentation":
        from mmseg.models.decode_heads import decode_head

        monkeypatch.setattr(decode_head, "accuracy", lambda scores, *args, **options: scores.new_zeros(1))
    monkeypatch.setattr(semantic, "check_labels", lambda mask, num_classes: None)
    monkeypatch.setattr(tasks.mask_segmentation, "check_labels", lambda mask, num_classes: None)
    monkeypatch.setattr(Clicks, "_check_values", lambda clicks: None)
    monkeypatch.setattr(az.TopDown, "class_prior", lambda model, index: model._prototypes()[index])


@pytest.mark.parametrize(("name", "step", "dtype"), STEPS)
def test_steps(monkeypatch, quiet, name, step, dtype):
    case, training = CASES[name], step == "training_step"
    task = case.build().train(training)
    without_checks_of_training(monkeypatch, name)
    numbers_for_others(monkeypatch)
    task._trainer = SimpleNamespace(datamodule=case.data, precision="32-true", current_epoch=0, global_rank=0)
    case.ready(task)
    with device(monkeypatch) as gpu:
        gpu.put(task)
        if hasattr(task, "total"):  # a sum over all images, which stays on the CPU
            task.total = gpu.keep(task.total)
        batch = case.batch()
        images = case.number if "frames" in batch else BATCH
        side = batch["mask"].shape[-1] if "mask" in batch else 32
        batch = {
            "image": torch.randn(images, 3, side, side, device="cuda"),
            "index": torch.arange(BATCH).cuda(),
        } | batch
        cast = torch.autocast("cuda", dtype) if dtype else contextlib.nullcontext()
        graded = contextlib.nullcontext() if training else torch.no_grad()
        with Answers(case.number), Watch(case.waits[step]) as watch, cast, graded:
            loss = getattr(task, step)(batch, 0)
        if training:
            assert (loss.device.type, loss.dtype, loss.shape) == ("cuda", torch.float32, ())
    assert watch.waits == case.waits[step]
