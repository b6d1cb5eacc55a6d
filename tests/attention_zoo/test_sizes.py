"""Sizes of images: what a model would not see is refused, and position embeddings at other sizes."""

import pytest
import timm
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import resample_abs_pos_embed
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.models import build_backbone, build_model
from attention_zoo.models.checkpoints import load_checkpoint
from attention_zoo.models.rvt import ConvStem
from attention_zoo.models.sizes import check_patches

VIT = {"embed_dim": 12, "depth": 1, "num_heads": 2, "patch_size": 8}
SWIN = {"embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 2, 2)}
SMALL = {
    "vit_tiny_patch16_224": VIT,
    "gfnet_tiny": VIT,
    "deit_conv_tiny_patch16_224": VIT,
    "absvit_tiny_patch16_224": VIT,
    "rvt_tiny": {"embed_dims": (12,), "depths": (1,), "num_heads": (2,)},
    "swin_tiny_patch4_window7_224": SWIN,
    "pit_ti_224": {"depth": (1, 1, 1), "patch_size": 8, "stride": 8},
    "crossvit_tiny_240": {"img_scale": (1, 1)},
}


def build(name, size, **args):
    return build_model(name, num_classes=3, image_size=size, model_args={**SMALL.get(name, {}), **args})


@pytest.mark.parametrize("size", [(30, 30), (32, 30), (29, 32)])
@pytest.mark.parametrize("name", SMALL)
def test_images_that_would_not_be_seen_whole_are_refused(name, size):
    nearest = r"nearest sizes: \d+ x \d+ or \d+ x \d+$"
    with pytest.raises(az.InputError, match=f"{size[0]} x {size[1]}.*{nearest}") as caught:
        build(name, size)
    assert "\n" not in str(caught.value)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(("vit_tiny_patch16_224", "gfnet_tiny", "rvt_tiny")), st.tuples(*[st.integers(1, 70)] * 2))
def test_every_pixel_of_an_image_that_is_not_refused_is_seen(name, size):
    try:
        model = build(name, size).eval()
    except az.InputError:
        patch = 16 if name == "rvt_tiny" else 8
        assert any(side % patch for side in size)
        return
    image = torch.randn(1, 3, *size, requires_grad=True)
    model.forward_features(image).square().sum().backward()
    seen = image.grad.abs().sum((0, 1)) > 0
    assert seen.any(0).all() and seen.any(1).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mixer_s32_224", "patches of 32 x 32 pixels do not divide images of 40 x 46.*: 32 x 32 or 64 x 64$"),
        ("convnext_atto", "of 40 x 46 pixels only 40 rows and 44 columns would be seen; .*: 40 x 44 or 40 x 48$"),
        ("convmixer_768_32", "of 40 x 46 pixels only 35 rows and 42 columns would be seen"),
    ],
)
def test_stems_of_other_names(name, message):
    with pytest.raises(az.InputError, match=message):
        build_model(name, num_classes=3, image_size=(40, 46))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"img_size": 64}, "built for images of 64 x 64 pixels, and these are of 32 x 32"),
        ({"img_size": 7}, "built for images of 7 x 7 pixels, and these are of 32 x 32"),
        ({"in_chans": 1}, "model_args: in_chans=1, but it is 3"),
        ({"num_classes": 7}, "model_args: num_classes=7, but it is 3"),
        ({"patch_size": 64}, "patches of 64 x 64 .* nearest sizes: 64 x 64$"),
        ({"dynamic_img_size": True, "patch_size": 12}, "patches of 12 x 12 .* nearest sizes: 24 x 24 or 36 x 36$"),
    ],
)
def test_a_model_that_is_for_other_images(args, message):
    with pytest.raises(az.InputError, match=rf"{message}"):
        build("vit_tiny_patch16_224", (32, 32), **args)


def test_a_vit_that_pads_takes_any_size():
    model = build("vit_tiny_patch16_224", (30, 21), dynamic_img_size=True, dynamic_img_pad=True).eval()
    assert model(torch.randn(1, 3, 30, 21)).shape == (1, 3)
    with pytest.raises(az.InputError, match="images of 30 x 21 pixels cannot be taken: "):
        build("vit_tiny_patch16_224", (30, 21), dynamic_img_pad=True)  # timm has positions for the whole patches only


def test_models_of_which_nothing_is_known_are_tried():
    with pytest.raises(az.InputError, match="'hiera_tiny_224': images of 30 x 30 pixels cannot be taken: "):
        build("hiera_tiny_224", (30, 30), stages=(1, 1, 1, 1))
    model = build("resnet10t", (30, 30))
    assert model.training and int(model.bn1.num_batches_tracked) == 0


