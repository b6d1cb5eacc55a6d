"""Commands run in this process up to the point where training or measuring would begin."""

import contextlib
import inspect
import io
import json
import sys
import warnings
from dataclasses import dataclass
from typing import Any

from attention_zoo.cli import lightning as training
from attention_zoo.cli.commands import tool
from attention_zoo.cli.main import TOOLS, main
from attention_zoo.domains import Seed
from tests.fuzz.options import Option, foreign, groups, options_of, trainer_options
from tests.fuzz.values import Text, as_text, example, items, malformed, takes_text

TINY = {
    "model": {
        "class_path": "Classification",
        "init_args": {
            "model": "vit_tiny_patch16_224",
            "model_args": {"patch_size": 2, "embed_dim": 16, "depth": 1, "num_heads": 2},
        },
    },
    "data": {"class_path": "Digits"},
    "trainer": {"accelerator": "cpu", "devices": 1, "max_epochs": 1, "enable_progress_bar": False},
}

FROM_HOST = ("dim", "num_heads", "qkv_bias", "qk_norm", "scale_norm", "proj_bias", "attn_drop", "proj_drop")
FROM_HOST += ("norm_layer", "grid", "num_prefix_tokens", "device", "dtype")
"""What the host gives its mixers, and no config can."""


class Prepared(training.ZooCLI):
    """The real thing, whose parser is made once and which trains nothing."""

    made: dict[str, Any] = {}

    def setup_parser(self, *args, **kwargs):
        if not self.made:
            super().setup_parser(*args, **kwargs)
            self.made.update(parser=self.parser, subparsers=self._subcommand_parsers)
        self.parser, self._subcommand_parsers = self.made["parser"], self.made["subparsers"]

    def run_command(self, subcommand):
        """Everything is built, nothing is run."""


@dataclass(frozen=True)
class Spot:
    """An option and where it stands on a command line."""

    option: Option
    key: str
    before: tuple[str, ...] = ()
    command: tuple[str, ...] = ("fit", "--config", json.dumps(TINY))

    def argv(self, value, in_config):
        """The command with ``value`` there, as an argument or in a config."""
        if not in_config:
            return [*self.command, *self.before, f"--{self.key}={as_text(value)}"]
        content = value if isinstance(value, Text) or not isinstance(value, str) else json.dumps(value)
        content = as_text(content)
        for part in reversed(self.key.split(".")):
            content = f"{{{part}: {content}}}"
        return [*self.command, *self.before, "--config", content.replace("{", "{ ")]

    def refuses(self, value, in_config):
        """Whether ``value`` must be refused there: on a command line, all is text to an option that takes text."""
        kind = self.option.kind
        if not in_config and not isinstance(value, Text):
            if self.command[0] in TOOLS and not isinstance(value, list) and items(kind):
                kind = items(kind)  # a word of a list
            if takes_text(kind):
                return False
        return malformed(value, kind, self.option.least)

    def __str__(self):
        return self.key if not self.before else f"{' '.join(self.before)} --{self.key}"


def spots() -> list[Spot]:
    """Every option that ``fit`` takes, of every class that it can be told."""
    found = [Spot(option, f"trainer.{option.name}") for option in trainer_options()]
    found.append(Spot(Option(main, "seed_everything", Seed | bool, False), "seed_everything"))
    owners = groups()
    for kind in ("model", "data"):
        for owner in owners[kind]:
            needed = [f"--{kind}.{o.name}={as_text(example(o.kind))}" for o in options_of(owner) if o.required]
            before = (f"--{kind}={owner.__name__}", *needed)
            found += [Spot(o, f"{kind}.{o.name}", before) for o in options_of(owner)]
    for owner in owners["mixer"]:
        if owner.__mro__[1].__name__ != "CrossMixer":
            own = [option for option in options_of(owner) if option.name not in FROM_HOST]
            found += [Spot(o, f"model.mixer.{o.name}", (f"--model.mixer={owner.__name__}",)) for o in own]
    for owner in owners["attack"]:
        needed = [f"--model.attacks.some.{o.name}={as_text(example(o.kind))}" for o in options_of(owner) if o.required]
        before = ("--model=Robustness", f"--model.attacks.some={owner.__name__}", *needed)
        found += [Spot(o, f"model.attacks.some.{o.name}", before) for o in options_of(owner)]
    for name, owner in ((name, owner) for name, given in foreign().items() for owner in given):
        place = name.rstrip("+")
        for o in options_of(owner):
            others = [other for other in options_of(owner) if other.required and other not in (o, options_of(owner)[0])]
            needed = [f"--{place}.{other.name}={as_text(example(other.kind))}" for other in others]
            found.append(Spot(o, f"{place}.{o.name}", (f"--{name}={owner.__name__}", *needed)))
    for name, function in ((name, tool(name)) for name in TOOLS):
        words = [as_text(example(o.kind)) for o in options_of(function) if _bare(o) and o.kind is str]
        for o in options_of(function):
            others = [other for other in options_of(function) if other.required and other != o and not _bare(other)]
            needed = [f"--{other.name}={as_text(example(other.kind))}" for other in others]
            found += [] if _bare(o) else [Spot(o, o.name, (*words, *needed), (name,))]
    return found


def _bare(option: Option) -> bool:
    """Whether it is a tool's argument without a name of its own on the command line."""
    return inspect.signature(option.owner).parameters[option.name].kind is not inspect.Parameter.KEYWORD_ONLY


def ended(argv: list[str]) -> tuple[int, str]:
    """Exit code and stderr of a command."""
    before, sys.argv = sys.argv, ["attention_zoo"]
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            main(argv)
    except SystemExit as end:
        return int(end.code or 0), stderr.getvalue()
    finally:
        sys.argv = before
    return 0, stderr.getvalue()
