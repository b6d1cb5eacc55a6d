"""What must be known of the command line before it is parsed: which checkpoint, whose config it then builds on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attention_zoo.errors import InputError
from attention_zoo.runs.checkpoint import Checkpoint
from attention_zoo.runs.files import parse_yaml, read_text
from attention_zoo.runs.folders import KEYWORDS, find_checkpoint

FROM_DATA = ("num_classes", "image_size", "things")
"""Arguments of the task that the data know."""

YES, NO = ("True", "true", "yes"), ("False", "false", "no")
"""How YAML and the command line write a switch."""


@dataclass(frozen=True)
class Prepared:
    """Arguments whose checkpoint is a file, so that every process of a run reads the same; and that checkpoint."""

    argv: list[str]
    checkpoint: Checkpoint | None


def prepare(argv: Sequence[str]) -> Prepared:
    """Read the configs and the checkpoint that ``argv`` names.

    Raises:
        InputError: one of them cannot be read, or nothing says what model the checkpoint is of.
    """
    configs = [read_config(value) for value in values_of(argv, "--config", "-c")]
    for name in FROM_DATA:  # a link would overwrite them without a word
        if _last(argv, configs, "model", name) or _last(argv, configs, "model", "init_args", name):
            raise InputError(f"model.{name} comes from the data; leave it out")
    wanted = _last(argv, configs, "ckpt_path")
    if wanted is None:
        return Prepared(list(argv), None)
    folder = _last(argv, configs, "trainer", "default_root_dir")
    trust = _last(argv, configs, "trust_checkpoint") in YES
    weights_only = _last(argv, configs, "weights_only") not in NO
    checkpoint = find_checkpoint(wanted, Path(folder) if folder else None, trust=trust, weights_only=weights_only)
    if checkpoint.config is None and not (configs or values_of(argv, "--model")):
        raise InputError(f"{checkpoint.path} carries no config; give the one of its run with --config")
    resolved = ["--ckpt_path", str(checkpoint.path)] if wanted in KEYWORDS else []
    return Prepared([*argv, *resolved], checkpoint)


def values_of(argv: Sequence[str], *names: str) -> list[str]:
    """All values of an option, as ``--option value`` or ``--option=value``."""
    found = []
    for position, argument in enumerate(argv):
        name, equals, value = argument.partition("=")
        if name in names and equals:
            found.append(value)
        elif argument in names and position + 1 < len(argv):
            found.append(argv[position + 1])
    return found


def read_config(value: str) -> dict[str, Any]:
    """The content of a ``--config``: a YAML file, or YAML itself.

    Raises:
        InputError: no such file, no YAML, or YAML that holds no keys.
    """
    is_text = "\n" in value or ": " in value
    if not is_text and not Path(value).is_file():
        raise InputError(f"config {value} {'is a folder' if Path(value).is_dir() else 'does not exist'}")
    name = f"config {'on the command line' if is_text else value}"
    content = parse_yaml(value if is_text else read_text(value), name)
    if not isinstance(content, dict):
        raise InputError(f"{name} holds no keys (such as model, data, trainer)")
    return content


def _last(argv: Sequence[str], configs: list[dict[str, Any]], *key: str) -> str | None:
    """The value of a key that counts: the last on the command line, or of the last config that has it."""
    values = []
    for content in configs:
        for part in key:
            content = content.get(part) if isinstance(content, dict) else None
        values += [content] if content is not None else []
    values += values_of(argv, "--" + ".".join(key))
    return str(values[-1]) if values and values[-1] != "null" else None
