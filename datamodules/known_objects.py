"""Which objects of COCO and LVIS are classes of ImageNet, so that a classifier of ImageNet can be asked for them.

Lemmas and definitions of WordNet's synsets are those that timm carries (21,844 synsets, the 1000 classes among them).
"""

import re
from collections import Counter
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from attention_zoo.errors import InputError
from datamodules.imagenet import synsets

COCO_SYNSETS = {
    **{"traffic light": "n06874185", "parking meter": "n03891332", "zebra": "n02391049", "backpack": "n02769748"},
    **{"umbrella": "n04507155", "skis": "n04228054", "banana": "n07753592", "orange": "n07747607"},
    **{"broccoli": "n07714990", "hot dog": "n07697537", "pizza": "n07873807", "dining table": "n03201208"},
    **{"tv": "n04404412", "laptop": "n03642806", "mouse": "n03793489", "remote": "n04074963"},
    **{"cell phone": "n02992529", "microwave": "n03761084", "toaster": "n04442312", "refrigerator": "n04070727"},
    **{"vase": "n04522168", "teddy bear": "n04399382", "hair drier": "n03483316"},
}
"""The categories of COCO that are classes of ImageNet.

COCO names no synsets. Names alone mislead: ImageNet's ``kite`` is a hawk and its ``cup`` a punch. Categories of which
ImageNet has kinds alone, such as dogs by their breeds, are left out, since no one output is theirs.
"""


@cache
def _table(kind: str) -> dict[str, str]:
    """Return lemmas or definitions of timm's synsets, by WordNet's offset such as ``n07753592``."""
    text = (files("timm.data") / "_info" / f"imagenet_synset_to_{kind}.txt").read_text(encoding="utf-8")
    return dict(line.split("\t", 1) for line in text.splitlines())


@cache
def _only(kind: str) -> dict[str, str]:
    """Return the offsets by the lemmas or definitions that no other synset has, in plain spelling."""
    parted = {offset: [text] if kind == "definition" else text.split(",") for offset, text in _table(kind).items()}
    words = {offset: set(map(plain, parts)) for offset, parts in parted.items()}
    number = Counter(word for listed in words.values() for word in listed)
    return {word: offset for offset, listed in words.items() for word in listed if number[word] == 1}


def plain(text: str) -> str:
    """Return a text in lower case, without what is neither letter nor number."""
    return "".join(letter for letter in text.lower() if letter.isalnum())


def offset_of(category: Mapping[str, Any]) -> str | None:
    """Return WordNet's offset of an LVIS category, such as ``n07753592``; None if it is not known.

    LVIS names a synset by lemma, part of speech and number of the sense (``banana.n.02``), and only WordNet's own index
    leads from there to the offset. But LVIS also gives the synset's definition, and definitions tell synsets apart.
    Where LVIS has changed its words, the lemma is taken if one synset alone has it, and if that is defined by at least
    half of the words: the kite that children fly is not among the synsets, and the hawk of that name is not meant.

    Raises:
        InputError: the category has no synset.
    """
    synset, definition = category.get("synset"), category.get("def", "")
    if not isinstance(synset, str) or not isinstance(definition, str):
        raise InputError(f"the category {category.get('name')!r:.60} has no synset, which categories of LVIS have")
    offset = _only("definition").get(plain(definition))
    named = _only("lemma").get(plain(synset.split(".")[0]))
    if offset is not None or named is None:
        return offset
    own, known = _words(definition), _words(_table("definition")[named])
    return named if own and 2 * len(own & known) >= len(own) else None


def _words(text: str) -> set[str]:
    """Return the words of a definition that carry its meaning: those of four letters or more."""
    return {word for word in re.findall(r"[a-z]+", text.lower()) if len(word) > 3}


def label_of(category: Mapping[str, Any]) -> int | None:
    """Return the output of an ImageNet classifier that means an LVIS category; None if there is none."""
    offset = offset_of(category)
    return synsets().index(offset) if offset in synsets() else None


def coco_labels(names: list[str]) -> dict[int, int]:
    """Return the outputs of an ImageNet classifier by the places of COCO's categories in ``names`` that agree."""
    return {place: synsets().index(COCO_SYNSETS[name]) for place, name in enumerate(names) if name in COCO_SYNSETS}
