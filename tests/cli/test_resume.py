"""A run that was killed in the middle of an epoch and resumed ends with the weights of one that was not."""

import os
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
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


def run(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-m", "attention_zoo", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def test_killed_and_resumed_is_bitwise_the_same(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = run("fit", *ARGUMENTS, "--trainer.default_root_dir", whole)
    assert done.returncode == 0, done.stderr
    killer = ["--trainer.callbacks+", "killer.KillOnce"]
    killer += ["--trainer.callbacks.marker", tmp_path / "killed", "--trainer.callbacks.epoch", "2"]
    done = run("fit", *ARGUMENTS, "--trainer.default_root_dir", broken, *killer)
    assert done.returncode == -9, done.stderr
    trust = ["--trust_checkpoint", "true"]  # the checkpoint names the killer
    done = run("fit", "--ckpt_path", "last", "--trainer.default_root_dir", broken, *trust)
    assert done.returncode == 0, done.stderr
    states = [torch.load(path / "checkpoints" / "last.ckpt", weights_only=True) for path in (whole, broken)]
    assert states[0]["epoch"] == states[1]["epoch"] == 3
    assert states[0]["global_step"] == states[1]["global_step"] == 24
    for part in ("state_dict", "current_model_state"):
        for name, weight in states[0][part].items():
            assert torch.equal(weight, states[1][part][name]), (part, name)
