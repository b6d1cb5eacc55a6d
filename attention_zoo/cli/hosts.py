"""``python -m attention_zoo hosts``: lists timm's architectures with attention, and which mixers can stand in them."""

from collections.abc import Mapping

import timm

from attention_zoo.errors import InputError, unknown
from attention_zoo.hosts.survey import (
    TABLE,
    Survey,
    architectures,
    is_host,
    readings,
    share,
    survey_architecture,
    surveys,
    write_surveys,
)
from attention_zoo.hosts.table import OBSTACLES
from attention_zoo.mixers.registry import self_mixers
from attention_zoo.terminal import console, text_table

HEADER = ("Architecture", "Attention", "Host", "Mixers, or why not")
NO_PLACE = "has options that leave no place for a mixer"
FEW = 12
"""Number of mixers up to which they are named."""

MARKDOWN = ("attention of timm", "architectures", "such as", "mixers, or why not")


def hosts(filter: str = "*", mixer: str | None = None, markdown: bool = False, refresh: bool = False) -> None:
    """List timm's architectures with attention: which are hosts, of how many mixers, or why not.

    The models of this package that timm knows (FAN, RVT, ...) are listed and counted apart.

    Args:
        filter: a pattern of names, such as 'swin*', or several with commas between them.
        mixer: list only hosts of this mixer, such as Window.
        markdown: print one row for each kind of architecture, as markdown.
        refresh: build all architectures anew (many minutes), and write the table that other calls read.
    """
    names, own = architectures(filter), architectures(filter, "attention_zoo")
    if not names + ([] if markdown else own):
        raise InputError(f"filter {filter!r} matches no architecture; '*' stands for any letters, as in 'swin*'")
    if mixer is not None and mixer not in self_mixers():
        raise unknown("mixer of tokens among themselves", mixer, self_mixers())
    if refresh:
        if filter != "*":
            raise InputError(f"refresh writes the table of all architectures; leave filter {filter!r} out")
        write_surveys(TABLE, {name: survey_architecture(name) for name in names})
    every = surveys(names)
    attending = {name: layers for name, layers in every.items() if layers}
    ours = {} if markdown else surveys(own)
    if mixer is not None:
        taking = [
            {name: layers for name, layers in some.items() if mixer in readings(layers)} for some in (attending, ours)
        ]
        number = sum(map(len, taking))
        attending, ours = taking if number else (attending, ours)  # where it has no place, it is said why
    if markdown:
        console().print(markdown_table(attending), soft_wrap=True)
    elif attending or ours:
        console().print(text_table(HEADER, [_row(name, layers) for name, layers in {**attending, **ours}.items()]))
    if names:
        console().print(counts(every), soft_wrap=True)
    if own and not markdown:
        console().print(f"{len(own)} of attention_zoo's own match{' too' if names else ''}.", soft_wrap=True)
    if mixer is not None:
        console().print(f"{number} of them are hosts of {mixer}.", soft_wrap=True)


def counts(every: Mapping[str, Survey]) -> str:
    """Return the sentence that says how many of these architectures are hosts."""
    number, attending, total = share(every.values())
    of = f" ({number / attending:.0%})" if attending else ""
    return (
        f"{number} of {attending} architectures with attention are hosts{of}; "
        f"{total - attending} of {total} have none (timm {timm.__version__})."
    )


def markdown_table(every: Mapping[str, Survey]) -> str:
    """Return one row for each set of attention layers, the most frequent first."""
    groups: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name, layers in every.items():
        key = tuple((layer, "none" if needs is None else " ".join(needs)) for layer, needs in layers.items())
        groups.setdefault(key, []).append(name)
    ordered = sorted(groups.values(), key=lambda names: (-len(names), names))
    rows = [MARKDOWN, ("---",) * len(MARKDOWN)]
    for names in ordered:
        layers = every[names[0]]
        kinds = ", ".join(f"`{layer}`" for layer in layers)
        rows.append((kinds, str(len(names)), f"`{names[0]}`", verdict(layers)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(name: str, layers: Survey) -> tuple[str, ...]:
    return name, "\n".join(layers), "yes" if is_host(layers) else "no", verdict(layers)


def verdict(layers: Survey) -> str:
    """Return how many mixers can stand in an architecture and what they have to be, or why none can."""
    kept = [f"{layer} {OBSTACLES.get(layer, NO_PLACE)}" for layer, needs in layers.items() if needs is None]
    if not is_host(layers):
        return "; ".join(kept)
    asked = {need for needs in layers.values() if needs is not None for need in needs}
    told = all("grid" in needs for needs in layers.values() if needs is not None)
    kind = "that take its position biases" if "bias" in asked else "of sets and grids" if told else "of sets of tokens"
    kind = "whose scores positions scale" if "fixed" in asked else kind
    stays = ", ".join(layer for layer, needs in layers.items() if needs is None)
    names = readings(layers)
    number = f"{len(names)} of {len(self_mixers())}, {kind}"
    few = f": {', '.join(names)}" if len(names) <= FEW else ""
    return number + few + (f"; timm's own: {stays}" if stays else "")
