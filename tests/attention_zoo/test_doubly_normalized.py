"""Doubly normalised attention by products of matrices, against its formula and against two fused passes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from attention_zoo.functional import doubly_normalized, em
from attention_zoo.functional.doubly_normalized import in_products, pays
from tests.attention_zoo.test_mixture_options import Largest

ALPHA = 0.5


def draw(*shape, dtype=torch.float64, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(*shape, dtype=dtype, generator=generator)).requires_grad_()


def heads(n=300, m=270, d=8, e=6, **options):
    return tuple(
        draw(2, 2, tokens, width, seed=seed, **options) for seed, (tokens, width) in enumerate([(n, d), (m, d), (m, e)])
    )


def formula(q, k, v):
    once = (ALPHA * q @ k.mT).softmax(-2)
    return once / once.sum(-1, keepdim=True) @ v


def in_blocks(patch):
    patch.setattr(doubly_normalized, "WHOLE", 1)
    patch.setattr(doubly_normalized, "AT_ONCE", 11)


def value_and_gradients(function, inputs):
    out = function(*inputs)
    return out, *torch.autograd.grad((out * out.detach().cos()).sum(), inputs)


@pytest.mark.parametrize("held", [True, False])
@given(n=st.integers(1, 9), m=st.integers(1, 9), d=st.integers(1, 4), e=st.integers(1, 4), seed=st.integers(0, 99))
def test_is_the_formula(held, n, m, d, e, seed):
    q, k, v = (draw(2, 1, t, w, seed=seed + i) for i, (t, w) in enumerate([(n, d), (m, d), (m, e)]))
    with pytest.MonkeyPatch.context() as patch:
        if not held:
            in_blocks(patch)
        out = in_products(q, k, v, ALPHA)
        assert_close(out, formula(q, k, v))
        ours = torch.autograd.grad(out.square().sum(), (q, k, v))
    assert_close(ours, torch.autograd.grad(formula(q, k, v).square().sum(), (q, k, v)))


@pytest.mark.parametrize("held", [True, False])
def test_gradcheck(held, monkeypatch):
    if not held:
        in_blocks(monkeypatch)
    inputs = heads(7, 5, 4, 3)
    assert torch.autograd.gradcheck(lambda *x: in_products(*x, ALPHA), inputs)


@pytest.mark.parametrize("scale", [0.01, 1.0, 2.5])
def test_is_as_exact_as_two_fused_passes(scale, monkeypatch):
    inputs = heads(dtype=torch.float32, scale=scale)
    assert in_products(*inputs, ALPHA) is not None
    exact = value_and_gradients(formula, [x.detach().double().requires_grad_() for x in inputs])
    ours = value_and_gradients(lambda *x: em.doubly_normalize(*x, alpha=ALPHA), inputs)
    monkeypatch.setattr(em, "in_products", lambda *_: None)
    theirs = value_and_gradients(lambda *x: em.doubly_normalize(*x, alpha=ALPHA), inputs)
    for a, b, true in zip(ours, theirs, exact, strict=True):
        assert (a - true).norm() <= 2e-6 * true.norm() + 1.5 * (b - true).norm()


@pytest.mark.parametrize("trains", [True, False])
def test_normalisers_that_vanish_are_left_to_the_fused_passes(trains):
    """A query far from every key, whose weights float32 holds none of beside those of the others."""
    q, k, v = heads(dtype=torch.float32)
    with torch.no_grad():
        q[:, :, 1:] -= 10 * k.mean(-2, keepdim=True)
        q[:, :, 0] = -60 * k.mean(-2)
        k += 4 * k.mean(-2, keepdim=True).sign()
    inputs = [x.detach().requires_grad_(trains) for x in (q, k, v)]
    assert pays(*inputs)
    assert in_products(*inputs, ALPHA) is None
    out = em.doubly_normalize(*inputs, alpha=ALPHA)
    wide = [x.detach().double().requires_grad_() for x in inputs]
    exact = ((ALPHA * wide[0] @ wide[1].mT).log_softmax(-2).softmax(-1)) @ wide[2]
    assert_close(out.double(), exact, rtol=1e-3, atol=1e-3)
    if trains:
        ours, theirs = (torch.autograd.grad(x.sum(), of) for x, of in ((out, inputs), (exact, wide)))
        for a, b in zip(ours, theirs, strict=True):
            assert (a - b).norm() <= 1e-2 * b.norm()


@pytest.mark.parametrize("size", [1e-25, 1.0, 1e15])
@pytest.mark.parametrize("steepness", [1e-25, 1.0, 1e15])
def test_values_and_gradients_of_any_size(size, steepness):
    """With one query far out, which makes normalisers small."""
    q, k, v = heads(dtype=torch.float32)
    with torch.no_grad():
        q[:, :, 5] *= 4
        v *= size
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    assert in_products(q, k, v, ALPHA) is not None
    ours, theirs = in_products(q, k, v, ALPHA), formula(*exact)
    pairs = [
        (ours, theirs),
        *zip(
            torch.autograd.grad(ours.sum() * steepness, (q, k, v)),
            torch.autograd.grad(theirs.sum() * steepness, exact),
            strict=True,
        ),
    ]
    for a, b in pairs:
        if 0 < b.abs().max() < 1e30 and b.abs().max() > 1e-30:
            assert (a - b).norm() <= 1e-4 * b.norm()


def test_several_gradients_at_once():
    inputs = heads(270, 260, 4, 3)
    out = em.doubly_normalize(*inputs, alpha=ALPHA)
    probes = torch.stack([draw(*out.shape, seed=seed).detach() for seed in (7, 8)])
    single = [torch.autograd.grad(out, inputs, probe, retain_graph=True) for probe in probes]
    batched = torch.autograd.grad(out, inputs, probes, retain_graph=True, is_grads_batched=True)
    mapped = torch.func.vmap(lambda probe: torch.autograd.grad(out, inputs, probe, retain_graph=True))(probes)
    for several in (batched, mapped):
        assert_close(several, tuple(torch.stack(each) for each in zip(*single, strict=True)))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_a_bad_number_counts_for_nothing(bad, which):
    inputs = [x.detach() for x in heads()]
    inputs[which][0, 0, 3, 2] = bad
    assert in_products(*inputs, ALPHA) is None


def test_memory_grows_with_the_tokens(monkeypatch):
    monkeypatch.setattr(doubly_normalized, "WHOLE", 1)
    monkeypatch.setattr(doubly_normalized, "AT_ONCE", 9_000)
    inputs = heads()
    with Largest() as seen:
        em.doubly_normalize(*inputs, alpha=ALPHA).square().sum().backward()
    assert 0 < seen.entries < 0.2 * inputs[0].shape[1] * 300 * 270


def test_where_it_pays(monkeypatch):
    q, k, v = heads(dtype=torch.float32)
    assert pays(q, k, v)
    assert not pays(q[:0], k[:0], v[:0])
    assert not torch.func.vmap(lambda x: x * pays(x, k, v))(q.detach()).any()
    assert not pays(*(x.to("meta") for x in (q, k, v)))
    monkeypatch.setattr(doubly_normalized, "WHOLE", 1)
    assert pays(q, k, v)
    assert not pays(*(x.detach() for x in (q, k, v)))
    with torch.no_grad():
        assert not pays(q, k, v)
