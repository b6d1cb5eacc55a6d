"""One registry of token mixers, keyed by class name, and what is known about each."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from attention_zoo.errors import InputError, unknown
from attention_zoo.interface import CrossMixer, SelfMixer

Mixer = SelfMixer | CrossMixer
MixerClass = TypeVar("MixerClass", bound=type[SelfMixer] | type[CrossMixer])

_MIXERS: dict[str, type[Mixer]] = {}
MIXERS: Mapping[str, type[Mixer]] = MappingProxyType(_MIXERS)
"""Every registered mixer class by name (read only; `register` adds to it)."""

_FACTS = ("reading", "paper", "equation", "complexity")


@dataclass(frozen=True)
class Option:
    """A constructor argument of a mixer that belongs to its reading."""

    name: str
    type: str
    default: Any


@dataclass(frozen=True)
class MixerInfo:
    """What a person wants to know before choosing a mixer."""

    name: str
    kind: Literal["self", "cross"]
    reading: str
    paper: str
    equation: str
    complexity: str
    options: tuple[Option, ...]


def register(cls: MixerClass) -> MixerClass:
    """Class decorator: makes a `SelfMixer` or `CrossMixer` known under its class name.

    Raises:
        InputError: the name is taken, or the class does not state its reading, paper, equation and complexity.
    """
    if not (inspect.isclass(cls) and issubclass(cls, (SelfMixer, CrossMixer))):
        raise InputError(f"only subclasses of SelfMixer and CrossMixer can be registered, not {cls!r}")
    if cls.__name__ in _MIXERS:
        raise InputError(f"a mixer called {cls.__name__!r} is registered already; give the new one another name")
    missing = [fact for fact in _FACTS if not isinstance(getattr(cls, fact, None), str)]
    if missing:
        raise InputError(f"mixer {cls.__name__!r} must state as class attributes: {', '.join(missing)}")
    _MIXERS[cls.__name__] = cls
    return cls


def list_mixers(kind: Literal["self", "cross"] | None = None) -> list[str]:
    """Sorted names of the registered mixers, of one kind or of both."""
    if kind not in (None, "self", "cross"):
        raise unknown("kind of mixer", str(kind), ("self", "cross"))
    return sorted(name for name, cls in MIXERS.items() if kind in (None, _kind(cls)))


def mixer_class(name: str) -> type[Mixer]:
    """The class registered under ``name``.

    Raises:
        InputError: no such mixer; lists those there are.
    """
    if name not in MIXERS:
        raise unknown("mixer", name, MIXERS)
    return MIXERS[name]


def self_mixer_class(name: str) -> type[SelfMixer]:
    """The self-mixer registered under ``name``.

    Raises:
        InputError: no such mixer, or one of queries and pixels; lists the self-mixers.
    """
    cls = mixer_class(name)
    if not issubclass(cls, SelfMixer):
        raise InputError(f"{name} mixes pixels into queries; a host needs one of: {', '.join(list_mixers('self'))}")
    return cls


def create_mixer(name: str, dim: int, num_heads: int = 8, **options: Any) -> Mixer:
    """Build the mixer ``name`` for tokens of width ``dim``.

    Args:
        name: a name of `list_mixers`.
        dim: token width.
        num_heads: heads that share the width.
        **options: the mixer's own arguments and those of every mixer (``grid``, ``qkv_bias``, ...).

    Raises:
        InputError: unknown mixer, unknown argument, or a value the mixer refuses.
    """
    cls = mixer_class(name)
    check_options(cls, options)
    return cls(dim, num_heads, **options)


def check_options(cls: type[Mixer], options: Mapping[str, Any]) -> None:
    """Raise an InputError that names the first option ``cls`` does not take."""
    own = [option.name for option in mixer_options(cls)]
    shared = _host_parameters(cls)
    for name in options:
        if name not in own and name not in shared:
            raise unknown(f"argument of mixer {cls.__name__}", name, own or shared)


def mixer_options(cls: type[Mixer]) -> tuple[Option, ...]:
    """The arguments that belong to the reading, without those that every host gives every mixer."""
    shared = {"self", "dim", "num_heads", *_host_parameters(cls)}
    found = {}
    for base in reversed(cls.__mro__):
        if "__init__" not in vars(base) or base in (SelfMixer, CrossMixer):
            continue
        for parameter in inspect.signature(base.__init__).parameters.values():
            if parameter.kind is not parameter.VAR_KEYWORD and parameter.name not in shared:
                found[parameter.name] = Option(parameter.name, _type_name(parameter.annotation), parameter.default)
    return tuple(option for option in found.values() if option.default is not inspect.Parameter.empty)


def mixer_info(name: str) -> MixerInfo:
    """Name, kind, reading, paper, equation, complexity in tokens, and options of a registered mixer."""
    cls = mixer_class(name)
    facts = {fact: getattr(cls, fact) for fact in _FACTS}
    return MixerInfo(name=name, kind=_kind(cls), options=mixer_options(cls), **facts)


def _kind(cls: type[Mixer]) -> Literal["self", "cross"]:
    return "self" if issubclass(cls, SelfMixer) else "cross"


def _host_parameters(cls: type[Mixer]) -> list[str]:
    base = SelfMixer if issubclass(cls, SelfMixer) else CrossMixer
    names = list(inspect.signature(base.__init__).parameters)
    return [name for name in names if name not in ("self", "dim", "num_heads")]


def _type_name(annotation: Any) -> str:
    return annotation.__name__ if inspect.isclass(annotation) else str(annotation).replace("typing.", "")
