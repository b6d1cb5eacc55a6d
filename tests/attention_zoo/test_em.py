"""The probabilistic reading without parameters, against its naive twin and what must hold of it."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from attention_zoo.errors import InputError
from attention_zoo.functional import attention, em, mixture
from attention_zoo.functional.positions import (
    FactoredPositions,
    FactoredPrior,
    distance_prior,
    relative_positions,
    window_prior,
)
from tests.reference import naive_em as naive

B, H, N, M, D, E = 2, 2, 7, 6, 5, 3


def draw(*shape, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return scale * torch.randn(*shape, dtype=torch.float64, generator=generator)


def heads(n=N, m=M, d=D, e=E, batch=B, scale=1.0):
    return tuple(
        draw(batch, H, t, w, scale=scale, seed=s).requires_grad_() for s, (t, w) in enumerate([(n, d), (m, d), (m, e)])
    )


def precisions(m=M, batch=B):
    return (0.3 + draw(batch, H, m, seed=9).abs()).requires_grad_()


def close_with_gradients(fast, slow, inputs, tolerance=1e-10):
    """Same value, and the same gradient in every input."""
    assert_close(fast, slow, rtol=tolerance, atol=tolerance)
    probe = draw(*fast.shape, seed=5)
    gradients = [torch.autograd.grad((x * probe).sum(), inputs, allow_unused=True) for x in (fast, slow)]
    for name, (quick, plain) in enumerate(zip(*gradients, strict=True)):
        zero = torch.zeros_like(inputs[name])
        assert_close(zero if quick is None else quick, zero if plain is None else plain, rtol=1e-8, atol=tolerance)


def extras(kind, n=N, m=M, d=D, e=E):
    """Arguments of one kind beside the plain ones, and the tensors in them."""
    q_pos, k_pos = draw(n, m, d, seed=11).requires_grad_(), draw(m, n, d, seed=12).requires_grad_()
    prior = draw(n, m, seed=13)
    found = {
        "plain": {},
        "q_pos": {"q_pos": q_pos},
        "positions": {"q_pos": q_pos, "k_pos": k_pos},
        "log_prior": {"log_prior": prior},
        "learned_prior": {"log_prior": prior.clone().requires_grad_()},
        "window": {"log_prior": prior.masked_fill((torch.arange(n)[:, None] - torch.arange(m)).abs() > 2, -torch.inf)},
        "prior_of_each": {"log_prior": draw(B, 1, n, m, seed=14)},
        "all": {"q_pos": q_pos, "k_pos": k_pos, "log_prior": prior},
    }[kind]
    return found, [x for x in found.values() if x.requires_grad]


KINDS = ["plain", "q_pos", "positions", "log_prior", "learned_prior", "window", "prior_of_each", "all"]
every_kind = pytest.mark.parametrize("kind", KINDS)
both_priors = pytest.mark.parametrize("magnitude_prior", [True, False])
each_unit = pytest.mark.parametrize("of_each_unit", [False, True])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(mixture, "BLOCK", 3 * B * H * M)  # several blocks, the last one smaller


class TestValueInference:
    @every_kind
    @both_priors
    @each_unit
    @pytest.mark.parametrize("value", ["beta 0", "no v_init", "v_init"])
    def test_equals_the_twin(self, kind, magnitude_prior, of_each_unit, value):
        q, k, v = heads()
        args, inputs = extras(kind)
        inputs = [q, k, v, *inputs]
        args["alpha"] = precisions() if of_each_unit else 0.6
        if value != "beta 0":
            args["beta"] = precisions() * 0.4 if of_each_unit else 0.4
        if value == "v_init":
            args["v_init"] = draw(B, H, N, E, seed=21).requires_grad_()
            inputs.append(args["v_init"])
        args["magnitude_prior"] = magnitude_prior
        close_with_gradients(em.infer_values(q, k, v, **args), naive.infer_values(q, k, v, **args), inputs)

    @both_priors
    @pytest.mark.parametrize(("beta", "conditioned"), [(0.0, False), (0.4, False), (0.4, True)])
    def test_value_positions(self, magnitude_prior, beta, conditioned):
        q, k, v = heads()
        v_pos = draw(N, M, E, seed=15).requires_grad_()
        v_init = draw(B, H, N, E, seed=21) if conditioned else None
        args = {"alpha": 0.6, "beta": beta, "v_init": v_init, "v_pos": v_pos, "magnitude_prior": magnitude_prior}
        close_with_gradients(em.infer_values(q, k, v, **args), naive.infer_values(q, k, v, **args), [q, k, v, v_pos])

    def test_likelihood_of_the_value_rises_with_every_step(self):
        q, k, v = (x.detach() for x in heads(scale=1.5))
        args = {"alpha": 0.5, "beta": 0.8, "magnitude_prior": False}
        value, likelihoods = draw(B, H, N, E, seed=3), []
        for _ in range(8):
            likelihoods.append(naive.log_joint(q, k, 0.5, False, 0.8, v, value).logsumexp(-1).sum().item())
            value = em.infer_values(q, k, v, v_init=value, **args)
        assert likelihoods == sorted(likelihoods)
        assert likelihoods[-1] > likelihoods[0] + 0.1

    def test_plain_form_is_dot_product_attention(self):
        q, k, v = heads()
        expected = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        assert_close(em.infer_values(q, k, v, alpha=D**-0.5), expected, rtol=0, atol=1e-15)


class TestKeyAdaptation:
    @every_kind
    @both_priors
    @each_unit
    @pytest.mark.parametrize("theta", [0.0, 0.3])
    def test_equals_the_twin(self, kind, magnitude_prior, of_each_unit, theta):
        q, k, v = heads()
        args, inputs = extras(kind)
        alpha = precisions() if of_each_unit else 0.6
        args |= {"alpha": alpha, "prior_precision": theta, "magnitude_prior": magnitude_prior, "v": v, "beta": 0.4}
        args |= {"iterations": 2, "anchor": "initial"}
        close_with_gradients(em.adapt_keys(q, k, **args), naive.adapt_keys(q, k, **args), [q, k, *inputs])

    @pytest.mark.parametrize("iterations", [0, 1, 3])
    @pytest.mark.parametrize("anchor", ["current", "initial"])
    def test_iterations_and_anchor(self, iterations, anchor):
        q, k, _ = heads()
        args = {"alpha": 0.6, "prior_precision": 0.3, "iterations": iterations, "anchor": anchor}
        assert_close(em.adapt_keys(q, k, **args), naive.adapt_keys(q, k, **args), rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize("theta", [0.0, 0.3])
    @both_priors
    @each_unit
    def test_gradcheck(self, theta, magnitude_prior, of_each_unit):
        q, k, _ = heads(4, 5, 3, batch=1)
        alpha = precisions(5, 1) if of_each_unit else 0.6
        args = {"alpha": alpha, "prior_precision": theta, "iterations": 2, "magnitude_prior": magnitude_prior}
        assert torch.autograd.gradcheck(lambda q, k: em.adapt_keys(q, k, **args), (q, k))

    def test_maximum_likelihood_is_doubly_normalised_attention(self):
        q, k, _ = heads()
        once = (0.6 * q @ k.mT).softmax(-1)
        twice = once / once.sum(-2, keepdim=True)
        adapted = em.adapt_keys(q, k, alpha=0.6)
        assert_close(adapted, twice.mT @ q)
        assert_close(em.doubly_normalize(k, q, q, alpha=0.6), adapted)

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
    def test_doubly_normalised_attention_of_few_tokens_is_that_of_many(self, dtype, tolerance, monkeypatch):
        inputs = [x.detach().to(dtype).requires_grad_() for x in heads(n=30, m=20, d=8)]
        results = []
        for few in (256, 0):
            monkeypatch.setattr(attention, "FEW", few)
            out = em.doubly_normalize(*inputs, alpha=0.6)
            results.append([out.detach(), *torch.autograd.grad(out.square().sum(), inputs)])
        for ours, theirs in zip(*results, strict=True):
            assert (ours - theirs).norm() <= tolerance * theirs.norm()

    def test_firm_prior_keeps_the_keys(self):
        q, k, _ = heads()
        assert_close(em.adapt_keys(q, k, alpha=0.6, prior_precision=1e12), k, rtol=0, atol=1e-9)

    @pytest.mark.parametrize("theta", [0.0, 0.3])
    @pytest.mark.parametrize("learned", [False, True])
    def test_a_key_that_nobody_may_read_stays(self, theta, learned):
        q, k, v = heads()
        prior = torch.zeros(N, M, dtype=torch.float64)
        prior[:, 2] = -torch.inf
        adapted = em.adapt_keys(q, k, alpha=0.6, prior_precision=theta, log_prior=prior.requires_grad_(learned))
        assert_close(adapted[:, :, 2], k[:, :, 2])
        assert (adapted[:, :, 1] - k[:, :, 1]).abs().min() > 1e-4
        gradients = torch.autograd.grad(adapted.sum(), (q, k))
        assert all(g.isfinite().all() for g in gradients)

    def test_likelihood_rises_with_every_step(self):
        q, k, _ = heads(40, 12, 4, scale=2.0)
        likelihoods = []
        for iterations in range(6):
            xi = em.adapt_keys(q, k, alpha=1.0, iterations=iterations, magnitude_prior=False)
            likelihoods.append(naive.log_joint(q, xi, 1.0, False).logsumexp(-1).sum().item())
        assert likelihoods == sorted(likelihoods)
        assert likelihoods[-1] > likelihoods[0] + 1


class TestPrecisionAdaptation:
    @every_kind
    @both_priors
    @each_unit
    def test_equals_the_twin(self, kind, magnitude_prior, of_each_unit):
        q, k, _ = heads()
        args, inputs = extras(kind)
        args |= {"alpha": precisions() if of_each_unit else 0.6, "shape": 2.0, "rate": 1.5}
        args["magnitude_prior"] = magnitude_prior
        close_with_gradients(em.adapt_precisions(q, k, **args), naive.adapt_precisions(q, k, **args), [q, k, *inputs])

    def test_a_firm_prior_decides(self):
        q, k, _ = heads()
        adapted = em.adapt_precisions(q, k, alpha=0.6, shape=1 + 0.7e9, rate=1e9)
        assert_close(adapted, torch.full_like(adapted, 0.7))

    def test_likelihood_rises_with_keys_and_precisions(self):
        q, k, _ = (x.detach() for x in heads(60, 8, 4, scale=1.5))
        alpha, likelihoods = torch.ones(B, H, 8, dtype=torch.float64), []
        for _ in range(5):
            likelihoods.append(naive.log_joint(q, k, alpha, False).logsumexp(-1).sum().item())
            k = em.adapt_keys(q, k, alpha=alpha, magnitude_prior=False)
            alpha = em.adapt_precisions(q, k, alpha=alpha, shape=1.0, rate=1e-9, magnitude_prior=False)
        assert likelihoods == sorted(likelihoods)


INDEX = torch.tensor([4, 1, 6])
RAGGED = torch.tensor([[4, 1, 6], [0, 0, 2]])
MASK = torch.tensor([[True, True, True], [True, True, False]])


class TestValuePropagation:
    def problem(self):
        return *heads(), draw(B, H, 3, E, seed=31).requires_grad_()

    @every_kind
    @both_priors
    @each_unit
    @pytest.mark.parametrize("condition_on_values", [True, False])
    def test_equals_the_twin(self, kind, magnitude_prior, of_each_unit, condition_on_values):
        q, k, v, values = self.problem()
        args, inputs = extras(kind)
        if kind in ("learned_prior", "window"):
            args["log_prior"] = args["log_prior"][:, :M]
        args |= {"alpha": precisions() if of_each_unit else 0.6, "beta": precisions() if of_each_unit else 0.5}
        args |= {"prior_precision": 0.2, "iterations": 3, "magnitude_prior": magnitude_prior}
        args["condition_on_values"] = condition_on_values
        fast, slow = (f(q, k, v, INDEX, values, **args) for f in (em.propagate_values, naive.propagate_values))
        close_with_gradients(fast, slow, [q, k, v, values, *inputs])

    @pytest.mark.parametrize("anchor", ["current", "initial"])
    @pytest.mark.parametrize("theta", [0.0, 0.2])
    def test_ragged_clicks_and_a_unit_clicked_twice(self, anchor, theta):
        q, k, v, values = self.problem()
        args = {"alpha": 0.6, "beta": 0.5, "prior_precision": theta, "iterations": 2, "anchor": anchor}
        for prior in ({}, {"log_prior": draw(B, 1, N, M, seed=14)}, {"q_pos": draw(N, M, D), "k_pos": draw(M, N, D)}):
            both = [
                f(q, k, v, RAGGED, values, fixed_mask=MASK, **args, **prior)
                for f in (em.propagate_values, naive.propagate_values)
            ]
            close_with_gradients(*both, [q, k, v, values])

    def test_any_type_of_integers(self):
        q, k, v, values = self.problem()
        args = {"alpha": 0.6, "beta": 0.5, "prior_precision": 0.2}
        expected = em.propagate_values(q, k, v, RAGGED, values, fixed_mask=MASK, **args)
        assert_close(em.propagate_values(q, k, v, RAGGED.int(), values, fixed_mask=MASK.float(), **args), expected)

    @pytest.mark.parametrize("theta", [0.0, 0.2])
    def test_nothing_fixed_changes_nothing(self, theta):
        q, k, v, values = self.problem()
        args = {"alpha": 0.6, "beta": 0.5, "prior_precision": theta, "iterations": 2}
        none = em.propagate_values(q, k, v, INDEX, values, fixed_mask=torch.zeros(B, 3).bool(), **args)
        assert_close(none, v)
        assert all(g.isfinite().all() for g in torch.autograd.grad(none.sum(), (q, k, v, values)))
        assert_close(em.propagate_values(q, k, v, INDEX[:0], values[:, :, :0], **args), v, rtol=0, atol=0)

    @pytest.mark.parametrize("theta", [0.0, 0.2])
    def test_a_unit_that_no_clicked_one_may_read_stays(self, theta):
        q, k, v, values = self.problem()
        prior = torch.zeros(N, M, dtype=torch.float64)
        prior[INDEX, 2] = -torch.inf
        args = {"alpha": 0.6, "beta": 0.5, "prior_precision": theta, "iterations": 2, "log_prior": prior}
        means = em.propagate_values(q, k, v, INDEX, values, **args)
        assert_close(means[:, :, 2], v[:, :, 2])
        assert (means[:, :, 3] - v[:, :, 3]).abs().min() > 1e-4
        assert all(g.isfinite().all() for g in torch.autograd.grad(means.sum(), (q, k, v, values)))

    @both_priors
    @pytest.mark.parametrize("scale", [1.0, 30.0])  # far apart: responsibilities of 1e-300 and less
    def test_one_fixed_value_becomes_everybodys(self, magnitude_prior, scale):
        q, k, v = (x.detach() for x in heads(scale=scale))
        value = draw(B, H, 1, E, seed=31)
        args = {"alpha": 0.6, "beta": 0.5, "magnitude_prior": magnitude_prior}
        means = em.propagate_values(q, k, v, torch.tensor([3]), value, prior_precision=0.0, **args)
        assert_close(means, value.expand_as(means))
        assert_close(em.infer_values(q, k, means, **args), value.expand(B, H, N, E))

    def test_clicked_units_return_their_values_the_more_the_larger_beta(self):
        q, k, v = (x.detach() for x in heads(m=N))
        values = v[:, :, INDEX] + draw(B, H, 3, E, scale=0.1, seed=31)  # nearest to the mean of the unit itself
        errors = []
        for beta in (1e2, 1e3, 1e4):
            args = {"alpha": 0.6, "beta": beta, "magnitude_prior": False}
            means = em.propagate_values(q, k, v, INDEX, values, prior_precision=1.0, **args)
            current = draw(B, H, N, E, seed=1).index_copy(2, INDEX, values)
            read = em.infer_values(q, k, means, v_init=current, **args)
            errors.append((read[:, :, INDEX] - values).abs().max().item())
        for earlier, later in itertools.pairwise(errors):
            assert later == pytest.approx(earlier / 10, rel=0.1)

    def test_likelihood_rises_with_every_step(self):
        q, k, v = (x.detach() for x in heads(m=N))
        values = draw(B, H, 3, E, seed=31)
        args, likelihoods = {"alpha": 0.6, "beta": 0.8}, []
        for iterations in range(6):
            rest = {"prior_precision": 0.0, "iterations": iterations, "magnitude_prior": False}
            means = em.propagate_values(q, k, v, INDEX, values, **args, **rest)
            likelihoods.append(naive.propagation_likelihood(q, k, means, INDEX, values, **args).item())
        assert likelihoods == sorted(likelihoods)
        assert likelihoods[-1] > likelihoods[0] + 0.1

    def test_gradcheck(self):
        q, k, v = heads(4, 4, 3, 2, batch=1)
        values = draw(1, H, 3, 2, seed=31).requires_grad_()
        index = torch.tensor([2, 0, 2])
        args = {"alpha": 0.6, "beta": 0.5, "prior_precision": 0.2, "iterations": 2}

        def outputs(q, k, v, values):
            return em.infer_values(q, k, em.propagate_values(q, k, v, index, values, **args), alpha=0.6, beta=0.5)

        assert torch.autograd.gradcheck(outputs, (q, k, v, values))


class TestValueLikelihoods:
    @both_priors
    @each_unit
    @every_kind
    def test_value_precisions(self, kind, magnitude_prior, of_each_unit):
        q, k, v = heads()
        values = draw(B, H, 3, E, seed=31).requires_grad_()
        args, inputs = extras(kind)
        args |= {"alpha": 0.6, "beta": precisions() if of_each_unit else 0.5, "shape": 2.0, "rate": 1.5}
        args |= {"magnitude_prior": magnitude_prior, "fixed_mask": MASK}
        both = [f(q, k, v, RAGGED, values, **args) for f in (em.adapt_value_precisions, naive.adapt_value_precisions)]
        close_with_gradients(*both, [q, k, v, values, *inputs])

    @both_priors
    @pytest.mark.parametrize("concentration", [1.0, 1.5])
    def test_mixing_weights(self, magnitude_prior, concentration):
        q, k, v = heads()
        values = draw(B, H, 3, E, seed=31).requires_grad_()
        args = {"alpha": 0.6, "beta": 0.5, "concentration": concentration, "magnitude_prior": magnitude_prior}
        both = [f(q, k, v, INDEX, values, **args) for f in (em.adapt_mixing_weights, naive.adapt_mixing_weights)]
        close_with_gradients(*both, [q, k, v, values])
        assert_close(both[0].exp().sum(-1), torch.ones(B, H, 3, dtype=torch.float64))


class TestPositions:
    GRID, PREFIX = (2, 3), 1

    def tables(self, width, seed=0):
        return tuple(draw(2 * side - 1, width, seed=seed + side).requires_grad_() for side in self.GRID)

    def factored(self, width, seed=0):
        return FactoredPositions(*self.tables(width, seed), prefix=self.PREFIX)

    def test_factored_ones_are_a_full_table(self):
        factored = self.factored(D)
        table = factored.height[:, None] + factored.width
        full = relative_positions(table, self.GRID, self.PREFIX)
        assert full.shape == (7, 7, D)
        assert_close(factored.full(), full)
        # token 1 is at (0, 0), token 6 at (1, 2)
        assert_close(full[1, 6], factored.height[2] + factored.width[4])
        assert_close(full[6, 1], factored.height[0] + factored.width[0])
        assert full[0].abs().max() == full[:, 0].abs().max() == 0

    @both_priors
    @each_unit
    @pytest.mark.parametrize("value_positions", [False, True])
    @pytest.mark.parametrize("beta", [0.0, 0.4])
    def test_factored_ones_equal_full_ones(self, magnitude_prior, of_each_unit, value_positions, beta):
        q, k, v = heads(7, 7)
        q_pos, k_pos, v_pos = self.factored(D), self.factored(D, 10), self.factored(E, 20)
        tables = [x for p in (q_pos, k_pos) for x in p[:2]] + (list(v_pos[:2]) if value_positions else [])
        found = []
        for view in (lambda p: p, lambda p: p.full()):
            args = {"alpha": precisions(7) if of_each_unit else 0.6, "magnitude_prior": magnitude_prior}
            args |= {"q_pos": view(q_pos), "k_pos": view(k_pos)}
            adapted = em.adapt_keys(q, k, **args)
            v_args = {"v_pos": view(v_pos) if value_positions else None, "beta": beta}
            found.append(em.infer_values(q, adapted, v, **args, **v_args))
        close_with_gradients(*found, [q, k, v, *tables], 1e-9)

    def test_factored_ones_form_no_blocks(self, monkeypatch):
        monkeypatch.setattr(mixture.Joint, "scores", lambda *args: pytest.fail("formed a block"))
        q, k, v = heads(7, 7)
        args = {"alpha": 0.6, "q_pos": self.factored(D), "k_pos": self.factored(D)}
        em.infer_values(q, em.adapt_keys(q, k, **args), v, v_pos=self.factored(E), **args)

    @pytest.mark.parametrize("prefix", [0, 2])
    def test_distance_prior(self, prefix):
        prior = distance_prior((3, 4), 0.7, prefix, like=draw(1))
        places = torch.cartesian_prod(torch.arange(3.0), torch.arange(4.0)).double()
        full = prior.full()
        expected = -0.35 * torch.cdist(places, places).square()
        difference = full[prefix:, prefix:] - expected
        assert_close(difference, torch.zeros_like(difference), rtol=0, atol=1e-12)
        assert full[:prefix].abs().sum() == full[:, :prefix].abs().sum() == 0

    @both_priors
    def test_a_prior_of_features_is_the_full_one(self, magnitude_prior):
        q, k, v = heads()
        features = FactoredPrior(draw(N, 2, seed=1), draw(M, 2, seed=2))
        values = draw(B, H, 3, E, seed=31)
        found = []
        for prior in (features, features.full()):
            args = {"alpha": 0.6, "log_prior": prior, "magnitude_prior": magnitude_prior}
            adapted = em.adapt_keys(q, k, **args)
            means = em.propagate_values(q, adapted, v, INDEX, values, beta=0.3, prior_precision=0.1, **args)
            found.append(em.infer_values(q, adapted, means, **args))
        assert_close(*found)

    @pytest.mark.parametrize("window", [1, 2, 3, 9])
    def test_window(self, window):
        prior = window_prior((3, 4), window, 1, like=draw(1))
        assert prior[0].abs().max() == prior[:, 0].abs().max() == 0
        for i, j in itertools.product(range(12), range(12)):
            near = all(0 <= b - a + window // 2 < window for a, b in zip(divmod(i, 4), divmod(j, 4), strict=True))
            assert prior[1 + i, 1 + j] == (0 if near else -torch.inf)

    def test_reading_in_a_window_is_reading_what_is_in_it(self):
        q, k, v = heads(7, 7)
        prior = window_prior((1, 7), 3, like=q)
        out = em.infer_values(q, k, v, alpha=0.6, log_prior=prior)
        alone = em.infer_values(q[:, :, 3:4], k[:, :, 2:5], v[:, :, 2:5], alpha=0.6)
        assert_close(out[:, :, 3:4], alone)


@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 9), m=st.integers(1, 9), d=st.integers(1, 6), e=st.integers(1, 6), s=st.integers(0, 4))
def test_any_shape(n, m, d, e, s):
    q, k, v = (x.detach() for x in heads(n, m, d, e))
    args = {"alpha": 0.5, "magnitude_prior": False}
    adapted = em.adapt_keys(q, k, **args)
    index, values = torch.arange(s) % n, draw(B, H, s, e)
    means = em.propagate_values(q, adapted, v, index, values, beta=0.5, prior_precision=0.1, **args)
    out = em.infer_values(q, adapted, means, beta=0.5, **args)
    assert out.shape == (B, H, n, e)
    assert out.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_types_are_kept(dtype):
    q, k, v = (x.detach().to(dtype) for x in heads())
    keys = em.adapt_keys(q, k, alpha=0.6, prior_precision=0.1)
    means = em.propagate_values(q, keys, v, INDEX, v[:, :, :3], alpha=0.6, beta=0.5, prior_precision=0.1)
    out = em.infer_values(q, keys, means, alpha=0.6)
    assert keys.dtype == means.dtype == out.dtype == dtype
    assert out.isfinite().all()


class TestRefusals:
    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("alpha", 0.0),
            ("alpha", torch.ones(B, H, M + 1)),
            ("prior_precision", -1.0),
            ("prior_precision", float("nan")),
            ("iterations", -1),
            ("anchor", "initail"),
            ("beta", -0.1),
            ("q_pos", torch.zeros(N, M, D + 1)),
            ("k_pos", torch.zeros(N, M, D)),
            ("q_pos", FactoredPositions(torch.zeros(3, D), torch.zeros(5, D))),
            ("v", torch.zeros(B, H, N, E)),
            ("k", torch.zeros(B, H, M, D + 1).double()),
        ],
    )
    def test_key_adaptation(self, argument, value):
        q, k, _ = heads()
        args = {"k": k, "alpha": 0.6} | {argument: value}
        with pytest.raises(InputError, match=rf"\b{argument}\b"):
            em.adapt_keys(q, **args)

    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("fixed_index", torch.zeros(3)),
            ("fixed_index", torch.zeros(B + 1, 3).long()),
            ("fixed_index", torch.zeros(4).long()),
            ("fixed_values", torch.zeros(B, H, 4, E)),
            ("fixed_mask", torch.ones(B, 4)),
            ("beta", torch.ones(B, H)),
        ],
    )
    def test_propagation(self, argument, value):
        q, k, v = heads()
        args = {"fixed_index": INDEX, "fixed_values": draw(B, H, 3, E), "alpha": 0.6, "beta": 0.5}
        args |= {"prior_precision": 0.1, argument: value}
        named = "fixed_values" if argument == "fixed_index" and value.shape == (4,) else argument
        with pytest.raises(InputError, match=named):
            em.propagate_values(q, k, v, **args)

    def test_gamma_and_dirichlet_priors(self):
        q, k, v = heads()
        with pytest.raises(InputError, match=r"shape=0\.5"):
            em.adapt_precisions(q, k, alpha=0.6, shape=0.5, rate=1.0)
        with pytest.raises(InputError, match="rate=0"):
            em.adapt_precisions(q, k, alpha=0.6, shape=1.5, rate=0.0)
        with pytest.raises(InputError, match=r"concentration=0\.5"):
            em.adapt_mixing_weights(q, k, v, INDEX, draw(B, H, 3, E), alpha=0.6, beta=0.5, concentration=0.5)

    def test_current_values_of_another_width(self):
        q, k, v = heads()
        with pytest.raises(InputError, match="v_init"):
            em.infer_values(q, k, v, alpha=0.6, beta=0.5, v_init=draw(B, H, N, E + 1))


def test_precisions_of_keys_know_nothing_of_values():
    q, k, v = heads()
    for name, value in (("beta", 0.5), ("v", v)):
        with pytest.raises(TypeError, match=name):
            em.adapt_precisions(q, k, alpha=1.0, shape=1.0, rate=1.0, **{name: value})
