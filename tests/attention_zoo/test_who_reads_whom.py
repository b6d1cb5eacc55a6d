"""Masks, causality, windows and distances stay in parts that are never a matrix: they read as the matrix would."""

import pytest
import torch
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.functional import em
from attention_zoo.functional.positions import SplitPrior, distance_prior, window_features, window_prior
from attention_zoo.mixers import placed_mixture
from attention_zoo.mixers.switches import Adapt, ValueLikelihood
from tests.attention_zoo.test_mixers import MASKED

GRID, N = (3, 4), 12


@pytest.fixture(autouse=True)
def in_parts(monkeypatch):
    """Windows in parts for the few tokens here too, as they are for many, and on other devices."""
    monkeypatch.setattr(placed_mixture, "HELD", 0)


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def keys(kind):
    """A mask (2, 1, 1, N) in which the first keys are forbidden, and those of the second sample's first two rows."""
    mask = torch.ones(2, 1, 1, N, dtype=torch.bool)
    mask[:, ..., :2] = mask[1, ..., :8] = False
    if kind == "boolean":
        return mask
    added = normal(2, 1, 1, N, seed=5)
    return added.masked_fill(~mask, -torch.inf if kind == "additive" else -1e9)


def dense(kind, is_causal, window=None):
    """The same as one matrix (2, 1, N, N) of what is added to the scores."""
    added = torch.zeros(2, 1, N, N, dtype=torch.float64)
    if kind is not None:
        mask = keys(kind)
        added = added + (torch.zeros(mask.shape).masked_fill(~mask, -torch.inf) if kind == "boolean" else mask)
    if is_causal:
        added = added.masked_fill(~torch.ones(N, N, dtype=torch.bool).tril(), -torch.inf)
    return added if window is None else added + window_prior(GRID, window, like=added)


def outputs(mixer, **who):
    """Return what a mixer makes of tokens, and the gradients of these and of its parameters."""
    x = normal(2, N, 16, seed=1).requires_grad_()
    out = mixer(x, **who)
    return out, torch.autograd.grad(out.sin().sum(), [x, *mixer.parameters()], allow_unused=True)


def create(name, **options):
    torch.manual_seed(0)
    mixer = az.create_mixer(name, 16, 2, grid=GRID, dtype=torch.float64, **options).eval()
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return mixer


@pytest.mark.parametrize("kind", ["boolean", "additive"])
@pytest.mark.parametrize("name", MASKED)
def test_causality_and_keys(name, kind):
    mixer = create(name)
    assert_close(
        outputs(mixer, attn_mask=keys(kind), is_causal=True), outputs(mixer, attn_mask=dense(kind, is_causal=True))
    )


OPTIONS = [
    {},
    {"distance_precision": 0.3},
    {"key_adaptation": 2, "precision_adaptation": 1, "magnitude_prior": False},
    {"adapt": Adapt(half_steps=3), "beta": 0.0},
    {"value_likelihood": ValueLikelihood("huber")},
    {"positions": "full"},
]


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("kind", [None, "boolean", "additive", "lowest"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options))
@pytest.mark.parametrize("window", [3, 2])
def test_a_window_reads_as_its_mask_does(options, kind, is_causal, window):
    who = {"attn_mask": None if kind is None else keys(kind), "is_causal": is_causal}
    one, other = create("Probabilistic", window=window, **options), create("Probabilistic", **options)
    close = {"rtol": 1e-5, "atol": 1e-5} if kind == "lowest" else {}  # scores of -1e9 have rounding errors
    assert_close(outputs(one, **who), outputs(other, attn_mask=dense(kind, is_causal, window)), **close)


def test_features_of_a_window_are_its_mask():
    like = normal(1)
    for window in (1, 2, 3, 9):
        assert_close(window_features(GRID, window, 2, like=like).full(), window_prior(GRID, window, 2, like=like))


def test_the_likelihood_under_parts_is_that_under_their_sum():
    q, k = normal(2, 3, N, 5, seed=2), normal(2, 3, N, 5, seed=3)
    args = {"like": q}
    parts = SplitPrior(distance_prior(GRID, 0.3, **args), window_features(GRID, 3, **args), keys("additive"), True)
    whole = dense("additive", True, 3) + distance_prior(GRID, 0.3, **args).full()
    assert_close(*(em.log_likelihood(q, k, alpha=0.5, log_prior=prior) for prior in (parts, whole)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_of_any_size_stay_within_their_window(dtype):
    mixer = create("Probabilistic", window=3).to(dtype)
    x = 300 * normal(2, N, 16, seed=1).to(dtype)
    moved = x.clone()
    moved[:, -1] = -x[:, -1]
    far = mixer(x)[:, 0] - mixer(moved)[:, 0]
    assert mixer(x).isfinite().all() and far.abs().max() == 0
