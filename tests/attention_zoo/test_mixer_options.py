"""Options of every registered mixer, found by introspection: each malformed value is refused in one line, or works."""

import functools
import math

import pytest
import torch

import attention_zoo as az

DIM, HEADS, GRID = 12, 2, (2, 3)
SELF = az.list_mixers("self")
NOT_NUMBERS = [True, False, "3", "", "nan", "paper", None, [], [1], {}, (), 1j, b"1", object(), lambda: 1, math.sqrt]
NUMBERS = [0, -1, 1, 2.5, -0.5, 0.0, 1e-300, -1e-300, 1e20, 1e308, 10**20, 10**400, 10**5000]
NOT_FINITE = [math.nan, math.inf, -math.inf, torch.tensor(math.nan), torch.ones(3)]
PAIRS = [(1, 2), (2, 1, 3), (0, 3), (-1, 3), (1.5, 2), (math.nan, 1.0), (1.0, math.nan), (2.0, math.inf), ("1", "2")]
PAIRS += [(10**6, 10**6), (1.0, 1e-300), (1e308, 1.0), (True, 2), ((1, 2), 3), [2, 2]]
VALUES = [*NOT_NUMBERS, *NUMBERS, *NOT_FINITE, *PAIRS]
OPTIONS = [(name, option.name) for name in az.list_mixers() for option in az.mixer_info(name).options]
BASES = [{}, {"variant": "released"}, {"key_adaptation": 1, "precision_adaptation": 1}, {"positions": "factored"}]


def cases(name):
    """What the option is given beside: nothing, and what switches on code that the option may enter."""
    own = {option.name for option in az.mixer_info(name).options}
    return [base for base in BASES if own.issuperset(base)]


