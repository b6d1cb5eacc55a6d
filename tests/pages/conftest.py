"""A tiny run of interactive segmentation, pictures with true masks, and the page on them."""

import json
import os
import shutil
from functools import partial

import lightning
import numpy as np
import pytest
import torch
from PIL import Image

import attention_zoo as az
from attention_zoo.models.interactive import CorrectiveAttention
from tasks import InteractiveSegmentation

VIT = {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2, "class_token": False, "global_pool": "avg"}
MIXER = {"beta": 0.1, "value_propagation": 1}
HEAD = {"dim": 8, "attention": "full", "stride": 4}
CONFIG = {
    "model": {
        "class_path": "InteractiveSegmentation",
        "init_args": {
            "model": "vit_tiny_patch16_224",
            "model_args": VIT,
            "mixer": "Probabilistic",
            "head": {
                "class_path": "attention_zoo.models.interactive.CorrectiveAttention",
                "init_args": {**HEAD, "mixer": {"class_path": "Probabilistic", "init_args": MIXER}},
            },
            "settings": {"none": {"key_adaptation": 0, "value_propagation": 0}, "both": {"value_propagation": 5}},
        },
    },
    "data": {"class_path": "ObjectScenes", "init_args": {"scenes": [1, 1, 1], "image_size": 32}},
}
MARKUP = "<img src=x onerror=alert(1)>.png"


def save_checkpoint(path, config, weights):
    """Write what a run of this config would write, with these weights."""
    version = {"pytorch-lightning_version": lightning.__version__}
    content = {"state_dict": weights, "config": json.dumps(config), "epoch": 0, "global_step": 0}
    torch.save(content | version, path)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Of a tiny model that was never trained."""
    torch.manual_seed(0)
    mixer = partial(az.create_mixer, "Probabilistic")
    head = partial(CorrectiveAttention, **HEAD, mixer=partial(mixer, **MIXER))
    task = InteractiveSegmentation("vit_tiny_patch16_224", (32, 32), model_args=VIT, mixer=mixer, head=head)
    path = tmp_path_factory.mktemp("clicks") / "tiny.ckpt"
    save_checkpoint(path, CONFIG, task.state_dict())
    return path


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Three pictures, one of a hostile name, one in a folder; the first has two true masks. A link leads out."""
    root = tmp_path_factory.mktemp("pictures")
    for number, (name, size) in enumerate({"a.png": (48, 64), MARKUP: (40, 40), "sub/b.jpg": (60, 48)}.items()):
        (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        noise[10:30, 8:30] //= 3
        Image.fromarray(noise).save(root / "images" / name)
    (root / "masks").mkdir()
    for number, rows in enumerate((slice(10, 30), slice(40, 48))):
        mask = np.zeros((48, 64), dtype=np.uint8)
        mask[rows, 8:30] = 255
        Image.fromarray(mask).save(root / f"masks/a#{number}.png")
    shutil.copy(root / "images/a.png", root / "secret.png")
    os.symlink(root / "secret.png", root / "images/link.png")
    return root


@pytest.fixture(scope="session")
def segmenter(checkpoint, folders):
    from attention_zoo.cli.segmenter import RunSegmenter

    images, masks = str(folders / "images"), str(folders / "masks")
    return RunSegmenter(str(checkpoint), images, masks, device="cpu", trust=False)


@pytest.fixture(scope="session")
def page(segmenter):
    from attention_zoo.pages.click import ClickPage

    return ClickPage(segmenter)
