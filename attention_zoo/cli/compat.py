"""The places where the command line uses private parts of jsonargparse and Lightning.

Each part says why it is needed. ``tests/cli/test_compat.py`` fails where it no longer holds in a new release, and
pyproject.toml has a ceiling for the version of each library. `attention_zoo.compat` has those of the library itself.
Nothing here loads Lightning, which tools do without.
"""

import logging
import pydoc
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, get_args, get_origin

import jsonargparse._common
import jsonargparse._typehints
from jsonargparse import ArgumentParser, Namespace, get_loader, set_parsing_settings

from attention_zoo.cli.errors import TIP, UNSAID

if TYPE_CHECKING:
    import lightning as L
    from lightning.pytorch.cli import LightningArgumentParser
    from lightning.pytorch.cli import LightningCLI as Base
else:
    Base = object


def keys_of(parser: ArgumentParser) -> list[str]:
    """Return the keys that ``parser`` takes, except those of its help; jsonargparse lists them nowhere in public."""
    keys = [action.dest for action in parser._actions]
    return [key for key in keys if not key.endswith("help") and not key.startswith("print_")]


@contextmanager
def importing_only(packages: Sequence[str]) -> Iterator[None]:
    """While the block runs, values may only name import paths of ``packages``, including names that these re-export.

    jsonargparse has a function that sets this for the whole process, and none that takes it back.
    """
    settings = jsonargparse._common.parsing_settings
    before = dict(settings)
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=list(packages))
    try:
        yield
    finally:
        settings.clear()
        settings.update(before)


@contextmanager
def starting_afresh(keeping: tuple[type, ...]) -> Iterator[None]:
    """While the block runs, a change of class drops the arguments of the class before it.

    jsonargparse keeps those that the new class accepts too, so that ``num_features`` of one mixer in a saved config
    would silently become that of the next. It has no setting for this.

    Args:
        keeping: classes whose subclasses keep their arguments at a change nevertheless.
    """
    module = jsonargparse._typehints
    stock = module.discard_init_args_on_class_path_change

    def discard(parser_or_action: Any, prev_val: Any, value: Any) -> None:
        known = prev_val and prev_val.get("class_path")  # None where the class before is an empty mapping's
        if known and "init_args" in prev_val and known != value["class_path"]:
            cls = pydoc.locate(known)
            if not (isinstance(cls, type) and issubclass(cls, keeping)):
                prev_val["init_args"] = Namespace()
        stock(parser_or_action, prev_val, value)

    module.discard_init_args_on_class_path_change = discard
    try:
        yield
    finally:
        module.discard_init_args_on_class_path_change = stock


@contextmanager
def nesting_mappings(words: Mapping[Any, str] | None = None) -> Iterator[None]:
    """While the block runs, ``--args.part.name value`` sets ``name`` in the mapping ``part`` of the mapping ``args``.

    jsonargparse puts a new mapping with that name alone in the place of ``part``, and leaves the value as text. It does
    so too where a word stood, of an option that takes a word or a mapping: the word would silently be lost. It has no
    setting for either.

    Args:
        words: the key that a word stands for in the mapping beside it, by the type of the word, a ``Literal``.
    """
    module = jsonargparse._typehints
    stock = module.adapt_typehints

    def adapt(val: Any, typehint: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(val, module.NestedArg) and isinstance(kwargs.get("prev_val"), str):
            beside = [key for word, key in (words or {}).items() if word in get_args(typehint)]
            kwargs |= {"prev_val": {key: kwargs["prev_val"] for key in beside}} if beside else {}
        nested = isinstance(val, module.NestedArg) and "." in str(val.key)
        if nested and get_origin(typehint) in module.mapping_origin_types:
            part, *rest = str(val.key).split(".")
            before = kwargs.get("prev_val")
            value = get_loader("yaml")(val.val) if isinstance(val.val, str) else val.val
            mapping = before.get(part) if isinstance(before, dict) else None
            val = module.NestedArg(part, _with_item(mapping, rest, value))
        return stock(val, typehint, *args, **kwargs)

    module.adapt_typehints = adapt
    try:
        yield
    finally:
        module.adapt_typehints = stock


def _with_item(mapping: Any, keys: Sequence[str], value: Any) -> Any:
    """Return ``mapping`` (anything else counts as an empty one) with ``value`` at the nested ``keys``."""
    if not keys:
        return value
    known = dict(mapping) if isinstance(mapping, dict) else {}
    return {**known, keys[0]: _with_item(known.get(keys[0]), keys[1:], value)}


class Hooks(Base):
    """A mix-in of LightningCLI that gives public names to hooks which it only has as private methods."""

    def add_arguments_of(self, subcommand: str, parser: "LightningArgumentParser") -> None:
        """Add the options of one command; `add_arguments_to_parser` is not told which command it is called for."""

    def parser_of(self, subcommand: str) -> "LightningArgumentParser":
        """Return the parser of one command."""
        return self._parser(subcommand)

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> "LightningArgumentParser":
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        self.add_arguments_of(subcommand, parser)
        return parser

    def run_command(self, subcommand: str) -> None:
        """Run a command, once its task, data and trainer are built."""
        super()._run_subcommand(subcommand)

    def _run_subcommand(self, subcommand: str) -> None:
        self.run_command(subcommand)

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning would let hyper-parameters in a checkpoint win over the command line."""


def further_processes(trainer: "L.Trainer") -> list[subprocess.Popen]:
    """Return the processes of the run that this one launched; Lightning keeps them in an undocumented attribute."""
    return getattr(trainer.strategy.launcher, "procs", [])


def end_further_processes(trainer: "L.Trainer") -> None:
    """Kill the `further_processes`; Lightning's launcher does that only at its own errors."""
    launcher: Any = trainer.strategy.launcher
    launcher.kill(signal.SIGKILL)


def launch_further_processes_with(argv: Sequence[str]) -> None:
    """Have Lightning start further processes of a run with ``argv``, by putting it into ``sys.argv``."""
    sys.argv = [sys.argv[0], *argv]


class ToStdout(logging.StreamHandler):
    """A log handler that writes to whatever ``sys.stdout`` is at the time of a record."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        """Return the stream to write to."""
        return sys.stdout


def quieten() -> None:
    """Have Lightning log its progress to stdout: stderr is left to errors.

    The seed is in every config; a line about it would stand before the one line of an error. Tips about its maker's
    services are left out. Lightning has no settings for these; names of its loggers are not documented.
    """
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).handlers = [ToStdout()]
    logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)
    rank_zero = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    if no_tip not in rank_zero.filters:
        rank_zero.addFilter(no_tip)
    for message in UNSAID:
        warnings.filterwarnings("ignore", message=message)


def no_tip(record: logging.LogRecord) -> bool:
    """Return whether a log record is something other than a tip about the services of Lightning's maker."""
    return TIP.search(record.getMessage()) is None
