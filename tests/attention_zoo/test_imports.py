"""Which package may import which: the library knows nothing of what is built on it, and nothing of the command line."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLI = "attention_zoo.cli"
FORBIDDEN = {
    "attention_zoo": ("tasks", "datamodules", CLI),
    "tasks": ("datamodules", CLI),
    "datamodules": ("tasks", CLI),
}
"""What the modules of a package import nowhere, not in functions and not for type checkers either."""
APART = ("attention_zoo/cli/", "attention_zoo/__main__.py", "attention_zoo/public.py")
"""The command line itself, and the names that a person uses from Python, which have `load` of it."""


def imports(path):
    """Modules that a file names in an import, with their line."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *filter(None, [node.module])])
            yield base, node.lineno
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def modules(package):
    paths = sorted((ROOT / package).rglob("*.py"))
    return [path for path in paths if not str(path.relative_to(ROOT)).startswith(APART)]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_go_one_way(package):
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in modules(package)
        for name, line in imports(path)
        if any(name == other or name.startswith(f"{other}.") for other in FORBIDDEN[package])
    ]
    assert len(modules(package)) > 10 and not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", ["runs", "reports", "sweeps", "analysis", "models", "mixers", "functional"])
def test_every_room_is_looked_at(room):
    assert any(room in path.parts for path in modules("attention_zoo"))


def test_the_command_line_is_seen_to_import_both():
    names = {name.partition(".")[0] for path in (ROOT / "attention_zoo/cli").rglob("*.py") for name, _ in imports(path)}
    assert {"tasks", "datamodules"} <= names
