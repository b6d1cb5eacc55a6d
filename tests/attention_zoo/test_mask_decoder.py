"""The mask decoder with every interaction, and what its predictions say about an image."""

import copy

import pytest
import torch
from torch import nn

import attention_zoo as az
from attention_zoo.errors import InputError
from attention_zoo.models.mask_decoder import (
    DecoderSize,
    MaskDecoder,
    MaskTransformer,
    PanopticThresholds,
    panoptic_segments,
    semantic_probabilities,
)
from attention_zoo.models.mask_decoder.layer import Interaction, QuerySelfAttention
from attention_zoo.models.mask_decoder.parts import resize, with_coordinates
from attention_zoo.models.mask_decoder.pyramid import Pyramid

TINY = DecoderSize(
    num_queries=5, dim=16, mask_dim=8, hidden=24, num_heads=2, widths=(8, 6, 4, 4), blocks=(1, 2, 1, 1), drop_path=0.0
)
CHANNELS = (4, 6, 8, 10)
CLASSES = 3

interactions = pytest.mark.parametrize("interaction", az.list_mixers("cross"))
paths = pytest.mark.parametrize("dual_path", [False, True], ids=["single", "dual"])


def decoder(interaction="KMeansCross", size=TINY, **options):
    torch.manual_seed(0)
    return MaskDecoder(CHANNELS, CLASSES, interaction=interaction, size=size, **options)


