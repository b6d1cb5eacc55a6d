"""The mixture's steps: what must fall or rise with each, whatever the other switches are."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attention_zoo as az
from attention_zoo.functional import em, mixture
from attention_zoo.functional.mixture import joint
from attention_zoo.functional.robust import Penalty, infer_robust_values
from tests.attention_zoo.mixture_cases import PENALTIES, B, D, H, N, draw, heads, same, squared


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(mixture, "BLOCK", 3 * B * H * N)  # several blocks, the last one smaller


SETTINGS = {
    "one alpha": {"alpha": 0.6},
    "magnitude": {"alpha": 0.6, "magnitude_prior": True},
    "precise": {"alpha": draw(B, H, N, seed=5).exp()},
    "mixing": {"alpha": 0.6, "log_mixing": draw(B, H, N, seed=6)},
    "prior": {"alpha": 0.6, "log_prior": draw(N, N, seed=7).tril()},
    "metric": {"alpha": 0.6},
    "components": {"alpha": 0.6},
}


@pytest.mark.parametrize("setting", SETTINGS)
class TestEveryStepIsUphill:
    """The likelihood that EM is to raise rises with every step, whatever the other switches are."""

    def units(self, setting):
        terms = {"magnitude_prior": False} | SETTINGS[setting]
        q, k, v = (x.detach() for x in heads(1.5))
        if setting == "metric":
            scale = draw(D, seed=3).abs().sqrt()
            q, k = q * scale, k * scale
        if setting == "components":
            k, v = torch.cat((k, k + 0.3, k - 1), 2), torch.cat((v, v, v), 2)
            terms["alpha"] = torch.cat([torch.full((B, H, N), a, dtype=torch.float64) for a in (0.3, 0.9, 2.0)], -1)
        return q, k, v, terms

    def rises(self, path):
        path = torch.stack(path)
        assert (path.diff(dim=0) > -1e-10).all()
        assert (path[1] - path[0]).max() > 1e-4

    def test_queries(self, setting):
        q, k, _, terms = self.units(setting)
        path = [em.log_likelihood(em.adapt_queries(q, k, iterations=t, **terms), k, **terms) for t in range(5)]
        self.rises(path)

    def test_keys(self, setting):
        q, k, _, terms = self.units(setting)
        if terms["magnitude_prior"]:
            terms["magnitude_prior"] = False  # a prior that depends on the keys is not what Eq. 18 maximises
        path = [em.adapt_keys(q, k, iterations=t, **terms) for t in range(5)]
        self.rises([em.log_likelihood(q, keys, **terms).sum() for keys in path])

    def test_keys_under_a_prior_that_holds_each(self, setting):
        q, k, _, terms = self.units(setting)
        terms["magnitude_prior"] = False
        theta = draw(*k.shape[:3], seed=8).exp()

        def posterior(keys):
            return em.log_likelihood(q, keys, **terms).sum() - (theta / 2 * (keys - k).square().sum(-1)).sum()

        prior = {"prior_precision": theta, "anchor": "initial"}
        self.rises([posterior(em.adapt_keys(q, k, iterations=t, **prior, **terms)) for t in range(5)])

    def test_precisions(self, setting):
        q, k, _, terms = self.units(setting)
        terms["magnitude_prior"] = False
        path = [em.log_likelihood(q, k, **terms).sum()]
        for _ in range(4):  # a flat prior, so that the likelihood alone is raised
            terms["alpha"] = em.adapt_precisions(q, k, shape=1.0, rate=1e-12, **terms)
            path.append(em.log_likelihood(q, k, **terms).sum())
        self.rises(path)

    @pytest.mark.parametrize("of_units", [False, True])
    def test_values(self, setting, of_units):
        q, k, v, terms = self.units(setting)
        beta = draw(*k.shape[:3], seed=4).exp() if of_units else 1.5
        path = [em.infer_values(q, k, v, beta=beta, iterations=t, **terms) for t in range(1, 6)]
        self.rises([em.log_likelihood(q, k, v=v, values=value, beta=beta, **terms) for value in path])

    @pytest.mark.parametrize("kind", PENALTIES)
    def test_penalised_values(self, setting, kind):
        q, k, v, terms = self.units(setting)
        model, eps, gamma, delta = joint(q, k, **terms), 0.05, 2.0, 0.8
        weights = model.scores(slice(None)).softmax(-1)

        def objective(z):
            """The sum over j of w_ij rho(d_ij), where rho' is d times the weight, by quadrature."""
            distances = squared(z, v).sqrt()
            t = torch.linspace(0, 1, 4001, dtype=torch.float64) * distances[..., None]
            d = t + eps
            w = {"l1": 1 / d, "mcp": (1 / d - 1 / gamma).clamp(min=eps), "huber": (delta / d).clamp(max=1)}[kind]
            return (weights * torch.trapezoid(w * t, t, dim=-1)).sum(-1)

        penalty = Penalty(kind, eps, gamma, delta)
        path = [-objective(infer_robust_values(model, v, penalty, steps)) for steps in range(4)]
        assert (torch.stack(path).diff(dim=0) > -1e-6).all()  # of quadrature
        assert (path[1] - path[0]).max() > 1e-4


