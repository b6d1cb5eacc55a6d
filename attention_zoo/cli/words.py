"""Arguments of the tools as shells like them: ``--mixers A B``, ``--ckpt_path A --ckpt_path B``, ``--overwrite``."""

import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any, get_args, get_origin


def as_config(tool: Callable[..., Any], argv: Sequence[str]) -> list[str]:
    """``argv`` in the form that the parser takes: lists in brackets, switches with a value.

    An option that is a list takes all words up to the next option, and may be given again. Where the tool's first
    argument is a list, it takes the words that no option takes. A switch without a value is ``true``. A ``--config``
    resets what stands before it, and so comes first; but no words leave those of the config.
    """
    parameters = inspect.signature(tool).parameters.values()
    lists = {f"--{parameter.name}" for parameter in parameters if _is_list(parameter.annotation)}
    switches = {f"--{parameter.name}" for parameter in parameters if parameter.annotation is bool}
    first = next((parameter.name for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY), None)
    first = first if f"--{first}" in lists else None
    found: dict[str, list[str]] = {}
    configs: list[str] = []
    rest: list[str] = []
    others = rest
    target = first  # of the words that come now; None: the parser knows
    for argument, after in zip(argv, [*argv, ""][1:], strict=True):
        name, equals, value = argument.partition("=")
        if name in lists:
            target = name
            found.setdefault(name, []).extend([value] if equals else [])
        elif argument.startswith("-"):
            bare = argument in switches and after not in ("true", "false")
            others = configs if name == "--config" else rest
            others += [argument, "true"] if bare else [argument]
            target = first if equals or bare else None
        elif target is None:
            others.append(argument)
            target = first
        else:
            found.setdefault(target, []).append(argument)
    words = [] if first is None else [_in_brackets(found.pop(first, []))]
    given = [*configs, *words] if words != ["[]"] else [*words, *configs]
    return [*given, *(word for name in found for word in (name, _in_brackets(found[name]))), *rest]


def _is_list(annotation: Any) -> bool:
    return list in (get_origin(annotation), *map(get_origin, get_args(annotation)))


def _in_brackets(words: list[str]) -> str:
    """A list in the parser's form; what is in brackets already stays."""
    return words[0] if len(words) == 1 and words[0].startswith("[") else json.dumps(words)
