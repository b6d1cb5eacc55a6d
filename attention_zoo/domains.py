"""Checks the values of arguments against their annotations, in one place.

An option is declared once, by its annotation: ``int``, ``float | None``, ``tuple[int, int]``, ``Literal["v", "qkv"]``,
and where the type alone says too little, `PositiveInt`, `PositiveFloat`, `Fraction`, `Seed`, `SignedInt`, `SignedFloat`
or any other `Annotated` number with a `Domain`. Then `checked`, around a constructor or a function, refuses every
other value with an `InputError` that names the argument:

- a number that is NaN, infinite, or an integer of more than 64 bits, whatever the option;
- a truth value, or text, where a number should be; another number of values than a tuple has;
- a number outside of its domain. A bare ``int`` or ``float`` of the zoo's own classes must not be negative; of
  other people's classes, of which no one promised that, it must be finite.

A scalar of numpy is handed on as the number of Python that it stands for.

Mixers, tasks, data and attacks check the constructors of all their subclasses by themselves; a data class of options
says ``@checked``. What two arguments must be together is the constructor's own affair.
"""

import functools
import inspect
import math
import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

from attention_zoo.errors import InputError, unknown

OWN = ("attention_zoo", "tasks", "datamodules")
"""Packages whose bare numbers must not be negative."""

LARGEST_INTEGER = 2**63 - 1
"""The largest number that a tensor's int64, and so any count, size or index, can hold."""

LONGEST_SHOWN = 60
"""The most characters of a wrong value that a message repeats."""


PLAIN = (NoneType, bool, int, float, str, bytes, list, tuple, dict, set)
"""Classes of plain values, which are refused where an argument asks for an object of another class."""


@dataclass(frozen=True)
class Domain:
    """The numbers between two bounds; every number there is finite.

    Args:
        least: the smallest number of the domain.
        most: the largest number of the domain.
        above: a bound that is not in the domain itself, below all numbers that are.
        below: a bound that is not in the domain itself, above all numbers that are.
    """

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    def __contains__(self, number: float) -> bool:
        return self.least <= number <= self.most and self.above < number < self.below

    def __str__(self) -> str:
        if (self.least, self.most, self.above, self.below) == (0, math.inf, -math.inf, math.inf):
            return "not be negative"
        bounds = [("at least", self.least), ("above", self.above), ("at most", self.most), ("below", self.below)]
        return "be " + " and ".join(f"{word} {bound:.12g}" for word, bound in bounds if math.isfinite(bound))

    def __repr__(self) -> str:  # jsonargparse prints it in the help
        return str(self).removeprefix("be ")


ANY_FINITE, NOT_NEGATIVE = Domain(), Domain(least=0)

SignedInt = Annotated[int, ANY_FINITE]
"""An integer that may be negative."""
SignedFloat = Annotated[float, ANY_FINITE]
"""A finite number that may be negative."""
PositiveInt = Annotated[int, Domain(least=1)]
"""An integer of 1 or more, such as a number of things of which there must be one."""
PositiveFloat = Annotated[float, Domain(above=0)]
"""A finite number above 0."""
Fraction = Annotated[float, Domain(least=0, most=1)]
"""A probability, or a part of a whole: 0 to 1."""
Seed = Annotated[int, Domain(least=0, most=2**32 - 1)]
"""An integer from 0 to 2^32 - 1, which the generators of numpy, torch and Python all accept as a seed."""

OF_ITEMS = ("be a list of which each must", "have ")
"""How the complaints begin about an item of a list, and about one of a mapping."""

_MORE, _REST = inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL
_Target = TypeVar("_Target", bound=Callable[..., Any])


def without_empty_lists(tool: _Target) -> _Target:
    """Return ``tool`` with a check at every call that refuses empty lists for arguments that may be left out.

    Raises:
        InputError: at a call, naming the first argument that is an empty list and None by default.
    """
    parameters = inspect.signature(tool).parameters

    @functools.wraps(tool)
    def checking(*args: Any, **kwargs: Any) -> Any:
        for name, value in kwargs.items():
            if value == [] and name in parameters and parameters[name].default is None:
                raise InputError(f"{name} is given nothing: name at least one, or leave it out")
        return tool(*args, **kwargs)

    return cast(_Target, checking)


