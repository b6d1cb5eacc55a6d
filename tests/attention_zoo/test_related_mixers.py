"""The mixers of related work beside their naive forms and beside timm's layers."""

import math

import pytest
import torch
import torch.nn.functional as F
from timm.layers import DiffAttention
from timm.models.davit import ChannelAttention
from timm.models.focalnet import FocalModulation
from timm.models.mambaout import GatedConvBlock
from timm.models.vision_transformer import VisionTransformer
from timm.models.xcit import XCA
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.functional import tiles
from attention_zoo.models import build_model

DIM, HEADS = 20, 2


def build(name, **options):
    torch.manual_seed(0)
    return az.create_mixer(name, DIM, HEADS, dtype=torch.float64, **options).eval()


def tokens(number, batch=2):
    return torch.randn(batch, number, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def heads(number):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(3, 2, HEADS, number, DIM // HEADS, dtype=torch.float64, generator=generator).unbind()


def scores(q, k):
    return q @ k.mT / q.shape[-1] ** 0.5


def randomise(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(3))
    return module


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("CrossCovariance", lambda: XCA(DIM, HEADS, qkv_bias=True)),
        ("ChannelAttention", lambda: ChannelAttention(DIM, HEADS, qkv_bias=True)),
        ("Differential", lambda: DiffAttention(DIM, HEADS, qkv_bias=True)),
    ],
)
@pytest.mark.parametrize("number", [1, 7, 30])
def test_timm_s_layers_of_tokens(name, twin, number):
    twin, mixer = randomise(twin().double()), build(name, qkv_bias=True)
    mixer.load_state_dict(twin.state_dict())
    assert_close(mixer(tokens(number)), twin(tokens(number)), rtol=1e-10, atol=1e-10)


def test_differential_in_a_later_layer_with_norms_and_a_mask():
    options = {"qk_norm": True, "scale_norm": True, "norm_layer": torch.nn.LayerNorm, "depth": 3}
    twin, mixer = randomise(DiffAttention(DIM, HEADS, **options).double()), build("Differential", **options)
    mixer.load_state_dict(twin.state_dict())
    assert_close(mixer(tokens(9)), twin(tokens(9)), rtol=1e-10, atol=1e-10)
    assert_close(mixer(tokens(9), is_causal=True), twin(tokens(9), is_causal=True), rtol=1e-10, atol=1e-10)


def test_differential_without_the_second_map_is_softmax_of_half_width():
    mixer, (q, k, v) = build("Differential"), heads(9)
    mixer.lambda_init = 0.0
    with torch.no_grad():
        mixer.lambda_q1.zero_()
        mixer.lambda_q2.zero_()
    half = DIM // HEADS // 2
    assert_close(mixer.mix(q, k, v), mixer.sub_norm(scores(q[..., :half], k[..., :half]).softmax(-1) @ v))


