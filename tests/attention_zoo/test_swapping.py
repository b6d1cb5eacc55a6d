import copy
import pickle
import re
from functools import partial

import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo import compat as library
from attention_zoo.mixers.registry import registering
from attention_zoo.mixers.swapping import layer_indices, mixer_layers
from attention_zoo.models import build_model
from tests.mixers import costly

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
                assert_close(p.view_as(before[n]), before[n], rtol=0, atol=0)
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


OF_EACH_KIND = tuple({az.MIXERS[name].projections: name for name in SELF}.values())
"""One mixer of each set of projections."""


@pytest.mark.parametrize("before", costly(core=OF_EACH_KIND))
def test_every_mixer_for_every_other_keeps_the_rows_of_both(before):
    model = az.swap_mixers(vit(depth=1), before)
    for after in SELF:
        twin = az.swap_mixers(copy.deepcopy(model), after)
        old, new = mixers_of(model)[0], mixers_of(twin)[0]
        for name in set(old.projections) & set(new.projections):
            assert torch.equal(rows_of(new, name), rows_of(old, name))
        if new.projections and "k" in new.projections and "k" not in old.projections and "q" in old.projections:
            assert torch.equal(rows_of(new, "k"), rows_of(old, "q"))
        assert twin(images()).isfinite().all()


def rows_of(mixer, name):
    return mixer.qkv.weight.chunk(len(mixer.projections))[mixer.projections.index(name)]


def test_swap_with_a_factory_and_options():
    model = az.swap_mixers(vit(), az.MIXERS["VarsD"], steps=7)
    assert [m.steps for m in mixers_of(model)] == [7, 7, 7]


def test_a_mixer_around_another():
    for model in (az.swap_mixers(vit(), "Axial", mixer="VarsD"), vit(attn_layer=az.attn_layer("Axial", mixer="VarsD"))):
        assert {type(m.width).__name__ for m in mixers_of(model)} == {"VarsD"}
        assert model(images()).shape == (2, 5)
    assert type(mixers_of(az.swap_mixers(vit(), mixer="VarsD"))[0]).__name__ == "VarsD"


def test_what_is_asked_of_a_mixer_goes_before_the_host():
    for model in (
        az.swap_mixers(vit(), "DotProduct", attn_drop=0.25),
        vit(attn_layer=az.attn_layer("DotProduct", attn_drop=0.25)),
        az.swap_mixers(vit(), partial(az.MIXERS["DotProduct"], attn_drop=0.25)),
    ):
        assert mixers_of(model)[0].attn_drop.p == 0.25


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


@pytest.mark.parametrize(
    "key",
    [
        *("12", "3-12", "last-13", "4-2", "first", "-1", "last-0", "a-b", ""),
        *("0-", "last-", "-", "²", "0-²", "9" * 5000, " 1"),
    ],
)
def test_layer_names_that_do_not_exist(key):
    with pytest.raises(az.InputError, match=re.escape(f"layers {key!r}")):
        layer_indices(key, 12)


