import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from attention_zoo.errors import InputError
from attention_zoo.functional import attention
from attention_zoo.functional.attention import attend
from attention_zoo.functional.em import adapt_keys, infer_values
from attention_zoo.functional.random_features import kernel_factors, log_features, orthogonal_directions
from attention_zoo.functional.sparse import largest_eigenvalue, lista, lista_path, mean_code_jacobian, soft_threshold
from tests.reference import naive


def heads(*widths, batch=2, num_heads=2, seed=0, tokens=None, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    tokens = tokens or [7] * len(widths)
    return [
        (scale * torch.randn(batch, num_heads, n, d, dtype=torch.float64, generator=generator)).requires_grad_()
        for n, d in zip(tokens, widths, strict=True)
    ]


class TestAttend:
    @settings(max_examples=20, deadline=None)
    @given(n=st.integers(1, 40), m=st.integers(1, 40), d=st.integers(1, 9), e=st.integers(1, 9))
    def test_values_and_logsumexp_of_any_shape(self, n, m, d, e):
        q, k, v = heads(d, d, e, tokens=[n, m, m])
        out, lse = attend(q, k, v, 0.7)
        scores = 0.7 * q @ k.mT
        assert_close(out, scores.softmax(-1) @ v)
        assert_close(lse, scores.logsumexp(-1))

    @pytest.mark.parametrize("wanted", ["values", "logsumexp", "both"])
    @pytest.mark.parametrize("width", [3, 5, 8])
    def test_gradients(self, wanted, width):
        pick = {"values": lambda o: o[0], "logsumexp": lambda o: o[1], "both": lambda o: o}[wanted]
        inputs = heads(5, 5, width, tokens=[4, 6, 6])
        assert torch.autograd.gradcheck(lambda q, k, v: pick(attend(q, k, v, 0.7)), inputs)

    def test_same_without_a_fused_kernel(self, monkeypatch):
        q, k, v = heads(5, 5, 3)
        fused = attend(q, k, v, 0.7)
        monkeypatch.setattr(attention, "_has_kernel", lambda q, mask: False)
        assert_close(attend(q, k, v, 0.7), fused)


class TestKeyAdaptation:
    @pytest.mark.parametrize("theta", [0.0, 0.3])
    @pytest.mark.parametrize("iterations", [0, 1, 3])
    @pytest.mark.parametrize("anchor", ["current", "initial"])
    @pytest.mark.parametrize("magnitude_prior", [True, False])
    def test_equals_equation_18(self, theta, iterations, anchor, magnitude_prior):
        q, k, probe = heads(5, 5, 5, tokens=[7, 6, 6])
        args = {"alpha": 0.6, "iterations": iterations, "anchor": anchor, "magnitude_prior": magnitude_prior}
        fast = adapt_keys(q, k, prior_precision=theta, **args)
        slow = naive.adapt_keys(q, k, theta=theta, **args)
        assert_close(fast, slow, rtol=1e-10, atol=1e-10)
        if iterations:
            wrt = [q, k]
            gradients = [torch.autograd.grad((keys * probe).sum(), wrt) for keys in (fast, slow)]
            assert_close(*gradients, rtol=1e-9, atol=1e-10)

    @pytest.mark.parametrize("theta", [0.0, 0.3])
    @pytest.mark.parametrize("magnitude_prior", [True, False])
    def test_gradcheck(self, theta, magnitude_prior):
        q, k = heads(3, 3, batch=1, tokens=[4, 5])
        args = {"alpha": 0.6, "prior_precision": theta, "iterations": 2, "magnitude_prior": magnitude_prior}
        assert torch.autograd.gradcheck(lambda q, k: adapt_keys(q, k, **args), (q, k))

    def test_maximum_likelihood_is_doubly_normalised_attention(self):
        q, k = heads(5, 5)
        once = (0.6 * q @ k.mT).softmax(-1)
        twice = once / once.sum(-2, keepdim=True)
        assert_close(adapt_keys(q, k, alpha=0.6), twice.mT @ q)

    def test_firm_prior_keeps_the_keys(self):
        q, k = heads(5, 5)
        assert_close(adapt_keys(q, k, alpha=0.6, prior_precision=1e12), k, rtol=0, atol=1e-9)

    def test_likelihood_rises_with_every_step(self):
        q, k = heads(4, 4, tokens=[40, 12], scale=2.0)
        likelihoods = []
        for iterations in range(6):
            xi = adapt_keys(q, k, alpha=1.0, iterations=iterations, magnitude_prior=False)
            log_joint = -torch.cdist(q, xi).square() / 2
            likelihoods.append(log_joint.logsumexp(-1).sum().item())
        assert likelihoods == sorted(likelihoods)
        assert likelihoods[-1] > likelihoods[0] + 1

    @pytest.mark.parametrize("magnitude_prior", [True, False])
    def test_value_inference(self, magnitude_prior):
        q, k, v = heads(5, 5, 3, tokens=[7, 6, 6])
        expected = naive.responsibilities(q, k, 0.6, magnitude_prior) @ v
        assert_close(infer_values(q, k, v, alpha=0.6, magnitude_prior=magnitude_prior), expected)

    @pytest.mark.parametrize(
        ("argument", "value"),
        [("alpha", 0.0), ("prior_precision", -1.0), ("iterations", -1), ("anchor", "initail")],
    )
    def test_refuses_by_name(self, argument, value):
        q, k = heads(5, 5)
        with pytest.raises(InputError, match=argument):
            adapt_keys(q, k, **{"alpha": 0.6, argument: value})


class TestRandomFeatures:
    def test_directions_are_orthogonal_in_blocks(self):
        w = orthogonal_directions(2, 6, 15)
        assert w.shape == (2, 6, 15)
        gram = w[0, :, :6].T @ w[0, :, :6]
        assert_close(gram, torch.diag(gram.diagonal()), rtol=0, atol=1e-4)

    def test_directions_have_no_preferred_side(self):
        torch.manual_seed(0)
        w = orthogonal_directions(1, 4, 40_000)[0]
        for start in range(4):
            assert w[:, start::4].mean(1).abs().max() < 0.05
        assert_close(w @ w.T / 40_000, torch.eye(4), rtol=0, atol=0.03)

    def test_many_features_approach_the_kernel(self):
        torch.manual_seed(0)
        q, k = (x.detach() for x in heads(4, 4, scale=0.3))
        w = orthogonal_directions(2, 4, 40_000).double()
        kernel = log_features(q, w).exp() @ log_features(k, w).exp().mT
        assert_close(kernel, (q @ k.mT).exp(), rtol=0.05, atol=0)

    def test_factors_never_overflow(self):
        torch.manual_seed(0)
        q, k = (x.detach().float() for x in heads(4, 4, scale=40.0))
        w = orthogonal_directions(2, 4, 8)
        phi_q, phi_k = kernel_factors(q, k, w)
        assert (phi_q @ phi_k.sum(-2)[..., None]).min() >= 1


class TestSparseReconstruction:
    def problem(self, seed=0):
        torch.manual_seed(seed)
        atoms = torch.rand(2, 3, 30, 8, dtype=torch.float64)
        atoms = atoms / atoms.norm(dim=-2, keepdim=True)
        values = torch.randn(2, 3, 30, 4, dtype=torch.float64)
        return atoms, values, atoms.mT @ atoms, atoms.mT @ values

    def test_energy_falls_with_every_step(self):
        atoms, values, gram, drive = self.problem()
        lam = 0.3
        path = lista_path(gram, drive, lam=lam, step_size=1 / largest_eigenvalue(gram), steps=30)
        energies = [((atoms @ u - values).square().sum() / 2 + lam * u.abs().sum()).item() for u in path]
        assert energies == sorted(energies, reverse=True)
        assert energies[-1] < energies[0]

    def test_converges_to_the_minimum(self):
        _, _, gram, drive = self.problem()
        lam = 0.3
        u = lista(gram, drive, lam=lam, step_size=1 / largest_eigenvalue(gram), steps=5000)
        gradient = gram @ u - drive
        assert_close(gradient[u != 0], -lam * u[u != 0].sign(), rtol=1e-6, atol=1e-6)
        assert gradient[u == 0].abs().max() <= lam + 1e-9
        assert (u == 0).any()

    def test_one_step_from_the_drive_without_sparsity(self):
        _, _, gram, drive = self.problem()
        assert_close(lista(gram, drive, lam=0.0, step_size=0.1, steps=1), drive - 0.1 * (gram @ drive - drive))

    def test_no_steps_is_the_drive(self):
        _, _, gram, drive = self.problem()
        assert_close(lista(gram, drive, lam=0.3, step_size=0.1, steps=0), drive)

    def test_eigenvalue_is_a_tight_upper_bound(self):
        _, _, gram, _ = self.problem()
        exact = torch.linalg.eigvalsh(gram)[..., -1:, None]
        bound = largest_eigenvalue(gram)
        assert (bound >= exact * (1 - 1e-12)).all()
        assert_close(bound, exact, rtol=1e-3, atol=0)

    def test_eigenvalue_has_its_gradient(self):
        _, _, gram, _ = self.problem()
        gram = gram[0].requires_grad_()
        exact = torch.linalg.eigvalsh(gram)[..., -1]
        gradients = [torch.autograd.grad(x.sum(), gram)[0] for x in (largest_eigenvalue(gram, 30), exact)]
        assert_close(*gradients)

    def test_threshold(self):
        x = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0])
        assert_close(soft_threshold(x, 1.0), torch.tensor([-1.0, 0.0, 0.0, 0.0, 1.0]))

    def test_jacobian_is_that_of_autograd(self):
        _, _, gram, drive = self.problem()
        gram, drive = gram[:1, :1], drive[:1, :1]
        args = {"lam": 0.5, "step_size": 1 / largest_eigenvalue(gram), "steps": 3}
        full = torch.autograd.functional.jacobian(lambda d: lista(gram, d, **args), drive)[0, 0, :, :, 0, 0]
        expected = torch.stack([full[:, c, :, c] for c in range(drive.shape[-1])]).mean(0)
        assert_close(mean_code_jacobian(gram, drive, **args)[0, 0], expected)
