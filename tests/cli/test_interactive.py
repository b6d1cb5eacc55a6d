"""Interactive segmentation end to end: train, test, compare, predict from clicks; two processes; bad input."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.datamodules.interactive_files import blob, write_mask

TINY = """
model:
  class_path: InteractiveSegmentation
  init_args:
    model: vit_tiny_patch16_224
    model_args: {patch_size: 8, embed_dim: 16, depth: 2, num_heads: 2, class_token: false, global_pool: avg}
    mixer: Probabilistic
    head:
      class_path: attention_zoo.models.interactive.CorrectiveAttention
      init_args:
        dim: 8
        attention: full
        stride: 4
        mixer: {class_path: Probabilistic, init_args: {beta: 0.1, value_propagation: 1}}
    curriculum: {box_epochs: 1, random_epochs: 1}
    max_clicks: 3
    settings:
      none: {key_adaptation: 0, value_propagation: 0}
      both: {key_adaptation: 1, value_propagation: 5}
data:
  class_path: ObjectScenes
  init_args: {scenes: [2, 1, 2], image_size: 32, scene_size: [48, 48], batch_size: 4, trials: 2}
trainer:
  accelerator: cpu
  devices: 1
  max_epochs: 3
  limit_train_batches: 1
  log_every_n_steps: 1
  enable_progress_bar: false
  enable_model_summary: false
"""
TWO = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]


@pytest.fixture(scope="module")
def run_folder(call, tmp_path_factory):
    folder = tmp_path_factory.mktemp("interactive")
    (folder / "tiny.yaml").write_text(TINY)
    assert call("fit", "--config", folder / "tiny.yaml", "--trainer.default_root_dir", folder / "run") == 0
    return folder / "run"


@pytest.fixture(scope="module")
def tested(call, run_folder):
    """The folder of a test's result."""
    assert call("test", "--ckpt_path", run_folder / "checkpoints/last.ckpt") == 0
    (found,) = run_folder.glob("ObjectScenes-*")
    return found


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_test_writes_curves(tested, log, run_folder):
    assert {path.name for path in tested.iterdir()} == {
        "clicks.json",
        "clicks.csv",
        "clicks_objects.csv",
        "clicks.png",
        "noc.csv",
        "noc.md",
    }
    content = json.loads((tested / "clicks.json").read_text())
    assert [curve["name"] for curve in content["curves"]] == ["none", "both"]
    assert content["curves"][1]["options"]["value_propagation"] == 5
    assert content["protocol"]["trials"] == 2
    table = rows(tested / "clicks_objects.csv")
    assert len(table) == 2 * 2 * content["objects"]
    first = [row for row in table if row["setting"] == "both"]
    mean = np.mean([float(row["iou_3"]) for row in first])
    assert content["curves"][1]["mean"][3] == pytest.approx(mean, abs=1e-6)
    assert log(run_folder)[-1]["metrics"]["test/both/miou_3"] == pytest.approx(mean, abs=1e-5)


def test_search_on_the_trained_data_then_test_on_a_benchmark(call, run_folder, log, tmp_path):
    """The commands of the configs whose values propagate: GrabCut and Berkeley have no validation data."""
    for number in range(2):
        mask = 255 * blob(6 + 3 * number, 8)
        write_mask(tmp_path / "berkeley/masks" / f"{number}.png", mask)
        write_mask(tmp_path / "berkeley/images" / f"{number}.png", mask)
    argv = ["--ckpt_path", run_folder / "checkpoints/last.ckpt"]
    search = ["--model.value_prior_precision_search", "[0.1, 10]"]
    out = ["--trainer.default_root_dir", tmp_path / "out"]
    assert call("validate", *argv, *search, *out) == 0
    found = log(tmp_path / "out")[-1]["metrics"]["val/value_prior_precision"]
    assert found in (pytest.approx(0.1), 10)
    benchmark = ["--data", "Berkeley", "--data.root", tmp_path / "berkeley", "--model.value_prior_precision", found]
    assert call("test", *argv, *search, *benchmark, *out) == 0
    (path,) = (tmp_path / "out").rglob("clicks.json")
    content = json.loads(path.read_text())
    assert content["objects"] == 2
    assert content["curves"][1]["options"]["value_prior_precision"] == found


def test_two_processes_give_the_same(tested, process, run_folder):
    """An odd number of batches: one process has one more."""
    argv = ["test", "--ckpt_path", run_folder / "checkpoints/last.ckpt", "--data.batch_size", "5", *TWO]
    ended = process(*argv, "--trainer.default_root_dir", run_folder.parent / "two", ranks=2, cwd=run_folder.parent)
    assert ended.code == 0, ended.err
    one, two = rows(tested / "clicks_objects.csv"), rows(run_folder.parent / "two" / "clicks_objects.csv")
    assert [(row["object"], row["trial"]) for row in one] == [(row["object"], row["trial"]) for row in two]
    for column in ("iou_0", "iou_1", "iou_3"):
        np.testing.assert_allclose([float(r[column]) for r in one], [float(r[column]) for r in two], atol=0.02)


def test_report_lays_runs_over_each_other(tested, zoo, tmp_path):
    ended = zoo("report", tested.parent, tested / "clicks.json", "--out", "both")
    assert ended.code == 0, ended.err
    assert (tmp_path / "both" / "clicks.png").is_file()
    assert [row[""] for row in rows(tmp_path / "both" / "noc.csv")] == ["none", "both"]


