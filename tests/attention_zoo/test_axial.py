"""Any self-mixer along the lines of a grid."""

from functools import partial

import pytest
import timm
import torch
from torch.testing import assert_close

import attention_zoo as az
from tests.attention_zoo.test_mixers import DIM, HEADS, SELF, tokens

GRID = (3, 5)


def build(mixer="DotProduct", seed=0, grid=GRID, dtype=torch.float64, **options):
    torch.manual_seed(seed)
    if mixer == "Sparsifier":  # of a short line its default share leaves tokens that nobody reads
        mixer = partial(az.MIXERS[mixer], keep=1.0)
    return az.Axial(DIM, HEADS, mixer=mixer, grid=grid, dtype=dtype, **options).eval()


PREFIX_UNREAD = ("CrossCovariance", "FocalModulation", "GatedConv", "ToST")
"""Readings in which the value of a prefix token reaches no other token."""


def influence(mixer, x):
    """Which token's output moves with which token's input, (N, N)."""
    x = x.clone().requires_grad_()
    out = mixer(x)[0]
    seen = [torch.autograd.grad(token, x, torch.linspace(0.5, 1.5, len(token)).to(token), True)[0][0] for token in out]
    return torch.stack(seen).abs().sum(-1) > 1e-12


@pytest.mark.parametrize("name", SELF)
class TestEveryMixer:
    def test_is_the_mixer_along_columns_then_rows(self, name):
        axial, x = build(name), tokens(15)
        after = x.unflatten(1, GRID).clone()
        for column in range(5):
            after[:, :, column] = axial.height(after[:, :, column].clone())
        for row in range(3):
            after[:, row] = axial.width(after[:, row].clone())
        assert_close(axial(x), after.flatten(1, 2))

    @pytest.mark.parametrize("context", [None, 1, 2, 4])
    def test_prefix_tokens_context_and_gradients(self, name, context):
        axial = build(name, num_prefix_tokens=2, context=context, grid=(2, 9)).train()
        x = tokens(20).requires_grad_()
        out = axial(x)
        assert out.shape == x.shape
        out.square().sum().backward()
        assert x.grad.isfinite().all()
        assert all(p.grad is not None for p in axial.parameters())

    def test_local_context(self, name):
        x = tokens(18, batch=1)
        seen = influence(build(name, context=2, grid=(2, 9)), x).unflatten(0, (2, 9)).unflatten(2, (2, 9))
        masked = az.MIXERS[name].mix_masked is not az.SelfMixer.mix_masked
        # of the first it matters who else reads a token, the second reads what others read
        reach = {"DoublyNormalized": 2, "Twicing": 2, "Sinkhorn": 3}.get(name, 1 if masked else 3)
        for column in range(9):
            for other in range(9):
                if abs(column - other) > reach:
                    assert not seen[:, column, :, other].any()
        assert seen[0, 4, 1, 3]
        assert seen[0, 4, 1, 5]

    def test_a_wide_context_is_none(self, name):
        x, plain, wide = tokens(15), build(name), build(name, context=10)
        wide.load_state_dict(plain.state_dict())
        assert_close(wide(x), plain(x))

    @pytest.mark.parametrize("context", [None, 2])
    def test_map_is_the_product_of_the_lines_maps(self, name, context):
        axial, x = build(name, context=context, num_prefix_tokens=1), tokens(16)
        found = axial.attention_map(x)
        assert found.shape == (2, HEADS, 16, 16)
        rows = found.sum(-1)
        if name in ("DotProduct", "DoublyNormalized", "Performer", "Probabilistic"):
            assert_close(rows, torch.ones_like(rows))
        read = found[:, :, 1:].abs().amax((0, 1)).bool().any(0)
        assert read[1:].all()
        assert read[0] or name in PREFIX_UNREAD


@pytest.mark.parametrize("name", ["Probabilistic", "VarsS"])  # with masks, and in blocks
def test_compiles_as_one_graph(name):
    axial, x = build(name, context=2, dtype=torch.float32), tokens(15, dtype=torch.float32)
    assert_close(torch.compile(axial, fullgraph=True, backend="eager")(x), axial(x))


def test_map_of_a_line_is_that_of_the_mixer():
    axial, x = build(grid=(1, 6)), tokens(6)
    columns = axial.height(x.flatten(0, 1)[:, None]).reshape(x.shape)
    assert_close(axial.attention_map(x), axial.width.attention_map(columns))


def test_readings_alone_on_given_queries_keys_and_values():
    axial = build(context=2, num_prefix_tokens=1)
    q, k, v = (tokens(16, seed=s).unflatten(-1, (HEADS, -1)).transpose(1, 2) for s in range(3))
    out = axial.mix(q, k, v)
    assert out.shape == v.shape
    derivative = az.SelfMixer.map_weights(axial, q, k, v)
    assert_close(derivative.sum(-1), torch.ones_like(derivative[..., 0]))
    assert_close(derivative @ v, out)


def test_top_down_signal_reaches_both_axes():
    axial, x, signal = build(num_prefix_tokens=1), tokens(16), tokens(16, seed=2)
    assert_close(axial(x, top_down=torch.zeros_like(x)), axial(x))
    assert (axial(x, top_down=signal) - axial(x)).abs().min() > 0


def test_in_a_vit_and_swapped():
    args = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 5}
    model = timm.create_model("vit_tiny_patch16_224", **args).eval()
    weight = model.blocks[0].attn.qkv.weight.clone()
    factory = partial(az.Axial, mixer=partial(az.MIXERS["Probabilistic"], key_adaptation=1), context=2)
    az.swap_mixers(model, factory)
    assert_close(model.blocks[0].attn.height.qkv.weight, weight)
    assert_close(model.blocks[0].attn.width.qkv.weight, weight)
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, 5)
    az.swap_mixers(model, "DotProduct", layers={"last": "VarsD"})
    assert [type(block.attn).__name__ for block in model.blocks] == ["DotProduct", "VarsD"]


@pytest.mark.parametrize(
    ("options", "named"),
    [({"context": 0}, "context=0"), ({"mixer": "DotProdukt"}, "DotProduct"), ({"mixer": "CrossAttention"}, "Cross")],
)
def test_refusals(options, named):
    with pytest.raises(az.InputError, match=named):
        build(**options)


def test_refuses_masks_and_other_grids():
    with pytest.raises(az.InputError, match="Axial.*attn_mask"):
        build()(tokens(15), is_causal=True)
    with pytest.raises(az.InputError, match=r"Axial.*grid=\(3, 5\)"):
        build()(tokens(14))
