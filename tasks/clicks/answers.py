"""Masks for the clicks of a person, who makes one more, takes some back, or makes them again under other settings."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from attention_zoo.clicks import PADDING, ClickedImage, Clicks
from attention_zoo.mixers.probabilistic import Probabilistic
from tasks.clicks.merge import progressive_merge
from tasks.clicks.protocols import asking_one
from tasks.clicks.settings import Setting
from tasks.clicks.task import ClickTask
from tasks.clicks.views import WholeImages, ZoomIn

MOST_KEPT = 2**25
"""The most probabilities that are kept, all answers together: 128 MiB."""

MOST_ASKS = 8
"""The most views and settings whose features are kept."""


class Step(NamedTuple):
    """What is known after a click: the probabilities (1, 1, h, w) of the view, and what asks about the next click."""

    probability: Tensor
    ask: WholeImages | ZoomIn


class ViewKey(NamedTuple):
    """What the features of a view depend on: the part of the image, the box, and how the model adapts."""

    region: tuple[int, ...]
    box: tuple[float, ...] | None
    setting: tuple[Any, ...]


class ClickAnswers:
    """Answers about the objects of one image: the same for the same clicks, whatever was asked in between.

    Each click is answered after those before it, as in evaluation. What was answered is kept, and so are the features
    where no click enters the encoder, which then runs once for each view and setting of the backbone.

    Args:
        task: in evaluation mode.
    """

    def __init__(self, task: ClickTask) -> None:
        self.task = task
        self._asks: OrderedDict[ViewKey, WholeImages | ZoomIn] = OrderedDict()
        self._steps: OrderedDict[tuple[Any, ...], Step] = OrderedDict()

    @torch.no_grad()
    def mask(self, view: Mapping[str, Any], setting: Setting) -> Tensor:
        """Return the mask (H, W) bool, on the CPU, of one object in all of its image.

        A mask that exists is corrected by `progressive_merge`, click after click, and by nothing else; a model that is
        given the mask before (``guidance="ritm"``) is given it, too. Where values propagate, a click is honoured: the
        pixel that was clicked has the label of its last click.

        Args:
            view: a batch of one image, as `InteractiveDataModule` has it in prediction; padding of clicks is ignored.
            setting: how the model adapts.

        Raises:
            InputError: the model cannot adapt so, or gives numbers that are not finite.
        """
        annotation = ClickedImage.parse(view["annotation"][0])
        threshold = self.task.protocol.threshold if annotation.threshold is None else annotation.threshold
        region, size = view["region"][0].tolist(), view["size"][0].tolist()
        if annotation.mask is None:
            mask = (whole(self._probabilities(view, setting, annotation)[-1][0], region, size) > threshold).cpu()
        else:
            mask = annotation.mask.mask()
            probabilities = self._probabilities(view, setting, annotation) if annotation.clicks else []
            for click, probability in zip(annotation.clicks, probabilities, strict=True):
                mask = progressive_merge(mask, whole(probability[0], region, size) > threshold, click)
        if self.honours(setting):
            for y, x, positive in annotation.clicks:
                mask[round(y), round(x)] = positive
        return mask

    def honours(self, setting: Setting) -> bool:
        """Return whether values propagate in the head, so that clicked pixels have their labels."""
        layers = [layer for layer in self.task.model.head.modules() if isinstance(layer, Probabilistic)]
        built = any(layer.value_propagation > 0 for layer in layers)
        return built if setting.value_propagation is None else setting.value_propagation > 0

    def _probabilities(self, view: Mapping[str, Any], setting: Setting, annotation: ClickedImage) -> list[Tensor]:
        """Return the probabilities (1, 1, h, w) of the view after each click, or those of the box where there is none.

        Where the model does not know what it said before, they are the last alone, but for a mask that is corrected.
        """
        made = view["labels"][0] != PADDING
        clicks = Clicks(view["points"][:, made], view["labels"][:, made])
        chained = annotation.mask is not None or self.task.remembers
        ask = self._ask(view, setting, annotation)
        probability, answers = self._before(view, annotation), []
        with self.task.adaptation(setting):
            for count in range(min(1, clicks.count) if chained else clicks.count, clicks.count + 1):
                key = (self._key(view, setting, annotation), annotation.mask, annotation.clicks[:count])
                if key not in self._steps:
                    ask = ask.branch()
                    self._keep(key, Step(ask(clicks.until(count), probability), ask))
                self._steps.move_to_end(key)
                probability, ask = self._steps[key]
                answers.append(probability)
        return answers

    def _key(self, view: Mapping[str, Any], setting: Setting, annotation: ClickedImage) -> ViewKey:
        return ViewKey(tuple(view["region"][0].tolist()), annotation.box, astuple(setting))

    def _ask(self, view: Mapping[str, Any], setting: Setting, annotation: ClickedImage) -> WholeImages | ZoomIn:
        """Return what asks about a view before the first click; it has the features of another setting that fit."""
        key = self._key(view, setting, annotation)
        if key not in self._asks:
            ask = asking_one(self.task.model, view["image"], view["box"], self.task.protocol, setting.values)
            for other, its in self._asks.items():
                if other[:2] == key[:2] and _in_backbone(Setting(*other.setting)) == _in_backbone(setting):
                    ask.whole.features = its.whole.features  # which are used again where no click enters the encoder
            self._asks[key] = ask
        self._asks.move_to_end(key)
        if len(self._asks) > MOST_ASKS:
            self._asks.popitem(last=False)
        return self._asks[key]

    def _before(self, view: Mapping[str, Any], annotation: ClickedImage) -> Tensor:
        """Return the probabilities (1, 1, h, w) before the first click: the mask that is corrected, or 0."""
        image = view["image"]
        if annotation.mask is None:
            return torch.zeros_like(image[:, :1])
        mask = annotation.mask.mask().to(image)
        return part(mask, view["region"][0].tolist(), image.shape[-2:])[None]

    def _keep(self, key: tuple[Any, ...], step: Step) -> None:
        self._steps[key] = step
        while len(self._steps) > 1 and len(self._steps) * step.probability.numel() > MOST_KEPT:
            self._steps.popitem(last=False)


def _in_backbone(setting: Setting) -> dict[str, Any]:
    """Return the options by which the backbone adapts."""
    return {} if setting.adapt_in == "head" else setting.keys


def whole(probability: Tensor, region: Sequence[int], size: Sequence[int]) -> Tensor:
    """Return the probabilities (H, W) of the image, 0 outside of the view.

    Args:
        probability: (1, h, w), the probabilities of the view.
        region: its first row, first column, height and width in the image; may reach out of it.
        size: height and width of the image.
    """
    top, left, height, width = region
    if tuple(probability.shape[1:]) != (height, width):
        probability = F.interpolate(probability[None], (height, width), mode="bilinear", align_corners=False)[0]
    full = probability.new_zeros(tuple(size))
    rows = slice(max(top, 0), min(top + height, size[0]))
    columns = slice(max(left, 0), min(left + width, size[1]))
    inside = probability[0, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    full[rows, columns] = inside
    return full


def part(mask: Tensor, region: Sequence[int], size: Sequence[int]) -> Tensor:
    """Return the view (1, h, w) of a mask (H, W) float of the image, 0 outside of it; the inverse of `whole`.

    Args:
        mask: of the image.
        region: first row, first column, height and width of the view in the image; may reach out of it.
        size: height and width that the view is resized to.
    """
    (top, left, height, width), (rows, columns) = region, mask.shape
    sides = max(-left, 0), max(left + width - columns, 0), max(-top, 0), max(top + height - rows, 0)
    padded = F.pad(mask[None, None], sides)
    cut = padded[..., max(top, 0) : max(top, 0) + height, max(left, 0) : max(left, 0) + width]
    if tuple(size) != (height, width):
        cut = F.interpolate(cut, tuple(size), mode="bilinear", align_corners=False, antialias=True)
    return cut[0]
