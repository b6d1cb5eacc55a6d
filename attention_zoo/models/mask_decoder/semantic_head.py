"""Auxiliary heads that label every pixel of a backbone's maps in training."""

from collections.abc import Sequence
from typing import Literal

import torch
from timm.layers import trunc_normal_tf_
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import ASPP

from attention_zoo.models.mask_decoder.parts import ConvNorm, resize

SemanticHeadKind = Literal["decoder", "conv"]


def semantic_head(kind: SemanticHeadKind, channels: Sequence[int], num_classes: int) -> nn.Module:
    """Return the auxiliary head of kMaX-DeepLab on COCO ("decoder"), or its plain one on Cityscapes ("conv").

    Args:
        kind: which of the two heads.
        channels: number of channels of the backbone's four or more maps, finest first.
        num_classes: C, the number of classes.
    """
    return SemanticDecoder(channels, num_classes) if kind == "decoder" else SemanticConv(channels, num_classes)


class SemanticConv(nn.Module):
    """A depthwise 5 x 5 and a 1 x 1 convolution of the coarsest map, then logits at the coarsest stride."""

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.convs = _separable(channels[-1], 256)
        self.logits = _logits(256, num_classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the logits (B, C, h, w), on the grid of the last map, of maps (B, c, h, w), finest first."""
        return self.logits(self.convs(maps[-1]))


class SemanticDecoder(nn.Module):
    """The semantic branch of Panoptic-DeepLab (B. Cheng et al., CVPR 2020): ASPP, then fusion with two finer maps.

    The maps are those of strides 32, 8 and 4; the pooling branch of the ASPP needs batches of two or more.
    """

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        os4, os8, _, os32 = channels[-4:]
        self.aspp = ASPP(os32, [6, 12, 18], 256)
        self.project8, self.project4 = ConvNorm(os8, 64), ConvNorm(os4, 32)
        self.fuse8, self.fuse4 = _separable(256 + 64, 256), _separable(256 + 32, 256)
        self.head = _separable(256, 256)
        self.logits = _logits(256, num_classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the logits (B, C, h, w), on the grid of stride 4, of maps (B, c, h, w), finest first."""
        os4, os8, _, os32 = maps[-4:]
        x = resize(self.aspp(os32), os8.shape[2:])
        x = resize(self.fuse8(torch.cat([x, self.project8(os8)], 1)), os4.shape[2:])
        return self.logits(self.head(self.fuse4(torch.cat([x, self.project4(os4)], 1))))


def _separable(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(ConvNorm(in_channels, in_channels, 5, depthwise=True), ConvNorm(in_channels, out_channels))


def _logits(in_channels: int, num_classes: int) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, num_classes, 1)
    trunc_normal_tf_(conv.weight, std=0.01)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
