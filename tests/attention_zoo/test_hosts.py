import copy
import pickle

import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.hosts import layer_indices
from attention_zoo.models import build_model

SMALL = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 2, "num_classes": 5}
SELF = az.list_mixers("self")


def vit(name="vit_tiny_patch16_224", seed=0, **args):
    torch.manual_seed(seed)
    return timm.create_model(name, **{**SMALL, **args}).eval()


def images(size=(16, 16)):
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))


def mixers_of(model):
    return [block.attn for block in model.blocks]


@pytest.mark.parametrize("name", SELF)
class TestEveryMixerInVit:
    def test_as_attn_layer(self, name):
        model = vit(attn_layer=az.attn_layer(name, grid=(4, 4), num_prefix_tokens=1))
        assert all(type(mixer) is az.MIXERS[name] for mixer in mixers_of(model))
        assert model(images()).shape == (2, 5)
        assert_close(pickle.loads(pickle.dumps(model))(images()), model(images()))

    @pytest.mark.parametrize("host", ["vit_small_patch14_reg4_dinov2", "deit3_small_patch16_224"])
    def test_as_attn_layer_with_register_tokens_and_layer_scale(self, name, host):
        prefix = timm.create_model(host, **SMALL).num_prefix_tokens
        model = vit(host, attn_layer=az.attn_layer(name, grid=(4, 4), num_prefix_tokens=prefix))
        assert model(images()).shape == (2, 5)

    def test_gradient_checkpointing(self, name):
        model = vit(attn_layer=az.attn_layer(name, num_prefix_tokens=1)).train()
        gradients = []
        for enabled in (False, True):
            model.set_grad_checkpointing(enabled)
            model.zero_grad()
            model(images()).sum().backward()
            gradients.append(model.patch_embed.proj.weight.grad.clone())
        assert_close(*gradients)

    def test_swap_keeps_what_the_reading_has(self, name):
        model = vit()
        before = {n: p.clone() for n, p in model.state_dict().items()}
        az.swap_mixers(model, name)
        for n, p in model.state_dict().items():
            if ".attn." not in n or ".attn.proj." in n:
                assert_close(p, before[n], rtol=0, atol=0)
        mixer = model.blocks[0].attn
        for block, row in enumerate(mixer.projections):
            for kind in ("weight", "bias"):
                timms = before[f"blocks.0.attn.qkv.{kind}"].chunk(3)["qkv".index(row)]
                assert_close(getattr(mixer.qkv, kind)[24 * block : 24 * (block + 1)], timms, rtol=0, atol=0)
        assert model(images()).isfinite().all()
        assert model.blocks[0].attn.grid == (4, 4)
        assert model.blocks[0].attn.num_prefix_tokens == 1
        assert not model.blocks[0].attn.training

    def test_swapping_does_not_disturb_the_rest_of_training(self, name):
        model = az.swap_mixers(vit(), name).train()
        model(images()).square().sum().backward()
        assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", ["DotProduct", "Probabilistic"])
@pytest.mark.parametrize(
    ("host", "args"),
    [
        ("vit_tiny_patch16_224", {}),
        ("vit_tiny_patch16_224", {"qk_norm": True, "scale_attn_norm": True, "qkv_bias": False, "img_size": (16, 32)}),
        ("vit_small_patch14_reg4_dinov2", {}),
        ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg"}),
    ],
)
def test_swap_keeps_the_logits(name, host, args):
    model = vit(host, **args)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    size = args.get("img_size", (16, 16))
    before = model(images(size))
    az.swap_mixers(model, name)
    assert type(model.blocks[0].attn) is az.MIXERS[name]
    assert_close(model(images(size)), before, rtol=0, atol=1e-5)


def test_swap_there_and_back():
    model = vit()
    before = model(images())
    az.swap_mixers(az.swap_mixers(model, "Probabilistic", key_adaptation=1), "DotProduct")
    assert_close(model(images()), before, rtol=0, atol=1e-5)


