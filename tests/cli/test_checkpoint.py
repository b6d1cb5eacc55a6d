"""Files that are no checkpoint, or not of this model, or dangerous."""

import os
import zipfile
from pathlib import Path

import pytest
import torch
import yaml

import tasks
from attention_zoo.errors import InputError
from attention_zoo.runs.checkpoint import Checkpoint, check_optimizer


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def write(kind, path, good):
    if kind == "garbage":
        path.write_bytes(bytes(range(256)) * 20)
    elif kind == "text":
        path.write_text("hello")
    elif kind == "cut short":
        path.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a", "b")
    elif kind == "no state_dict":
        torch.save({"weights": 1}, path)
    elif kind == "a list":
        torch.save([1], path)


@pytest.mark.parametrize("kind", ["missing", "garbage", "text", "cut short", "zip", "no state_dict", "a list"])
@pytest.mark.parametrize("command", ["test", "fit"])
def test_no_checkpoint(zoo, run_folder, tmp_path, kind, command):
    path = tmp_path / "x.ckpt"
    write(kind, path, run_folder / "checkpoints/last.ckpt")
    ended = zoo(command, "--ckpt_path", path)
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1
    assert str(path) in ended.err
    assert ("does not exist" if kind == "missing" else "not a checkpoint") in ended.err


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_checkpoint_is_not_run(zoo, run_folder, tmp_path, legacy):
    content = torch.load(run_folder / "checkpoints/last.ckpt", weights_only=True)
    content["callbacks"] = Malicious(tmp_path / "owned")
    torch.save(content, tmp_path / "x.ckpt", _use_new_zipfile_serialization=not legacy)
    ended = zoo("test", "--ckpt_path", tmp_path / "x.ckpt")
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert ("not a checkpoint" if legacy else "could run code") in ended.err
    assert not (tmp_path / "owned").exists()


def test_a_checkpoint_without_config_needs_one(zoo, run_folder, tmp_path):
    content = torch.load(run_folder / "checkpoints/last.ckpt", weights_only=True)
    del content["config"]
    torch.save(content, tmp_path / "x.ckpt")
    ended = zoo("test", "--ckpt_path", tmp_path / "x.ckpt")
    assert ended.code == 2
    assert "x.ckpt carries no config" in ended.err
    given = zoo("test", "--ckpt_path", tmp_path / "x.ckpt", "--config", run_folder / "config.yaml")
    assert given.code == 0, given.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--model.mixer", "DotProduct"], ["Unexpected key(s)", "blocks.0.attn.gamma", "more"]),
        (
            ["--model.model_args.embed_dim", "64"],
            ["cls_token is [1, 1, 32] in the file, [1, 1, 64] in the model"],
        ),
    ],
)
@pytest.mark.parametrize("command", ["test", "fit"])
def test_checkpoint_of_another_model(zoo, run_folder, tmp_path, command, change, words):
    folder = tmp_path / "other"
    path = run_folder / "checkpoints/last.ckpt"
    ended = zoo(command, "--ckpt_path", path, "--trainer.default_root_dir", folder, *change)
    assert ended.code == 2
    line = ended.err.splitlines()[-1]
    assert line.startswith(f"error: checkpoint {path} is of another model than this Classification: ")
    for word in words:
        assert word in line
    assert not (folder / "config.yaml").exists()
    assert not (folder / "checkpoints").exists()


def test_does_not_fetch_released_weights_to_load_its_own(tiny, call, tmp_path, monkeypatch):
    stock = tasks.classification.build_model
    offline = lambda name, **args: stock(name, **{**args, "pretrained": False})  # noqa: E731
    monkeypatch.setattr("tasks.classification.build_model", offline)
    arguments = ["--config", tiny, "--model.pretrained", "true", "--trainer.max_epochs", "1"]
    call("fit", *arguments, "--trainer.default_root_dir", tmp_path)
    said = yaml.safe_load(torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)["config"])
    assert said["model"]["init_args"]["pretrained"] is False
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["model"]["init_args"]["pretrained"] is True


def test_starts_from_weights_and_does_without_their_file_after(tiny, call, run_folder, tmp_path):
    weights = tmp_path / "pretrained.ckpt"
    weights.write_bytes((run_folder / "checkpoints/last.ckpt").read_bytes())
    mixer = ["--model.mixer", "VarsD", "--model.mixer.steps", "2"]
    arguments = ["--config", tiny, *mixer, "--model.weights", weights, "--trainer.default_root_dir", tmp_path / "run"]
    assert call("fit", *arguments, "--model.label_smoothing", "0") == 0
    weights.unlink()
    assert call("test", "--ckpt_path", tmp_path / "run/checkpoints/last.ckpt") == 0
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text())["model"]["init_args"]["weights"] == str(weights)


@pytest.mark.parametrize("kept", ["null", "{class_path: torch.optim.AdamW}", "{class_path: torch.optim.adamw.AdamW}"])
def test_another_optimizer_cannot_go_on(kept):
    checkpoint = Checkpoint(Path("a.ckpt"), yaml.safe_load(f"model: {{init_args: {{optimizer: {kept}}}}}"), 0, 0, None)
    for same in (None, {"class_path": "torch.optim.AdamW"}):
        check_optimizer(checkpoint, {"model": {"init_args": {"optimizer": same}}})
    check_optimizer(checkpoint, {"model": {"class_path": "a.TaskOfAUser", "init_args": {}}})
    with pytest.raises(InputError, match="a.ckpt holds the state of AdamW, from which no SGD can go on"):
        check_optimizer(checkpoint, {"model": {"init_args": {"optimizer": {"class_path": "torch.optim.SGD"}}}})


def test_a_training_goes_on_with_its_optimizer(zoo, tiny, tmp_path):
    adam = ["--model.optimizer", "Adam", "--model.optimizer.lr", "0.01", "--trainer.max_epochs", "1"]
    assert zoo("fit", "--config", tiny, *adam, "--trainer.default_root_dir", tmp_path / "run").code == 0
    again = ["fit", "--ckpt_path", tmp_path / "run", "--trainer.max_epochs", "2"]
    ended = zoo(*again, "--model.optimizer", "SGD", "--model.optimizer.lr", "0.1")
    assert ended.code == 2 and "holds the state of Adam, from which no SGD can go on" in ended.err
    ended = zoo(*again, "--model.optimizer.lr", "0.1")
    assert ended.code == 2 and "holds the numbers of Adam (lr), which those of model.optimizer" in ended.err
    ended = zoo(*again, "--model.layer_decay", "0.5")
    assert ended.code == 2 and "the optimizer's groups of parameters are others than in the file: keep" in ended.err
    assert zoo(*again, *adam[:4]).code == 0
