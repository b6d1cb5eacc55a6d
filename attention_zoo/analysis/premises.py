"""Whether the premises of readings hold in the layers of a model with trained weights.

    for layer in examine(model, images):                     # images (B, 3, H, W), as the model wants them
        layer.measures["row entropy"].last                   # (B, H)

    findings([examine(model, images) for images in batches])     # over all images, in plain numbers

A reading states its premise in its own file (`attention_zoo.mixers.premise`). What can be asked of every reading is
measured here: how rows of attention maps are spread, and how alike tokens have become.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from attention_zoo.analysis.maps import LayerInput, evaluating, observe
from attention_zoo.errors import InputError
from attention_zoo.functional.diagnostics import effective_rank, row_entropy, token_diversity, tokens_of_mass
from attention_zoo.hosts.table import swappable
from attention_zoo.mixers.base import HostOptions, SelfMixer
from attention_zoo.mixers.premise import Measure, Measures, ModelPremise, Premise
from attention_zoo.mixers.protocols import Linked
from attention_zoo.mixers.registry import create_mixer, list_mixers, mixer_class

ANY = "any reading"
"""The name under which stands what can be asked of every reading."""

DIVERSITY = "diversity of the tokens"
"""The measure that every layer has for each image, without heads."""

ABOUT_ANY = "Tokens read some tokens more than others, and differ from each other afterwards."


@dataclass(frozen=True)
class Examined:
    """What was measured of one reading in one layer.

    Attributes:
        layer: the layer's place among the layers of the model, from 0.
        reading: name of the mixer class whose premise it is, of the model class, or `ANY`.
        premise: the premise, in a sentence.
        measures: what was measured, for every image and head.
    """

    layer: int
    reading: str
    premise: str
    measures: Measures


@torch.no_grad()
def examine(
    model: nn.Module, images: Tensor, layers: str | None = None, readings: Sequence[str] = ()
) -> list[Examined]:
    """Return what can be measured in the layers of ``model`` on ``images``, in evaluation mode.

    That is the premise of each layer's own reading, if its mixer brings one; the premises of further ``readings`` on
    the queries, keys and values of the same layers; that of the model itself, if it brings one; and, for every reading,
    the spread of the rows of the attention map and the diversity of the tokens.

    Args:
        model: a model of self-mixers or of timm's attention.
        images: (B, 3, H, W), normalised as the model wants them.
        layers: ``"3"``, ``"0-3"``, ``"last"`` or ``"last-4"``; None is all.
        readings: names of self-mixers that bring a premise and have no parameters but projections.

    Raises:
        InputError: the layers do not exist, the model has no attention, or a reading cannot be asked of it.
    """
    last = len(swappable(model)) - 1
    found: list[Examined] = []
    with evaluating(model):
        every = observe(model, images, f"0-{max(last, 0)}" if layers is None else layers).layers
        for seen, others in zip(every, _others(every, readings), strict=True):
            found += _of_layer(seen, others)
        return found + list(_of_the_model(model, images, {each.layer for each in found}))


def _of_layer(seen: LayerInput, others: Sequence[SelfMixer]) -> Iterator[Examined]:
    """Yield what can be measured in a layer, of any reading, of its own and of further ones."""
    mixer = seen.mixer
    yield Examined(seen.layer, ANY, ABOUT_ANY, about_any(seen))
    q, k, v = mixer.project(seen.tokens, **seen.signal)
    if isinstance(mixer, Premise):
        yield Examined(seen.layer, type(mixer).__name__, mixer.premise, mixer.premise_measures(q, k, v))
    if mixer.takes_tokens:
        q = q[..., : mixer.head_dim]  # the tokens, which follow, are for the mixer itself
    for other in others:
        premise = cast(Premise, other)  # which `check_readings` has seen to
        yield Examined(seen.layer, type(other).__name__, premise.premise, premise.premise_measures(q, k, v))


def about_any(seen: LayerInput) -> Measures:
    """Return what can be asked of every reading in a layer."""
    weights = seen.mixer.attention_map(seen.tokens, **seen.signal)
    number = weights.shape[-1]
    holding = tokens_of_mass(weights)
    kind = holding.dtype
    return {
        "row entropy": Measure(row_entropy(weights)),
        "effective rank of the map": Measure(effective_rank(weights)),
        "tokens that hold 90% of a row": Measure(holding.mean(-1)),
        "rows that read one token": Measure((holding == 1).to(kind).mean(-1)),
        "rows that average most tokens": Measure((holding > number / 2).to(kind).mean(-1)),
        DIVERSITY: Measure(token_diversity(seen.tokens)[:, None]),
    }


def check_readings(names: Sequence[str]) -> None:
    """Refuse readings whose premise cannot be asked of another mixer's weights.

    Raises:
        InputError: there is no such self-mixer, it brings no premise, or its premise needs what only a model trained
            with it has.
    """
    for name in names:
        cls = mixer_class(name)
        if not (issubclass(cls, SelfMixer) and _brings_premise(cls)):
            raise InputError(f"mixer {name} brings no premise; {_choices()}")
        if not _can_be_asked_of_others(name):
            own = "needs parameters, or buffers, that only a model trained with it has"
            raise InputError(f"the premise of {name} {own}; {_choices()}")


def _choices() -> str:
    """Return which readings can be asked of any mixer's weights, for the end of a message."""
    names = []
    for name in list_mixers("self"):
        with suppress(InputError):  # of a mixer from outside that these sizes do not fit
            names += [name] if _brings_premise(mixer_class(name)) and _can_be_asked_of_others(name) else []
    return "choose from: " + ", ".join(names)


