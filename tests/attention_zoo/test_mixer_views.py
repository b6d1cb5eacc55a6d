"""What a caller can ask a self-mixer for beyond the common interface, and what is left without its projections."""

import pytest
import torch
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.mixers.base import _mean_derivative
from attention_zoo.mixers.protocols import Assignments, Atoms, Steps

SELF = az.list_mixers("self")
DIM, HEADS, GRID = 12, 2, (3, 3)


def build(name):
    torch.manual_seed(0)
    return az.create_mixer(name, DIM, HEADS, dtype=torch.float64, grid=GRID).eval()


def tokens(seed=0):
    return torch.randn(2, 9, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1 + seed))


class TestViews:
    """What a reading has beyond the common interface, asked for by type."""

    @pytest.mark.parametrize("name", SELF)
    def test_a_view_is_what_its_name_says(self, name):
        mixer, x = build(name), tokens()
        if isinstance(mixer, Steps):
            assert_close(mixer.attention_path(x)[-1], mixer.attention_map(x))
        if isinstance(mixer, Atoms):
            assert mixer.dictionary(x).shape[:3] == (2, HEADS, 9)
        if isinstance(mixer, Assignments):
            assert_close(mixer.assignments(x).sum(2), torch.ones(2, HEADS, 9, dtype=torch.float64))

    @pytest.mark.parametrize("name", SELF)
    def test_a_view_hears_the_signal_from_above(self, name):
        mixer, x, signal = build(name), tokens(), tokens(1)
        gate = torch.rand(2, 9, 1, dtype=torch.float64)
        heard = {"top_down": signal, "top_down_to": "qkv", "value_gate": gate}
        weights = mixer.attention_map(x, **heard)
        if name != "Axial":  # its values are gated along both axes
            q, k, v = mixer.project(x, signal, top_down_to="qkv")
            expected = _mean_derivative(lambda values: mixer.mix(q, k, values * gate[:, None]), v)
            assert_close(weights, expected)
        if isinstance(mixer, Steps):
            assert_close(mixer.attention_path(x, **heard)[-1], weights)
        if isinstance(mixer, Atoms):
            changed = not torch.equal(mixer.dictionary(x, **heard), mixer.dictionary(x))
            assert changed == (name != "VarsS")  # its dictionary is learned
        if isinstance(mixer, Assignments):
            assert not torch.equal(mixer.assignments(x, **heard), mixer.assignments(x))

    def test_maps_of_lines_hear_the_gate(self):
        mixer, x = build("Axial"), tokens()
        gate = torch.ones(2, 9, 1, dtype=torch.float64)
        assert_close(mixer.attention_map(x, value_gate=gate), mixer.attention_map(x))
        gate[:, 4] = 0
        weights = mixer.attention_map(x, value_gate=gate)
        assert not weights[..., 4].any() and (weights[..., 5] != 0).any()

    @pytest.mark.parametrize("name", SELF)
    def test_masks(self, name):
        mixer, everybody = build(name), torch.ones(9, 9, dtype=torch.bool)
        if mixer.takes_masks():
            assert_close(mixer(tokens(), attn_mask=everybody), mixer(tokens()))
        else:
            with pytest.raises(az.InputError, match=f"{name} cannot use attn_mask"):
                mixer(tokens(), attn_mask=everybody)

    def test_who_has_which(self):
        found = {view: {name for name in SELF if isinstance(build(name), view)} for view in (Steps, Atoms, Assignments)}
        assert found[Steps] == found[Atoms] == {"VarsD", "VarsS", "VarsSD"}
        assert found[Assignments] == {"Cluster", "KMeans"}


class TestWithoutProjections:
    @pytest.mark.parametrize("name", SELF)
    def test_the_reading_is_left(self, name):
        mixer, x = build(name).eval(), tokens()
        q, k, v = mixer.project(x)
        mixed = mixer.mix(q, k, v)
        assert mixer.drop_projections() is mixer
        assert not [key for key in mixer.state_dict() if key.startswith(("qkv", "proj"))]
        assert_close(mixer.mix(q, k, v), mixed)
        if mixer.projections:
            with pytest.raises(az.InputError, match=f"{name}: tokens need the projections"):
                mixer(x)

    def test_mixers_inside(self):
        mixer = az.Axial(DIM, HEADS, grid=(3, 3)).drop_projections()
        assert not list(mixer.parameters())
        with pytest.raises(az.InputError, match="DotProduct: tokens need the projections"):
            mixer(torch.randn(1, 9, DIM))
