"""Training with gradient checkpointing ends with the model of training without: weights, statistics, moved buffers."""

from functools import partial

import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.mixers.running_statistics import hold_statistics
from tests.attention_zoo.test_models import KINDS, SIZE, SMALL, VIT

PLAIN = {"class_token": False, "global_pool": "avg"}
MIXERS = {
    "VarsS-released": partial(az.create_mixer, "VarsS", variant="released"),
    "VarsSD-released": partial(az.create_mixer, "VarsSD", variant="released"),
    "TokenAwarePooling": partial(az.create_mixer, "TokenAwarePooling"),
    "Routing": partial(az.create_mixer, "Routing"),
}


def trained(build, *, saves):
    """The state of a model after three steps."""
    torch.manual_seed(0)
    model = build().train()
    model.set_grad_checkpointing(saves)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(2, 3, *SIZE)).square().mean().backward()
        optimizer.step()
    return model.state_dict()


def assert_same_training(build):
    with_all, computed_again = (trained(build, saves=saves) for saves in (False, True))
    assert_close(computed_again, with_all, rtol=0, atol=0)


@pytest.mark.parametrize("name", KINDS)
def test_models(name):
    assert_same_training(lambda: timm.create_model(name, img_size=SIZE, num_classes=5, **SMALL[name]))


@pytest.mark.parametrize("name", MIXERS)
def test_mixers_with_statistics_of_their_own(name):
    def build():
        model = timm.create_model("vit_tiny_patch16_224", img_size=SIZE, num_classes=5, **{**VIT, **PLAIN})
        return az.swap_mixers(model, MIXERS[name])

    assert_same_training(build)


def test_two_passes_before_a_backward_pass_have_their_own_step_lengths():
    ends = []
    for saves in (False, True):
        torch.manual_seed(0)
        model = timm.create_model("vit_tiny_patch16_224", img_size=SIZE, num_classes=5, **{**VIT, **PLAIN}).train()
        az.swap_mixers(model, partial(az.create_mixer, "VarsS", variant="released", lam=0.001))
        for block in model.blocks:
            block.attn.kernel.data.mul_(1.5)  # so that the step lengths move
        model.set_grad_checkpointing(saves)
        (model(torch.randn(2, 3, *SIZE)).square().mean() + model(torch.randn(2, 3, *SIZE)).square().mean()).backward()
        ends.append([parameter.grad for parameter in model.parameters()])
    assert_close(*ends, rtol=0, atol=0)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_norm_counts_what_is_no_recomputation(momentum):
    norm, held = (nn.BatchNorm1d(3, momentum=momentum) for _ in range(2))
    hold_statistics(held)
    hold_statistics(held)
    for _ in range(2):
        x = torch.randn(5, 3, requires_grad=True)
        for each in (norm, held):
            y = torch.utils.checkpoint.checkpoint(each, x, use_reentrant=False) if each is held else each(x)
            y.square().sum().backward()
    assert_close(held.state_dict(), norm.state_dict(), rtol=0, atol=0)
    assert held.momentum == momentum
