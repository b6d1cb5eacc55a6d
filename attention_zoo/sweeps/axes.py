"""The axes of a sweep: labels and values, ranges to draw from, and the options that a value stands for."""

import json
import math
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from attention_zoo.errors import InputError, unknown
from attention_zoo.runs.files import read_yaml
from attention_zoo.runs.shipped import find_config

OPTION = re.compile(r"[^\W\d]\w*\+?(\.\w[\w-]*\+?)*")
"""The key of an option; after a dot may also stand a key of a mapping, like ``4-11`` in ``model.layer_mixers.4-11``."""

RANGES = ("uniform", "log_uniform", "integers")
"""The kinds of ranges to draw values from; each takes its least and its largest value."""

LARGEST = 2**63
"""Integers of a sweep must have an absolute value below this."""

STRUCTURE = ("init_args", "class_path")
"""Parts of the keys in a config that the command line leaves out."""

KEEP_ARGUMENTS = ("model", "data")
"""Keys at which another class keeps the arguments that were set before; at any other key it starts afresh."""

UNSEEN = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories that no label may contain: control characters, surrogates, line and paragraph separators."""

Axis = Mapping[str, Any] | Sequence[Any]


def labelled(axis: Axis) -> dict[Any, Any]:
    """Return the values of an axis by their labels.

    A value in a list is its own label; of a config file the label is the name without folder and ending, of options
    their keys' last parts with the values. Where that does not tell values apart, labels are written in full.
    """
    if isinstance(axis, Mapping):
        return dict(axis)
    short = [_label(value) for value in axis]
    count = Counter(map(str, short))
    return {
        label if count[str(label)] == 1 else _label(value, in_full=True): value
        for label, value in zip(short, axis, strict=True)
    }


def _label(value: Any, *, in_full: bool = False) -> Any:
    if is_config(value):
        return value if in_full else Path(value).stem
    if isinstance(value, dict):
        return ",".join(f"{key if in_full else key.rpartition('.')[2]}={part}" for key, part in value.items())
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


def label_of(value: Any) -> Any:
    """Return the label of a baseline's value: lists and options are written out as text."""
    return _label(value) if isinstance(value, (list, dict)) else value


def is_range(axis: Axis) -> TypeGuard[Mapping[str, Any]]:
    """Return whether an axis is a range to draw values from."""
    return isinstance(axis, Mapping) and len(axis) == 1 and next(iter(axis)) in RANGES


def is_config(value: Any) -> bool:
    """Return whether the value of an axis names a config file."""
    return isinstance(value, str) and value.endswith((".yaml", ".yml"))


def drawn(axis: Axis, generator: random.Random) -> tuple[Any, Any]:
    """Draw a value of an axis, and return its label and the value."""
    if not is_range(axis):
        return generator.choice(list(labelled(axis).items()))
    (kind, (least, largest)) = next(iter(axis.items()))
    if kind == "integers":
        value: float = generator.randint(least, largest)
    elif kind == "uniform":
        value = float(f"{generator.uniform(least, largest):.4g}")
    else:
        value = float(f"{math.exp(generator.uniform(math.log(least), math.log(largest))):.4g}")
    value = min(max(value, least), largest)  # rounding to four digits may leave the range
    return value, value


def options(name: str, value: Any) -> list[str]:
    """Return the words that a value of an axis adds to a command line.

    They name a config file, several options, or the one option that the axis is named after.
    """
    if isinstance(value, Mapping):
        return [word for key, each in value.items() for word in option(key, each)]
    return ["--config", value] if is_config(value) else option(name, value)


def option(key: str, value: Any) -> list[str]:
    """Return the two words of an option, its key and its value; a value that is no text is written as YAML."""
    text = value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True, width=math.inf)
    return [f"--{key}", text.removesuffix("\n").removesuffix("\n...")]


def settings(name: str, value: Any) -> dict[str, Any]:
    """Return the settings that a value of an axis makes, by key as on the command line.

    A config file that does not exist any more adds none.

    Raises:
        InputError: a config file cannot be read, or holds no keys.
    """
    parts = dict(value) if isinstance(value, Mapping) else {"config": value} if is_config(value) else {name: value}
    file = parts.pop("config", None)
    shared: dict[str, Any] = {}
    if file is not None and Path(find_config(file)).exists():
        content = read_yaml(find_config(file))
        if not isinstance(content, dict):
            raise InputError(f"{file} is no config: it holds no keys")
        shared = {plain(key): each for key, each in flat(content).items()}
    return shared | {plain(key): each for start, part in parts.items() for key, each in flat(part, start).items()}


