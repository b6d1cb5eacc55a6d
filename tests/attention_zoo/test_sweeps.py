"""Which runs a sweep makes, and what becomes of a run whatever happens to it."""

import errno
import io
import json
import os
import threading
import time
import unicodedata
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from submitit.core.utils import FailedJobError, UncompletedJobError

from attention_zoo.errors import InputError
from attention_zoo.runs.checkpoint import CONFIG
from attention_zoo.sweeps import Job, Plan, carry_out, driver
from attention_zoo.sweeps.engines import Local, Submitit, Submitted
from attention_zoo.sweeps.gpus import visible_gpus
from attention_zoo.sweeps.job import DiskFull, Record, held, read_record
from attention_zoo.sweeps.plan import ENGINE, Run, read_plan, told_apart, write
from attention_zoo.sweeps.queue import Queue


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
        more = {"test": {}, "noise": {"x": 1}}
        Plan([config], {"a": [1, 2]}, evaluations=more).keep(tmp_path / "out")
        assert read_plan(tmp_path / "out").evaluations == more
        for other in ({"test": {}}, {**more, "noise": {"x": 2}}):
            with pytest.raises(InputError, match="holds a sweep with other evaluations"):
                Plan([config], {"a": [1, 2]}, evaluations=other).keep(tmp_path / "out")

    def test_an_evaluation_may_leave_runs_out(self, config, tmp_path):
        axes = {"a": [1, 2], "b": {"x": {"k": 1}, "y": {"k": 2}}}

        def followed(**left_out):
            plan = Plan([config], axes, evaluations={"test": {}, "control": {"c": 3, "except": left_out}})
            assert plan.evaluation("control") == ["--c", "3"]
            plan.keep(tmp_path / "out")  # of what was measured nothing is lost
            assert read_plan(tmp_path / "out") == plan
            return ["".join(map(str, run.values.values())) for run in plan.all_runs() if plan.follows("control", run)]

        assert followed(a=1) == ["2x", "2y"]
        assert followed(b=["x"]) == ["1y", "2y"]
        assert followed(a=[1, 2], b="y") == ["1x", "2x"]
        with pytest.raises(InputError, match="holds a sweep with other evaluations"):
            Plan([config], axes, evaluations={"test": {}, "control": {"c": 4}}).keep(tmp_path / "out")
        runs = Plan([config], runs={"p": {}, "q": {}}, evaluations={"test": {"except": {"run": "p"}}})
        assert [runs.evaluations_of(run) for run in runs.all_runs()] == [[], ["test"]]

    @pytest.mark.parametrize(
        ("left_out", "message"),
        [
            (None, "except must be AXIS: LABEL or AXIS: .LABELS., got None"),
            ({}, "except of evaluation 'test' names no axis"),
            ({"a": []}, "except must be AXIS: LABEL"),
            ({"aa": 1}, "unknown axis of except of evaluation 'test' 'aa'; did you mean 'a'"),
            ({"a": [1, 3]}, "unknown a of except of evaluation 'test' '3'"),
            ({"a": [1, 2]}, "evaluation 'test' follows no run: except names them all"),
            ({"r": 1}, "except cannot name values of r, which are drawn at random"),
        ],
    )
    def test_runs_that_cannot_be_left_out(self, config, left_out, message):
        axes = {"a": [1, 2], "r": {"integers": [1, 9]}}
        with pytest.raises(InputError, match=message):
            Plan([config], axes, draws=4, evaluations={"test": {"except": left_out}})

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


