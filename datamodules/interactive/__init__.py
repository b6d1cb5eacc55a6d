"""Interactive segmentation data: one object a sample, clicked at in training and evaluation."""

from datamodules.interactive.base import InteractiveDataModule
from datamodules.interactive.corrected import DAVIS585, HQSeg44K
from datamodules.interactive.folder import DAVIS, Berkeley, GrabCut, MaskFolder
from datamodules.interactive.instances import SBD, CamVidObjects, VOCInstances
from datamodules.interactive.lvis import LVIS
from datamodules.interactive.scenes import ObjectScenes

__all__ = [
    "DAVIS",
    "DAVIS585",
    "LVIS",
    "SBD",
    "Berkeley",
    "CamVidObjects",
    "GrabCut",
    "HQSeg44K",
    "InteractiveDataModule",
    "MaskFolder",
    "ObjectScenes",
    "VOCInstances",
]
