"""Models that take an image and clicks, and give a mask."""

from typing import Any, Literal, NamedTuple, Unpack, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.clicks import Clicks
from attention_zoo.errors import InputError, unknown
from attention_zoo.mixers.adaptation import adapted
from attention_zoo.mixers.probabilistic import Adaptation
from attention_zoo.models.backbone import Backbone
from attention_zoo.models.interactive.fusion import DecoderFactory, Fusion
from attention_zoo.models.interactive.guidance import box_disks, disks
from attention_zoo.models.interactive.head import ConvHead, HeadFactory

Guidance = Literal["pap", "ritm"]
"""The channels that the encoder sees beside the image. "pap" (Gabbur et al., NeurIPS 2021): box corners, positive and
negative clicks, as disks of radius 8. "ritm" (K. Sofiiuk, I. Petrov, A. Konushin, ICIP 2022): positive and negative
clicks as disks of radius 5, then the previous mask."""
ClicksIn = Literal["encoder", "head"]
"""The place where clicks enter: the encoder (and a head that reads them), or only such a head."""
RADIUS = {"pap": 8, "ritm": 5}


class Features(NamedTuple):
    """The features that `InteractiveModel.encode` hands to `InteractiveModel.decode`.

    Attributes:
        maps: (B, C, h, w), the features.
        size: height and width of the image in pixels.
        padded: height and width with the padding that the backbone's strides need.
        extra_logits: (B, 1, H, W) each, logits of the decoder's own masks, such as OCR's object regions, for training.
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
        backbone: the backbone, which gives maps of images with three channels.
        decoder: builds the decoder; None is `Fusion`.
        head: builds the head; None is `ConvHead`.
        guidance: the channels that the encoder sees beside the image, see `Guidance`.
        clicks_in: with "head", the encoder sees the box but no click, and runs once for each image.

    Raises:
        InputError: an argument does not fit.
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
        """Return the features of images; without `encoder_sees_clicks` they hold for any clicks.

        Arguments for which the model's guidance has no channels are ignored.

        Args:
            image: (B, 3, H, W), normalised.
            clicks: the clicks on the images.
            box: (B, 4), rows and columns of two opposite corners, for "pap"; None is no box.
            previous: (B, 1, H, W), the previous mask as probabilities, for "ritm"; None is no mask yet.
        """
        size = height, width = image.shape[2], image.shape[3]
        image = torch.cat((image, *self._channels(image, clicks, box, previous)), 1)
        multiple = max(self.backbone.strides)
        image = F.pad(image, (0, -width % multiple, 0, -height % multiple))
        padded = image.shape[2], image.shape[3]
        maps, extra = self.decoder(self.backbone(image), padded)
        return Features(maps, size, padded, tuple(logits[..., : size[0], : size[1]].float() for logits in extra))

    def _channels(self, image: Tensor, clicks: Clicks, box: Tensor | None, previous: Tensor | None) -> list[Tensor]:
        """Return the channels, (B, 1, H, W) or (B, 2, H, W) each, that are appended to the image."""
        size, absent = (image.shape[2], image.shape[3]), torch.zeros_like(image[:, :1])
        radius = RADIUS[self.guidance]
        if self.guidance == "ritm":
            channels = [disks(clicks, size, radius), absent if previous is None else previous]
        else:
            channels = [absent if box is None else box_disks(box, size, radius)]
            channels += [disks(clicks, size, radius)] if self.encoder_sees_clicks else []
        return [channel.to(image.dtype) for channel in channels]

    def decode(self, features: Features, clicks: Clicks, **adaptation: Unpack[Adaptation]) -> Tensor:
        """Return the logits (B, 1, H, W), float32, of pixels belonging to the object.

        Args:
            features: the features that `encode` returned.
            clicks: the clicks on the images.
            **adaptation: how the head adapts in this call, see `attention_zoo.set_adaptation`; None is as built.

        Raises:
            InputError: the head cannot follow an option.
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
        """Return the logits (B, 1, H, W) of `decode` for the features of `encode`."""
        return self.decode(self.encode(image, clicks, box, previous), clicks, **adaptation)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Make training keep only the inputs of the backbone's blocks and compute the rest again."""
        backbone: Any = self.backbone
        backbone.set_grad_checkpointing(enable)

    def no_weight_decay(self) -> set[str]:
        """Return the names of the parameters that should have no weight decay: those that the backbone names."""
        named = self.backbone.no_weight_decay() if hasattr(self.backbone, "no_weight_decay") else ()
        return {f"backbone.{name}" for name in named}


def widen_stem(backbone: nn.Module, channels: int) -> None:
    """Give the first convolution of a backbone so many further input channels, with weights of zero.

    Raises:
        InputError: the backbone has no convolution of images with three channels.
    """
    convolutions = (m for m in backbone.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 3)
    stem = next(convolutions, None)
    if stem is None or stem.groups != 1:
        raise InputError(f"{type(backbone).__name__} has no convolution of RGB images that could take clicks")
    weight = stem.weight.detach()
    more = weight.new_zeros(len(weight), channels, *weight.shape[2:])
    stem.weight = nn.Parameter(torch.cat((weight, more), 1))
    stem.in_channels += channels