class TestNames:
    """No two runs share a folder, on any file system, and no label is shown in two meanings."""

    @pytest.mark.parametrize(
        "values",
        [
            ["a/b", "a-b"],
            ["a b", "ab", "a  b"],
            ["VarsD", "varsd", "VARSD"],
            ["caf\u00e9", "cafe\u0301", "CAFE\u0301"],
            ["stra\u00dfe", "STRASSE"],
            [[8, 8], "[8,8]", "[8, 8 ]"],
            ["x" * 300, "x" * 301, "\u00e9" * 150],
        ],
    )
    def test_labels_that_look_alike_have_folders_of_their_own(self, config, values):
        runs = Plan([config], {"model.x": values}, seeds=[0, 1]).all_runs()
        names = [unicodedata.normalize("NFKC", run.name).casefold() for run in runs]
        assert len(set(names)) == len(names) == 2 * len(values)
        assert all(len(name.encode()) <= 250 and "/" not in name for name in names)
        assert [run.arguments[-1] for run in runs] == [str(value) for value in values] * 2
        if len(values[0]) < 250:
            assert not any("~" in run.name for run in runs if run.values["model.x"] is values[0])  # as it always was

    def test_labels_across_axes(self, config):
        axes = {"a": {"x,b=y": {"p": 1}, "x": {"p": 2}}, "b": {"z": {"q": 1}, "y,b=z": {"q": 2}}}
        runs = Plan([config], axes).all_runs()
        assert len({run.name for run in runs}) == 4

    @pytest.mark.parametrize(
        "axis, one, other",
        [
            ([1, "1"], "1", "'1'"),
            ([1, True, 1.0], "1", "True"),
            ([0, False], "0", "False"),
            ([None, "None"], "None", "'None'"),
            ({1: {"x": 1}, "1": {"x": 2}}, "1", "'1'"),
            ([[1, 2], "[1, 2]"], r"'\[1, 2\]'", "twice"),
            ([0.5, 0.5], "0.5", "twice"),
            ([{"a.k": 1}, {"a.k": 1}], "'k=1'", "twice"),
        ],
    )
    def test_labels_that_no_table_tells_apart_are_refused(self, config, axis, one, other):
        with pytest.raises(InputError, match=f"axis 'm'.*{one}.*{other}"):
            Plan([config], {"m": axis})

    def test_files_and_options_of_one_name_are_called_in_full(self, config, tmp_path):
        (tmp_path / "other").mkdir()
        other = tmp_path / "other" / "recipe.yaml"
        other.write_text("trainer: {}")
        plan = Plan([config], {"m": [config, str(other)], "n": [{"a.k": 1}, {"b.k": 1}, {"a.l": 2}]})
        assert plan.labels("m") == [config, str(other)] and plan.labels("n") == ["a.k=1", "b.k=1", "l=2"]
        assert len({run.name for run in plan.all_runs()}) == 6

    def test_lists_are_values(self, config, tmp_path):
        plan = Plan([config], {"data.img_size": [[8, 8], [16, 16]]}, baseline={"data.img_size": [8, 8]})
        first, second = plan.all_runs()
        assert first.values == {"data.img_size": "[8, 8]"} and first.name == "img_size=[8,8],seed=0"
        assert second.arguments[-2:] == ["--data.img_size", "[16, 16]"]
        plan.keep(tmp_path / "out")
        assert read_plan(tmp_path / "out").all_runs() == plan.all_runs()

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.text(max_size=12), min_size=1, max_size=6))
    def test_any_labels_are_told_apart_or_refused(self, tmp_path_factory, labels):
        folder = tmp_path_factory.mktemp("plan")
        (folder / "c.yaml").write_text("{}")
        try:
            runs = Plan([str(folder / "c.yaml")], {"m": {label: {"x": place} for place, label in enumerate(labels)}})
        except InputError as error:
            assert "\n" not in str(error)
            return
        for run in runs.all_runs():
            (folder / run.name).mkdir()  # a name of a folder, and of no other run
            assert (folder / run.name).parent.samefile(folder)


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["mixer=VarsD,seed=0", "mixer=VarsS,seed=0"], ["VarsD", "VarsS"]),
        (["mixer=VarsD,seed=0", "mixer=VarsS,seed=1"], ["mixer=VarsD,seed=0", "mixer=VarsS,seed=1"]),
        (["a=1,b=2,seed=0", "a=1,b=3,seed=1"], ["b=2,seed=0", "b=3,seed=1"]),
        (["mixer=VarsD,seed=0", "run"], ["mixer=VarsD,seed=0", "run"]),
        (["mixer=VarsD,seed=0", "mixer=VarsS"], ["mixer=VarsD,seed=0", "mixer=VarsS"]),
        (["mixer=VarsD,seed=0", "steps=3,seed=0"], ["mixer=VarsD,seed=0", "steps=3,seed=0"]),
        (["seed=0", "seed=0"], ["seed=0", "seed=0"]),
        (["mixer=VarsD,seed=0"], ["mixer=VarsD,seed=0"]),
        (["one", "two"], ["one", "two"]),
    ],
)
def test_runs_are_told_apart(names, short):
    assert told_apart(names) == short


