"""Reads and writes small files: they are written whole or not at all, and read safely if they are a stranger's.

Readers raise an `InputError` that names the file; writers never leave half a file, never follow a link, and name the
file that the caller asked for rather than the temporary one beside it.
"""

import fcntl
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from attention_zoo.domains import shown
from attention_zoo.errors import InputError

MOST_BYTES = 1 << 30
"""The most bytes that a text file may have, unless its reader says otherwise."""

MOST_NODES = 1_000_000
"""Values that a YAML document may stand for once its aliases are followed; alias bombs stand for billions."""

DEEPEST = 200
"""Levels of nesting that a JSON or YAML document may have."""

DIGITS = re.compile(r"(?<![\w.])[-+]?\d{301,}")
"""The pattern of a whole number that is too large for a float."""


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it replaces ``path`` if the block ends well, else it is removed.

    A link at ``path`` is replaced, not followed.

    Raises:
        InputError: the file cannot be written; the message names ``path``.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", suffix=f".partial{path.suffix}", dir=path.parent)
        temporary = Path(name)
        os.fchmod(handle, 0o666 & ~_umask())
        os.close(handle)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.filename is not None and not _is_of(error.filename, path, temporary):
            raise
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_bytes(path: Path | str, content: bytes | memoryview) -> None:
    """Write a file whole or not at all; see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path | str, text: str) -> None:
    """Write a UTF-8 file whole or not at all; see `replacing`."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def write_json(path: Path | str, content: Any, indent: int | None = 2) -> None:
    """Write plain values as JSON, whole or not at all; see `replacing`."""
    write_text(path, json.dumps(content, indent=indent) + "\n")


def read_text(path: Path | str, most_bytes: int = MOST_BYTES) -> str:
    """Return the text of a UTF-8 file.

    Raises:
        InputError: there is no such regular file, it is not text, or it is larger than ``most_bytes``.
    """
    path = Path(path)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise InputError(f"{path} is a folder, not a file")
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path} is no regular file")
        if status.st_size > most_bytes:
            raise InputError(f"{path} has {status.st_size:,} bytes; at most {most_bytes:,} are read")
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text (UTF-8)") from error
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # a null character in the name
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(path)!r} is no file name") from error


def read_json(path: Path | str, most_bytes: int = MOST_BYTES) -> Any:
    """Return the content of a JSON file.

    Raises:
        InputError: the file cannot be read, is no JSON, names a key twice, or nests too deep.
    """
    return parse_json(read_text(path, most_bytes), str(path))


def parse_json(text: str, name: str) -> Any:
    """Return the content of JSON ``text``, which errors call ``name``; it is refused where `read_json` refuses it."""
    try:
        content = json.loads(text, object_pairs_hook=_unique)
        _check_depth(content, name)
        return content
    except RecursionError as error:
        raise InputError(f"{name} nests too deep") from error
    except _DuplicateKeyError as error:
        raise InputError(f"{name} has the key {error.args[0]!r} twice") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{name} is no JSON: {error.msg} in {place}") from error
    except ValueError as error:  # an integer of more digits than Python converts
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name} is no JSON: {error}") from error


def read_json_lines(path: Path | str) -> list[dict[str, Any]]:
    """Return the records of a file with one JSON object a line; a last line that a kill cut short is left out.

    Raises:
        InputError: the file cannot be read, or a line before the last is no JSON object.
    """
    path = Path(path)
    lines = [(number, line) for number, line in enumerate(read_text(path).split("\n"), 1) if line.strip()]
    records: list[dict[str, Any]] = []
    for position, (number, line) in enumerate(lines):
        name = f"line {number} of {path}"
        try:
            record = parse_json(line, name)
            if not isinstance(record, dict):
                raise InputError(f"{name} is no JSON object")
        except InputError:
            if position == len(lines) - 1:
                break
            raise
        records.append(record)
    return records


