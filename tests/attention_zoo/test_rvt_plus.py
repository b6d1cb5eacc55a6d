"""RVT*: dot products scaled by position."""

import pytest
import timm
import torch
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.models.position_scaling import PositionScaled
from tests.attention_zoo.test_models import ONE_STAGE, RVT, images


def plus(name="rvt_tiny_plus", size=(48, 80), **args):
    torch.manual_seed(0)
    return timm.create_model(name, img_size=size, num_classes=5, **{**RVT, **args}).eval()


def scaled(model):
    return [type(block.attn) is PositionScaled for stage in model.transformers for block in stage.blocks]


def test_the_formula():
    mixer = PositionScaled(8, 2, grid=(2, 3))
    torch.nn.init.normal_(mixer.att_mask)
    x = torch.randn(2, 6, 8)
    q, k, v = mixer.project(x)
    out = torch.empty_like(v)
    for head in range(2):
        for i in range(6):
            scores = [
                (q[:, head, i] * k[:, head, j]).sum(-1) / 2 * mixer.att_mask[head, i, j].sigmoid() for j in range(6)
            ]
            out[:, head, i] = (torch.stack(scores, 1).softmax(1)[..., None] * v[:, head]).sum(1)
    assert_close(mixer.mix(q, k, v), out)
    assert_close(mixer.attention_map(x).sum(-1), torch.ones(2, 2, 6))


def test_equal_scales_are_dot_product_attention_at_another_temperature():
    mixer, plain = PositionScaled(8, 2, grid=(3, 3)), az.create_mixer("DotProduct", 8, 2)
    q, k, v = torch.randn(3, 1, 2, 9, 4)
    torch.nn.init.constant_(mixer.att_mask, 100.0)
    assert_close(mixer.mix(q, k, v), plain.mix(q, k, v))


def test_which_blocks_are_scaled():
    assert scaled(plus()) == [True, True, False]
    assert scaled(plus("rvt_small_plus", **(ONE_STAGE | {"depths": (7,)}))) == [True] * 5 + [False] * 2
    assert scaled(plus("rvt_base_plus", **ONE_STAGE)) == [True] * 2
    with torch.device("meta"):
        released = timm.create_model("rvt_tiny_plus")
    assert released.state_dict()["transformers.0.blocks.9.attn.att_mask"].shape == (6, 196, 196)
    assert sum(scaled(released)) == 10


def test_other_sizes_of_images_resample_the_scales():
    model = plus()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("att_mask"):
                parameter.normal_()
    assert model(images((64, 64))).isfinite().all()
    mixer = model.transformers[0].blocks[0].attn
    mixer.set_grid((4, 4))
    resampled = mixer.scales(16)
    assert resampled.shape == (2, 16, 16) and ((resampled > 0) & (resampled < 1)).all()
    own = mixer.made_for
    mixer.set_grid(own)
    assert_close(mixer.scales(own[0] * own[1]), mixer.att_mask.sigmoid())


def test_scales_resample_each_place_by_itself():
    """Of a table that is a product of a function of both places, each function is resampled."""
    mixer = PositionScaled(4, 1, grid=(2, 2))
    read, by = torch.tensor([1.0, 2, 3, 4]), torch.tensor([0.0, 1, 0, 1])
    with torch.no_grad():
        mixer.att_mask[0] = by[:, None] * read
    mixer.set_grid((4, 2))
    larger = [
        torch.nn.functional.interpolate(x.view(1, 1, 2, 2), (4, 2), mode="bilinear").flatten() for x in (by, read)
    ]
    assert_close(mixer.scales(8)[0], (larger[0][:, None] * larger[1]).sigmoid())


def test_every_parameter_learns():
    model = plus().train()
    model(images()).square().sum().backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]


def test_swapping_keeps_the_scales_of_dot_products_or_is_refused():
    model = plus().eval()
    torch.nn.init.normal_(model.transformers[0].blocks[0].attn.att_mask)
    logits, state = model(images()), set(model.state_dict())
    for mixer, options in (("VarsD", {}), ("DotProduct", {"attn_drop": 0.1})):
        with pytest.raises(az.InputError, match=f"scale dot products by position, which {mixer}"):
            az.swap_mixers(model, mixer, **options)
    assert_close(az.swap_mixers(model, "DotProduct")(images()), logits)
    assert set(model.state_dict()) == state
    az.swap_mixers(model, layers={"last": "VarsD"})
    assert model(images()).isfinite().all()


def test_readings_without_dot_products_are_refused():
    with pytest.raises(az.InputError, match=r"scale dot products by position, which VarsD.* does not do"):
        plus(mixer="VarsD")
    with pytest.raises(az.InputError, match="PositionScaled: it needs grid="):
        PositionScaled(8, 2)