def works(mixer):
    """Whether forward and backward passes are finite."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 6, DIM, generator=generator).requires_grad_()
    out = mixer.train()(x) if isinstance(mixer, az.SelfMixer) else mixer(x[:, :2], x)[0]
    (gradient,) = torch.autograd.grad(out.sum(), x)
    return bool(out.isfinite().all() and gradient.isfinite().all())


@pytest.mark.parametrize(("name", "option"), OPTIONS, ids=["-".join(pair) for pair in OPTIONS])
def test_every_value_of_every_option_works_or_is_refused_by_name(name, option):
    grid = {"grid": GRID} if name in SELF else {}
    refused = 0
    for base in cases(name):
        for value in VALUES:
            try:
                mixer = az.create_mixer(name, DIM, HEADS, **{**grid, **base, option: value})
            except az.InputError as error:
                message = str(error)
                assert message.startswith(f"{name}: ") and option in message and "\n" not in message, message
                assert len(message.partition("; choose from: ")[0]) < 250
                refused += 1
            else:
                assert works(mixer), f"{option}={value!r} beside {base}"
    assert refused > len(NOT_FINITE)


@pytest.mark.parametrize("name", az.list_mixers())
@pytest.mark.parametrize("option", ["dim", "num_heads", "qkv_bias", "dtype", "device"])
def test_what_hosts_give(name, option):
    for value in (-1, 2.5, "x", math.nan, [], (1,), object(), 10**30, torch.int32):
        with pytest.raises(az.InputError, match=f"{name}: .*{option}"):
            az.create_mixer(name, **{"dim": DIM, "num_heads": HEADS, option: value})


@pytest.mark.parametrize("name", SELF)
@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("grid", [3, (3,), (1.5, 2), (True, 2), "33", (0, 1), (1, -1), (math.nan, 1), {}, (10**9, 1)]),
        ("num_prefix_tokens", [-1, 1.0, "1", None, True, math.nan]),
        ("attn_drop", [math.nan, "0.1", True, -0.1, 1.0, math.inf, None]),
        ("proj_drop", [math.nan, "0.1", True, -0.1, 1.0, math.inf, None]),
        ("proj_bias", [0, 1, "yes", None]),
        ("qk_norm", [0, 1, "yes", None]),
        ("scale_norm", [0, 1, "yes", None]),
        ("norm_layer", [1, "LayerNorm"]),
    ],
)
def test_what_hosts_give_self_mixers(name, option, values):
    for value in values:
        with pytest.raises(az.InputError, match=f"{name}: .*{option}"):
            az.create_mixer(name, DIM, HEADS, **{option: value})


class TestDropout:
    @pytest.mark.parametrize("name", SELF)
    def test_a_mixer_drops_attention_or_refuses(self, name):
        """In training a mixer that says it drops gives something else every time; others take no rate."""
        build = functools.partial(az.create_mixer, name, DIM, HEADS, attn_drop=0.5, grid=GRID)
        if not az.MIXERS[name].drops_attention:
            with pytest.raises(az.InputError, match=f"{name}: attn_drop=0.5"):
                build()
            return
        mixer, x = build(), torch.randn(2, 6, DIM)
        assert (mixer.train()(x) - mixer(x)).abs().max() > 1e-3
        assert torch.equal(mixer.eval()(x), mixer(x))

    def test_a_mixer_of_ones_own_refuses_without_a_word_of_its_own(self):
        class MeanField(az.SelfMixer):
            def mix(self, q, k, v):
                return v.mean(2, keepdim=True).expand_as(v)

        assert MeanField(DIM, HEADS).attn_drop.p == 0
        with pytest.raises(az.InputError, match="MeanField: attn_drop=0.1"):
            MeanField(DIM, HEADS, attn_drop=0.1)

    def test_who_writes_another_mix_says_again_whether_it_drops(self):
        class Halved(az.MIXERS["DotProduct"]):
            def map_weights(self, q, k, v):
                return super().map_weights(q, k, v) / 2

        class MeanField(az.MIXERS["DotProduct"]):
            def mix(self, q, k, v):
                return v.mean(2, keepdim=True).expand_as(v)

        class Dropping(MeanField):
            drops_attention = True

        assert Halved(DIM, HEADS, attn_drop=0.1).attn_drop.p == Dropping(DIM, HEADS, attn_drop=0.1).attn_drop.p == 0.1
        with pytest.raises(az.InputError, match="MeanField: attn_drop=0.1"):
            MeanField(DIM, HEADS, attn_drop=0.1)

    def test_lines_drop_as_far_as_their_mixers_do(self):
        x = torch.randn(2, 6, DIM)
        mixer = az.Axial(DIM, HEADS, grid=GRID, attn_drop=0.5)
        assert (mixer(x) - mixer(x)).abs().max() > 1e-3
        with pytest.raises(az.InputError, match="VarsD: attn_drop=0.5"):
            az.Axial(DIM, HEADS, grid=GRID, attn_drop=0.5, mixer="VarsD")


class TestAxial:
    @pytest.mark.parametrize("context", [0, -1, 2.5, math.nan, True, "3", 10**30])
    def test_context(self, context):
        with pytest.raises(az.InputError, match="Axial: context="):
            az.Axial(DIM, HEADS, context=context)

    @pytest.mark.parametrize("mixer", [3, (), "Nope", "CrossAttention", lambda dim, num_heads, **host: None])
    def test_mixer(self, mixer):
        with pytest.raises(az.InputError, match="mixer|CrossAttention mixes"):
            az.Axial(DIM, HEADS, mixer=mixer)


@pytest.mark.parametrize("name", SELF)
class TestForwardArguments:
    def mixer(self, name):
        return az.create_mixer(name, DIM, HEADS, grid=GRID).eval()

    @pytest.mark.parametrize("with_signal", [True, False])
    def test_unknown_ones_are_refused(self, name, with_signal):
        x = torch.randn(1, 6, DIM)
        signal = {"top_down": x} if with_signal else {}
        for call in (self.mixer(name), self.mixer(name).project):
            with pytest.raises(az.InputError, match=f"{name} 'top_down_too'; did you mean 'top_down_to'"):
                call(x, **signal, top_down_too="v")

    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("top_down_to", "k"),
            ("top_down_to", None),
            ("top_down_bias", 1),
            ("top_down_decoder", torch.ones(DIM)),
            ("top_down_decoder", torch.ones(DIM + 1, 3)),
            ("value_gate", torch.ones(1, 6, DIM)),
            ("value_gate", torch.ones(1, 5, 1)),
        ],
    )
    def test_those_that_do_not_fit(self, name, argument, value):
        x = torch.randn(1, 6, DIM)
        with pytest.raises(az.InputError, match=f"{name}: {argument}"):
            self.mixer(name)(x, top_down=x, **{argument: value})

    @pytest.mark.parametrize("mask", [torch.ones(6, 5).bool(), torch.ones(6, 6).int(), torch.ones(2, 1, 6, 6).bool()])
    def test_masks_that_do_not_fit(self, name, mask):
        with pytest.raises(az.InputError, match=f"{name}.* attn_mask"):
            self.mixer(name)(torch.randn(1, 6, DIM), attn_mask=mask)
