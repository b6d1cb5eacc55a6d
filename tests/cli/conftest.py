"""A tiny vision transformer on the digits, and ways to run the command line on it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attention_zoo.cli.main import main
from tests import commands, processes
from tests.processes import Ended

TINY = """
model:
  class_path: Classification
  init_args:
    model: vit_tiny_patch16_224
    model_args: {patch_size: 2, embed_dim: 32, depth: 2, num_heads: 2}
data: Digits
trainer:
  accelerator: cpu
  devices: 1
  max_epochs: 2
  limit_train_batches: 3
  log_every_n_steps: 1
  enable_progress_bar: false
  enable_model_summary: false
"""


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background; programs would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(TINY)
    return str(path)


@pytest.fixture(scope="session")
def call():
    """Run a command in this process; its exit code."""
    return commands.call


@pytest.fixture
def zoo(call, capfd, tmp_path, monkeypatch):
    """Run a command in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*argv):
        capfd.readouterr()
        code = call(*argv)
        return Ended(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def small_trainer():
    """Trainer options of a run of one epoch that says little."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1}
    return {"max_epochs": 1, "accelerator": "cpu", "devices": 1, **quiet}


@pytest.fixture(scope="session")
def program():
    """Run a command as a program, started as a user starts it; for what `process` cannot show."""

    def run(*argv, cwd, timeout=180):
        environment = {**os.environ, "PYTHONPATH": str(processes.ROOT)}
        command = [sys.executable, "-m", "attention_zoo", *map(str, argv)]
        done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def process():
    """Run a command in a process of its own, or in several that compute together; see `tests.processes.run`."""

    def run(*argv, **options):
        return processes.run(main, [*map(str, argv)], **options)

    return run


@pytest.fixture(scope="session")
def run_folder(call, tiny, tmp_path_factory):
    """A finished run of VarsD; tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("vars_d") / "run"
    best = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.monitor=val/loss"]
    arguments = ["--model.mixer", "VarsD", "--model.mixer.steps", "2", "--trainer.default_root_dir", folder, *best]
    assert call("fit", "--config", tiny, *arguments) == 0
    return folder


@pytest.fixture(scope="session")
def log():
    """The lines of a run's metrics."""

    def read(folder):
        return [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]

    return read


@pytest.fixture
def images(tmp_path_factory):
    """A folder of seven images, some deeper."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "sub").mkdir()
    generator = np.random.default_rng(0)
    for number in range(7):
        pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / ("sub" if number % 2 else ".") / f"im{number}.png")
    return folder
