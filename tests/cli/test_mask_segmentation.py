"""The mask decoder from the command line: training, evaluation, pictures, prediction, two processes, bad input."""

import csv
import json

import pytest
import yaml
from PIL import Image

CLASSES = 5
DECODER = {
    "num_queries": 8,
    "dim": 32,
    "mask_dim": 16,
    "hidden": 32,
    "num_heads": 4,
    "widths": [16, 8, 8, 8],
    "blocks": [1, 1, 1, 1],
}


@pytest.fixture(scope="module")
def config(small_trainer, tmp_path_factory):
    """A tiny run on generated scenes."""
    init = {"model": "test_resnet", "decoder": DECODER, "sampling": {"contrastive_samples": 64}}
    scenes = {"scenes": [4, 5, 3], "classes": CLASSES, "image_size": 64, "batch_size": 2, "num_workers": 0}
    content = {
        "model": {"class_path": "MaskSegmentation", "init_args": {**init, "interaction": "KMeansCross"}},
        "data": {"class_path": "Shapes", "init_args": {**scenes, "panoptic": True}},
        "trainer": small_trainer,
    }
    path = tmp_path_factory.mktemp("config") / "masks.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def last_metrics(folder):
    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["metrics"]


def test_fit_test_predict_and_draw(zoo, config, tmp_path):
    run, photographs = tmp_path / "run", tmp_path / "photographs"
    choice = ["--model.interaction", "ClusterCross", "--model.dual_path", "true", "--model.coordinates", "true"]
    ended = zoo("fit", "--config", config, *choice, "--trainer.default_root_dir", run)
    assert ended.code == 0, ended.err
    checkpoint = run / "checkpoints" / "last.ckpt"
    draw = ["--trainer.callbacks+=DrawAssignments", "--trainer.callbacks.images", "2"]
    ended = zoo("test", "--ckpt_path", checkpoint, *draw)
    assert ended.code == 0, ended.err
    assert {"test/mean_iou", "test/panoptic_quality"} <= set(last_metrics(run))
    with Image.open(run / "assignments" / "assignments_test.png") as sheet:
        assert sheet.width > 2 * sheet.height  # two rows of ten tiles
    photographs.mkdir()
    for number, size in enumerate([(50, 70), (64, 64)]):
        Image.new("RGB", size, (40 * number, 90, 10)).save(photographs / f"{number}.png")
    output = ["--data.predict_dir", photographs, "--prediction.path", tmp_path / "masks"]
    ended = zoo("predict", "--ckpt_path", checkpoint, *output)
    assert ended.code == 0, ended.err
    with Image.open(tmp_path / "masks" / "masks" / "0.png") as mask:
        assert mask.size == (50, 70)
    with (tmp_path / "masks" / "legend.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == CLASSES


def test_two_processes_give_what_one_gives(process, zoo, config, tmp_path):
    """No parameter is left out, and each of the five images counts once."""
    two = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--model.dual_path", "true"]
    run = tmp_path / "run"
    ended = process("fit", "--config", config, *two, "--trainer.default_root_dir", run, ranks=2, cwd=tmp_path)
    assert ended.code == 0, ended.err
    both = last_metrics(run)
    one = ["--trainer.devices", "1", "--trainer.strategy", "auto"]
    ended = zoo("validate", "--ckpt_path", run / "checkpoints" / "last.ckpt", *one)
    assert ended.code == 0, ended.err
    for name in ("val/mean_iou", "val/panoptic_quality", "val/segmentation_quality"):
        assert both[name] == pytest.approx(last_metrics(run)[name], abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model.interaction", "CrossAttn"], "did you mean 'CrossAttention'"),
        (["--model.interaction", "DotProduct"], "choose from: ClusterCross, CrossAttention, KMeansCross"),
        (["--model.decoder.dim", "36"], "dim=36 must be a multiple of"),
        (["--model.decoder.widths", "[8,8]"], "blocks=(1, 1, 1, 1) must be as many as widths=(8, 8)"),
        (["--model.things", "[1]"], "model.things comes from the data"),
    ],
)
def test_bad_input_is_one_line(zoo, config, tmp_path, arguments, words):
    ended = zoo("fit", "--config", config, *arguments, "--trainer.default_root_dir", tmp_path / "run")
    assert ended.code == 2
    assert words in ended.err and len(ended.err.splitlines()) == 1
