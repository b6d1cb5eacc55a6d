"""The fused kernel of AdamW: where it is taken, and that training and checkpoints stay the same."""

from copy import deepcopy
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW
from torch.testing import assert_close

from tasks.base import Task
from tasks.optimizers import fused


class Tiny(Task):
    def __init__(self, **task):
        super().__init__(warmup_epochs=0, **task)
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))


def optimizer_of(optimizer=None, precision="32-true", clip=None):
    task = Tiny(optimizer=optimizer)
    trainer = {"precision": precision, "gradient_clip_val": clip, "max_epochs": 1, "max_steps": -1, "callbacks": []}
    task._trainer = SimpleNamespace(estimated_stepping_batches=10, **trainer)
    return task, task.configure_optimizers()["optimizer"]


def is_fused(optimizer):
    flags = {group["fused"] for group in optimizer.param_groups} | {optimizer.defaults["fused"]}
    assert len(flags) == 1
    return flags == {True}


def step(model, optimizer, seed):
    images = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    model(images).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (None, True),
        (partial(AdamW, lr=1e-2), True),
        (partial(AdamW, fused=True), True),
        (partial(AdamW, fused=False), False),
        (partial(AdamW, foreach=False), False),
        (partial(AdamW, foreach=True), False),
        (partial(Adam, lr=1e-3), False),
        (partial(SGD, lr=1e-3), False),
    ],
)
def test_where_it_is_taken(optimizer, expected):
    built = optimizer_of(optimizer)[1]
    assert is_fused(built) == expected
    if optimizer is not None:
        assert type(built) is optimizer.func


@pytest.mark.parametrize(
    ("precision", "clip", "expected"),
    [("bf16-mixed", 1.0, False), ("16-mixed", 0.5, False), ("bf16-mixed", None, True), ("32-true", 1.0, True)],
)
def test_lightning_clips_no_fused_optimizer_under_mixed_precision(precision, clip, expected):
    assert is_fused(optimizer_of(precision=precision, clip=clip)[1]) == expected


def test_parameters_elsewhere_keep_the_plain_kernel():
    assert not is_fused(fused(AdamW([nn.Parameter(torch.zeros(2, device="meta"))]), clips_scaled=False))
    assert not is_fused(fused(AdamW([nn.Parameter(torch.zeros(2, dtype=torch.complex64))]), clips_scaled=False))


def test_groups_and_options_are_kept_and_so_are_the_weights():
    options = {"lr": 3e-2, "betas": (0.8, 0.99), "eps": 1e-6, "weight_decay": 0.2, "amsgrad": True, "maximize": True}
    (plain, before), (task, after) = (
        optimizer_of(partial(AdamW, **options, **more)) for more in ({"foreach": False}, {})
    )
    for old, new in zip(before.param_groups, after.param_groups, strict=True):
        assert {**old, "params": 0, "fused": 0, "foreach": 0} == {**new, "params": 0, "fused": 0, "foreach": 0}
    for seed in range(5):
        step(plain.model, before, seed)
        step(task.model, after, seed)
    assert_close(list(task.model.parameters()), list(plain.model.parameters()), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("first", "then"), [(None, False), (False, None)])
def test_checkpoints_are_the_same_with_and_without(first, then):
    task, writer = optimizer_of(partial(AdamW, fused=first))
    step(task.model, writer, 0)
    weights, state = deepcopy(task.model.state_dict()), deepcopy(writer.state_dict())
    step(task.model, writer, 1)
    other, reader = optimizer_of(partial(AdamW, fused=then))
    other.model.load_state_dict(weights)
    reader.load_state_dict(state)
    step(other.model, reader, 1)
    assert_close(list(other.model.parameters()), list(task.model.parameters()), rtol=1e-6, atol=1e-7)
