"""Semantic segmentation from the command line: two processes against one, masks and overlays of photographs."""

import csv
import json

import numpy as np
import pytest
import yaml
from PIL import Image

CLASSES = 5
MODEL = {
    "model_args": {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
    "mixer": "VarsD",
    "decode_head": {"channels": 8},
    "auxiliary_head": {"channels": 8},
    "poly": {"warmup_steps": 1},
}
TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]


@pytest.fixture(scope="module")
def fitted(process, small_trainer, tmp_path_factory):
    """A run of two processes on generated scenes, batches normalised over both."""
    folder = tmp_path_factory.mktemp("semantic")
    scenes = {"scenes": [4, 3, 5], "classes": CLASSES, "image_size": [32, 48], "batch_size": 2, "num_workers": 0}
    content = {
        "model": {"class_path": "SemanticSegmentation", "init_args": MODEL},
        "data": {"class_path": "Shapes", "init_args": scenes},
        "trainer": {**small_trainer, "plugins": [{"class_path": "tasks.SyncBatchNorm"}]},
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(content))
    run = folder / "run"
    ended = process("fit", "--config", "tiny.yaml", *TWO, "--trainer.default_root_dir", run, ranks=2, cwd=folder)
    assert ended.code == 0, ended.err
    return run


def last_metrics(run):
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["metrics"]


def test_two_processes_count_what_one_counts(fitted, process, zoo):
    """Five images: one process gets one more."""
    checkpoint = fitted / "checkpoints" / "last.ckpt"
    ended = process("test", "--ckpt_path", checkpoint, *TWO, ranks=2, cwd=fitted.parent)
    assert ended.code == 0, ended.err
    two = last_metrics(fitted)
    ended = zoo("test", "--ckpt_path", checkpoint, "--trainer.devices", "1", "--trainer.strategy", "auto")
    assert ended.code == 0, ended.err
    one = last_metrics(fitted)
    counted = [name for name in one if name.startswith(("test/iou/", "test/mean", "test/pixel"))]
    assert {"test/mean_iou", "test/pixel_accuracy", "test/mean_accuracy"} <= set(counted)
    for name in counted:
        assert two[name] == pytest.approx(one[name], rel=0, abs=0, nan_ok=True), name


def test_photographs_become_masks_and_overlays_of_their_size(fitted, zoo, tmp_path):
    sizes = {"wide": (50, 30), "tall": (20, 64)}
    (tmp_path / "photographs").mkdir()
    for name, size in sizes.items():
        Image.new("RGB", size, (200, 90, 10)).save(tmp_path / "photographs" / f"{name}.png")
    output = ["--data.predict_dir", tmp_path / "photographs", "--prediction.path", tmp_path / "out"]
    one = ["--trainer.devices", "1", "--trainer.strategy", "auto"]
    ended = zoo("predict", "--ckpt_path", fitted / "checkpoints" / "last.ckpt", *output, *one)
    assert ended.code == 0, ended.err
    with (tmp_path / "out" / "legend.csv").open(newline="") as file:
        colours = [tuple(int(row[key]) for key in ("red", "green", "blue")) for row in csv.DictReader(file)]
    assert len(colours) == CLASSES
    for name, size in sizes.items():
        mask, overlay = (Image.open(tmp_path / "out" / kind / f"{name}.png") for kind in ("masks", "overlays"))
        assert mask.size == overlay.size == size
        labels = np.array(mask)
        assert labels.max() < CLASSES
        assert np.array_equal(np.array(mask.convert("RGB")), np.array(colours, dtype=np.uint8)[labels])
    assert (tmp_path / "out" / "legend.png").is_file()
