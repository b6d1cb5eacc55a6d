"""Run folders: what they hold, how they are gone on with, and that nothing in them is overwritten."""

import json
import math
import shutil
import signal
import time

import pytest
import torch
import yaml

from attention_zoo.cli.main import main
from attention_zoo.runs.records import printed
from tests.processes import started


@pytest.fixture
def copied(run_folder, tmp_path):
    return shutil.copytree(run_folder, tmp_path / "runs" / "moved")


def load(folder, name="last.ckpt"):
    return torch.load(folder / "checkpoints" / name, weights_only=True)


def test_a_run_holds_everything(run_folder, log):
    assert (run_folder / "config.yaml").is_file()
    assert list(run_folder.glob("events.out.tfevents*"))
    names = {path.name for path in (run_folder / "checkpoints").iterdir()}
    assert "last.ckpt" in names
    assert len(names) == 2  # and the best one
    lines = log(run_folder)
    assert [(line["stage"], line["epoch"], line["step"]) for line in lines[:2]] == [
        ("validate", 0, 3),
        ("validate", 1, 6),
    ]
    assert {"val/accuracy", "val/loss"} <= set(lines[0]["metrics"])
    assert not [name for name in lines[0]["metrics"] if name.startswith("train")]


def test_a_checkpoint_carries_its_config_as_text(run_folder):
    assert yaml.safe_load(load(run_folder)["config"]) == yaml.safe_load((run_folder / "config.yaml").read_text())


def test_without_a_folder_each_run_gets_its_own(zoo, tiny, tmp_path):
    for _ in range(2):
        ended = zoo("fit", "--config", tiny, "--model.mixer", "Performer", "--trainer.max_epochs", "1")
        assert ended.code == 0, ended.err
    runs = sorted((tmp_path / "runs").iterdir())
    assert len(runs) == 2
    for run in runs:
        assert run.name.startswith("Performer-Digits-")
        assert (run / "checkpoints" / "last.ckpt").is_file()


def test_processes_of_a_job_agree_on_the_folder(monkeypatch):
    from attention_zoo.runs.folders import fresh_folder

    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "77")
    config = {"model": {"init_args": {"mixer": {"class_path": "a.b.VarsD"}}}, "data": {"class_path": "c.Digits"}}
    assert str(fresh_folder(config)) == "runs/VarsD-Digits-77"


def test_a_run_is_not_overwritten(zoo, tiny, copied):
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    ended = zoo("fit", "--config", tiny, "--trainer.default_root_dir", copied)
    assert ended.code == 2
    assert "already holds a run" in ended.err
    assert "--ckpt_path last" in ended.err
    assert before == {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}


def test_a_run_is_not_gone_on_with_from_a_foreign_checkpoint(zoo, run_folder, copied):
    ended = zoo("fit", "--ckpt_path", run_folder / "checkpoints/last.ckpt", "--trainer.default_root_dir", copied)
    assert ended.code == 2
    assert "already holds a run" in ended.err


@pytest.mark.parametrize("way", ["file alone", "newest run", "folder and configs again"])
def test_resume(zoo, tiny, copied, log, way):
    config = (copied / "config.yaml").read_text()
    best = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.monitor=val/loss"]
    argv = {
        "file alone": ["--ckpt_path", copied / "checkpoints/last.ckpt"],
        "newest run": ["--ckpt_path", "last"],
        "folder and configs again": [
            *("--config", tiny, "--model.mixer", "VarsD", *best),
            *("--trainer.default_root_dir", copied, "--ckpt_path=last"),
        ],
    }[way]
    ended = zoo("fit", *argv, "--trainer.max_epochs", "3")
    assert ended.code == 0, ended.err
    checkpoint = load(copied)
    assert (checkpoint["epoch"], checkpoint["global_step"]) == (2, 9)
    mixer = yaml.safe_load(checkpoint["config"])["model"]["init_args"]["mixer"]
    assert mixer["class_path"].endswith("VarsD")
    assert mixer["init_args"]["steps"] == 2
    assert [line["epoch"] for line in log(copied) if line["checkpoint"] is None] == [0, 1, 2]
    assert (copied / "config.yaml").read_text() == config
    assert len(list(copied.parent.iterdir())) == 1


def test_a_checkpoint_alone_gives_the_metrics_of_its_fit(zoo, copied, log):
    assert zoo("validate", "--ckpt_path", copied / "checkpoints/last.ckpt").code == 0
    at_the_end, again = log(copied)[1], log(copied)[-1]
    assert (again["epoch"], again["step"]) == (1, 6)
    assert again["checkpoint"].endswith("last.ckpt")
    for name in ("val/accuracy", "val/loss"):
        assert again["metrics"][name] == at_the_end["metrics"][name]