class TestRefused:
    @pytest.mark.parametrize(
        "wrong, message",
        [
            ({"evaluations": {"fit": {}}}, "'fit' is the training"),
            ({"evaluations": {"a/b": {}}}, "'a/b' is no name of an evaluation"),
            ({"evaluations": {"t": 3}}, "'t' of evaluations must be a mapping"),
            ({"evaluations": {"t": {"ckpt_path": "other.ckpt"}}}, "ckpt_path is last or best"),
            ({"evaluations": {"t": {"trainer.default_root_dir": "x"}}}, "sets trainer.default_root_dir"),
            ({"axes": {"seed_everything": [1, 2]}}, "axis 'seed_everything' sets seed_everything"),
            ({"axes": {"a": {"x": {"ckpt_path": "y"}}}}, "axis 'a' sets ckpt_path"),
            ({"axes": {"a": [{"trainer": {"default_root_dir": "y"}}]}}, "axis 'a' sets trainer.default_root_dir"),
            ({"runs": {"a": {"seed_everything": 3}}}, "run 'a' sets seed_everything"),
            ({"options": {"seed_everything": 3}}, "options sets seed_everything"),
            ({"axes": {"model.lr": [1]}, "options": {"model.lr": 2}}, "options both set model.lr"),
            ({"axes": {"model.lr": [1]}, "options": {"model": {"init_args": {"lr": 2}}}}, "both set model.lr"),
            ({"axes": {"a": {"x": {"k.l": 1}}, "b": {"y": {"k.l": 2}}}}, "axis 'b' .y. and axis 'a' .x. both set k.l"),
            ({"axes": {"model.mixer.steps": [1, 2], "model.mixer": ["A", "B"]}}, "sets model.mixer anew"),
            ({"axes": {"a": [[float("nan")]]}}, "nan is no value"),
            ({"axes": {"a": [10**400]}}, "integer of 1329 bits is too large"),
            ({"axes": {"a": [""]}}, "'' is no label"),
            ({"axes": {"a": ["x\ny"]}}, r"'x\\ny' is no label"),
            ({"axes": {"a": [{"--model.lr": 1}]}}, "'--model.lr' is no option"),
            ({"axes": {"a": [{"model.-lr": 1}]}}, "'model.-lr' is no option"),
            ({"axes": {"a": [{"model..lr": 1}]}}, "'model..lr' is no option"),
            ({"axes": {"a": [{"0.lr": 1}]}}, "'0.lr' is no option"),
            ({"axes": {"a": [{"print_config": True}]}}, "print_config is for the command line"),
            ({"axes": {"a": [{"config": ["x.yaml"]}]}}, "config must name one file"),
            ({"seeds": [-1]}, "a seed must be a whole number from 0"),
            ({"seeds": [True]}, "got True"),
            ({"seeds": [2**32]}, "from 0 to 4,294,967,295"),
            ({"seeds": [10**5000]}, "a number of 16610 bits"),
            ({"seeds": 3}, "seeds must be different numbers"),
            ({"draws": True}, "draws must be a whole number"),
            ({"draws": 10**9}, "1000000000 runs; at most 10,000"),
            ({"axes": {"a": list(range(200)), "b": list(range(200))}}, "40000 runs; at most"),
            ({"baseline": {}}, "the baseline names no axis"),
            ({"collect": "test/loss"}, "collect must be a list"),
        ],
    )
    def test_what_makes_no_sweep(self, config, wrong, message):
        with pytest.raises(InputError, match=message) as raised:
            Plan([config], **wrong)
        assert "\n" not in str(raised.value) and len(str(raised.value)) < 400

    @pytest.mark.parametrize("kind", ["uniform", "log_uniform", "integers"])
    @pytest.mark.parametrize(
        "ends",
        [
            None,
            3,
            [],
            [1],
            [1, 2, 0],
            [2, 1],
            [1, 1],
            ["1", "2"],
            [None, 1],
            [1, float("inf")],
            [float("nan"), 1],
            [True, 2],
            [10**400, 10**401],
            [[1], [2]],
            {"least": 1, "largest": 2},
        ],
        ids=str,
    )
    def test_ranges_that_are_none(self, config, kind, ends):
        with pytest.raises(InputError, match="sweep: axis 'a'"):
            Plan([config], {"a": {kind: ends}}, draws=3).all_runs()

    @pytest.mark.parametrize(
        "axis, message",
        [
            ({"log_unifrom": [0.1, 1]}, "did you mean 'log_uniform'"),
            ({"log_uniform": [0, 1]}, "both above 0"),
            ({"integers": [1.0, 2.0]}, "whole numbers"),
            ({"uniform": [-1e308, 1e308]}, "in this order"),
            ({"uniform": [0, 1], "integers": [1, 2]}, "a range stands alone"),
        ],
    )
    def test_what_is_nearly_a_range(self, config, axis, message):
        with pytest.raises(InputError, match=message):
            Plan([config], {"a": axis}, draws=3)

    def test_files_of_axes(self, config, tmp_path):
        seeded, broken = tmp_path / "seeded.yaml", tmp_path / "broken.yaml"
        seeded.write_text("seed_everything: 3\ntrainer: {default_root_dir: null}\nmodel: {init_args: {lr: 2}}")
        broken.write_text("a: [")
        with pytest.raises(InputError, match="axis 'm' sets seed_everything"):
            Plan([config], {"m": [str(seeded)]})
        with pytest.raises(InputError, match="broken.yaml is no YAML"):
            Plan([config], {"m": [str(broken)]})
        seeded.write_text("seed_everything: null\nmodel: {init_args: {lr: 2}}")
        with pytest.raises(InputError, match="both set model.lr"):
            Plan([config], {"m": [str(seeded)]}, options={"model.lr": 1})
        Plan([config], {"m": [str(seeded)]}, options={"model.lr": 2})  # the same twice is no contradiction

    def test_an_axis_of_an_option_beats_the_labels_before_it(self, config):
        axes = {"mixer": {"B": {"model.mixer": "B", "model.mixer.steps": 5}}, "model.mixer.steps": [1, 2]}
        assert [run.arguments[-1] for run in Plan([config], axes).all_runs()] == ["1", "2"]

    def test_a_draw_stays_in_its_range(self, config):
        runs = Plan([config], {"a": {"uniform": [1.00001, 1.00002]}}, draws=3).all_runs()
        assert all(1.00001 <= run.values["a"] <= 1.00002 for run in runs)

    @pytest.mark.parametrize(
        "text",
        ["", "[1]", "x", "a: [", "axes: {}", "configs: 3", "configs: [c]\nseedz: [1]", "configs: [c]\nseeds: [x]"],
    )
    def test_another_file_in_the_place_of_the_plan(self, tmp_path, text):
        (tmp_path / "sweep.yaml").write_text(text)
        with pytest.raises(InputError, match="sweep.yaml"):
            read_plan(tmp_path)

    def test_a_plan_is_read_where_its_configs_are_gone(self, config, tmp_path):
        Plan([config], {"a": [config]}).keep(tmp_path / "out")
        Path(config).unlink()
        assert read_plan(tmp_path / "out").configs == [config]


