"""Every model of ours with every self-mixer; weights from files, the authors' and bad ones."""

import argparse
import os
import pickle
from functools import partial

import pytest
import timm
import torch
from timm.models import _factory, _helpers
from torch import nn
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.compat import host_in_construction, requested_checkpoint
from attention_zoo.grids import outer_mixers
from attention_zoo.mixers.vars.released import ChannelBatchNorm
from attention_zoo.models import build_model
from attention_zoo.models.botnet import MapMixer
from attention_zoo.models.checkpoints import load_checkpoint
from attention_zoo.models.conv_embed import ConvPatchEmbed
from attention_zoo.models.rvt import ConvStem
from tests.mixers import costly

SELF = az.list_mixers("self")
VIT = {"embed_dim": 24, "depth": 2, "num_heads": 2, "patch_size": 8}
RVT = {"embed_dims": (12, 24), "depths": (2, 1), "num_heads": (2, 4)}
ONE_STAGE = {"embed_dims": (24,), "depths": (2,), "num_heads": (2,)}
FAN = {"embed_dim": 24, "depth": 2, "num_heads": 2}
RESNET = {"layers": (1, 1, 1, 2), "channels": (8, 8, 8, 12), "num_heads": 2}
SMALL = {
    "rvt_tiny": RVT,
    "rvt_small": ONE_STAGE,
    "rvt_base": ONE_STAGE,
    "deit_conv_tiny_patch16_224": VIT,
    "deit_conv_small_patch16_224": VIT,
    "gfnet_tiny": VIT,
    "gfnet_xs": VIT,
    "gfnet_small": VIT,
    "gfnet_base": VIT,
    "botnet50": RESNET,
    "fan_tiny": FAN,
    "fan_small": FAN,
    "fan_base": FAN,
    "fan_large": FAN,
}
"""What makes each model small."""
KINDS = ["rvt_tiny", "rvt_base", "deit_conv_tiny_patch16_224", "gfnet_tiny", "botnet50", "fan_tiny"]
"""One model of each construction."""
SIZE = (48, 80)
RELEASED = ["DotProduct", "Performer", "VarsD", "VarsS", "VarsSD"]


def build(name, seed=0, size=SIZE, **args):
    torch.manual_seed(seed)
    return timm.create_model(name, **{"img_size": size, "num_classes": 5, **SMALL[name], **args}).eval()


def images(size=SIZE, batch=2):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


def mixers_of(model):
    """The mixers of a model, without those inside another one, such as `Kuramoto`'s."""
    return outer_mixers(model)


@pytest.mark.parametrize("mixer", costly())
@pytest.mark.parametrize("name", KINDS)
class TestEveryMixerInEveryModel:
    def test_every_parameter_gets_a_gradient(self, name, mixer):
        model = build(name, mixer=mixer).train()
        assert all(type(found) is az.MIXERS[mixer] for found in mixers_of(model))
        out = model(images())
        assert out.shape == (2, 5)
        out.square().sum().backward()
        missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert not missing

    def test_one_image_is_one_of_a_batch(self, name, mixer):
        model = build(name, mixer=mixer)
        assert_close(model(images())[:1], model(images()[:1]), rtol=1e-4, atol=1e-5)

    def test_swapping(self, name, mixer):
        model = az.swap_mixers(build(name), mixer)
        assert all(type(found) is az.MIXERS[mixer] for found in mixers_of(model))
        assert [m.grid for m in mixers_of(model)] == [m.grid for m in mixers_of(build(name))]
        assert model(images()).isfinite().all()

    def test_state_round_trip_through_a_file(self, name, mixer, tmp_path):
        model = build(name, mixer=mixer)
        torch.save(model.state_dict(), tmp_path / "own.pth")
        twin = build(name, mixer=mixer, seed=9, checkpoint_path=tmp_path / "own.pth")
        assert_close(twin(images()), model(images()), rtol=0, atol=0)


