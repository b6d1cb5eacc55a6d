"""Neighbourhood attention by NATTEN: what it is handed, by a stand-in, and its numbers where it is installed."""

import sys
from types import ModuleType

import pytest
import torch
from torch.testing import assert_close

import attention_zoo as az

GRID = (7, 9)


def pair(engine="natten", **options):
    return az.create_mixer("Neighborhood", 12, 2, kernel=3, grid=GRID, engine=engine, **options)


def heads():
    return torch.randn(3, 2, 2, 63, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def installed(monkeypatch):
    """A module of this name whose function has NATTEN's arguments and layout, (B, height, width, H, D)."""
    module = ModuleType("natten")

    def na2d(query, key, value, kernel_size, *, dilation, scale):
        assert query.shape == (2, *GRID, 2, 6) and scale == pytest.approx(6**-0.5)
        plain = az.create_mixer("Neighborhood", 12, 2, kernel=kernel_size, dilation=dilation, grid=GRID)
        q, k, v = (part.flatten(1, 2).transpose(1, 2) for part in (query, key, value))
        return plain.mix(q, k, v).transpose(1, 2).unflatten(1, GRID)

    module.na2d = na2d
    monkeypatch.setitem(sys.modules, "natten", module)


@pytest.mark.parametrize("dilation", [1, 2])
def test_what_it_is_handed(installed, dilation):
    q, k, v = heads()
    assert_close(pair(dilation=dilation).mix(q, k, v), pair("tiles", dilation=dilation).mix(q, k, v))


def test_what_it_cannot_do_is_refused(installed):
    for options in ({"num_prefix_tokens": 1}, {"attn_drop": 0.1}):
        with pytest.raises(az.InputError, match="Neighborhood: engine='natten' has no prefix tokens and no attn_drop"):
            pair(**options)
    with pytest.raises(az.InputError, match=r"engine='natten' needs a grid of 9 or more a side, not \(7, 9\)"):
        pair(dilation=3).mix(*heads())


def test_without_the_package_a_word(monkeypatch):
    monkeypatch.setitem(sys.modules, "natten", None)
    with pytest.raises(az.InputError, match="Neighborhood: engine='natten' needs the package natten"):
        pair()
    with pytest.raises(az.InputError, match="engine='cuda': unknown engine 'cuda'; choose from: natten, tiles"):
        pair("cuda")


@pytest.mark.parametrize("dilation", [1, 2])
def test_the_package_gives_the_same_numbers(dilation):
    pytest.importorskip("natten", reason="NATTEN is not installed")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    q, k, v = heads().to(device)
    assert_close(
        pair(dilation=dilation).mix(q, k, v), pair("tiles", dilation=dilation).mix(q, k, v), rtol=1e-4, atol=1e-4
    )