@pytest.mark.parametrize("grid", [(1, 1), (3, 5), (9, 8)])
def test_timm_s_focal_modulation(grid):
    twin, mixer = randomise(FocalModulation(DIM, 3, 2).double()), build("FocalModulation", grid=grid)
    mixer.load_state_dict(twin.state_dict())
    x = tokens(grid[0] * grid[1])
    image = x.transpose(1, 2).unflatten(-1, grid)
    assert_close(mixer(x), twin(image).flatten(2).transpose(1, 2), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("grid", [(1, 1), (3, 5), (9, 8)])
def test_timm_s_gated_convolution(grid):
    twin, mixer = randomise(GatedConvBlock(DIM).double()), build("GatedConv", grid=grid)
    twin.norm = torch.nn.Identity()
    mixer.load_state_dict(twin.state_dict())
    x = tokens(grid[0] * grid[1]).unflatten(1, grid)
    assert_close(mixer(x.flatten(1, 2)), (twin(x) - x).flatten(1, 2), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("bias", [None, 0.3])
def test_sigmoid_attention(bias):
    mixer, (q, k, v) = build("SigmoidAttention", bias=bias), heads(7)
    offset = -torch.tensor(7.0, dtype=torch.float64).log() if bias is None else bias
    assert_close(mixer.mix(q, k, v), (scores(q, k) + offset).sigmoid() @ v)


def test_rows_of_sigmoid_attention_sum_to_about_one_where_nothing_is_known():
    weights = build("SigmoidAttention").map_weights(*(torch.zeros(1, 2, 9, 10) for _ in range(3)))
    assert_close(weights.sum(-1), torch.full((1, 2, 9), 9 / 10))


def focused(x):
    x = x.relu()
    return F.normalize(x**3, dim=-1) * x.norm(dim=-1, keepdim=True)


FEATURES = {"elu": lambda x: F.elu(x) + 1, "relu": torch.relu, "focused": focused}


class TestLinear:
    @pytest.mark.parametrize("feature", FEATURES)
    @pytest.mark.parametrize("normaliser", ["sum", "rms", "inline"])
    def test_naive_form(self, feature, normaliser):
        q, k, v = heads(7)
        weights = FEATURES[feature](q) @ FEATURES[feature](k).mT
        if normaliser == "rms":
            expected = F.rms_norm(weights @ v, (v.shape[-1],))
        elif normaliser == "sum":
            expected = weights / weights.sum(-1, keepdim=True).clamp(min=1e-30) @ v
        else:
            expected = (weights - weights.mean(-1, keepdim=True) + 1) / 7 @ v
        mixer = build("Linear", feature=feature, normaliser=normaliser)
        assert_close(mixer.mix(q, k, v), expected, rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize("feature", FEATURES)
    def test_tokens_without_features_take_nothing_and_have_gradients(self, feature):
        q, k, v = (-torch.ones(1, 1, 3, 4, requires_grad=True) for _ in range(3))
        out = build("Linear", feature=feature).mix(q, k, v)
        gradients = torch.autograd.grad(out.sum(), (q, k, v), allow_unused=True, materialize_grads=True)
        assert out.isfinite().all() and all(gradient.isfinite().all() for gradient in gradients)


def test_twicing_smooths_the_residual():
    mixer, (q, k, v) = build("Twicing"), heads(7)
    weights = scores(q, k).softmax(-1)
    assert_close(mixer.mix(q, k, v), (2 * weights - weights @ weights) @ v, rtol=1e-10, atol=1e-10)
    assert_close(mixer.map_weights(q, k, v).sum(-1), torch.ones(2, HEADS, 7, dtype=torch.float64))


def test_crate_is_dot_product_with_tied_projections():
    mixer, tied = build("CRATE", qkv_bias=True), build("DotProduct", qkv_bias=True)
    with torch.no_grad():
        tied.qkv.weight.copy_(mixer.qkv.weight.repeat(3, 1))
        tied.qkv.bias.copy_(mixer.qkv.bias.repeat(3))
    tied.proj.load_state_dict(mixer.proj.state_dict())
    assert_close(mixer(tokens(7)), tied(tokens(7)), rtol=1e-10, atol=1e-10)


def test_tost_token_by_token():
    mixer, (w, _, _) = build("ToST"), heads(7)
    with torch.no_grad():
        mixer.temp.copy_(torch.tensor([[0.5], [3.0]]))
    logits = torch.stack(
        [mixer.temp[h] * (w[:, h] / w[:, h].norm(dim=1, keepdim=True)).square().sum(-1) for h in (0, 1)]
    )
    belongs = logits.exp() / logits.exp().sum(0)
    out = torch.empty_like(w)
    for h in range(HEADS):
        share = belongs[h] / (belongs[h].sum(-1, keepdim=True) + 1e-8)
        moment = sum(share[:, n, None] * w[:, h, n] ** 2 for n in range(7))
        out[:, h] = -belongs[h][..., None] * w[:, h] / (1 + moment[:, None])
    assert_close(mixer.mix(w, w, w), out, rtol=1e-10, atol=1e-10)


def positions(grid, prefix):
    rows, columns = torch.meshgrid(*map(torch.arange, grid), indexing="ij")
    return rows.flatten(), columns.flatten(), prefix


def masked_softmax(q, k, v, allowed, prefix, bias=0.0):
    everything = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool)
    everything[prefix:, prefix:] = allowed
    return (scores(q, k) + bias).masked_fill(~everything, -torch.inf).softmax(-1) @ v


class TestWindow:
    @pytest.mark.parametrize("grid", [(4, 6), (5, 7), (3, 3), (2, 9)])
    @pytest.mark.parametrize(("window", "shift"), [(2, 0), (2, 1), (3, 1), (4, 3), (9, 4)])
    @pytest.mark.parametrize("prefix", [0, 2])
    def test_is_softmax_inside_blocks(self, grid, window, shift, prefix):
        def block(position, size):
            return (position - (0 if size <= window else shift)).div(window, rounding_mode="floor")

        rows, columns, _ = positions(grid, prefix)
        rows, columns = block(rows, grid[0]), block(columns, grid[1])
        allowed = (rows[:, None] == rows) & (columns[:, None] == columns)
        q, k, v = heads(grid[0] * grid[1] + prefix)
        mixer = build("Window", window=window, shift=shift, grid=grid, num_prefix_tokens=prefix)
        expected = masked_softmax(q, k, v, allowed, prefix)
        assert_close(mixer.mix(q, k, v), expected, rtol=1e-10, atol=1e-10)
        assert_close(mixer.map_weights(q, k, v) @ v, expected, rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize("prefix", [0, 1])
    def test_every_window_has_the_bias(self, prefix):
        mixer, (q, k, v) = build("Window", window=2, grid=(4, 6), num_prefix_tokens=prefix), heads(24 + prefix)
        with torch.no_grad():
            mixer.relative_bias.normal_()
        rows, columns, _ = positions((4, 6), prefix)
        down, right = rows[:, None] - rows, columns[:, None] - columns
        inside = (rows[:, None] // 2 == rows // 2) & (columns[:, None] // 2 == columns // 2)
        bias = torch.zeros(HEADS, 24 + prefix, 24 + prefix, dtype=torch.float64)
        bias[:, prefix:, prefix:] = mixer.relative_bias[:, down.clamp(-1, 1) + 1, right.clamp(-1, 1) + 1]
        assert_close(mixer.mix(q, k, v), masked_softmax(q, k, v, inside, prefix, bias), rtol=1e-10, atol=1e-10)

    def test_bias_is_that_of_the_relative_position(self):
        mixer, (q, k, v) = build("Window", window=3, grid=(3, 3)), heads(9)
        with torch.no_grad():
            mixer.relative_bias.normal_()
        rows, columns, _ = positions((3, 3), 0)
        bias = mixer.relative_bias[:, rows[:, None] - rows + 2, columns[:, None] - columns + 2]
        expected = (scores(q, k) + bias).softmax(-1) @ v
        assert_close(mixer.mix(q, k, v), expected, rtol=1e-10, atol=1e-10)


class TestNeighborhood:
    @pytest.mark.parametrize("grid", [(7, 9), (17, 10), (3, 20), (5, 5)])
    @pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (5, 1), (3, 2), (3, 4), (9, 1)])
    @pytest.mark.parametrize("prefix", [0, 1])
    def test_is_softmax_over_the_nearest(self, grid, kernel, dilation, prefix):
        def near(position, size):
            pairs = torch.zeros(size, size, dtype=torch.bool)
            for start in range(min(dilation, size)):
                group = list(range(start, size, dilation))
                reach = min(kernel, len(group))
                for place, one in enumerate(group):
                    first = min(max(place - reach // 2, 0), len(group) - reach)
                    pairs[one, group[first : first + reach]] = True
            return pairs[position[:, None], position]

        rows, columns, _ = positions(grid, prefix)
        allowed = near(rows, grid[0]) & near(columns, grid[1])
        q, k, v = heads(grid[0] * grid[1] + prefix)
        mixer = build("Neighborhood", kernel=kernel, dilation=dilation, grid=grid, num_prefix_tokens=prefix)
        expected = masked_softmax(q, k, v, allowed, prefix)
        assert_close(mixer.mix(q, k, v), expected, rtol=1e-10, atol=1e-10)
        assert_close(mixer.map_weights(q, k, v) @ v, expected, rtol=1e-10, atol=1e-10)

    def test_a_kernel_as_large_as_the_grid_is_dot_product(self):
        q, k, v = heads(25)
        expected = build("DotProduct").mix(q, k, v)
        assert_close(build("Neighborhood", kernel=5, grid=(5, 5)).mix(q, k, v), expected, rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize("prefix", [0, 2])
    def test_samples_in_turns_are_samples_together(self, prefix, monkeypatch):
        mixer = build("Neighborhood", kernel=3, grid=(9, 6), num_prefix_tokens=prefix)
        results = []
        for at_once in (1, 1 << 30):
            monkeypatch.setattr(tiles, "MOST_AT_ONCE", at_once)
            inputs = [x.requires_grad_() for x in heads(54 + prefix)]
            mixed = mixer.mix(*inputs)
            results.append((mixed, torch.autograd.grad(mixed.square().sum(), inputs)))
        assert_close(*results, rtol=1e-12, atol=1e-12)


class TestAgent:
    @pytest.mark.parametrize("grid", [(4, 6), (14, 14), (3, 2)])
    @pytest.mark.parametrize("prefix", [0, 2])
    def test_naive_form(self, grid, prefix):
        mixer = randomise(build("Agent", agents=9, grid=grid, num_prefix_tokens=prefix))
        q, k, v = heads(grid[0] * grid[1] + prefix)
        image = q[:, :, prefix:].transpose(2, 3).flatten(1, 2).unflatten(-1, grid)
        agents = F.adaptive_avg_pool2d(image, 3).flatten(2).unflatten(1, (HEADS, -1)).mT
        first, second = mixer.position_biases(grid)
        out = (scores(q, agents) + second).softmax(-1) @ (scores(agents, k) + first).softmax(-1) @ v
        image = v[:, :, prefix:].transpose(2, 3).flatten(1, 2).unflatten(-1, grid)
        out[:, :, prefix:] += mixer.dwc(image).flatten(2).unflatten(1, (HEADS, -1)).mT
        assert_close(mixer.mix(q, k, v), out, rtol=1e-10, atol=1e-10)

    def test_agents_that_are_the_queries_smooth_twice(self):
        mixer, (q, k, v) = build("Agent", agents=25, grid=(5, 5)), heads(25)
        torch.nn.init.zeros_(mixer.dwc.weight)
        torch.nn.init.zeros_(mixer.dwc.bias)
        expected = scores(q, q).softmax(-1) @ scores(q, k).softmax(-1) @ v
        assert_close(mixer.mix(q, k, v), expected, rtol=1e-10, atol=1e-10)

    def test_rows_of_the_product_sum_to_one_and_one_agent_serves_all_alike(self):
        mixer, (q, k, v) = build("Agent", agents=1, grid=(3, 5)), heads(15)
        torch.nn.init.zeros_(mixer.dwc.weight)
        weights = mixer.map_weights(q, k, v)
        assert_close(weights.sum(-1), torch.ones(2, HEADS, 15, dtype=torch.float64))
        assert_close(weights, weights[:, :, :1].expand_as(weights))


class TestBiLevelRouting:
    @pytest.mark.parametrize("grid", [(6, 6), (5, 7), (2, 3)])
    @pytest.mark.parametrize("prefix", [0, 1])
    def test_all_regions_are_dot_product_and_a_convolution(self, grid, prefix):
        options = {"grid": grid, "num_prefix_tokens": prefix}
        mixer, plain = build("BiLevelRouting", regions=3, topk=9, **options), build("DotProduct", **options)
        q, k, v = heads(grid[0] * grid[1] + prefix)
        expected = plain.mix(q, k, v)
        image = v[:, :, prefix:].transpose(2, 3).flatten(1, 2).unflatten(-1, grid)
        expected[:, :, prefix:] += mixer.lepe(image).flatten(2).unflatten(1, (HEADS, -1)).mT
        assert_close(mixer.mix(q, k, v), expected, rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize("grid", [(6, 6), (5, 7)])
    @pytest.mark.parametrize("variant", ["paper", "released"])
    def test_a_region_reads_the_regions_nearest_to_it(self, grid, variant):
        mixer = build("BiLevelRouting", regions=3, topk=2, grid=grid, variant=variant)
        torch.nn.init.zeros_(mixer.lepe.weight)
        torch.nn.init.zeros_(mixer.lepe.bias)
        q, k, v = heads(grid[0] * grid[1])
        size = [-(-length // 3) for length in grid]
        rows, columns, _ = positions(grid, 0)
        region = (rows // size[0]) * -(-grid[1] // size[1]) + columns // size[1]
        flat_q, flat_k = (of.transpose(1, 2).flatten(2) for of in (q, k))
        means = [
            torch.stack([of[:, region == r].mean(1) for r in range(int(region.max()) + 1)], 1)
            for of in (flat_q, flat_k)
        ]
        chosen = (means[0] @ means[1].mT).topk(2, -1).indices
        scale = (DIM // HEADS if variant == "paper" else DIM) ** -0.5
        out = torch.empty_like(v)
        for sample in range(2):
            for token in range(len(region)):
                reads = torch.isin(region, chosen[sample, region[token]])
                weights = (q[sample, :, token, None] @ k[sample][:, reads].mT * scale).softmax(-1)
                out[sample, :, token] = (weights @ v[sample][:, reads])[:, 0]
        assert_close(mixer.mix(q, k, v), out, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Agent", {"agents": 48}),
        ("Agent", {"kernel": 2}),
        ("BiLevelRouting", {"regions": 0}),
        ("BiLevelRouting", {"topk": 50}),
        ("BiLevelRouting", {"topk": 0}),
        ("Window", {"window": 0}),
        ("Window", {"window": 3, "shift": 3}),
        ("Neighborhood", {"kernel": 4}),
        ("Neighborhood", {"dilation": 0}),
        ("Linear", {"feature": "exp"}),
        ("Linear", {"normaliser": "softmax"}),
        ("SigmoidAttention", {"bias": float("nan")}),
        ("Differential", {"depth": -1}),
        ("FocalModulation", {"focal_window": 2}),
        ("FocalModulation", {"focal_level": 0}),
        ("GatedConv", {"kernel": 2}),
        ("GatedConv", {"conv_ratio": 9.0}),
    ],
)
def test_options_that_do_not_fit(name, options):
    with pytest.raises(az.InputError, match=f"{name}.*{next(iter(options))}"):
        build(name, **options)


def test_heads_of_odd_width_have_no_halves():
    with pytest.raises(az.InputError, match="Differential.*odd width"):
        az.create_mixer("Differential", 9, 3)


class TestLayers:
    """A mixer that is another one in each layer is told which, however it came into the model."""

    @pytest.mark.parametrize("how", ["built", "swapped", "given", "inside"])
    def test_differential(self, how):
        vit = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 3, "num_heads": 2, "num_classes": 3}
        if how == "built":
            model = VisionTransformer(**vit, attn_layer=az.attn_layer("Differential"))
        elif how == "given":
            model = build_model("rvt_tiny", num_classes=3, image_size=(32, 32), mixer="Differential")
        else:
            chosen = ("Axial", {"mixer": "Differential"}) if how == "inside" else ("Differential", {})
            model = az.swap_mixers(VisionTransformer(**vit), chosen[0], **chosen[1])
        layers = [m for m in model.modules() if type(m).__name__ == "Differential"]
        each = 2 if how == "inside" else 1  # along the height and along the width
        expected = [0.8 - 0.6 * math.exp(-0.3 * (place // each)) for place in range(len(layers))]
        assert [layer.lambda_init for layer in layers] == pytest.approx(expected)

    def test_a_chosen_depth_stays(self):
        vit = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 2, "num_classes": 3}
        model = az.swap_mixers(VisionTransformer(**vit), "Differential", depth=5)
        assert model.blocks[0].attn.lambda_init == pytest.approx(0.8 - 0.6 * math.exp(-1.5))

    def test_timms_differential_transformer_keeps_its_logits(self):
        vit = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 3, "num_heads": 2, "num_classes": 3}
        theirs = VisionTransformer(**vit, attn_layer="diff").eval()
        ours = VisionTransformer(**vit, attn_layer="Differential").eval()
        ours.load_state_dict(theirs.state_dict())
        images = torch.randn(2, 3, 16, 16)
        assert_close(ours(images), theirs(images))
