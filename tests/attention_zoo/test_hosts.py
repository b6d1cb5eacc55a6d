"""Mixers inside timm's attention layers that project, turn and bias queries and keys in their own way."""

import copy
import pickle
from functools import partial

import pytest
import timm
import torch
from timm.layers import Attention, AttentionRope, RelPosBias, RelPosMlp
from timm.models import (
    beit,
    convit,
    davit,
    eva,
    fastvit,
    gcvit,
    gemma4_vit,
    hiera,
    hieradet_sam2,
    maxxvit,
    metaformer,
    nest,
    swin_transformer,
    swin_transformer_v2,
    swin_transformer_v2_cr,
    tiny_vit,
    tnt,
    twins,
    visformer,
    vision_transformer_relpos,
    vision_transformer_sam,
    volo,
)
from torch import nn
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.hosts.base import HostLayer, fitting_mixers
from attention_zoo.hosts.table import HOST_LAYERS
from attention_zoo.models import build_model

WINDOW = (2, 3)
BIASED = partial(RelPosBias, window_size=WINDOW)
CURVED = partial(RelPosMlp, window_size=WINDOW)
NORM = nn.LayerNorm
TOKENS, WINDOWS, IMAGE, LAST = (4, 6, 16), (8, 6, 16), (2, 16, 2, 3), (2, 2, 3, 16)
"""Shapes of what layers take: tokens, windows, images with channels first and last."""
ROPE = {"rope": torch.randn(5, 16, generator=torch.Generator().manual_seed(3))}
SHIFTED = {"mask": torch.zeros(2, 6, 6).index_fill(1, torch.tensor([2]), -100.0)}
TURNED = {"rope_cos": ROPE["rope"][None, :1, :8].expand(4, 6, 8).cos(), "rope_sin": torch.ones(4, 6, 8).cumsum(1).sin()}
SHARED = torch.randn(1, 2, 6, 6, generator=torch.Generator().manual_seed(4))