@pytest.mark.parametrize("name", SMALL)
class TestEveryModel:
    def test_is_known_to_timm(self, name):
        assert timm.is_model(name)
        assert timm.get_pretrained_cfg(name).input_size == (3, 224, 224)
        assert build(name).default_cfg["architecture"] == name

    def test_gradient_checkpointing(self, name):
        gradients = []
        for enabled in (False, True):
            model = build(name).train()
            model.set_grad_checkpointing(enabled)
            model(images()).square().sum().backward()
            gradients.append([p.grad for p in model.parameters()])
        assert_close(*gradients)

    def test_classifier_and_head(self, name):
        model = build(name)
        features = model.forward_features(images())
        assert_close(model.forward_head(features), model(images()))
        before = model.forward_head(features, pre_logits=True)
        model.reset_classifier(7)
        assert model.get_classifier().out_features == model.num_classes == 7
        assert model(images()).shape == (2, 7)
        model.reset_classifier(0)
        assert_close(model(images()), before)

    def test_channels_and_dropout(self, name):
        model = build(name, in_chans=1, drop_rate=0.5, drop_path_rate=0.2).train()
        x = images()[:, :1]
        assert not torch.equal(model(x), model(x))
        assert build(name, num_classes=0)(images()).shape == (2, model.num_features)

    def test_copies_and_pickles(self, name):
        model = build(name)
        assert_close(pickle.loads(pickle.dumps(model))(images()), model(images()), rtol=0, atol=0)

    def test_no_weights_to_download(self, name):
        with pytest.raises(az.InputError, match=f"{name} has no weights.*checkpoint_path"):
            build(name, pretrained=True)

    def test_unknown_mixers_and_arguments(self, name):
        with pytest.raises(az.InputError, match="did you mean 'VarsD'"):
            build(name, mixer="VarzD")
        with pytest.raises(az.InputError, match="did you mean 'lam'"):
            build(name, mixer="VarsD", mixer_args={"lambd": 1})
        with pytest.raises(az.InputError, match="variant='printed'"):
            build(name, variant="printed")

    def test_the_mixer_takes_its_arguments(self, name):
        for mixer in ("VarsD", partial(az.MIXERS["VarsD"], lam=0.1), az.MIXERS["VarsD"]):
            found = mixers_of(build(name, mixer=mixer, mixer_args={"steps": 2}, variant="released"))
            assert {(m.steps, m.variant) for m in found} == {(2, "released")}

    def test_a_given_variant_stands(self, name):
        for mixer, args in (("VarsD", {"variant": "paper"}), (partial(az.MIXERS["VarsD"], variant="paper"), None)):
            assert mixers_of(build(name, mixer=mixer, mixer_args=args, variant="released"))[0].variant == "paper"

    def test_build_model_hands_the_size_on(self, name):
        model = build_model(name, num_classes=5, image_size=SIZE, mixer="VarsS", model_args=SMALL[name])
        assert model.eval()(images()).shape == (2, 5)


QUICKLY_COMPILED = ("rvt_tiny", "botnet50")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICKLY_COMPILED else [pytest.mark.slow]) for name in KINDS]
)
def test_compiles_and_exports(name):
    torch.compiler.reset()
    model = build(name)
    assert_close(torch.compile(model, backend="eager")(images()), model(images()))
    exported = torch.export.export(model, (images(),))
    assert_close(exported.module()(images()), model(images()))