@pytest.mark.parametrize(
    ("swap", "message"),
    [
        (lambda: az.swap_mixers(nn.Linear(2, 2), "VarsD"), "Linear has no attention"),
        (lambda: az.swap_mixers(vit(), "VarzD"), "did you mean 'VarsD'"),
        (lambda: az.swap_mixers(vit(), "VarsD", lambd=1), "did you mean 'lam'"),
        (lambda: az.swap_mixers(vit(), layers={"7": "VarsD"}), "layers 0-2"),
        (lambda: az.swap_mixers(vit(), layers="last"), "layers='last' must name a mixer"),
        (lambda: az.swap_mixers(vit(), layers=["last"]), "layers=.* must name a mixer"),
        (lambda: az.swap_mixers(vit(), layers={"last": 3}), "mixer 3 is no name"),
        (lambda: az.swap_mixers(vit(), layers={"last": None}), "mixer None is no name"),
        (lambda: az.swap_mixers(vit(), 3), "mixer 3 is no name"),
        (lambda: az.swap_mixers(vit(), nn.Linear), "Linear is no mixer: a mixer is a subclass"),
        (lambda: az.swap_mixers(vit(), az.SelfMixer), "SelfMixer cannot be built: it does not define mix"),
        (lambda: az.swap_mixers(vit(), lambda **_: nn.Identity()), "built a Identity, which is no SelfMixer"),
        (lambda: az.swap_mixers(vit(), "KMeansCross"), "KMeansCross mixes pixels into queries"),
        (lambda: az.swap_mixers(vit(), steps=3), "steps=3: arguments of a mixer, but no mixer"),
        (lambda: az.swap_mixers(vit(), "VarsD", steps="many"), "VarsD: steps=many must be an integer"),
        (lambda: az.swap_mixers("vit", "VarsD"), "changes a model, not 'vit'"),
        (lambda: az.swap_mixers(vit(), "VarsD", mixer="VarsD"), "argument of mixer VarsD 'mixer'"),
        (lambda: az.swap_mixers(vit(), "Axial", mixer="VarzD"), "did you mean 'VarsD'"),
        (lambda: az.swap_mixers(vit(), "os.kill"), "os.kill is no mixer"),
        (lambda: az.attn_layer(), "attn_layer needs a mixer"),
        (lambda: az.attn_layer("VarsD", grid=4), r"grid=4 must be \(height, width\)"),
        (lambda: az.attn_layer("VarsD", grid=(4, 0)), r"grid=\(4, 0\) must be"),
        (lambda: az.attn_layer("VarsD", num_prefix_tokens=-1), "num_prefix_tokens=-1 must be"),
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
            ({"name": "vit_tiny_patch16_224", "model_args": {"num_heads": -1}}, "num_heads=-1 must not be negative"),
            ({"name": "resnet10t", "mixer": "VarsD"}, "no attention"),
        ],
    )
    def test_refusals(self, args, message):
        with pytest.raises(az.InputError, match=message) as caught:
            build_model(num_classes=3, **args)
        assert "\n" not in str(caught.value)


ARGS = {key: SMALL[key] for key in ("patch_size", "embed_dim", "depth", "num_heads")}


GRIDS = ["VarsS", "VarsSD", "GlobalFilter", "Axial"]
DYNAMIC = {"dynamic_img_size": True}
WIDE = (36, 64)  # 9 x 16 tokens, as many as 12 x 12


def in_host(name, way, **args):
    """A ViT with a mixer that looks at the grid, built around it or swapped."""
    if way == "attn_layer":
        return vit(attn_layer=az.attn_layer(name), **args)
    return az.swap_mixers(vit(**args), name)


