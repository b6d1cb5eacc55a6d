"""Energy attention, oscillators, primal attention and robust principal components beside their naive forms."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

import attention_zoo as az

DIM, HEADS = 12, 2


def build(name, dim=DIM, **options):
    torch.manual_seed(0)
    return az.create_mixer(name, dim, HEADS, dtype=torch.float64, **options).eval()


def draw(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def heads(number, width=DIM // HEADS):
    return draw(3, 2, HEADS, number, width).unbind()


same = partial(assert_close, rtol=1e-10, atol=1e-10)


class TestEnergyTransformer:
    def energy(self, mixer, x):
        total = 0
        for head in range(HEADS):
            rows = slice(head * mixer.head_dim, (head + 1) * mixer.head_dim)
            q, k = (F.linear(x, part.weight[rows], part.bias[rows]) for part in (mixer.query, mixer.key))
            total = total - (q @ k.mT * mixer.scale).logsumexp(-1).sum(-1) / mixer.scale
        return total

    @pytest.mark.parametrize("number", [1, 7, 30])
    def test_is_minus_the_gradient_of_the_energy(self, number):
        mixer, x = build("EnergyTransformer", qkv_bias=True), draw(2, number, DIM).requires_grad_()
        energy = self.energy(mixer, x)
        same(mixer.energy(x), energy)
        same(mixer(x), -torch.autograd.grad(energy.sum(), x)[0])

    def test_both_sides_as_the_paper_writes_them(self):
        mixer, x = build("EnergyTransformer"), draw(2, 7, DIM)
        out = torch.zeros_like(x)
        for head in range(HEADS):
            w_q, w_k = (part.weight.unflatten(0, (HEADS, -1))[head] for part in (mixer.query, mixer.key))
            q, k = x @ w_q.T, x @ w_k.T
            weights = (q @ k.mT * mixer.scale).softmax(-1)
            out = out + weights @ k @ w_q + weights.mT @ q @ w_k
        same(mixer(x), out)

    @pytest.mark.parametrize("seed", range(5))
    def test_energy_falls(self, seed):
        mixer, x = build("EnergyTransformer", qkv_bias=True), 3 * draw(2, 11, DIM, seed=seed)
        with torch.no_grad():
            energies = [mixer.energy(x)]
            for _ in range(20):
                x = x + 0.05 * mixer(x)
                energies.append(mixer.energy(x))
        assert (torch.stack(energies).diff(dim=0) < 0).all()
        assert mixer.premise_measures(*mixer.project(x))["energy of a token"].holds.all()

    def test_one_token_is_drawn_to_what_it_asks_for(self):
        mixer, x = build("EnergyTransformer"), draw(1, 1, DIM)
        same(mixer(x), mixer.key(x) @ mixer.query.weight + mixer.query(x) @ mixer.key.weight)


class Symmetric(az.SelfMixer):
    """A coupling J = K Kᵀ, the same in both directions."""

    reading, paper, equation, complexity = "symmetric", "this test", "K Kᵀ V", "N²"

    def mix(self, q, k, v):
        return k @ k.mT @ v / k.shape[2]


def turned(x, pull, omega, gamma):
    out = torch.empty_like(x)
    width = omega.shape[-1]
    for group in range(x.shape[-1] // width):
        part = slice(group * width, (group + 1) * width)
        for head in range(HEADS):
            state, y = x[:, head, :, part], pull[:, head, :, part]
            moved = y - (y * state).sum(-1, keepdim=True) * state
            moved = moved + state @ (omega[head, group] - omega[head, group].T).T
            moved = state + gamma * moved
            out[:, head, :, part] = moved / moved.norm(dim=-1, keepdim=True)
    return out


class TestKuramoto:
    @pytest.mark.parametrize(("width", "steps"), [(2, 1), (3, 4), (6, 2)])
    def test_naive_form(self, width, steps):
        mixer, (q, k, v) = build("Kuramoto", steps=steps, width=width, step_size=0.7), heads(7)
        weights = (q @ k.mT / (DIM // HEADS) ** 0.5).softmax(-1)
        groups = v.unflatten(-1, (-1, width))
        x = (groups / groups.norm(dim=-1, keepdim=True)).flatten(-2)
        for _ in range(steps):
            x = turned(x, v + weights @ x, mixer.omega, 0.7)
        same(mixer.mix(q, k, v), x)
        same(x.unflatten(-1, (-1, width)).norm(dim=-1), torch.ones(2, HEADS, 7, DIM // HEADS // width).double())

    def test_energy_falls_where_the_coupling_is_symmetric_and_nothing_rotates_by_itself(self):
        mixer, (q, k, v) = build("Kuramoto", mixer=Symmetric, steps=30, step_size=0.05), heads(9)
        with torch.no_grad():
            mixer.omega.zero_()
            measure = mixer.premise_measures(q, k, v)["energy of an oscillator"]
        assert (measure.values.diff(dim=-1) < 0).all() and measure.holds.all()

    def test_natural_frequencies_alone_turn_without_an_energy(self):
        mixer, v = build("Kuramoto", width=2, steps=1, step_size=1e-3), heads(5)[2]
        x = mixer._unit(v)
        moved = mixer._turned(x, torch.zeros_like(x)) - x
        assert (moved * x).sum(-1).abs().max() < 1e-5 < moved.abs().max()

    def test_any_reading_couples_and_a_grid_is_told_to_it(self):
        mixer = build("Kuramoto", mixer=az.mixers.VarsD, grid=(3, 4))
        assert mixer.tokens == "set" and mixer(draw(2, 12, DIM)).shape == (2, 12, DIM)
        mixer = build("Kuramoto", mixer="VarsS", grid=(3, 4))
        assert mixer.tokens == "grid"
        mixer.set_grid((2, 5))
        assert mixer.inner.grid == (2, 5) and mixer(draw(2, 10, DIM)).shape == (2, 10, DIM)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"width": 4}, "width=4 must divide"),
            ({"mixer": "GatedConv", "grid": (2, 2)}, "no queries"),
            ({"mixer": 3}, "mixer=3"),
            ({"steps": 0}, "steps"),
        ],
    )
    def test_options_that_do_not_fit(self, options, words):
        with pytest.raises(az.InputError, match=words):
            build("Kuramoto", **options)


class TestRobustPCA:
    @pytest.mark.parametrize(
        ("number", "iterations", "sparsity"), [(1, 4, 4.0), (7, 1, 0.5), (7, 4, 0.01), (9, 3, 0.1)]
    )
    def test_released_form_with_multipliers(self, number, iterations, sparsity):
        mixer, (k, _, v) = build("RobustPCA", iterations=iterations, sparsity=sparsity), heads(number)
        mu = number * DIM / 4 / k.norm(p=1, dim=(-1, -2), keepdim=True)
        low, y = torch.zeros_like(k), torch.zeros_like(k)
        for _ in range(iterations):
            s = k - low + y / mu
            s = torch.where(s > sparsity * mu, s - sparsity * mu, torch.where(s < -sparsity * mu, s + sparsity * mu, 0))
            cleaned = k - s - y / mu
            low = (cleaned @ cleaned.mT / (DIM // HEADS) ** 0.5).softmax(-1) @ v
            y = y + mu * (k - low - s)
        same(mixer.mix(k, k, v), low)

    def test_one_round_without_a_sparse_part_is_attention_of_keys_to_keys(self):
        mixer, (k, _, v) = build("RobustPCA", iterations=1, sparsity=1e6), heads(7)
        same(mixer.mix(k, k, v), build("DotProduct").mix(k, k, v))

    def test_keys_of_zeros(self):
        mixer, (_, _, v) = build("RobustPCA"), heads(7)
        k = torch.zeros_like(v).requires_grad_()
        out = mixer.mix(k, k, v)
        out.square().sum().backward()
        assert out.isfinite().all() and k.grad.isfinite().all()

    def test_values_that_are_principal_axes_hold_and_others_are_at_chance(self):
        mixer, (k, _, v) = build("RobustPCA"), heads(30)
        kernel = (k @ k.mT / (DIM // HEADS) ** 0.5).exp()
        centre = torch.eye(30, dtype=torch.float64) - 1 / 30
        axes = torch.linalg.eigh(centre @ kernel @ centre).eigenvectors[..., -DIM // HEADS :]
        name = "values along the axes of the keys"
        same(mixer.premise_measures(k, k, axes)[name].last, torch.ones(2, HEADS).double())
        shares = [mixer.premise_measures(k, k, draw(*v.shape, seed=seed))[name] for seed in range(40)]
        mean = torch.stack([share.last for share in shares]).mean()
        assert abs(mean - shares[0].reference[0, 0]) < 0.03


class TestPrimal:
    @pytest.mark.parametrize("grid", [(1, 1), (3, 4), (5, 7)])
    def test_released_form(self, grid):
        number = grid[0] * grid[1]
        mixer, (q, k, v) = build("Primal", grid=grid, low_rank=3, rank_multi=4), heads(number)
        rows = min(number, 12)
        places = [round(i) for i in torch.linspace(0, number - 1, rows).long().tolist()]
        scores = []
        for x, weight in ((q, mixer.we), (k, mixer.wr)):
            directions = torch.einsum("bhnd,hne->bhde", v[:, :, places], weight)
            scores.append(torch.einsum("bhnd,bhde->bhne", x / x.norm(dim=-1, keepdim=True), directions))
        same(mixer.mix(q, k, v), mixer.concate_weight(torch.cat(scores, -1)))

    def test_in_training_it_has_the_loss_of_the_decomposition(self):
        mixer, x = build("Primal", grid=(3, 4), low_rank=3, eta=0.3), draw(2, 12, DIM)
        probe = draw(2, 12, DIM, seed=5)
        grads = []
        for training in (True, False):
            mixer.train(training).zero_grad()
            out = mixer(x)
            loss = (out * probe).sum()
            if not training:
                left, right = mixer.scores(*mixer.project(x))
                sides = [(side * mixer.Lambda[:, None]).norm(dim=-1).square().mean() / 2 for side in (left, right)]
                trace = torch.einsum("hps,hpd->hsd", mixer.we, mixer.wr).mean(0).trace()
                loss = loss + 0.3 * (sides[0] + sides[1] - trace) ** 2
            loss.backward()
            grads.append([out, *(parameter.grad.clone() for parameter in mixer.parameters())])
        for one, other in zip(*grads, strict=True):
            same(one, other)

    def test_without_the_loss_there_are_no_singular_values(self):
        mixer = build("Primal", grid=(3, 4), eta=0.0).train()
        mixer(draw(2, 12, DIM)).sum().backward()
        assert mixer.Lambda is None and all(p.grad is not None for p in mixer.parameters())
        assert mixer.premise_measures(*heads(12)) == {}

    def test_other_grids_sample_the_same_number_of_tokens(self):
        mixer = build("Primal", grid=(3, 4))
        for grid in ((2, 3), (6, 9)):
            mixer.set_grid(grid)
            assert mixer(draw(1, grid[0] * grid[1], DIM)).isfinite().all()
