"""Decode heads of mmsegmentation as decoders: their features of a backbone's maps, before their classifier."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from attention_zoo.compat import registered_names_only
from attention_zoo.errors import InputError
from attention_zoo.mmseg import build_part, stock_config
from attention_zoo.models.interactive.fusion import Decoder
from attention_zoo.models.interactive.head import upsample

CLASSES = 2


class MMSegDecoder(Decoder):
    """The decode head, or cascade of decode heads, of a model that mmsegmentation ships, without the last classifier.

    HRNetV2 + OCR is ``config="ocrnet_hr18"`` on ``hrnet_w18`` (any width; the heads take the backbone's channels),
    DeepLabV3+ ``config="deeplabv3plus_r50-d8"`` on ``resnet50`` or ``resnet101`` with ``output_stride=8``.

    Args:
        channels: number of channels of each map.
        strides: strides of the maps; not used, since the sizes of the maps tell them.
        config: name of a file of mmsegmentation's ``_base_/models``, without its suffix.
        head_args: arguments of the last head that differ from the file's, e.g. ``channels``, those of its features.

    Raises:
        InputError: there is no such file, or a head does not fit the maps or refuses its arguments.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        config: str = "ocrnet_hr18",
        head_args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        stock = stock_config("_base_/models", config).model.get("decode_head")
        if stock is None:
            raise InputError(f"{config} of mmsegmentation has no decode head")
        configs = [dict(head) for head in (stock if isinstance(stock, list) else [stock])]
        configs[-1] |= head_args or {}
        self.heads = nn.ModuleList(_build(head, channels) for head in configs)
        last: Any = self.heads[-1]
        self.out_channels = last.channels
        last.conv_seg = nn.Identity()

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return features (B, C, h, w) of maps (B, c, h, w) of images of ``size``, and mask logits (B, 1, H, W).

        The logits come from the heads before the last, such as OCR's object regions, and are for training.
        """
        out, logits = self.heads[0](maps), []
        for head in list(self.heads)[1:]:
            logits.append(upsample(out[:, 1:] - out[:, :1], size))
            out = head(maps, out)
        return out, tuple(logits)


def _build(head: Mapping[str, Any], channels: Sequence[int]) -> nn.Module:
    """Build a head for maps of these channels and two classes, with torch's own batch normalisation."""
    index = head.get("in_index", -1)
    several = isinstance(index, (list, tuple))
    if max(index if several else [index]) >= len(channels):
        raise InputError(f"{head['type']} reads map {index}; the backbone gives {len(channels)}")
    fixed = {
        "in_channels": [channels[i] for i in index] if several else channels[index],
        "num_classes": CLASSES,
        "out_channels": CLASSES,
        "norm_cfg": {"type": "BN"},
        **({"c1_in_channels": channels[0]} if "c1_in_channels" in head else {}),
    }
    built = build_part("MODELS", "decode head", {**head, **fixed})
    with registered_names_only():
        built.init_weights()
    return built