def test_swap_between_mixers_keeps_shared_state():
    model = az.swap_mixers(vit(), "VarsD", steps=2)
    with torch.no_grad():
        model.blocks[0].attn.w1.fill_(0.5)
    az.swap_mixers(model, "VarsD", steps=5)
    assert model.blocks[0].attn.steps == 5
    assert model.blocks[0].attn.w1.item() == 0.5


def test_swap_with_a_factory_and_options():
    model = az.swap_mixers(vit(), az.MIXERS["VarsD"], steps=7)
    assert [m.steps for m in mixers_of(model)] == [7, 7, 7]


def test_layers_of_their_own():
    model = az.swap_mixers(vit(), "Performer", layers={"last-2": "VarsD", "1": "Probabilistic"})
    assert [type(m).__name__ for m in mixers_of(model)] == ["Performer", "Probabilistic", "VarsD"]
    model = az.swap_mixers(vit(), layers={"last": "VarsD"})
    assert [type(m).__name__ for m in mixers_of(model)] == ["Attention", "Attention", "VarsD"]


@pytest.mark.parametrize(
    ("key", "expected"), [("3", [3]), ("0-3", [0, 1, 2, 3]), ("last", [11]), ("last-4", [8, 9, 10, 11])]
)
def test_layer_names(key, expected):
    assert list(layer_indices(key, 12)) == expected


@pytest.mark.parametrize("key", ["12", "3-12", "last-13", "4-2", "first", "-1", "last-0", "a-b", ""])
def test_layer_names_that_do_not_exist(key):
    with pytest.raises(az.InputError, match=f"layers {key!r}"):
        layer_indices(key, 12)


@pytest.mark.parametrize(
    ("swap", "message"),
    [
        (lambda: az.swap_mixers(nn.Linear(2, 2), "VarsD"), "Linear has no attention"),
        (lambda: az.swap_mixers(vit(), "VarzD"), "did you mean 'VarsD'"),
        (lambda: az.swap_mixers(vit(), "VarsD", lambd=1), "did you mean 'lam'"),
        (lambda: az.swap_mixers(vit(), layers={"7": "VarsD"}), "layers 0-2"),
    ],
)
def test_refusals(swap, message):
    with pytest.raises(az.InputError, match=message):
        swap()


def test_nothing_is_swapped_halfway():
    model = vit(attn_drop_rate=0.1)
    kept = copy.copy(mixers_of(model))
    with pytest.raises(az.InputError, match="attn_drop"):
        az.swap_mixers(model, "DotProduct", layers={"last": "VarsD"})
    assert mixers_of(model) == kept


class TestBuildModel:
    def test_all_else_starts_alike(self):
        states = []
        for mixer in (None, *SELF):
            torch.manual_seed(3)
            args = {"num_classes": 5, "image_size": (16, 16), "model_args": ARGS}
            model = build_model("vit_tiny_patch16_224", mixer=mixer, **args)
            states.append({n: p for n, p in model.state_dict().items() if ".attn." not in n})
        for state in states[1:]:
            assert_close(state, states[0], rtol=0, atol=0)

    def test_a_convolutional_network_needs_no_size(self):
        model = build_model("resnet10t", num_classes=3, image_size=(32, 32)).eval()
        assert model(torch.randn(1, 3, 32, 32)).shape == (1, 3)

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            ({"name": "vit_tinny_patch16_224"}, "unknown timm model 'vit_tinny_patch16_224'; did you mean 'vit_tiny"),
            ({"name": "vit_tiny_patch16_224", "model_args": {"pach": 4}}, "cannot build it.*pach"),
            ({"name": "resnet10t", "mixer": "VarsD"}, "no attention"),
        ],
    )
    def test_refusals(self, args, message):
        with pytest.raises(az.InputError, match=message) as caught:
            build_model(num_classes=3, **args)
        assert "\n" not in str(caught.value)


ARGS = {key: SMALL[key] for key in ("patch_size", "embed_dim", "depth", "num_heads")}
