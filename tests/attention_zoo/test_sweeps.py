"""Which runs a sweep makes, and what becomes of a run whatever happens to it."""

import errno
import io
import json
import threading
import time
from dataclasses import asdict, fields

import pytest
import torch
from rich.console import Console

from attention_zoo.errors import InputError
from attention_zoo.runs.checkpoint import CONFIG
from attention_zoo.sweeps import Job, Plan, carry_out, driver
from attention_zoo.sweeps.engines import Local, Submitit
from attention_zoo.sweeps.job import DiskFull, Record, held, read_record
from attention_zoo.sweeps.plan import ENGINE, Run, read_plan, write


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("trainer: {}")
    return str(path)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    monkeypatch.setattr(driver, "PAUSE", 0.05)
    monkeypatch.setattr("attention_zoo.sweeps.job.PAUSE", 0.02)


class TestPlan:
    def test_all_combinations_with_all_seeds(self, config):
        axes = {
            "mixer": {"A": {"model.mixer": "A"}, "B": {"model.mixer": "B", "model.mixer.steps": 5}},
            "x.lr": [0.1, 1],
        }
        runs = Plan([config], axes, seeds=[0, 7]).all_runs()
        assert [run.name for run in runs] == [
            f"mixer={mixer},lr={lr},seed={seed}" for seed in (0, 7) for mixer in "AB" for lr in (0.1, 1)
        ]
        last = ["--seed_everything", "7", "--model.mixer", "B", "--model.mixer.steps", "5", "--x.lr", "1"]
        assert runs[-1].arguments == last and runs[-1].values == {"mixer": "B", "x.lr": 1} and runs[-1].seed == 7

    def test_configs_as_values(self, config):
        plan = Plan([config], {"mixer": [config], "schedule": {"slow": config}})
        (run,) = plan.all_runs()
        assert run.name == "mixer=recipe,schedule=slow,seed=0"
        assert run.arguments == ["--seed_everything", "0", "--config", config, "--config", config]
        assert plan.files() == [config] * 3

    def test_a_list_of_runs(self, config):
        plan = Plan(
            [config],
            runs={"plain": {}, "wide": {"config": config, "model.dim": 8, "model.args": {"a": None, "b": [1, 2]}}},
        )
        plain, wide = plan.all_runs()
        assert plain.arguments == ["--seed_everything", "0"]
        assert wide.arguments[2:] == ["--config", config, "--model.dim", "8", "--model.args", "{a: null, b: [1, 2]}"]
        assert wide.name == "run=wide,seed=0"

    @pytest.mark.parametrize(
        "kind, least, largest", [("uniform", 0.5, 2.0), ("log_uniform", 1e-4, 1), ("integers", 1, 90)]
    )
    def test_draws(self, config, kind, least, largest):
        axes = {"model.a": {kind: [least, largest]}, "model.b": ["x", "y"]}
        few, many = (Plan([config], axes, draws=count).all_runs() for count in (5, 9))
        assert few == many[:5] and len({run.name for run in many}) == 9
        values = [run.values["model.a"] for run in many]
        assert all(least <= value <= largest for value in values) and len(set(values)) > 3
        assert {run.values["model.b"] for run in many} == {"x", "y"}

    def test_draws_from_few_choices_end(self, config):
        assert len(Plan([config], {"a": [1, 2]}, draws=10).all_runs()) == 2

    def test_is_kept_and_may_grow(self, config, tmp_path):
        plan = Plan([config], {"a": [1, 2]}, baseline={"a": 1})
        plan.keep(tmp_path / "out")
        assert read_plan(tmp_path / "out") == plan
        Plan([config], {"a": [1, 2, 3]}, seeds=[0, 1]).keep(tmp_path / "out")
        assert read_plan(tmp_path / "out").seeds == [0, 1]

    def test_another_sweep_in_the_folder_is_refused(self, config, tmp_path):
        Plan([config], {"a": {"one": {"x": 1}}}).keep(tmp_path / "out")
        with pytest.raises(InputError, match="holds a sweep with other options: choose another folder"):
            Plan([config], {"a": {"one": {"x": 1}}}, options={"y": 1}).keep(tmp_path / "out")
        with pytest.raises(InputError, match="holds a sweep with other options of a=one,seed=0"):
            Plan([config], {"a": {"one": {"x": 2}}}).keep(tmp_path / "out")
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "thesis.tex").touch()
        with pytest.raises(InputError, match="full exists and holds no sweep"):
            Plan([config]).keep(tmp_path / "full")

    @pytest.mark.parametrize(
        "wrong, message",
        [
            ({"seeds": [1, 1]}, "seeds must be different"),
            ({"seeds": []}, "seeds must be different"),
            ({"axes": {"a": []}}, "axis 'a' must be"),
            ({"axes": {"a": 3}}, "axis 'a' must be"),
            ({"axes": {"a": {"uniform": [0, 1]}}}, "axis 'a' is a range; say with draws"),
            ({"axes": {"a": [1]}, "draws": 0}, "draws=0"),
            ({"axes": {"a": [1]}, "runs": {"x": {}}}, "not both"),
            ({"axes": {"mixer": [1]}, "baseline": {"mixxer": 1}}, "did you mean 'mixer'"),
            ({"axes": {"a": ["missing.yaml"]}}, "config missing.yaml does not exist"),
            ({"evaluations": {"test": {"config": "gone.yaml"}}}, "config gone.yaml does not exist"),
        ],
    )
    def test_bad_input(self, config, wrong, message):
        with pytest.raises(InputError, match=message):
            Plan([config], **wrong)


