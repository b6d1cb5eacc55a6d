"""Help that fits a screen says what is true, and comes without what takes seconds to import."""

import inspect
import os
import re
import shutil
import subprocess
import sys

import pytest

import attention_zoo as az
import datamodules
import tasks
from attention_zoo.cli import mixers as listing
from attention_zoo.cli.commands import tool
from attention_zoo.cli.overview import OPTIONS, PROGRAM, TOOLS, TRAINING, UNSAID
from attention_zoo.runs.shipped import shipped_configs
from attention_zoo.runs.trainer import L, Trainer
from datamodules.loading import DataModule
from datamodules.predictions import PredictionWriter
from tests.processes import ROOT

OF_CLASSES = {"trainer": [Trainer, L.Trainer], "prediction": [PredictionWriter]}
WHOLE = ("config", "print_config", "seed_everything", "ckpt_path", "data", "model", "trust_checkpoint")
LINES, COLUMNS = 40, 120


def parameters(owner):
    for base in owner.__mro__:
        yield from inspect.signature(base.__init__).parameters.values()


def owners(group):
    if group in OF_CLASSES:
        return OF_CLASSES[group]
    base = {"model": tasks.Task, "data": DataModule}[group]
    return [base, *(cls for cls in vars(tasks if group == "model" else datamodules).values() if inspect.isclass(cls))]


@pytest.mark.parametrize("command", [*TRAINING, *TOOLS])
def test_help_fits_a_screen_and_has_an_example(zoo, command):
    ended = zoo(command, "--help")
    assert ended.code == 0 and ended.err == ""
    lines = ended.out.splitlines()
    assert len(lines) <= LINES and max(map(len, lines)) <= COLUMNS
    assert f"example: {PROGRAM} {command} {({**TRAINING, **TOOLS})[command].example}" in lines
    assert all(name in shipped_configs() for name in re.findall(r"--config (\S+)", "".join(lines[-3:])))


@pytest.mark.parametrize("name", TOOLS)
def test_the_line_of_a_tool_is_that_of_its_docstring_and_its_options_are_all_there(zoo, name):
    assert TOOLS[name].line == tool(name).__doc__.strip().partition("\n")[0]
    out = zoo(name, "--help").out
    shown = {name.lower() for name in re.findall(r"^  (?:--)?(\w+) ", out, re.MULTILINE)}
    assert shown == set(inspect.signature(tool(name)).parameters)
    assert not re.search(r"--\w+ *$", out, re.MULTILINE), "an option without a word on it"


@pytest.mark.parametrize("command", TRAINING)
def test_options_of_training_are_true(command):
    for option in OPTIONS[command]:
        group, _, name = option.name.partition(".")
        if not name:
            assert group in WHOLE
            continue
        found = [each for owner in owners(group) for each in parameters(owner) if each.name == name]
        assert found, option.name
        assert option.default in (UNSAID, *(each.default for each in found)), option.name


def test_fit_shows_twenty_options_and_everything_on_demand(zoo):
    assert len(OPTIONS["fit"]) == 20
    everything = zoo("fit", "--help", "all")
    assert everything.code == 0 and "--trainer.detect_anomaly" in everything.out
    for option in OPTIONS["fit"]:
        group, _, name = option.name.partition(".")
        assert f"--{option.name if group == 'trainer' or not name else group} " in everything.out.replace("=", " ")


def test_all_options_of_a_tool(zoo):
    ended = zoo("mixers", "--help", "all")
    assert ended.code == 0 and "--refresh {true,false}" in ended.out


class TestTableOfMixers:
    def test_it_is_what_the_mixers_say(self):
        hint = "python -m attention_zoo mixers --refresh true"
        assert listing.table_rows() == listing.imported_rows(), hint

    def test_it_is_not_used_once_a_file_declares_something_else(self, tmp_path, monkeypatch):
        copy = shutil.copytree(listing.SOURCES, tmp_path / "mixers", ignore=shutil.ignore_patterns("__pycache__"))
        monkeypatch.setattr(listing, "SOURCES", copy)
        assert listing.table_rows() is not None
        pro = copy / "pro.py"
        text = pro.read_text()
        pro.write_text(text.replace('"""', '"""Words. ', 1))
        assert listing.table_rows() is not None
        pro.write_text(text + "\nNEW = 1\n")
        assert listing.table_rows() is None
        pro.write_text("class")
        assert listing.table_rows() is None
        assert {row.name for row in listing.rows_of()} == {*az.list_mixers(), *az.list_mixers("wrapper")}


def test_all_about_a_mixer(zoo):
    ended = zoo("mixers", "Agent", "MixtureOfHeads")
    assert ended.code == 0 and "agents: number of agents, a square." in ended.out
    assert "topk: number of routed heads that a token reads" in ended.out
    ended = zoo("mixers", "Agnet")
    assert (ended.code, ended.err.count("\n")) == (2, 1) and "did you mean 'Agent'" in ended.err
    assert zoo("mixers", "--kind", "wrapper").out.count("│ around a mixer") == 3


@pytest.mark.parametrize(
    ("words", "code"),
    [(["--help"], 0), (["fit", "--help"], 0), (["mixers"], 0), (["fit", "--config", "classification/digit.yaml"], 2)],
)
def test_what_only_tells_imports_no_library_that_takes_seconds(words, code, tmp_path):
    command = [sys.executable, "-X", "importtime", "-m", "attention_zoo", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr[-500:]
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "attention_zoo.cli.main" in imported
    assert not imported & {"torch", "timm", "lightning", "torchvision", "attention_zoo.public"}
