"""Every registered self-mixer, by being registered."""

import copy
import pickle

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.mixers.switches import Adapt, Kernel, UnitPrior, ValueLikelihood
from tests.mixers import CORE, LIKE_OTHERS
from tests.reference import naive, naive_em

SELF = az.list_mixers("self")
DIM, HEADS = 12, 2
ACTIVE = [
    ("Probabilistic", {"key_adaptation": 2, "key_prior_precision": 0.1}),
    ("Probabilistic", {"key_adaptation": 1, "precision_adaptation": 1, "magnitude_prior": False, "window": 3}),
    (
        "Probabilistic",
        {"key_adaptation": 1, "positions": "factored", "value_positions": True, "distance_precision": 0.1},
    ),
    ("Probabilistic", {"positions": "full", "value_positions": True}),
    ("Window", {"window": 2, "shift": 1}),
    ("MixtureOfHeads", {"mixer": "VarsD", "shared": 0, "routed": 2, "topk": 2}),
    ("Linear", {"feature": "focused"}),
    ("Linear", {"feature": "relu", "normaliser": "rms"}),
    ("Linear", {"normaliser": "inline"}),
]
"""Mixers with options that switch on what they leave off by default."""
ACTIVE += [
    ("Probabilistic", options)
    for options in (
        {"kernel": Kernel(alpha="learned", metric="diagonal"), "adapt": Adapt(queries=2), "key_adaptation": 1},
        {"kernel": Kernel(alpha="predicted", components=2), "prior": UnitPrior("predicted")},
        {"value_likelihood": ValueLikelihood(iterations=3, beta="predicted"), "beta": 0.2},
        {"adapt": Adapt(half_steps=4, theta="learned"), "key_adaptation": 1, "key_prior_precision": 0.5},
        {"value_likelihood": ValueLikelihood("mcp", through_distance=True), "positions": "factored"},
    )
]


SMALL = {
    "Window": {"window": 2},
    "VariedSizeWindow": {"window": 2},
    "Routing": {"clusters": 3},
    "Sparsifier": {"keep": 0.5, "reduce_tokens": 2},
    "Neighborhood": {"kernel": 3, "dilation": 2},
}
"""Options of readings whose defaults would see the whole of a grid as small as those here."""


def build(name, dtype=torch.float64, seed=0, grid=(3, 3), **options):
    torch.manual_seed(seed)
    options = SMALL.get(name, {}) | options
    return az.create_mixer(name, DIM, HEADS, dtype=dtype, grid=grid, **options).eval()


def tokens(n=9, batch=2, dtype=torch.float64, seed=1):
    return torch.randn(batch, n, DIM, dtype=dtype, generator=torch.Generator().manual_seed(seed))


MASKED = [name for name in SELF if az.MIXERS[name].mix_masked is not az.SelfMixer.mix_masked]
VARIANTS = [(name, {}) for name in SELF] + ACTIVE
IDS = ["-".join([name, *options]) for name, options in VARIANTS]
every = pytest.mark.parametrize(("name", "options"), VARIANTS, ids=IDS)


