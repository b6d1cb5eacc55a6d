"""Layers under the transforms of torch.func: gradients of each sample, Jacobians, batches of batches."""

import pytest
import torch
from torch.func import functional_call, grad, jacrev, vmap
from torch.testing import assert_close

import attention_zoo as az
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
