"""Rows, columns and rollouts of maps that are computed as they are asked for, against the maps themselves."""

import pytest
import timm
import torch
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.analysis import rows as rows_of_maps
from attention_zoo.analysis.maps import LayerInput, attention_maps, observe
from attention_zoo.analysis.rows import (
    DerivedRows,
    RecurrentMap,
    SoftmaxMap,
    WholeMap,
    lazy_map,
    rollout_columns,
    rollout_rows,
)
from attention_zoo.functional.diagnostics import row_entropy
from attention_zoo.mixers import base

GRID, DIM, HEADS = (3, 4), 16, 2
TOKENS = (0, 5, 12)


def layer(mixer, **signal):
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(2, 13, DIM, generator=generator)
    return LayerInput(0, mixer.eval(), tokens, GRID, 1, True, signal)


def build(name, **options):
    torch.manual_seed(0)
    return az.create_mixer(name, DIM, HEADS, grid=GRID, num_prefix_tokens=1, **options)


def check(found, seen, step=None):
    expected = seen.mixer.attention_map(seen.tokens, **seen.signal).float()
    places = list(TOKENS)
    assert_close(found.rows(TOKENS, step).detach().float(), expected[:, :, places].detach(), rtol=1e-4, atol=1e-5)
    mean = expected.mean(1)
    weights = torch.rand(2, 3, 13)
    assert_close(found.mean_pull(weights).detach(), weights @ mean, rtol=1e-4, atol=1e-5)
    if not found.has_columns:
        with pytest.raises(az.InputError, match="no closed form of the map of 13 tokens"):
            found.columns(TOKENS)
        return
    assert_close(found.columns(TOKENS, step).float(), expected[..., places], rtol=1e-4, atol=1e-5)
    assert_close(found.mean_push(weights.mT), mean @ weights.mT, rtol=1e-4, atol=1e-5)
    if not found.has_overview:
        with pytest.raises(az.InputError, match="which the mean and the entropies of its heads would take"):
            _ = found.overview
        return
    assert_close(found.overview.mean.float(), mean, rtol=1e-4, atol=1e-5)
    assert_close(found.overview.entropy.float(), row_entropy(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", az.list_mixers("self"))
def test_rows_and_columns_are_those_of_the_map(name):
    seen = layer(build(name))
    with torch.no_grad():
        check(lazy_map(seen), seen)


@pytest.mark.parametrize("name", az.list_mixers("self"))
def test_a_reading_says_whether_its_map_has_a_closed_form(name, monkeypatch):
    seen, differentiated = layer(build(name)), []
    monkeypatch.setattr(
        base, "_mean_derivative", lambda mix, v: differentiated.append(v) or v[..., :1].expand(-1, -1, -1, 13)
    )
    with torch.no_grad():
        seen.mixer.attention_map(seen.tokens)
    assert seen.mixer.has_closed_map == (not differentiated)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("Probabilistic", SoftmaxMap)]
    + [(name, RecurrentMap) for name in ("VarsD", "VarsS", "VarsSD")]
    + [(name, DerivedRows) for name in ("Pro", "RobustPCA", "GatedConv")],
)
def test_what_is_had_of_a_map_that_is_too_large(name, kind, monkeypatch):
    monkeypatch.setattr(rows_of_maps, "MOST_DERIVATIVES", 1)
    monkeypatch.setattr(rows_of_maps, "MOST_BYTES", 1)
    seen = layer(build(name))
    found = lazy_map(seen)
    assert type(found) is kind
    with torch.no_grad():
        check(found, seen)
        if kind is RecurrentMap:
            path = seen.mixer.attention_path(seen.tokens)
            for step, weights in enumerate(path):
                assert_close(found.rows(TOKENS, step), weights[:, :, list(TOKENS)], rtol=1e-4, atol=1e-5)
                assert_close(found.columns(TOKENS, step), weights[..., list(TOKENS)], rtol=1e-4, atol=1e-5)