LAYERS = {
    "eva": (eva.EvaAttention(16, 2, norm_layer=NORM), TOKENS, ROPE),
    "eva with all options": (
        eva.EvaAttention(16, 2, qkv_fused=False, norm_layer=NORM, qk_norm=True, rotate_half=True, gated=True),
        TOKENS,
        ROPE,
    ),
    "eva without biases": (eva.EvaAttention(16, 2, qkv_bias=False, scale_norm=False), TOKENS, {}),
    "eva under a mask": (eva.EvaAttention(16, 2, scale_norm=False), TOKENS, ROPE | {"attn_mask": SHARED > 0}),
    "rope": (AttentionRope(16, 2), TOKENS, ROPE),
    "rope with groups": (
        AttentionRope(16, 4, attn_head_dim=8, num_kv_heads=2, qkv_fused=False, norm_layer=NORM, qk_norm=True),
        TOKENS,
        ROPE,
    ),
    "gated": (Attention(16, 2, gated=True, qkv_bias=True), TOKENS, {"is_causal": True}),
    "wide heads": (Attention(16, 2, attn_head_dim=12, qk_norm=True, norm_layer=NORM), TOKENS, {}),
    "swin": (swin_transformer.WindowAttention(16, 2, window_size=WINDOW), WINDOWS, {}),
    "shifted swin": (swin_transformer.WindowAttention(16, 2, head_dim=12, window_size=WINDOW), WINDOWS, SHIFTED),
    "swin v2": (swin_transformer_v2.WindowAttention(16, WINDOW, 2), WINDOWS, {}),
    "shifted swin v2": (swin_transformer_v2.WindowAttention(16, WINDOW, 2, qkv_bias=False), WINDOWS, SHIFTED),
    "swin v2 cr": (swin_transformer_v2_cr.WindowMultiHeadAttention(16, 2, WINDOW), WINDOWS, SHIFTED),
    "beit": (beit.Attention(16, 2, qkv_bias=True, window_size=(1, 5)), TOKENS, {"shared_rel_pos_bias": SHARED}),
    "beit without biases": (beit.Attention(16, 2), TOKENS, {}),
    "relative positions": (
        vision_transformer_relpos.RelPosAttention(16, 2, qk_norm=True, rel_pos_cls=CURVED),
        TOKENS,
        {},
    ),
    "shared positions": (vision_transformer_relpos.RelPosAttention(16, 2), TOKENS, {"shared_rel_pos": SHARED}),
    "hiera": (hiera.MaskUnitAttention(16, 24, 2, window_size=3, use_mask_unit_attn=True), TOKENS, {}),
    "hiera over the image": (hiera.MaskUnitAttention(16, 16, 2), TOKENS, {}),
    "sam 2": (hieradet_sam2.MultiScaleAttention(16, 24, 2), LAST, {}),
    "maxvit": (maxxvit.AttentionCl(16, dim_head=8, rel_pos_cls=BIASED), LAST, {}),
    "maxvit, heads last": (maxxvit.AttentionCl(16, 32, dim_head=8, head_first=False), LAST, {}),
    "coatnet": (maxxvit.Attention2d(16, dim_head=8, rel_pos_cls=BIASED), IMAGE, {}),
    "coatnet, heads last": (maxxvit.Attention2d(16, dim_head=8, head_first=False), IMAGE, {"shared_rel_pos": SHARED}),
    "davit": (davit.WindowAttention(16, WINDOW, 2), WINDOWS, {}),
    "metaformer": (metaformer.Attention(16, head_dim=8), TOKENS, {}),
    "convit": (convit.MHSA(16, 2), TOKENS, {}),
    "tnt": (tnt.Attention(16, 16, 2), TOKENS, {}),
    "nest": (nest.Attention(16, 2), LAST, {}),
    "volo": (volo.Attention(16, 2), LAST, {}),
    "fastvit": (fastvit.Attention(16, head_dim=8), IMAGE, {}),
    "visformer": (visformer.Attention(16, 2, head_dim_ratio=0.5), IMAGE, {}),
    "gcvit": (gcvit.WindowAttentionGlobal(16, 2, WINDOW), WINDOWS, {"q_global": torch.ones(4, 6, 16).cumsum(1)}),
    "gcvit without global queries": (gcvit.WindowAttentionGlobal(16, 2, WINDOW, use_global=False), WINDOWS, {}),
    "gemma": (gemma4_vit.Gemma4Attention(16, 4, head_dim=8, num_kv_heads=2), TOKENS, TURNED),
    "sam": (vision_transformer_sam.Attention(16, 2, use_rel_pos=True, input_size=WINDOW, qk_norm=True), LAST, {}),
    "sam without positions": (vision_transformer_sam.Attention(16, 2), LAST, {}),
    "tiny vit": (tiny_vit.Attention(16, 8, 2, attn_ratio=1, resolution=WINDOW), WINDOWS, {}),
    "twins": (twins.LocallyGroupedAttn(16, 2, ws=4), (2, 35, 16), {"size": (5, 7)}),
}
"""Every class of layers that a mixer can stand in, with its options: the layer, the shape of its input, the rest."""

FLAT = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}
PYRAMID = {"img_size": 32, "embed_dim": 12, "depths": (2, 2), "num_heads": (2, 2), "window_size": 4}
MODELS = {
    "eva02_tiny_patch14_224": FLAT,
    "vit_small_patch16_dinov3": FLAT,
    "swin_tiny_patch4_window7_224": PYRAMID,
    "swinv2_tiny_window8_256": PYRAMID,
    "beit_base_patch16_224": FLAT,
    "vit_relpos_small_patch16_224": FLAT,
}


class Holder(nn.Module):
    """A model of one layer."""

    def __init__(self, layer):
        super().__init__()
        self.attn = layer

    def forward(self, *args, **kwargs):
        return self.attn(*args, **kwargs)


