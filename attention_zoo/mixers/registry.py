"""The registry of token mixers by class name, the facts about each, and the way from a name to a mixer."""

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from numbers import Integral
from types import MappingProxyType, NoneType, UnionType
from typing import Annotated, Any, Generic, Literal, TypeVar, Union, cast, get_args, get_origin, overload

from torch import nn

from attention_zoo.compat import attn_layers
from attention_zoo.errors import InputError, unknown
from attention_zoo.mixers.base import SelfMixer
from attention_zoo.mixers.cross import CrossMixer

Mixer = SelfMixer | CrossMixer
Made = TypeVar("Made", covariant=True)
MixerClass = TypeVar("MixerClass", bound=type[SelfMixer] | type[CrossMixer])
SelfMixerClass = TypeVar("SelfMixerClass", bound=type[SelfMixer])

_MIXERS: dict[str, type[Mixer]] = {}
MIXERS: Mapping[str, type[Mixer]] = MappingProxyType(_MIXERS)
"""Every registered mixer class by name (read only; `register` adds to it)."""

_WRAPPERS: dict[str, type[SelfMixer]] = {}
WRAPPERS: Mapping[str, type[SelfMixer]] = MappingProxyType(_WRAPPERS)
"""Every self-mixer that is built around another one, by name (read only; `wraps_mixers` adds to it)."""

BROKEN: dict[str, Exception] = {}
"""The errors of the modules of the package that cannot be imported, by the modules' names. The others work without
them; the command line refuses to start, and the message that a mixer is unknown names them."""

_FACTS = ("reading", "paper", "equation", "complexity")

STRAY = re.compile(r"got an unexpected keyword argument '([^']+)'")
"""The pattern of Python's message that a constructor takes no such argument."""

HAND_ON = "its constructor must take **host and hand it on by super().__init__(dim, num_heads, **host)"


@dataclass(frozen=True)
class Option:
    """A constructor argument of a mixer that belongs to its reading."""

    name: str
    type: str
    default: Any


@dataclass(frozen=True)
class MixerInfo:
    """The facts that help a person choose a mixer."""

    name: str
    kind: Literal["self", "cross"]
    reading: str
    paper: str
    equation: str
    complexity: str
    options: tuple[Option, ...]


def register(cls: MixerClass) -> MixerClass:
    """Register a `SelfMixer` or `CrossMixer` under its class name; a class decorator, which returns the class.

    timm takes the name of a self-mixer from then on: ``timm.create_model("vit_tiny_patch16_224", attn_layer="VarsD")``.

    Raises:
        InputError: the name is taken, or the class does not state its reading, paper, equation and complexity.
    """
    if not (inspect.isclass(cls) and issubclass(cls, (SelfMixer, CrossMixer))):
        raise InputError(f"only subclasses of SelfMixer and CrossMixer can be registered, not {cls!r}")
    _check_new(cls)
    _MIXERS[cls.__name__] = cls
    if issubclass(cls, SelfMixer):
        _tell_timm(cls)
    return cls


def wraps_mixers(cls: SelfMixerClass) -> SelfMixerClass:
    """List a self-mixer that is built around another one, such as `Axial`; a class decorator, which returns the class.

    It is no reading of its own: what goes over all readings leaves it out. Otherwise it is as `register` has it.

    Raises:
        InputError: as of `register`.
    """
    _check_new(cls)
    _WRAPPERS[cls.__name__] = cls
    _tell_timm(cls)
    return cls


def _known() -> dict[str, type[Mixer]]:
    """Return readings and wrappers by name, which no two of them share."""
    return {**MIXERS, **WRAPPERS}


def _check_new(cls: type[Mixer]) -> None:
    """Raise an InputError for a class whose name is taken, or that does not state where it comes from."""
    known = _known()
    if cls.__name__ in known:
        files = [inspect.getmodule(each) for each in (known[cls.__name__], cls)]
        first, second = (getattr(module, "__file__", None) or "a notebook" for module in files)
        raise InputError(
            f"a mixer called {cls.__name__!r} is registered already, by {first}; give that of {second} another name"
        )
    missing = [fact for fact in _FACTS if not isinstance(getattr(cls, fact, None), str)]
    if missing:
        raise InputError(f"mixer {cls.__name__!r} must state as class attributes: {', '.join(missing)}")


