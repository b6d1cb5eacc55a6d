"""A run that was killed in the middle of an epoch and resumed ends with the weights of one that was not."""

from functools import partial
from pathlib import Path

import pytest
import torch

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
