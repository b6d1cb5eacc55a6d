"""The models and images of the attention page, and what was computed of them lately."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attention_zoo.analysis.maps import atom_pictures, cluster_pictures, token_of
from attention_zoo.analysis.rows import LazyMap, rollout_columns, rollout_rows
from attention_zoo.analysis.side_by_side import ImageFunction, Subject
from attention_zoo.analysis.views import Prior, View, see
from attention_zoo.errors import InputError, unknown
from attention_zoo.functional.checks import check_finite

MOST_BYTES = 1 << 30
"""Bytes of maps that are kept, and of images; a layer at 3,136 tokens may have half of those of maps."""

MOST_VIEWS = 12
"""Models before an image that are kept."""

MOST_UPLOADS = 16
"""Images that visitors have brought and that are kept."""

KINDS = ("reads", "read_by", "rollout_reads", "rollout_read_by", "norms", "similarity", "atoms", "clusters")
"""What a picture can be of."""

ROLLOUT = "the product of the maps of all layers up to this one, mean over heads, each averaged with its residual"


@dataclass(frozen=True)
class Shown:
    """What models are shown.

    Attributes:
        image: name of the image.
        corruption: name of its corruption; None leaves it as it is.
        severity: of the corruption, 1 to 5.
        prior: what models that look twice look for; None is their own.
    """

    image: str
    corruption: str | None = None
    severity: int = 3
    prior: Prior | None = None


@dataclass(frozen=True)
class Asked:
    """A picture of a layer that is asked for.

    Attributes:
        kind: one of `KINDS`.
        layer: the layer.
        token: whose attention it is, see `token_of`.
        head: ``mean``, ``each``, or the number of a head; ``every`` is each of all layers of the same tokens.
        step: the step of a recurrent reading; None is the last.
        count: the number of atoms.
    """

    kind: str
    layer: int
    token: str = "0,0"
    head: str = "mean"
    step: int | None = None
    count: int = 8


@dataclass(frozen=True)
class Given:
    """Pictures on the tokens of a layer.

    Attributes:
        values: (K, M) float32: one value for each token of each picture, the prefix first.
        prefix: number of tokens before the grid among them.
        grid: height and width of the token grid.
        how: how they were computed, in words.
        steps: number of steps of a recurrent reading that can be asked for.
        layers: the layers that the pictures are of.
    """

    values: Tensor
    prefix: int
    grid: tuple[int, int]
    how: str = ""
    steps: int = 0
    layers: tuple[int, ...] = ()


class Gallery:
    """Models before images; what was computed last is kept.

    Args:
        subjects: the models, by the names that they are shown under.
        images: functions that read images, uint8 (3, H, W), by name.
        corrupt: returns the function that corrupts an image by the name of a corruption and its severity.
    """

    def __init__(
        self,
        subjects: Mapping[str, Subject],
        images: Mapping[str, Callable[[], Tensor]],
        corrupt: Callable[[str, int], ImageFunction],
    ) -> None:
        self.subjects, self.images, self.corrupt = dict(subjects), dict(images), corrupt
        self._uploads: OrderedDict[str, Tensor] = OrderedDict()
        self._views: OrderedDict[tuple[int, Shown], View] = OrderedDict()
        self._recent: OrderedDict[tuple[int, Shown, int], None] = OrderedDict()

    def add(self, name: str, content: bytes, image: Tensor) -> str:
        """Keep an image (3, H, W) uint8 that a visitor brought, and return the name that it is asked for by.

        Args:
            name: what the visitor calls it.
            content: the bytes of its file, which the name depends on so that one tab's image is no other's.
            image: the image.
        """
        key = f"{name} ({hashlib.sha256(content).hexdigest()[:12]})"
        self._uploads[key] = image
        self._uploads.move_to_end(key)
        while len(self._uploads) > 1 and (len(self._uploads) > MOST_UPLOADS or self._uploaded > MOST_BYTES):
            self._uploads.popitem(last=False)
        return key

    @property
    def _uploaded(self) -> int:
        """Bytes of the images that visitors have brought."""
        return sum(image.nbytes for image in self._uploads.values())

    def view(self, model: int, shown: Shown) -> View:
        """Return a model before an image.

        Raises:
            InputError: there is no such model, image or corruption, or see `see`.
        """
        key = model, shown
        if key not in self._views:
            subject = self.subject(model)
            image = subject.prepare(self._image(shown.image))
            if shown.corruption is not None:
                image = self.corrupt(shown.corruption, shown.severity)(image)
            self._views[key] = see(subject, image, shown.prior)
        self._views.move_to_end(key)
        while len(self._views) > MOST_VIEWS:
            gone, _ = self._views.popitem(last=False)
            for each in [each for each in self._recent if each[:2] == gone]:
                del self._recent[each]
        return self._views[key]

    @torch.no_grad()
    def give(self, model: int, shown: Shown, asked: Asked) -> Given:
        """Return the pictures that are asked for.

        Raises:
            InputError: the model has no such layer, token, head or step, or not what is asked for.
        """
        view = self.view(model, shown)
        seen = view.layers[self._layer(view, asked.layer)]
        if asked.kind in ("norms", "similarity"):
            return self._of_tokens(view, asked)
        if asked.kind in ("atoms", "clusters"):
            return self._on_grid(view, asked)
        if asked.kind not in KINDS:
            raise unknown("picture", asked.kind, KINDS)
        if asked.head == "every":
            return self._every(model, shown, asked)
        token = token_of(seen, asked.token)
        if asked.kind.startswith("rollout"):
            maps = [self._map(model, shown, layer) for layer in range(asked.layer + 1)]
            reads = asked.kind == "rollout_reads"
            values = rollout_rows(maps, [token])[0] if reads else rollout_columns(maps, [token])[0].mT
            how, steps = ROLLOUT, 0
        else:
            found = self._map(model, shown, asked.layer)
            reads = asked.kind == "reads"
            each = found.rows([token], asked.step)[0, :, 0] if reads else found.columns([token], asked.step)[0, :, :, 0]
            values, how, steps = self._of_heads(each, asked.head), found.how, found.steps
        self._forget(model, shown, asked.layer)
        return self._given(values, seen.num_prefix_tokens, seen.grid, how, steps)

    def _every(self, model: int, shown: Shown, asked: Asked) -> Given:
        """Return a picture for each head of each layer that has as many tokens and heads as the one asked for."""
        layers = self.view(model, shown).layers
        like = layers[asked.layer]
        chosen = [
            place
            for place, each in enumerate(layers)
            if each.tokens.shape[1] == like.tokens.shape[1] and each.mixer.num_heads == like.mixer.num_heads
        ]
        given = [self.give(model, shown, replace(asked, layer=place, head="each")) for place in chosen]
        return replace(given[0], values=torch.cat([each.values for each in given]), layers=tuple(chosen))

    def _of_tokens(self, view: View, asked: Asked) -> Given:
        """Return the norms of tokens, or their similarity to the prior."""
        seen = view.layers[asked.layer]
        values = view.norms[asked.layer] if asked.kind == "norms" else view.similarity
        if values is None or len(values) != seen.tokens.shape[1]:
            why = "the blocks of this model give no tokens" if asked.kind == "norms" else "this model looks once"
            raise InputError(f"no {asked.kind}: {why}")
        return self._given(values[None], seen.num_prefix_tokens, seen.grid)

    def _on_grid(self, view: View, asked: Asked) -> Given:
        """Return the strongest atoms, or the clusters of each head."""
        seen = view.layers[asked.layer]
        pictures = atom_pictures(seen, asked.count) if asked.kind == "atoms" else cluster_pictures(seen)
        values = torch.cat(list(pictures.values())).flatten(1)
        if asked.kind == "clusters" and asked.head not in ("mean", "each"):  # labels have no mean
            values = self._of_heads(values, asked.head)
        return self._given(values, 0, seen.grid)

    @torch.no_grad()
    def entropies(self, model: int, shown: Shown, layer: int) -> list[float]:
        """Return the mean entropy of the rows of each head of a layer, from 0 (one token) to 1 (all alike).

        Raises:
            InputError: there is no such layer, or see `LazyMap.overview`.
        """
        view = self.view(model, shown)
        found = self._map(model, shown, self._layer(view, layer)).overview.entropy[0]
        self._forget(model, shown, layer)
        return check_finite("entropies", found).tolist()

    def _given(self, values: Tensor, prefix: int, grid: tuple[int, int], how: str = "", steps: int = 0) -> Given:
        return Given(check_finite("pictures", values.detach().float().cpu()), prefix, grid, how, steps)

    def _map(self, model: int, shown: Shown, layer: int) -> LazyMap:
        self._recent[model, shown, layer] = None
        self._recent.move_to_end((model, shown, layer))
        return self._views[model, shown].map(layer)

    def _forget(self, model: int, shown: Shown, layer: int) -> None:
        """Drop the maps that were asked for the longest ago, but not this one, where they are too many."""
        total = sum(self._views[key[:2]].held(key[2]) for key in self._recent)
        for key in list(self._recent):
            if total <= MOST_BYTES:
                return
            if key != (model, shown, layer):
                total -= self._views[key[:2]].held(key[2])
                self._views[key[:2]].forget(key[2])
                del self._recent[key]

    def subject(self, model: int) -> Subject:
        """Return a model by its number.

        Raises:
            InputError: there is none.
        """
        if model not in range(len(self.subjects)):
            raise InputError(f"model {model}: there are models 0 to {len(self.subjects) - 1}")
        return list(self.subjects.values())[model]

    def _image(self, name: str) -> Tensor:
        if name in self.images:
            return self.images[name]()
        if name in self._uploads:
            self._uploads.move_to_end(name)
            return self._uploads[name]
        raise unknown("image", name, self.images, "an image that was dropped here is kept for a while only")

    @staticmethod
    def _layer(view: View, layer: int) -> int:
        if layer not in range(len(view.layers)):
            raise InputError(f"layer {layer}: the model has layers 0 to {len(view.layers) - 1}")
        return layer

    @staticmethod
    def _of_heads(values: Tensor, head: str) -> Tensor:
        """Return values (H, M) of all heads, of one (1, M), or their mean (1, M)."""
        if head == "each":
            return values
        if head == "mean":
            return values.mean(0, keepdim=True)
        if not (head.isascii() and head.isdigit() and len(head) < 4 and int(head) < len(values)):
            raise InputError(f"head {head!r}: mean, each, or a number from 0 to {len(values) - 1}")
        return values[int(head)][None]
