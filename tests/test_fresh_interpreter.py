"""What importing the packages does, seen step by step in an interpreter of its own."""

import json
import os
import subprocess
import sys

from tests.processes import ROOT

STEPS = """
import json, logging, os, sys, warnings

LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
held = {}

def state():
    return [(logging.getLogger(name).handlers[:], logging.getLogger(name).filters[:]) for name in LOGGERS]

untouched = state()
from attention_zoo.cli.main import main
held["the entry point leaves loggers as they are"] = state() == untouched

listing = os.fork()
if not listing:
    code = 1
    try:
        sys.stdout = open(os.devnull, "w")
        main(["mixers"])
        code = int("lightning" in sys.modules)
    finally:
        os._exit(code)
held["the list of mixers needs no Lightning"] = os.waitpid(listing, 0)[1] == 0

import lightning
untouched = state()
import attention_zoo.models, attention_zoo.mmseg, tasks
held["neither models nor tasks need mmsegmentation"] = "mmseg" not in sys.modules

import datamodules
datamodules.Shapes()
held["data that do not name mmsegmentation do without"] = not {"mmseg", "mmcv", "mmengine"} & {*sys.modules}

import attention_zoo.cli.lightning
held["training commands leave Lightning's loggers as they are"] = state() == untouched
held["and the filters of warnings"] = not any("exists and is not empty" in str(entry[1]) for entry in warnings.filters)
print(json.dumps(held))
"""


def test_imports_load_and_change_no_more_than_they_must(tmp_path):
    command, environment = [sys.executable, "-c", STEPS], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    held = json.loads(done.stdout)
    assert len(held) == 6 and all(held.values()), held
