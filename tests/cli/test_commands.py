"""What can be asked without training: help, version, the list of mixers."""

import subprocess
import sys

import pytest

from attention_zoo import list_mixers
from attention_zoo.cli.main import TOOLS, TRAINING


@pytest.mark.parametrize(("argv", "code"), [((), 2), (("--help",), 0), (("nonsense",), 2)])
def test_every_command_is_listed(zoo, argv, code):
    ended = zoo(*argv)
    assert ended.code == code
    for name in [*TRAINING, *TOOLS]:
        assert name in ended.out + ended.err


def test_near_command_is_suggested(zoo):
    assert zoo("predictt").err.startswith("error: unknown command 'predictt'; did you mean 'predict'?")


def test_version(zoo):
    assert zoo("--version").out.split()[0] == "attention_zoo"


def test_mixers_lists_all_with_options(zoo):
    ended = zoo("mixers")
    assert ended.code == 0
    for name in list_mixers():
        assert name in ended.out
    for word in ("feature_ratio: float = 2.0", "Shi et al. 2022", "recurrent sparse", "Cost in N"):
        assert word in ended.out


def test_mixers_of_one_kind(zoo):
    assert "VarsD" in zoo("mixers", "--kind", "self").out
    assert "VarsD" not in zoo("mixers", "--kind", "cross").out
    ended = zoo("mixers", "--kind", "sideways")
    assert ended.code == 2
    assert ended.err == "error: kind: expected 'self' or 'cross' or null, got 'sideways'\n"


def test_mixers_needs_no_lightning():
    code = "import sys; from attention_zoo.cli.main import main; main(['mixers']); sys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0


def test_prediction_options_are_of_predict_only(zoo):
    assert "--prediction.top_k" in zoo("predict", "--help").out
    assert "--prediction" not in zoo("fit", "--help").out