@pytest.fixture
def photographs(tmp_path):
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 256, (40, 60 - 10 * number, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"im{number}.png")
    click = {"y": 20, "x": 30, "positive": True}
    entries = [
        {"image": "im0.png", "clicks": [click, {**click, "y": 2, "positive": False}]},
        {"image": "im0.png", "clicks": [click], "box": [10, 20, 30, 45]},
        {"image": "im1.png", "box": [10, 20, 30, 45]},
    ]
    path = tmp_path / "clicks.json"
    path.write_text(json.dumps(entries))
    return path


@pytest.mark.parametrize("crop", ["box", "random"])
def test_predict_writes_masks_and_overlays(zoo, run_folder, photographs, tmp_path, crop):
    argv = ["--ckpt_path", run_folder / "checkpoints/last.ckpt", "--data.predict_clicks", photographs]
    ended = zoo("predict", *argv, "--data.crop", crop, "--prediction.path", "out")
    assert ended.code == 0, ended.err
    assert "out: masks of 3 objects\n" in ended.out
    for kind in ("masks", "overlays"):
        names = sorted(path.name for path in (tmp_path / "out" / kind).iterdir())
        assert names == ["im0#2.png", "im0.png", "im1.png"]
    mask = Image.open(tmp_path / "out/masks/im1.png")
    assert mask.size == (50, 40)
    assert set(np.unique(np.asarray(mask))) <= {0, 255}
    overlay = np.asarray(Image.open(tmp_path / "out/overlays/im0.png"))
    assert overlay[20, 30].tolist() == [0, 200, 0]
    assert overlay[2, 30].tolist() == [230, 0, 0]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--data.predict_clicks", "none.json"], "no file none.json"),
        ([], "predict needs predict_clicks"),
    ],
)
def test_bad_clicks_end_in_one_line(zoo, run_folder, argv, said):
    ended = zoo("predict", "--ckpt_path", run_folder / "checkpoints/last.ckpt", *argv)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert said in line


def test_a_click_outside_ends_in_one_line(zoo, run_folder, photographs):
    photographs.write_text(json.dumps([{"image": "im1.png", "clicks": [{"y": 1, "x": 55, "positive": True}]}]))
    argv = ["--ckpt_path", run_folder / "checkpoints/last.ckpt", "--data.predict_clicks", photographs]
    ended = zoo("predict", *argv, "--data.num_workers", "1")
    assert ended.code == 2
    (line,) = [line for line in ended.err.splitlines() if "error" in line]
    assert "im1.png: the click at y=1, x=55 is outside the image of 50 x 40 pixels" in line


def test_options_that_do_not_exist_end_in_one_line(zoo, run_folder):
    config = run_folder.parent / "tiny.yaml"
    ended = zoo("fit", "--config", config, "--model.losses", "{dice: 1.0}", "--trainer.default_root_dir", "x")
    assert ended.code == 2
    assert "unknown loss 'dice'" in ended.err.splitlines()[-1]
    ended = zoo("fit", "--config", config, "--data.trails", "5")
    assert ended.code == 2
    assert "trials" in ended.err


CONFIGS = sorted((Path(__file__).parents[2] / "configs" / "interactive").glob("*.yaml"))
BRIEF = """
--data ObjectScenes --data.scenes [2,1,1] --data.scene_size [48,48] --data.image_size 32 --data.batch_size 2
--trainer.max_epochs 1 --trainer.limit_train_batches 1 --trainer.limit_val_batches 1 --trainer.enable_progress_bar false
--trainer.enable_model_summary false --trainer.log_every_n_steps 1 --trainer.accelerator cpu --trainer.devices 1
--model.curriculum.box_epochs 0 --model.curriculum.random_epochs 0 --model.val_clicks 1 --model.pretrained false
"""


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_parses_as_it_is(zoo, path):
    ended = zoo("fit", "--config", path, "--print_config")
    assert ended.code == 0, ended.err


NARROW_RESNET = '{"layers": [1, 1, 1, 1], "channels": [8, 16, 16, 32]}'
NARROW_HEAD = ["--model.decoder.head_args", '{"channels": 16}']
TINY_BACKBONE = {
    "figure1": ["--model.model_args", NARROW_RESNET, *NARROW_HEAD],
    "figure4": ["--model.model", "hrnet_w18_small", *NARROW_HEAD],
}
TINY_BACKBONE |= {name: TINY_BACKBONE["figure1"] for name in ("figure1_resnet50", "figure2", "figure5", "figure7")}
TINY_BACKBONE["figure8"] = TINY_BACKBONE["figure4"]
OVERLAYS = ("figure7", "figure8")
"""Those that are others with an option or two, see ``test_shipped``; their training belongs to the slow tests."""


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] if p.stem in OVERLAYS else []) for p in CONFIGS]
)
def test_every_config_trains(zoo, tmp_path, path):
    argv = [*BRIEF.split(), *TINY_BACKBONE.get(path.stem, ()), "--trainer.default_root_dir", tmp_path / "run"]
    ended = zoo("fit", "--config", path, *argv)
    assert ended.code == 0, ended.err
    assert (tmp_path / "run/checkpoints/last.ckpt").is_file()
