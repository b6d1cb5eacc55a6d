"""What can be asked without training: help, version, the list of mixers."""

import ast
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attention_zoo import list_mixers
from attention_zoo.cli.main import TOOLS, TRAINING
from attention_zoo.cli.parser import ZooParser
from attention_zoo.errors import InputError

CLI = Path(__file__).parents[2] / "attention_zoo/cli"


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
    for name in list_mixers() + list_mixers("wrapper"):
        assert name in ended.out
    for word in ("feature_ratio: float = 2.0", "Shi et al. 2022", "recurrent sparse", "Cost in N"):
        assert word in ended.out


def test_mixers_of_one_kind(zoo):
    assert "VarsD" in zoo("mixers", "--kind", "self").out
    assert "VarsD" not in zoo("mixers", "--kind", "cross").out
    ended = zoo("mixers", "--kind", "sideways")
    assert ended.code == 2
    assert ended.err == "error: kind: expected 'self' or 'cross' or 'wrapper' or null, got 'sideways'\n"


def test_prediction_options_are_of_predict_only(zoo):
    assert "--prediction.top_k" in zoo("predict", "--help", "all").out
    assert "--prediction" not in zoo("fit", "--help", "all").out


@pytest.mark.parametrize(
    ("names", "modules"),
    [(("sys.exit", "os._exit", "exit", "quit"), {"main.py", "errors.py"}), (("sys.argv",), {"main.py", "compat.py"})],
)
def test_only_main_reads_the_arguments_and_ends_the_program(names, modules):
    """Beside it, `errors.leave` ends processes of one run, and `compat` hands the arguments to those."""
    uses = {
        path.name
        for path in CLI.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.Attribute, ast.Call))
        and ast.unparse(node.func if isinstance(node, ast.Call) else node) in names
    }
    assert uses == modules


@settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(words=st.lists(st.text(max_size=8) | st.sampled_from(["--number=x", "--number", "[[[", "--", "{a: 1, a: 2}"])))
def test_a_parser_raises_whatever_it_is_given(words):
    parser = ZooParser(prog="x")
    parser.add_argument("--number", type=int, default=1)
    try:
        assert isinstance(parser.parse_args(words).number, int)
    except InputError as error:
        assert str(error)
    except SystemExit as end:  # a word that asks for the help
        assert end.code == 0
