"""A run folder has one writer, starts anew where nothing is lost, and is whole after any kill."""

import errno
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import yaml

from attention_zoo.errors import InputError
from attention_zoo.runs import files
from attention_zoo.runs.files import append_json_line, read_json_lines, read_yaml
from attention_zoo.runs.folders import find_checkpoint, new_folder, put_away
from attention_zoo.runs.lock import LOCK, held
from datamodules.base import ImageDataset

ROOT = Path(__file__).parents[2]


def hold(folder, ready, let_go):
    with held(folder):
        ready.set()
        let_go.wait(30)


@pytest.fixture
def holder(tmp_path):
    """Another process that trains in ``run``; calling it ends it, by a kill."""
    context = multiprocessing.get_context("fork")
    ready, let_go = context.Event(), context.Event()
    process = context.Process(target=hold, args=(tmp_path / "run", ready, let_go))
    process.start()
    assert ready.wait(30)

    def kill():
        process.kill()
        process.join()

    kill.pid = process.pid
    yield kill
    kill()


def test_a_folder_is_held_and_free_after_a_kill(zoo, tiny, tmp_path, holder):
    argv = ["--config", tiny, "--trainer.default_root_dir", "run", "--trainer.max_epochs", "1"]
    ended = zoo("fit", *argv)
    assert ended.code == 2
    assert ended.err.count("\n") == 1 and "run is in use" in ended.err and str(holder.pid) in ended.err
    assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK]
    holder()
    assert zoo("fit", *argv).code == 0
    assert (tmp_path / "run/checkpoints/last.ckpt").is_file() and not (tmp_path / "run" / LOCK).exists()


def test_a_second_resume_is_refused(zoo, run_folder, tmp_path):
    folder = tmp_path / "run"
    context = multiprocessing.get_context("fork")
    ready, let_go = context.Event(), context.Event()
    subprocess.run(["cp", "-r", str(run_folder), str(folder)], check=True)
    process = context.Process(target=hold, args=(folder, ready, let_go))
    process.start()
    assert ready.wait(30)
    argv = ["--ckpt_path", folder / "checkpoints/last.ckpt", "--trainer.max_epochs", "3"]
    ended = zoo("fit", *argv)
    assert ended.code == 2 and "in use" in ended.err
    assert zoo("test", *argv[:2]).code == 0  # a test is fine
    let_go.set()
    process.join()
    assert zoo("fit", *argv).code == 0


def test_folders_of_the_same_second_differ(tmp_path):
    found = []
    threads = [threading.Thread(target=lambda: found.append(new_folder(tmp_path / "run"))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 20 and all(path.is_dir() for path in found)


def test_lines_of_several_processes_stay_apart(tmp_path):
    path = tmp_path / "metrics.jsonl"

    def write(number):
        for line in range(20):
            append_json_line(path, {"process": number, "line": line, "filler": "x" * 2000})

    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=write, args=(number,)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len({(record["process"], record["line"]) for record in read_json_lines(path)}) == 80


def started(folder):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("ckpt_path: null")
    (folder / "metrics.jsonl").write_text('{"stage": "validate"}\n')
    (folder / "events.out.tfevents.1").touch()
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/.x.partial.ckpt").write_text("half")


def test_a_start_without_a_checkpoint_is_begun_anew(zoo, tiny, tmp_path):
    folder = tmp_path / "run"
    started(folder)
    ended = zoo("fit", "--ckpt_path", "last", "--trainer.default_root_dir", "run")
    assert ended.code == 2 and "start it anew" in ended.err
    ended = zoo("fit", "--config", tiny, "--trainer.default_root_dir", "run", "--trainer.max_epochs", "1")
    assert ended.code == 0, ended.err
    assert "run/abandoned" in ended.out and "starts anew" in ended.out
    away = folder / "abandoned"
    assert {path.name for path in away.iterdir()} == {"config.yaml", "metrics.jsonl", "events.out.tfevents.1"}
    assert len(read_json_lines(folder / "metrics.jsonl")) == 1
    assert read_yaml(folder / "config.yaml")["trainer"]["max_epochs"] == 1
    assert sorted(path.name for path in (folder / "checkpoints").iterdir())[-1] == "last.ckpt"


@pytest.mark.parametrize("content", ["", "model: {", "trainer: {max_epochs: 3}\nckpt_path: null"])
def test_whatever_a_kill_left_is_put_away(tmp_path, content):
    started(tmp_path / "run")
    (tmp_path / "run/config.yaml").write_text(content)
    assert (put_away(tmp_path / "run") / "config.yaml").read_text() == content
    assert put_away(tmp_path / "run") is None


def test_a_config_of_ones_own_is_not_moved(zoo, tiny, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text(Path(tiny).read_text())
    ended = zoo("fit", "--config", "run/config.yaml", "--trainer.default_root_dir", "run")
    assert ended.code == 2 and "run/config.yaml" in ended.err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_a_bad_image_is_no_dead_end(zoo, tiny, tmp_path, monkeypatch):
    stock = ImageDataset.__getitem__

    def broken(self, index):
        raise InputError("im3.png is no image")

    argv = ["fit", "--config", tiny, "--trainer.default_root_dir", "run", "--trainer.max_epochs", "1"]
    monkeypatch.setattr(ImageDataset, "__getitem__", broken)
    assert zoo(*argv).code == 2
    monkeypatch.setattr(ImageDataset, "__getitem__", stock)
    assert zoo(*argv).code == 0


def test_nothing_is_left_of_a_fit_that_cannot_start(zoo, tiny, tmp_path):
    assert zoo("fit", "--config", tiny, "--model.mixer", "VarsD", "--model.mixer.steps", "-1").code == 2
    argv = ["--trainer.default_root_dir", "a/b", "--model.model", "nope"]
    assert zoo("fit", "--config", tiny, *argv).code == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["checkpoints", "hparams.yaml"])
@pytest.mark.parametrize("resumes", [True, False])
def test_a_run_does_not_write_through_links(zoo, run_folder, tiny, tmp_path, name, resumes):
    (tmp_path / "precious").mkdir()
    folder = tmp_path / "run"
    if resumes:
        shutil.copytree(run_folder, folder)
        (folder / name).rename(tmp_path / "moved")
    folder.mkdir(exist_ok=True)
    (folder / name).symlink_to(tmp_path / ("precious" if name == "checkpoints" else "precious/new"))
    checkpoint = tmp_path / "moved/last.ckpt" if name == "checkpoints" else folder / "checkpoints/last.ckpt"
    start = ["--ckpt_path", checkpoint] if resumes else ["--config", tiny]
    ended = zoo("fit", *start, "--trainer.default_root_dir", folder, "--trainer.max_epochs", 4)
    assert ended.code == 2 and f"{name} is a link" in ended.err and len(ended.err.splitlines()) == 1
    assert not list((tmp_path / "precious").iterdir())


@pytest.mark.parametrize("name", ["config.yaml", "last.ckpt", "cost.json"])
def test_a_full_disk_is_one_line_about_the_file(zoo, tiny, tmp_path, monkeypatch, name):
    stock = os.replace

    def full(source, target):
        if Path(target).name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source))
        stock(source, target)

    monkeypatch.setattr(files.os, "replace", full)
    argv = ["--config", tiny, "--trainer.default_root_dir", "run", "--trainer.max_epochs", "1"]
    ended = zoo("fit", *argv)
    assert ended.code == 2
    (line,) = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert f"{name}: No space left on device" in line and "partial" not in line and "Traceback" not in ended.err
    assert not list(tmp_path.rglob(f"{name}")) and not list(tmp_path.rglob("*partial*"))
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    code = zoo("fit", *argv).code
    assert code == 0 or "--ckpt_path last" in zoo("fit", *argv).err


