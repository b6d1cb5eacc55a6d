"""A sweep on the command line, undisturbed and killed at random."""

import contextlib
import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from attention_zoo.sweeps import Plan, driver

ROOT = Path(__file__).parents[2]


@pytest.fixture
def write_sweep(tiny, tmp_path):
    """The YAML of a sweep on the digits; its path."""

    def write(out, **changes):
        content = {
            "out": str(out),
            "configs": [tiny],
            "axes": {"mixer": {"DotProduct": {"model.mixer": "DotProduct"}}},
            "collect": ["test/accuracy", "test/loss"],
            **changes,
        }
        path = tmp_path / f"{Path(out).name}.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return write


def test_dry_run_lists_the_runs_and_writes_nothing(zoo, write_sweep, tmp_path):
    axes = {"mixer": {name: {"model.mixer": name} for name in ("DotProduct", "VarzD")}}
    path = write_sweep(tmp_path / "out", axes=axes, seeds=[3, 4])
    ended = zoo("sweep", "--config", path, "--dry_run")
    assert ended.code == 0 and "0 of 4 runs done" in ended.out and "4 to run" in ended.out
    assert re.search(r"DotProduct │ +0\.0\d+ │ +0\.00\d+", ended.out)
    assert "fails: model.mixer: unknown mixer" in ended.out and not ended.err
    assert not (tmp_path / "out").exists()


def test_dry_run_expects_the_time_of_the_same_setting(zoo, write_sweep, tmp_path):
    path = write_sweep(
        tmp_path / "out", axes={"mixer": {m: {"model.mixer": m} for m in ("DotProduct", "VarsD")}}, seeds=[0, 1, 2]
    )
    for name, hours in (("DotProduct,seed=0", 1), ("DotProduct,seed=1", 1), ("VarsD,seed=0", 5)):
        folder = tmp_path / "out" / "runs" / f"mixer={name}"
        folder.mkdir(parents=True)
        record = {"status": "done", "parts": {"fit": 2400 * hours, "test": 1200 * hours}}
        (folder / "run.json").write_text(json.dumps(record))
    ended = zoo("sweep", "--config", path, "--dry_run")
    assert "3 to run; about 11.0 h at 1 a time, by the 3 that are done" in ended.out


@pytest.mark.parametrize("argv", [["--seeds", "5", "6"], ["--seeds=[5, 6]"]])
@pytest.mark.parametrize("first", ["config", "option"])
def test_a_list_on_the_command_line_beats_the_config(zoo, write_sweep, tmp_path, argv, first):
    config = ["--config", write_sweep(tmp_path / "out", seeds=[0, 1, 2])]
    ended = zoo("sweep", *([*config, *argv] if first == "config" else [*argv, *config]), "--print_config")
    assert yaml.safe_load(ended.out)["seeds"] == [5, 6]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"configs": ["nowhere.yaml"]}, "config nowhere.yaml does not exist"),
        ({"workers": 0}, "workers=0 must be at least 1"),
        ({"threads": 1025}, "threads=1025 must be at least 1 and at most 1024"),
        ({"hours": -1}, "hours=-1.0 must not be negative"),
        ({"seedz": [1]}, "seedz"),
        ({"engine": "submitit", "cluster": "moon"}, "submitit: .*moon"),
    ],
)
def test_bad_input(zoo, write_sweep, tmp_path, changes, message):
    ended = zoo("sweep", "--config", write_sweep(tmp_path / "out", **changes))
    assert ended.code == 2
    (line,) = ended.err.strip().splitlines()
    assert line.startswith("error: ")
    assert re.search(message, line)
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("how", ["config", "base", "option", "axis", "nested"])
def test_without_a_gpu_a_sweep_that_asks_for_one_starts_no_run(zoo, write_sweep, tiny, tmp_path, how):
    on_gpus = tmp_path / "on_gpus.yaml"
    on_gpus.write_text("trainer: {accelerator: gpu}")
    based = tmp_path / "based.yaml"
    based.write_text("base: on_gpus.yaml\ntrainer: {max_epochs: 1}")
    changes = {
        "config": {"configs": [tiny, str(on_gpus)]},
        "base": {"configs": [tiny, str(based)]},
        "option": {"options": {"trainer.accelerator": "gpu"}},
        "axis": {"axes": {"where": {"here": {}, "there": {"config": str(on_gpus)}}}},
        "nested": {"options": {"trainer": {"accelerator": "gpu"}}},
    }[how]
    ended = zoo("sweep", "--config", write_sweep(tmp_path / "out", **changes))
    assert ended.code == 2 and not (tmp_path / "out").exists()
    assert re.search(r"^error: \S+: trainer.accelerator gpu: there is no GPU here; choose cpu or auto\n$", ended.err)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_what_is_done_needs_no_gpu_any_more(zoo, write_sweep, tmp_path):
    out, options = tmp_path / "out", {"trainer.accelerator": "gpu"}
    path = write_sweep(out, options=options)
    Plan(**{key: value for key, value in yaml.safe_load(path.read_text()).items() if key != "out"}).keep(out)
    folder = out / "runs" / "mixer=DotProduct,seed=0"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"status": "failed", "reason": "no GPU"}))
    assert "failed: mixer=DotProduct,seed=0: no GPU" in zoo("sweep", "--config", path).out
    assert "there is no GPU here" in zoo("sweep", "--config", path, "--retry_failed", "true").err


def test_an_empty_folder_is_not_the_working_folder(zoo, write_sweep, tmp_path):
    ended = zoo("sweep", "--config", write_sweep(tmp_path / "out"), "--out", "", "--dry_run")
    assert ended.code == 2 and ended.err.startswith("error: out is empty; name a path")


