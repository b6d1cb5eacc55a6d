"""Backbones of dense predictors: every kind of model, every self-mixer, both passes, images of any size."""

import itertools
import pickle
from copy import deepcopy
from functools import partial

import pytest
import timm
import torch
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.errors import InputError
from attention_zoo.mixers.axial import Axial
from attention_zoo.models import build_backbone, build_model
from attention_zoo.models.token_hosts import token_model
from tests.attention_zoo.test_models import RVT, SMALL
from tests.mixers import CORE, LEAST, marks

SELF = az.list_mixers("self")
VIT = {"embed_dim": 24, "depth": 4, "num_heads": 2}
ARGS = {
    "vit_tiny_patch16_224": VIT,
    "absvit_tiny_patch16_224": VIT,
    "gfnet_tiny": VIT,
    "deit_conv_tiny_patch16_224": VIT,
    "rvt_tiny": {**RVT, "depths": (3, 1)},
    "botnet50": SMALL["botnet50"],
}
SIZE = (64, 96)


def build(name, seed=0, **options):
    torch.manual_seed(seed)
    model_args = {**ARGS.get(name, {}), **options.pop("model_args", {})}
    return build_backbone(name, **{"image_size": SIZE, **options}, model_args=model_args).eval()


def image(size=SIZE, batch=2):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


def assert_fits(backbone, maps, size):
    assert len(maps) == len(backbone.channels) == len(backbone.strides)
    for found, channels, stride in zip(maps, backbone.channels, backbone.strides, strict=True):
        assert found.shape[1:] == (channels, size[0] // stride, size[1] // stride)
        assert found.isfinite().all()


GRIDDED = (*LEAST, "GlobalFilter", "VarsS", "Window")
"""The default tests put these into every kind of model, and all core mixers into plain vision transformers."""


@pytest.mark.parametrize(
    ("name", "mixer"),
    [
        pytest.param(name, mixer, marks=marks(mixer, CORE if name.startswith("vit_") else GRIDDED))
        for name, mixer in itertools.product(ARGS, SELF)
    ],
)
def test_every_mixer_at_other_sizes(name, mixer):
    backbone = build(name, mixer=mixer)
    for size in (SIZE, (96, 64), (64, 128), (64, 64)):
        assert_fits(backbone, backbone(image(size)), size)
    right, below = (-side % max(backbone.strides) for side in (70, 50))
    assert_close(backbone(image((50, 70))), backbone(torch.nn.functional.pad(image((50, 70)), (0, right, 0, below))))


@pytest.mark.parametrize("name", ["resnet18", "hrnet_w18_small", "swin_tiny_patch4_window7_224"])
def test_stages_of_other_models_of_timm(name):
    backbone = build_backbone(name, image_size=(64, 128)).eval()
    assert_fits(backbone, backbone(image((64, 128), 1)), (64, 128))
    assert backbone.strides == [4, 8, 16, 32]


@pytest.mark.parametrize("mixer", [None, "VarsD", "GlobalFilter"])
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "gfnet_tiny"])
def test_last_map_is_the_models_features(name, mixer):
    size = VIT
    torch.manual_seed(0)
    model = build_model(name, num_classes=0, image_size=SIZE, mixer=mixer, model_args=size).eval()
    backbone = build(name, mixer=mixer, model_args=size)
    tokens = model.forward_features(image())[:, model.num_prefix_tokens :]
    maps = backbone(image())
    assert_close(maps[-1].flatten(2).mT, tokens)
    first = model.forward_intermediates(image(), indices=[0], intermediates_only=True)[0]
    assert_close(maps[0], first)


def test_last_map_of_rvt():
    torch.manual_seed(0)
    model = build_model("rvt_tiny", num_classes=0, image_size=SIZE, model_args=ARGS["rvt_tiny"]).eval()
    assert_close(build("rvt_tiny")(image())[-1], model.forward_features(image()))


