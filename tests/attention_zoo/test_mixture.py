"""The mixture behind the readings: identities between them, and naive twins in N x N matrices."""

import math

import pytest
import torch
from torch.testing import assert_close

from attention_zoo.functional import em, mixture
from attention_zoo.mixers.switches import Adapt, Kernel, UnitPrior, ValueLikelihood
from tests.attention_zoo.mixture_cases import (
    PENALTIES,
    SCALE,
    B,
    D,
    H,
    N,
    build,
    draw,
    exactly,
    heads,
    mixed,
    same,
    softmax,
    squared,
)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(mixture, "BLOCK", 3 * B * H * N)  # several blocks, the last one smaller


class TestIdentities:
    def test_a_uniform_prior_is_a_gaussian_kernel(self):
        q, k, v = heads()
        out = mixed("Probabilistic", q, k, v, magnitude_prior=False)
        same(out, (SCALE * q @ k.mT - SCALE / 2 * k.square().sum(-1)[..., None, :]).softmax(-1) @ v, [q, k, v])
        assert_close(out, (-SCALE / 2 * squared(q, k)).softmax(-1) @ v, **exactly)
        assert_close(out, mixed("Probabilistic", q, k, v, prior=UnitPrior("uniform")), rtol=0, atol=0)

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("Probabilistic", {}),
            ("Hopfield", {"steps": 0}),
            ("Sinkhorn", {"iterations": 1}),
            ("Elliptical", {}),
            *(("Pro", {"penalty": penalty, "steps": 0}) for penalty in PENALTIES),
            ("Pro", {"penalty": "huber", "delta": 1e9}),
            ("Pro", {"penalty": "huber", "delta": 1e300}),
            ("Pro", {"penalty": "mcp", "gamma": 1e-12}),
        ],
    )
    def test_dot_product(self, name, options):
        q, k, v = heads()
        same(mixed(name, q, k, v, **options), mixed("DotProduct", q, k, v), [q, k, v])

    @pytest.mark.parametrize(
        ("name", "options"),
        [("MixtureOfGaussianKeys", {"components": 1}), ("Probabilistic", {"kernel": Kernel(metric="diagonal")})],
    )
    def test_gaussian_kernel(self, name, options):
        q, k, v = heads()
        options = options | ({"prior": UnitPrior("uniform")} if name == "Probabilistic" else {})
        same(mixed(name, q, k, v, **options), (-SCALE / 2 * squared(q, k)).softmax(-1) @ v, [q, k, v])

    def test_two_half_steps_from_columns_are_doubly_normalised(self):
        q, k, v = heads()
        out = mixed("Sinkhorn", q, k, v, iterations=2, begin="columns")
        same(out, mixed("DoublyNormalized", q, k, v), [q, k, v])

    @pytest.mark.parametrize("source", ["learned", "predicted"])
    @pytest.mark.parametrize("prior", ["magnitude", "uniform", "predicted"])
    def test_what_is_learned_starts_at_the_fixed_numbers(self, source, prior):
        q, k, v = heads()
        start = mixed(
            "Probabilistic", q, k, v, prior=UnitPrior("uniform" if prior == "predicted" else prior), alpha=0.7
        )
        learned = mixed("Probabilistic", q, k, v, kernel=Kernel(alpha=source), prior=UnitPrior(prior), alpha=0.7)
        same(learned, start, [q, k, v])

    @pytest.mark.parametrize("source", ["learned", "predicted"])
    def test_learned_theta_and_beta_start_at_the_fixed_numbers(self, source):
        q, k, v = heads()
        options = {"key_adaptation": 2, "key_prior_precision": 0.3, "beta": 0.2, "magnitude_prior": False}
        fixed = mixed("Probabilistic", q, k, v, value_likelihood=ValueLikelihood(iterations=3), **options)
        likelihood = ValueLikelihood(iterations=3, beta=source)
        out = mixed("Probabilistic", q, k, v, value_likelihood=likelihood, adapt=Adapt(theta=source), **options)
        same(out, fixed, [q, k, v])

    def test_named_mixers_are_settings_of_probabilistic(self):
        q, k, v = heads()
        for name, options, switches in (
            ("Hopfield", {"steps": 2}, {"adapt": Adapt(queries=2)}),
            ("Sinkhorn", {"iterations": 4}, {"adapt": Adapt(half_steps=4)}),
            ("Pro", {"penalty": "mcp", "steps": 2}, {"value_likelihood": ValueLikelihood("mcp", 2)}),
            (
                "MixtureOfGaussianKeys",
                {"components": 3},
                {"kernel": Kernel(components=3), "prior": UnitPrior("uniform")},
            ),
            (
                "RobustKernel",
                {"loss": "hampel"},
                {"kernel": Kernel(unit_keys=True), "prior": UnitPrior("robust", "hampel"), "alpha": 2 * SCALE},
            ),
        ):
            assert_close(mixed(name, q, k, v, **options), mixed("Probabilistic", q, k, v, **switches), rtol=0, atol=0)


