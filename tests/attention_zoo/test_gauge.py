"""What training leaves open between queries and keys, and how key adaptation is told to choose."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.functional import em, mixture
from attention_zoo.functional.gauge import matching, score_spreads, second_moments, towards_keys
from attention_zoo.functional.positions import FactoredPositions
from attention_zoo.mixers.switches import Adapt, Kernel
from tests.reference import naive_em as naive

GRID = (3, 4)
B, H, N, D = 2, 2, 12, 5
ALPHA = 0.6
exactly = {"rtol": 1e-10, "atol": 1e-10}
WAYS = [(gauge, centre) for gauge in ("trained", "moments") for centre in (False, True)]


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def tokens(n=N, m=N):
    """Queries and keys in spaces of their own, and values."""
    return draw(B, H, n, D) @ draw(D, D, seed=3) + 1, draw(B, H, m, D, seed=1) - draw(D, seed=4), draw(B, H, m, 3)


def factored(seed):
    return FactoredPositions(draw(2 * GRID[0] - 1, D, seed=seed), draw(2 * GRID[1] - 1, D, seed=seed + 1))


def positions(kind):
    """Embeddings of queries and keys, none, factored or full, as arguments of the functions."""
    if kind is None:
        return {}
    pair = {"q_pos": factored(20), "k_pos": factored(30)}
    return pair if kind == "factored" else {name: each.full() for name, each in pair.items()}


def in_another_gauge(q, k, terms):
    """The same layer with other vectors: q -> A^T q, k -> A^-1 k, r_q -> A^-1 r_q, r_k -> A^T r_k."""
    a = torch.eye(D, dtype=torch.float64) + 0.4 * draw(D, D, seed=7)
    ways = {"q_pos": a.inverse().mT, "k_pos": a}
    moved = {name: _mapped(terms[name], way) for name, way in ways.items() if name in terms}
    return q @ a, k @ a.inverse().mT, terms | moved


def _mapped(embeddings, way):
    if isinstance(embeddings, FactoredPositions):
        return FactoredPositions(embeddings.height @ way, embeddings.width @ way, embeddings.prefix)
    return embeddings @ way


def adapted_output(q, k, v, terms, *, gauge="trained", centre=False, **how):
    observed = towards_keys(q, k, gauge=gauge, centre=centre)
    keys = em.adapt_keys(q, k, alpha=ALPHA, observed=observed, **how, **terms)
    return em.infer_values(q, keys, v, alpha=ALPHA, **terms)


@pytest.mark.parametrize("kind", [None, "factored", "full"])
class TestGauge:
    def test_the_layer_as_trained_has_none_and_key_adaptation_depends_on_it(self, kind):
        q, k, v = tokens()
        terms = positions(kind)
        other_q, other_k, other_terms = in_another_gauge(q, k, terms)
        plain = em.infer_values(q, k, v, alpha=ALPHA, **terms)
        assert_close(em.infer_values(other_q, other_k, v, alpha=ALPHA, **other_terms), plain, **exactly)
        for centre in (False, True):
            one = adapted_output(q, k, v, terms, centre=centre)
            two = adapted_output(other_q, other_k, v, other_terms, centre=centre)
            assert (one - two).abs().max() > 0.05

    @pytest.mark.parametrize("centre", [False, True])
    @pytest.mark.parametrize("how", [{}, {"iterations": 3}, {"fit_positions": True, "prior_precision": 0.2}])
    def test_matched_moments_adapt_alike_in_all(self, kind, centre, how):
        q, k, v = tokens()
        terms = positions(kind)
        one = adapted_output(q, k, v, terms, gauge="moments", centre=centre, **how)
        other = in_another_gauge(q, k, terms)
        two = adapted_output(other[0], other[1], v, other[2], gauge="moments", centre=centre, **how)
        assert_close(two, one, **exactly)
        assert (one - em.infer_values(q, k, v, alpha=ALPHA, **terms)).abs().max() > 0.05


class TestMaps:
    def test_moments_are_those_of_the_keys(self):
        q, k, _ = tokens()
        moved = towards_keys(q, k, gauge="moments")
        assert_close(second_moments(moved), second_moments(k))
        moved = towards_keys(q, k, gauge="moments", centre=True)
        assert_close(moved.mean(2), k.mean(2))
        assert_close(second_moments(moved - moved.mean(2, keepdim=True)), second_moments(k - k.mean(2, keepdim=True)))

    def test_it_is_the_geometric_mean_symmetric_and_positive(self):
        q, k, _ = tokens()
        found = matching(q, k)
        assert_close(found, found.mT)
        assert torch.linalg.eigvalsh(found).min() > 0
        assert_close(found @ matching(k, q), torch.eye(D, dtype=torch.float64).expand_as(found))
        assert_close(matching(q, 3 * q), 3 * torch.eye(D, dtype=torch.float64).expand_as(found))

    @pytest.mark.parametrize(("gauge", "centre"), WAYS)
    def test_nothing_moves_where_spaces_agree(self, gauge, centre):
        q, _, _ = tokens()
        other = q[:, :, torch.randperm(N, generator=torch.Generator().manual_seed(0))]
        assert_close(towards_keys(q, other, gauge=gauge, centre=centre), q)

    def test_about_equal_means_nothing_is_centred(self):
        q, k, _ = tokens()
        k = k - k.mean(2, keepdim=True) + q.mean(2, keepdim=True)
        assert_close(towards_keys(q, k, centre=True), q)

    def test_tokens_that_fill_few_directions_stay_finite(self):
        flat = torch.randn(1, 1, 64, 2) @ torch.randn(2, 24)
        for q, k in ((flat, torch.randn(1, 1, 64, 24)), (torch.zeros(1, 1, 3, 4), torch.randn(1, 1, 3, 4))):
            moved = towards_keys(q, k, gauge="moments")
            assert moved.isfinite().all()
            assert moved.square().sum(-1).mean() <= 1.01 * k.square().sum(-1).mean()

    @pytest.mark.parametrize(("gauge", "centre"), WAYS)
    def test_gradcheck(self, gauge, centre):
        q, k, _ = (x[:1, :1].clone().requires_grad_() for x in tokens())
        assert torch.autograd.gradcheck(lambda q, k: towards_keys(q, k, gauge=gauge, centre=centre), (q, k))


class TestSpread:
    def test_is_that_of_the_scores_in_any_gauge(self):
        q, k, _ = tokens()
        spreads = score_spreads(q, k, ALPHA)
        scores = ALPHA * (q - q.mean(2, keepdim=True)) @ (k - k.mean(2, keepdim=True)).mT
        assert_close(spreads.square().sum(-1), scores.square().mean((-2, -1)))
        other = in_another_gauge(q, k, {})
        assert_close(score_spreads(other[0], other[1], ALPHA), spreads, **exactly)
        assert_close(score_spreads(q, k, torch.full((B, H, N), ALPHA, dtype=torch.float64)), spreads)

    @pytest.mark.parametrize("magnitude_prior", [True, False])
    def test_keys_that_differ_little_differ_by_as_much_after_a_step(self, magnitude_prior):
        q, _, _ = tokens()
        apart = 1e-5 * draw(B, H, N, D, seed=2)
        apart = apart - apart.mean(2, keepdim=True)
        covariance = second_moments(q - q.mean(2, keepdim=True))
        centre = draw(D, seed=5)
        adapted = em.adapt_keys(q, centre + apart, alpha=ALPHA, magnitude_prior=magnitude_prior)
        expected = q.mean(2, keepdim=True) + ALPHA * apart @ covariance
        assert_close(adapted, expected, rtol=0, atol=1e-3 * (ALPHA * apart @ covariance).abs().max().item())

    def test_below_one_keys_come_together_and_above_they_do_not(self):
        q, k, _ = tokens()
        for size, together in ((0.5, True), (3.0, False)):
            covariance = second_moments(q - q.mean(2, keepdim=True))
            alpha = size / torch.linalg.eigvalsh(covariance)[..., -1].max().item()
            adapted = em.adapt_keys(q, k, alpha=alpha, iterations=60, magnitude_prior=False)
            assert (adapted.var(2).sum() < 1e-9 * k.var(2).sum()) == together


class TestShift:
    @pytest.mark.parametrize("theta", [0.0, 0.3])
    @pytest.mark.parametrize("gauge", ["trained", "moments"])
    def test_of_all_keys_changes_nothing_about_the_means(self, theta, gauge):
        q, k, v = tokens()
        how = {"gauge": gauge, "iterations": 2, "prior_precision": theta}
        shifted = k + draw(D, seed=8)
        one, two = (adapted_output(q, keys, v, {}, centre=True, **how) for keys in (k, shifted))
        assert_close(two, one, **exactly)
        if theta or gauge == "moments":  # else a step forgets where keys were
            one, two = (adapted_output(q, keys, v, {}, **how) for keys in (k, shifted))
            assert (one - two).abs().max() > 1e-3


class TestFittedPositions:
    @pytest.mark.parametrize("magnitude_prior", [True, False])
    @pytest.mark.parametrize("theta", [0.0, 0.4])
    @pytest.mark.parametrize("of_each_unit", [True, False])
    def test_equals_the_sums(self, magnitude_prior, theta, of_each_unit, monkeypatch):
        monkeypatch.setattr(mixture, "BLOCK", 5 * B * H * N)
        q, k, _ = tokens()
        alpha = 0.3 + draw(B, H, N, seed=9).abs() if of_each_unit else ALPHA
        for kind in ("factored", "full"):
            terms = positions(kind)
            whole = positions("full")
            w = naive.normalised(naive.log_joint(q, k, alpha, magnitude_prior, **whole))
            half = (alpha if of_each_unit else torch.full((B, H, N), alpha, dtype=torch.float64)) / 2
            sums = torch.einsum("bhij,bhijd->bhjd", w, 2 * q[:, :, :, None] - whole["q_pos"])
            expected = theta * k + half[..., None] * sums
            expected = expected / (theta + half * w.sum(2))[..., None]
            how = {"magnitude_prior": magnitude_prior, "prior_precision": theta, "fit_positions": True}
            assert_close(em.adapt_keys(q, k, alpha=alpha, **how, **terms), expected, **exactly)

    def test_makes_the_density_of_equation_25_likelier(self):
        q, k, _ = tokens()
        r = positions("full")["q_pos"]

        def expected_log_density(keys):  # sum_ij w_ij log N(q_i | (xi_j + r_ij) / 2, 1 / (2 alpha)), up to a constant
            return -(w * ALPHA * (q[:, :, :, None] - (keys[:, :, None] + r) / 2).square().sum(-1)).sum()

        w = naive.normalised(naive.log_joint(q, k, ALPHA, True, q_pos=r))
        best = em.adapt_keys(q, k, alpha=ALPHA, q_pos=r, fit_positions=True).requires_grad_()
        (slope,) = torch.autograd.grad(expected_log_density(best), best)
        assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-10)
        released = em.adapt_keys(q, k, alpha=ALPHA, q_pos=r)
        assert expected_log_density(best) > expected_log_density(released) + 0.1

    def test_gradcheck(self):
        q, k, _ = (x[:1, :1].clone().requires_grad_() for x in tokens())
        height, width = (x.requires_grad_() for x in factored(20)[:2])

        def keys(q, k, height, width):
            return em.adapt_keys(q, k, alpha=ALPHA, q_pos=FactoredPositions(height, width), fit_positions=True)

        assert torch.autograd.gradcheck(keys, (q, k, height, width))


class TestLayer:
    def build(self, **options):
        torch.manual_seed(0)
        layer = az.create_mixer("Probabilistic", 8, 2, grid=GRID, dtype=torch.float64, **options)
        for table in layer.positions.parameters() if layer.positions else ():
            torch.nn.init.normal_(table)
        return layer

    @pytest.mark.parametrize(("gauge", "centre"), WAYS)
    @pytest.mark.parametrize("kind", [None, "factored"])
    def test_is_the_functions(self, gauge, centre, kind):
        fit = kind is not None
        adapt = Adapt(gauge=gauge, centre=centre, fit_positions=fit)
        layer = self.build(positions=kind, key_adaptation=2, key_prior_precision=0.1, adapt=adapt)
        q, k, v = layer.project(draw(B, N, 8))
        terms = layer._terms(q, None) | {"alpha": layer.alpha}
        how = {"iterations": 2, "prior_precision": 0.1, "fit_positions": fit}
        keys = em.adapt_keys(q, k, observed=towards_keys(q, k, gauge=gauge, centre=centre), **how, **terms)
        assert_close(layer.adapted_keys(q, k, v), keys, **exactly)
        assert_close(layer.mix(q, k, v), em.infer_values(q, keys, v, **terms), **exactly)

    def test_is_switched_as_built_and_back(self):
        plain = self.build(positions="factored", key_adaptation=1)
        built = self.build(positions="factored", key_adaptation=1, adapt=Adapt(gauge="moments", fit_positions=True))
        x = draw(B, N, 8)
        before = plain(x)
        with az.adapted(plain, gauge="moments", fit_positions=True):
            assert torch.equal(plain(x), built(x))
            assert not torch.allclose(plain(x), before)
        assert torch.equal(plain(x), before)
        assert plain.switches.adapt == Adapt()

    def test_layers_without_positions_adapt_as_ever(self):
        layer, x = self.build(key_adaptation=1), draw(B, N, 8)
        before = layer(x)
        with az.adapted(layer, fit_positions=True):
            assert torch.equal(layer(x), before)

    def test_shared_projection_makes_keys_the_queries(self):
        layer = self.build(kernel=Kernel(shared=True), qkv_bias=True, qk_norm=True)
        q, k, _ = layer.project(draw(B, N, 8))
        assert torch.equal(q, k)
        assert layer.qkv.weight.shape == (16, 8)
        assert layer.qkv.bias is not None
        assert not list(layer.k_norm.parameters())

    def test_bad_options(self):
        with pytest.raises(az.InputError, match="adapt.fit_positions=True needs positions"):
            self.build(adapt=Adapt(fit_positions=True))
        layer = self.build()
        for options, message in (
            ({"gauge": "moment"}, "gauge=moment must"),
            ({"centre": 2}, "centre=2"),
        ):
            with pytest.raises(az.InputError, match=message):
                az.set_adaptation(layer, key_adaptation=1, **options)
            assert layer.switches == replace(layer.switches, adapt=Adapt())
            assert layer.key_adaptation == 0