def _brings_premise(cls: type) -> bool:
    return hasattr(cls, "premise") and hasattr(cls, "premise_measures")


def _can_be_asked_of_others(name: str) -> bool:
    """Return whether a mixer has nothing of its own but projections: no parameters, no buffers such as centroids."""
    mixer = cast(SelfMixer, create_mixer(name, 8, 2, grid=(2, 2)))
    return not mixer.takes_tokens and not mixer.drop_projections().state_dict()


def _others(layers: Sequence[LayerInput], readings: Sequence[str]) -> list[list[SelfMixer]]:
    """Return the mixers of the further readings for each of some layers, each linked with that of the layer before."""
    every = [_others_of_layer(seen, readings) for seen in layers]
    for place, (one, two) in enumerate(itertools.pairwise(every)):
        follows = layers[place].layer + 1 == layers[place + 1].layer
        before = {type(mixer): mixer for mixer in one}
        for mixer in two if follows else ():
            if isinstance(mixer, Linked):
                mixer.follow(before.get(type(mixer)))
    return every


def _others_of_layer(seen: LayerInput, readings: Sequence[str]) -> list[SelfMixer]:
    """Return the mixers of the further readings, with the width, heads and grid of a layer; its own is left out."""
    mixer = seen.mixer
    names = [name for name in dict.fromkeys(readings) if mixer_class(name) is not type(mixer)]
    if names and not mixer.projections:
        raise InputError(f"layer {seen.layer} is {type(mixer).__name__}, which has no queries to ask {names[0]} of")
    host: HostOptions = {"grid": seen.grid, "num_prefix_tokens": seen.num_prefix_tokens}
    others = [cast(SelfMixer, create_mixer(name, mixer.dim, mixer.num_heads, **host)) for name in names]
    return [other.drop_projections().eval() for other in others]


def _of_the_model(model: nn.Module, images: Tensor, layers: set[int]) -> Iterator[Examined]:
    """Yield what a model measures of its own premise in some layers; nothing if it brings none."""
    if isinstance(model, ModelPremise):
        for layer, measures in enumerate(model.premise_measures(images)):
            if layer in layers:
                yield Examined(layer, type(model).__name__, model.premise, measures)


@dataclass(frozen=True)
class Finding:
    """What one measure says of one layer over all images, in plain numbers; None is what no image defines.

    Attributes:
        layer: the layer's place among the layers of the model, from 0.
        reading: name of the reading that it belongs to, see `Examined`.
        measure: what was measured.
        mean: the mean over images and heads, of a path after its last step.
        deviation: the standard deviation over images of their means over heads; None with one image.
        heads: the mean over images for each head.
        path: the means after each step; None without steps.
        reference: the mean of what the premise compares with; None where it compares nothing.
        better: on which side of the reference the premise says the values lie.
        holds: the share of images and heads in which they do.
        counted: number of images and heads in which the measure is a finite number.
        total: number of images and heads.
    """

    layer: int
    reading: str
    measure: str
    mean: float | None
    deviation: float | None
    heads: tuple[float | None, ...]
    path: tuple[float | None, ...] | None
    reference: float | None
    better: str | None
    holds: float | None
    counted: int
    total: int


def findings(batches: Iterable[Sequence[Examined]]) -> list[Finding]:
    """Return what the measures of several batches of images say together, in the order of the first."""
    collected: dict[tuple[int, str, str], list[Measure]] = {}
    for batch in batches:
        for each in batch:
            for name, measure in each.measures.items():
                collected.setdefault((each.layer, each.reading, name), []).append(measure)
    return [_finding(*key, measures) for key, measures in collected.items()]


def _finding(layer: int, reading: str, name: str, measures: Sequence[Measure]) -> Finding:
    """Return what one measure says over the images of all batches."""
    last = torch.cat([measure.last for measure in measures]).double()
    references = [measure.compared_with for measure in measures]
    compared = None if references[0] is None else torch.cat([x for x in references if x is not None]).double()
    defined = last.isfinite() if compared is None else last.isfinite() & compared.isfinite()
    known = torch.where(defined, last, math.nan)
    spread = known.nanmean(1)
    spread = spread[spread.isfinite()]
    path = torch.cat([measure.values for measure in measures]).double() if measures[0].values.dim() == 3 else None
    held = None if compared is None else [measure.holds for measure in measures]
    return Finding(
        layer=layer,
        reading=reading,
        measure=name,
        mean=_number(known.nanmean()),
        deviation=_number(spread.std()) if len(spread) > 1 else None,
        heads=tuple(map(_number, known.nanmean(0))),
        path=None if path is None else tuple(_number(step[step.isfinite()].mean()) for step in path.unbind(-1)),
        reference=None if compared is None else _number(compared[defined].mean()),
        better=measures[0].better if compared is not None else None,
        holds=None if held is None else _number(torch.cat([x for x in held if x is not None])[defined].double().mean()),
        counted=int(defined.sum()),
        total=defined.numel(),
    )


def _number(x: Tensor) -> float | None:
    """Return a tensor of one number as a number, or None if it is not finite."""
    return float(x) if bool(x.isfinite()) else None