def test_what_cannot_be_had_row_by_row_is_refused(monkeypatch):
    monkeypatch.setattr(rows_of_maps, "MOST_BYTES", 1)
    with pytest.raises(az.InputError, match="Axial: the map of 13 tokens is too large to be kept"):
        lazy_map(layer(build("Axial", mixer="DotProduct")))


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"key_adaptation": 2}, SoftmaxMap),
        ({"beta": 0.3}, SoftmaxMap),
        ({"distance_precision": 0.5}, SoftmaxMap),
        ({"positions": "full"}, SoftmaxMap),
        ({"window": 3}, SoftmaxMap),
    ],
)
def test_settings_of_the_mixture(options, kind):
    seen = layer(build("Probabilistic", **options))
    with torch.no_grad():
        found = lazy_map(seen)
        assert type(found) is kind
        check(found, seen)


@pytest.mark.parametrize("name", ["DotProduct", "VarsD", "Pro"])
def test_what_a_layer_hears_from_above_is_part_of_its_rows(name, monkeypatch):
    monkeypatch.setattr(rows_of_maps, "MOST_DERIVATIVES", 1)
    monkeypatch.setattr(rows_of_maps, "MOST_BYTES", 1)
    heard = {"top_down": torch.randn(2, 13, DIM), "top_down_to": "qkv", "value_gate": torch.rand(2, 13, 1)}
    seen = layer(build(name), **heard)
    with torch.no_grad():
        check(lazy_map(seen), seen)


def test_steps_of_a_recurrent_reading():
    seen = layer(build("VarsD", steps=2))
    with torch.no_grad():
        found = lazy_map(seen)
        path = seen.mixer.attention_path(seen.tokens)
    assert isinstance(found, WholeMap) and found.steps == 2
    for step, expected in enumerate(path):
        assert_close(found.rows([3], step), expected[:, :, [3]])
        assert_close(found.columns([3], step), expected[..., [3]])
    assert found.held() == path.nbytes
    with pytest.raises(az.InputError, match=r"VarsD: step 3: this map has steps 0 to 2"):
        found.rows([3], 3)
    with pytest.raises(az.InputError, match=r"DotProduct: step 1: this map has no steps"):
        lazy_map(layer(build("DotProduct"))).rows([3], 1)


def test_tokens_that_are_none():
    found = lazy_map(layer(build("DotProduct")))
    for wrong in (-1, 13):
        with pytest.raises(az.InputError, match=f"token \\[{wrong}\\] must be one of 0 to 12"):
            found.rows([wrong])


@pytest.mark.parametrize("mixer", ["DotProduct", "VarsD", "GatedConv"])
def test_rollout_is_the_product_of_all_maps(mixer):
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=12, patch_size=4, embed_dim=24, depth=3, num_heads=2)
    az.swap_mixers(model, mixer)
    images = torch.randn(2, 3, 12, 12)
    product = torch.eye(10)
    for each in attention_maps(model, images, "0-2").values():
        product = (each.mean(1) + torch.eye(10)) / 2 @ product
    layers = [lazy_map(seen) for seen in observe(model, images, "0-2").layers]
    assert_close(rollout_rows(layers, [0, 7]), product[:, [0, 7]], rtol=1e-4, atol=1e-6)
    assert_close(rollout_columns(layers, [0, 7]), product[..., [0, 7]], rtol=1e-4, atol=1e-6)
    assert_close(rollout_rows(layers[:1], [2])[:, 0].sum(-1), layers[0].overview.mean[:, 2].sum(-1) / 2 + 0.5)


def test_rollout_of_a_pyramid_is_refused():
    short = LayerInput(1, build("DotProduct"), torch.randn(2, 5, DIM), (2, 2), 1, True)
    maps = [lazy_map(layer(build("DotProduct"))), lazy_map(short)]
    with pytest.raises(az.InputError, match="layer 0 has 13 and layer 1 has 5"):
        rollout_rows(maps, [0])


def test_columns_of_many_tokens_take_no_map():
    seen = LayerInput(0, build("DotProduct"), torch.randn(1, 4097, DIM), (64, 64), 1, True)
    found = lazy_map(seen)
    column = found.columns([9])[0, :, :, 0]
    for token in (0, 9, 4096):
        assert_close(column[:, token], found.rows([token])[0, :, 0, 9], rtol=1e-4, atol=1e-9)
    assert found.held() == 0
