"""Figures of what a model looks at under a prior: bottom-up, how much each token is asked for, and top-down.

    look = Look(priors=["tern", "lizard"], alphas=[1, 3, 10])
    figure = top_down_sheet(subjects, {"photo": decode("photo.jpg")}, look)

A row is an image under one prior. These are figures of the tech report EECS-2024-49: two objects (2.4), several
algorithms (2.5, A.8), the learned query (2.7), the scale alpha (2.8), natural images (A.7).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from attention_zoo.analysis.figures import Cell, sheet
from attention_zoo.analysis.maps import evaluating
from attention_zoo.analysis.priors import LEARNED, prior_of
from attention_zoo.analysis.side_by_side import ImageFunction, Subject, prediction, unchanged
from attention_zoo.domains import checked
from attention_zoo.errors import InputError
from attention_zoo.functional.checks import check_finite
from attention_zoo.mixers.swapping import layer_indices
from attention_zoo.models.token_hosts import Layer, TokenHost
from attention_zoo.models.top_down import TWICE, FirstPass, Mode, SecondPass, TopDown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Norms = Literal["cut", "plain"]
LEFT_OUT = 3
"""The released demonstration draws the tokens before the last three layers."""


@checked
@dataclass(frozen=True)
class Look:
    """What a figure shows of the two passes.

    Attributes:
        priors: what to look for, see `prior_of`; a row each.
        alphas: scales of what is sent back, a column each; none is the model's own.
        modes: what the second pass hears, a column each; none is the model's own. The weights are those that the model
            was trained with in its own mode.
        layer: the layer whose output tokens are drawn, written as for `attention_maps`; None is the one before the last
            three, as in the released demonstration, or the last where these would be half of all layers or more.
        norms: "plain", the L2 norms of the tokens; or "cut", as in the demonstration, what they have above 0.7 of the
            largest and 0.3 of the least.
    """

    priors: Sequence[str] = (LEARNED,)
    alphas: Sequence[float] = ()
    modes: Sequence[Mode] = ()
    layer: str | None = None
    norms: Norms = "cut"


def top_down_sheet(
    subjects: Sequence[Subject],
    images: Mapping[str, Tensor],
    look: Look,
    corruptions: Mapping[str, ImageFunction] | None = None,
) -> "Figure":
    """Return a sheet with a row for each image, corruption and prior, and for each model columns of what it looks at.

    The columns of a model are the norms of its tokens in the first pass, with the layer that they are of, how much each
    of its output tokens is what the prior asks for, and the norms in the second pass for each mode and alpha. Below a
    picture of norms is what the model then takes the image for.

    Args:
        subjects: the models.
        images: uint8 (3, H, W) by name.
        look: what to show.
        corruptions: functions that corrupt an image at the size that a model sees, by name.

    Raises:
        InputError: a model has no top-down pass, or lacks what ``look`` asks for.
    """
    rows, names, titles = [], [], ["image"]
    for name, image in images.items():
        for corruption, corrupt in {"": unchanged, **(corruptions or {})}.items():
            views = [_View(subject, corrupt(subject.prepare(image)), look) for subject in subjects]
            for prior in look.priors:
                columns = [view.columns(prior) for view in views]
                rows.append([Cell(views[0].image), *(cell for each in columns for cell in each.values())])
                asked = "learned query" if prior == LEARNED else f"prior {prior}"
                names.append("\n".join(filter(None, (name, corruption, asked))))
            titles[1:] = _titles(subjects, columns)
    return sheet(rows, titles, names)


class _View:
    """A model before an image; the first pass is shared by all priors.

    Args:
        subject: the model.
        image: (3, H, W) uint8, of the size that it sees.
        look: what to show.
    """

    @torch.no_grad()
    def __init__(self, subject: Subject, image: Tensor, look: Look) -> None:
        model, batch = subject.show(image)
        self.model = require_top_down(model)
        self.subject, self.image, self.look = subject, image, look
        self.modes = [self.model.check_mode(mode) for mode in look.modes] or [self.model.mode]
        with evaluating(self.model):
            self.layer = drawn_layer(look.layer, len(self.model.host.layers))
            self.first: FirstPass = self.model.first_pass(batch, [self.layer])

    @torch.no_grad()
    def columns(self, word: str) -> dict[str, Cell]:
        """Return the tiles under a prior, by the title of their columns."""
        prior = prior_of(self.model, word, self.subject.class_names)
        found = {f"bottom-up\nlayer {self.layer}": self._norms(self.first.states[0][1], self.first.output)}
        if set(self.modes) != {"feedback"}:
            similarity = self.model.similarity(self.first.output, prior, "absvit")
            found["similarity"] = Cell(self.image, self._place(similarity, self._layer(-1))[0, 0])
        for mode in self.modes:
            for alpha in (None,) if mode == "mask_att" else (self.look.alphas or (None,)):
                with evaluating(self.model):
                    second = self.model.second_pass(self.first, prior, alpha=alpha, mode=mode, keep=[self.layer])
                scale = "" if mode == "mask_att" else f", α = {self.model.alpha if alpha is None else alpha:g}"
                found[f"top-down\n{mode}{scale}"] = self._norms(_tokens(second, mode), second.output, mode)
        return found

    def _norms(self, tokens: Tensor, output: Tensor, mode: Mode | None = None) -> Cell:
        """Return the tile of the norms of tokens, and of what the head reads in the output."""
        layer = self._layer(-1 if mode == "perceiver_io" else self.layer)
        norms = self._place(tokens, layer).norm(dim=1)[0]
        if self.look.norms == "cut":
            norms = (norms - (0.7 * norms.max() + 0.3 * norms.min())).clamp(min=0)
        caption = prediction(self.first.host.classify(output), self.subject.class_names)
        return Cell(self.image, norms, caption)

    def _place(self, tokens: Tensor, layer: Layer) -> Tensor:
        """Return the tokens (1, N, C) of a layer as maps (1, C, height, width) on the CPU."""
        host: TokenHost = self.first.host
        return check_finite(f"tokens of {type(self.model).__name__}", host.maps(tokens, layer)).float().cpu()

    def _layer(self, index: int) -> Layer:
        return self.first.host.layers[index]


def _tokens(second: SecondPass, mode: Mode) -> Tensor:
    """Return the tokens that are drawn of a second pass: those of its layer, or its output where it has no layers."""
    return second.output if mode == "perceiver_io" else second.states[0][1]


def require_top_down(model: Any) -> TopDown:
    """Return the model, if it has a top-down pass.

    Raises:
        InputError: it has none.
    """
    if not isinstance(model, TopDown):
        name = type(model).__name__
        raise InputError(f"{name} has no top-down pass that a prior could steer; {TWICE}")
    return model


def drawn_layer(layer: str | None, depth: int) -> int:
    """Return the place of the layer that a `Look` names, in a model of ``depth`` layers.

    Raises:
        InputError: it is no layer, or several.
    """
    if layer is None:
        return depth - 1 if depth <= 2 * LEFT_OUT else depth - LEFT_OUT - 1  # a signal has moved little in the first
    chosen = layer_indices(layer, depth)
    if len(chosen) != 1:
        raise InputError(f"layers {layer!r}: norms under a prior are drawn of one layer; write '3' or 'last'")
    return chosen[0]


def _titles(subjects: Sequence[Subject], columns: Sequence[Mapping[str, Cell]]) -> list[str]:
    """Return the title of every column; where there are several models, each begins with the name of its own."""
    titles = []
    for number, (subject, each) in enumerate(zip(subjects, columns, strict=True), 1):
        name = (subject.name or f"model {number}") if len(subjects) > 1 else ""
        titles += ["\n".join(filter(None, (name, title))) for title in each]
    return titles
