"""Metrics that torchmetrics lacks: exact over processes, in memory that does not grow with the images."""

from tasks.metrics.attention import ForegroundErrors
from tasks.metrics.calibration import CalibrationError
from tasks.metrics.corruption import MeanCorruptionError
from tasks.metrics.mean_iou import MeanIoU
from tasks.metrics.paired_attacks import PairCount
from tasks.metrics.saliency import Saliency
from tasks.metrics.subset import SubsetAccuracy

__all__ = [
    "CalibrationError",
    "ForegroundErrors",
    "MeanCorruptionError",
    "MeanIoU",
    "PairCount",
    "Saliency",
    "SubsetAccuracy",
]
