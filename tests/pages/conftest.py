"""A tiny run of interactive segmentation, pictures with true masks, and the page on them."""

import json
import os
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the extra `pages` is not installed")
pytest.importorskip("uvicorn", reason="the extra `pages` is not installed")

from attention_zoo.cli.main import main
from attention_zoo.cli.segmenter import RunSegmenter
from attention_zoo.pages.click import ClickPage

CONFIG = {
    "model": {
        "class_path": "InteractiveSegmentation",
        "init_args": {
            "model": "vit_tiny_patch16_224",
            "model_args": {
                "patch_size": 8,
                "embed_dim": 16,
                "depth": 1,
                "num_heads": 2,
                "class_token": False,
                "global_pool": "avg",
            },
            "mixer": "Probabilistic",
            "head": {
                "class_path": "attention_zoo.models.interactive.CorrectiveAttention",
                "init_args": {
                    "dim": 8,
                    "attention": "full",
                    "stride": 4,
                    "mixer": {"class_path": "Probabilistic", "init_args": {"beta": 0.1, "value_propagation": 1}},
                },
            },
            "settings": {"none": {"key_adaptation": 0, "value_propagation": 0}, "both": {"value_propagation": 5}},
        },
    },
    "data": {
        "class_path": "ObjectScenes",
        "init_args": {"scenes": [1, 1, 1], "image_size": 32, "scene_size": [48, 48], "batch_size": 2},
    },
    "trainer": {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "limit_train_batches": 1,
        "limit_val_batches": 0,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    },
}
MARKUP = "<img src=x onerror=alert(1)>.png"


def command(*argv):
    """Run a command in this process; its exit code."""
    before, sys.argv = sys.argv, ["attention_zoo"]
    try:
        main([str(argument) for argument in argv])
    except SystemExit as end:
        return end.code or 0
    finally:
        sys.argv = before
    return 0


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clicks")
    (folder / "tiny.yaml").write_text(json.dumps(CONFIG))
    assert command("fit", "--config", folder / "tiny.yaml", "--trainer.default_root_dir", folder / "run") == 0
    return folder / "run/checkpoints/last.ckpt"


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
    images, masks = str(folders / "images"), str(folders / "masks")
    return RunSegmenter(str(checkpoint), images, masks, device="cpu", trust=False)


@pytest.fixture(scope="session")
def page(segmenter):
    return ClickPage(segmenter)
