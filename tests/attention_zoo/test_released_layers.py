"""Primal attention and oscillators beside the released layers: numbers that those gave once, for weights by a recipe.

The numbers are of ``PrimalAttention`` (PrimalAttention_CV/models_primal.py of yingyichen-cyy/PrimalAttention, 084d122)
and of ``KLayer`` (source/layers/klayer.py of autonomousvision/akorn, eabbe27), in float64. All weights and inputs are
`wave`, so that who has these repositories makes the numbers again.
"""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import attention_zoo as az


def wave(*shape, start):
    places = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(0.7 * places + start + 0.01 * places**2 % 6).reshape(shape)


def fill(parameters):
    """Give parameters a third of the wave, each from a start of its own."""
    with torch.no_grad():
        for start, parameter in enumerate(parameters):
            parameter.copy_(wave(*parameter.shape, start=start) / 3)


def numbers(*values):
    return torch.stack([torch.as_tensor(value, dtype=torch.float64).detach() for value in values])


PRIMAL = {
    "some of 36 tokens, one of them a class token": (
        ((5, 7), 1, 30, 3, 4, 5),
        (38.00735469054152, 1.6199590503298664, 0.3524572936785825, -2.0077830603359015, 372.45601356056306),
    ),
    "all of 15 tokens": (
        ((3, 5), 0, 42, 7, 5, 10),
        (32.13763715387313, 1.0755782902870636, -0.5709966032057802, -2.079214819478995, 295.8104921474181),
    ),
}


@pytest.mark.parametrize(("case", "released"), PRIMAL.values(), ids=PRIMAL)
def test_primal_attention(case, released):
    """The output's norm and two of its entries, J, and the norm of the input's gradient with the loss in it."""
    grid, prefix, dim, heads, low_rank, rank_multi = case
    options = {"low_rank": low_rank, "rank_multi": rank_multi, "grid": grid, "num_prefix_tokens": prefix}
    mixer = az.create_mixer("Primal", dim, heads, qkv_bias=True, dtype=torch.float64, **options)
    qk = nn.Linear(dim, 2 * dim, dtype=torch.float64)
    concatenate = mixer.concate_weight
    own = [mixer.we, mixer.wr, mixer.Lambda, qk.weight, qk.bias]
    fill([*own, mixer.proj.weight, mixer.proj.bias, concatenate.weight, concatenate.bias])
    with torch.no_grad():  # the released layer takes the tokens themselves for values
        mixer.qkv.weight.copy_(torch.cat([qk.weight, torch.eye(dim)]))
        mixer.qkv.bias.copy_(torch.cat([qk.bias, torch.zeros(dim)]))
    x = wave(2, grid[0] * grid[1] + prefix, dim, start=9).requires_grad_()
    out = mixer.train()(x)
    (gradient,) = torch.autograd.grad(out.square().sum(), [x])
    objective = mixer.objective(*mixer.scores(*mixer.project(x))).mean()
    found = numbers(out.norm(), out[0, 1, 2], out[1, -1, -1], objective, gradient.norm())
    assert_close(found, numbers(*released), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("number", [57, 106, 111, 196, 785, 1000])
@pytest.mark.parametrize("count", [50, 96, 100, 200])
def test_tokens_that_primal_attention_samples_are_evenly_spaced(number, count):
    mixer = az.create_mixer("Primal", 4, 1, low_rank=2, rank_multi=count // 2, grid=(1, number))
    count = min(count, number)
    expected = [place * (number - 1) // (count - 1) for place in range(count)]
    assert mixer._places(torch.empty(1, 1, number, 4)).tolist() == expected


KURAMOTO = {
    "one turn of the layer": (
        (35, 12, 4, 1, 1.0),
        (0.3552511615202085, -0.0752154964660483, 16.20214523080895, -88.44510992423099),
    ),
    "three turns, the coupling held": (
        (35, 12, 4, 3, 0.7),
        (0.3126138256009772, -0.17378375552587758, 31.66366550924848, -60.25244794075051),
    ),
    "five turns of pairs, the coupling held": (
        (15, 6, 2, 5, 1.3),
        (-0.7214338284935364, 0.9692826802296792, 10.51623212329713, 12.433865735820516),
    ),
}


@pytest.mark.parametrize(("case", "released"), KURAMOTO.values(), ids=KURAMOTO)
def test_oscillators(case, released):
    """Two entries of the last state, its sum, and its product with a wave.

    There c and the first state are the tokens, ``c_norm`` is none, and the coupling's values and output are its input.
    """
    number, dim, width, steps, step_size = case
    options = {"steps": steps, "step_size": step_size, "width": width}
    mixer = az.create_mixer("Kuramoto", dim, 1, qkv_bias=True, dtype=torch.float64, **options)
    fill([mixer.qkv.weight, mixer.qkv.bias])
    frequencies = wave(dim // 2, 2, start=2).norm(dim=1)  # one of each pair of channels
    with torch.no_grad():
        mixer.qkv.weight[2 * dim :], mixer.qkv.bias[2 * dim :] = torch.eye(dim), 0
        mixer.proj.weight.copy_(torch.eye(dim)), mixer.proj.bias.zero_()
        mixer.omega.zero_()
        for pair, frequency in enumerate(frequencies):
            oscillator, first = divmod(2 * pair, width)
            mixer.omega[0, oscillator, first, first + 1] = frequency
    tokens = wave(2, number, dim, start=3).unflatten(-1, (-1, width))
    out = mixer((tokens / tokens.norm(dim=-1, keepdim=True)).flatten(2))
    found = numbers(out[0, 1, 2], out[1, -1, -1], out.sum(), (out * wave(2, number, dim, start=5)).sum())
    assert_close(found, numbers(*released), rtol=1e-11, atol=1e-11)