class TestRVT:
    def test_grids_are_those_of_the_maps(self):
        stem = ConvStem(3, 4)
        assert all(stem(torch.zeros(1, 3, side, 15)).shape[2] == ConvStem.length(side) for side in range(15, 120))
        for size in ((31, 63), (47, 200), 224):
            model = build("rvt_tiny", size=size, mixer="VarsS")
            shape = (size, size) if isinstance(size, int) else size
            assert model(images(shape, batch=1)).shape == (1, 5)

    def test_other_sizes_at_run_time_but_for_tables_of_one_grid(self):
        for mixer in ("VarsD", "VarsS"):
            assert build("rvt_tiny", mixer=mixer)(images((64, 32))).shape == (2, 5)
        with pytest.raises(az.InputError, match="VarsS.*grid"):
            build("rvt_tiny", mixer="VarsS", variant="released")(images((64, 32)))

    def test_released_vars_s_is_normalised_by_batch(self):
        block = build("rvt_tiny", mixer="VarsS", variant="released").transformers[0].blocks[0]
        assert isinstance(block.norm1, nn.Identity) and isinstance(block.norm2, ChannelBatchNorm)
        assert isinstance(build("rvt_tiny", mixer="VarsS").transformers[0].blocks[0].norm1, nn.LayerNorm)

    def test_only_the_base_model_has_no_convolution_between_mixers(self):
        depthwise = {
            name: any("dwconv" in n for n, _ in build(name).named_modules()) for name in SMALL if "rvt" in name
        }
        assert depthwise == {"rvt_tiny": True, "rvt_small": True, "rvt_base": False}

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            ({"size": 14}, "img_size=14"),
            ({"depths": (1,)}, "one for each stage"),
            ({"global_pool": "max"}, "global_pool='max' must be 'avg'"),
        ],
    )
    def test_refusals(self, args, message):
        with pytest.raises(az.InputError, match=message):
            build("rvt_tiny", **args)


def released_vars_s(dim, num_heads, **host):
    """As a config builds it: a callable and no class."""
    return az.MIXERS["VarsS"](dim, num_heads, variant="released", **host)


class TestBlocksAroundTheirMixer:
    """RVT normalises by batch around the released VARS-S: it is given its mixer, and refuses another kind later."""

    @pytest.mark.parametrize("mixer", [partial(az.MIXERS["VarsS"], variant="released"), released_vars_s])
    def test_build_model_gives_the_mixer(self, mixer):
        model = build_model("rvt_tiny", num_classes=5, image_size=SIZE, mixer=mixer, model_args=RVT)
        expected = build("rvt_tiny", mixer="VarsS", variant="released")
        kinds = [(name, type(module)) for name, module in model.named_modules()]
        assert kinds == [(name, type(module)) for name, module in expected.named_modules()]
        block = model.transformers[0].blocks[0]
        assert (type(block.norm1), type(block.norm2)) == (nn.Identity, ChannelBatchNorm)
        assert model.eval()(images()).shape == (2, 5)

    @pytest.mark.parametrize(
        ("built", "swapped"),
        [("DotProduct", released_vars_s), (released_vars_s, "DotProduct"), ("VarsS", released_vars_s)],
    )
    def test_swapping_in_what_changes_the_block_is_refused(self, built, swapped):
        model = build("rvt_tiny", mixer=built)
        kept = mixers_of(model)
        refusal = r"RVT's blocks are built around .*\(released\).* give it as mixer="
        for arguments in (((swapped,), {}), ((), {"layers": {"last": swapped}}), ((), {"layers": {"0-2": swapped}})):
            with pytest.raises(az.InputError, match=refusal):
                az.swap_mixers(model, *arguments[0], **arguments[1])
        assert mixers_of(model) == kept

    def test_released_vars_s_may_be_swapped_for_itself(self):
        model = build("rvt_tiny", mixer=released_vars_s)
        before = model(images())
        assert_close(az.swap_mixers(model, released_vars_s)(images()), before, rtol=0, atol=0)

    @pytest.mark.parametrize("name", KINDS)
    def test_all_else_starts_alike_whatever_the_mixer(self, name):
        states = []
        for mixer in ("DotProduct", "VarsD", "KMeans"):
            torch.manual_seed(3)
            model = build_model(name, num_classes=5, image_size=SIZE, mixer=mixer, model_args=SMALL[name])
            own = [f"{n}." for n, module in model.named_modules() if isinstance(module, az.SelfMixer)]
            states.append({n: p for n, p in model.state_dict().items() if not n.startswith(tuple(own))})
        for state in states[1:]:
            assert_close(state, states[0], rtol=0, atol=0)

    def test_arguments_of_another_model_are_told_without_the_mixer(self):
        mixer = partial(az.MIXERS["VarsS"], variant="released")
        with pytest.raises(az.InputError, match="'class_token'; it stands in model_args, .* model_args={}") as told:
            build_model("rvt_tiny", num_classes=5, mixer=mixer, model_args={**RVT, "class_token": False})
        assert "partial" not in str(told.value)

    def test_a_mixer_is_given_once(self):
        with pytest.raises(az.InputError, match="model_args: mixer='VarsD', beside the mixer 'VarsS'; give one"):
            build_model("rvt_tiny", num_classes=5, mixer="VarsS", model_args={**RVT, "mixer": "VarsD"})
        for name in ("gfnet_tiny", "deit_conv_tiny_patch16_224", "absvit_tiny_patch16_224"):
            with pytest.raises(az.InputError, match="give mixer= in place of attn_layer="):
                timm.create_model(name, attn_layer=az.attn_layer("VarsD"), img_size=16, **VIT)