def test_one_of_many_holds_a_lock(tmp_path):
    barrier, got = threading.Barrier(8), []

    def race():
        barrier.wait()
        with held(tmp_path / "out" / "lock") as lock:
            got.append(lock is not None)
            barrier.wait()

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert sorted(got) == [False] * 7 + [True]


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_no_lock_where_something_else_has_its_name(tmp_path, kind):
    path, target = tmp_path / "lock", tmp_path / "precious"
    {"link": lambda: path.symlink_to(target), "folder": path.mkdir, "pipe": lambda: os.mkfifo(path)}[kind]()
    with pytest.raises(InputError, match="cannot lock .*lock"), held(path):
        pass
    assert not target.exists()


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

    def test_a_finished_run_gets_the_evaluations_that_are_new(self, config, tmp_path):
        before = job(config, tmp_path)
        before()
        plan = replace(before.plan, evaluations={**before.plan.evaluations, "attacks": {"y": 2}})
        more = replace(before, plan=plan)
        assert list(more().metrics) == ["test", "noise", "attacks"]
        assert [command[0] for command in more.commands] == ["fit", "test", "test", "test"]
        assert more().status == "done" and len(more.commands) == 4

    def test_an_evaluation_that_leaves_the_run_out_is_not_missed(self, config, tmp_path):
        one = job(config, tmp_path)
        evaluations = {"test": {}, "control": {"except": {"mixer": "A"}}}
        plan = Plan([config], {"mixer": ["A", "B"]}, options=one.plan.options, evaluations=evaluations)
        first = replace(one, plan=plan, run=plan.all_runs()[0])
        assert list(first().parts) == ["fit", "test"] and first().status == "done" and len(first.commands) == 2
        second = replace(first, run=plan.all_runs()[1], folder=tmp_path / "second")
        assert list(second().parts) == ["fit", "test", "control"]

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

    def test_kills_of_one_part_are_not_counted_against_another(self, config, tmp_path):
        record = job(config, tmp_path, -9, -9, 0, -9, -9)()
        assert record.status == "done" and (record.kills, record.part_kills) == (4, 0)

    def test_a_run_that_is_tried_again_has_all_its_attempts(self, config, tmp_path):
        assert job(config, tmp_path, *[-9] * 5)().status == "failed"
        record = job(config, tmp_path, *[-9] * 5, retry=True)()
        assert record.status == "done" and record.kills == 5

    def test_a_failure_is_kept_with_its_reason(self, config, tmp_path):
        failed = job(config, tmp_path, "error: model.mixer: unknown mixer 'VarzD'")
        assert failed().reason == "model.mixer: unknown mixer 'VarzD'"
        assert failed().status == "failed" and len(failed.commands) == 1

    def test_a_failure_can_be_tried_again(self, config, tmp_path):
        job(config, tmp_path, "RuntimeError: out of memory")()
        assert read_record(tmp_path).reason == "RuntimeError: out of memory"
        assert job(config, tmp_path, "", retry=True)().status == "done"

    @pytest.mark.parametrize("code", [130, 143])
    def test_interrupted_with_the_sweep_it_waits(self, config, tmp_path, code):
        stop = threading.Event()
        stop.set()
        interrupted = job(config, tmp_path, 0, code, stop=stop)
        assert interrupted().status == "waiting" and list(read_record(tmp_path).parts) == ["fit"]
        before = read_record(tmp_path)
        assert before.begun > 0
        (tmp_path / "run.json").write_text(json.dumps(asdict(before) | {"begun": 1000.0}))
        after = interrupted()
        assert after.status == "done" and after.begun == 0
        assert after.parts["test"] >= 1000 and after.parts["noise"] < 1000
        assert [command[0] for command in interrupted.commands] == ["fit", "test", "test", "test"]

    @pytest.mark.parametrize("code", [130, 143])
    def test_interrupted_alone_it_goes_on_at_once(self, config, tmp_path, code):
        interrupted = job(config, tmp_path, 0, code, stop=threading.Event())
        record = interrupted()
        assert record.status == "done" and record.kills == 1
        assert [command[0] for command in interrupted.commands] == ["fit", "test", "test", "test"]

    def test_the_stop_of_a_sweep_may_come_after_that_of_its_commands(self, config, tmp_path, monkeypatch):
        monkeypatch.setattr("attention_zoo.sweeps.job.PAUSE", 1.0)
        stop = threading.Event()
        threading.Timer(0.3, stop.set).start()
        record = job(config, tmp_path, 143, stop=stop)()
        assert record.status == "waiting" and record.kills == 0

    def test_interrupted_on_a_cluster_it_is_handed_back(self, config, tmp_path):
        interrupted = job(config, tmp_path, 0, 143)
        record = interrupted()
        assert record == read_record(tmp_path) and record.status == "running" and record.kills == 1
        assert interrupted().status == "done"
        assert [command[0] for command in interrupted.commands] == ["fit", "test", "test", "test"]

    def test_interrupted_alone_again_and_again_it_fails(self, config, tmp_path):
        record = job(config, tmp_path, 143, -9, 143, stop=threading.Event())()
        assert record.status == "failed" and record.reason == "fit was stopped from outside 3 times (SIGTERM)"

    def test_what_cannot_be_locked_has_failed(self, config, tmp_path):
        (tmp_path / "lock").mkdir()
        record = job(config, tmp_path)()
        assert record.status == "failed" and "cannot lock" in record.reason
        assert Submitted(job(config, tmp_path), Gone()).result() == record
        (tmp_path / "lock").rmdir()
        assert job(config, tmp_path)().status == "done"

    def test_a_log_that_cannot_be_written_is_the_runs_failure(self, config, tmp_path):
        (tmp_path / "run.log").mkdir()
        record = Job(Plan([config]), Run("seed=0", {}, 0, []), tmp_path)()
        assert record.status == "failed" and "run.log" in record.reason and read_record(tmp_path) == record

    def test_a_record_that_cannot_be_written_is_the_runs_failure(self, config, tmp_path, monkeypatch):
        def denied(path, text):
            raise InputError(f"cannot write {path}: Permission denied")

        monkeypatch.setattr("attention_zoo.sweeps.job.write", denied)
        record = job(config, tmp_path)()
        assert record.status == "failed" and "run.json: Permission denied" in record.reason

    def test_a_record_that_a_full_disk_does_not_take_is_not(self, config, tmp_path, monkeypatch):
        def full(path, *args, **kwargs):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

        monkeypatch.setattr("pathlib.Path.replace", full)
        with pytest.raises(DiskFull):
            job(config, tmp_path)()

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