def scattered(model):
    """Move all parameters, so that none is at the zero or one that it starts at."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def small(name, **args):
    """Return a small model of timm, and images for it."""
    torch.manual_seed(0)
    model = scattered(timm.create_model(name, num_classes=5, **MODELS[name] | args))
    return model, torch.randn(2, 3, MODELS[name]["img_size"], MODELS[name]["img_size"])


def layers_of(model):
    return [layer for layer in model.modules() if isinstance(layer, HostLayer)]


def test_every_layer_is_tested():
    assert {type(layer) for layer, _, _ in LAYERS.values()} == set(HOST_LAYERS)


@pytest.mark.parametrize("case", LAYERS)
def test_dot_product_gives_what_the_layer_gives(case):
    layer, shape, more = LAYERS[case]
    before = scattered(Holder(copy.deepcopy(layer)))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    after = az.swap_mixers(copy.deepcopy(before), "DotProduct")
    assert type(after.attn) is HOST_LAYERS[type(layer)]
    assert isinstance(after.attn, type(layer))
    assert list(after.state_dict()) == list(before.state_dict())
    expected, mixed = before(x, **more), after(x, **more)
    assert_close(mixed, expected, rtol=0, atol=1e-5)
    expected.square().sum().backward()
    mixed.square().sum().backward()
    for (name, one), other in zip(before.named_parameters(), after.parameters(), strict=True):
        assert_close(other.grad, one.grad, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_with_dot_product_has_its_logits_and_weights(name):
    model, images = small(name)
    swapped = az.swap_mixers(copy.deepcopy(model), "DotProduct")
    assert layers_of(swapped)
    assert not any(type(layer) in HOST_LAYERS for layer in swapped.modules())
    assert_close(swapped(images), model(images), rtol=0, atol=1e-5)
    swapped.load_state_dict(model.state_dict())
    for twin in (pickle.loads(pickle.dumps(swapped)), copy.deepcopy(swapped)):
        assert_close(twin(images), model(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3", "swin_tiny_patch4_window7_224"])
def test_every_mixer_stands_there_or_is_refused_by_name(name):
    model, images = small(name)
    kinds = [type(module) for module in model.modules()]
    fitting = fitting_mixers(bias=name.startswith("swin"), grid=True)
    assert {"DotProduct", "Probabilistic"} <= set(fitting) < set(az.list_mixers("self"))
    for mixer in az.list_mixers("self"):
        twin = copy.deepcopy(model)
        if mixer not in fitting:
            with pytest.raises(az.InputError, match=f"^{mixer}: .* has no place for this reading.*DotProduct"):
                az.swap_mixers(twin, mixer)
            assert [type(module) for module in twin.modules()] == kinds
            continue
        loss = az.swap_mixers(twin, mixer).train()(images).square().mean()
        (loss + az.auxiliary_loss(twin)).backward()
        unread = [key for key, value in twin.named_parameters() if value.requires_grad and value.grad is None]
        assert not unread, (mixer, unread)
        assert all(layer.mixer.grid == (4, 4) for layer in layers_of(twin))


def test_keys_that_no_reading_takes_wait_without_gradient():
    model = Holder(copy.deepcopy(LAYERS["eva with all options"][0]))
    az.swap_mixers(model, "VarsD", grid=(1, 5), num_prefix_tokens=1)
    assert not any(p.requires_grad for p in (*model.attn.k_proj.parameters(), *model.attn.k_norm.parameters()))
    az.swap_mixers(model, "DotProduct")
    assert all(p.requires_grad for p in model.parameters())


def test_what_a_mixer_learned_is_kept_by_the_next_of_its_kind():
    model = Holder(copy.deepcopy(LAYERS["metaformer"][0]))
    with torch.no_grad():
        az.swap_mixers(model, "VarsD").attn.mixer.w1.fill_(0.5)
    az.swap_mixers(model, "VarsD", steps=3)
    assert model.attn.mixer.steps == 3
    assert model.attn.mixer.w1.item() == 0.5


def test_mixers_are_told_their_layer_and_the_grid_of_each_pass():
    model, _ = small("vit_small_patch16_dinov3", dynamic_img_size=True)
    az.swap_mixers(model, "Neighborhood", kernel=3)
    model(torch.randn(1, 3, 16, 24))
    assert {layer.mixer.grid for layer in layers_of(model)} == {(4, 6)}
    assert {layer.mixer.num_prefix_tokens for layer in layers_of(model)} == {model.num_prefix_tokens}
    az.swap_mixers(model, "Differential")
    assert layers_of(model)[0].mixer.lambda_init < layers_of(model)[1].mixer.lambda_init


def test_windows_tell_mixers_when_their_size_changes():
    model, _ = small("swin_tiny_patch4_window7_224")
    az.swap_mixers(model, "DotProduct").set_input_size((48, 48), window_size=6)
    assert {layer.mixer.grid for layer in layers_of(model)} == {(6, 6)}
    assert model(torch.randn(1, 3, 48, 48)).shape == (1, 5)


def test_mixers_of_some_layers():
    model, images = small("eva02_tiny_patch14_224")
    az.swap_mixers(model, layers={"last": "Twicing"})
    assert [type(layer.mixer).__name__ for layer in layers_of(model)] == ["Twicing"]
    assert type(model.blocks[0].attn) is eva.EvaAttention
    assert model(images).isfinite().all()


def test_build_model_with_a_host():
    model = build_model(
        "swin_tiny_patch4_window7_224",
        num_classes=3,
        image_size=(32, 32),
        mixer="Probabilistic",
        model_args={key: value for key, value in PYRAMID.items() if key != "img_size"},
    )
    assert {type(layer.mixer).__name__ for layer in layers_of(model)} == {"Probabilistic"}


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (timm.models.xcit.XCA(16, 2), "xcit.XCA mixes channels, not tokens"),
        (timm.models.cait.TalkingHeadAttn(16, 2), "TalkingHeadAttn mixes the scores of its heads"),
        (timm.models.cait.ClassAttn(16, 2), "ClassAttn reads for one token alone"),
        (timm.layers.AttentionPoolLatent(16, num_heads=2), "AttentionPoolLatent reads for one token alone"),
        (timm.models.pvt_v2.Attention(16, 2, sr_ratio=2), "pvt_v2.Attention reads fewer keys"),
        (nn.Linear(16, 16), "hosts have timm's Attention"),
    ],
)
def test_attention_of_another_kind_is_refused_with_its_reason(layer, reason):
    with pytest.raises(az.InputError, match=f"Holder has no attention to swap.*{reason}"):
        az.swap_mixers(Holder(layer), "DotProduct")


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (tnt.Attention(16, 8, 2), "tnt.Attention can have no mixer: its values are of another width"),
        (tiny_vit.Attention(16, 4, 2, attn_ratio=2, resolution=WINDOW), "its values are of another width"),
        (hiera.MaskUnitAttention(16, 16, 2, q_stride=4), "pools its queries"),
    ],
)
def test_layers_whose_options_leave_no_place_stay_timms(layer, reason):
    with pytest.raises(az.InputError, match=reason):
        az.swap_mixers(Holder(layer), "DotProduct")
    both = nn.ModuleList([Holder(layer), Holder(tnt.Attention(16, 16, 2))])
    assert [isinstance(part.attn, HostLayer) for part in az.swap_mixers(both, "DotProduct")] == [False, True]


def test_no_grid_no_neighbours():
    with pytest.raises(az.InputError, match="^Neighborhood: Holder .* needs the grid .*these fit: .*Linear"):
        az.swap_mixers(Holder(metaformer.Attention(16, head_dim=8)), "Neighborhood")


def test_dropout_that_a_reading_does_not_have_is_refused():
    with pytest.raises(az.InputError, match="VarsD: attn_drop=0.5"):
        az.swap_mixers(Holder(metaformer.Attention(16, head_dim=8, attn_drop=0.5)), "VarsD")