class TestBoTNet:
    @pytest.mark.parametrize("positions", [None, "factored", "full"])
    @pytest.mark.parametrize("axial", [False, True])
    def test_positions_and_axes(self, positions, axial):
        model = build("botnet50", mixer="Probabilistic", positions=positions, axial=axial).train()
        model(images()).square().sum().backward()
        assert all(p.grad is not None for p in model.parameters())

    def test_positions_need_a_mixer_that_has_them(self):
        with pytest.raises(az.InputError, match="DotProduct 'positions'"):
            build("botnet50", positions="full")

    @pytest.mark.parametrize("size", [(64, 64), (70, 45)])
    @pytest.mark.parametrize("stride", [16, 32])
    def test_maps_are_those_of_resnet50(self, size, stride):
        args = {"features_only": True, "out_indices": (1, 2, 3, 4), "output_stride": stride}
        maps = build("botnet50", size=size, mixer="VarsS", **args)(images(size))
        sizes = {key: SMALL["botnet50"][key] for key in ("layers", "channels")}
        expected = timm.create_model("resnet50", **sizes, **args)(images(size))
        assert [m.shape for m in maps] == [m.shape for m in expected]

    def test_a_stride_is_an_average_of_what_was_mixed(self):
        mixer = az.create_mixer("DotProduct", 4, 2)
        x = torch.randn(1, 4, 4, 6)
        mixed = mixer(x.flatten(2).mT).mT.reshape(1, 4, 2, 2, 3, 2)
        assert_close(MapMixer(mixer, 2)(x), mixed.mean((3, 5)))


def test_convolutional_stem_halves_as_often_as_the_patches_ask():
    assert [type(layer).__name__ for layer in ConvPatchEmbed(16, 4, 3, 8).proj] == [
        *(("Conv2d", "BatchNorm2d", "ReLU") * 2),
        "Conv2d",
    ]
    for patch_size, dim in ((6, 24), (1, 24), (16, 36)):
        with pytest.raises(az.InputError, match=f"patch_size={patch_size}.*embed_dim={dim}"):
            ConvPatchEmbed(48, patch_size, 3, dim)


def test_gfnet_has_either_stem():
    assert isinstance(build("gfnet_tiny", stem="conv").patch_embed, ConvPatchEmbed)
    with pytest.raises(az.InputError, match="stem='convs' must be"):
        build("gfnet_tiny", stem="convs")


class TestGFNetsBlocks:
    """What timm hands to its blocks arrives, or is refused."""

    def test_arguments_of_the_mixer_arrive(self):
        args = {"qk_norm": True, "scale_attn_norm": True, "proj_bias": False, "qkv_bias": False}
        mixer = mixers_of(build("gfnet_tiny", mixer="DotProduct", **args))[0]
        assert isinstance(mixer.q_norm, nn.LayerNorm) and isinstance(mixer.norm, nn.LayerNorm)
        assert mixer.proj.bias is None and mixer.qkv.bias is None

    @pytest.mark.parametrize("args", [{"init_values": 1e-5}, {"scale_mlp_norm": True}])
    def test_what_has_no_place_is_refused(self, args):
        with pytest.raises(az.InputError, match=f"GFNet: .*{next(iter(args))}"):
            build("gfnet_tiny", **args)
        with pytest.raises(TypeError, match="pach"):
            build("gfnet_tiny", pach=1)

    def test_masks_arrive(self):
        model, x = build("gfnet_tiny", mixer="DotProduct"), torch.randn(2, 60, 24)
        block = model.blocks[0]
        causal = block(x, is_causal=True)
        assert_close(causal[:, :7], block(x[:, :7], is_causal=True))
        assert_close(block(x, torch.ones(60, 60, dtype=torch.bool).tril()), causal)
        with pytest.raises(az.InputError, match="GlobalFilter cannot use attn_mask or is_causal"):
            build("gfnet_tiny").blocks[0](x, is_causal=True)


