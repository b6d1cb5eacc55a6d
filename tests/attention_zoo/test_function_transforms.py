"""Layers under the transforms of torch.func, and gradients of gradients: of each sample, Jacobians, penalties."""

import pytest
import torch
from torch.func import functional_call, grad, jacrev, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.functional.attention import attend
from attention_zoo.functional.em import doubly_normalize
from tests.attention_zoo.test_mixers import IDS, VARIANTS, build

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
RELEASED = [(name, {"variant": "released"}) for name in ("VarsD", "VarsS", "VarsSD", "Performer")]
WRAPPERS = [(name, {}) for name in az.list_mixers("wrapper")]
CASES = [(*case, label) for case, label in zip(VARIANTS, IDS, strict=True)]
CASES += [(*case, "-".join([case[0], *case[1]])) for case in RELEASED + WRAPPERS]


def check(layer, x):
    """Check the transforms of a layer of tokens x (B, N, DIM) against plain passes."""
    weights = {name: weight.detach() for name, weight in layer.named_parameters()}

    def loss(weights, sample):
        return functional_call(layer, weights, (sample[None],)).square().sum()

    found = vmap(grad(loss), in_dims=(None, 0))(weights, x)
    learned = list(layer.parameters())
    how = {"allow_unused": True, "materialize_grads": True}
    expected = [torch.autograd.grad(layer(sample[None]).square().sum(), learned, **how) for sample in x]
    for own, others in zip(found.values(), zip(*expected, strict=True), strict=True):
        assert_close(own, torch.stack(others), **CLOSE)

    assert_close(vmap(lambda sample: layer(sample[None])[0])(x), layer(x), **CLOSE)
    probe = torch.randn_like(x[0])
    reads = x[0].clone().requires_grad_()
    (expected,) = torch.autograd.grad((layer(reads[None])[0] * probe).sum(), reads)
    assert_close((jacrev(lambda sample: layer(sample[None])[0])(x[0]) * probe[..., None, None]).sum((0, 1)), expected)


@pytest.mark.parametrize(("name", "options"), [case[:2] for case in CASES], ids=[case[2] for case in CASES])
def test_every_mixer_as_without_a_transform(name, options):
    layer = build(name, grid=(4, 4), **options)
    check(layer, torch.randn(2, 16, layer.dim, dtype=torch.float64))


@pytest.mark.parametrize("name", az.list_mixers("self"))
def test_no_number_is_read_from_single_precision(name):
    """Outside of transforms some layers look how large the scores are, to choose a wider type."""
    layer = build(name, grid=(8, 8), dtype=torch.float32)
    x = torch.randn(2, 64, layer.dim)
    assert_close(vmap(lambda sample: layer(sample[None])[0])(x), layer(x), rtol=1e-3, atol=1e-4)
    assert grad(lambda sample: layer(sample[None]).square().sum())(x[0]).isfinite().all()


APPROXIMATE = ("VarsD", "VarsSD", "MixtureOfHeads-mixer-shared-routed-topk")
"""Cases of which no exact second gradient exists: the length of a step has that of its eigenvalue alone."""
TWICE = [case for case in CASES if case[2].removesuffix("-variant") not in APPROXIMATE]


