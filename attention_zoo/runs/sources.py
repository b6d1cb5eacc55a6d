"""Tells whether the code of an evaluation is the one that an earlier process ran."""

import hashlib
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

OURS = ("attention_zoo", "tasks", "datamodules")
"""Packages whose code counts wherever they are installed."""

INSTALLED = tuple({Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")})
"""Folders of Python and of installed packages, whose code stands still; their versions are compared elsewhere."""


def fingerprint(*parts: object) -> str:
    """Return a hash of all code of this project, and of a person's own, that objects can reach.

    It is of the source files of their classes, of the classes of the objects that they hold (a module also those inside
    it), of the bases of all these, and of whatever these files import.

    Args:
        *parts: the objects, such as a task and its data module.
    """
    files = sorted({path for path in map(_file, _modules(parts)) if path is not None})
    digest = hashlib.sha256()
    for path in files:
        content = path.read_bytes() if path.is_file() else b""
        digest.update(f"{path} {len(content)} ".encode(errors="surrogateescape") + content)
    return digest.hexdigest()


def _modules(parts: Iterable[object]) -> Iterator[ModuleType]:
    """Yield the modules of the objects' classes, and of all that these modules have imported, each once."""
    kinds = dict.fromkeys(type(held) for part in parts for held in _held(part))
    names = list(dict.fromkeys(cls.__module__ for kind in kinds for cls in kind.__mro__))
    seen = set(names)
    while names:
        module = sys.modules.get(names.pop())
        if module is None or _file(module) is None:
            continue
        yield module
        for value in list(vars(module).values()):
            name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            if isinstance(name, str) and name not in seen:
                seen.add(name)
                names.append(name)


def _held(part: object) -> Iterator[object]:
    """Yield an object, what it holds, and the layers inside if it is a network."""
    yield part
    for value in list(getattr(part, "__dict__", {}).values()):
        if isinstance(value, dict):
            yield from value.values()
        elif isinstance(value, (list, tuple)):
            yield from value
        else:
            yield value
    if isinstance(part, nn.Module):
        yield from part.modules()


def _file(module: Any) -> Path | None:
    """Return the source file of a module; None if it has none, or is of an installed package."""
    name = getattr(module, "__file__", None)
    if not isinstance(name, str):
        return None
    path = Path(name).resolve()
    ours = module.__name__.partition(".")[0] in OURS
    return None if not ours and any(path.is_relative_to(folder) for folder in INSTALLED) else path
