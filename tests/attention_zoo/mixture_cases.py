"""What the tests of the mixture share: sizes that are no powers of two, heads, and comparison with gradients."""

import torch
from torch.testing import assert_close

import attention_zoo as az

B, H, N, D = 2, 3, 7, 5
SCALE = D**-0.5
PENALTIES = ["l1", "mcp", "huber"]
exactly = {"rtol": 1e-10, "atol": 1e-10}


def draw(*shape, seed=0, scale=1.0):
    return scale * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def heads(scale=1.0):
    return tuple(draw(B, H, N, D, seed=seed, scale=scale).requires_grad_() for seed in range(3))


def build(name, **options):
    torch.manual_seed(0)
    return az.create_mixer(name, H * D, H, dtype=torch.float64, **options)


def mixed(name, *tensors, **options):
    return build(name, **options).mix(*tensors)


def softmax(q, k):
    return (SCALE * q @ k.mT).softmax(-1)


def squared(x, y):
    return (x[..., :, None, :] - y[..., None, :, :]).square().sum(-1)


def same(out, expected, inputs):
    """Same values, and same gradients in every input."""
    assert_close(out, expected, **exactly)
    probe = draw(*out.shape, seed=9)
    pairs = [torch.autograd.grad((x * probe).sum(), inputs, allow_unused=True) for x in (out, expected)]
    for quick, plain in zip(*pairs, strict=True):
        none = torch.zeros(())
        assert_close(none if quick is None else quick, none if plain is None else plain, rtol=1e-8, atol=1e-10)
