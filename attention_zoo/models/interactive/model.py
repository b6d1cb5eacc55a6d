"""Models that take an image and clicks, and give a mask."""

from typing import Literal, NamedTuple, Unpack, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.adaptation import adapted
from attention_zoo.clicks import Clicks
from attention_zoo.errors import InputError, unknown
from attention_zoo.mixers.probabilistic import Adaptation
from attention_zoo.models.backbone import Backbone
from attention_zoo.models.interactive.fusion import DecoderFactory, Fusion
from attention_zoo.models.interactive.guidance import box_disks, disks
from attention_zoo.models.interactive.head import ConvHead, HeadFactory

Guidance = Literal["pap", "ritm"]
"""What the encoder sees beside the image. "pap", of Gabbur et al., NeurIPS 2021: the box's corners, then positive and
negative clicks, as disks of radius 8. "ritm", of K. Sofiiuk, I. Petrov, A. Konushin, ICIP 2022: positive and negative
clicks as disks of radius 5, then the mask before."""
ClicksIn = Literal["encoder", "head"]
"""Where clicks enter: the encoder (and a head that reads them), or only such a head."""
RADIUS = {"pap": 8, "ritm": 5}


class Features(NamedTuple):
    """What `InteractiveModel.encode` gives `InteractiveModel.decode`.

    Attributes:
        maps: (B, C, h, w).
        size: height and width of the image.
        padded: the same with the padding that the backbone's strides ask for.
        extra_logits: (B, 1, H, W) each, of the decoder's own masks, such as OCR's object regions, for training.
    """

    maps: Tensor
    size: tuple[int, int]
    padded: tuple[int, int]
    extra_logits: tuple[Tensor, ...] = ()


class InteractiveModel(nn.Module):
    """An encoder-decoder with further input channels for clicks, and a head that may read the clicks itself.

    The backbone's first convolution gets the further channels with weights of zero: before training the model sees
    what the backbone, pretrained or not, saw.

    Args:
        backbone: gives maps of images with three channels.
        decoder: None is `Fusion`.
        head: None is `ConvHead`.
        guidance: what the encoder sees, see `Guidance`.
        clicks_in: "head": the encoder sees the box but no click, and runs once an image.

    Raises:
        InputError: an argument that does not fit.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        decoder: DecoderFactory | None = None,
        head: HeadFactory | None = None,
        guidance: Guidance = "pap",
        clicks_in: ClicksIn = "encoder",
    ) -> None:
        super().__init__()
        if guidance not in get_args(Guidance):
            raise unknown("guidance", guidance, get_args(Guidance))
        if clicks_in not in get_args(ClicksIn):
            raise unknown("clicks_in", clicks_in, get_args(ClicksIn))
        self.guidance, self.encoder_sees_clicks = guidance, clicks_in == "encoder"
        self.decoder = (decoder or Fusion)(backbone.channels, backbone.strides)
        self.head = (head or ConvHead)(self.decoder.out_channels)
        if not self.encoder_sees_clicks and guidance == "ritm":
            raise InputError("clicks_in='head' needs guidance='pap': the previous mask of 'ritm' is made of clicks")
        if not self.encoder_sees_clicks and not self.head.reads_clicks:
            raise InputError(f"clicks_in='head': {type(self.head).__name__} reads no clicks; take CorrectiveAttention")
        self.backbone = backbone
        widen_stem(backbone, 3 if self.encoder_sees_clicks else 1)

    def encode(
        self, image: Tensor, clicks: Clicks, box: Tensor | None = None, previous: Tensor | None = None
    ) -> Features:
        """The features of an image; without `encoder_sees_clicks` they serve whatever the clicks.

        Of what is given, that counts which the model's guidance has channels for.

        Args:
            image: (B, 3, H, W), normalised.
            clicks: on the image.
            box: (B, 4), rows and columns of two opposite corners, for "pap"; None: not given.
            previous: (B, 1, H, W), the mask before as probabilities, for "ritm"; None: none yet.
        """
        size = height, width = image.shape[2], image.shape[3]
        image = torch.cat((image, *self._channels(image, clicks, box, previous)), 1)
        multiple = max(self.backbone.strides)
        image = F.pad(image, (0, -width % multiple, 0, -height % multiple))
        padded = image.shape[2], image.shape[3]
        maps, extra = self.decoder(self.backbone(image), padded)
        return Features(maps, size, padded, tuple(logits[..., : size[0], : size[1]].float() for logits in extra))

    def _channels(self, image: Tensor, clicks: Clicks, box: Tensor | None, previous: Tensor | None) -> list[Tensor]:
        """What is appended to the image."""
        size, absent = (image.shape[2], image.shape[3]), torch.zeros_like(image[:, :1])
        radius = RADIUS[self.guidance]
        if self.guidance == "ritm":
            channels = [disks(clicks, size, radius), absent if previous is None else previous]
        else:
            channels = [absent if box is None else box_disks(box, size, radius)]
            channels += [disks(clicks, size, radius)] if self.encoder_sees_clicks else []
        return [channel.to(image.dtype) for channel in channels]

    def decode(self, features: Features, clicks: Clicks, **adaptation: Unpack[Adaptation]) -> Tensor:
        """Logits (B, 1, H, W), float32, of each pixel's being of the object.

        Args:
            features: what `encode` gave.
            clicks: on the image.
            **adaptation: how the head adapts in this call, see `attention_zoo.set_adaptation`; None: as it was built.

        Raises:
            InputError: options the head cannot follow.
        """
        with adapted(self.head, **adaptation):
            logits = self.head(features.maps, clicks, features.padded)
        return logits[..., : features.size[0], : features.size[1]].float()

    def forward(
        self,
        image: Tensor,
        clicks: Clicks,
        box: Tensor | None = None,
        previous: Tensor | None = None,
        **adaptation: Unpack[Adaptation],
    ) -> Tensor:
        """`encode` and `decode` in one."""
        return self.decode(self.encode(image, clicks, box, previous), clicks, **adaptation)

    def no_weight_decay(self) -> set[str]:
        """What the backbone names."""
        named = self.backbone.no_weight_decay() if hasattr(self.backbone, "no_weight_decay") else ()
        return {f"backbone.{name}" for name in named}


def widen_stem(backbone: nn.Module, channels: int) -> None:
    """Give the first convolution of a backbone so many further input channels, with weights of zero.

    Raises:
        InputError: there is no convolution of images.
    """
    convolutions = (m for m in backbone.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3)
    stem = next(convolutions, None)
    if stem is None or stem.groups != 1:
        raise InputError(f"{type(backbone).__name__} has no convolution of RGB images that could take clicks")
    weight = stem.weight.detach()
    more = weight.new_zeros(len(weight), channels, *weight.shape[2:])
    stem.weight = nn.Parameter(torch.cat((weight, more), 1))
    stem.in_channels += channels