@pytest.mark.parametrize("mode", ["absvit", "feedback", "perceiver_io", "mask_att", "qkv"])
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "rvt_tiny"])
def test_second_pass(name, mode):
    backbone = build(name, mixer="VarsD", top_down={"mode": mode, "alpha": 3.0})
    model = backbone.model
    assert isinstance(model, az.TopDown) and model.mode == mode and model.alpha == 3
    maps = backbone(image())
    last = model.forward_features(image())
    assert_close(maps[-1].flatten(2).mT, last if name == "rvt_tiny" else last[:, 1:])
    plain = build(name, mixer="VarsD")(image())
    if mode == "perceiver_io":  # reads what it found, and looks no second time
        assert_close(maps[:-1], plain[:-1])
    else:
        assert not torch.allclose(maps[-1], plain[-1])
    assert_fits(backbone, backbone(image((96, 160))), (96, 160))


def test_absvit_looks_twice_and_a_plain_vit_with_its_mode_is_absvit():
    absvit = build("absvit_tiny_patch16_224", model_args={"variant": "paper"})
    plain = build("vit_tiny_patch16_224", top_down="absvit", seed=7)
    plain.load_state_dict(absvit.state_dict())
    assert_close(plain(image()), absvit(image()))


@pytest.mark.parametrize("top_down", [None, "absvit"])
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "rvt_tiny"])
def test_every_parameter_gets_a_gradient_also_with_checkpointing(name, top_down):
    gradients = []
    for saves in (False, True):
        backbone = build(name, mixer="DotProduct", top_down=top_down).train()
        backbone.set_grad_checkpointing(saves)
        sum(x.square().sum() for x in backbone(image())).backward()
        missing = [n for n, p in backbone.named_parameters() if p.grad is None]
        assert not missing
        gradients.append([p.grad for p in backbone.parameters()])
    assert_close(*gradients)


@pytest.mark.parametrize("last", [1, 2])
@pytest.mark.parametrize("top_down", [None, "absvit", "feedback", "mask_att", "qkv"])
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "rvt_tiny"])
def test_layers_that_no_map_needs_are_not_trained(name, top_down, last):
    """RVT's first stage has three layers: what is left out is one of them and a stage, or the stage alone."""
    options = {"mixer": "VarsD", "top_down": top_down}
    backbone, whole = (build(name, out_indices=indices, **options) for indices in ([0, last], [0, last, 3]))
    maps = backbone(image())
    assert_close(maps, whole(image())[:2])
    sum(x.square().sum() for x in maps).backward()
    assert not [n for n, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
    fixed = [n for n, p in backbone.named_parameters() if not p.requires_grad]
    decoded = top_down in ("absvit", "feedback", "qkv")
    assert fixed == [f"model.decoders.{index}.linear2.weight" for index in range(last + 1, 4) if decoded]
    if top_down is None:
        assert not [n for n in backbone.state_dict() if ".blocks.3." in n or "transformers.1." in n or "pools" in n]


def test_a_second_look_at_the_last_layer_alone_needs_its_map():
    with pytest.raises(InputError, match="changes layer 3 alone"):
        build("vit_tiny_patch16_224", mixer="VarsD", top_down="perceiver_io", out_indices=[0, 2])


def test_out_indices():
    assert build("vit_tiny_patch16_224", model_args={"depth": 12}).indices == [2, 5, 8, 11]
    assert build("vit_tiny_patch16_224", model_args={"depth": 2}).indices == [0, 1]
    backbone = build("vit_tiny_patch16_224", out_indices=[0, 2])
    assert len(backbone.model.blocks) == 3  # what nothing reads is left out
    assert len(backbone(image())) == 2
    assert build("vit_tiny_patch16_224", out_indices=[0, -1]).indices == [0, 3]
    for wrong in ([3, 1], [0, 4], []):
        with pytest.raises(InputError, match="layers 0 to 3"):
            build("vit_tiny_patch16_224", out_indices=wrong)


@pytest.mark.parametrize("options", [{"positions": "factored"}, {"positions": "full"}, {"window": 3}])
def test_what_a_mixer_knows_of_places_follows_the_grid(options):
    backbone = build("vit_tiny_patch16_224", mixer=partial(az.MIXERS["Probabilistic"], **options))
    for size in (SIZE, (48, 128)):
        assert_fits(backbone, backbone(image(size)), size)
    local = build("vit_tiny_patch16_224", mixer=partial(Axial, mixer="VarsS", context=2))
    assert_fits(local, local(image((128, 32))), (128, 32))


def test_released_tables_are_bound_to_their_grid():
    backbone = build("rvt_tiny", model_args={"mixer": "VarsSD", "variant": "released"})
    backbone(image())
    with pytest.raises(InputError, match="bound to grid"):
        backbone(image((64, 64)))


def test_copies_and_files():
    backbone = build("absvit_tiny_patch16_224")
    assert_close(deepcopy(backbone)(image()), backbone(image()))
    assert_close(pickle.loads(pickle.dumps(backbone))(image()), backbone(image()))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "absvit_tiny_patch16_224", "botnet50"])