@pytest.mark.parametrize("magnitude_prior", [False, True])
def test_log_mixing_is_a_prior_that_is_the_same_for_all_queries(magnitude_prior):
    q, k, v = heads()
    log_mixing = draw(B, H, N, seed=6).requires_grad_()
    terms = {"alpha": 0.6, "beta": 0.2, "magnitude_prior": magnitude_prior}
    index, values = torch.tensor([2, 5]), draw(B, H, 2, D, seed=7)
    for read in (
        lambda **prior: em.infer_values(q, k, v, iterations=2, **terms, **prior),
        lambda **prior: em.adapt_keys(q, k, v=v, prior_precision=0.2, iterations=2, **terms, **prior),
        lambda **prior: em.adapt_queries(q, k, v=v, iterations=2, **terms, **prior),
        lambda **prior: em.propagate_values(q, k, v, index, values, prior_precision=0.5, **terms, **prior),
        lambda **prior: em.log_likelihood(q, k, v=v, values=v, **terms, **prior),
    ):
        same(read(log_mixing=log_mixing), read(log_prior=log_mixing[:, :, None]), [q, k, v, log_mixing])
    with pytest.raises(az.InputError, match="log_mixing"):
        em.infer_values(q, k, v, log_mixing=log_mixing[:, :1], **terms)


class TestObjectives:
    @settings(max_examples=15, deadline=None)
    @given(
        number=st.integers(1, 9),
        width=st.integers(1, 6),
        size=st.sampled_from([0.1, 1.0, 10.0]),
        seed=st.integers(0, 9),
    )
    def test_the_l1_objective_falls_with_each_step(self, number, width, size, seed):
        q, k, v = (draw(1, 1, number, width, seed=seed + i, scale=size) for i in range(3))
        weights = (q @ k.mT * width**-0.5).softmax(-1)
        out = []
        for steps in range(6):
            mixer = az.create_mixer("Pro", width, 1, steps=steps, eps=1e-12, dtype=torch.float64)
            out.append((weights * squared(mixer.mix(q, k, v), v).sqrt()).sum(-1))
        assert (torch.stack(out).diff(dim=0) < 1e-9 * max(1, size)).all()

    @settings(max_examples=15, deadline=None)
    @given(
        number=st.integers(1, 9),
        width=st.integers(1, 6),
        size=st.sampled_from([0.1, 1.0, 10.0]),
        seed=st.integers(0, 9),
    )
    def test_hopfield_s_energy_falls_with_each_step(self, number, width, size, seed):
        q, k = (draw(1, 1, number, width, seed=seed + i, scale=size) for i in range(2))
        scale = width**-0.5
        path = [em.adapt_queries(q, k, alpha=scale, iterations=steps) for steps in range(6)]
        energy = [-(scale * x @ k.mT).logsumexp(-1) / scale + x.square().sum(-1) / 2 for x in path]
        assert (torch.stack(energy).diff(dim=0) < 1e-9 * max(1, size**2)).all()
