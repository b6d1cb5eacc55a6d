"""What importing the tasks loads."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[3]
OURS = ("attention_zoo", "datamodules", "tasks")


def file_of(module):
    base = ROOT.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def imports(path):
    """Modules that a file imports as it is loaded: not those in functions, nor those for type checkers."""
    found, open_nodes = set(), list(ast.parse(path.read_text()).body)
    while open_nodes:
        node = open_nodes.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or "TYPE_CHECKING" in ast.dump(node)[:80]:
            continue
        else:
            open_nodes += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
    return found


def loaded(module):
    """All modules that importing one loads: ours with what they load, others by name."""
    seen, open_modules = set(), [module]
    while open_modules:
        name = open_modules.pop()
        parents = [name.rpartition(".")[0]] if "." in name else []
        if name in seen or (name.split(".")[0] in OURS and file_of(name) is None):
            continue
        seen.add(name)
        open_modules += parents
        if name.split(".")[0] in OURS:
            open_modules += imports(file_of(name))
    return seen


def test_training_asks_for_nothing_to_draw_with():
    """No module that the tasks load imports matplotlib; torchmetrics does where it is installed, for itself."""
    names = loaded("tasks")
    assert {"attention_zoo.results.clicks", "tasks.clicks.session", "torch"} <= names  # or nothing is shown
    assert not {name for name in names if name.split(".")[0] == "matplotlib"}
    assert "matplotlib" in loaded("attention_zoo.reports.robustness.figures")