def test_starts_from_a_classifier_at_another_size(name, tmp_path):
    torch.manual_seed(0)
    classifier = timm.create_model(name, num_classes=5, img_size=(96, 96), **ARGS[name])
    torch.save(classifier.state_dict(), tmp_path / "trained.pth")
    backbone = build(name, seed=3, weights=tmp_path / "trained.pth")
    kept = {k: v for k, v in backbone.model.state_dict().items() if not k.endswith("pos_embed")}
    assert_close(kept, {k: classifier.state_dict()[k] for k in kept})


def test_weight_decay():
    names = build("absvit_tiny_patch16_224").no_weight_decay()
    assert {"model.prompt", "model.model.pos_embed", "model.model.cls_token"} <= names


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vit_tny_patch16_224", {}, "vit_tiny_patch16_224"),
        ("resnet18", {"top_down": "absvit"}, "cannot be looked through twice"),
        ("resnet18", {"mixer": "VarsD"}, "no attention to swap"),
        ("vit_tiny_patch16_224", {"top_down": "twice"}, "must be one of: absvit"),
    ],
)
def test_bad_input(name, options, message):
    with pytest.raises(InputError, match=message):
        build(name, **options)


def test_what_an_entry_point_builds_is_seen_on_what_it_builds(monkeypatch):
    monkeypatch.setattr(timm.model_entrypoint("vit_tiny_patch16_224"), "__annotations__", {})
    backbone = build("vit_tiny_patch16_224", out_indices=[1, -1])
    assert_fits(backbone, backbone(image()), SIZE)
    assert backbone.strides == [16, 16]


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "rvt_tiny", "absvit_tiny_patch16_224"])
def test_a_backbone_starts_with_the_weights_of_the_model(name):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, img_size=SIZE, **ARGS[name])
    weights = build(name).state_dict()
    own = {key.removeprefix("model."): tensor for key, tensor in weights.items()}
    assert own.keys() <= model.state_dict().keys()
    assert all(torch.equal(model.state_dict()[key], tensor) for key, tensor in own.items())


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "rvt_tiny", "absvit_tiny_patch16_224", "gfnet_tiny"])
def test_a_token_model_gives_its_classifiers_tokens_as_the_last_map(name):
    torch.manual_seed(0)
    model = build_model(name, num_classes=3, image_size=SIZE, model_args=ARGS[name]).eval()
    tokens = token_model(model)
    host = tokens.token_host()
    first, last = tokens.forward_maps(image(), [0, len(host.layers) - 1])
    assert first.shape[1] == host.layers[0].dim
    features = model.forward_features(image())
    if features.dim() == 3:
        prefix = getattr(model, "num_prefix_tokens", 1 if name.startswith("absvit") else 0)
        features = features[:, prefix:].mT.unflatten(2, last.shape[2:])
    assert_close(last, features, rtol=0, atol=0)