@pytest.mark.parametrize(("name", "options"), [case[:2] for case in TWICE], ids=[case[2] for case in TWICE])
def test_gradients_of_gradients_by_a_probe_that_is_learned_nowhere(name, options):
    """Of a probe without a gradient torch does not notice that a function of ours was followed once only."""
    layer = build(name, grid=(4, 4), **options)
    x, probe, way = torch.randn(3, 1, 16, layer.dim, dtype=torch.float64).unbind()
    x.requires_grad_()

    def slope(x):
        return torch.autograd.grad((layer(x) * probe).sum(), x, create_graph=True)[0]

    with sdpa_kernel(SDPBackend.MATH):  # torch's own attention is followed twice by its formula alone
        first = slope(x)
        found = torch.zeros_like(x)
        if first.requires_grad:  # a linear layer has no second gradient
            (found,) = torch.autograd.grad((first * way).sum(), x, allow_unused=True, materialize_grads=True)
        expected = (slope(x + 1e-6 * way) - slope(x - 1e-6 * way)) / 2e-6
    assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_gradients_of_gradients_of_many_tokens():
    layer = build("DoublyNormalized", grid=(17, 17))
    x, probe, way = torch.randn(3, 1, 289, layer.dim, dtype=torch.float64).unbind()
    x.requires_grad_()
    (first,) = torch.autograd.grad((layer(x) * probe).sum(), x, create_graph=True)
    (found,) = torch.autograd.grad((first * way).sum(), x)
    ends = [(x + size * way).detach().requires_grad_() for size in (1e-6, -1e-6)]
    slopes = [torch.autograd.grad((layer(end) * probe).sum(), end)[0] for end in ends]
    assert_close(found, (slopes[0] - slopes[1]) / 2e-6, rtol=1e-4, atol=1e-5)


def test_second_gradients_where_a_token_is_alone():
    """Its value is its own mean: a distance of 0."""
    layer = build("Pro", grid=(1, 1))
    x = torch.randn(1, 1, layer.dim, dtype=torch.float64)
    slope = grad(lambda x: layer(x).square().sum())
    found = grad(lambda x: slope(x).square().sum())(x)
    reads = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(layer(reads).square().sum(), reads, create_graph=True)
    (expected,) = torch.autograd.grad(first.square().sum(), reads)
    assert found.abs().max() > 0
    assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("name", az.list_mixers("self"))
def test_gradients_that_are_followed_are_the_same(name):
    """Also where what a function of ours takes depends on the other things that it takes, or is one of them."""
    layer = build(name, grid=(9, 11))
    x = torch.randn(1, 99, layer.dim, dtype=torch.float64, requires_grad=True)
    wanted, how = [x, *layer.parameters()], {"allow_unused": True, "materialize_grads": True}
    loss = layer(x).sin().sum()
    expected = torch.autograd.grad(loss, wanted, retain_graph=True, **how)
    assert_close(torch.autograd.grad(loss, wanted, create_graph=True, **how), expected, **CLOSE)


def test_gradients_that_are_followed_where_the_inputs_are_one():
    x = torch.randn(1, 2, 289, 4, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(1, 1, 40, dtype=torch.float64, requires_grad=True)
    few = torch.randn(1, 1, 40, 4, dtype=torch.float64)
    normalized = doubly_normalize(x, x, x, alpha=0.5).sin().sum()
    biased = sum(part.sin().sum() for part in attend(few, bias[..., None] * few.cos(), few, 0.5, key_bias=bias))
    for loss, learned in ((normalized, x), (biased, bias)):
        expected = torch.autograd.grad(loss, learned, retain_graph=True)
        assert_close(torch.autograd.grad(loss, learned, create_graph=True), expected, **CLOSE)


@pytest.mark.parametrize("name", az.list_mixers("self"))
def test_many_gradients_at_once(name):
    layer = build(name, grid=(9, 11))
    x = torch.randn(1, 99, layer.dim, dtype=torch.float64, requires_grad=True)
    probes = torch.randn(2, 1, 99, layer.dim, dtype=torch.float64)
    out = layer(x)
    (found,) = torch.autograd.grad(out, x, probes, is_grads_batched=True, retain_graph=True)
    expected = torch.stack([torch.autograd.grad(out, x, probe, retain_graph=True)[0] for probe in probes])
    assert_close(found, expected, **CLOSE)


@pytest.mark.parametrize("name", az.list_mixers("self"))
def test_gradients_within_autocast(name):
    layer = build(name, grid=(9, 11), dtype=torch.float32)
    x = torch.randn(1, 99, layer.dim, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(layer(x).float().sin().sum(), x)[0]
    assert found.dtype == torch.float32 and found.isfinite().all()