class Scripted(Job):
    """A job whose commands are played: every command takes the next step of a script."""

    def _start(self, arguments, lock):
        said = self.folder / "said.jsonl"
        steps = self.plan.options["script"].get(self.run.name, [])
        place = len(said.read_text().splitlines()) if said.exists() else 0
        with said.open("a") as file:
            file.write(json.dumps(arguments) + "\n")
        step = steps[place] if place < len(steps) else 0
        if arguments[0] == "fit":
            (self.folder / "config.yaml").touch()
        if step == "checkpoint":
            (self.folder / "checkpoints").mkdir(exist_ok=True)
            torch.save({"state_dict": {}, CONFIG: "model: {}"}, self.folder / "checkpoints" / "last.ckpt")
            step = -9
        if isinstance(step, str):
            (self.folder / "run.log").write_text(f"$ before\nerror: earlier\n$ command\nTraceback\n{step}\n")
            return 2
        if step == 0 and arguments[0] == "test":
            line = {"stage": "test", "epoch": 3, "metrics": {"test/accuracy": 0.5 + 0.1 * self.run.seed}}
            with (self.folder / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
        return step

    @property
    def commands(self):
        return [json.loads(line) for line in (self.folder / "said.jsonl").read_text().splitlines()]


def job(config, folder, *script, **options):
    plan = Plan([config], options={"script": {"seed=0": list(script)}}, evaluations={"test": {}, "noise": {"x": 1}})
    return Scripted(plan, Run("seed=0", {}, 0, ["--seed_everything", "0"]), folder, **options)


class TestJob:
    def test_trains_and_evaluates_once(self, config, tmp_path):
        done = job(config, tmp_path)
        record = done()
        assert record.status == "done" and list(record.parts) == ["fit", "test", "noise"]
        assert record.metrics == {name: {"test/accuracy": 0.5} for name in ("test", "noise")}
        assert [command[0] for command in done.commands] == ["fit", "test", "test"]
        assert done.commands[0][1:3] == ["--config", config] and "--x" in done.commands[2]
        assert done() == record and len(done.commands) == 3

    def test_a_killed_training_goes_on_from_its_checkpoint(self, config, tmp_path):
        killed = job(config, tmp_path, "checkpoint")
        assert killed().status == "done"
        assert killed.commands[1][:3] == ["fit", "--ckpt_path", "last"]

    def test_one_without_a_checkpoint_starts_anew(self, config, tmp_path):
        killed = job(config, tmp_path, -9)
        assert killed().status == "done" and killed().kills == 1
        assert killed.commands[0] == killed.commands[1]

    def test_a_checkpoint_cut_short_is_none(self, config, tmp_path):
        killed = job(config, tmp_path, "checkpoint", -9)
        with held(tmp_path / "busy"):
            killed._start(["fit"], None)
        path = tmp_path / "checkpoints" / "last.ckpt"
        path.write_bytes(path.read_bytes()[:100])
        assert killed().status == "done"
        assert "--ckpt_path" not in killed.commands[1]

    def test_killed_again_and_again_it_fails(self, config, tmp_path):
        record = job(config, tmp_path, -9, -9, -9)()
        assert record.status == "failed" and "killed 3 times (signal 9); out of memory?" in record.reason

    def test_a_failure_is_kept_with_its_reason(self, config, tmp_path):
        failed = job(config, tmp_path, "error: model.mixer: unknown mixer 'VarzD'")
        assert failed().reason == "model.mixer: unknown mixer 'VarzD'"
        assert failed().status == "failed" and len(failed.commands) == 1

    def test_a_failure_can_be_tried_again(self, config, tmp_path):
        job(config, tmp_path, "RuntimeError: out of memory")()
        assert read_record(tmp_path).reason == "RuntimeError: out of memory"
        assert job(config, tmp_path, "", retry=True)().status == "done"

    @pytest.mark.parametrize("code", [130, 143])
    def test_interrupted_it_waits(self, config, tmp_path, code):
        interrupted = job(config, tmp_path, 0, code)
        assert interrupted().status == "waiting" and list(read_record(tmp_path).parts) == ["fit"]
        before = read_record(tmp_path)
        assert before.begun > 0
        (tmp_path / "run.json").write_text(json.dumps(asdict(before) | {"begun": 1000.0}))
        after = interrupted()
        assert after.status == "done" and after.begun == 0
        assert after.parts["test"] >= 1000 and after.parts["noise"] < 1000
        assert [command[0] for command in interrupted.commands] == ["fit", "test", "test", "test"]

    def test_one_process_at_a_time(self, config, tmp_path):
        with held(tmp_path / "lock"):
            record = job(config, tmp_path)()
        assert record == Record() and not (tmp_path / "said.jsonl").exists()

    def test_ends_its_process_when_stopped(self, config, tmp_path, monkeypatch):
        sleeper = tmp_path / "sleeper"
        sleeper.write_text("#!/bin/sh\nexec sleep 60\n")
        sleeper.chmod(0o755)
        monkeypatch.setattr("sys.executable", str(sleeper))
        stop = threading.Event()
        thread = threading.Thread(target=Job(Plan([config]), Run("seed=0", {}, 0, []), tmp_path / "run", stop=stop))
        thread.start()
        while not (tmp_path / "run" / "run.log").exists():
            time.sleep(0.05)
        assert read_record(tmp_path / "run").status == "running"
        stop.set()
        thread.join(timeout=10)
        assert not thread.is_alive() and read_record(tmp_path / "run").status == "waiting"

    @pytest.mark.parametrize("words", ["error: /tmp/x: No space left on device", "no metrics"])
    def test_a_full_disk_is_not_the_runs_fault(self, config, tmp_path, monkeypatch, words):
        if words == "no metrics":
            monkeypatch.setattr("attention_zoo.sweeps.job.LEAST_SPACE", 2**80)
        stopped = job(config, tmp_path, 0, words)
        with pytest.raises(DiskFull, match="no space left on the disk of .*free some and start the same command"):
            stopped()
        assert read_record(tmp_path).status == "waiting" and list(read_record(tmp_path).parts) == ["fit"]
        monkeypatch.undo()
        assert stopped().status == "done" and stopped.commands[0][0] == "fit"

    def test_a_file_that_cannot_be_written_stays_as_it_was(self, config, tmp_path, monkeypatch):
        def full(path, *args, **kwargs):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

        job(config, tmp_path)()
        before = (tmp_path / "run.json").read_text()
        monkeypatch.setattr("pathlib.Path.replace", full)
        with pytest.raises(InputError, match="run.json: No space left on device; finished runs are kept.*same command"):
            write(tmp_path / "run.json", "{}")
        assert (tmp_path / "run.json").read_text() == before


class Played(Local):
    """Runs scripted jobs on this machine."""

    def submit(self, job):
        return super().submit(Scripted(**{part.name: getattr(job, part.name) for part in fields(Job)}))


def sweep(config, out, script=None, workers=2, **options):
    plan = Plan([config], {"mixer": {"A": {"x": 1}, "B": {"x": 2}}}, seeds=[0, 1], options={"script": script or {}})
    console = Console(file=io.StringIO(), width=200)
    found = carry_out(plan, out, Played(workers), workers=workers, console=console, **options)
    return found, console.file.getvalue()


class TestDriver:
    def test_all_runs_are_done(self, config, tmp_path):
        found, said = sweep(config, tmp_path / "out")
        assert [row.record.status for row in found] == ["done"] * 4
        assert [driver.flat_metrics(row.record) for row in found] == [
            {"test/accuracy": accuracy} for accuracy in (0.5, 0.5, 0.6, 0.6)
        ]
        assert "mixer=B,seed=1: done" in said
        assert sweep(config, tmp_path / "out")[0] == found

    def test_a_failure_stops_no_other(self, config, tmp_path):
        found, said = sweep(config, tmp_path / "out", {"mixer=A,seed=0": ["error: no"]})
        assert [row.record.status for row in found] == ["failed"] + ["done"] * 3
        assert "mixer=A,seed=0: failed: no" in said

    def test_a_full_disk_ends_it(self, config, tmp_path):
        script = {"mixer=A,seed=0": ["error: run.log: No space left on device"]}
        with pytest.raises(InputError, match="no space left on the disk of"):
            sweep(config, tmp_path / "out", script, workers=1)
        assert sorted(path.name for path in (tmp_path / "out" / "runs").iterdir()) == ["mixer=A,seed=0"]

    def test_out_of_time_the_rest_waits(self, config, tmp_path):
        found, _ = sweep(config, tmp_path / "out", hours=0.0)
        assert {row.record.status for row in found} == {"waiting"}

    def test_of_a_seed_the_longest_runs_come_first(self, config, tmp_path):
        out = tmp_path / "out"
        sweep(config, out, workers=1)
        for name, seconds in (("A", 10.0), ("B", 100.0)):
            record = read_record(out / "runs" / f"mixer={name},seed=0")
            record.parts["fit"] = seconds
            write(out / "runs" / f"mixer={name},seed=0" / "run.json", json.dumps(asdict(record)))
            write(out / "runs" / f"mixer={name},seed=1" / "run.json", json.dumps({"begun": 4.0}))
        known = read_record(out / "runs" / "mixer=A,seed=0").parts["test"]
        left = driver.seconds_left(driver.rows(read_plan(out), out))
        assert left == {"mixer=A,seed=1": pytest.approx(6 + known, abs=1), "mixer=B,seed=1": pytest.approx(96, abs=1)}
        _, said = sweep(config, out, workers=1)
        ended = [line.split(":")[0] for line in said.splitlines() if "seed=1: done" in line]
        assert ended == ["mixer=B,seed=1", "mixer=A,seed=1"]

    def test_as_long_as_none_is_done_runs_go_in_order(self, config, tmp_path):
        _, said = sweep(config, tmp_path / "out", workers=1)
        ended = [line.split(":")[0] for line in said.splitlines() if line.endswith(": done")]
        assert ended == [f"mixer={name},seed={seed}" for seed in (0, 1) for name in "AB"]

    def test_a_second_one_in_the_folder_is_refused(self, config, tmp_path):
        with held(tmp_path / "out" / "lock"), pytest.raises(InputError, match="another sweep is at work in"):
            sweep(config, tmp_path / "out")

    def test_waits_for_a_run_that_another_process_has_in_hand(self, config, tmp_path):
        sweep(config, tmp_path / "out", hours=0.0)
        folder = tmp_path / "out" / "runs" / "mixer=A,seed=0"
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"status": "running"}))
        with held(folder / "lock"):
            thread = threading.Thread(target=sweep, args=(config, tmp_path / "out"))
            thread.start()
            time.sleep(1.5)
            assert thread.is_alive() and not (folder / "said.jsonl").exists()
        thread.join(timeout=20)
        assert read_record(folder).status == "done"

    def test_the_table_has_the_runs_own_numbers(self, config, tmp_path):
        found, said = sweep(config, tmp_path / "out")
        console = Console(file=io.StringIO(), width=200)
        console.print(driver.table(read_plan(tmp_path / "out"), found))
        shown = console.file.getvalue()
        assert "4 of 4 runs done" in shown and shown.count("0.6") == 2


class TestSubmitit:
    def test_its_local_mode(self, config, tmp_path):
        plan = Plan([config], {"optimiser": {"A": {"optimiser": 1}}})
        engine = Submitit(tmp_path / "out" / ENGINE, "local", {"timeout_min": 5})
        plan.keep(tmp_path / "out")  # the engine's folder is in that of the sweep
        handle = engine.submit(Job(plan, plan.all_runs()[0], tmp_path / "run"))
        assert handle.result() == read_record(tmp_path / "run")
        assert handle.result().status == "failed" and "optimiser" in handle.result().reason

    def test_bad_parameters(self, tmp_path):
        with pytest.raises(InputError, match="submitit: .*partition_of_slurm"):
            Submitit(tmp_path / "engine", "local", {"partition_of_slurm": "x"})
        with pytest.raises(InputError, match="submitit: .*sun"):
            Submitit(tmp_path / "engine", "sun", {})