def checked(target: _Target, *, under: str | None = None) -> _Target:
    """Check the arguments of a function, or of a class's constructor, by their annotations at every call.

    Args:
        target: a function, a method (a constructor, say), or a class, whose own constructor is then checked.
        under: the key that configs give the arguments under, such as ``mixing``; None names them after the class.

    Returns:
        the function that checks before it calls ``target``; if ``target`` is a class, the class itself.

    Raises:
        InputError: at a call, naming the first argument that does not fit.
    """
    if isinstance(target, type):
        type.__setattr__(target, "__init__", checked(getattr(target, "__init__"), under=under))  # noqa: B009
        return target
    signature = inspect.signature(target)
    constructs = next(iter(signature.parameters), None) == "self"
    bare = NOT_NEGATIVE if target.__module__.partition(".")[0] in OWN else ANY_FINITE

    @functools.cache
    def annotations() -> dict[str, Any]:
        try:
            hints = get_type_hints(target, include_extras=True)
        except NameError:  # of somebody's class that imports its types for type checkers only
            return {}
        named = [name for name, parameter in signature.parameters.items() if parameter.kind not in (_MORE, _REST)]
        return {name: hints[name] for name in named if name in hints}

    @functools.wraps(target)
    def checking(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = tuple(map(_plain, args)), {name: _plain(value) for name, value in kwargs.items()}
        try:
            arguments = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return target(*args, **kwargs)  # Python's own error says which argument is missing or too much
        owner = f"{under}." if under else f"{type(args[0]).__name__}: " if constructs else ""
        kinds = bare_kinds()
        more = next((name for name, parameter in signature.parameters.items() if parameter.kind is _MORE), None)
        if constructs and more in arguments:
            arguments |= arguments.pop(more)
            kinds = _inherited(type(args[0]), checking) | kinds
        for name, (kind, default) in kinds.items():
            why = complaint(arguments[name], kind, default) if name in arguments else None
            if why:
                raise _error(owner, name, arguments[name], kind, why)
        return target(*args, **kwargs)

    def bare_kinds() -> dict[str, tuple[Any, Domain]]:
        return {name: (kind, bare) for name, kind in annotations().items()}

    vars(checking)["kinds"] = bare_kinds
    return cast(_Target, checking)


def _plain(value: Any) -> Any:
    """Return a scalar of numpy, also in a tuple or list, as Python's own: torch takes no other numbers for sizes."""
    if type(value) is tuple:
        return tuple(map(_plain, value))
    if type(value) is list and any(type(item).__module__ == "numpy" for item in value):
        return [_plain(item) for item in value]
    numpys = type(value).__module__ == "numpy" and isinstance(value, (Integral, Real))
    return cast(Any, value).item() if numpys else value


class Checked:
    """Base whose subclasses have their constructors `checked`, each with the arguments that it names itself."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            type.__setattr__(cls, "__init__", checked(vars(cls)["__init__"]))


def require(name: str, value: Any, kind: Any) -> None:
    """Refuse a value that no annotation of an argument speaks of, such as an entry of a mapping.

    Args:
        name: what the value is called.
        value: what was given.
        kind: the annotation that it must fit; a bare number must not be negative.

    Raises:
        InputError: naming all three.
    """
    why = complaint(value, kind, NOT_NEGATIVE)
    if why:
        raise _error("", name, value, kind, why)


def _inherited(cls: type, constructor: Callable[..., Any]) -> dict[str, tuple[Any, Domain]]:
    """Return annotation and bare domain of each argument of the constructors behind ``constructor`` in ``cls``."""
    constructors = [vars(base).get("__init__") for base in cls.__mro__]
    behind = constructors[constructors.index(constructor) + 1 :] if constructor in constructors else []
    return {name: kind for function in reversed(behind) for name, kind in getattr(function, "kinds", dict)().items()}


def _error(owner: str, name: str, value: Any, kind: Any, why: str) -> InputError:
    """Return the error about an argument; for a word that is not among the possible ones, it names the nearest."""
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    words = [word for part in kinds if get_origin(part) is Literal for word in get_args(part)]
    if isinstance(value, str) and words and all(isinstance(word, str) for word in words):
        if not owner.endswith(": "):
            return unknown(f"{owner}{name}", shown(value), words)
        return InputError(f"{owner}{name}={shown(value)!r}: {unknown(name, shown(value), words)}")
    return InputError(f"{owner}{name}={_quoted(value)} must {why}")


def complaint(value: Any, kind: Any, bare: Domain = ANY_FINITE) -> str | None:
    """Return what ``value`` must do to fit the annotation ``kind``, such as ``be at least 1``; None if it fits.

    Args:
        value: the value of an argument.
        kind: the annotation; where it asks for an object, any that is no plain value fits, but for data classes.
        bare: the domain of numbers whose annotation names none.
    """
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        domains = [part for part in parts[1:] if isinstance(part, Domain)] or [bare]
        return next((why for domain in domains if (why := complaint(value, parts[0], domain))), None)
    if origin in (Union, UnionType):
        return _of_union(value, parts, bare)
    if origin is Literal:
        fits = any(type(value) is type(part) and value == part for part in parts)
        return None if fits else f"be {' or '.join(map(repr, parts))}"
    if kind in (int, float):
        return _of_number(value, kind, bare)
    if origin in (tuple, list, Sequence, Collection, Iterable):
        return _of_items(value, origin, parts, bare)
    if origin in (dict, Mapping):
        return _of_mapping(value, parts, bare)
    return _of_class(value, kind)


def _quoted(value: Any) -> str:
    """Return ``value`` as `shown` does, but put text that reads like a number in quotation marks."""
    text = shown(value)
    try:
        float(text)
    except ValueError:
        return text
    return repr(text) if isinstance(value, str) else text


def shown(value: Any) -> str:
    """Return ``value`` as an error repeats it: in one line of at most `LONGEST_SHOWN` characters."""
    if isinstance(value, Integral) and abs(int(value)) > LARGEST_INTEGER:
        return f"a number of about {int(abs(int(value)).bit_length() * math.log10(2)) + 1} digits"
    try:
        text = value if isinstance(value, str) else repr(value)
    except (RecursionError, ValueError):  # nested too deep, or with a number of thousands of digits inside
        return f"a {type(value).__name__}"
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + "..."


def _of_number(value: Any, kind: type, domain: Domain) -> str | None:
    noun = "an integer" if kind is int else "a number"
    is_number = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if not is_number:
        return f"be {noun}"
    if isinstance(value, Integral) and abs(int(value)) > (LARGEST_INTEGER if kind is int else sys.float_info.max):
        return "be an integer of at most 64 bits" if kind is int else "be a finite number"
    number = int(value) if isinstance(value, Integral) else float(value)
    if not math.isfinite(number):
        return "be a finite number"
    return None if number in domain else str(domain)


def _of_union(value: Any, parts: tuple[Any, ...], bare: Domain) -> str | None:
    """Return the complaint about a union: all, but for a number that of its own kind, and for an item that of it."""
    complaints: list[str] = []
    for part in parts:
        why = complaint(value, part, bare)
        if why is None:
            return None
        complaints.append(why)
    if isinstance(value, Real) and not isinstance(value, bool):
        wanted = [int, float] if isinstance(value, Integral) else [float, int]
        kinds = [get_args(part)[0] if get_origin(part) is Annotated else part for part in parts]
        complaints = next(([complaints[kinds.index(kind)]] for kind in wanted if kind in kinds), complaints)
    complaints = [why for why in complaints if why.startswith(OF_ITEMS)] or complaints
    first, *others = dict.fromkeys(complaints)
    return " or ".join([first, *(why.removeprefix("be ") for why in others)])


def _of_items(value: Any, origin: type, parts: tuple[Any, ...], bare: Domain) -> str | None:
    scalar = getattr(value, "ndim", 1) == 0  # an array of one number, which has no length
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable) or scalar:
        return "be a list"
    if origin is not tuple or Ellipsis in parts:
        kinds = [parts[0]] * len(value) if parts and isinstance(value, Collection) else []
    elif isinstance(value, Collection) and len(value) == len(parts):
        kinds = list(parts)
    else:
        return f"be {len(parts)} values"
    complaints = [complaint(item, kind, bare) for item, kind in zip(value, kinds, strict=False)]
    return next((f"{OF_ITEMS[0]} {why}" for why in complaints if why), None)


def _of_mapping(value: Any, parts: tuple[Any, ...], bare: Domain) -> str | None:
    if not isinstance(value, Mapping):
        return "be a mapping"
    if not parts:
        return None
    for key, item in value.items():
        why = complaint(key, parts[0], bare)
        if why:
            return f"have keys that {why}"
        why = complaint(item, parts[1], bare)
        if why:
            return f"have at {shown(key)} a value that must {why}"
    return None


def _of_class(value: Any, kind: Any) -> str | None:
    if kind in (None, NoneType):
        return None if value is None else "be None"
    if kind is bool:
        return None if isinstance(value, bool) or type(value).__name__ == "bool" else "be true or false"
    if kind is str and "\0" in (value if isinstance(value, str) else ""):
        return "be text without a null character"
    if kind is str:
        return None if isinstance(value, (str, os.PathLike)) else "be text"
    if isinstance(kind, type) and is_dataclass(kind):
        return None if isinstance(value, kind) else f"be {kind.__name__} options"
    plain = (
        isinstance(kind, type)
        and kind is not Any
        and not getattr(kind, "_is_protocol", False)
        and not is_typeddict(kind)
    )
    if not plain or not isinstance(value, PLAIN) or isinstance(value, kind):
        return None
    return None if isinstance(value, str) and issubclass(kind, os.PathLike) else f"be a {kind.__name__}"