def flat(content: Any, prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping as a flat one, with its keys joined by dots after ``prefix``."""
    if not isinstance(content, dict) or not content:
        return {prefix: content}
    return {
        name: value
        for key, inner in content.items()
        for name, value in flat(inner, f"{prefix}.{key}".strip(".")).items()
    }


def plain(key: str) -> str:
    """Return a key of a config in the form of the command line, without `STRUCTURE` and signs of appending (``+``)."""
    return ".".join(part.removesuffix("+") for part in key.split(".") if part not in STRUCTURE)


def overrules(later: Mapping[str, Any], earlier: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each key of the ``later`` settings with each key of the ``earlier`` ones that it changes or resets."""
    for key, value in later.items():
        for before, old in earlier.items():
            resets = before.startswith(f"{key}.") and key not in KEEP_ARGUMENTS
            if resets or (key == before and (type(value), value) != (type(old), old)):
                yield key, before


def check_axis(name: str, axis: Any, *, drawing: bool) -> None:
    """Check that the value given for an axis is one, and that its labels differ.

    Args:
        name: the name of the axis.
        axis: the axis as the user wrote it.
        drawing: whether the sweep draws at random, so that ranges are allowed.

    Raises:
        InputError: it is no axis, or two of its labels cannot be told apart.
    """
    here = f"sweep: axis {name!r}"
    if not axis or not isinstance(axis, (dict, list)):
        raise InputError(f"{here} must be a list of values, labels with values, or a range")
    check_plain(here, axis)
    if isinstance(axis, dict) and (is_range(axis) or any(_like_a_range(*entry) for entry in axis.items())):
        _check_range(here, axis)
        if not drawing:
            raise InputError(f"{here} is a range; say with draws how many runs to draw from it")
        return
    values = axis if isinstance(axis, list) else list(axis.values())
    for value in values:
        if not isinstance(value, dict) and not is_config(value):
            check_option(here, name)
        elif isinstance(value, dict):
            check_options(here, value)
    check_labels(here, [_label(value) for value in values] if isinstance(axis, list) else list(axis), axis)


def check_labels(here: str, labels: Sequence[Any], axis: Axis) -> None:
    """Check that labels are words or numbers, not empty, without hidden characters, and can be told apart.

    Raises:
        InputError: a label breaks one of these rules.
    """
    hint = "give each a label of its own: {LABEL: VALUE, ...}"
    names = list(labelled(axis)) if isinstance(axis, list) and len(labelled(axis)) == len(axis) else labels
    for label in names:
        if not isinstance(label, (str, int, float, bool)) and label is not None:
            raise InputError(f"{here}: {label!r} is no label; use words or numbers")
        text = str(label)
        if not text.strip() or any(unicodedata.category(letter) in UNSEEN for letter in text):
            raise InputError(f"{here}: {text!r} is no label, empty or with characters that cannot be seen; {hint}")
    seen: dict[Any, Any] = {}
    for label in names:
        for key in (str(label), label):  # 1 and "1"; 1, true and 1.0
            if key in seen:
                other = seen[key]
                same = type(other) is type(label) and other == label
                raise InputError(
                    f"{here} has {label!r} twice"
                    if same
                    else f"{here}: no table tells {other!r} from {label!r}; {hint}"
                )
        seen |= {str(label): label, label: label}


def check_plain(here: str, value: Any) -> None:
    """Check that a value, and all values inside it, can be written to a file and read again unchanged.

    Raises:
        InputError: a value cannot.
    """
    if isinstance(value, dict):
        for key, part in value.items():
            check_plain(here, key)
            check_plain(here, part)
    elif isinstance(value, list):
        for part in value:
            check_plain(here, part)
    elif isinstance(value, bool) or value is None:
        return
    elif isinstance(value, int):
        if abs(value) >= LARGEST:
            raise InputError(f"{here}: an integer of {value.bit_length()} bits is too large")
    elif isinstance(value, float):
        if math.isnan(value):
            raise InputError(f"{here}: nan is no value")
    elif not isinstance(value, str):
        raise InputError(f"{here}: {value!r} is a {type(value).__name__}; use words, numbers, lists or mappings")
    elif any(unicodedata.category(letter) == "Cs" for letter in value):
        raise InputError(f"{here}: {value!r} holds half a character")


def check_options(here: str, chosen: Mapping[Any, Any]) -> None:
    """Check the keys of options.

    Raises:
        InputError: a key is no option or is only for the command line, or ``config`` does not name one file.
    """
    for key, value in chosen.items():
        check_option(here, key)
        if key == "config" and not (isinstance(value, str) and value):
            raise InputError(f"{here}: config must name one file, got {value!r}")


def check_option(here: str, key: Any) -> None:
    """Check the key of one option.

    Raises:
        InputError: the key is no option, or is only for the command line.
    """
    if not isinstance(key, str) or not OPTION.fullmatch(key):
        raise InputError(f"{here}: {key!r} is no option; write model.mixer, without dashes")
    if key in ("help", "print_config"):
        raise InputError(f"{here}: {key} is for the command line; a run with it trains nothing")


def _like_a_range(kind: Any, ends: Any) -> bool:
    """Return whether an entry of an axis is meant as a range: it has a list, and a name like one of `RANGES`."""
    near = isinstance(kind, str) and kind.lower().replace("-", "_").startswith(("unif", "log", "int"))
    return isinstance(ends, list) and (kind in RANGES or (near and len(ends) > 1))


def _check_range(here: str, axis: Mapping[Any, Any]) -> None:
    if len(axis) > 1:
        raise InputError(f"{here}: a range stands alone, got {', '.join(map(str, axis))}")
    ((kind, ends),) = axis.items()
    if kind not in RANGES:
        raise unknown(f"range of {here}", str(kind), RANGES)
    rule = f"{here}: {kind} takes its least and its largest value"
    if not isinstance(ends, list) or len(ends) != 2:
        raise InputError(f"{rule}, got {ends}")
    types = int if kind == "integers" else (int, float)
    for end in ends:
        if not isinstance(end, types) or isinstance(end, bool) or not math.isfinite(end):
            raise InputError(f"{rule}, {'whole' if kind == 'integers' else 'finite'} numbers; got {end!r}")
    least, largest = ends
    if least >= largest or not math.isfinite(float(largest) - float(least)):
        raise InputError(f"{rule}, in this order; got {least} and {largest}")
    if kind == "log_uniform" and least <= 0:
        raise InputError(f"{rule}, both above 0; got {least}")
