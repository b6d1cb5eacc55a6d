"""`Probabilistic`: its options, and values that somebody has fixed."""

import pytest
import torch
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.functional import em
from tests.attention_zoo.test_mixers import DIM, HEADS, build, tokens
from tests.reference import naive_em

INDEX = torch.tensor([4, 1, 6])
ALPHA = (DIM // HEADS) ** -0.5


def heads(mixer, seed=1):
    return mixer.project(2 * tokens(seed=seed))


def clicks(index=INDEX, mask=None, width=DIM // HEADS):
    values = torch.randn(
        2, HEADS, index.shape[-1], width, dtype=torch.float64, generator=torch.Generator().manual_seed(7)
    )
    return az.FixedValues(index, values, mask)


def probabilistic(**options):
    return build("Probabilistic", **options)


class TestFixedValues:
    OPTIONS = {"beta": 0.3, "value_propagation": 3, "value_prior_precision": 0.1, "key_adaptation": 1}

    def test_equal_the_naive_reading(self):
        mixer, fixed = probabilistic(**self.OPTIONS), clicks()
        q, k, v = heads(mixer)
        args = {"alpha": ALPHA, "beta": 0.3}
        keys = naive_em.adapt_keys(q, k, v=v, **args)
        means = naive_em.propagate_values(q, keys, v, *fixed[:2], prior_precision=0.1, iterations=3, **args)
        assert_close(mixer.mix(q, k, v, fixed=fixed), naive_em.infer_values(q, keys, means, **args))

    def test_without_clicks_it_only_reads(self):
        mixer = probabilistic(**self.OPTIONS)
        q, k, v = heads(mixer)
        masked = clicks(INDEX.expand(2, -1), torch.zeros(2, 3, dtype=torch.bool))
        assert_close(mixer.mix(q, k, v, fixed=masked), mixer.mix(q, k, v))
        assert_close(mixer.mix(q, k, v, fixed=clicks(INDEX[:0])), mixer.mix(q, k, v))
        off = probabilistic(beta=0.3, key_adaptation=1)
        assert_close(off.mix(q, k, v, fixed=clicks()), mixer.mix(q, k, v))

    def test_clicks_are_followed_the_more_the_less_firm_the_prior(self):
        distances = []
        for theta in (10.0, 1.0, 0.1, 0.0):
            mixer = probabilistic(**(self.OPTIONS | {"value_prior_precision": theta}))
            q, k, v = heads(mixer)
            value = torch.ones(2, HEADS, 1, DIM // HEADS, dtype=torch.float64)
            out = mixer.mix(q, k, v, fixed=az.FixedValues(torch.tensor([2]), value))
            distances.append((out - 1).abs().mean().item())
        assert distances == sorted(distances, reverse=True)
        assert distances[-1] < 1e-9

    def test_values_of_another_width(self):
        mixer = probabilistic(**self.OPTIONS)
        q, k, v = heads(mixer)
        assert mixer.mix(q, k, v[..., :2], fixed=clicks(width=2)).shape == (2, HEADS, 9, 2)

    @pytest.mark.parametrize(
        "more",
        [
            pytest.param({"value_precision_prior": (2.0, 1.0)}, marks=pytest.mark.slow),
            pytest.param({"mixing_concentration": 1.0}, marks=pytest.mark.slow),
            {"mixing_concentration": 1.2, "value_precision_prior": (2.0, 1.0), "precision_adaptation": 1},
            {"positions": "factored", "mixing_concentration": 1.2},
            {"condition_on_values": False, "anchor": "initial", "window": 3, "magnitude_prior": False},
        ],
        ids=lambda more: "-".join(more),
    )
    def test_further_updates_compile_and_have_gradients(self, more):
        mixer = probabilistic(**self.OPTIONS, **more)
        q, k, v = (x.detach().requires_grad_() for x in heads(mixer))
        fixed = clicks(torch.tensor([[4, 1, 6], [0, 0, 2]]), torch.tensor([[True] * 3, [True, True, False]]))
        plain = probabilistic(**self.OPTIONS)
        out = mixer.mix(q, k, v, fixed=fixed)
        assert (out - plain.mix(q, k, v, fixed=fixed)).abs().max() > 1e-4
        gradients = torch.autograd.grad(out.square().sum(), (q, k, v))
        assert all(g.isfinite().all() and g.abs().max() > 0 for g in gradients)
        compiled = torch.compile(mixer.mix, fullgraph=True, backend="eager")
        assert_close(compiled(q, k, v, fixed=fixed), out)

    def test_clicked_units_read_under_their_own_mixing_weights(self):
        mixer, fixed = probabilistic(**self.OPTIONS, mixing_concentration=1.5), clicks()
        q, k, v = heads(mixer)
        out, plain = mixer.mix(q, k, v, fixed=fixed), probabilistic(**self.OPTIONS).mix(q, k, v, fixed=fixed)
        others = [i for i in range(9) if i not in INDEX]
        assert_close(out[:, :, others], plain[:, :, others])
        args = {"alpha": ALPHA, "beta": 0.3}
        keys = em.adapt_keys(q, k, v=v, **args)
        means = em.propagate_values(q, keys, v, *fixed[:2], prior_precision=0.1, iterations=3, **args)
        log_pi = naive_em.adapt_mixing_weights(q, keys, means, *fixed[:2], concentration=1.5, **args)
        weights = naive_em.normalised(naive_em.log_joint(q[:, :, INDEX], keys, ALPHA, False, log_prior=log_pi))
        assert_close(out[:, :, INDEX], weights @ means)


class TestOptions:
    def test_precision_adaptation(self):
        mixer = probabilistic(precision_adaptation=2, precision_prior=(3.0, 2.0))
        q, k, v = heads(mixer)
        alpha = ALPHA
        for _ in range(2):
            alpha = naive_em.adapt_precisions(q, k, alpha=alpha, shape=3.0, rate=2.0)
        assert_close(mixer.mix(q, k, v), naive_em.infer_values(q, k, v, alpha=alpha))

    def test_default_precision_prior_expects_alpha(self):
        shape, rate = probabilistic().precision_prior
        assert (shape - 1) / rate == pytest.approx(ALPHA)

    @pytest.mark.parametrize("kind", ["factored", "full"])
    def test_positions(self, kind):
        options = {"grid": (2, 4), "num_prefix_tokens": 1, "value_positions": True, "key_adaptation": 1}
        mixer = probabilistic(positions=kind, **options)
        with torch.no_grad():
            for table in mixer.positions.parameters():
                table.mul_(30)
        q, k, v = heads(mixer)
        tables = [mixer.positions[name](torch.float64, mixer.grid) for name in "qkv"]
        q_pos, k_pos, v_pos = (t.full() if kind == "factored" else t for t in tables)
        rest = {"alpha": ALPHA, "q_pos": q_pos, "k_pos": k_pos}
        expected = naive_em.infer_values(q, naive_em.adapt_keys(q, k, **rest), v, v_pos=v_pos, **rest)
        assert_close(mixer.mix(q, k, v), expected)

    def test_factored_positions_are_fewer(self):
        sizes = [
            sum(p.numel() for p in probabilistic(positions=kind).positions.parameters())
            for kind in ("factored", "full")
        ]
        assert sizes == [2 * 10 * DIM // HEADS, 2 * 25 * DIM // HEADS]

    def test_distance_prior_and_window(self):
        mixer = probabilistic(distance_precision=0.4, window=3, num_prefix_tokens=1, grid=(2, 4))
        q, k, v = heads(mixer)
        places = torch.cartesian_prod(torch.arange(2.0), torch.arange(4.0)).double()
        squared = torch.cdist(places, places).square()
        near = (places[:, None] - places).abs().amax(-1) <= 1
        prior = torch.zeros(9, 9, dtype=torch.float64)
        prior[1:, 1:] = (-0.2 * squared).masked_fill(~near, -torch.inf)
        assert_close(mixer.mix(q, k, v), naive_em.infer_values(q, k, v, alpha=ALPHA, log_prior=prior))

    def test_beta_of_the_prior(self):
        mixer = probabilistic(beta=0.5)
        q, k, v = heads(mixer)
        assert_close(mixer.mix(q, k, v), naive_em.infer_values(q, k, v, alpha=ALPHA, beta=0.5))
        assert_close(mixer.map_weights(q, k, v) @ v, mixer.mix(q, k, v))

    @pytest.mark.parametrize(
        ("options", "named"),
        [
            ({"precision_adaptation": -1}, "precision_adaptation"),
            ({"precision_prior": (0.5, 1.0)}, "precision_prior"),
            ({"precision_prior": (1.5, 0.0)}, "precision_prior"),
            ({"beta": -1.0}, "beta"),
            ({"value_propagation": 1}, "beta"),
            ({"value_propagation": -1}, "value_propagation"),
            ({"value_prior_precision": -0.1}, "value_prior_precision"),
            ({"value_precision_prior": (1.0, -1.0)}, "value_precision_prior"),
            ({"mixing_concentration": 0.9}, "mixing_concentration"),
            ({"mixing_concentration": 1.1, "positions": "full", "value_positions": True}, "mixing_concentration"),
            ({"positions": "absolute"}, "positions='absolute'"),
            ({"positions": "full", "grid": None}, "positions='full' needs grid="),
            ({"value_positions": True}, "value_positions"),
            ({"distance_precision": -0.1}, "distance_precision"),
            ({"distance_precision": 0.1, "grid": None}, "distance_precision=0.1 needs grid="),
            ({"window": 0}, "window=0"),
            ({"window": 3, "grid": None}, "window=3 needs grid="),
        ],
    )
    def test_refusals(self, options, named):
        with pytest.raises(az.InputError, match=f"Probabilistic: .*{named}"):
            probabilistic(**options)

    def test_refuses_other_grids_when_it_runs(self):
        for options in ({"window": 2}, {"distance_precision": 0.1}):
            with pytest.raises(az.InputError, match=r"Probabilistic.*grid=\(3, 3\)"):
                probabilistic(**options)(tokens(10))
        with pytest.raises(az.InputError, match="10 tokens"):
            probabilistic(positions="factored")(tokens(10))