def seen_and_right(model, size):
    """What the first mixer made of its tokens in ``model``, and what it should have on the grid of that size."""
    seen = {}
    layer = mixers_of(model)[0]
    hook = layer.register_forward_hook(lambda _, args, out: seen.update(tokens=args[0], out=out))
    model(images(size))
    hook.remove()
    alone = copy.deepcopy(layer)
    alone.set_grid((size[0] // 4, size[1] // 4))
    return seen["out"], alone(seen["tokens"])


@pytest.mark.parametrize("way", ["attn_layer", "swap_mixers"])
@pytest.mark.parametrize("name", GRIDS)
class TestGridOfEachForwardPass:
    def test_sizes_that_vary(self, name, way):
        model = in_host(name, way, **DYNAMIC)
        for size in (WIDE, (48, 48), (20, 12), (16, 16), WIDE[::-1]):
            assert_close(*seen_and_right(model, size), rtol=0, atol=0)
        square = copy.deepcopy(mixers_of(model)[0])
        square.set_grid((12, 12))
        tokens = torch.randn(1, 145, 24)
        model(images(WIDE))
        assert not torch.equal(square(tokens), mixers_of(model)[0](tokens))

    def test_a_size_set_later(self, name, way):
        model = in_host(name, way)
        model.set_input_size(WIDE)
        assert_close(*seen_and_right(model, WIDE), rtol=0, atol=0)

    def test_padded_images(self, name, way):
        model = in_host(name, way, **DYNAMIC, dynamic_img_pad=True)
        model(images((34, 61)))
        assert {tuple(mixer.grid) for mixer in mixers_of(model)} == {(9, 16)}

    def test_copies_and_pickles_tell_their_own_mixers(self, name, way):
        model = in_host(name, way, **DYNAMIC)
        expected = model(images(WIDE))
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            model(images((16, 16)))
            assert_close(twin(images(WIDE)), expected, rtol=0, atol=0)
            assert mixers_of(model)[0].grid == (4, 4)
            assert list(twin.state_dict()) == list(model.state_dict())


@pytest.mark.parametrize("name", ["VarsS", "GlobalFilter"])
def test_the_grid_is_told_under_compilation_and_export(name):
    torch.compiler.reset()
    model = in_host(name, "swap_mixers", **DYNAMIC, depth=1)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for size in (WIDE, (48, 48)):
        assert_close(compiled(images(size)), model(images(size)))
    exported = torch.export.export(model, (images(WIDE),))
    assert_close(exported.module()(images(WIDE)), model(images(WIDE)))


def test_a_vit_inside_of_another_model_tells_its_grid():
    model = az.swap_mixers(nn.Sequential(vit(**DYNAMIC), nn.Linear(5, 2)), "VarsS")
    assert_close(*seen_and_right(model[0], WIDE), rtol=0, atol=0)
    assert mixers_of(model[0])[0].num_prefix_tokens == 1


def test_layers_that_are_swapped_again_are_told_too():
    model = az.swap_mixers(az.swap_mixers(vit(**DYNAMIC), "VarsS"), layers={"last": "GlobalFilter"})
    model(images(WIDE))
    assert [mixer.grid for mixer in mixers_of(model)] == [(9, 16)] * 3
    assert len(model.patch_embed._forward_hooks) == 1


def test_parameters_of_one_grid_refuse_another():
    model = in_host("VarsSD", "swap_mixers", **DYNAMIC)
    az.swap_mixers(model, "VarsSD", variant="released")
    assert model(images()).shape == (2, 5)
    with pytest.raises(az.InputError, match=r"VarsSD: variant='released' is bound to grid=\(4, 4\).*grid=\(9, 16\)"):
        model(images(WIDE))


class Rows(nn.Module):
    """An embedding that does not say its grid."""

    def forward(self, x):
        return x.flatten(1)[:, : 16 * 24].unflatten(1, (16, 24))


def test_an_embedding_that_does_not_say_its_grid():
    for name in ("VarsS", "DotProduct"):
        model = vit()
        model.patch_embed = Rows()
        az.swap_mixers(model, name)
        if name == "DotProduct":
            assert model(images()).shape == (2, 5)
            continue
        with pytest.raises(az.InputError, match=r"Rows makes tokens of shape \(2, 16, 24\).* which VarsS needs"):
            model(images())


SMALL_PIT = {"img_size": (32, 40), "patch_size": 8, "stride": 4, "depth": (1, 2, 1), "num_classes": 5}
OF_SEVERAL_GRIDS = {
    "pit_ti_224": (SMALL_PIT, (32, 40), {(7, 9), (4, 5), (2, 3)}, 1),
    "pit_ti_distilled_224": (SMALL_PIT, (32, 40), {(7, 9), (4, 5), (2, 3)}, 2),
    "crossvit_tiny_240": ({"img_size": (96, 120), "num_classes": 5}, (96, 120), {(8, 10), (5, 7)}, 1),
}
"""Arguments of models whose stages or branches have grids of their own, the size of their images, grids, and prefix."""


@pytest.mark.parametrize("host", OF_SEVERAL_GRIDS)
class TestHostsOfSeveralGrids:
    def test_each_layer_has_its_own(self, host):
        args, size, grids, prefix = OF_SEVERAL_GRIDS[host]
        model = timm.create_model(host, **args).eval()
        before = model(images(size))
        assert_close(az.swap_mixers(model, "DotProduct")(images(size)), before, rtol=0, atol=1e-5)
        for name in (*GRIDS, "DotProduct"):
            wrapped = torch.nn.Sequential(az.swap_mixers(model, name))
            mixers = [layer for _, layer in mixer_layers(wrapped)]
            assert {mixer.grid for mixer in mixers} == grids
            assert {mixer.num_prefix_tokens for mixer in mixers} == {prefix}
            assert wrapped(images(size)).isfinite().all()

    def test_a_neighbourhood_reads_neighbours_and_the_class_token(self, host):
        args, size, _, prefix = OF_SEVERAL_GRIDS[host]
        model = az.swap_mixers(timm.create_model(host, **args).eval(), "Neighborhood", kernel=3)
        _, mixer = mixer_layers(model)[0]
        height, width = mixer.grid
        read = mixer.attention_map(torch.randn(1, prefix + height * width, mixer.dim))[0, 0] > 0
        assert (read[prefix:].sum(1) == prefix + 9).all() and read[:prefix].all()


OTHER_HOSTS = {
    "naflexvit_base_patch16_gap": {"embed_dim": 24, "num_heads": 2, "depth": 1, "num_classes": 5},
    "mobilevit_xxs": {"num_classes": 5},
}


@pytest.mark.parametrize("host", OTHER_HOSTS)
class TestHostsThatDoNotTellTheGrid:
    @pytest.mark.parametrize("name", GRIDS)
    def test_readings_of_the_grid_are_refused(self, host, name):
        model = timm.create_model(host, **OTHER_HOSTS[host])
        with pytest.raises(az.InputError, match=rf"^{type(model).__name__} does not tell.*{name} needs.*DotProduct"):
            az.swap_mixers(model, name)
        assert all(isinstance(layer, timm.layers.Attention) for _, layer in mixer_layers(model))

    def test_readings_of_sets_keep_the_logits(self, host):
        model = timm.create_model(host, **OTHER_HOSTS[host]).eval()
        before = model(images((64, 64)))
        assert_close(az.swap_mixers(model, "DotProduct")(images((64, 64))), before, rtol=0, atol=1e-5)


class TestByNameInTimm:
    def test_every_self_mixer_is_a_name_of_attn_layer(self):
        for name in ("VarsD", "DotProduct", "Linear"):
            model = timm.create_model(
                "vit_tiny_patch16_224", attn_layer=name, img_size=32, depth=1, num_classes=3, embed_dim=48
            )
            assert isinstance(model.blocks[0].attn, az.MIXERS[name]) and model.blocks[0].attn.grid == (2, 2)
        assert set(az.list_mixers("self")) <= set(library.attn_layers())

    @pytest.mark.parametrize("name", ["Axial", "MixtureOfHeads", "TokenAwarePooling"])
    def test_mixers_around_another_one_are_names_too(self, name):
        model = timm.create_model(
            "vit_tiny_patch16_224", attn_layer=name, img_size=32, depth=1, num_classes=3, embed_dim=48
        )
        assert isinstance(model.blocks[0].attn, getattr(az, name)) and name not in az.MIXERS
        assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)

    def test_an_own_mixer_is_one_while_it_is_registered(self):
        with registering():

            @az.register
            class Own(az.MIXERS["DotProduct"]):
                """A mixer of a user's own."""

            assert "Own" in library.attn_layers()
        assert "Own" not in library.attn_layers()

    def test_timms_names_stay_timms(self):
        from timm.layers import Attention, DiffAttention

        assert library.attn_layers()["attn"] is Attention and library.attn_layers()["diff"] is DiffAttention

    def test_a_timm_without_the_table_changes_nothing(self, monkeypatch):
        monkeypatch.delattr("timm.models.vision_transformer.ATTN_LAYERS")
        assert library.attn_layers() == {}
        with registering():

            @az.register
            class Own(az.MIXERS["DotProduct"]):
                """A mixer of a user's own."""

            assert "Own" in az.list_mixers("self")
