"""Commands say what they found, what they wrote and where, and what comes next."""

import re
import shlex
from types import SimpleNamespace

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from attention_zoo.cli.overview import PROGRAM
from attention_zoo.runs.account import checkpoint_of, described, step_of

SMALL = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1", "--trainer.limit_val_batches", "1"]


def test_a_training_says_what_it_found_and_what_tests_it(zoo, tiny, tmp_path, images):
    ended = zoo("fit", "--config", tiny, *SMALL)
    assert ended.code == 0, ended.err
    assert (
        "data: Digits, 10 classes (0, 1, 2, 3, 4, 5, ...), 1,079 images to train on, 359 images to validate on\n"
        in ended.out
    )
    (folder,) = (tmp_path / "runs").iterdir()
    assert f"run folder: runs/{folder.name}\n" in ended.out
    said = re.search(rf"^trained 1 epoch; to test it: {PROGRAM} (.*)$", ended.out, re.MULTILINE)
    words = shlex.split(said[1])
    assert words == ["test", "--ckpt_path", f"runs/{folder.name}/checkpoints/last.ckpt"]
    assert zoo(*words, "--trainer.limit_test_batches", "1").code == 0
    predicted = zoo("predict", "--ckpt_path", "last", "--data.predict_dir", images)
    assert predicted.code == 0 and "predictions.csv: classes of 7 images\n" in predicted.out


def test_data_that_tell_less():
    assert described(SimpleNamespace(splits={}, class_names=["a"])) == "SimpleNamespace, 1 class (a)"
    assert described(object()) == "object"


@pytest.mark.parametrize(
    ("processes", "size", "batches", "words"),
    [
        (1, 64, 4, None),
        (2, None, 1, None),
        (2, 64, 1, "a step: 2 processes x 64 images = 128 images; the learning rate is that of the config for any"),
        (8, 1, 2, "a step: 8 processes x 1 image x 2 batches = 16 images; the learning rate is that of the config"),
    ],
)
def test_several_processes_say_how_large_a_step_is(processes, size, batches, words):
    data = SimpleNamespace(batch_size=size)
    said = step_of(SimpleNamespace(world_size=processes, datamodule=data, accumulate_grad_batches=batches))
    assert said is None if words is None else said.startswith(words)


def test_the_best_checkpoint_is_named_where_there_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    last, best = ModelCheckpoint(), ModelCheckpoint(monitor="val/loss")
    trainer = SimpleNamespace(checkpoint_callbacks=[last, best])
    assert checkpoint_of(trainer) is None
    last.best_model_path = str(tmp_path / "last.ckpt")
    assert str(checkpoint_of(trainer)) == "last.ckpt"
    best.best_model_path = "/elsewhere/best.ckpt"
    assert str(checkpoint_of(trainer)) == "/elsewhere/best.ckpt"
