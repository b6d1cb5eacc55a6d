"""A command whose loader processes are killed at the first image."""

import os
import signal

import torch

from attention_zoo.cli.main import main
from datamodules.base import ImageDataset


def main_whose_loader_dies(argv):
    stock = ImageDataset.__getitem__

    def killed(self, key):
        if torch.utils.data.get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return stock(self, key)

    ImageDataset.__getitem__ = killed
    main(argv)