BROKEN = {
    "cut": b'{"status": "do',
    "empty": b"",
    "a list": b"[1, 2]",
    "binary": bytes(range(256)),
    "nan": b'{"status": "done", "parts": {"fit": NaN}}',
    "a list of metrics": b'{"status": "done", "parts": {}, "metrics": [0.5]}',
    "words for numbers": b'{"status": "done", "metrics": {"test": {"test/accuracy": "0.5"}}}',
    "another state": b'{"status": "finished"}',
    "other keys": b'{"epoch": 3}',
    "a key twice": b'{"status": "done", "status": "failed"}',
    "nested": b"[" * 5000,
}


class TestQueue:
    def test_one_that_comes_back_waits_longer_each_time(self, config, tmp_path, monkeypatch):
        now = [0.0]
        monkeypatch.setattr("attention_zoo.sweeps.queue.time.monotonic", lambda: now[0])
        one, other = (replace(job(config, tmp_path), run=Run(name, {}, 0, [])) for name in ("one", "other"))
        queue = Queue([one, other], (30.0, 100.0))
        assert queue.take() is one
        queue.put_back(one)
        assert queue.take() is other and queue.take() is None and len(queue) == 1
        waits = []
        for _ in range(4):
            before = now[0]
            while (taken := queue.take()) is None:
                now[0] += 1
            waits.append(now[0] - before)
            queue.put_back(taken)
        assert waits == [30, 60, 100, 100]