@every
class TestEveryMixer:
    def test_keeps_the_shape_for_any_number_of_tokens(self, name, options):
        for grid in ((1, 1), (1, 7), (7, 9)):
            n = grid[0] * grid[1]
            assert build(name, grid=grid, **options)(tokens(n)).shape == (2, n, DIM)

    def test_a_grid_is_never_guessed(self, name, options):
        if build(name, **options).tokens == "set":
            assert build(name, grid=None, **options)(tokens(7)).shape == (2, 7, DIM)
        else:
            with pytest.raises(az.InputError, match=f"{name}.*grid=.height, width."):
                build(name, grid=None, **options)(tokens(7))

    def test_odd_grid_and_prefix_tokens(self, name, options):
        mixer = build(name, grid=(3, 5), num_prefix_tokens=2, **options)
        assert mixer(tokens(17)).shape == (2, 17, DIM)

    def test_empty_batch(self, name, options):
        assert build(name, **options)(tokens(batch=0)).shape == (0, 9, DIM)

    def test_samples_do_not_meet(self, name, options):
        mixer, x = build(name, **options), tokens(batch=3)
        assert_close(mixer(x)[1:2], mixer(x[1:2]))

    def test_permuting_tokens_permutes_the_output_of_a_set(self, name, options):
        mixer, x, order = build(name, **options), tokens(), torch.randperm(9)
        moved = (mixer(x)[:, order] - mixer(x[:, order])).abs().max()
        assert moved < 1e-9 if mixer.tokens == "set" else moved > 1e-9

    def test_gradients(self, name, options):
        x = tokens(4, batch=1).requires_grad_()
        assert torch.autograd.gradcheck(build(name, grid=(2, 2), **options), (x,), fast_mode=True)

    def test_every_parameter_gets_a_gradient(self, name, options):
        mixer = build(name, qkv_bias=True, **options).train()
        mixer(tokens()).square().sum().backward()
        for parameter_name, parameter in mixer.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, parameter_name

    def test_float32_agrees_with_float64(self, name, options):
        double, single = build(name, **options), build(name, torch.float32, **options)
        single.load_state_dict(double.state_dict())
        assert_close(single(tokens().float()), double(tokens()).float(), rtol=1e-4, atol=1e-4)

    def test_bfloat16_autocast(self, name, options):
        mixer = build(name, torch.float32, grid=(4, 4), **options)
        x = tokens(16, dtype=torch.float32).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = mixer(x)
        out.float().square().sum().backward()
        assert out.dtype == (torch.float32 if isinstance(mixer.proj, torch.nn.Identity) else torch.bfloat16)
        assert x.grad.isfinite().all()
        assert_close(out.float(), mixer(x), rtol=0.1, atol=0.1)

    def test_state_copies_and_pickles(self, name, options):
        mixer, x = build(name, **options), tokens()
        other = build(name, seed=5, **options)
        other.load_state_dict(mixer.state_dict())
        for twin in (other, copy.deepcopy(mixer), pickle.loads(pickle.dumps(mixer))):
            assert_close(twin(x), mixer(x), rtol=0, atol=0)

    def test_attention_map_is_the_derivative_by_the_values(self, name, options):
        mixer, x = build(name, grid=(2, 3), **options), tokens(6)
        weights = mixer.attention_map(x)
        assert weights.shape == (2, HEADS, 6, 6)
        assert_close(weights, az.SelfMixer.map_weights(mixer, *mixer.project(x)))

    def test_top_down_signal_is_added_to_the_values(self, name, options):
        mixer, x = build(name, qkv_bias=True, **options), tokens()
        signal = tokens(seed=2)
        q, k, v = mixer.project(x)
        weight = mixer.qkv.weight[-DIM:] if mixer.projections else torch.eye(DIM, dtype=torch.float64)
        shifted = v + (signal @ weight.T).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        expected = mixer.proj(mixer.mix(q, k, shifted).transpose(1, 2).flatten(2))
        assert_close(mixer(x, top_down=signal), expected)
        assert_close(mixer(x, top_down=torch.zeros_like(x)), mixer(x))

    def test_top_down_signal_to_queries_and_keys_too_with_its_bias_and_gated(self, name, options):
        mixer, x, signal = build(name, qkv_bias=True, **options), tokens(), tokens(seed=2)
        with torch.no_grad():
            for parameter in mixer.qkv.parameters():
                parameter.add_(torch.randn_like(parameter))
        q, k, v = mixer.project(x)
        both = mixer.project(x + signal)
        zero = mixer.project(torch.zeros_like(x))
        for bias in (False, True):
            found = mixer.project(x, signal, top_down_to="qkv", top_down_bias=bias)
            expected = [b + z if bias else b for b, z in zip(both, zero, strict=True)]
            assert_close(found, tuple(expected))
            *others, values = mixer.project(x, signal, top_down_bias=bias)
            assert_close(values, expected[2])
            if "q" in mixer.projections:
                assert_close(others, [q, k])
        decoder = torch.randn(DIM, 5, dtype=torch.float64)
        coded = torch.randn(2, 9, 5, dtype=torch.float64)
        assert_close(mixer.project(x, coded, top_down_decoder=decoder), mixer.project(x, coded @ decoder.T))
        gate = torch.rand(2, 9, 1, dtype=torch.float64)
        assert_close(mixer.project(x, value_gate=gate), (q, k, v * gate[:, None]))
        gated = mixer(x, value_gate=gate)
        assert_close(gated, mixer.proj(mixer.norm(mixer.mix(q, k, v * gate[:, None]).transpose(1, 2).flatten(2))))

    def test_norms(self, name, options):
        mixer = build(name, qk_norm=True, scale_norm=True, **options)
        assert mixer(3 * tokens()).isfinite().all()
        mixer.train()(tokens()).square().sum().backward()
        unused = [n for n, p in mixer.named_parameters() if p.grad is None]
        assert not unused


