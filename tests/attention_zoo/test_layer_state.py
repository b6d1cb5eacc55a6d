"""What mixers keep from layer to layer, and what they are made of: threads, numbers of numpy, classes of a name."""

import functools
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import timm
import torch
from timm.layers import Attention
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.compat import in_backward
from attention_zoo.functional.em import doubly_normalize
from attention_zoo.mixers.losses import auxiliary_loss
from attention_zoo.mixers.protocols import KeptByThread
from attention_zoo.mixers.registry import WRAPPERS, mixer_class, registering, wraps_mixers


@pytest.mark.parametrize("name", ["Reversed", "Elliptical"])
def test_passes_in_threads_beside_each_other_do_not_meet(name):
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", attn_layer=name, img_size=48, num_classes=4, depth=3).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    images, gate = torch.randn(4, 2, 3, 48, 48), threading.Barrier(4)
    with torch.no_grad():
        alone = torch.stack([model(batch) for batch in images])
    beside = torch.zeros(10, *alone.shape)

    def run(place):
        for again in range(len(beside)):
            gate.wait()
            with torch.no_grad():
                beside[again, place] = model(images[place])

    threads = [threading.Thread(target=run, args=(place,)) for place in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert_close(beside, alone.expand_as(beside), rtol=1e-4, atol=1e-4)


def test_a_thread_that_kept_nothing_sees_the_last_of_all():
    """A backward pass on a GPU runs in a thread of its own, and computes layers again under checkpointing."""
    kept, seen = KeptByThread(), []
    kept.value = torch.ones(1)
    thread = threading.Thread(target=lambda: seen.append(kept.value))
    thread.start()
    thread.join()
    assert seen[0] is kept.value
    kept.value = None
    assert kept.value is None


@pytest.mark.parametrize("name", ["Reversed", "Elliptical"])
def test_checkpointing_with_a_backward_pass_in_a_thread_that_stays(name):
    """As on a GPU, where autograd has such a thread: the layers that it computes again hand nothing on."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", attn_layer=name, img_size=48, num_classes=4, depth=3).train()
    for block in model.blocks:
        torch.nn.init.normal_(block.attn.qkv.weight, std=0.2)
        torch.nn.init.normal_(block.attn.proj.weight, std=0.3)
    with ThreadPoolExecutor(1) as backward:
        for _ in range(3):
            images, gradients = torch.randn(2, 3, 48, 48), []
            for saves in (True, False):
                model.set_grad_checkpointing(saves)
                model.zero_grad()
                backward.submit(model(images).square().sum().backward).result()
                gradients.append({key: one.grad for key, one in model.named_parameters() if one.grad is not None})
            assert_close(*gradients)


@pytest.mark.parametrize("name", ["Routing", "MixtureOfHeads"])
def test_checkpointing_moves_nothing_twice(name):
    """The centroids of `Routing` move once a step, and each loss is that of the forward pass."""
    ends = []
    for saves in (True, False):
        torch.manual_seed(0)
        model = timm.create_model("vit_tiny_patch16_224", attn_layer=name, img_size=48, num_classes=4, depth=2)
        model.set_grad_checkpointing(saves)
        for _ in range(2):
            (model(torch.randn(2, 3, 48, 48)).square().sum() + auxiliary_loss(model)).backward()
            assert auxiliary_loss(model) == 0
        ends.append({**model.state_dict(), **{key: one.grad for key, one in model.named_parameters()}})
    assert_close(*ends)


def test_losses_of_passes_in_other_threads_are_handed_out_once():
    mixer, x = az.create_mixer("MixtureOfHeads", 32, 4).train(), torch.randn(2, 16, 32)
    for _ in range(3):
        with ThreadPoolExecutor(1) as elsewhere:
            elsewhere.submit(mixer, x).result()
            assert auxiliary_loss(mixer) > 0
            assert elsewhere.submit(auxiliary_loss, mixer).result() == 0


def test_in_a_backward_pass():
    seen, x = [], torch.ones(1, requires_grad=True)
    x.register_hook(lambda grad: seen.append(in_backward()))
    x.sum().backward()
    assert seen == [True] and not in_backward()


@pytest.mark.parametrize("name", ["Reversed", "Elliptical"])
def test_links_do_not_depend_on_the_order_in_which_they_are_told(name):
    torch.manual_seed(0)
    (first, second, third), x = (az.create_mixer(name, 32, 4).eval() for _ in range(3)), torch.randn(2, 9, 32)
    outs = []
    for links in (((third, second), (second, first)), ((second, first), (third, second))):
        for mixer, before in links:
            mixer.follow(before)
        first(x), second(x)
        outs.append(third(x))
    assert_close(*outs)
    third.follow(first)
    first(2 * x)
    assert second.before is third.before


def test_a_wrapper_has_a_name_of_its_own():
    with registering():
        for name in ("DotProduct", "Axial"):
            with pytest.raises(az.InputError, match=f"a mixer called '{name}' is registered already"):
                wraps_mixers(type(name, (az.MIXERS["DotProduct"],), {}))
        with pytest.raises(az.InputError, match="must state as class attributes: reading"):
            wraps_mixers(type("Own", (az.Axial,), {"reading": None}))
    assert sorted(WRAPPERS) == az.list_mixers("wrapper")


def test_no_keys_to_read():
    q, nothing = torch.randn(1, 1, 300, 16, requires_grad=True), torch.zeros(1, 1, 0, 16)
    out = doubly_normalize(q, nothing, nothing, alpha=0.25)
    assert_close(out, torch.zeros_like(q))
    assert torch.autograd.grad(out.sum(), q)[0].eq(0).all()


@pytest.mark.parametrize("tokens", [35, 300])
@pytest.mark.parametrize("size", [300.0, 1e4, 1e5])
def test_reversed_of_large_scores(tokens, size):
    torch.manual_seed(0)
    mixer, x = az.create_mixer("Reversed", 24, 4).eval(), (size * torch.randn(2, tokens, 24)).requires_grad_()
    out = mixer(x)
    assert torch.autograd.grad(out.sum(), x)[0].isfinite().all()
    exact = mixer.double()(x.double())
    assert (out - exact).abs().max() < 2e-5 * exact.abs().max()


@pytest.mark.parametrize("given", [{"is_causal": True}, {"attn_mask": torch.eye(16, dtype=torch.bool)}])
def test_pooled_tokens_take_no_mask(given):
    mixer = az.create_mixer("TokenAwarePooling", 24, 4, grid=(4, 4))
    with pytest.raises(az.InputError, match="pooled tokens cannot use attn_mask or is_causal"):
        mixer(torch.randn(1, 16, 24), **given)


def test_a_projection_to_another_width_stays():
    model = torch.nn.Sequential(Attention(96, num_heads=3, dim_out=100))
    x = torch.randn(2, 10, 96)
    before = model(x)
    assert_close(az.swap_mixers(model, "DotProduct")(x), before)
    assert az.swap_mixers(model, "VarsD")(x).shape == before.shape


@pytest.mark.parametrize("name", az.list_mixers("wrapper"))
def test_an_exported_program_takes_no_name(name):
    mixer = az.create_mixer(name, 24, 4, grid=(6, 6)).eval()
    program = torch.export.export(mixer, (torch.randn(2, 36, 24),))
    assert mixer_class(name) is type(mixer)
    assert program is not None


def test_a_class_of_the_same_name_is_still_told_apart():
    def made():
        class Twin(type(az.create_mixer("DotProduct", 8, 2))):
            pass

        return Twin

    kept = [made(), made()]
    with pytest.raises(az.InputError, match="name of several classes"):
        mixer_class("Twin")
    del kept


@pytest.mark.parametrize("name", ["DotProduct", "Reversed", "VariedSizeWindow", "MixtureOfHeads", "KMeansCross"])
def test_numbers_of_numpy(name):
    cross = name == "KMeansCross"
    grid = {} if cross else {"grid": (np.int64(3), np.int64(3))}
    mixer = az.create_mixer(name, 24, np.int64(4), **grid)
    assert type(mixer.num_heads) is int
    grid = {key: list(value) for key, value in grid.items()}
    mixer = type(mixer)(dim=np.int64(24), num_heads=np.int32(4), **grid)
    assert cross or {type(side) for side in mixer.grid} == {int}
    x = torch.randn(1, 9, 24)
    assert (mixer(x, x)[0] if cross else mixer(x)).shape == x.shape


def test_heads_of_a_reading_without_masks_run_in_segments():
    heads = functools.partial(az.MixtureOfHeads, mixer="Linear")
    assert not heads(24, 4).takes_masks() and az.MixtureOfHeads(24, 4).takes_masks()
    mixer = az.create_mixer("Axial", 24, 4, mixer=heads, context=3, grid=(5, 5))
    assert mixer(torch.randn(1, 25, 24)).isfinite().all()


@pytest.mark.parametrize("name", ["Neighborhood", "Window", "VarsS", "GlobalFilter"])
def test_lines_of_a_grid_that_nobody_told(name):
    torch.manual_seed(0)
    mixer = az.create_mixer("Axial", 24, 4, mixer=name).eval()
    for tokens in (49, 36):
        assert mixer(torch.randn(1, tokens, 24)).isfinite().all()


@pytest.mark.parametrize(
    ("name", "option", "value", "said"),
    [
        ("Neighborhood", "kernel", 7, "every token reads all tokens"),
        ("Window", "window", 7, "every token reads all tokens"),
        ("BiLevelRouting", "regions", 7, "into single tokens, of which each reads 4"),
        ("Agent", "agents", 36, "more than the tokens"),
    ],
)
def test_a_grid_that_is_too_small_for_an_option_is_said(name, option, value, said):
    with pytest.warns(UserWarning, match=rf"{name}: {option}={value} .*\(7, 5\).*{said}|{name}: .*{said}.*\(7, 5\)"):
        az.create_mixer(name, 24, 4, grid=(7, 5), **{option: value})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        az.create_mixer(name, 24, 4, grid=(9, 8), **{option: value})
        az.create_mixer(name, 24, 4, **{option: value})
