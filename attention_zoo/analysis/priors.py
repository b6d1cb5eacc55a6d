"""What a top-down pass is told to look for, from words: a class by its name, its WordNet number or its place."""

import re
from collections.abc import Sequence
from functools import cache

from timm.data import ImageNetInfo
from torch import Tensor

from attention_zoo.domains import shown
from attention_zoo.errors import InputError, unknown
from attention_zoo.models.top_down import TopDown

LEARNED = "learned"
"""The word for the learned query of the model, in place of a class."""

WORDNET = re.compile(r"n\d{8}")
"""A WordNet number, such as ImageNet's folders are called."""


def prior_of(model: TopDown, word: str, class_names: Sequence[str] | None) -> Tensor | None:
    """Return the prior that a word stands for: the prototype (dim,) of a class, or None for the learned query.

    Args:
        model: the model that is told to look for it.
        word: a class, see `class_index`, or ``learned``.
        class_names: names of the model's classes; None if they have none.

    Raises:
        InputError: there is no such class, or the model has no classifier.
    """
    if word == LEARNED and word not in (class_names or ()):
        return None
    if model.num_classes < 1:
        raise InputError(f"prior {word!r}: the model has no classifier, whose rows are the prototypes of classes")
    index = class_index(word, class_names, model.num_classes)
    return model.class_prior(index).detach()


def class_index(word: str, class_names: Sequence[str] | None, count: int) -> int:
    """Return the place of a class among the outputs of a model.

    Args:
        word: its name, whatever the case; for the classes of ImageNet also its WordNet number or one of its English
            names, whichever of the two the names are; or its place, from 0. A name comes before a place.
        class_names: names of the classes, in the order of the outputs; None if they have none.
        count: number of outputs.

    Raises:
        InputError: there is no such class; the message has the nearest names.
    """
    names = tuple(class_names or ())
    further = _aliases(names)
    lower = further | {name.lower(): place for place, name in reversed(list(enumerate(names)))}
    if word in names:
        return names.index(word)
    if word.lower() in lower:
        return lower[word.lower()]
    is_place = re.fullmatch(r"\d{1,9}", word, re.ASCII)
    if is_place and int(word) < count:
        return int(word)
    if is_place or not names:
        here = "" if names else "the classes of this model have no names; "
        raise InputError(f"prior {shown(word)!r}: {here}give a place from 0 to {count - 1}")
    raise unknown("class", shown(word), [*names, *further])


@cache
def _aliases(names: tuple[str, ...]) -> dict[str, int]:
    """Return the places of ImageNet's classes by their WordNet numbers and English names, in lower case.

    It is empty where the names are of other classes.
    """
    info = ImageNetInfo("imagenet-1k")
    texts = {number: info.label_name_to_description(number) for number in info.label_names()}
    numbers = names if names and all(WORDNET.fullmatch(name) for name in names) else tuple(texts)
    if numbers != names and names != tuple(first_name(texts[number]) for number in numbers):
        return {}
    found: dict[str, int] = {}
    for place, number in enumerate(numbers):
        for alias in (number, *texts.get(number, "").split(", ")):
            found.setdefault(alias.lower(), place)
    return {alias: place for alias, place in found.items() if alias}


def first_name(description: str) -> str:
    """Return the first of the names in one of ImageNet's descriptions, such as ``tench, Tinca tinca``."""
    return description.partition(",")[0]
