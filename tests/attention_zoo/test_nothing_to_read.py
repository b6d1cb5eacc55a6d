"""Who may read nobody takes nothing, and nobody else notices; a fixed unit that there is not is refused."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.functional import attention, em
from attention_zoo.functional.attention import attend
from attention_zoo.functional.positions import FactoredPositions

N, D = 5, 4
MASKED = [name for name in az.list_mixers("self") if az.MIXERS[name].mix_masked is not az.SelfMixer.mix_masked]
PROBABILISTIC = [
    {"key_adaptation": 2, "key_prior_precision": 0.1},
    {"key_adaptation": 1},
    {"key_adaptation": 1, "precision_adaptation": 1, "precision_prior": (1.0, 1.0)},
    {"key_adaptation": 1, "beta": 0.1},
    {"key_adaptation": 1, "positions": "factored", "value_positions": True, "magnitude_prior": False},
    {"key_adaptation": 1, "positions": "full", "value_positions": True},
    {"distance_precision": 0.1, "key_adaptation": 1},
]
VARIANTS = [*((name, {}) for name in MASKED), *(("Probabilistic", options) for options in PROBABILISTIC)]


def randn(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def units(seed=0):
    return [randn(2, 2, N, D, seed=seed + i).requires_grad_() for i in range(3)]


def without_some(blind, unread=()):
    """A prior under which the queries ``blind`` may read nobody and nobody may read the units ``unread``."""
    prior = randn(N, N, seed=7)
    prior[list(blind)] = -torch.inf
    prior[:, list(unread)] = -torch.inf
    return prior


FORMS = {
    "plain": {},
    "precise": {"alpha": randn(2, 2, N).exp()},
    "flat": {"magnitude_prior": False},
    "factored": {"q_pos": FactoredPositions(randn(1, D), randn(2 * N - 1, D, seed=1))},
    "full": {"q_pos": randn(N, N, D), "k_pos": randn(N, N, D, seed=1)},
    "prior learns": {"learns": True},
}
forms = pytest.mark.parametrize("form", list(FORMS))


def arguments(form, prior):
    given = {"alpha": 0.7, "log_prior": prior, **FORMS[form]}
    if given.pop("learns", False):
        given["log_prior"] = prior.clone().requires_grad_()
    return given


def subset(given, rows):
    """The same for the queries ``rows`` alone, as keys stay."""
    few = dict(given)
    few["log_prior"] = given["log_prior"].detach()[rows]
    if isinstance(given.get("q_pos"), FactoredPositions):
        few["q_pos"] = given["q_pos"].full()
    if given.get("q_pos") is not None:
        few["q_pos"] = (few["q_pos"] if isinstance(few["q_pos"], torch.Tensor) else few["q_pos"].full())[rows]
    if given.get("k_pos") is not None:
        few["k_pos"] = given["k_pos"][:, rows]
    return few


def finite_gradients(out, inputs):
    gradients = torch.autograd.grad(out.square().sum(), inputs, allow_unused=True)
    assert all(g is None or g.isfinite().all() for g in gradients)
    return gradients


@forms
class TestEveryPath:
    def test_values(self, form):
        q, k, v = units()
        given = arguments(form, without_some([1]))
        out = em.infer_values(q, k, v, **given)
        assert out[:, :, 1].abs().max() == 0
        rows = [0, 2, 3, 4]
        assert_close(out[:, :, rows], em.infer_values(q[:, :, rows], k, v, **subset(given, rows)))
        gradients = finite_gradients(out, [q, k, v])
        assert gradients[0][:, :, 1].abs().max() == 0

    @pytest.mark.parametrize("theta", [0.0, 0.3])
    def test_keys_and_precisions(self, form, theta):
        q, k, _ = units()
        given = arguments(form, without_some([1], unread=[3]))
        rows = [0, 2, 3, 4]
        few = subset(given, rows)
        keys = em.adapt_keys(q, k, prior_precision=theta, iterations=2, **given)
        assert_close(keys[:, :, 3], k[:, :, 3])
        assert_close(keys, em.adapt_keys(q[:, :, rows], k, prior_precision=theta, iterations=2, **few))
        assert finite_gradients(keys, [q, k])[0][:, :, 1].abs().max() == 0
        precisions = em.adapt_precisions(q, k, shape=1.0, rate=2.0, **given)
        assert_close(precisions, em.adapt_precisions(q[:, :, rows], k, shape=1.0, rate=2.0, **few))
        finite_gradients(precisions.log(), [q, k])

    def test_clicks(self, form):
        q, k, v = units()
        given = arguments(form, without_some([1]))
        values = randn(2, 2, 2, D, seed=5).requires_grad_()
        clicks = {"beta": 0.2, **given}
        args = (torch.tensor([1, 3]), values)
        means = em.propagate_values(q, k, v, *args, prior_precision=0.5, iterations=2, **clicks)
        alone = em.propagate_values(q, k, v, args[0][1:], values[:, :, 1:], prior_precision=0.5, iterations=2, **clicks)
        assert_close(means, alone)
        assert finite_gradients(means, [q, k, v, values])[3][:, :, 0].abs().max() == 0
        found = em.adapt_value_precisions(q, k, v, *args, shape=1.0, rate=2.0, **clicks)
        alone = em.adapt_value_precisions(q, k, v, args[0][1:], values[:, :, 1:], shape=1.0, rate=2.0, **clicks)
        assert_close(found, alone)
        finite_gradients(found.log(), [q, k, v, values])
        for concentration in (1.0, 1.5):
            log_pi = em.adapt_mixing_weights(q, k, v, *args, concentration=concentration, **clicks)
            assert log_pi[:, :, 0].isneginf().all()
            assert_close(log_pi[:, :, 1].exp().sum(-1), torch.ones(2, 2, dtype=torch.float64))
            own = em.infer_fixed(q, k, v, args[0], log_pi, alpha=given["alpha"])
            assert own[:, :, 0].abs().max() == 0
            finite_gradients(own, [q, k, v, values])


def test_attention_agrees_without_a_kernel(monkeypatch):
    q, k, v = units()
    mask = without_some([0, 4])
    found = []
    for has_kernel in (True, False):
        monkeypatch.setattr(attention, "_has_kernel", lambda q, mask, has=has_kernel: has)
        out, lse = attend(q, k, v, 0.7, mask=mask, key_bias=randn(2, 2, N))
        assert lse[:, :, [0, 4]].isneginf().all()
        found.append((out, lse, torch.autograd.grad(out.sum() + lse[:, :, 1:4].sum(), [q, k, v])))
    assert_close(*found)


def test_doubly_normalized():
    q, k, v = units()
    mask = without_some([2], unread=[0])
    out = em.doubly_normalize(q, k, v, alpha=0.5, mask=mask)
    scores = 0.5 * q @ k.mT + mask
    weights = torch.where(mask.isneginf(), 0, scores.exp())
    weights = weights / weights.sum(-2, keepdim=True).clamp(min=1e-300)
    assert_close(out, (weights / weights.sum(-1, keepdim=True).clamp(min=1e-300)) @ v)
    assert out[:, :, 2].abs().max() == 0
    finite_gradients(out, [q, k, v])


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=["-".join([name, *options]) for name, options in VARIANTS])
@settings(max_examples=6, deadline=None)
@given(
    blind=st.sets(st.integers(0, 5), max_size=6), causal=st.booleans(), additive=st.booleans(), seed=st.integers(0, 9)
)
def test_mixers_with_masks(name, options, blind, causal, additive, seed):
    """Rows of False or -inf, alone or together with causality; up to everybody being blind."""
    torch.manual_seed(seed)
    mixer = az.create_mixer(name, 12, 2, grid=(2, 3), dtype=torch.float64, **options)
    x = randn(2, 6, 12, seed=seed).requires_grad_()
    mask = torch.rand(6, 6) < 0.6
    mask = mask | torch.eye(6, dtype=torch.bool)
    mask[list(blind)] = False
    whole = mask & torch.ones_like(mask).tril() if causal else mask
    given = torch.zeros(6, 6, dtype=torch.float64).masked_fill(~mask, -torch.inf) if additive else mask
    q, k, v = mixer.project(x)
    mixed = mixer.mix_masked(q, k, v, given, causal)
    assert mixed.isfinite().all()
    assert mixed[:, :, list(blind)].abs().sum() == 0
    (gradient,) = torch.autograd.grad(mixed.square().sum(), x, retain_graph=True)
    assert gradient.isfinite().all()
    assert_close(mixed, mixer.mix_masked(q, k, v, whole, False))
    assert_close(mixer(x, attn_mask=given, is_causal=causal), mixer.proj(mixed.transpose(1, 2).flatten(2)))


class TestUnitsThatThereAreNot:
    def propagate(self, index, mask=None, values=None):
        q, k, v = (x[:, :, :3] for x in units())
        values = randn(2, 2, index.shape[-1], D) if values is None else values
        return em.propagate_values(q, k, v, index, values, alpha=1.0, beta=0.1, prior_precision=1.0, fixed_mask=mask)

    @pytest.mark.parametrize("index", [[7], [3], [-1], [0, -4], [[0], [3]], [[-1], [2]]])
    def test_are_refused_by_number(self, index):
        wrong = next(i for i in torch.tensor(index).flatten().tolist() if not 0 <= i < 3)
        with pytest.raises(az.InputError, match=f"fixed_index {wrong} is none of the 3 units, 0 to 2"):
            self.propagate(torch.tensor(index))

    def test_types_are_refused(self):
        for index in (torch.tensor([1.0]), torch.tensor([True]), torch.tensor(1), torch.tensor([1j])):
            with pytest.raises(az.InputError, match="fixed_index .* must be integers"):
                self.propagate(index if index.dim() else index, values=randn(2, 2, 1, D))

    def test_every_function_refuses_them(self):
        q, k, v = units()
        index, values, shared = torch.tensor([N]), randn(2, 2, 1, D), {"alpha": 1.0, "beta": 0.1}
        calls = [
            lambda: em.adapt_value_precisions(q, k, v, index, values, shape=1.0, rate=1.0, **shared),
            lambda: em.adapt_mixing_weights(q, k, v, index, values, **shared),
            lambda: em.infer_fixed(q, k, v, index, randn(2, 2, 1, N), **shared),
        ]
        for call in calls:
            with pytest.raises(az.InputError, match=f"fixed_index {N} is none of the {N} units"):
                call()

    def test_padding_may_hold_anything(self):
        index, mask = torch.tensor([[1, -1, 99], [0, 2, 0]]), torch.tensor([[True, False, False], [True, True, False]])
        values = randn(2, 2, 3, D)
        plain = self.propagate(index.masked_fill(~mask, 0), mask, values)
        empty = values.masked_fill(~mask[:, None, :, None], torch.nan).requires_grad_()
        found = self.propagate(index, mask, empty)
        assert_close(found, plain)
        finite_gradients(found, [empty])

    @pytest.mark.parametrize("concentration", [None, 1.5])
    def test_padding_of_a_mixer(self, concentration):
        """An entry that does not count leaves alone the clicked unit whose index it repeats."""
        options = {"value_propagation": 2, "beta": 0.2, "mixing_concentration": concentration}
        mixer = az.create_mixer("Probabilistic", 2 * D, 2, dtype=torch.float64, **options)
        q, k, v = units()
        values = randn(2, 2, 1, D)
        alone = mixer.mix(q, k, v, az.FixedValues(torch.tensor([2]), values))
        for pad in (2, 0, -1, 99):
            padded = torch.cat((values, torch.full_like(values, torch.nan)), 2)
            mask = torch.tensor([[True, False]] * 2)
            assert_close(mixer.mix(q, k, v, az.FixedValues(torch.tensor([2, pad]), padded, mask)), alone)
        with pytest.raises(az.InputError, match="fixed_index 99"):
            mixer.mix(q, k, v, az.FixedValues(torch.tensor([99]), values))

    def test_lines_refuse_them(self):
        options = {"value_propagation": 1, "beta": 0.2}
        mixer = az.Axial(2 * D, 2, grid=(1, N), mixer=functools.partial(az.MIXERS["Probabilistic"], **options))
        q, k, v = (x.float() for x in units())
        for index in (-1, N):
            with pytest.raises(az.InputError, match=f"fixed_index {index} is none"):
                mixer.mix_along("width", q, k, v, az.FixedValues(torch.tensor([index]), randn(2, 2, 1, D).float()))

    def test_compiled_they_do_not_count(self):
        q, k, v = (x.detach()[:, :, :3] for x in units())
        values = randn(2, 2, 2, D)

        def propagate(index):
            shared = {"alpha": 1.0, "beta": 0.1, "prior_precision": 1.0}
            return em.propagate_values(q, k, v, index, values, **shared)

        compiled = torch.compile(propagate, fullgraph=True, backend="eager")
        mask = torch.tensor([[True, False]] * 2)
        assert_close(compiled(torch.tensor([1, 7])), self.propagate(torch.tensor([1, 0]), mask, values).detach())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, "1", True, None, 1j, 10**400])
@pytest.mark.parametrize("name", ["alpha", "beta", "prior_precision", "shape", "rate", "concentration", "iterations"])
def test_numbers_that_are_none(name, value):
    q, k, v = units()
    index, values = torch.tensor([1]), randn(2, 2, 1, D)
    calls = {
        "alpha": lambda: em.infer_values(q, k, v, alpha=value),
        "beta": lambda: em.infer_values(q, k, v, alpha=1.0, beta=value),
        "prior_precision": lambda: em.adapt_keys(q, k, alpha=1.0, prior_precision=value),
        "shape": lambda: em.adapt_precisions(q, k, alpha=1.0, shape=value, rate=1.0),
        "rate": lambda: em.adapt_precisions(q, k, alpha=1.0, shape=2.0, rate=value),
        "concentration": lambda: em.adapt_mixing_weights(
            q, k, v, index, values, alpha=1.0, beta=1.0, concentration=value
        ),
        "iterations": lambda: em.adapt_keys(q, k, alpha=1.0, iterations=value),
    }
    with pytest.raises(az.InputError, match=f"{name}="):
        calls[name]()
