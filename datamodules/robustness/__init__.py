"""Benchmarks of robustness, several in one pass: clean images, corrupted ones, and other images of the same classes."""

from datamodules.robustness.base import RobustnessDataModule
from datamodules.robustness.cifar10 import CIFAR10Robustness
from datamodules.robustness.imagenet import ImageNetRobustness
from datamodules.robustness.pacs import PACSRobustness
from datamodules.robustness.tiny_imagenet import TinyImageNetRobustness

__all__ = [
    "CIFAR10Robustness",
    "ImageNetRobustness",
    "PACSRobustness",
    "RobustnessDataModule",
    "TinyImageNetRobustness",
]