@pytest.mark.parametrize(("hours", "code"), [(None, 1), (0.0, 0)])
def test_runs_that_are_left_are_no_success(zoo, write_sweep, tmp_path, monkeypatch, hours, code):
    if hours is None:
        monkeypatch.setattr(driver, "_loop", lambda *arguments: None)
    ended = zoo("sweep", "--config", write_sweep(tmp_path / "out", hours=hours, seeds=[0, 1]))
    why = ", though nothing stopped the sweep" if code else ""
    assert ended.code == code
    assert f"2 runs are left{why}; the same command goes on with {tmp_path / 'out'}" in ended.out


@pytest.mark.parametrize("bad", [{}, pytest.param({"bad": {"model.mixer": "VarzD"}}, marks=pytest.mark.slow)])
def test_runs_are_trained_tested_and_kept(zoo, write_sweep, log, tmp_path, monkeypatch, bad):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    mixers = {"VarsD": {"model.mixer": "VarsD"}} | bad
    again = {"seeds": [5], "axes": {"mixer": mixers}, "evaluations": {"test": {"data.batch_size": 7}}}
    path = write_sweep(tmp_path / "out", **again)
    ended = zoo("sweep", "--config", path, "--workers", "2")
    assert ended.code == len(bad)
    assert f"1 of {len(mixers)} runs done" in ended.out
    assert ("did you mean 'VarsD'" in ended.out) == bool(bad)
    folder = tmp_path / "out" / "runs" / "mixer=VarsD,seed=5"
    record = json.loads((folder / "run.json").read_text())
    measured = [line["metrics"] for line in log(folder) if line["stage"] == "test"]
    assert [record["metrics"]["test"]] == measured
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["seed_everything"] == 5 and config["model"]["init_args"]["mixer"]["class_path"].endswith("VarsD")
    row, *_ = csv.DictReader((tmp_path / "out" / "report" / "runs.csv").open())
    assert float(row["test/accuracy"]) == record["metrics"]["test"]["test/accuracy"]
    assert "test/accuracy ↑" in ended.out and (tmp_path / "out" / "report" / "index.html").is_file()
    before = (folder / "metrics.jsonl").read_bytes()
    assert zoo("sweep", "--config", path).code == len(bad)
    assert (folder / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_killed_at_random_it_ends_with_the_same_table(write_sweep, tmp_path):
    axes = {"mixer": {name: {"model.mixer": name} for name in ("DotProduct", "Performer", "VarsD", "KMeans")}}
    options = {"trainer.max_epochs": 4, "trainer.limit_val_batches": 2}
    command = [sys.executable, "-m", "attention_zoo", "sweep", "--workers", "2", "--config"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    tables = {}
    for name, kills in (("whole", 0), ("broken", 3)):
        path = write_sweep(tmp_path / name, axes=axes, seeds=[0, 1, 2], options=options)
        generator = random.Random(0)
        for _ in range(kills):
            process = subprocess.Popen([*command, path], env=environment, start_new_session=True)
            time.sleep(generator.uniform(20, 40))
            running = subprocess.run(["pgrep", "-f", f"attention_zoo.*{tmp_path / name}/runs"], capture_output=True)
            for pid in [process.pid, *map(int, running.stdout.split()[:1])]:
                os.kill(pid, signal.SIGKILL)
            process.wait()
        subprocess.run([*command, path], env=environment, check=True, timeout=1200)
        records = sorted((tmp_path / name / "runs").glob("*/run.json"))
        assert len(records) == 12
        metrics = {record.parent.name: json.loads(record.read_text())["metrics"]["test"] for record in records}
        tables[name] = {run: (m["test/accuracy"], m["test/loss"]) for run, m in metrics.items()}
    assert tables["whole"] == tables["broken"]


@pytest.mark.slow
def test_a_cluster_that_dies_at_random_loses_nothing(zoo, write_sweep, log, tiny, tmp_path):
    """All workers die with what they have started, as with their nodes; submitit runs them on this machine."""
    options = {"trainer.max_epochs": 4, "trainer.limit_val_batches": 2}
    whole = tmp_path / "whole"
    argv = [*(f"--{key}={value}" for key, value in options.items()), "--model.mixer=DotProduct", "--seed_everything=1"]
    assert zoo("fit", "--config", tiny, *argv, "--trainer.default_root_dir", whole).code == 0
    assert zoo("test", "--ckpt_path", whole / "checkpoints" / "last.ckpt").code == 0
    path = write_sweep(tmp_path / "out", seeds=[0, 1], options=options)
    command = [sys.executable, "-m", "attention_zoo", "sweep", "--engine", "submitit", "--cluster", "local"]
    command += ["--engine_args", "{timeout_min: 120}", "--workers", "2", "--config", str(path)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path)
    runs, generator, deaths = tmp_path / "out" / "runs", random.Random(0), 0
    workers = f"(submitit.core._submit|attention_zoo (fit|test)).*{tmp_path}/out"
    while process.poll() is None:
        time.sleep(generator.uniform(2, 8))
        states = [json.loads(record.read_text())["status"] for record in runs.glob("*/run.json")]
        if deaths < 2 and states.count("running") == 2:
            for pid in subprocess.run(["pgrep", "-f", workers], capture_output=True, text=True).stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            deaths += 1
    assert process.returncode == 0
    records = [json.loads(record.read_text()) for record in sorted(runs.glob("*/run.json"))]
    assert [(record["status"], record["kills"] > 0) for record in records] == [("done", True)] * 2
    expected = {name: log(whole)[-1]["metrics"][name] for name in ("test/accuracy", "test/loss")}
    assert expected == {name: records[1]["metrics"]["test"][name] for name in expected}
