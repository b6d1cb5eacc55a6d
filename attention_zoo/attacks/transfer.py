"""Transfer: images that another model was attacked on. What hides a model's own gradients does not hide the other's.

N. Papernot, P. McDaniel, I. Goodfellow, Transferability in Machine Learning, 2016.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from attention_zoo.attacks.base import Attack, Watched
from attention_zoo.attacks.gradient import PGD
from attention_zoo.errors import InputError


@dataclass(frozen=True)
class Source:
    """A trained classifier that attacks are transferred from.

    Attributes:
        model: pixels (B, C, H, W) in 0..1 -> logits (B, classes), see `OnPixels`.
        title: its name, for the protocol of results.
        class_names: its classes in the order of the logits.
        image_size: height and width of its images.
    """

    model: nn.Module
    title: str
    class_names: Sequence[str]
    image_size: tuple[int, int]


class Transfer(Attack):
    """An attack on another model, the source, whose images are then shown to the model under test.

    Images that this model gets wrong already stay as they are.

    Args:
        checkpoint: the checkpoint of the source, or its run, whose last one is taken. The command line loads it;
            elsewhere `take` gives the source.
        attack: the attack on the source; None is `PGD`.

    Raises:
        InputError: the attack is itself a transfer.
    """

    source: Source | None = None

    def __init__(self, checkpoint: str, attack: Attack | None = None) -> None:
        if isinstance(attack, Transfer):
            raise InputError("attack=Transfer of a transfer: give the attack on the source, such as PGD")
        self.checkpoint = checkpoint
        self.attack: Attack = PGD() if attack is None else attack

    def take(self, source: Source) -> None:
        """Take the source, of which `checkpoint` is the name."""
        self.source = source

    def check(self, class_names: Sequence[str], image_size: tuple[int, int]) -> None:
        """Check that the source is there, and made for the images and classes of a test.

        Raises:
            InputError: it is not.
        """
        source = self._source()
        if list(source.class_names) != list(class_names):
            theirs, ours = (f"{len(names)} ({', '.join(names):.60})" for names in (source.class_names, class_names))
            raise InputError(f"Transfer: {self.checkpoint} is of other classes: {theirs}; those of the data: {ours}")
        if tuple(source.image_size) != tuple(image_size):
            theirs, ours = (" x ".join(map(str, size)) for size in (source.image_size, image_size))
            raise InputError(f"Transfer: {self.checkpoint} is for images of {theirs} pixels; those of the data: {ours}")

    def perturb(self, model: Watched, pixels: Tensor, label: Tensor, index: Sequence[int]) -> Tensor:
        """Attack one batch of the source for `Attack.run`."""
        places = label.new_tensor(list(index))
        report = lambda words: model.report(f"Transfer: {words}")  # noqa: E731
        attacked = self.attack.run(self._source().model.to(pixels.device), pixels, label, places, report).pixels
        with torch.no_grad():
            right = model(pixels).argmax(1) == label
        return torch.where(right.view(-1, 1, 1, 1), attacked, pixels)

    @property
    def ball(self) -> str | None:
        """The ball of the attack on the source."""
        return self.attack.ball

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the attack on the source, and the name of that."""
        settings = self.attack.settings
        return {**settings, "attack": f"Transfer of {settings['attack']}", "transferred_from": self._source().title}

    def _source(self) -> Source:
        if self.source is None:
            raise InputError(f"Transfer: the source {self.checkpoint} is not loaded: give it to take()")
        return self.source


@runtime_checkable
class Transferring(Protocol):
    """A task with attacks from other models, which the command line loads."""

    @property
    def transfers(self) -> Mapping[str, Transfer]:
        """The attacks that need a source, by the names of their columns."""