def test_unknown_signals_are_refused():
    mixer, x = az.create_mixer("DotProduct", 12, 2), torch.randn(1, 4, 12)
    with pytest.raises(az.InputError, match="argument of mixer DotProduct 'top_dwn'"):
        mixer(x, top_dwn=x)
    with pytest.raises(az.InputError, match="argument of mixer DotProduct 'gain'"):
        mixer(x, top_down=x, gain=2)


def released_names(state):
    """A state dict under the names of the authors' VARS-S, whose blocks hold what is the mixer's here."""
    own = {"attn.qkv": "v", "attn.norm": "norm1", "attn.": ""}
    renamed = {}
    for key, tensor in state.items():
        name = key
        for ours, theirs in own.items():
            name = name.replace(f".{ours}", f".{theirs}", 1)
        renamed[name] = tensor
    return renamed


class TestReleasedLayouts:
    @pytest.mark.parametrize("mixer", RELEASED)
    @pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"model": state, "model_ema": {}, "epoch": 3}])
    def test_load_unchanged(self, mixer, wrap, tmp_path):
        model = build("rvt_tiny", mixer=mixer, variant="released")
        state = released_names(model.state_dict()) if mixer == "VarsS" else model.state_dict()
        assert mixer != "VarsS" or "transformers.0.blocks.1.kernel" in state and "pools.0.conv.weight" in state
        torch.save(wrap(state), tmp_path / "released.pth")
        args = {"mixer": mixer, "variant": "released", "checkpoint_path": tmp_path / "released.pth"}
        assert_close(build("rvt_tiny", seed=5, **args)(images()), model(images()), rtol=0, atol=0)

    def test_trained_weights_go_before_their_average(self, tmp_path):
        model, averaged = build("rvt_tiny"), build("rvt_tiny", seed=1)
        content = {"model": model.state_dict(), "model_ema": averaged.state_dict(), "args": argparse.Namespace(lr=1)}
        torch.save(content, tmp_path / "both.pth")
        loaded = build("rvt_tiny", seed=2, checkpoint_path=tmp_path / "both.pth")
        assert_close(loaded(images()), model(images()), rtol=0, atol=0)

    def test_absvit_loads_so_too(self, tmp_path):
        size = {"img_size": 16, "embed_dim": 8, "depth": 1, "num_heads": 1, "num_classes": 5}
        model, other = (timm.create_model("absvit_tiny_patch16_224", **size).eval() for _ in range(2))
        torch.save({"model": model.state_dict(), "model_ema": other.state_dict()}, tmp_path / "absvit.pth")
        loaded = timm.create_model("absvit_tiny_patch16_224", checkpoint_path=tmp_path / "absvit.pth", **size).eval()
        assert_close(loaded(images((16, 16))), model(images((16, 16))), rtol=0, atol=0)
        with pytest.raises(az.InputError, match="absvit.pth holds no weights of this rvt_tiny"):
            build("rvt_tiny", checkpoint_path=tmp_path / "absvit.pth")

    def test_timms_own_models_load_as_before(self, tmp_path):
        args = {"img_size": 16, "patch_size": 8, "embed_dim": 8, "depth": 1, "num_heads": 1}
        model, averaged = (timm.create_model("vit_tiny_patch16_224", **args) for _ in range(2))
        torch.save({"state_dict": model.state_dict(), "state_dict_ema": averaged.state_dict()}, tmp_path / "vit.pth")
        loaded = timm.create_model("vit_tiny_patch16_224", checkpoint_path=tmp_path / "vit.pth", **args)
        assert torch.equal(loaded.head.weight, averaged.head.weight)