class TestNaiveTwins:
    """The papers' formulas in N x N matrices."""

    @pytest.mark.parametrize("steps", [1, 2, 5])
    def test_hopfield(self, steps):
        q, k, v = heads()
        state = q
        for _ in range(steps):
            state = softmax(state, k) @ k
        same(mixed("Hopfield", q, k, v, steps=steps), softmax(state, k) @ v, [q, k, v])

    @pytest.mark.parametrize("begin", ["rows", "columns"])
    @pytest.mark.parametrize("iterations", [1, 2, 3, 6])
    def test_sinkhorn(self, iterations, begin):
        q, k, v = heads()
        log_weights = SCALE * q @ k.mT
        for step in range(iterations):
            dim = -1 if (begin == "rows") == (step % 2 == 0) else -2
            log_weights = log_weights - log_weights.logsumexp(dim, keepdim=True)
        same(mixed("Sinkhorn", q, k, v, iterations=iterations, begin=begin), log_weights.exp() @ v, [q, k, v])

    def test_sinkhorn_in_the_limit_is_doubly_stochastic(self):
        weights = build("Sinkhorn", iterations=301).map_weights(*heads())
        ones = torch.ones(B, H, N, dtype=torch.float64)
        assert_close(weights.sum(-1), ones, **exactly)
        assert_close(weights.sum(-2), ones, rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize("penalty", PENALTIES)
    @pytest.mark.parametrize("through_distance", [False, True])
    def test_pro(self, penalty, through_distance):
        q, k, v = heads()
        eps, gamma, delta = 0.02, 3.0, 0.7
        z = softmax(q, k) @ v
        for _ in range(3):
            distances = (z[:, :, :, None] - v[:, :, None]).norm(dim=-1)
            d = (distances if through_distance else distances.detach()) + eps
            w = {"l1": 1 / d, "mcp": (1 / d - 1 / gamma).clamp(min=eps), "huber": (delta / d).clamp(max=1)}[penalty]
            weights = w * softmax(q, k)
            z = weights / weights.sum(-1, keepdim=True) @ v
        options = {"penalty": penalty, "eps": eps, "gamma": gamma, "delta": delta}
        same(mixed("Pro", q, k, v, distance_gradient=through_distance, **options), z, [q, k, v])

    def test_mixture_of_gaussian_keys(self):
        q, k, v = heads()
        mixer = build("MixtureOfGaussianKeys", components=3)
        with torch.no_grad():
            for parameter in mixer.components.parameters():
                parameter.add_(draw(*parameter.shape, seed=4))
        parts = mixer.components
        alpha = SCALE * torch.nn.functional.softplus(parts.ratio)  # (H, R)
        density = torch.zeros(B, H, N, N, dtype=torch.float64)
        for r in range(3):
            precision = alpha[:, r, None, None]
            gaussian = precision ** (D / 2) * (-precision / 2 * squared(q, k + parts.shift[:, r, None])).exp()
            density = density + parts.share.softmax(-1)[:, r, None, None] * gaussian
        expected = density / density.sum(-1, keepdim=True) @ v
        same(mixer.mix(q, k, v), expected, [q, k, v, *parts.parameters()])

    @pytest.mark.parametrize("loss", ["huber", "hampel"])
    @pytest.mark.parametrize("steps", [0, 1, 3])
    def test_robust_kernel(self, loss, steps):
        q, k, v = heads()
        keys, a = k / k.norm(dim=-1, keepdim=True), 0.4

        def fit(x):
            kernel = (-SCALE * squared(x, x)).exp()
            pi = torch.full((B, H, N, 1), 1 / N, dtype=torch.float64)
            for _ in range(steps):
                h = (1 - 2 * kernel @ pi + pi.mT @ kernel @ pi).sqrt()
                psi = torch.where(h < a, h, torch.full_like(h, a))
                if loss == "hampel":
                    psi = torch.where(h < 2 * a, psi, (3 * a - h).clamp(min=0))
                weight = (psi / h).clamp(min=0.01 if loss == "hampel" else 0)
                pi = weight / weight.sum(-2, keepdim=True)
            return pi.mT

        kernel = (-SCALE * squared(q, keys)).exp()
        above, below = fit(torch.cat((keys, v), -1)) * kernel, fit(keys) * kernel
        expected = above / below.sum(-1, keepdim=True) @ v
        same(mixed("RobustKernel", q, k, v, loss=loss, threshold=a, steps=steps), expected, [q, k, v])

    def test_an_outlier_counts_less_under_a_robust_prior(self):
        q, k, v = (x.detach().clone() for x in heads(0.1))
        k[..., 0] += 3
        k[:, :, 3] *= -1
        weights = build("RobustKernel", steps=5).map_weights(q, k, v)
        plain = build("RobustKernel", steps=0).map_weights(q, k, v)
        assert (weights[..., 3] < 0.7 * plain[..., 3]).all()

    @pytest.mark.parametrize("iterations", [1, 2, 4])
    @pytest.mark.parametrize("of_units", [False, True])
    def test_values_of_several_steps(self, iterations, of_units):
        q, k, v = heads()
        alpha = draw(B, H, N, seed=5).exp() if of_units else 0.6
        beta = draw(B, H, N, seed=6).exp() if of_units else 0.8
        out = em.infer_values(q, k, v, alpha=alpha, beta=beta, magnitude_prior=False, iterations=iterations)
        a, b = (x[:, :, None] if of_units else torch.tensor(x, dtype=torch.float64) for x in (alpha, beta))
        by_keys = a ** (D / 2) * b * (-a / 2 * squared(q, k)).exp()
        weights = by_keys
        for _ in range(iterations):
            expected = weights / weights.sum(-1, keepdim=True) @ v
            weights = by_keys * b ** (D / 2) * (-b / 2 * squared(expected, v)).exp()
        same(out, expected, [q, k, v])


class TestMaskedTwins:
    """The same formulas where some pairs may not read each other, nobody reads one unit, and one query reads nobody."""

    def pieces(self):
        mask = draw(N, N, seed=8)
        mask = mask.masked_fill(draw(N, N, seed=7) > 0.8, -torch.inf)
        mask[:, 2] = -torch.inf
        mask[4] = -torch.inf
        q, k, v = heads()
        return q, k, v, mask, lambda q, k: self.normalised(SCALE * q @ k.mT + mask)

    def normalised(self, scores, dim=-1):
        weights = scores.exp()
        total = weights.sum(dim, keepdim=True)
        return weights / total.masked_fill(total == 0, 1.0)

    def masked(self, name, q, k, v, mask, **options):
        return build(name, **options).mix_masked(q, k, v, mask, False)

    def test_hopfield(self):
        q, k, v, mask, weights = self.pieces()
        state = torch.where(mask.isneginf().all(-1)[:, None], q, weights(q, k) @ k)
        same(self.masked("Hopfield", q, k, v, mask), weights(state, k) @ v, [q, k, v])

    @pytest.mark.parametrize("begin", ["rows", "columns"])
    @pytest.mark.parametrize("iterations", [1, 2, 3, 4])
    def test_sinkhorn(self, iterations, begin):
        q, k, v, mask, _ = self.pieces()
        weights = (SCALE * q @ k.mT + mask).exp()
        for step in range(iterations):
            total = weights.sum(-1 if (begin == "rows") == (step % 2 == 0) else -2, keepdim=True)
            weights = weights / total.masked_fill(total == 0, 1.0)
        same(self.masked("Sinkhorn", q, k, v, mask, iterations=iterations, begin=begin), weights @ v, [q, k, v])

    @pytest.mark.parametrize("through_distance", [False, True])
    def test_pro(self, through_distance):
        q, k, v, mask, weights = self.pieces()
        z = weights(q, k) @ v
        for _ in range(3):
            d = (z[:, :, :, None] - v[:, :, None]).norm(dim=-1)
            w = weights(q, k) / ((d if through_distance else d.detach()) + 0.01)
            total = w.sum(-1, keepdim=True)
            z = w / total.masked_fill(total == 0, 1.0) @ v
        same(self.masked("Pro", q, k, v, mask, distance_gradient=through_distance), z, [q, k, v])

    def test_mixture_of_gaussian_keys(self):
        q, k, v, mask, _ = self.pieces()
        mixer = build("MixtureOfGaussianKeys")
        density = sum((-a / 2 * squared(q, k) + D / 2 * math.log(a) + mask).exp() for a in (SCALE, 3 * SCALE))
        total = density.sum(-1, keepdim=True)
        out = mixer.mix_masked(q, k, v, mask, False)
        same(out, density / total.masked_fill(total == 0, 1.0) @ v, [q, k, v])
