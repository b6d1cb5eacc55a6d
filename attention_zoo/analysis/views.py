"""A model before one image: what each of its layers is given, to be asked for rows of its attention.

    view = see(subject, image)                       # image: uint8 (3, H, W), of the size that the model sees
    view.map(3).rows([17])                           # (1, H, 1, N), what token 17 reads in layer 3
    view.norms[3]                                    # (N,), norms of the tokens after layer 3

A model that looks twice is seen in its second pass, under a `Prior`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from attention_zoo.analysis.maps import LayerInput, observe, with_mixers
from attention_zoo.analysis.priors import LEARNED, prior_of
from attention_zoo.analysis.rows import LazyMap, lazy_map
from attention_zoo.analysis.side_by_side import Subject, prediction
from attention_zoo.analysis.top_down import require_top_down
from attention_zoo.hosts.table import swappable
from attention_zoo.models.passes import SecondPass
from attention_zoo.models.top_down import Mode, TopDown


@dataclass(frozen=True)
class Prior:
    """What a model that looks twice is told to look for.

    Attributes:
        word: what to look for, see `prior_of`.
        alpha: scale of what is sent back; None is the model's own.
        mode: what the second pass hears; None is the model's own.
    """

    word: str = LEARNED
    alpha: float | None = None
    mode: Mode | None = None


class View:
    """A model before one image.

    Args:
        image: (3, H, W) uint8, as the model sees it.
        layers: all layers of attention with their inputs.
        norms: L2 norms (N,) of the tokens after the block of each layer; None where a block gives no tokens.
        prior: what a model that looks twice looked for, with its own alpha and mode where none were given; None for a
            model of one pass.
        similarity: how much each output token (N,) of the first pass is what the prior asks for, if there is one.
        prediction: the most probable class; empty for a model whose classes have no names.
    """

    def __init__(
        self,
        image: Tensor,
        layers: Sequence[LayerInput],
        norms: Sequence[Tensor | None],
        prior: Prior | None,
        similarity: Tensor | None,
        prediction: str,
    ) -> None:
        self.image, self.layers, self.norms = image, layers, norms
        self.prior, self.similarity, self.prediction = prior, similarity, prediction
        self._maps: dict[int, LazyMap] = {}

    def map(self, layer: int) -> LazyMap:
        """Return the attention map of a layer, which is kept until `forget`.

        Raises:
            InputError: see `lazy_map`.
        """
        if layer not in self._maps:
            self._maps[layer] = lazy_map(self.layers[layer])
        return self._maps[layer]

    def held(self, layer: int) -> int:
        """Return the bytes of the maps that are kept of a layer."""
        return self._maps[layer].held() if layer in self._maps else 0

    def forget(self, layer: int) -> None:
        """Keep the map of a layer no longer."""
        self._maps.pop(layer, None)


@torch.no_grad()
def see(subject: Subject, image: Tensor, prior: Prior | None = None) -> View:
    """Run a model on an image, and return what its layers are given.

    Args:
        subject: the model.
        image: (3, H, W) uint8, of the size that the model sees.
        prior: what to look for; None is the model's own, or nothing for a model of one pass.

    Raises:
        InputError: the model has no attention, or no second pass that a prior could steer, or there is no such class.
    """
    model, batch = subject.show(image)
    model = with_mixers(model)
    if prior is not None:
        require_top_down(model)
    depth = len(swappable(model))
    names = f"0-{max(depth - 1, 0)}"
    if isinstance(model, TopDown):
        prior = prior or Prior()
        prior = Prior(prior.word, model.alpha if prior.alpha is None else prior.alpha, prior.mode or model.mode)
        twice = _Twice(prior, subject.class_names, depth)
        output, layers = observe(model, batch, names, twice)
        second = cast(SecondPass, twice.second)
        blocks: list[Tensor | None] = [after for _, after in second.states]
        similarity = second.similarity[0, :, 0].cpu()
    else:
        with _outputs_of_blocks(model) as blocks:
            output, layers = observe(model, batch, names)
        similarity = None
    said = "" if subject.class_names is None else prediction(output, subject.class_names)
    return View(image, layers, [_norms(after) for after in blocks], prior, similarity, said)


class _Twice:
    """Runs both passes of a model under a prior, and keeps the second.

    Args:
        prior: what to look for, with alpha and mode.
        class_names: names of the model's classes; None if they have none.
        depth: the number of layers.
    """

    def __init__(self, prior: Prior, class_names: Sequence[str] | None, depth: int) -> None:
        self.prior, self.class_names, self.depth = prior, class_names, depth
        self.second: SecondPass | None = None

    def __call__(self, model: TopDown, images: Tensor) -> Tensor:
        """Return the logits (B, classes) of images (B, 3, H, W)."""
        prior, keep = self.prior, range(self.depth)
        asked = prior_of(model, prior.word, self.class_names)
        first = model.first_pass(images, keep if prior.mode == "perceiver_io" else ())
        self.second = model.second_pass(first, asked, alpha=prior.alpha, mode=prior.mode, keep=keep)
        return first.host.classify(self.second.output)


@contextmanager
def _outputs_of_blocks(model: nn.Module) -> Iterator[list[Tensor | None]]:
    """Collect what the module around each layer returns inside the context, None where it does not run."""
    found: list[Tensor | None] = []
    handles = []
    for place, (name, _) in enumerate(swappable(model)):
        found.append(None)

        def keep(module: nn.Module, inputs: Any, output: Any, place: int = place) -> None:
            found[place] = output if isinstance(output, Tensor) else None

        if "." in name:
            block = model.get_submodule(name.rpartition(".")[0])
            handles.append(block.register_forward_hook(keep))
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _norms(tokens: Tensor | None) -> Tensor | None:
    """Return the L2 norms (N,) of the tokens (1, N, C) of one image; None if they are none."""
    return None if tokens is None or tokens.dim() != 3 else tokens[0].norm(dim=-1).float().cpu()