class TestTimmIsLeftAsItIs:
    """Files go into our models by our loader, without a lasting change of timm."""

    VIT = {"img_size": 16, "patch_size": 8, "embed_dim": 8, "depth": 1, "num_heads": 1}

    @pytest.fixture(autouse=True)
    def untouched(self):
        assert (_factory.load_checkpoint, _factory.create_model) == (_helpers.load_checkpoint, timm.create_model)
        yield
        assert (_factory.load_checkpoint, _factory.create_model) == (_helpers.load_checkpoint, timm.create_model)

    def both(self, path, name):
        """A file with trained and averaged weights of a model of that name."""
        model, averaged = (timm.create_model(name, **self.VIT) for _ in range(2))
        torch.save({"model": model.state_dict(), "model_ema": averaged.state_dict()}, path)
        return model, averaged

    def test_after_loading_and_without_a_file(self, tmp_path):
        name = "deit_conv_tiny_patch16_224"
        model, _ = self.both(tmp_path / "both.pth", name)
        timm.create_model(name, **self.VIT)
        loaded = timm.create_model(name, checkpoint_path=tmp_path / "both.pth", **self.VIT)
        assert torch.equal(loaded.head.weight, model.head.weight)

    def test_after_a_file_that_is_refused(self, tmp_path):
        self.both(tmp_path / "both.pth", "deit_conv_tiny_patch16_224")
        for path in (tmp_path / "both.pth", tmp_path / "missing.pth"):
            with pytest.raises(az.InputError, match=path.name):
                timm.create_model("rvt_tiny", checkpoint_path=path)
        with pytest.raises(az.InputError, match="did you mean"):
            timm.create_model("rvt_tiny", mixer="VarzD", checkpoint_path=tmp_path / "both.pth")

    def test_a_stock_model_loads_its_average_also_beside_ours(self, tmp_path):
        _, averaged = self.both(tmp_path / "vit.pth", "vit_tiny_patch16_224")
        timm.create_model("gfnet_tiny", **self.VIT)
        loaded = timm.create_model("vit_tiny_patch16_224", checkpoint_path=tmp_path / "vit.pth", **self.VIT)
        assert torch.equal(loaded.head.weight, averaged.head.weight)

    def test_a_stock_model_around_ours(self, tmp_path):
        """A model of somebody else that is built of ours loads as timm loads it."""
        ours = timm.model_entrypoint("gfnet_tiny")

        def wrapped(**_):
            return nn.Sequential(ours(**self.VIT))

        averaged = wrapped().state_dict()
        torch.save({"model": wrapped().state_dict(), "model_ema": averaged}, tmp_path / "outer.pth")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_factory, "model_entrypoint", lambda name: wrapped)
            loaded = timm.create_model("vit_tiny_patch16_224", checkpoint_path=tmp_path / "outer.pth")
        assert torch.equal(loaded[0].head.weight, averaged["0.head.weight"])

    def test_a_checkpoint_is_seen_in_a_call_of_timm_alone(self):
        assert requested_checkpoint() is None and host_in_construction() is None


class Evil:
    def __reduce__(self):
        return os.getcwd, ()