@settings(max_examples=15, deadline=None)
@given(
    name=st.sampled_from(SELF),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    batch=st.integers(1, 3),
    num_heads=st.integers(1, 3),
    head_dim=st.integers(1, 9),
)
def test_any_shape(name, height, width, batch, num_heads, head_dim):
    assume(name != "Differential" or head_dim % 2 == 0)  # it has two maps of half a head each
    mixer = az.create_mixer(name, num_heads * head_dim, num_heads, grid=(height, width))
    x = torch.randn(batch, height * width, num_heads * head_dim)
    out = mixer(x)
    assert out.shape == x.shape
    assert out.isfinite().all()


def compiles(name, options, backend):
    mixer, x = build(name, torch.float32, **options), tokens(dtype=torch.float32)
    torch.compiler.reset()  # all mixers share one forward, which torch compiles a few times at most
    compiled = torch.compile(mixer, fullgraph=True, backend=backend)
    assert_close(compiled(x), mixer(x))


# with options switched on, readings share most of what is compiled; those cases are slow tests
@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param(*variant, id=label, marks=[] if label in CORE and label not in LIKE_OTHERS else [pytest.mark.slow])
        for variant, label in zip(VARIANTS, IDS, strict=True)
    ],
)
def test_compiles_as_one_graph(name, options):
    compiles(name, options, "aot_eager")


@pytest.mark.parametrize("name", LIKE_OTHERS)
def test_is_captured_as_one_graph(name):
    compiles(name, {}, "eager")