def _tell_timm(cls: type[SelfMixer]) -> None:
    """Let timm's ``attn_layer`` take the class name of a self-mixer; a name that timm has already stays timm's."""
    from attention_zoo.mixers.swapping import attn_layer  # which imports this module

    attn_layers().setdefault(cls.__name__, attn_layer(cls))


@contextmanager
def registering() -> Iterator[None]:
    """Forget after the block what was registered inside it, as a notebook or a test may want."""
    tables: tuple[dict[str, Any], ...] = (_MIXERS, _WRAPPERS, attn_layers())
    before = [dict(table) for table in tables]
    try:
        yield
    finally:
        for table, kept in zip(tables, before, strict=True):
            table.clear()
            table.update(kept)


def list_mixers(kind: Literal["self", "cross", "wrapper"] | None = None) -> list[str]:
    """Return the sorted names of the registered mixers.

    Args:
        kind: "self" mixes tokens among themselves, "cross" pixels into queries; None is both. "wrapper" is built around
            a self-mixer, takes its place, and is no reading of its own.

    Raises:
        InputError: there is no such kind.
    """
    if kind not in (None, "self", "cross", "wrapper"):
        raise unknown("kind of mixer", str(kind), ("self", "cross", "wrapper"))
    if kind == "wrapper":
        return sorted(WRAPPERS)
    return sorted(name for name, cls in MIXERS.items() if kind in (None, _kind(cls)))


def self_mixers() -> dict[str, type[SelfMixer]]:
    """Return the classes that mix tokens among themselves, readings and wrappers, by name, sorted."""
    return {name: cls for name, cls in sorted(_known().items()) if issubclass(cls, SelfMixer)}


def mixer_class(name: str) -> type[Mixer]:
    """Return the mixer class that ``name`` names: one that is registered or imported, or one at a dotted path.

    Args:
        name: a name of `list_mixers`, the name of an imported class, or ``my_package.MyMixer``.

    Raises:
        InputError: there is no such mixer, or something else is at that path; nothing of it is called.
    """
    if not isinstance(name, str):
        raise InputError(f"mixer {name!r} is no name; choose from: {', '.join(list_mixers())}")
    known = _known()
    if name in known:
        return known[name]
    if "." in name:
        return _class_at(name)
    found = [cls for base in (SelfMixer, CrossMixer) for cls in _subclasses(base) if cls.__name__ == name]
    if len(found) > 1:
        paths = sorted(f"{cls.__module__}.{cls.__qualname__}" for cls in found)
        raise InputError(f"mixer {name!r} is the name of several classes: {', '.join(paths)}; give a dotted path")
    if not found:
        for module, error in BROKEN.items():
            raise InputError(f"{unknown('mixer', name, known)} ({module} cannot be imported: {error})") from error
        raise unknown("mixer", name, known)
    return found[0]


def _subclasses(base: type[Mixer]) -> Iterator[type[Mixer]]:
    """Yield the imported subclasses of ``base`` that are not abstract, each once.

    An exported program has classes of the names of ours, which are at no path.
    """
    seen = set()
    stack = [base]
    while stack:
        for cls in stack.pop().__subclasses__():
            if cls not in seen:
                seen.add(cls)
                stack.append(cls)
                if not inspect.isabstract(cls) and not _is_twin(cls):
                    yield cls


def _is_twin(cls: type[Mixer]) -> bool:
    """Return whether another class is where this one says that it is."""
    found: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        found = getattr(found, part, None)
    return inspect.isclass(found) and found is not cls


def _class_at(path: str) -> type[Mixer]:
    """Return the mixer class at a dotted path, such as ``my_package.MyMixer``."""
    place, _, name = path.rpartition(".")
    if not all(part.isidentifier() for part in path.split(".")):
        raise InputError(f"mixer {path!r} is no dotted path, such as my_package.MyMixer")
    try:
        module = importlib.import_module(place)
    except Exception as error:  # a person's own file may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"mixer {path!r}: module {place} cannot be imported: {reason}") from error
    if not hasattr(module, name):
        mixers = [key for key, value in vars(module).items() if inspect.isclass(value) and issubclass(value, _BOTH)]
        raise unknown(f"mixer of module {place}", name, mixers)
    return _require_class(getattr(module, name), path)


_BOTH = (SelfMixer, CrossMixer)


def _require_class(found: object, name: str) -> type[Mixer]:
    """Return ``found`` if it is a mixer class that can be built; raise an InputError otherwise."""
    if not (inspect.isclass(found) and issubclass(found, _BOTH)):
        raise InputError(f"{name} is no mixer: a mixer is a subclass of SelfMixer or CrossMixer")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise InputError(f"{name} cannot be built: it does not define {missing}")
    return found