class TestGPUs:
    """Which GPUs the commands of a local sweep see."""

    @pytest.fixture
    def seen(self, config, tmp_path, monkeypatch):
        """The values of CUDA_VISIBLE_DEVICES that the commands of as many runs as workers get."""
        say = tmp_path / "say"
        say.write_text('#!/bin/sh\nsleep 0.5\necho "error: sees <${CUDA_VISIBLE_DEVICES-all}>"\nexit 2\n')
        say.chmod(0o755)

        def run(count, workers, named=None):
            monkeypatch.setattr("torch.cuda.device_count", lambda: count)
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
            if named is not None:
                monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
            plan = Plan([config], seeds=list(range(workers)))
            with monkeypatch.context() as patched:
                patched.setattr("sys.executable", str(say))
                console = Console(file=io.StringIO(), width=200)
                found = carry_out(plan, tmp_path / "out", Local(workers), workers=workers, console=console)
            return sorted(row.record.reason.removeprefix("sees <").removesuffix(">") for row in found)

        return run

    def test_each_worker_has_its_own(self, seen):
        assert seen(8, 4) == ["0,1", "2,3", "4,5", "6,7"]

    def test_all_have_the_same_number(self, seen):
        assert seen(8, 3) == ["0,1", "2,3", "4,5"]

    def test_more_workers_than_gpus_take_turns(self, seen):
        assert seen(2, 5) == ["0", "0", "0", "1", "1"]

    def test_of_those_that_are_named(self, seen):
        assert seen(3, 3, "5, GPU-1a2b,MIG-3c") == ["5", "GPU-1a2b", "MIG-3c"]

    @pytest.mark.parametrize(("named", "kept"), [(None, "all"), ("", ""), ("-1", "-1")])
    def test_without_any_nothing_is_set(self, seen, named, kept):
        assert seen(0, 2, named) == [kept] * 2

    def test_cuda_is_not_initialised(self):
        visible_gpus()
        assert not torch.cuda.is_initialized()


