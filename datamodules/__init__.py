"""LightningDataModules: data sets and how they are read, split, augmented and shared among processes.

Importing the package imports every module in it, so that the command line finds a data set of a new file by its name.
"""

import importlib
import pkgutil

from datamodules.attention_targets import VOCForeground
from datamodules.base import ImageDataModule
from datamodules.cifar10 import CIFAR10
from datamodules.digits import Digits
from datamodules.gaze import MIT1003, OSIE
from datamodules.image_folder import ImageFolder
from datamodules.imagenet import ImageNet
from datamodules.imagenet_p import ImageNetP
from datamodules.interactive import (
    DAVIS,
    DAVIS585,
    LVIS,
    SBD,
    Berkeley,
    CamVidObjects,
    GrabCut,
    HQSeg44K,
    InteractiveDataModule,
    MaskFolder,
    ObjectScenes,
    VOCInstances,
)
from datamodules.natural_objects import COCOObjects, LVISObjects
from datamodules.pacs import PACS
from datamodules.robustness import (
    CIFAR10Robustness,
    ImageNetRobustness,
    PACSRobustness,
    RobustnessDataModule,
    TinyImageNetRobustness,
)
from datamodules.segmentation import (
    ADE20KPanoptic,
    CamVid,
    CityscapesPanoptic,
    COCOPanoptic,
    MMSegData,
    SegmentationDataModule,
    SegmentationFolder,
    Shapes,
)
from datamodules.tiny_imagenet import TinyImageNet
from datamodules.two_objects import TwoObjects

__all__ = [
    "ADE20KPanoptic",
    "DAVIS",
    "DAVIS585",
    "LVIS",
    "LVISObjects",
    "OSIE",
    "SBD",
    "Berkeley",
    "CamVidObjects",
    "GrabCut",
    "HQSeg44K",
    "InteractiveDataModule",
    "MaskFolder",
    "ObjectScenes",
    "VOCInstances",
    "CIFAR10",
    "COCOObjects",
    "COCOPanoptic",
    "CIFAR10Robustness",
    "MIT1003",
    "MMSegData",
    "PACS",
    "PACSRobustness",
    "CamVid",
    "CityscapesPanoptic",
    "Digits",
    "ImageDataModule",
    "ImageFolder",
    "ImageNet",
    "ImageNetP",
    "ImageNetRobustness",
    "RobustnessDataModule",
    "SegmentationDataModule",
    "SegmentationFolder",
    "Shapes",
    "TinyImageNet",
    "TinyImageNetRobustness",
    "TwoObjects",
    "VOCForeground",
]

for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")