@dataclass(frozen=True)
class Factory(Generic[Made]):
    """A callable that builds a mixer, with the arguments that were chosen for it; see `as_factory`.

    Attributes:
        make: a mixer class, or anything that builds a mixer.
        kind: the kind of mixer that a host needs; None is either.
        options: arguments of ``make``. They go before those of the host.
    """

    make: Callable[..., Any]
    kind: Literal["self", "cross"] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the mixer class, also where a parser put the class among the arguments of a partial."""
        parts = [self.make, *getattr(self.make, "args", ())]
        known = [part for part in parts if inspect.isclass(part) and issubclass(part, _BOTH)]
        return getattr((known or parts)[0], "__name__", type(self.make).__name__)

    def takes(self, option: str) -> bool:
        """Return whether ``make`` is a mixer class whose reading has this argument."""
        cls = self.make
        known = inspect.isclass(cls) and issubclass(cls, _BOTH)
        return known and any(own.name == option for own in mixer_options(cast(type[Mixer], cls)))

    def with_default(self, option: str, value: Any) -> "Factory[Made]":
        """Return the factory with a default value for an argument, which a chosen value overrides."""
        return replace(self, options={option: value, **self.options})

    def __call__(self, *args: Any, **host: Any) -> Made:
        """Build the mixer for what a host gives.

        Raises:
            InputError: the mixer refuses an argument, or the result is no mixer of the kind that is needed.
        """
        try:
            made = self.make(*args, **{**host, **self.options})
        except TypeError as error:
            stray = STRAY.search(str(error))
            if stray is not None and stray[1] in host and stray[1] not in self.options:
                raise InputError(f"{self.name} does not take the host's {stray[1]}: {HAND_ON}") from error
            if not self.options:
                raise
            chosen = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
            raise InputError(f"{self.name} refuses {chosen}: {' '.join(str(error).split())}") from error
        if not isinstance(made, _BOTH) or self.kind not in (None, _kind(type(made))):
            needed = {"self": "SelfMixer", "cross": "CrossMixer", None: "SelfMixer or CrossMixer"}[self.kind]
            raise InputError(f"mixer {self.name} built a {type(made).__name__}, which is no {needed}")
        if isinstance(made, SelfMixer):
            self._check_arrived(made, {**host, **self.options})
        return cast(Made, made)

    def _check_arrived(self, mixer: SelfMixer, asked: Mapping[str, Any]) -> None:
        """Refuse a mixer whose constructor has kept to itself what every host gives."""
        here: dict[str, Any] = {"num_prefix_tokens": mixer.num_prefix_tokens}
        if asked.get("grid") is not None:
            here["grid"] = mixer.grid
        if isinstance(mixer.qkv, nn.Linear):
            here["qkv_bias"] = mixer.qkv.bias is not None
        for name, value in here.items():
            wanted = tuple(asked[name]) if name == "grid" else asked.get(name, value)
            if value != wanted:
                raise InputError(f"{self.name} was to have {name}={wanted} and has {value}: {HAND_ON}")


@overload
def as_factory(
    mixer: str | Callable[..., Any], options: Mapping[str, Any] | None = None, *, kind: Literal["self"] = "self"
) -> Factory[SelfMixer]: ...


@overload
def as_factory(
    mixer: str | Callable[..., Any], options: Mapping[str, Any] | None = None, *, kind: Literal["cross"]
) -> Factory[CrossMixer]: ...


@overload
def as_factory(
    mixer: str | Callable[..., Any], options: Mapping[str, Any] | None = None, *, kind: None
) -> Factory[Mixer]: ...


def as_factory(
    mixer: str | Callable[..., Any],
    options: Mapping[str, Any] | None = None,
    *,
    kind: Literal["self", "cross"] | None = "self",
) -> Factory[Any]:
    """Return the factory of a mixer, from any of the ways to name one. All hosts, models and commands use it.

    Args:
        mixer: a name, a dotted path (see `mixer_class`), a mixer class, a ``functools.partial`` of one, or another
            callable that builds a mixer, such as a choice in a config.
        options: arguments of the mixer.
        kind: the kind of mixer that is needed; None is either.

    Raises:
        InputError: there is no such mixer, it is of the other kind, or it does not take an argument. Nothing but a
            callable that was given as such is ever called.
    """
    make: Any = mixer
    options = dict(options or {})
    if isinstance(make, Factory):
        make, options = make.make, {**make.options, **options}
    while isinstance(make, partial) and not make.args:
        make, options = make.func, {**make.keywords, **options}
    if isinstance(make, str):
        make = mixer_class(make)
    if not callable(make):
        raise InputError(f"mixer {make!r} is no name, no dotted path and nothing that builds a mixer")
    if inspect.isclass(make):
        cls = _require_class(make, make.__name__)
        if kind not in (None, _kind(cls)):
            wrong = {"self": "mixes pixels into queries; a host needs", "cross": "mixes tokens; an interaction is"}
            raise InputError(f"{cls.__name__} {wrong[kind]} one of: {', '.join(list_mixers(kind))}")
        check_options(cls, options)
    return Factory(make, kind, options)


def create_mixer(name: str, dim: int, num_heads: int = 8, **options: Any) -> Mixer:
    """Build and return the mixer ``name`` for tokens of width ``dim``.

    Args:
        name: a name of `list_mixers`, or a dotted path such as ``my_package.MyMixer``.
        dim: token width.
        num_heads: number of heads, which share the width.
        **options: the mixer's own arguments and those of every mixer (``grid``, ``qkv_bias``, ...).

    Raises:
        InputError: the mixer or an argument is unknown, or the mixer refuses a value.
    """
    factory = as_factory(name, options, kind=None)
    for argument, value in (("dim", dim), ("num_heads", num_heads)):
        if not isinstance(value, Integral):
            raise InputError(f"{factory.name}: {argument}={value!r} must be a whole number")
    return factory(dim, num_heads)


def check_options(cls: type[Mixer], options: Mapping[str, Any]) -> None:
    """Raise an InputError that names the first option ``cls`` does not take."""
    own = [option.name for option in mixer_options(cls)]
    shared = _host_parameters(cls)
    for name in options:
        if name not in own and name not in shared:
            error = unknown(f"argument of mixer {cls.__name__}", name, own or shared)
            raise error if own else InputError(f"{error} (those of every mixer; it has none of its own)")


def mixer_options(cls: type[Mixer]) -> tuple[Option, ...]:
    """Return the arguments that belong to the reading, without those that every host gives every mixer."""
    shared = {"self", "dim", "num_heads", *_host_parameters(cls)}
    found = {}
    for base in reversed(cls.__mro__):
        if "__init__" not in vars(base) or base in (SelfMixer, CrossMixer):
            continue
        for parameter in inspect.signature(vars(base)["__init__"]).parameters.values():
            if parameter.kind is not parameter.VAR_KEYWORD and parameter.name not in shared:
                found[parameter.name] = Option(parameter.name, _type_name(parameter.annotation), parameter.default)
    return tuple(option for option in found.values() if option.default is not inspect.Parameter.empty)


def mixer_info(name: str) -> MixerInfo:
    """Return name, kind, reading, paper, equation, complexity in tokens, and options of a mixer.

    Facts are empty strings where a mixer that is not registered does not state them.
    """
    cls = mixer_class(name)
    facts = {fact: getattr(cls, fact, "") for fact in _FACTS}
    return MixerInfo(name=cls.__name__, kind=_kind(cls), options=mixer_options(cls), **facts)


def mixer_kind(name: str) -> Literal["self", "cross"]:
    """Return the kind of the mixer: "self" mixes tokens among themselves, "cross" mixes pixels into queries."""
    return _kind(mixer_class(name))


def _kind(cls: type[Mixer]) -> Literal["self", "cross"]:
    return "self" if issubclass(cls, SelfMixer) else "cross"


def _host_parameters(cls: type[Mixer]) -> list[str]:
    base = SelfMixer if issubclass(cls, SelfMixer) else CrossMixer
    names = list(inspect.signature(base.__init__).parameters)
    return [name for name in names if name not in ("self", "dim", "num_heads")]


def _type_name(annotation: Any) -> str:
    """Return an annotation as a person writes it, without the domain of its numbers."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(parts[0])
    if origin in (Union, UnionType):
        return " | ".join(map(_type_name, parts))
    if origin is tuple:
        return f"tuple[{', '.join(map(_type_name, parts))}]"
    if annotation in (None, NoneType):
        return "None"
    return annotation.__name__ if inspect.isclass(annotation) else str(annotation).replace("typing.", "")