def test_a_log_that_cannot_be_written_stays_whole(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    append_json_line(path, {"epoch": 0})
    before = path.read_bytes()

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(InputError, match=r"cannot write .*metrics.jsonl: No space left"):
        append_json_line(path, {"epoch": 1})
    assert path.read_bytes() == before


def program(*argv, cwd):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "attention_zoo", *map(str, argv)]
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_twenty_kills_leave_no_dead_end(tiny, tmp_path):
    """Whatever moment a fit is killed at, the same two commands go on: resume, or else start anew."""
    generator = random.Random(0)
    argv = ["--trainer.max_epochs", "100000", "--data.num_workers", "1"]
    begun = [0, 0]
    last = tmp_path / "run/checkpoints/last.ckpt"
    for kill in range(20):
        resumes = last.exists()
        begun[resumes] += 1
        how = ["--ckpt_path", "last"] if resumes else ["--config", tiny]
        process = program("fit", *how, *argv, "--trainer.default_root_dir", "run", cwd=tmp_path)
        deadline = time.monotonic() + 120
        awaited = last if kill > 6 and not resumes else tmp_path / "run" / LOCK  # a machine may be slow
        while not awaited.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 8 if resumes else 4))
        process.send_signal(signal.SIGKILL)
        _, err = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, err
        for name in ("config.yaml", "metrics.jsonl"):
            path = tmp_path / "run" / name
            if path.exists():
                read_yaml(path) if name == "config.yaml" else read_json_lines(path)
        if resumes:
            find_checkpoint("last", tmp_path / "run")
    epoch = torch.load(last, weights_only=True)["epoch"]
    ends = ["--ckpt_path", "last", "--trainer.max_epochs", epoch + 2, "--trainer.default_root_dir", "run"]
    process = program("fit", *ends, cwd=tmp_path)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert begun[0] and begun[1]
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text())


@pytest.mark.slow
def test_of_two_racing_fits_one_is_refused(tiny, tmp_path):
    argv = ["--config", tiny, "--trainer.default_root_dir", "run"]
    racing = [program("fit", *argv, cwd=tmp_path) for _ in range(2)]
    errors = [process.communicate(timeout=180)[1] for process in racing]
    assert sorted(process.returncode for process in racing) == [0, 2], errors
    (refused,) = [error for process, error in zip(racing, errors, strict=True) if process.returncode]
    assert "is in use" in refused or "already holds a run" in refused
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]


@pytest.mark.slow
def test_fits_of_the_same_second_have_folders_of_their_own(tiny, tmp_path):
    racing = [program("fit", "--config", tiny, "--trainer.max_epochs", "1", cwd=tmp_path) for _ in range(2)]
    for process in racing:
        _, err = process.communicate(timeout=180)
        assert process.returncode == 0, err
    assert len(list((tmp_path / "runs").iterdir())) == 2