def maps(size=(64, 96), batch=2):
    generator = torch.Generator().manual_seed(1)
    sizes = [tuple(-(-side // stride) for side in size) for stride in (4, 8, 16, 32)]
    return [torch.randn(batch, c, *grid, generator=generator) for c, grid in zip(CHANNELS, sizes, strict=True)]


def random_gains(model):
    """As if trained: no residual branch is nothing."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    return model


def total(outputs):
    return sum(part.square().sum() for prediction in outputs.predictions for part in prediction)


@interactions
@paths
def test_predictions_of_every_layer(interaction, dual_path):
    outputs = decoder(interaction, dual_path=dual_path)(maps())
    assert len(outputs.layers) == 6 and len(outputs.predictions) == 7
    grids = [(2, 3), (2, 3), (4, 6), (4, 6), (8, 12), (8, 12), (16, 24)]
    for prediction, grid in zip(outputs.predictions, grids, strict=True):
        assert prediction.class_logits.shape == (2, 5, CLASSES + 1)
        assert prediction.mask_logits.shape == (2, 5, *grid)
        torch.testing.assert_close(prediction.features.norm(dim=1), torch.ones(2, *grid))


@interactions
@paths
@pytest.mark.parametrize("heads", [1, 2])
def test_gradients_reach_every_parameter(interaction, dual_path, heads):
    size = DecoderSize(**{**vars(TINY), "interaction_heads": heads})
    model = random_gains(decoder(interaction, size, dual_path=dual_path, coordinates=True))
    total(model(maps())).backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # batch normalisation takes what a bias before it adds, a softmax what one for all of its entries adds
    assert all(name.endswith(("mixer.proj.bias", "affinity_norm.bias")) for name in dead)


@interactions
@paths
def test_no_parameter_is_left_out_before_training(interaction, dual_path):
    """What two processes need: every parameter has a gradient, be it zero, in the first step."""
    model = decoder(interaction, dual_path=dual_path)
    total(model(maps())).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@interactions
@paths
def test_permuted_queries_permute_the_outputs(interaction, dual_path):
    model = random_gains(decoder(interaction, dual_path=dual_path)).double()
    inputs = [x.double() for x in maps()]
    before = model(inputs)
    order = torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        model.queries.copy_(model.queries[order])
    after = model(inputs)
    for first, second in zip(before.predictions, after.predictions, strict=True):
        torch.testing.assert_close(first.class_logits[:, order], second.class_logits)
        torch.testing.assert_close(first.mask_logits[:, order], second.mask_logits)
        torch.testing.assert_close(first.features, second.features)


@interactions
def test_images_do_not_mix_in_evaluation(interaction):
    model = random_gains(decoder(interaction, dual_path=True))
    model(maps())
    model.eval()
    both = model(maps()).final
    one = model([x[1:] for x in maps()]).final
    torch.testing.assert_close(both.mask_logits[1:], one.mask_logits, atol=1e-4, rtol=1e-4)


@interactions
@pytest.mark.parametrize("size", [(65, 97), (33, 40), (256, 32)])
def test_any_size(interaction, size):
    outputs = decoder(interaction, dual_path=True)(maps(size))
    assert outputs.final.mask_logits.shape[2:] == maps(size)[0].shape[2:]
    assert all(part.isfinite().all() for prediction in outputs.predictions for part in prediction)


@interactions
def test_bfloat16_autocast(interaction):
    with torch.autocast("cpu", torch.bfloat16):
        outputs = decoder(interaction, dual_path=True)(maps())
        total(outputs).backward()
    assert outputs.final.mask_logits.isfinite().all()


def test_the_k_means_assignment_carries_no_gradient():
    torch.manual_seed(0)
    layer = random_gains(Interaction(az.create_mixer("KMeansCross", 8, 1)))
    queries, keys, values = (torch.randn(2, n, 8, requires_grad=True) for n in (4, 30, 30))
    update, affinity, _ = layer(queries, keys, values)
    found = torch.autograd.grad(update.square().sum(), [queries, keys, values], allow_unused=True, retain_graph=True)
    assert found[0] is None and found[1] is None and found[2].abs().sum() > 0
    found = torch.autograd.grad(affinity.square().sum(), [queries, keys], allow_unused=True)
    assert all(gradient.abs().sum() > 0 for gradient in found)


def test_masks_are_what_the_mixer_reads_by():
    """kMaX-DeepLab: each query collects the values of the pixels whose mask it wins."""
    torch.manual_seed(0)
    layer = random_gains(Interaction(az.create_mixer("KMeansCross", 8, 1))).eval()
    queries, keys, values = (torch.randn(1, n, 8) for n in (4, 30, 30))
    update, affinity, features = layer(queries, keys, values)
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(1, 30))
    winners = affinity[0, 0].argmax(0)
    projected = layer.v_norm(layer.mixer.v(values))[0]
    sums = torch.stack([projected[winners == query].sum(0) for query in range(4)])
    expected = layer.update_norm(layer.mixer.proj(layer.read_norm(sums[None])))
    torch.testing.assert_close(update, expected)


def test_a_second_path_starts_as_none():
    """Its update of the pixels has gain 0, and the rest is the same model."""
    single, dual = decoder(), decoder(dual_path=True)
    missing, unexpected = dual.load_state_dict(single.state_dict(), strict=False)
    assert unexpected == [] and all("pixel_update" in name for name in missing)
    torch.testing.assert_close(single(maps()).final.mask_logits, dual(maps()).final.mask_logits)
    random_gains(dual)
    single.load_state_dict({name: value for name, value in dual.state_dict().items() if name in single.state_dict()})
    first, second = single(maps()), dual(maps())
    torch.testing.assert_close(first.layers[0].mask_logits, second.layers[0].mask_logits)
    assert not torch.allclose(first.layers[1].mask_logits, second.layers[1].mask_logits)


def test_self_attention_against_loops():
    torch.manual_seed(0)
    layer = random_gains(QuerySelfAttention(8, 2)).eval().double()
    queries = torch.randn(1, 5, 8, dtype=torch.double)
    q, k, v = layer.qkv(queries)[0].split([4, 4, 8], -1)
    mixed = torch.zeros(5, 8, dtype=torch.double)
    norm = layer.affinity_norm
    for head in range(2):
        scores = q[:, 2 * head : 2 * head + 2] @ k[:, 2 * head : 2 * head + 2].T
        scores = scores / (norm.running_var[head] + norm.eps).sqrt() * norm.weight[head] + norm.bias[head]
        mixed[:, 4 * head : 4 * head + 4] = scores.softmax(-1) @ v[:, 4 * head : 4 * head + 4]
    expected = layer.proj(nn.functional.gelu(layer.read_norm(mixed[None])))
    torch.testing.assert_close(layer(queries), expected)


def test_before_training_nine_of_ten_queries_are_void():
    probabilities = decoder()(maps()).final.class_logits.softmax(-1)
    torch.testing.assert_close(probabilities[..., -1], torch.full((2, 5), 0.9), atol=0.02, rtol=0)


def test_state_round_trip_and_copies():
    model = random_gains(decoder(dual_path=True)).eval()
    other = decoder(dual_path=True).eval()
    other.load_state_dict(model.state_dict())
    for same in (other, copy.deepcopy(model)):
        torch.testing.assert_close(model(maps()).final.mask_logits, same(maps()).final.mask_logits)


def test_queries_have_no_weight_decay():
    assert "queries" in decoder().no_weight_decay()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: decoder("KMeanCross"), "unknown mixer 'KMeanCross'; did you mean 'KMeansCross'"),
        (lambda: decoder("DotProduct"), "DotProduct mixes tokens; an interaction is one of: ClusterCross"),
        (lambda: MaskDecoder((4, 8), 3, size=TINY), "4 widths for the 2 maps"),
        (lambda: DecoderSize(dim=100), "dim=100 must be a multiple of 2 \\* num_heads=16"),
        (lambda: DecoderSize(blocks=(1, 1)), "blocks=\\(1, 1\\) must be as many as widths"),
        (lambda: DecoderSize(num_queries=0), "must be positive"),
        (lambda: DecoderSize(drop_path=1.0), "drop_path=1.0"),
        (lambda: Pyramid((8, 8), (16, 16), (4, 8, 16)), "the backbone has 2 maps"),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_a_custom_interaction():
    """Whatever implements the interface works."""

    class Uniform(az.CrossMixer):
        def weights(self, affinity):
            return torch.full_like(affinity, 1 / affinity.shape[-1])

    outputs = decoder(Uniform)(maps())
    assert outputs.final.mask_logits.shape == (2, 5, 16, 24)


# the model around the decoder


class Maps(nn.Module):
    """A backbone with maps of given strides."""

    def __init__(self, strides, channels=CHANNELS):
        super().__init__()
        self.strides, self.channels = list(strides), list(channels)
        self.convs = nn.ModuleList(nn.Conv2d(3, c, s, s) for c, s in zip(channels, strides, strict=True))

    def forward(self, image):
        return [conv(image) for conv in self.convs]

    def no_weight_decay(self):
        return {"convs.0.bias"}


@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (16, 16, 16, 16), (8, 8, 8, 8)])
def test_backbones_of_any_strides(strides):
    model = MaskTransformer(Maps(strides), CLASSES, size=TINY)
    outputs = model(torch.randn(2, 3, 64, 96))
    grids = [tuple(x.mask_logits.shape[2:]) for x in outputs.predictions[1::2]] + [outputs.final.mask_logits.shape[2:]]
    assert grids == [(2, 3), (4, 6), (8, 12), (16, 24)]
    assert model.no_weight_decay() == {"decoder.queries", "backbone.convs.0.bias"}
    total(outputs).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(("kind", "grid"), [("decoder", (16, 24)), ("conv", (2, 3))])
def test_auxiliary_semantic_heads(kind, grid):
    model = MaskTransformer(Maps((4, 8, 16, 32)), CLASSES, size=TINY, auxiliary=kind)
    assert model(torch.randn(2, 3, 64, 96)).semantic_logits.shape == (2, CLASSES, *grid)
    assert model.eval()(torch.randn(2, 3, 64, 96)).semantic_logits is None


def test_coordinates_run_from_minus_one_to_one():
    x = with_coordinates(torch.zeros(2, 1, 3, 5))
    torch.testing.assert_close(x[1, 1, :, 0], torch.tensor([-1.0, 0.0, 1.0]))
    torch.testing.assert_close(x[0, 2, 0], torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0]))


def test_odd_sizes_share_their_corners():
    x = torch.arange(9.0).view(1, 1, 3, 3)
    large = resize(x, (5, 5))
    torch.testing.assert_close(large[..., ::2, ::2], x)
    assert resize(x, (3, 3)) is x


# inference


def logits(probabilities):
    return torch.tensor(probabilities).clamp(min=1e-9).log()


def test_semantic_probabilities_by_hand():
    classes = logits([[[0.7, 0.2, 0.1], [0.0, 0.5, 0.5]]])  # two queries, two classes and void
    masks = logits([[[[1.0, 0.25]], [[0.0, 0.75]]]])  # 1 x 2 pixels
    expected = torch.tensor([[[[0.7, 0.175]], [[0.2, 0.425]]]])
    torch.testing.assert_close(semantic_probabilities(classes, masks), expected, atol=1e-6, rtol=0)


def segments(classes, masks, things=(0,), **limits):
    found = panoptic_segments(logits(classes), logits(masks), things, PanopticThresholds(**limits))
    return [tuple(pixel) for pixel in found.flatten(0, 1).tolist()]


THING, STUFF, NOTHING = [0.9, 0.0, 0.1], [0.0, 0.9, 0.1], [0.1, 0.1, 0.8]


def test_things_stay_apart_and_stuff_becomes_one():
    masks = [[[1.0, 0, 0, 0]], [[0, 1.0, 0, 0]], [[0, 0, 1.0, 0]], [[0, 0, 0, 1.0]]]
    found = segments([THING, THING, STUFF, STUFF], masks)
    assert found[0][0] == found[1][0] == 0 and found[0][1] != found[1][1]
    assert found[2] == found[3] and found[2][0] == 1
    assert {segment for _, segment in found} == {1, 2, 3}


def test_unsure_queries_and_pixels_have_no_segment():
    masks = [[[0.45, 1.0, 0.3, 0.0]], [[0.35, 0.0, 0.35, 0.0]], [[0.2, 0.0, 0.35, 1.0]]]
    assert segments([THING, STUFF, NOTHING], masks) == [(0, 1), (0, 1), (2, 0), (2, 0)]


def test_a_mask_that_better_ones_hide_is_left_out():
    masks = [[[0.55, 0.55, 0.9]], [[0.45, 0.45, 0.1]]]
    both = [[0.9, 0.0, 0.1], [0.0, 0.8, 0.2]]
    assert segments(both, masks) == [(0, 1)] * 3
    # the second comes first when the exponent ignores how sure its pixels are and its class is surer
    surer = [[0.8, 0.0, 0.2], [0.0, 0.9, 0.1]]
    assert segments(surer, masks, mask_exponent=0.0, overlap=0.3) == [(1, 1), (1, 1), (0, 2)]
    assert segments(surer, masks, mask_exponent=0.0, overlap=0.8) == [(1, 1), (1, 1), (2, 0)]
    assert segments(surer, masks, mask_exponent=1.0)[0] == (0, 1)


class TestPixelAttention:
    """A mixer in the blocks of the two coarsest levels, in place of their convolution."""

    @pytest.mark.parametrize("mixer", ["Axial", "DotProduct", "VarsD"])
    def test_on_maps_of_any_size(self, mixer):
        model = decoder(pixel_attention=mixer)
        layers = [name for name, module in model.named_modules() if isinstance(module, az.SelfMixer)]
        assert {name.split(".")[2] for name in layers} == {"0", "1"}
        for size in ((64, 96), (96, 32)):
            outputs = random_gains(model)(maps(size))
            assert outputs.final.mask_logits.shape[-2:] == (size[0] // 4, size[1] // 4)
        total(outputs).backward()
        assert all(p.grad is not None for name, p in model.named_parameters() if "pixel_decoder" in name)

    def test_a_block_is_the_bottleneck_around_axial_attention(self):
        block = decoder(pixel_attention="Axial").pixel_decoder.stages[0][0].eval()
        x = torch.randn(2, 10, 3, 5)
        inner = block.act1(block.bn1(block.conv1(x)))
        lines = az.Axial(8, 8, grid=(3, 5))
        lines.load_state_dict(block.conv2.mixer.state_dict())
        mixed = lines(inner.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (3, 5))
        torch.testing.assert_close(block.conv2(inner), mixed)
        expected = block.act3(block.bn3(block.conv3(block.act2(block.bn2(mixed)))) + block.downsample(x))
        torch.testing.assert_close(block(x), expected)

    def test_an_unknown_mixer_is_named(self):
        with pytest.raises(InputError, match="unknown mixer 'Axal'"):
            decoder(pixel_attention="Axal")
