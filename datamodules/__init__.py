"""LightningDataModules: data sets and how they are read, split, augmented and shared among processes."""

from datamodules.base import ImageDataModule
from datamodules.cifar10 import CIFAR10
from datamodules.digits import Digits
from datamodules.image_folder import ImageFolder

__all__ = ["CIFAR10", "Digits", "ImageDataModule", "ImageFolder"]