def append_json_line(path: Path | str, record: dict[str, Any]) -> None:
    """Add one record to a file of JSON lines; a torn last line is dropped first, so that the two do not run together.

    Processes that add to the same file take turns.

    Raises:
        InputError: the file cannot be written; what it held stays.
    """
    path = Path(path)
    with _turn(path):
        before = path.read_bytes() if path.is_file() else b""
        whole = before[: before.rfind(b"\n") + 1]
        torn = before[len(whole) :]
        with suppress(InputError, UnicodeDecodeError):
            if torn and isinstance(parse_json(torn.decode("utf-8"), str(path)), dict):
                whole = before + b"\n"  # the line is whole, only its line break is missing
        write_bytes(path, whole + json.dumps(record).encode() + b"\n")


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    """Lock the folder of ``path`` during the block, after waiting until no other process holds it locked.

    Raises:
        InputError: there is no such folder, and none can be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def read_yaml(path: Path | str, most_bytes: int = MOST_BYTES) -> Any:
    """Return the content of a YAML file, as plain values.

    Raises:
        InputError: the file cannot be read, is no YAML, names a key twice, nests too deep or is an alias bomb.
    """
    return parse_yaml(read_text(path, most_bytes), str(path))


def parse_yaml(text: str, name: str) -> Any:
    """Return the content of YAML ``text``, which errors call ``name``; it is refused where `read_yaml` refuses it."""
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_nodes(node, name)
        return loader.construct_document(node)
    except RecursionError as error:
        raise InputError(f"{name} nests too deep") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(f"{name} is no YAML: {getattr(error, 'problem', error)}{place}") from error
    except (ValueError, OverflowError) as error:  # a date such as 2020-13-45, an integer of too many digits
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name} is no YAML: {error}") from error


def check_value(text: str, name: str) -> None:
    """Check that a value on the command line is words, or YAML that its parser can handle.

    Raises:
        InputError: ``text`` nests too deep, holds a number of more digits than a float has, or `check_yaml` refuses it.
    """
    depth = deepest = 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        deepest = max(deepest, depth)
    if deepest > DEEPEST:
        raise InputError(f"{name}: {shown(text)} nests deeper than {DEEPEST} levels")
    words = "," in text and not any(sign in text for sign in "[{")  # 9,0 is two numbers to nobody
    if DIGITS.search(text) and not words:
        raise InputError(f"{name}: {shown(text)} holds a number of more than 300 digits")
    check_yaml(text, name)


def check_yaml(text: str, name: str) -> None:
    """Check YAML that another reader will load; text that is no YAML at all passes, for it may be just words.

    Raises:
        InputError: ``text`` nests too deep, is an alias bomb, or has a key twice.
    """
    if not any(sign in text for sign in "&:[{-"):
        return
    try:
        parse_yaml(text, name)
    except InputError as error:
        if not isinstance(error.__cause__, (yaml.YAMLError, ValueError)):
            raise


class _DuplicateKeyError(Exception):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _DuplicateKeyError(next(key for key in keys if keys.count(key) > 1))
    return content


def _check_depth(content: Any, name: str) -> None:
    level = [content]
    for _ in range(DEEPEST):
        level = [
            child
            for value in level
            if isinstance(value, (dict, list))
            for child in (value.values() if isinstance(value, dict) else value)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return
    raise InputError(f"{name} nests deeper than {DEEPEST} levels")


def _check_nodes(root: yaml.Node, name: str) -> None:
    """Refuse keys that stand twice, deep nesting, aliases of themselves, and documents that aliases blow up."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node, depth: int, above: frozenset[int]) -> int:
        if id(node) in above:
            raise InputError(f"{name}: an alias in line {node.start_mark.line + 1} stands inside what it names")
        if depth > DEEPEST:
            raise InputError(f"{name} nests deeper than {DEEPEST} levels")
        if id(node) not in sizes:
            children: list[yaml.Node] = []
            if isinstance(node, yaml.MappingNode):
                _check_keys(node, name)
                children = [part for pair in node.value for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                children = node.value
            inside = above | {id(node)}
            sizes[id(node)] = 1 + sum(size(child, depth + 1, inside) for child in children)
        if sizes[id(node)] > MOST_NODES:
            raise InputError(f"{name} stands for more than {MOST_NODES:,} values; its aliases repeat too much")
        return sizes[id(node)]

    size(root, 0, frozenset())


def _check_keys(node: yaml.MappingNode, name: str) -> None:
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
            continue
        if (key.tag, key.value) in seen:
            raise InputError(f"{name} has the key {key.value!r} twice, again in line {key.start_mark.line + 1}")
        seen.add((key.tag, key.value))


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current


def _is_of(filename: Any, path: Path, temporary: Path | None) -> bool:
    """Return whether an error about ``filename`` comes from writing ``path``."""
    return Path(os.fsdecode(filename)) in {path, temporary, path.parent}