def test_our_models_refuse_by_themselves():
    for name in ("gfnet_tiny", "deit_conv_tiny_patch16_224", "absvit_tiny_patch16_224"):
        with pytest.raises(az.InputError, match="patches of 8 x 8 pixels do not divide images of 30 x 30"):
            timm.create_model(name, img_size=30, **VIT)


def test_a_stem_is_looked_at_without_a_trace():
    stem = torch.nn.Module()
    stem.patch_embed = ConvStem(3, 4)
    before = {key: tensor.clone() for key, tensor in stem.state_dict().items()}
    state = torch.get_rng_state()
    check_patches(stem, (32, 48))
    assert_close(dict(stem.state_dict()), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state) and stem.patch_embed.training


def test_backbones_pad():
    for name, args in (("vit_tiny_patch16_224", VIT), ("swin_tiny_patch4_window7_224", SWIN)):
        backbone = build_backbone(name, image_size=(30, 21), model_args=args).eval()
        finest = backbone(torch.randn(1, 3, 30, 21))[0]
        assert finest.shape[2] * backbone.strides[0] >= 30 and finest.shape[3] * backbone.strides[0] >= 21
    with pytest.raises(az.InputError, match=r"image_size=\(5, 30\): vit_tiny_patch16_224 has patches of \(8, 8\)"):
        build_backbone("vit_tiny_patch16_224", image_size=(5, 30), model_args=VIT)
    with pytest.raises(az.InputError, match="cannot take images padded to 64 x 64 pixels: .*32"):
        build_backbone("swin_tiny_patch4_window7_224", image_size=(32, 32), model_args=SWIN)(torch.randn(1, 3, 64, 64))


def plainly(positions, grid, old, prefix):
    """The authors' resampling: bicubic (a = -0.75), prefix kept."""
    planes = positions[:, prefix:].unflatten(1, old).permute(0, 3, 1, 2)
    moved = F.interpolate(planes, size=grid, mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :prefix], moved.flatten(2).mT], 1)


RESAMPLED = [("absvit_tiny_patch16_224", 1), ("gfnet_tiny", 0)]


@pytest.mark.parametrize("variant", ["released", "paper"])
@pytest.mark.parametrize(("name", "prefix"), RESAMPLED)
class TestPositionEmbeddings:
    """Released models resample without antialiasing; all others as timm does."""

    def model(self, name, variant, **args):
        torch.manual_seed(0)
        built = timm.create_model(name, **{**VIT, "img_size": 32, "num_classes": 3, "variant": variant, **args}).eval()
        return built, getattr(built, "model", built)

    def expected(self, positions, variant, grid, prefix):
        if variant == "released":
            return plainly(positions, grid, (4, 4), prefix)
        return resample_abs_pos_embed(positions, grid, (4, 4), num_prefix_tokens=prefix)

    def test_of_a_size_set_later(self, name, prefix, variant):
        _, vit = self.model(name, variant)
        expected = self.expected(vit.pos_embed.detach(), variant, (7, 9), prefix)
        vit.set_input_size((56, 72))
        assert_close(vit.pos_embed.detach(), expected)
        assert vit.pos_embed.requires_grad

    def test_of_sizes_that_vary(self, name, prefix, variant):
        _, vit = self.model(name, variant, dynamic_img_size=True)
        patches = torch.zeros(1, 7, 9, 12)
        tokens = vit._pos_embed(patches) - (0 if vit.cls_token is None else F.pad(vit.cls_token, (0, 0, 0, 63)))
        assert_close(tokens, self.expected(vit.pos_embed, variant, (7, 9), prefix))

    def test_of_weights_for_another_task(self, name, prefix, variant, tmp_path):
        mixer = {"mixer": "DotProduct"}
        large, larger = self.model(name, variant, img_size=(56, 72), **mixer)
        source, small_vit = self.model(name, variant, **mixer)
        torch.save(source.state_dict(), tmp_path / "small.pth")
        load_checkpoint(large, tmp_path / "small.pth", fresh_classifier=True)
        assert_close(larger.pos_embed, self.expected(small_vit.pos_embed, variant, (7, 9), prefix))


def test_the_two_resamplings_differ():
    positions = torch.randn(1, 16, 12, generator=torch.Generator().manual_seed(0))
    plain, antialiased = plainly(positions, (7, 9), (4, 4), 0), resample_abs_pos_embed(positions, (7, 9), (4, 4), 0)
    assert (plain - antialiased).norm() / plain.norm() > 0.01
