"""A model that segments images: a backbone under heads of mmsegmentation."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.compat import registered_names_only
from attention_zoo.errors import InputError
from attention_zoo.mmseg import build_part
from attention_zoo.models.backbone import Backbone

NORM = {"type": "BN", "requires_grad": True}
"""The normalisation of heads and necks; plugins of the trainer make it one over all processes."""


class Segmentor(nn.Module):
    """A backbone, an optional neck and heads that turn images (B, C, H, W) into logits (B, classes, H, W).

    Heads are configs of mmsegmentation, ``type`` and arguments. Filled in if they are left out are ``num_classes``,
    ``in_channels`` of the maps in ``in_index`` (all of them for the decode head, the last for the auxiliary head) and
    ``norm_cfg``. Images whose sides are no multiples of the strides are padded, and the logits cropped.

    Args:
        backbone: the backbone that gives the maps.
        num_classes: number of classes.
        decode_head: config of the head that makes the logits.
        auxiliary_head: config of a further head for training; None leaves it out.
        neck: config of a part that the maps go through before the heads; None leaves it out.
        ignore_index: label of pixels that no loss counts.

    Raises:
        InputError: mmsegmentation has no such head or neck, or it refuses its arguments.
    """

    decode_head: Any
    auxiliary_head: Any

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        decode_head: Mapping[str, Any],
        auxiliary_head: Mapping[str, Any] | None = None,
        neck: Mapping[str, Any] | None = None,
        ignore_index: int = 255,
    ) -> None:
        super().__init__()
        self.backbone, self.ignore_index = backbone, ignore_index
        self.stride = max(backbone.strides)
        channels = backbone.channels
        self.neck = None
        if neck is not None:
            self.neck = _built("neck", {"in_channels": channels, "norm_cfg": NORM, **neck})
            with torch.no_grad():
                channels = [x.shape[1] for x in self.neck.eval()([torch.zeros(1, width, 8, 8) for width in channels])]
            self.neck.train()
        common = {"num_classes": num_classes, "norm_cfg": NORM, "ignore_index": ignore_index}
        everything = list(range(len(channels)))
        self.decode_head = _built("head", _with_inputs({**common, "in_index": everything, **decode_head}, channels))
        self.auxiliary_head = None
        if auxiliary_head is not None:
            last = _with_inputs({**common, "in_index": everything[-1], **auxiliary_head}, channels)
            self.auxiliary_head = _built("head", last)

    def maps(self, image: Tensor) -> list[Tensor]:
        """Return the maps of images (B, C, H, W) that the heads read, after the neck if there is one."""
        maps = self.backbone(image)
        return list(self.neck(maps)) if self.neck is not None else maps

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits (B, classes, H, W) of images (B, C, H, W)."""
        height, width = image.shape[2:]
        covered = {"img_shape": (height + -height % self.stride, width + -width % self.stride)}
        logits = self.decode_head.predict(self.maps(image), [covered] * len(image), {})
        return logits[..., :height, :width]

    def losses(self, image: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Return the weighted losses of the heads, and the other values they report, by ``<head>.<name>``.

        Args:
            image: (B, C, H, W), the images.
            mask: (B, H, W) int64, the class of each pixel.
        """
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample

        right, below = (-side % self.stride for side in (mask.shape[2], mask.shape[1]))
        mask = F.pad(mask, (0, right, 0, below), value=self.ignore_index)
        samples = [SegDataSample(gt_sem_seg=PixelData(data=one[None])) for one in mask]
        maps = self.maps(image)
        heads = {"decode": self.decode_head, "auxiliary": self.auxiliary_head}
        return {
            f"{name}.{key}": value
            for name, head in heads.items()
            if head is not None
            for key, value in head.loss(maps, samples, {}).items()
        }

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Make training keep only the inputs of the backbone's blocks and compute the rest again."""
        backbone: Any = self.backbone
        backbone.set_grad_checkpointing(enable)

    def no_weight_decay(self) -> set[str]:
        """Return the names of the parameters that should have no weight decay: those that the backbone names."""
        return {f"backbone.{name}" for name in self.backbone.no_weight_decay()}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return the layers of a vision transformer, for timm's layer-wise decay of the learning rate.

        All else is the last layer, also the norm after the blocks, as in mmsegmentation's
        ``LearningRateDecayOptimizerConstructor``.

        Raises:
            InputError: the backbone is no vision transformer.
        """
        if not any(".blocks." in name for name, _ in self.backbone.named_parameters()):
            raise InputError("layer_decay counts the blocks of a vision transformer; this backbone has none")
        first = r"^backbone\.model\.(?:model\.)?"
        return {
            "stem": first + r"(?:cls_token|reg_token|dist_token|pos_embed|patch_embed|norm_pre)",
            "blocks": [(first + r"blocks\.(\d+)", None)],
        }


def _with_inputs(config: dict[str, Any], channels: Sequence[int]) -> dict[str, Any]:
    """Return the config of a head with ``in_channels``, the widths of the maps it reads, filled in."""
    index = config["in_index"]
    try:
        chosen = channels[index] if isinstance(index, int) else [channels[one] for one in index]
    except (IndexError, TypeError) as error:
        raise InputError(f"head {config.get('type')}: in_index={index}, of {len(channels)} maps") from error
    return {"in_channels": chosen, **config}


def _built(kind: str, config: dict[str, Any]) -> nn.Module:
    """Build a part of mmsegmentation and initialise its weights."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="``build_loss`` would be deprecated|Default ``avg_non_ignore``|For b")
        part = build_part("MODELS", kind, config)
    with registered_names_only():
        part.init_weights()
    return part
