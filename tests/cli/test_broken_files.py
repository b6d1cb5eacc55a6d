"""A file of a person's own that cannot be imported ends a command in one line, which names the file."""

import importlib
import sys

import pytest

import attention_zoo as az
from attention_zoo.cli import main as program
from attention_zoo.errors import InputError
from attention_zoo.mixers import registry
from attention_zoo.sayings import broken_file


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write a module into a package that stands for one of the project's; import it."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("attention_zoo.sayings.OURS", ("zoo_of_broken_files",))
    folder = tmp_path / "zoo_of_broken_files"
    folder.mkdir()
    (folder / "__init__.py").write_text("")

    def error_of(source):
        (folder / "mine.py").write_text(source)
        with pytest.raises(Exception) as caught:
            importlib.import_module("zoo_of_broken_files.mine")
        return caught.value, folder / "mine.py"

    yield error_of
    for name in [name for name in sys.modules if name.startswith("zoo_of_broken_files")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("source", "line", "told"),
    [
        ("x = 1\nimport nowhere_at_all\n", 2, "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("def f(:\n", 1, "SyntaxError: invalid syntax"),
        ("1 / 0\n", 1, "ZeroDivisionError: division by zero"),
        ("from attention_zoo.errors import InputError\nraise InputError('a mixer is one')\n", 2, "a mixer is one"),
    ],
)
def test_it_is_named_with_its_line(package, source, line, told):
    error, path = package(source)
    assert broken_file(error) == f"{path}, line {line}, cannot be imported: {told}"


def test_other_errors_are_of_no_broken_file():
    with pytest.raises(InputError) as caught:
        az.create_mixer("VarzD", 8)
    assert broken_file(caught.value) is None


@pytest.mark.parametrize("command", ["mixers", "report", "fit"])
def test_a_broken_mixer_stops_a_command_in_one_line(package, monkeypatch, capsys, command):
    error, path = package("1 / 0\n")
    monkeypatch.setitem(registry.BROKEN, "attention_zoo.mixers.mine", error)
    monkeypatch.setattr("attention_zoo.cli.mixers.table_rows", lambda: None)  # a new file, which the table has not
    with pytest.raises(SystemExit) as end:
        program.main([command])
    told = capsys.readouterr().err
    assert end.value.code == 2
    assert told == f"error: {path}, line 1, cannot be imported: ZeroDivisionError: division by zero\n"
    with pytest.raises(InputError, match=r"unknown mixer 'Mine'.*\(attention_zoo.mixers.mine cannot be imported: div"):
        az.create_mixer("Mine", 8)


def test_other_mixers_are_imported_beside_a_broken_one(tmp_path, monkeypatch):
    from attention_zoo import mixers

    (tmp_path / "zoo_broken_mixer.py").write_text("1 / 0\n")
    (tmp_path / "zoo_whole_mixer.py").write_text("")
    monkeypatch.setattr(mixers, "__path__", [str(tmp_path)])
    monkeypatch.setattr(registry, "BROKEN", {})
    monkeypatch.setattr(mixers, "BROKEN", registry.BROKEN)
    mixers.import_all()
    assert list(mixers.BROKEN) == ["attention_zoo.mixers.zoo_broken_mixer"]
    assert sys.modules.pop("attention_zoo.mixers.zoo_whole_mixer")


def test_a_mixer_of_a_taken_name_names_both_files():
    with registry.registering(), pytest.raises(InputError) as caught:
        az.register(type("VarsD", (az.MIXERS["VarsD"],), {"__module__": __name__}))
    told = str(caught.value)
    assert "is registered already" in told and "vars/d.py" in told and __file__ in told


@pytest.mark.parametrize("argv", [["--model", "TwinOfTheseTests"], ["--config", "twin.yaml"]])
def test_two_tasks_of_one_name_are_told_by_their_paths(tmp_path, monkeypatch, capsys, argv):
    import tasks

    for module in (tasks.classification, tasks.semantic):
        twin = type("TwinOfTheseTests", (tasks.Classification,), {"__module__": module.__name__})
        monkeypatch.setattr(module, "TwinOfTheseTests", twin, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "twin.yaml").write_text("model: {class_path: TwinOfTheseTests}\n")
    with pytest.raises(SystemExit) as end:
        program.main(["fit", *argv, "--data", "Digits", "--print_config"])
    assert end.value.code == 2
    paths = "tasks.classification.TwinOfTheseTests, tasks.semantic.TwinOfTheseTests"
    told = f"error: model: 'TwinOfTheseTests' is the name of several classes: {paths}; give a dotted path"
    assert told in capsys.readouterr().err.replace("config: ", "")


def test_an_evaluation_of_a_sweep_that_is_no_mapping_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yaml").write_text("out: x\nconfigs: [a.yaml]\nevaluations: {shifts: file.yaml}\n")
    with pytest.raises(SystemExit) as end:
        program.main(["sweep", "--config", "sweep.yaml"])
    told = capsys.readouterr().err
    assert end.value.code == 2
    got = "got evaluations.shifts: 'file.yaml'"
    assert told == f"error: sweep: 'shifts' of evaluations must be a mapping of options, {got}\n"
