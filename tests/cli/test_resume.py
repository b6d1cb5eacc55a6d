"""A run that was killed in the middle of an epoch and resumed ends with the weights of one that was not."""

from functools import partial
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from tests.processes import ROOT

ARGUMENTS = [
    "--config",
    "configs/classification/digits.yaml",
    "--config",
    "configs/callbacks/ema.yaml",
    "--model.mixer",
    "VarsD",
    "--model.mixing.mixup_alpha",
    "0.8",
    "--model.mixing.cutmix_alpha",
    "1.0",
    "--model.model_args.drop_path_rate",
    "0.1",
    "--model.model_args.proj_drop_rate",
    "0.1",
    "--data.num_workers",
    "2",
    "--trainer.max_epochs",
    "4",
    "--trainer.limit_train_batches",
    "6",
    "--trainer.limit_val_batches",
    "1",
    "--trainer.enable_progress_bar",
    "false",
]


@pytest.fixture
def run(process):
    """Run a command that can import the killer."""
    return partial(process, cwd=ROOT, path=[Path(__file__).parent])


def test_killed_and_resumed_is_bitwise_the_same(run, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = run("fit", *ARGUMENTS, "--trainer.default_root_dir", whole)
    assert done.code == 0, done.err
    killer = ["--trainer.callbacks+", "killer.KillOnce"]
    killer += ["--trainer.callbacks.marker", tmp_path / "killed", "--trainer.callbacks.epoch", "2"]
    done = run("fit", *ARGUMENTS, "--trainer.default_root_dir", broken, *killer)
    assert done.code == -9, done.err
    trust = ["--trust_checkpoint", "true"]  # the checkpoint names the killer
    done = run("fit", "--ckpt_path", "last", "--trainer.default_root_dir", broken, *trust)
    assert done.code == 0, done.err
    states = [torch.load(path / "checkpoints" / "last.ckpt", weights_only=True) for path in (whole, broken)]
    assert states[0]["epoch"] == states[1]["epoch"] == 3
    assert states[0]["global_step"] == states[1]["global_step"] == 24
    for part in ("state_dict", "current_model_state"):
        for name, weight in states[0][part].items():
            assert torch.equal(weight, states[1][part][name]), (part, name)


SHORT = ["--trainer.max_epochs", "2", "--trainer.limit_train_batches", "4", "--trainer.limit_val_batches", "1"]
STEADY = ["--model.scheduler", "ConstantLR", "--model.scheduler.factor", "1.0"]
"""A schedule that knows no end, so that the number of steps changes no learning rate."""


def saves(name, *options):
    """The options of a callback that keeps every checkpoint that it writes."""
    start = ["--trainer.callbacks+", "ModelCheckpoint", "--trainer.callbacks.save_top_k", "-1"]
    names = ["--trainer.callbacks.filename", name, "--trainer.callbacks.auto_insert_metric_name", "false"]
    return [*start, *names, *options]


def ended(folder):
    """Steps, epoch and weights of a run's last checkpoint."""
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return state["global_step"], state["epoch"], state["state_dict"]


def assert_same_end(first, second):
    (*counts, weights), (*others, found) = ended(first), ended(second)
    assert counts == others
    assert all(torch.equal(weight, found[name]) for name, weight in weights.items())


@pytest.mark.parametrize("workers", ["0", pytest.param("1", marks=pytest.mark.slow)])
def test_resumed_from_within_an_epoch_is_bitwise_the_same(zoo, tiny, tmp_path, workers):
    every = saves("t{step}", "--trainer.callbacks.every_n_train_steps", "1")
    every += saves("v{step}", "--trainer.callbacks.monitor", "val/loss")
    halves = ["--trainer.val_check_interval", "2", "--data.num_workers", workers]
    whole = tmp_path / "whole"
    run = zoo("fit", "--config", tiny, *SHORT, *halves, *every, "--trainer.default_root_dir", whole)
    assert run.code == 0, run.err
    for name in ("t1", "t4", "t6", "v2", "v4"):  # within an epoch, at its end, and where it was validated
        resumed = tmp_path / name
        found = whole / "checkpoints" / f"{name}.ckpt"
        options = ["--trainer.default_root_dir", resumed, "--trainer.callbacks", "null"]
        run = zoo("fit", "--ckpt_path", found, *options)
        assert run.code == 0 and "not resumable" not in run.err, (name, run.err)
        assert_same_end(whole, resumed)


def test_what_a_number_of_steps_leaves_of_an_epoch_is_trained_on_when_resumed(zoo, tiny, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    once = ["--data.repeated_augmentation", "2"]
    run = zoo("fit", "--config", tiny, *SHORT, *STEADY, *once, "--trainer.default_root_dir", whole)
    assert run.code == 0, run.err
    cut = ["--trainer.max_steps", "5", "--trainer.default_root_dir", broken]
    run = zoo("fit", "--config", tiny, *SHORT, *STEADY, *once, *cut)
    assert run.code == 0 and "trained 1 epoch and 1 of 4 batches of the next; " in run.out, run.err
    run = zoo("fit", "--ckpt_path", broken, "--trainer.max_steps", "-1")
    assert run.code == 0 and "trained 2 epochs; " in run.out, run.err
    assert_same_end(whole, broken)


def test_an_epoch_goes_on_with_steps_of_the_same_size_only(zoo, tiny, tmp_path):
    cut = ["--trainer.max_steps", "1", "--trainer.default_root_dir", tmp_path / "run"]
    assert zoo("fit", "--config", tiny, *SHORT, *cut).code == 0
    run = zoo("fit", "--ckpt_path", tmp_path / "run", "--trainer.max_steps", "-1", "--data.batch_size", "5")
    assert run.code == 2 and "images a step, which cannot go on with 5: keep batch_size" in run.err


@pytest.mark.parametrize("watcher", ["ModelCheckpoint", "EarlyStopping"])
def test_an_epoch_is_kept_when_a_watched_metric_is_not_there(zoo, tiny, tmp_path, watcher):
    run = ["--trainer.default_root_dir", tmp_path / "run"]
    watch = ["--trainer.callbacks+", watcher, "--trainer.callbacks.monitor", "val/acc"]
    done = zoo("fit", "--config", tiny, *SHORT, *run, *watch)
    assert done.code == 2 and "val/acc" in done.err
    assert "what was trained until now is in" in done.out and "weights_only" not in done.out + done.err
    done = zoo("fit", "--ckpt_path", tmp_path / "run", "--trainer.callbacks", "null")
    assert done.code == 0, done.err
    whole = zoo("fit", "--config", tiny, *SHORT, "--trainer.default_root_dir", tmp_path / "whole")
    assert whole.code == 0, whole.err
    assert_same_end(tmp_path / "whole", tmp_path / "run")


def test_a_resumed_run_can_be_resumed(zoo, tiny, tmp_path):
    """Resumed at the last batch of an epoch, Lightning's numbers of epochs no longer agree."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    every = saves("t{step}", "--trainer.callbacks.every_n_train_steps", "1")
    long = [*SHORT, *STEADY, "--trainer.max_epochs", "4"]
    assert zoo("fit", "--config", tiny, *long, *every, "--trainer.default_root_dir", whole).code == 0
    found = whole / "checkpoints" / "t4.ckpt"
    cut = ["--trainer.default_root_dir", broken, "--trainer.callbacks", "null", "--trainer.max_steps", "7"]
    run = zoo("fit", "--ckpt_path", found, *cut)
    assert run.code == 0 and "trained 1 epoch and 3 of 4 batches of the next; " in run.out, run.err
    run = zoo("fit", "--ckpt_path", broken, "--trainer.max_steps", "8")
    assert run.code == 0 and "trained 2 epochs; " in run.out, run.err
    run = zoo("fit", "--ckpt_path", broken, "--trainer.max_steps", "-1")
    assert run.code == 0 and "trained 4 epochs; " in run.out, run.err
    assert_same_end(whole, broken)


def test_batches_are_gathered_into_steps_as_without_the_break(zoo, tiny, tmp_path):
    gathered = ["--trainer.callbacks+", "GradientAccumulationScheduler"]
    gathered += ["--trainer.callbacks.scheduling", "{0: 2, 1: 3}"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    run = [*SHORT, *STEADY, *gathered]
    assert zoo("fit", "--config", tiny, *run, "--trainer.default_root_dir", whole).code == 0
    cut = ["--trainer.max_steps", "3", "--trainer.default_root_dir", broken]
    assert zoo("fit", "--config", tiny, *run, *cut).code == 0
    assert zoo("fit", "--ckpt_path", broken, "--trainer.max_steps", "-1").code == 0
    assert_same_end(whole, broken)


def test_what_cannot_go_on_within_an_epoch_is_refused(zoo, tiny, tmp_path):
    kept = tmp_path / "half" / "checkpoints"
    halves = ["--trainer.accumulate_grad_batches", "2", "--trainer.val_check_interval", "3"]
    every = saves("v{step}", "--trainer.callbacks.monitor", "val/loss")
    assert zoo("fit", "--config", tiny, *SHORT, *halves, *every, "--trainer.default_root_dir", kept.parent).code == 0
    place = ["--trainer.default_root_dir", tmp_path / "other", "--trainer.callbacks", "null"]
    run = zoo("fit", "--ckpt_path", kept / "v1.ckpt", *place)
    assert run.code == 2 and "after 3 batches of an epoch, between two steps of 2 batches" in run.err

    same = [
        "--trainer.overfit_batches",
        "4",
        "--trainer.max_steps",
        "2",
        "--trainer.default_root_dir",
        tmp_path / "same",
    ]
    assert zoo("fit", "--config", tiny, *SHORT, *same).code == 0
    run = zoo("fit", "--ckpt_path", tmp_path / "same", "--trainer.max_steps", "-1")
    assert run.code == 2 and "overfit_batches has an order of its own" in run.err

    old = torch.load(kept / "v1.ckpt", weights_only=True)
    old["Digits"] = {"first_epoch": old["Digits"]["first_epoch"]}
    torch.save(old, tmp_path / "old.ckpt")
    run = zoo("fit", "--ckpt_path", tmp_path / "old.ckpt", *place)
    assert run.code == 2 and "was written within an epoch by a version that kept no place in it" in run.err


def test_a_schedule_that_watches_a_metric_is_said_to_differ(zoo, tiny, tmp_path):
    plateau = ["--model.scheduler", "lightning.pytorch.cli.ReduceLROnPlateau", "--model.scheduler.monitor", "val/loss"]
    run = ["--trainer.max_epochs", "1", "--trainer.default_root_dir", tmp_path / "run"]
    assert zoo("fit", "--config", tiny, *SHORT, *plateau, *run).code == 0
    with pytest.warns(UserWarning, match="does not see that of the epoch before the checkpoint"):
        assert zoo("fit", "--ckpt_path", tmp_path / "run", "--trainer.max_epochs", "2").code == 0


def test_a_run_that_averages_its_weights_goes_on(zoo, tiny, tmp_path):
    averaged = ["--trainer.callbacks+", "StochasticWeightAveraging", "--trainer.callbacks.swa_lrs", "0.01"]
    averaged += ["--trainer.callbacks.swa_epoch_start", "2", "--trainer.callbacks.annealing_epochs", "3"]
    averaged += saves("t{step}", "--trainer.callbacks.every_n_train_steps", "1")
    whole = tmp_path / "whole"
    long = [*SHORT, *STEADY, "--trainer.max_epochs", "3"]
    assert zoo("fit", "--config", tiny, *long, *averaged, "--trainer.default_root_dir", whole).code == 0
    for name in ("t3", "t4", "t6", "t8"):  # before it averages, at the end of that epoch, and while it averages
        resumed = tmp_path / name
        found = whole / "checkpoints" / f"{name}.ckpt"
        run = zoo("fit", "--ckpt_path", found, "--trainer.default_root_dir", resumed)
        assert run.code == 0, (name, run.err)
        assert_same_end(whole, resumed)


class Hooked(Callback):
    """Writes down the epochs that begin."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def on_train_epoch_start(self, trainer, pl_module):
        with self.file.open("a") as file:
            file.write(f"{trainer.current_epoch} ")


def test_every_epoch_that_begins_is_told_to_callbacks(zoo, tiny, tmp_path):
    every = saves("t{step}", "--trainer.callbacks.every_n_train_steps", "1")
    long = [*SHORT, *STEADY, "--trainer.max_epochs", "3"]
    whole = tmp_path / "whole"
    assert zoo("fit", "--config", tiny, *long, *every, "--trainer.default_root_dir", whole).code == 0
    for name, begun in (("t3", "1 2 "), ("t4", "1 2 "), ("t5", "2 ")):
        told = ["--trainer.callbacks", f"{__name__}.Hooked", "--trainer.callbacks.file", tmp_path / f"{name}.txt"]
        found = whole / "checkpoints" / f"{name}.ckpt"
        run = zoo("fit", "--ckpt_path", found, "--trainer.default_root_dir", tmp_path / name, *told)
        assert run.code == 0, (name, run.err)
        assert (tmp_path / f"{name}.txt").read_text() == begun
