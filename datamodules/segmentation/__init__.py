"""Semantic and panoptic segmentation data."""

from datamodules.segmentation.base import SegmentationDataModule
from datamodules.segmentation.folder import CamVid, SegmentationFolder
from datamodules.segmentation.mmseg_data import MMSegData, MMSegTransforms
from datamodules.segmentation.panoptic import ADE20KPanoptic, CityscapesPanoptic, COCOPanoptic
from datamodules.segmentation.shapes import Shapes

__all__ = [
    "ADE20KPanoptic",
    "COCOPanoptic",
    "CamVid",
    "CityscapesPanoptic",
    "MMSegData",
    "MMSegTransforms",
    "SegmentationDataModule",
    "SegmentationFolder",
    "Shapes",
]