class TestBrokenFiles:
    @pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
    def test_a_record_that_cannot_be_read_is_put_aside(self, config, tmp_path, content):
        (tmp_path / "run.json").write_bytes(content)
        with pytest.raises(InputError, match="run.json"):
            read_record(tmp_path)
        assert job(config, tmp_path)().status == "done"
        assert (tmp_path / "run.json.unreadable").read_bytes() == content
        assert "it is now run.json.unreadable" in (tmp_path / "run.log").read_text()

    @pytest.mark.parametrize("name", ["run.json", "metrics.jsonl"])
    @pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
    def test_something_else_of_that_name(self, config, tmp_path, name, make):
        make(tmp_path / name)
        record = job(config, tmp_path)()
        assert record.status == "done" and record.metrics["test"] == {"test/accuracy": 0.5}

    @pytest.mark.parametrize("content", [b"\x00\xff\n\n{}", b'{"stage": "val\n{"stage": 3}\n', b"[1]\n[2]\n"])
    def test_a_log_that_cannot_be_read_is_put_aside(self, config, tmp_path, content):
        (tmp_path / "metrics.jsonl").write_bytes(content)
        assert job(config, tmp_path)().metrics["noise"] == {"test/accuracy": 0.5}
        assert (tmp_path / "metrics.jsonl.unreadable").read_bytes() == content

    @pytest.mark.parametrize("name", ["run.log", "checkpoints", "hparams.yaml"])
    @pytest.mark.parametrize("record", [None, "no record"])
    def test_writes_and_clears_nothing_behind_a_link(self, config, tmp_path, name, record):
        folder, precious = tmp_path / "run", tmp_path / "precious"
        folder.mkdir()
        precious.mkdir()
        (precious / "photo").write_text("precious")
        (folder / name).symlink_to(precious / "photo" if "." in name else precious)
        if record:
            (folder / "run.json").write_text(record)
        done = job(config, folder)()
        assert done.status == "failed" and f"{name} is a link" in done.reason
        assert [path.read_text() for path in precious.iterdir()] == ["precious"]
        (folder / name).unlink()
        assert job(config, folder, retry=True)().status == "done"

    @pytest.mark.parametrize("place", ["runs", "runs/mixer=A,seed=0"])
    def test_no_run_of_a_sweep_is_elsewhere(self, config, tmp_path, place):
        out, precious = tmp_path / "out", tmp_path / "precious"
        sweep(config, out)
        (out / place).rename(tmp_path / "before")
        precious.mkdir()
        (out / place).symlink_to(precious)
        with pytest.raises(InputError, match="is a link"):
            sweep(config, out)
        assert not list(precious.iterdir())

    def test_a_folder_that_cannot_be_searched(self, config, tmp_path, monkeypatch):
        def denied(path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

        monkeypatch.setattr("pathlib.Path.is_symlink", denied)
        row = driver.rows(Plan([config]), tmp_path)[0]
        assert row.record == Record() and row.epoch is None
        assert "run.json: Permission denied" in row.problem and "metrics.jsonl: Permission denied" in row.problem
        record = job(config, tmp_path)()
        assert record.status == "failed" and "Permission denied" in record.reason

    def test_the_table_goes_on_without_them_and_says_so_once(self, config, tmp_path, capsys):
        out = tmp_path / "out"
        sweep(config, out)
        for name, broken in (("A,seed=0", "run.json"), ("B,seed=1", "metrics.jsonl")):
            (out / "runs" / f"mixer={name}" / broken).write_bytes(b"\xff\xff\n\xff")
        capsys.readouterr()
        found, _ = sweep(config, out)
        assert [row.record.status for row in found] == ["done"] * 4
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: left out: ")]
        assert [sum(name in line for line in lines) for name in ("run.json", "metrics.jsonl")] == [1, 1]


class Played(Local):
    """Runs scripted jobs on this machine."""

    def submit(self, job):
        return super().submit(Scripted(**{part.name: getattr(job, part.name) for part in fields(Job)}))


class Drained(Played):
    """Runs scripted jobs that do not know of the sweep's stop, as those of a cluster."""

    def submit(self, job):
        return super().submit(replace(job, stop=None))


def sweep(config, out, script=None, workers=2, engine=Played, **options):
    plan = Plan([config], {"mixer": {"A": {"x": 1}, "B": {"x": 2}}}, seeds=[0, 1], options={"script": script or {}})
    console = Console(file=io.StringIO(), width=200)
    found = carry_out(plan, out, engine(workers), workers=workers, console=console, **options)
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

    def test_a_folder_that_cannot_be_locked_stops_no_other(self, config, tmp_path):
        sweep(config, tmp_path / "out", hours=0.0)
        (tmp_path / "out" / "runs" / "mixer=A,seed=0" / "lock").mkdir(parents=True)
        found, said = sweep(config, tmp_path / "out")
        assert [row.record.status for row in found] == ["failed"] + ["done"] * 3
        assert "cannot lock" in found[0].record.reason and "mixer=A,seed=0: failed: cannot lock" in said

    def test_what_was_stopped_from_outside_is_taken_up_again(self, config, tmp_path):
        found, _ = sweep(config, tmp_path / "out", {"mixer=A,seed=0": [143], "mixer=B,seed=1": [0, 130]})
        assert [(row.record.status, row.record.kills) for row in found] == [
            ("done", 1),
            ("done", 0),
            ("done", 0),
            ("done", 1),
        ]

    def test_what_a_cluster_drained_is_submitted_again(self, config, tmp_path):
        found, _ = sweep(config, tmp_path / "out", {"mixer=A,seed=0": [143, 143]}, engine=Drained)
        assert [(row.record.status, row.record.kills) for row in found] == [("done", 2), *[("done", 0)] * 3]

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
        sweep(config, out, workers=1)
        ended = {name: (out / "runs" / f"mixer={name},seed=1" / "run.json").stat().st_mtime_ns for name in "AB"}
        assert ended["B"] < ended["A"]

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

    def test_labels_are_no_markup(self, config):
        plan = Plan([config], {"mixer": {"[red]x": {"x": 1}, "[/b]": {"x": 2}}})
        console = Console(file=io.StringIO(), width=200)
        console.print(driver.table(plan, [driver.Row(run, Record(), None) for run in plan.all_runs()]))
        assert "[red]x" in console.file.getvalue() and "[/b]" in console.file.getvalue()


class Gone:
    """What submitit has of a job that ended without a result."""

    def __init__(self, error=None):
        self.error = error or UncompletedJobError("no result file")

    def result(self):
        raise self.error


TRACE = """Job (task=0) failed during processing with trace:
----------------------
Traceback (most recent call last):
  File "submission.py", line 55, in process_job
    result = delayed.result()
{}

----------------------
You can check full logs with 'job.stderr(0)' and 'job.stdout(0)'or at paths:
  - engine/1_0_log.err
  - engine/1_0_log.out"""
"""What submitit says of a job that raised an error."""


class TestSubmitit:
    def test_its_local_mode(self, config, tmp_path):
        plan = Plan([config])
        engine = Submitit(tmp_path / "out" / ENGINE, "local", {"timeout_min": 5})
        plan.keep(tmp_path / "out")  # the engine's folder is in that of the sweep
        Path(config).unlink()  # its command fails before it has imported what takes seconds
        handle = engine.submit(Job(plan, plan.all_runs()[0], tmp_path / "run"))
        assert handle.result() == read_record(tmp_path / "run")
        assert handle.result().status == "failed"
        assert handle.result().reason.startswith(f"config {config} does not exist")

    def test_a_job_that_is_lost_is_started_again_and_fails_in_the_end(self, config, tmp_path):
        lost = job(config, tmp_path)
        (tmp_path / "run.json").write_text(json.dumps(asdict(Record("running", parts={"fit": 2.0}))))
        for kills in (1, 2):
            record = Submitted(lost, Gone()).result()
            assert (record.status, record.kills, record.part_kills) == ("running", kills, kills)
        assert read_record(tmp_path) == record
        assert job(config, tmp_path)().status == "done"  # it goes on with the evaluations
        assert [command[0] for command in lost.commands] == ["test", "test"]
        (tmp_path / "run.json").write_text(json.dumps(asdict(Record("running", part_kills=2))))
        record = Submitted(lost, Gone()).result()
        assert record.status == "failed" and record.reason.startswith("its job ended 3 times without a word")

    @pytest.mark.parametrize("status", ["done", "failed"])
    def test_one_that_is_lost_after_its_end_keeps_its_record(self, config, tmp_path, status):
        (tmp_path / "run.json").write_text(json.dumps(asdict(Record(status))))
        assert Submitted(job(config, tmp_path), Gone()).result() == Record(status)

    def test_nothing_is_counted_while_its_command_runs(self, config, tmp_path):
        (tmp_path / "run.json").write_text(json.dumps(asdict(Record("running"))))
        with held(tmp_path / "lock"):
            assert Submitted(job(config, tmp_path), Gone()).result() == Record("running")

    def test_a_full_disk_that_a_job_found_ends_the_sweep(self, config, tmp_path):
        wrong = Gone(FailedJobError(TRACE.format("attention_zoo.sweeps.job.DiskFull: no space left on the disk")))
        with pytest.raises(DiskFull, match="^no space left on the disk of"):
            Submitted(job(config, tmp_path), wrong).result()

    def test_any_other_error_of_a_job_is_the_runs_failure(self, config, tmp_path):
        (tmp_path / "run.json").write_text(json.dumps(asdict(Record("running", kills=2))))
        wrong = Gone(FailedJobError(TRACE.format("ModuleNotFoundError: No module named 'attention_zoo'")))
        record = Submitted(job(config, tmp_path), wrong).result()
        reason = "its job ended in ModuleNotFoundError: No module named 'attention_zoo'"
        assert record == Record("failed", reason, kills=2)

    def test_bad_parameters(self, tmp_path):
        with pytest.raises(InputError, match="submitit: .*partition_of_slurm"):
            Submitit(tmp_path / "engine", "local", {"partition_of_slurm": "x"})
        with pytest.raises(InputError, match="submitit: .*sun"):
            Submitit(tmp_path / "engine", "sun", {})
