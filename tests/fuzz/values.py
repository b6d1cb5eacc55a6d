"""Malformed values by annotation, told apart from valid ones without the code under test."""

import math
import sys
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from attention_zoo.domains import Domain

HUGE = 10**400
DEEP = "[" * 5000 + "]" * 5000


class Text(str):
    """What stands on the command line and in no constructor."""


VALUES = [
    *(-1, 0, 1, 2, 3, 7, 2**70, HUGE, 1e20, 2.5, 0.5, -0.5, 1e-3),
    *(math.nan, math.inf, -math.inf, True, None),
    *("many", "", " ", "nan", "é\x00", Text(DEEP), Text("1e400"), Text("9" * 5000), Text(".nan"), Text("{a: 1, a: 2}")),
    *(
        [],
        [1],
        [[1]],
        [math.nan, math.nan, math.nan],
        [-1, -1],
        [1, 2, 3, 4, 5, 6, 7],
        ["many"],
        {},
        {"a": 1},
        {"a": {"b": []}},
    ),
]
"""What is tried as the value of every option."""


def malformed(value: Any, kind: Any, least: float = 0) -> bool:
    """Whether ``value`` is certainly none for the annotation; where the annotation does not tell, it is not.

    Args:
        value: one of `VALUES`.
        kind: the annotation.
        least: the smallest number where the annotation names no domain.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if isinstance(value, Text):
        return _no_text(value, kind)
    if origin is Annotated:
        domains = [part for part in parts[1:] if isinstance(part, Domain)]
        return _outside(value, parts[0], domains[0]) if domains else malformed(value, parts[0], least)
    if origin in (Union, UnionType):
        return all(malformed(value, part, least) for part in parts)
    if kind in (int, float):
        return _outside(value, kind, Domain(least=least))
    if origin is Literal:
        return not any(value == part and type(value) is type(part) for part in parts)
    if kind in (None, NoneType, bool, str):
        return not isinstance(value, NoneType if kind is None else kind)
    if origin is dict:
        return not isinstance(value, dict) or any(malformed(item, parts[1], least) for item in value.values())
    if origin in (list, tuple):
        kinds = (
            parts
            if origin is tuple and Ellipsis not in parts
            else parts[:1] * (len(value) if isinstance(value, list) else 0)
        )
        fits = isinstance(value, list) and len(value) == len(kinds)
        return not fits or any(malformed(item, part, least) for item, part in zip(value, kinds, strict=True))
    return False


def _outside(value: Any, kind: type, domain: Domain) -> bool:
    number = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
    if not number or abs(value) > (2**63 - 1 if kind is int else sys.float_info.max) or not math.isfinite(value):
        return True
    return not (domain.least <= value <= domain.most and domain.above < value < domain.below)


def _no_text(value: str, kind: Any) -> bool:
    """Text that no option takes that is no text itself, and nesting that none takes at all."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return value == DEEP or all(part in (int, float, bool, None, NoneType) for part in kinds)


def takes_text(kind: Any) -> bool:
    """Whether the annotation has room for any text."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return any(part is str for part in kinds)


def items(kind: Any) -> Any:
    """The annotation of the items, where a list may be given; None where none may."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return next((get_args(part)[0] for part in kinds if get_origin(part) is list), None)


def example(kind: Any) -> Any:
    """Some value for an argument that must be given."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType, Annotated):
        return example(parts[0])
    if origin is Literal:
        return parts[0]
    if origin in (list, tuple):
        return [example(part) for part in parts if part is not Ellipsis]
    if origin is dict:
        return {}
    return {int: 4, float: 0.5, str: "somewhere", bool: True}.get(kind)


def as_text(value: Any) -> str:
    """``value`` as one writes it in YAML and on the command line."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        return {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}.get(str(value), repr(value))
    if isinstance(value, list):
        return "[" + ", ".join(map(as_text, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {as_text(item)}" for key, item in value.items()) + "}"
    return str(value)
