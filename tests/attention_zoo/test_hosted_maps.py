"""Maps of layers that project, turn and bias queries and keys themselves, and have a mixer inside."""

import pytest
import timm
import torch
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.analysis.maps import attention_maps, attention_pictures, observe, step_pictures
from attention_zoo.analysis.premises import examine
from attention_zoo.hosts.base import HostLayer

SMALL = {"img_size": 32, "num_classes": 3, "depth": 2, "num_heads": 2, "embed_dim": 16}
HOSTS = {
    "vit_small_patch16_dinov3": {"patch_size": 8},
    "eva02_tiny_patch14_224": {"patch_size": 8},
    "beit_base_patch16_224": {"patch_size": 8},
    "vit_relpos_small_patch16_224": {"patch_size": 8},
}


def host(name, mixer=None, **options):
    torch.manual_seed(0)
    model = timm.create_model(name, **SMALL, **HOSTS[name]).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # biases of positions begin at zero
    return az.swap_mixers(model, mixer, **options) if mixer else model


def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", HOSTS)
def test_the_map_is_what_the_layer_did(name):
    model = host(name, "DotProduct")
    layer = [part for part in model.modules() if isinstance(part, HostLayer)][1]
    heads = {}
    mix = layer.mix
    layer.mix = lambda q, k, v, *how: heads.setdefault("out", mix(q, k, heads.setdefault("v", v), *how))
    model(images())
    del layer.mix
    weights = attention_maps(model, images(), "1")[1]
    assert weights.shape[1:] == (2, weights.shape[-1], weights.shape[-1]) and weights.shape[-1] >= 16
    assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))
    assert_close(weights @ heads["v"], heads["out"])
    assert "mix" not in vars(layer)


@pytest.mark.parametrize("name", HOSTS)
def test_timms_own_attention_has_the_map_of_dot_product(name):
    own, swapped = (attention_maps(host(name, mixer), images(), "0-1") for mixer in (None, "DotProduct"))
    assert own.keys() == swapped.keys() == {0, 1}
    assert_close(own, swapped)


def test_pictures_are_on_the_grid_without_the_prefix():
    model = host("vit_small_patch16_dinov3", "DotProduct")
    (seen,) = observe(model, images()).layers
    assert seen.num_prefix_tokens == 5 and seen.grid == (4, 4) and seen.has_class_token
    assert attention_pictures(seen)[""].shape == (2, 4, 4)
    read = attention_maps(model, images())[1][:, :, 0, 5:].mean(1).unflatten(-1, (4, 4))
    assert_close(attention_pictures(seen, query="cls")[""], read)


def test_steps_of_a_recurrent_reading_in_a_host():
    (seen,) = observe(host("eva02_tiny_patch14_224", "VarsD", steps=2), images()).layers
    pictures = step_pictures(seen)
    assert list(pictures) == ["step 0", "step 1", "step 2"]
    assert_close(pictures["step 2"], attention_pictures(seen)[""])


def test_premises_of_layers_in_a_host():
    found = examine(host("eva02_tiny_patch14_224", "DotProduct"), images(), layers="last")
    assert [each.reading for each in found] == ["any reading", "DotProduct"]
    assert all(values.values.isfinite().all() for each in found for values in each.measures.values())


def test_windows_have_no_map_of_the_image():
    small = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2)}
    model = timm.create_model("swin_tiny_patch4_window7_224", **small)
    with pytest.raises(az.InputError, match="layer 0 of SwinTransformer attends inside windows, 16 of each image"):
        attention_maps(model, images(), "0")