def _cut(path, model):
    torch.save(model.state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BAD = {
    "missing file": (lambda path, model: None, "does not exist"),
    "folder": (lambda path, model: path.mkdir(), "is a folder"),
    "empty": (lambda path, model: path.write_bytes(b""), "no file of weights"),
    "text": (lambda path, model: path.write_text("nothing here"), "no file of weights"),
    "cut short": (_cut, "cut short"),
    "code": (lambda path, model: torch.save({"model": {"head.weight": Evil()}}, path), "refused.*could run code"),
    "old code": (lambda path, model: path.write_bytes(pickle.dumps(Evil(), 2)), "refused.*could run code"),
    "no tensors": (lambda path, model: torch.save({"lr": 0.1}, path), "nothing but named tensors"),
    "list": (lambda path, model: torch.save([torch.ones(1)], path), "nothing but named tensors"),
    "other model": (
        lambda path, model: torch.save(build("botnet50").state_dict(), path),
        r"\d+ are missing, such as \S+; \d+ belong elsewhere, such as \S+$",
    ),
    "other width": (
        lambda path, model: torch.save(build("rvt_tiny", embed_dims=(24, 48)).state_dict(), path),
        r"\S+ is \[24.*\] there and \[12.*\] here, and \d+ more differ",
    ),
    "other classes": (
        lambda path, model: torch.save(build("rvt_tiny", num_classes=9).state_dict(), path),
        r"head\.weight is \[9, 24\] there and \[5, 24\] here",
    ),
    "other mixer": (
        lambda path, model: torch.save(build("rvt_tiny", mixer="VarsD").state_dict(), path),
        r"qkv\.weight is",
    ),
    "one too few": (
        lambda path, model: torch.save({k: v for k, v in model.state_dict().items() if k != "norm.bias"}, path),
        "1 are missing, such as norm.bias$",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_leave_the_model_untouched(kind, tmp_path):
    write, message = BAD[kind]
    model = build("rvt_tiny")
    with torch.no_grad():
        write(tmp_path / "bad.pth", build("rvt_tiny", seed=8))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(az.InputError, match=message) as caught:
        load_checkpoint(model, tmp_path / "bad.pth")
    assert "\n" not in str(caught.value) and "bad.pth" in str(caught.value) and "rvt_tiny" in str(caught.value)
    assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    with pytest.raises(az.InputError, match=message):
        build("rvt_tiny", checkpoint_path=str(tmp_path / "bad.pth"))


class TestStartingFromWeights:
    """`build_model(weights=)`: another task starts from trained weights."""

    VIT = {"patch_size": 8, "embed_dim": 8, "depth": 1, "num_heads": 1}

    def build(self, num_classes=5, side=16, mixer="VarsD", **options):
        arguments = {"image_size": (side, side), "mixer": mixer, "model_args": self.VIT}
        return build_model("vit_tiny_patch16_224", num_classes=num_classes, **arguments, **options)

    def test_a_classifier_of_another_size_starts_afresh(self, tmp_path):
        trained = self.build()
        # as a training run keeps them, beside what is not the model's
        content = {f"model.{key}": tensor for key, tensor in trained.state_dict().items()}
        torch.save({"state_dict": content, "pytorch-lightning_version": "2.6"}, tmp_path / "run.ckpt")
        torch.manual_seed(4)
        fresh = self.build(num_classes=3)
        torch.manual_seed(4)
        model = self.build(num_classes=3, weights=str(tmp_path / "run.ckpt"))
        assert_close(
            model.forward_features(images((16, 16))), trained.forward_features(images((16, 16))), rtol=0, atol=0
        )
        assert torch.equal(model.head.weight, fresh.head.weight)

    def test_one_of_the_same_size_is_taken(self, tmp_path):
        trained = self.build()
        torch.save(trained.state_dict(), tmp_path / "bare.pth")
        model = self.build(weights=str(tmp_path / "bare.pth"))
        assert_close(model(images((16, 16))), trained(images((16, 16))), rtol=0, atol=0)

    def test_position_embeddings_follow_the_image(self, tmp_path):
        trained = self.build(mixer="DotProduct")
        torch.save(trained.state_dict(), tmp_path / "bare.pth")
        model = self.build(mixer="DotProduct", side=32, weights=str(tmp_path / "bare.pth"))
        assert model.pos_embed.shape[1] == 17
        assert torch.equal(model.pos_embed[:, 0], trained.pos_embed[:, 0])

    def test_weights_of_another_mixer_are_refused(self, tmp_path):
        torch.save(self.build(mixer="DotProduct").state_dict(), tmp_path / "bare.pth")
        with pytest.raises(az.InputError, match="bare.pth holds no weights of this vit_tiny_patch16_224: "):
            self.build(weights=str(tmp_path / "bare.pth"))
