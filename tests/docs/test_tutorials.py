"""What the site tells a person to run does what it says: files, commands and Python of the tutorials, as they stand."""

import re
import runpy
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from attention_zoo.cli.main import TOOLS, TRAINING, main
from tests import processes

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"(?:^`(?P<file>[\w./]+)`:\n\n)?^```(?P<kind>\w+)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
PROGRAM = ["python", "-m", "attention_zoo"]
LEFT = {
    "first_comparison": ["runs/first/report/runs.csv", "runs/first/maps.png", "runs/first/sweep/report/index.html"],
    "your_images": ["runs/sevens.csv"],
    "your_mixer": ["runs/mine/report/runs.md", "runs/mine/report/training.png"],
    "robustness": ["runs/robust/robustness.csv", "runs/adapted/robustness.md"],
    "click_out_an_object": ["runs/clicks/checkpoints/last.ckpt", "runs/masks/masks", "runs/masks/overlays"],
    "a_papers_table": ["runs/table1_2/index.html", "runs/sweeps/table1_2/report/table.csv"],
}
"""The tutorials, with some of what is there when a person has followed them."""
READABLE = ["how_to/python.md", "reference/coordinates.md", "design.md"]
"""The other pages whose Python runs."""


class Step(NamedTuple):
    """A step of a tutorial: a file to write, Python to run, or the arguments of a command."""

    kind: str
    content: str
    file: str | None


def steps(page):
    """Yield the steps of a page; blocks that nobody runs are ``text`` and ``console``."""
    for block in BLOCK.finditer(page.read_text()):
        if block["file"]:
            yield Step("file", block["code"], block["file"])
        elif block["kind"] == "bash":
            yield from (Step("bash", line, None) for line in block["code"].splitlines())
        else:
            yield Step(block["kind"], block["code"], None)


def arguments(line):
    """The arguments of a command of this project; its name comes first."""
    words = shlex.split(line, comments=True)
    assert words[:3] == PROGRAM, line
    return words[3:]


def follow(page, folder):
    """Do what a page says in a folder that has the project's configs and results."""
    for name in ("configs", "results"):
        (folder / name).symlink_to(ROOT / name)
    for number, step in enumerate(steps(page)):
        if step.kind == "file":
            (folder / step.file).write_text(step.content)
            continue
        if step.kind == "python":
            file = folder / f"step_{number}.py"
            file.write_text(step.content)
            ended = processes.run(runpy.run_path, str(file), cwd=folder, path=[folder], timeout=600)
        else:
            ended = processes.run(main, arguments(step.content), cwd=folder, path=[folder], timeout=3600)
        assert ended.code == 0, f"code {ended.code}: {step.content}\n{ended.out[-2000:]}\n{ended.err[-4000:]}"


@pytest.mark.slow  # a mixer of one's own, of the README, is tried by default in test_registry.py
@pytest.mark.parametrize("name", LEFT)
def test_a_person_can_follow_the_tutorial(name, tmp_path):
    follow(DOCS / "tutorials" / f"{name}.md", tmp_path)
    for left in LEFT[name]:
        path = tmp_path / left
        assert any(path.iterdir()) if path.is_dir() else path.stat().st_size, left


@pytest.mark.parametrize("name", LEFT)
def test_the_steps_of_a_tutorial_are_ones_that_can_be_run(name):
    found = list(steps(DOCS / "tutorials" / f"{name}.md"))
    assert {step.kind for step in found} <= {"file", "python", "bash"}
    commands = [arguments(step.content) for step in found if step.kind == "bash"]
    assert len(commands) >= 2 and {words[0] for words in commands} <= {*TRAINING, *TOOLS}
    for step in found:
        if step.kind == "python":
            compile(step.content, name, "exec")
    written = {step.file for step in found if step.kind == "file"}
    for words in commands:
        configs = [value for option, value in zip(words, words[1:], strict=False) if option == "--config"]
        assert all(config in written or (ROOT / config).is_file() for config in configs), words


def test_every_tutorial_is_followed():
    pages = {path.stem for path in (DOCS / "tutorials").glob("*.md")} - {"index"}
    assert pages == set(LEFT)


@pytest.mark.parametrize("page", READABLE)
def test_python_of_the_site_runs(page):
    code = [step.content for step in steps(DOCS / page) if step.kind == "python"]
    assert code
    found = {}
    for block in code:
        exec(compile(block, page, "exec"), found)
    if page == "how_to/python.md":
        assert found["logits"].shape == (1, 1000)
        assert found["values"].shape == (1, 2, 4096, 32)
        assert found["who_reads_whom"].shape == (1, 2, 196, 196)
        torch.testing.assert_close(found["maps"].sum(-1), torch.ones(1, 6, 197))
