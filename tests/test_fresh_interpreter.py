"""What importing the packages does, seen step by step in an interpreter of its own."""

import json
import os
import subprocess
import sys

from tests.processes import ROOT

STEPS = """
import json, logging, os, sys, traceback, warnings

sys.orig_argv = [sys.executable, "-m", "attention_zoo"]  # as a program is started
LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
held = {}

def state():
    return [(logging.getLogger(name).handlers[:], logging.getLogger(name).filters[:]) for name in LOGGERS]

def in_a_fork(holds):
    child = os.fork()
    if not child:
        code = 1
        try:
            sys.stdout = open(os.devnull, "w")
            code = int(not holds())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0

def succeeds(*argv):
    try:
        main(argv)
    except SystemExit as end:
        return not end.code
    return True

untouched = state()
from attention_zoo.cli.main import main
held["the entry point leaves loggers as they are"] = state() == untouched
held["the list of mixers needs no Lightning"] = in_a_fork(lambda: succeeds("mixers") and "lightning" not in sys.modules)

import attention_zoo as az
held["a program begins without torch"] = "torch" not in sys.modules
held["the library comes with the first of its names"] = bool(az.create_mixer) and "VarsD" in az.list_mixers()
import timm
held["and so do the models that timm then knows"] = timm.is_model("rvt_tiny")
from attention_zoo import TopDown, compat
held["it has no other names"] = not hasattr(az, "nothing")

import lightning
untouched = state()
fit = ("fit", "--config", sys.argv[1], "--print_config")
held["our packages win over those of the working folder"] = in_a_fork(lambda: succeeds(*fit))
from attention_zoo.cli.commands import put_our_packages_first
put_our_packages_first()
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
    (tmp_path / "datamodules").mkdir()
    for shadow in ("tasks.py", "datamodules/__init__.py"):
        (tmp_path / shadow).write_text("raise RuntimeError('not ours')")
    command = [sys.executable, "-c", STEPS, str(ROOT / "configs/classification/digits.yaml")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    held = json.loads(done.stdout)
    assert len(held) == 11 and all(held.values()), (held, done.stderr)