def test_test_adds_one_line_to_the_run_and_changes_nothing_else(zoo, copied, log):
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    for keyword in ("last", "best"):
        ended = zoo("test", "--ckpt_path", keyword)
        assert ended.code == 0, ended.err
        assert "test/accuracy" in ended.out
    lines = log(copied)
    assert [line["stage"] for line in lines[-2:]] == ["test", "test"]
    assert "test/accuracy" in lines[-1]["metrics"]
    after = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    changed = {path.name for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert changed == {"metrics.jsonl"}


def test_best_is_the_checkpoint_with_the_lowest_loss(copied, log):
    from attention_zoo.runs.folders import find_checkpoint

    losses = [line["metrics"]["val/loss"] for line in log(copied)[:2]]
    assert find_checkpoint("best", copied).epoch == losses.index(min(losses))
    assert find_checkpoint("best", copied).path.is_relative_to(copied)


@pytest.mark.parametrize("command", ["fit", "test"])
def test_no_run_to_go_on_with(zoo, command, tmp_path):
    ended = zoo(command, "--ckpt_path", "last")
    assert ended.code == 2
    assert "no run" in ended.err
    ended = zoo(command, "--ckpt_path", "last", "--trainer.default_root_dir", "elsewhere")
    assert ended.code == 2
    assert "elsewhere/checkpoints/last.ckpt does not exist" in ended.err
    assert not list(tmp_path.iterdir())


def test_the_command_line_wins_over_the_config_of_the_checkpoint(zoo, run_folder):
    ended = zoo("test", "--ckpt_path", run_folder / "checkpoints/last.ckpt", "--model.mixer.steps=4", "--print_config")
    config = yaml.safe_load(ended.out)
    assert config["model"]["init_args"]["mixer"]["init_args"]["steps"] == 4


def test_the_machine_of_a_fit_is_not_that_of_its_test(run_folder):
    from attention_zoo.runs.checkpoint import read_checkpoint

    checkpoint = read_checkpoint(run_folder / "checkpoints/last.ckpt")
    fit, test = (yaml.safe_load(checkpoint.config_for(command))["trainer"] for command in ("fit", "test"))
    assert set(fit) - set(test) == {"accelerator", "strategy", "devices", "num_nodes", "logger"}
    assert fit["accelerator"] == "cpu"


def test_two_runs_of_one_seed_are_equal(zoo, run_folder, tmp_path):
    argv = ["--config", run_folder / "config.yaml", "--trainer.default_root_dir", tmp_path / "again"]
    assert zoo("fit", *argv).code == 0
    first, second = load(run_folder)["state_dict"], load(tmp_path / "again")["state_dict"]
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_bfloat16(zoo, tiny, tmp_path, log):
    argv = ["--config", tiny, "--trainer.precision", "bf16-mixed", "--trainer.default_root_dir", "run"]
    assert zoo("fit", *argv).code == 0
    assert log(tmp_path / "run")[-1]["metrics"]["val/loss"] > 0


@pytest.mark.parametrize("stop", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_stopped_run_is_no_success_and_can_be_gone_on_with(tiny, tmp_path, stop):
    argv = ["fit", "--config", tiny, "--trainer.max_epochs", "100000", "--trainer.default_root_dir", "run"]
    with started(main, argv, cwd=tmp_path) as program:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run/checkpoints/last.ckpt").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        program.signal(stop)
        ended = program.wait(60)
    assert ended.code == 128 + stop
    assert "Traceback" not in ended.err
    assert load(tmp_path / "run")["global_step"] > 0


def test_a_run_says_what_it_cost(run_folder):
    cost = json.loads((run_folder / "cost.json").read_text())
    weights = torch.load(run_folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    buffers = ("rand_matrix",)  # a checkpoint holds them too
    own = {name: weight for name, weight in weights.items() if name.startswith("model.") and not name.endswith(buffers)}
    assert cost["parameters"] == sum(weight.numel() for weight in own.values())
    assert cost["flops"] > 1e5 and cost["peak_memory"] > 1e7 and cost["train_images_per_second"] > 0
    assert (
        cost["device"].endswith("CPU")
        and cost["processes"] == 1
        and cost["versions"].keys() >= {"torch", "attention_zoo"}
    )


def test_the_folder_of_a_run_stands_for_its_last_checkpoint(run_folder, call, tmp_path, log):
    where = ["--trainer.default_root_dir", tmp_path / "tested", "--trainer.limit_test_batches", "1"]
    assert call("test", "--ckpt_path", run_folder, *where) == 0
    assert log(tmp_path / "tested")[-1]["checkpoint"] == str(run_folder / "checkpoints" / "last.ckpt")


def test_a_part_of_a_test_is_told_in_log_and_report(run_folder, zoo, tmp_path, log):
    where = ["--trainer.default_root_dir", tmp_path / "tested"]
    with pytest.warns(UserWarning, match="2 of 6 batches were tested, as trainer.limit_test_batches says"):
        assert zoo("test", "--ckpt_path", run_folder, *where, "--trainer.limit_test_batches", "2").code == 0
    (line,) = log(tmp_path / "tested")
    assert line["part"] == "2 of 6 batches"
    assert "on 2 of 6 batches alone" in zoo("report", tmp_path / "tested", "--out", tmp_path / "out").out
    assert zoo("test", "--ckpt_path", run_folder, *where).code == 0
    assert "part" not in log(tmp_path / "tested")[-1]


def test_a_folder_without_checkpoints_is_of_no_run(tmp_path, call, capfd):
    assert call("test", "--ckpt_path", tmp_path) == 2
    assert f"{tmp_path} has no last checkpoint" in capfd.readouterr().err


def test_an_evaluation_is_printed_for_people():
    metrics = {"val/images_per_second": 412.83, "val/loss": 2.19149, "val/accuracy": 0.5}
    assert printed(0, 33, metrics) == "epoch 1, step 33: val/loss 2.191, val/accuracy 0.5, val/images_per_second 412.8"
    assert printed(1, 66, {"val/loss": math.nan}) == "epoch 2, step 66: val/loss nan"
    assert printed(0, 0, {"test/clean": 0.8}) == "test/clean 0.8"  # weights that were not trained here
