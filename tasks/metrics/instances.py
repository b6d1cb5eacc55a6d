"""Average precision of instances, as COCO counts it."""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision

from attention_zoo.errors import InputError


class InstanceAP(MeanAveragePrecision):
    """AP of masks, mean over classes and IoU thresholds 0.5, 0.55, ..., 0.95, and AP50, that at 0.5; each in [0, 1].

    torchmetrics' metric, which is pycocotools': at most 100 predictions of an image count, those with the highest
    scores, and one that lies on a crowd of its class is no error.

    Args:
        **metric: arguments of torchmetrics' ``Metric``.
    """

    warn_on_many_detections = False

    def __init__(self, **metric: Any) -> None:
        super().__init__(iou_type="segm", **metric)

    def compute(self) -> dict[str, Tensor]:
        """Return ``instance_ap`` and ``instance_ap50``, scalars.

        Raises:
            InputError: no instance has a label, so that there is no precision.
        """
        if not self.labelled:
            raise InputError("no instance of a thing has a label that counts, so that there is no instance_ap")
        values = super().compute()  # -1 also where something is labelled and nothing is found
        return {"instance_ap": values["map"].clamp(min=0), "instance_ap50": values["map_50"].clamp(min=0)}

    @property
    def labelled(self) -> bool:
        """Whether an instance that is no crowd has been labelled."""
        return any((crowd == 0).any() for crowd in self.groundtruth_crowds)


def instance_target(segments: dict[str, Tensor], things: Collection[int]) -> dict[str, Tensor]:
    """Return the things among the segments of an image, as `InstanceAP` takes them.

    Args:
        segments: ``masks`` (n, H, W) bool, ``labels`` (n,) int64 and perhaps ``crowd`` (n,) bool.
        things: classes whose segments are told apart; those of other classes are left out.

    Returns:
        ``masks`` (m, H, W) bool, ``labels`` (m,) int64 and ``iscrowd`` (m,) int64.
    """
    masks, labels = segments["masks"], segments["labels"]
    crowd = segments.get("crowd", torch.zeros_like(labels, dtype=torch.bool))
    kept = torch.isin(labels, labels.new_tensor(sorted(things)))
    return {"masks": masks[kept].bool(), "labels": labels[kept], "iscrowd": crowd[kept].long()}
