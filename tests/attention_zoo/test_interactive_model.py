"""Interactive models: what the encoder sees, what a click costs, and switches at test time."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.clicks import Clicks
from attention_zoo.mixers.probabilistic import Probabilistic
from attention_zoo.models import build_backbone
from attention_zoo.models.interactive import (
    ConvHead,
    CorrectiveAttention,
    Fusion,
    InteractiveModel,
    MMSegDecoder,
    box_disks,
    disks,
)

Propagating = partial(Probabilistic, beta=0.1, value_prior_precision=0.01)
Corrective = partial(CorrectiveAttention, dim=8, stride=4, mixer=Propagating)


class Convolutions(nn.Module):
    """A backbone of two maps."""

    channels, strides = [6, 8], [4, 8]

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, 4)
        self.stage = nn.Conv2d(6, 8, 2, 2)
        self.seen = []

    def forward(self, image):
        self.seen.append(image)
        fine = self.stem(image).relu()
        return [fine, self.stage(fine)]


def build(seed=0, head=Corrective, **options):
    torch.manual_seed(seed)
    return InteractiveModel(Convolutions(), decoder=partial(Fusion, width=16), head=head, **options).eval()


def images(batch=2, size=(24, 40)):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


CLICKS = Clicks(torch.tensor([[[3.0, 4.0], [20.0, 30.0]], [[9.0, 9.0], [0.0, 0.0]]]), torch.tensor([[1, 0], [1, -1]]))
BOX = torch.tensor([[2.0, 3.0, 20.0, 30.0], [20.0, 3.0, 2.0, 30.0]])


class TestInputs:
    def test_pap_sees_box_positive_and_negative_clicks_as_disks_of_radius_8(self):
        model = build()
        model(images(), CLICKS, BOX)
        (seen,) = model.backbone.seen
        expected = torch.cat((images(), box_disks(BOX, (24, 40), 8), disks(CLICKS, (24, 40), 8)), 1)
        assert torch.equal(seen, expected)

    def test_ritm_sees_clicks_as_disks_of_radius_5_and_the_mask_before(self):
        model = build(guidance="ritm")
        before = torch.rand(2, 1, 24, 40)
        model(images(), CLICKS, previous=before)
        model(images(), CLICKS)
        first, second = model.backbone.seen
        assert torch.equal(first, torch.cat((images(), disks(CLICKS, (24, 40), 5), before), 1))
        assert torch.equal(second[:, 5], torch.zeros(2, 24, 40))

    def test_clicks_in_the_head_alone(self):
        model = build(clicks_in="head")
        out = model(images(), CLICKS, BOX)
        assert torch.equal(model.backbone.seen[0], torch.cat((images(), box_disks(BOX, (24, 40), 8)), 1))
        features = model.encode(images(), Clicks.empty(2), BOX)
        assert torch.equal(model.decode(features, CLICKS), out)
        assert not torch.equal(model.decode(features, Clicks.empty(2)), out)

    @pytest.mark.parametrize("guidance", ["pap", "ritm"])
    def test_before_training_the_backbone_is_what_it_was(self, guidance):
        model = build(guidance=guidance)
        torch.manual_seed(0)
        plain = Convolutions()
        assert model.backbone.stem.in_channels == 6
        out = model.backbone(torch.cat((images(), torch.rand(2, 3, 24, 40)), 1))
        for widened, was in zip(out, plain(images()), strict=True):
            assert_close(widened, was)

    def test_sizes_that_the_strides_do_not_divide(self):
        model = build()
        odd = images(size=(21, 33))
        out = model(odd, CLICKS, BOX)
        assert out.shape == (2, 1, 21, 33)
        padded = nn.functional.pad(odd, (0, 7, 0, 3))
        inside = disks(CLICKS, (21, 33), 8), box_disks(BOX, (21, 33), 8)
        assert torch.equal(model.backbone.seen[0][:, :, :21, :33], torch.cat((odd, inside[1], inside[0]), 1))
        assert model.backbone.seen[0].shape[2:] == padded.shape[2:]


class TestOutputs:
    @pytest.mark.parametrize("head", [ConvHead, Corrective, partial(Corrective, attention="full")])
    def test_every_parameter_learns_and_images_do_not_meet(self, head):
        model = build(head=head)
        out = model(images(3), CLICKS.cat(CLICKS)[:3])
        assert out.dtype == torch.float32
        assert_close(model(images(3)[1:2], CLICKS[1:2]), out[1:2])
        model.train()(images(), CLICKS, BOX).square().sum().backward()
        silent = [name for name, p in model.named_parameters() if p.requires_grad and not p.grad.abs().sum() > 0]
        assert silent == []

    def test_half_precision(self):
        with torch.autocast("cpu", torch.bfloat16):
            assert build()(images(), CLICKS).dtype == torch.float32

    def test_save_and_load(self, tmp_path):
        model = build()
        torch.save(model.state_dict(), tmp_path / "model.pt")
        other = build(seed=3)
        other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
        assert torch.equal(other(images(), CLICKS, BOX), model(images(), CLICKS, BOX))


class TestAdaptation:
    def test_the_head_adapts_in_one_call_only(self):
        model = build()
        features = model.encode(images(), CLICKS)
        out = model.decode(features, CLICKS)
        for options in (
            {"key_adaptation": 1},
            {"value_propagation": 5},
            {"value_propagation": 5, "value_prior_precision": 1.0},
        ):
            assert not torch.allclose(model.decode(features, CLICKS, **options), out, rtol=0, atol=1e-6)
        assert not torch.allclose(
            model.decode(features, CLICKS, value_propagation=5),
            model.decode(features, CLICKS, value_propagation=5, value_prior_precision=1.0),
        )
        none = dict.fromkeys(("key_adaptation", "key_prior_precision", "value_propagation", "value_prior_precision"))
        assert torch.equal(model.decode(features, CLICKS, **none), out)

    def test_a_head_that_cannot_says_so(self):
        model = build(head=ConvHead)
        with pytest.raises(az.InputError, match="value_propagation=1: ConvHead has no Probabilistic layer"):
            model(images(), CLICKS, value_propagation=1)
        assert model(images(), CLICKS, value_propagation=0, key_adaptation=None).isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance": "rittm"}, "unknown guidance 'rittm'; did you mean 'ritm'"),
        ({"clicks_in": "decoder"}, "unknown clicks_in 'decoder'"),
        ({"clicks_in": "head", "guidance": "ritm"}, "clicks_in='head' needs guidance='pap'"),
        ({"clicks_in": "head", "head": ConvHead}, "ConvHead reads no clicks"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(az.InputError, match=message):
        build(**options)


BOTNET = {"layers": (1, 1, 1, 1), "channels": (4, 4, 4, 8), "stem_width": 8}
VIT = {"patch_size": 8, "embed_dim": 12, "num_heads": 2, "depth": 2}


def with_backbone(name, size=(32, 32), seed=0, head=Corrective, decoder=None, **options):
    torch.manual_seed(seed)
    backbone = build_backbone(name, image_size=size, **options)
    return InteractiveModel(backbone, decoder=decoder or partial(Fusion, width=8), head=head).eval()


class TestBackbones:
    @pytest.mark.parametrize("mixer", az.list_mixers("self"))
    @pytest.mark.parametrize(("name", "args"), [("botnet50", BOTNET), ("vit_tiny_patch16_224", VIT)])
    def test_with_every_mixer(self, name, args, mixer):
        model = with_backbone(name, (64, 64), mixer=mixer, model_args=args).train()
        model(images(size=(64, 64)), CLICKS, BOX).square().sum().backward()
        silent = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert silent == []

    def test_keys_adapt_in_the_backbone_and_the_head_separately(self):
        model = with_backbone("vit_tiny_patch16_224", mixer="Probabilistic", model_args=VIT)
        image, none = images(size=(32, 32)), Clicks.empty(2)
        plain = model(image, none)
        with az.adapted(model.backbone, key_adaptation=1):
            backbone = model(image, none)
            both = model(image, none, key_adaptation=1)
        head = model(image, none, key_adaptation=1)
        outs = (plain, backbone, head, both)
        assert all(not torch.equal(a, b) for i, a in enumerate(outs) for b in outs[:i])
        assert torch.equal(model(image, none), plain)

    def test_pretrained_stems_keep_what_they_saw(self):
        plain = build_backbone("resnet18", image_size=(32, 32)).eval()
        weight = plain.model.conv1.weight.detach().clone()
        model = InteractiveModel(plain)
        assert torch.equal(model.backbone.model.conv1.weight[:, :3], weight)
        assert model.backbone.model.conv1.weight[:, 3:].abs().sum() == 0


MMSEG = [
    ("hrnet_w18_small", "ocrnet_hr18", {"channels": 16, "ocr_channels": 8}, {}, 1),
    ("resnet26", "deeplabv3plus_r50-d8", {"channels": 16, "c1_channels": 4}, {"output_stride": 8}, 0),
]


class TestMMSegDecoders:
    @pytest.mark.parametrize(("name", "config", "head_args", "args", "extras"), MMSEG)
    @pytest.mark.parametrize("head", [ConvHead, Corrective])
    def test_every_parameter_learns(self, name, config, head_args, args, extras, head):
        decoder = partial(MMSegDecoder, config=config, head_args=head_args)
        model = with_backbone(name, decoder=decoder, head=head, model_args=args).train()
        features = model.encode(images(size=(40, 32)), CLICKS, BOX)
        logits = model.decode(features, CLICKS)
        assert len(features.extra_logits) == extras
        assert all(extra.shape == logits.shape == (2, 1, 40, 32) for extra in features.extra_logits)
        sum(x.square().sum() for x in (logits, *features.extra_logits)).backward()
        silent = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert silent == []

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"config": "ocrnet_hr19"}, "unknown config .*did you mean 'ocrnet_hr18'"),
            ({"config": "ocrnet_hr18", "head_args": {"chanels": 3}}, "OCRHead.*chanels"),
            ({"config": "deeplabv3plus_r50-d8"}, "reads map 3; the backbone gives 2"),
        ],
    )
    def test_bad_arguments(self, options, message):
        with pytest.raises(az.InputError, match=message):
            MMSegDecoder([4, 8] if "plus" in options["config"] else [4, 8, 8, 8], [4, 8], **options)
