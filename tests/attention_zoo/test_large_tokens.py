"""Tokens of any size: outputs and gradients of every mixer stay finite, and adapted keys as exact as a softmax."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.functional import em
from attention_zoo.functional.attention import bounded
from attention_zoo.mixers.switches import Adapt, Kernel, UnitPrior, ValueLikelihood

DIM, HEADS = 8, 2
OPTIONS = {
    "KMeans": [{"metric": "euclidean", "reduce": "mean", "iterations": 3}],
    "Cluster": [{"metric": "euclidean", "reduce": "mean", "iterations": 3}],
    "KMeansCross": [{"metric": "euclidean", "reduce": "mean"}],
    "Probabilistic": [
        {"key_adaptation": 2, "key_prior_precision": 0.1},
        {"key_adaptation": 1, "precision_adaptation": 1, "beta": 0.1},
        {"key_adaptation": 1, "magnitude_prior": False, "window": 3},
        {"key_adaptation": 1, "positions": "factored", "value_positions": True, "distance_precision": 0.1},
        {"key_adaptation": 1, "positions": "full", "value_positions": True},
        {"kernel": Kernel("predicted", "diagonal", components=2), "prior": UnitPrior("predicted")},
        {"adapt": Adapt(queries=1, half_steps=2), "value_likelihood": ValueLikelihood()},
        {"value_likelihood": ValueLikelihood("l1", through_distance=True)},
    ],
    **{name: [{"variant": "released"}] for name in ("VarsD", "VarsS", "VarsSD", "Performer")},
}
VARIANTS = [(name, options) for name in az.list_mixers() for options in ({}, *OPTIONS.get(name, []))]


EVERY = pytest.mark.parametrize(("name", "options"), VARIANTS, ids=["-".join([n, *o]) for n, o in VARIANTS])
TOKENS = given(
    exponent=st.integers(-30, 24),
    shape=st.sampled_from(["all", "one token", "one channel", "zeros"]),
    half=st.booleans(),
    seed=st.integers(0, 99),
)


@EVERY
@settings(max_examples=5, deadline=None)
@TOKENS
def test_outputs_and_gradients_are_finite(name, options, exponent, shape, half, seed):
    assert_finite(name, options, exponent, shape, half, seed)


@pytest.mark.slow
@EVERY
@settings(max_examples=40, deadline=None)
@TOKENS
def test_many_more_are_finite(name, options, exponent, shape, half, seed):
    assert_finite(name, options, exponent, shape, half, seed)


def assert_finite(name, options, exponent, shape, half, seed):
    torch.manual_seed(seed)
    cross = name in az.list_mixers("cross")
    mixer = az.create_mixer(name, DIM, HEADS, **options, **({} if cross else {"grid": (3, 6)}))
    x = torch.randn(2, 18, DIM)  # of fewer tokens the kernels make no whole vector
    size = 10.0 ** (exponent / 4)  # up to a million
    large = {"all": x * size, "zeros": x * 0}
    large["one token"] = torch.cat((x[:, :-1], size * x[:, -1:]), 1)
    large["one channel"] = torch.cat((x[..., :-1], size * x[..., -1:]), -1)
    x = large[shape].requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        outs = mixer(x[:, :2], x) if cross else (mixer(x),)
    assert all(out.isfinite().all() for out in outs)
    gradients = torch.autograd.grad(sum(o.float().mean() for o in outs), [x, *mixer.parameters()], allow_unused=True)
    assert all(g is None or g.isfinite().all() for g in gradients)
    x = x.detach()
    maps = mixer.attention_map(x[:, :2], x) if cross else mixer.attention_map(x)
    assert maps.isfinite().all()


@pytest.mark.parametrize("name", az.list_mixers())
def test_half_precision_throughout(name):
    """In which nothing is left to autocast: weights and tokens alike."""
    cross = name in az.list_mixers("cross")
    mixer = az.create_mixer(name, DIM, HEADS, dtype=torch.bfloat16, **({} if cross else {"grid": (3, 6)}))
    x = torch.randn(2, 18, DIM, dtype=torch.bfloat16, requires_grad=True)
    outs = mixer(x[:, :2], x) if cross else (mixer(x),)
    assert outs[0].dtype == torch.bfloat16
    sum(out.float().mean() for out in outs).backward()
    assert x.grad.isfinite().all()
    assert (mixer.attention_map(x[:, :2], x) if cross else mixer.attention_map(x)).isfinite().all()
    if hasattr(mixer, "assignments"):
        assert (mixer.assignments(x[:, :2], x) if cross else mixer.assignments(x)).isfinite().all()


@pytest.mark.parametrize("name", ["DotProduct", "DoublyNormalized", "KMeans", "Cluster", "Probabilistic"])
def test_compiled_too(name, monkeypatch):
    """Where how large the scores are cannot be asked."""
    monkeypatch.setattr(em, "widened", lambda bound, *arguments: arguments)
    adapts = {"key_adaptation": 2, "key_prior_precision": 0.1} if name == "Probabilistic" else {}
    for seed in range(5):
        torch.manual_seed(seed)
        mixer, x = az.create_mixer(name, 16, HEADS, **adapts), (1e6 * torch.randn(2, 16, 16)).requires_grad_()
        out = mixer(x)
        assert out.isfinite().all()
        assert torch.autograd.grad(out.mean(), x)[0].isfinite().all()


@settings(max_examples=20, deadline=None)
@given(
    scores=st.sampled_from([1e2, 5e3, 5e4, 1e6]),
    number=st.integers(2, 70),
    width=st.integers(2, 40),
    theta=st.sampled_from([0.0, 0.1]),
    iterations=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_adapted_keys_are_exact(scores, number, width, theta, iterations, seed):
    generator = torch.Generator().manual_seed(seed)
    q, k = torch.randn(2, 1, 2, number, width, generator=generator)
    size = (scores / (q @ k.mT).abs().max()).sqrt()
    q, k = q * size, k * size
    adapt = functools.partial(em.adapt_keys, alpha=1.0, prior_precision=theta, iterations=iterations)
    single, double = adapt(q, k), adapt(q.double(), k.double())
    assert single.dtype == torch.float32
    limit = 2e-4 if scores < 1e3 else 2e-6  # of small scores nothing is widened
    assert (single - double).abs().max() < limit * double.abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [1, 5, 10])
def test_adapted_keys_in_half_precision_are_as_exact_as_a_softmax(dtype, size):
    q, k = (size * torch.randn(2, 1, 2, 12, 8)).to(dtype)
    half, double = em.adapt_keys(q, k, alpha=0.35), em.adapt_keys(q.double(), k.double(), alpha=0.35)
    assert half.dtype == dtype
    assert (half - double).abs().max() < 2 * torch.finfo(dtype).eps * double.abs().max()


def test_doubly_normalized_is_exact():
    generator = torch.Generator().manual_seed(0)
    q, k, v = 60 * torch.randn(3, 1, 2, 50, 16, generator=generator)
    single, double = (
        em.doubly_normalize(q, k, v, alpha=1.0),
        em.doubly_normalize(*(x.double() for x in (q, k, v)), alpha=1.0),
    )
    assert (q @ k.mT).abs().max() > 3e4
    assert_close(single.double(), double, rtol=1e-5, atol=1e-4)


def test_bounded_leaves_alone_what_float32_resolves():
    q, k = torch.randn(2, 1, 2, 9, 4)
    assert torch.equal(bounded(100 * q, 100 * k, 1.0), 100 * q)
    scores = bounded(1e5 * q, 1e5 * k, 1.0) @ (1e5 * k).mT
    assert scores.abs().max() <= 2**20
    assert torch.equal(scores.argmax(-1), (q @ k.mT).argmax(-1))


@pytest.mark.parametrize("entry", [1.0, 1e9, 1e30, torch.inf, torch.nan])
def test_bounded_scales_each_query_by_its_own_size(entry):
    q, k = torch.randn(2, 1, 2, 9, 4)
    q[0, 0, 3, 1] = entry
    out = bounded(q, k, 1.0)
    others = torch.arange(9) != 3
    assert torch.equal(out[:, 0, others], q[:, 0, others])
    assert torch.equal(out[:, 1], q[:, 1])
    in_graph = torch.func.vmap(lambda a, b: bounded(a, b, 1.0))(q, k)  # where no number can be read
    assert_close(out, in_graph, equal_nan=True)


def test_bounded_keeps_keys_of_zero():
    q = 1e30 * torch.randn(1, 1, 5, 4)
    assert torch.equal(bounded(q, torch.zeros(1, 1, 3, 4), 1.0), q)
    assert torch.equal(torch.func.vmap(lambda a: bounded(a, torch.zeros(1, 3, 4), 1.0))(q), q)


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_bounded_under_a_scale_that_bounds_nothing(scale):
    q, k = torch.randn(2, 1, 2, 9, 4)
    assert torch.equal(bounded(q, k, scale), q)
    assert torch.equal(torch.func.vmap(lambda a, b: bounded(a, b, scale))(q, k), q)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_bounded_in_half_precision(dtype):
    q, k = (270 * torch.randn(2, 1, 2, 9, 4).sign()).to(dtype)  # of which the products are beyond half precision
    assert torch.equal(bounded(q, k, 1.0), q)
    assert bounded(q, k, 1.0).dtype == dtype
