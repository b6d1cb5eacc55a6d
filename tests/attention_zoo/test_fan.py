"""FAN: sizes, channel processing, the authors' weights, grids. What all models share is tested in `test_models`."""

import timm
import torch
from torch import nn
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.models.fan import ChannelProcessing
from tests.attention_zoo.test_models import build, images, mixers_of


def test_sizes_are_those_of_the_paper():
    with torch.device("meta"):
        sizes = [timm.create_model(f"fan_{size}") for size in ("tiny", "small", "base", "large")]
    assert [round(sum(p.numel() for p in model.parameters()) / 1e6) for model in sizes] == [7, 28, 54, 81]


def test_channels_are_weighed_by_their_affinity_with_the_tokens():
    part, x = ChannelProcessing(6, 2, 12).eval(), images((5, 6))[:1, :, :, :].flatten(2).mT[..., [0, 1, 2, 0, 1, 2]]
    x = x + torch.arange(6) / 7
    nn.init.uniform_(part.temperature)
    weights = torch.empty(6)
    for channel in range(6):
        head = slice(channel // 3 * 3, channel // 3 * 3 + 3)
        asked = torch.stack([torch.exp(part.q(token)[channel]) for token in x[0]])
        kept = torch.stack([torch.softmax(x[0, :, c], 0) for c in range(head.start, head.stop)]).mean(0)
        weights[channel] = torch.sigmoid(asked / asked.sum() @ kept) * part.temperature[channel // 3]
    assert_close(part(x, 5, 6), weights * part.norm_v(part.mlp_v(x, 5, 6)))


def test_weights_under_the_authors_names_load(tmp_path):
    model = build("fan_tiny", seed=3)
    theirs = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("blocks.") and ".attn.qkv." in name:
            theirs[name.replace("qkv", "q")], theirs[name.replace("qkv", "kv")] = tensor.split((24, 48))
        else:
            theirs[name.replace("pos_embed.", "pos_embeder.")] = tensor
    torch.save({"state_dict": theirs}, tmp_path / "authors.pth")
    twin = build("fan_tiny", checkpoint_path=tmp_path / "authors.pth")
    assert_close(twin(images()), model(images()), rtol=0, atol=0)


def test_mixers_are_told_the_grid_of_each_pass():
    model = build("fan_tiny", mixer="VarsS")
    model(images((64, 32)))
    assert {mixer.grid for mixer in mixers_of(model)} == {(4, 2)}
    az.swap_mixers(model, "Neighborhood")
    assert model(images((96, 64))).shape == (2, 5)
    assert {(mixer.grid, mixer.num_prefix_tokens) for mixer in mixers_of(model)} == {((6, 4), 0)}


def test_maps_of_blocks():
    model = build("fan_tiny", features_only=True, out_indices=(0, 1))
    assert [part.shape for part in model(images())] == [(2, 24, 3, 5)] * 2
