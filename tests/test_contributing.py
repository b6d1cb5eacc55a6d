"""The recipes of CONTRIBUTING.md work as they stand: their files and commands, in a copy of the project."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
FILES = re.findall(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
COMMANDS = [
    line.removeprefix("python -m attention_zoo ")
    for block in re.findall(r"^```bash\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]
RECIPES = re.findall(r"^## (An? .*)$", TEXT, re.MULTILINE)
BRIEF = {
    "fit": "--trainer.max_epochs 1 --trainer.limit_train_batches 2 --trainer.limit_val_batches 1 "
    "--trainer.enable_progress_bar false --trainer.enable_model_summary false --trainer.accelerator cpu",
    "test": "--trainer.limit_test_batches 1 --trainer.enable_progress_bar false",
    "bench": "--dim 8 --num_heads 2 --repeats 1 --batch 1 --modes eager",
}
"""What makes a command of a recipe a matter of a second."""

DRIVER = """
import json, sys, traceback
import torch
torch.set_num_threads(1)
from attention_zoo.cli.main import main
codes = []
for command in json.load(open("commands.json")):
    sys.argv = ["attention_zoo"]
    try:
        main(command)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except Exception:
        traceback.print_exc()
        code = 1
    codes.append(code)
json.dump(codes, open("codes.json", "w"))
import attention_zoo, datamodules, tasks
json.dump([package.__file__ for package in (attention_zoo, datamodules, tasks)], open("packages.json", "w"))
import re
from pathlib import Path
import pytest
from attention_zoo.cli.mixers import markdown_table
readme = Path("README.md").read_text()
old = re.search(r"(?m)^\\| name \\|(.*\\n)(\\|.*\\n)+", readme)[0]
Path("README.md").write_text(readme.replace(old, markdown_table() + "\\n"))
class Outcomes:
    def __init__(self):
        self.of = {}
    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.failed:
            self.of[report.nodeid] = report.outcome
outcomes = Outcomes()
code = pytest.main(["-q", "-p", "no:cacheprovider", *json.load(open("tests.json"))], plugins=[outcomes])
json.dump([int(code), outcomes.of], open("outcomes.json", "w"))
"""

SHIPPED = "tests/cli/test_shipped.py"
HELD = [
    *(
        f"{SHIPPED}::test_every_{'overlay_composes' if 'mixers' in name else 'task_parses_as_it_is'}"
        f"[{name.removeprefix('configs/')}]"
        for name, _ in FILES
        if name.endswith(".yaml")
    ),
    f"{SHIPPED}::test_the_sweeps_of_mixers_have_them_all",
    f"{SHIPPED}::test_the_readme_lists_the_mixers",
    "tests/attention_zoo/test_registry.py::test_the_readmes_table_is_the_registrys",
]
"""The default tests that hold what a recipe adds beside its own file."""

TESTS = ["tests/__init__.py", "tests/conftest.py", "tests/commands.py", "tests/processes.py", "tests/cli/conftest.py"]
TESTS += sorted({name.partition("::")[0] for name in HELD})
"""The files of these tests."""


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory):
    """A copy of the project with the files of all recipes, after their commands."""
    folder = tmp_path_factory.mktemp("newcomer")
    for name in ("attention_zoo", "datamodules", "tasks", "configs"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("README.md", "pyproject.toml", *TESTS):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name, content in FILES:
        assert not (folder / name).exists(), f"{name} is there already"
        (folder / name).write_text(content)
    (row,) = re.findall(r"^    \w+: {model.mixer: \w+}\n", TEXT, re.MULTILINE)
    sweep = folder / "configs" / "sweeps" / "cifar10_related.yaml"
    sweep.write_text(sweep.read_text().replace("  mixer:\n", f"  mixer:\n{row}"))
    (folder / "tests.json").write_text(json.dumps(HELD))
    commands = [shlex.split(command) for command in COMMANDS]
    commands = [[*command, *BRIEF.get(command[0], "").split()] for command in commands]
    (folder / "commands.json").write_text(json.dumps(commands))
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", DRIVER], cwd=folder, env=environment, capture_output=True, text=True, timeout=240
    )
    assert ended.returncode == 0, ended.stderr
    return folder, ended


def test_every_recipe_has_a_file_and_a_config():
    assert RECIPES == ["A mixer", "A data set", "A task", "An evaluation"]
    for recipe in RECIPES:
        section = TEXT.split(f"\n## {recipe}\n")[1].split("\n## ")[0]
        names = [name for name, content in FILES if content in section]
        assert sorted(Path(name).suffix for name in names) == [".py", ".yaml"], recipe
        assert "```bash" in section


@pytest.mark.slow
def test_the_commands_of_the_recipes_work_in_a_copy_with_their_files(newcomer):
    folder, ended = newcomer
    codes = json.loads((folder / "codes.json").read_text())
    assert dict(zip(COMMANDS, codes, strict=True)) == dict.fromkeys(COMMANDS, 0), ended.stderr
    assert all(Path(file).is_relative_to(folder) for file in json.loads((folder / "packages.json").read_text()))


@pytest.mark.slow
def test_the_default_tests_hold_after_the_recipes(newcomer):
    folder, ended = newcomer
    code, outcomes = json.loads((folder / "outcomes.json").read_text())
    assert (code, outcomes) == (0, dict.fromkeys(HELD, "passed")), ended.stdout[-8000:]


@pytest.mark.slow
def test_the_tests_of_the_recipes_have_numbers(newcomer):
    folder, _ = newcomer
    lines = [json.loads(line) for path in folder.glob("runs/*/metrics.jsonl") for line in path.read_text().splitlines()]
    tests = [line for line in lines if any(name.startswith("test/") for name in line | line.get("metrics", {}))]
    assert len(tests) == sum(command.startswith("test ") for command in COMMANDS), lines


@pytest.mark.slow
def test_the_costs_of_the_recipes_have_flops(newcomer):
    folder, _ = newcomer
    costs = [json.loads(path.read_text()) for path in folder.glob("runs/*/cost.json")]
    assert len(costs) == sum(command.startswith("fit ") for command in COMMANDS)
    assert all(cost["flops"] for cost in costs), costs


@pytest.mark.slow
@pytest.mark.parametrize("check", [("check",), ("format", "--check")])
def test_files_of_the_recipes_are_in_the_style_of_the_project(newcomer, check):
    folder, _ = newcomer
    written = [str(folder / name) for name, _ in FILES if name.endswith(".py")]
    command = [sys.executable, "-m", "ruff", *check, "--no-cache", "--config", str(ROOT / "pyproject.toml"), *written]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_evaluation_of_the_recipe_is_written_and_reported(newcomer):
    folder, ended = newcomer
    (path,) = (folder / "runs" / "digits").rglob("mirror.json")
    assert 0 <= json.loads(path.read_text())["scores"]["agreement"] <= 1
    assert ended.stdout.count("agreement ↑") >= 2  # by the test and by the report