class TestNaiveTwins:
    def compare(self, name, twin, **options):
        mixer, x = build(name, **options), tokens().requires_grad_()
        parameters = [p for p in mixer.parameters() if p is not mixer.proj.weight and p is not mixer.proj.bias]
        probe = torch.randn(2, HEADS, 9, DIM // HEADS, dtype=torch.float64)
        results = []
        for reading in (mixer.mix, lambda q, k, v: twin(mixer, q, k, v)):
            out = reading(*mixer.project(x))
            results.append((out, torch.autograd.grad((out * probe).sum(), [x, *parameters])))
        assert_close(*results, rtol=1e-10, atol=1e-10)

    def test_dot_product(self):
        self.compare("DotProduct", lambda m, q, k, v: naive.dot_product(q, k, v))

    def test_performer(self):
        self.compare("Performer", lambda m, q, k, v: naive.performer(q, k, v, m.rand_matrix))

    @pytest.mark.parametrize("magnitude_prior", [True, False])
    @pytest.mark.parametrize("iterations", [0, 2])
    def test_probabilistic(self, magnitude_prior, iterations):
        def twin(m, q, k, v):
            theta = {"prior_precision": 0.2, "iterations": iterations, "anchor": "initial"}
            k = naive_em.adapt_keys(q, k, alpha=m.alpha, magnitude_prior=magnitude_prior, **theta)
            return naive_em.infer_values(q, k, v, alpha=m.alpha, magnitude_prior=magnitude_prior)

        options = {"key_adaptation": iterations, "key_prior_precision": 0.2, "anchor": "initial"}
        self.compare("Probabilistic", twin, magnitude_prior=magnitude_prior, **options)

    @pytest.mark.parametrize(("steps", "lam"), [(0, 0.0), (1, 0.3), (4, 0.3)])
    def test_vars_d(self, steps, lam, monkeypatch):
        # the twin's largest singular value is exact, so the bound has to be too
        exact = lambda gram: torch.linalg.matrix_norm(gram, 2)[..., None, None].detach()  # noqa: E731
        monkeypatch.setattr("attention_zoo.functional.dictionaries.largest_eigenvalue", exact)

        def twin(m, q, k, v):
            out = naive.vars_d(q, v, m.rand_matrix, m.gamma, m.w1, m.w2, lam, steps)
            return out + 0 * (m.gamma.sum() + m.w1.sum() + m.w2.sum())

        if steps == 0:
            mixer, x = build("VarsD", steps=0, lam=0.0), tokens()
            q, k, v = mixer.project(x)
            assert_close(mixer.mix(q, k, v), twin(mixer, q, k, v))
        else:
            self.compare("VarsD", twin, steps=steps, lam=lam)


class TestIdentities:
    def test_probabilistic_without_adaptation_is_dot_product(self):
        probabilistic, dot_product = build("Probabilistic"), build("DotProduct")
        probabilistic.load_state_dict(dot_product.state_dict())
        assert_close(probabilistic(tokens()), dot_product(tokens()))

    def test_key_adaptation_changes_the_output(self):
        plain, adapted = build("Probabilistic"), build("Probabilistic", key_adaptation=1)
        assert (plain(3 * tokens()) - adapted(3 * tokens())).abs().max() > 1e-3

    def test_vars_with_no_steps_is_linear_attention(self):
        mixer, x = build("VarsD", steps=0, lam=0.0), tokens()
        q, k, v = mixer.project(x)
        unit = mixer.dictionary(x)
        assert_close(mixer.mix(q, k, v), unit @ unit.mT @ v)

    def test_atoms_have_unit_length(self):
        assert_close(build("VarsD").dictionary(tokens()).norm(dim=-2), torch.ones(2, HEADS, 12, dtype=torch.float64))

    def test_strong_sparsity_silences_vars(self):
        mixer = build("VarsD", lam=1e6)
        q, k, v = mixer.project(tokens())
        assert mixer.mix(q, k, v).abs().max() == 0

    def test_performer_with_many_features_approaches_dot_product(self):
        torch.manual_seed(0)
        performer, dot_product = build("Performer", feature_ratio=5000), build("DotProduct")
        performer.load_state_dict(dot_product.state_dict(), strict=False)
        assert_close(performer(tokens() / 2), dot_product(tokens() / 2), rtol=0, atol=0.005)


class TestMasks:
    @pytest.mark.parametrize("name", MASKED)
    def test_causal_is_a_triangle(self, name):
        x, mixer, mask = tokens(), build(name), torch.ones(9, 9, dtype=torch.bool).tril()
        causal = mixer(x, is_causal=True)
        assert_close(mixer(x, attn_mask=mask), causal)
        additive = torch.zeros(9, 9, dtype=torch.float64).masked_fill(~mask, -torch.inf)
        assert_close(mixer(x, attn_mask=additive), causal)
        assert_close(mixer(x, attn_mask=torch.ones_like(mask)), mixer(x))
        assert (causal - mixer(x)).abs().max() > 1e-4

    @pytest.mark.parametrize("name", ["DotProduct", "Probabilistic"])
    def test_the_past_does_not_see_the_future(self, name):
        x, mixer = tokens(), build(name)
        assert_close(mixer(x, is_causal=True)[:, :4], mixer(x[:, :4], is_causal=True))

    def test_keys_adapt_to_those_who_may_read_them(self):
        x, mixer = tokens(), build("Probabilistic", key_adaptation=1)
        blocks = torch.block_diag(torch.ones(4, 4), torch.ones(5, 5)).bool()
        assert_close(mixer(x, attn_mask=blocks)[:, :4], mixer(x[:, :4]))

    @pytest.mark.parametrize("name", MASKED)
    @pytest.mark.parametrize("causal", [False, True])
    @pytest.mark.parametrize("additive", [False, True])
    @pytest.mark.parametrize("closed", ["row", "column", "all"])
    def test_tokens_that_may_read_nobody_and_that_nobody_may_read(self, name, closed, additive, causal):
        x, mixer, mask = tokens().requires_grad_(), build(name), torch.ones(9, 9, dtype=torch.bool)
        mask[{"row": (3, slice(None)), "column": (slice(None), 3), "all": slice(None)}[closed]] = False
        mask = torch.zeros(9, 9).masked_fill(~mask, -torch.inf) if additive else mask
        out = mixer(x, attn_mask=mask, is_causal=causal)
        out.square().sum().backward()
        assert out.isfinite().all() and x.grad.isfinite().all()
        assert all(p.grad is None or p.grad.isfinite().all() for p in mixer.parameters())

    @pytest.mark.parametrize("name", MASKED)
    def test_a_mask_of_keys_alone(self, name):
        x, mixer, keys = tokens(), build(name), torch.arange(9) < 7
        assert_close(mixer(x, attn_mask=keys), mixer(x, attn_mask=keys.expand(9, 9)))


class TestRefusals:
    @pytest.mark.parametrize("name", [name for name in SELF if not az.MIXERS[name].drops_attention])
    def test_attention_dropout(self, name):
        with pytest.raises(az.InputError, match=f"{name}.*attn_drop"):
            az.create_mixer(name, DIM, HEADS, attn_drop=0.1)

    @pytest.mark.parametrize("name", [name for name in SELF if name not in MASKED])
    def test_masks(self, name):
        with pytest.raises(az.InputError, match=f"{name}.*attn_mask"):
            build(name)(tokens(), attn_mask=torch.ones(9, 9, dtype=torch.bool))

    @pytest.mark.parametrize("name", SELF)
    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            ({"dim": 10, "num_heads": 3}, "num_heads=3"),
            ({"dim": 0}, "dim=0"),
            ({"num_prefix_tokens": -1}, "num_prefix_tokens"),
            ({"grid": (0, 3)}, "grid"),
            ({"attn_drop": 1.5}, "attn_drop"),
            ({"proj_drop": -0.1}, "proj_drop"),
        ],
    )
    def test_numbers_that_do_not_fit(self, name, arguments, named):
        with pytest.raises(az.InputError, match=f"{name}.*{named}"):
            az.create_mixer(name, **{"dim": DIM, "num_heads": HEADS, **arguments})

    @pytest.mark.parametrize(
        ("name", "option", "value"),
        [
            ("VarsD", "steps", -1),
            ("VarsD", "lam", -0.1),
            ("VarsD", "feature_ratio", 0.0),
            ("Performer", "feature_ratio", 0.0),
            ("Probabilistic", "key_adaptation", -1),
            ("Probabilistic", "key_prior_precision", -1.0),
            ("Probabilistic", "alpha", 0.0),
            ("Probabilistic", "anchor", "first"),
        ],
    )
    def test_options_that_do_not_fit(self, name, option, value):
        with pytest.raises(az.InputError, match=f"{name}.*{option}"):
            az.create_mixer(name, DIM, HEADS, **{option: value})

    def test_top_down_signals_that_do_not_fit(self):
        mixer, x = build("DotProduct"), tokens()
        with pytest.raises(az.InputError, match="DotProduct.*top_down_to='k'"):
            mixer(x, top_down=x, top_down_to="k")
        with pytest.raises(az.InputError, match=r"DotProduct.*top_down \(2, 4, 12\)"):
            mixer(x, top_down=x[:, :4])

    @pytest.mark.parametrize("name", SELF)
    def test_tokens_of_another_width(self, name):
        with pytest.raises(az.InputError, match=rf"{name}.*\(2, 9, 13\)"):
            build(name)(torch.zeros(2, 9, 13, dtype=torch.float64))

    def test_grid(self):
        class Positional(az.SelfMixer):
            def mix(self, q, k, v):
                return v

        mixer = Positional(DIM, HEADS, num_prefix_tokens=1)
        assert mixer.spatial_shape(10) == (3, 3)
        with pytest.raises(az.InputError, match="grid=.height, width."):
            mixer.spatial_shape(9)
        assert Positional(DIM, HEADS, grid=(2, 5)).spatial_shape(10) == (2, 5)
        with pytest.raises(az.InputError, match=r"grid=\(2, 5\)"):
            Positional(DIM, HEADS, grid=(2, 5)).spatial_shape(11)
