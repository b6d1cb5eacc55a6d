"""Top-down control by commands: from training to the table of several runs, and lines that say what does not fit."""

import importlib.util
import math
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from attention_zoo.runs.results import read_metrics

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "classification" / "digits_control.yaml"
FEW = ("--data.pairs", "6", "--model.alphas", "[10]")


@pytest.fixture(scope="module")
def runs(call, tiny, tmp_path_factory):
    """Two runs of models that look twice, each with its control."""
    folders = []
    for mode in ("absvit", "mask_att"):
        folder = tmp_path_factory.mktemp("runs") / mode
        model = ("--model.model", "absvit_tiny_patch16_224", "--model.model_args.top_down", f"{{mode: {mode}}}")
        assert call("fit", "--config", tiny, *model, "--trainer.default_root_dir", folder) == 0
        checkpoint = folder / "checkpoints" / "last.ckpt"
        assert call("test", "--config", CONFIG, "--ckpt_path", checkpoint, *FEW) == 0
        folders.append(folder)
    return folders


def test_is_written_logged_and_compared(runs, zoo, tmp_path):
    for folder in runs:
        metrics = read_metrics(folder)[-1].metrics
        assert {"test/plain/top1", "test/at_10/switch_rate", "test/query_at_10/margin_shift"} <= metrics.keys()
        assert list(folder.rglob("top_down_control.json"))
    ended = zoo("report", *runs, "--out", tmp_path / "report")
    assert ended.code == 0, ended.err
    table = (tmp_path / "report" / "top_down_control.csv").read_text()
    assert table.startswith("model,mode,alpha,prior,switch rate")
    assert len(table.splitlines()) == 1 + 2 * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ('--data.classes ["33"]', "unknown class of Digits '33'; did you mean '3'"),
        (
            '--data.classes ["4"]',
            "TwoObjects needs images of two classes; the test images of Digits have class 4 alone",
        ),
        ("--data Digits", "needs pictures of two objects, such as TwoObjects has; Digits has none"),
        ("--model.modes [absvitt]", "absvit"),
    ],
)
def test_what_does_not_fit(runs, zoo, arguments, message):
    checkpoint = runs[0] / "checkpoints" / "last.ckpt"
    ended = zoo("test", "--config", CONFIG, "--ckpt_path", checkpoint, *arguments.split())
    assert ended.code == 2 and message in ended.err
    assert len(ended.err.strip().splitlines()) == 1, ended.err


def test_a_model_that_looks_once(zoo, tiny):
    ended = zoo("test", "--config", tiny, "--config", CONFIG, *FEW)
    assert ended.code == 2
    assert "a top-down pass; vit_tiny_patch16_224 has none: train it with --model.top_down absvit" in ended.err


def test_pictures_of_the_study(runs, tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("top_down_pictures", ROOT / "results" / "top_down" / "pictures.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "FIT", 20)
    checkpoints = [folder / "checkpoints" / "last.ckpt" for folder in runs]
    script.main(checkpoints, (3, 8), pictures=2, alphas=[10], out=tmp_path)
    sizes = {path.name: Image.open(path).size for path in tmp_path.iterdir()}
    assert sizes.keys() == {"absvit.png", "absvit_decoded.png", "mask_att.png"}
    four = [height for _, height in sizes.values()]  # rows: two pictures, each asked for both classes
    assert all(4 * 100 < height < 4 * 200 for height in four)


def test_the_prior_loss_is_an_option(zoo, tiny, tmp_path):
    lost = []
    weights = {"plain": "", "sharp": ", prior_weight: 0.5", "flat": ", prior_weight: 0.5, temperature: 1.0e+6"}
    for name, options in weights.items():
        folder = tmp_path / name
        chosen = f"{{mode: absvit, variational_weight: 0.0{options}}}"
        short = ("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1", "--data.batch_size", "32")
        ended = zoo("fit", "--config", tiny, "--model.top_down", chosen, *short, "--trainer.default_root_dir", folder)
        assert ended.code == 0, ended.err
        (loss,) = EventAccumulator(str(folder)).Reload().Scalars("train/loss_step")
        lost.append(loss.value)
    plain, sharp, flat = lost
    assert flat - plain == pytest.approx(0.5 * math.log(32), rel=1e-4)  # as good as a guess among 32 images
    assert sharp > plain
    ended = zoo("fit", "--config", tiny, "--model.top_down", "{mode: perceiver_io, prior_weight: 0.5}")
    assert ended.code == 2 and "prior_weight=0.5 is for the modes absvit, feedback, mask_att, qkv" in ended.err
