"""A mixer gets what every host gives, mixes to the shape of the values, and says how it is normalised."""

import warnings

import pytest
import torch

import attention_zoo as az
from attention_zoo.mixers.registry import as_factory


class KeepsNothing(az.SelfMixer):
    """Takes no option of the host."""

    def __init__(self, dim, num_heads=8):
        super().__init__(dim, num_heads)

    def mix(self, q, k, v):
        return v


class Swallows(KeepsNothing):
    """Takes every option of the host, and hands none of them on."""

    def __init__(self, dim, num_heads=8, *, scale=1.0, **host):
        super().__init__(dim, num_heads)


class HandsOn(az.SelfMixer):
    """Hands every option of the host on."""

    def __init__(self, dim, num_heads=8, *, scale=1.0, **host):
        super().__init__(dim, num_heads, **host)
        self.scale = scale

    def mix(self, q, k, v):
        return self.scale * v


class Shrinks(HandsOn):
    """Mixes to one token."""

    def mix(self, q, k, v):
        return v.mean(2, keepdim=True)


class ByBatch(HandsOn):
    """Normalises by batch."""

    norms_by_batch = True


@pytest.mark.parametrize("options", [{}, {"scale": 2.0}])
@pytest.mark.parametrize("host", [{"qkv_bias": True}, {"grid": (2, 3)}, {"num_prefix_tokens": 1}])
def test_what_the_host_gives_arrives(host, options):
    (name,) = host
    with pytest.raises(az.InputError, match=rf"Swallows was to have {name}=.*hand it on by super\(\).__init__"):
        as_factory(Swallows, options)(8, 2, **host)
    built = as_factory(HandsOn, options)(8, 2, **host)
    assert (built.qkv.bias is not None, built.grid, built.num_prefix_tokens) == (
        host.get("qkv_bias", False),
        host.get("grid"),
        host.get("num_prefix_tokens", 0),
    )
    if not options:
        with pytest.raises(az.InputError, match=rf"KeepsNothing does not take the host's {name}: its constructor must"):
            as_factory(KeepsNothing)(8, 2, **host)


@pytest.mark.parametrize("name", [*az.list_mixers("self"), "Axial", "TokenAwarePooling"])
def test_every_mixer_has_what_the_host_gives(name):
    for bias in (True, False):
        as_factory(name)(dim=32, num_heads=2, qkv_bias=bias, grid=(8, 8), num_prefix_tokens=0)


def test_mixed_values_of_another_shape_are_refused():
    x = torch.zeros(2, 3, 8)
    with pytest.raises(az.InputError, match=r"Shrinks: mixed values have the shape \(2, 2, 1, 4\), not \(2, 2, 3, 4\)"):
        Shrinks(8, 2)(x)
    assert HandsOn(8, 2)(x).shape == x.shape


@pytest.mark.parametrize("wrap", [lambda mixer: mixer, *(getattr(az, name) for name in ("Axial", "TokenAwarePooling"))])
@pytest.mark.parametrize("mixer", [ByBatch, HandsOn])
def test_wrappers_are_normalised_as_what_is_inside(wrap, mixer):
    built = mixer(8, 2, grid=(2, 3)) if wrap not in (az.Axial, az.TokenAwarePooling) else wrap(8, 2, mixer=mixer)
    assert built.norms_by_batch == (mixer is ByBatch)


def test_heads_take_the_norm_of_what_is_inside():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        built = az.create_mixer("MixtureOfHeads", 8, 2, mixer=ByBatch)
    assert built.norms_by_batch and not az.create_mixer("MixtureOfHeads", 8, 2).norms_by_batch
