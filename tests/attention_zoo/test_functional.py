import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from attention_zoo.functional import attention
from attention_zoo.functional.attention import attend
from attention_zoo.functional.dictionaries import gram
from attention_zoo.functional.random_features import kernel_factors, log_features, orthogonal_directions
from attention_zoo.functional.sparse import GELU, SOFT, Lista, largest_eigenvalue, soft_threshold


def heads(*widths, batch=2, num_heads=2, seed=0, tokens=None, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    tokens = tokens or [7] * len(widths)
    return [
        (scale * torch.randn(batch, num_heads, n, d, dtype=torch.float64, generator=generator)).requires_grad_()
        for n, d in zip(tokens, widths, strict=True)
    ]


def test_gram_matrix():
    (weights,) = heads(3, tokens=[4])
    assert_close(gram(weights), weights.mT @ weights)
    assert torch.autograd.gradcheck(gram, (weights,), fast_mode=True)
    assert torch.autograd.gradgradcheck(gram, (weights,), fast_mode=True)


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

    @pytest.mark.parametrize("biased", [False, True])
    @pytest.mark.parametrize("masked", [False, True])
    def test_a_bias_of_each_key_and_a_mask(self, biased, masked):
        q, k, v = heads(5, 5, 3, tokens=[4, 6, 6])
        bias = heads(1, tokens=[6])[0].detach()[..., 0].requires_grad_() if biased else None
        mask = heads(6, tokens=[4])[0].detach()[:1, :1] if masked else None
        scores = 0.7 * q @ k.mT
        if biased:
            scores = scores + bias[..., None, :]
        if masked:
            mask[..., 2, 3:] = -torch.inf
            scores = scores + mask
        out, lse = attend(q, k, v, 0.7, key_bias=bias, mask=mask)
        assert_close(out, scores.softmax(-1) @ v)
        assert_close(lse, scores.logsumexp(-1))

        def outputs(q, k, v, *bias):
            return attend(q, k, v, 0.7, key_bias=bias[0] if biased else None, mask=mask)

        assert torch.autograd.gradcheck(outputs, (q, k, v, bias) if biased else (q, k, v))

    @pytest.mark.parametrize("shape", [(1, 1, 4, 6), (2, 2, 4, 6), (1, 2, 4, 1)])
    def test_a_learned_mask_gets_a_gradient(self, shape):
        q, k, v = heads(5, 5, 3, tokens=[4, 6, 6])
        mask = torch.randn(shape, dtype=q.dtype, generator=torch.Generator().manual_seed(2)).requires_grad_()
        assert torch.autograd.gradcheck(lambda q, k, v, mask: attend(q, k, v, 0.7, mask=mask), (q, k, v, mask))

    def test_any_layout_in_memory(self):
        q, k, v = (x.detach() for x in heads(5, 5, 3))
        turned = [x.mT.contiguous().mT.requires_grad_() for x in (q, k, v)]
        out, lse = attend(*turned, 0.7)
        expected = attend(q, k, v, 0.7)
        assert_close((out, lse), expected)
        rows = [x.clone().requires_grad_() for x in (q, k, v)]
        gradients = [torch.autograd.grad(attend(*x, 0.7)[0].sum(), x) for x in (turned, rows)]  # an expanded gradient
        dense = torch.autograd.grad(((0.7 * rows[0] @ rows[1].mT).softmax(-1) @ rows[2]).sum(), rows)
        assert_close(gradients[0], dense)
        assert_close(gradients[1], dense)

    def test_same_without_a_fused_kernel(self, monkeypatch):
        q, k, v = heads(5, 5, 3)
        fused = attend(q, k, v, 0.7)
        monkeypatch.setattr(attention, "_has_kernel", lambda q, mask: False)
        assert_close(attend(q, k, v, 0.7), fused)


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

    def lista(self, gram, drive, lam, step_size, *args, **how):
        return Lista(lambda codes: codes - step_size * (gram @ codes), drive, lam, step_size, *args, **how)

    def test_energy_falls_with_every_step(self):
        atoms, values, gram, drive = self.problem()
        lam = 0.3
        path = self.lista(gram, drive, lam, 1 / largest_eigenvalue(gram), steps=30).path()
        energies = [((atoms @ u - values).square().sum() / 2 + lam * u.abs().sum()).item() for u in path]
        assert energies == sorted(energies, reverse=True)
        assert energies[-1] < energies[0]

    def test_converges_to_the_minimum(self):
        _, _, gram, drive = self.problem()
        lam = 0.3
        u = self.lista(gram, drive, lam, 1 / largest_eigenvalue(gram), steps=5000).solve()
        gradient = gram @ u - drive
        assert_close(gradient[u != 0], -lam * u[u != 0].sign(), rtol=1e-6, atol=1e-6)
        assert gradient[u == 0].abs().max() <= lam + 1e-9
        assert (u == 0).any()

    def test_one_step_from_the_drive_without_sparsity(self):
        _, _, gram, drive = self.problem()
        once = self.lista(gram, drive, lam=0.0, step_size=0.1, steps=1).solve()
        assert_close(once, drive - 0.1 * (gram @ drive - drive))

    def test_no_steps_is_the_drive(self):
        _, _, gram, drive = self.problem()
        assert_close(self.lista(gram, drive, lam=0.3, step_size=0.1, steps=0).solve(), drive)

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

    @pytest.mark.parametrize("shape", [(3, 4, 2), (3, 1, 1), (4, 1), ()])
    def test_gradient_of_the_threshold(self, shape):
        x = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True)
        threshold = torch.full(shape, 0.4, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(soft_threshold, (x, threshold))
        assert torch.autograd.gradcheck(lambda x: soft_threshold(x, 0.4), (x,))
        one_by_one = torch.func.vmap(torch.func.jacrev(lambda row: soft_threshold(row, 0.4).sum(0)))(x.detach())
        assert_close(one_by_one.sum(1), (x.abs() > 0.4).to(x.dtype).detach())

    @pytest.mark.parametrize("shrinkage", [SOFT, GELU])
    @pytest.mark.parametrize("shrinks_start", [True, False])
    @pytest.mark.parametrize("steps", [0, 3])
    def test_jacobians_are_those_of_autograd(self, shrinkage, shrinks_start, steps):
        _, _, gram, drive = self.problem()
        gram, drive = gram[:1, :1], drive[:1, :1]
        args = (0.5, 1 / largest_eigenvalue(gram), steps, shrinkage, shrinks_start)
        full = torch.autograd.functional.jacobian(lambda d: self.lista(gram, d, *args).solve(), drive)
        expected = torch.stack([full[0, 0, :, c, 0, 0, :, c] for c in range(drive.shape[-1])]).mean(0)
        basis = torch.eye(8, dtype=torch.float64).expand(1, 1, 8, 8)
        jacobians = self.lista(gram, drive, *args).mean_jacobians(basis)
        assert len(jacobians) == steps + 1
        assert_close(jacobians[-1][0, 0], expected)
