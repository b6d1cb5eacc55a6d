"""What all attacks have in common: the classifier of pixels, the watched passes, and the base class."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attention_zoo.domains import Checked, PositiveFloat, SignedFloat, require
from attention_zoo.errors import InputError
from attention_zoo.functional.checks import check_finite

Norm = Literal["Linf", "L2"]
Classifier = Callable[[Tensor], Tensor]


class OnPixels(nn.Module):
    """A classifier of pixels in 0..1, made from a classifier of normalised images.

    Args:
        model: images (B, C, H, W), normalised -> logits.
        mean: of each channel, for images in 0..1.
        std: of each channel, for images in 0..1.

    Raises:
        InputError: a mean is not finite, or a standard deviation is not above 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for place, value in enumerate(mean):
            require(f"mean[{place}]", value, SignedFloat)
        for place, value in enumerate(std):
            require(f"std[{place}]", value, PositiveFloat)
        self.model = model
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits (B, classes) of pixels (B, C, H, W) in 0..1."""
        return self.model((pixels - self.mean) / self.std)


@dataclass(frozen=True)
class Attacked:
    """The outcome of an attack.

    Attributes:
        pixels: (B, C, H, W) float32, the attacked images.
        no_gradient: (B,) bool, images that the attack could not judge: the model was right, and the gradient of the
            loss 0, in every step. That they withstand says nothing. None where the attack does not look.
    """

    pixels: Tensor
    no_gradient: Tensor | None = None


def unheard(words: str) -> None:
    """Ignore the report of an attack, where nobody listens."""


class Watched:
    """A classifier that reports each of its passes, and raises an error where a logit is not finite.

    Args:
        model: the classifier, pixels (B, C, H, W) -> logits (B, classes).
        name: name of the attack that calls the classifier.
        report: receives a line of text before each pass through the model.
    """

    def __init__(self, model: Classifier, name: str, report: Callable[[str], None]) -> None:
        self.model, self.name, self.report = model, name, report
        self.enter("")

    def enter(self, part: str, most: int | None = None) -> None:
        """Begin a part of the attack, which makes ``most`` passes, and count them from zero."""
        self.part, self.passes, self.most = part, 0, most

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the logits (B, classes) of pixels (B, C, H, W).

        Raises:
            InputError: a logit is not finite.
        """
        self.passes += 1
        words = " ".join(filter(None, (self.name, self.part)))
        passes = f"{self.passes} of {self.most}" if self.most else f"{self.passes}"
        self.report(f"{words}: pass {passes} over {len(pixels)} images")
        return check_finite(f"logits under {self.name}", self.model(pixels))


class Attack(Checked, ABC):
    """An attack: it changes images within a small ball so that a classifier errs.

    Attributes:
        settings: everything that the outcome depends on, as plain values by name.
        looks_at_gradients: whether the attack finds out for which images the loss has no gradient.
        images: the most images that a test attacks, for attacks that are slow; None is no limit.
        norm: norm of the ball; None where the attack has none.
        eps: radius of the ball, of pixels in 0..1; None where the attack has none.
    """

    looks_at_gradients = False
    images: int | None = None
    norm: Norm | None = None
    eps: float | None = None

    def __call__(self, model: Classifier, pixels: Tensor, label: Tensor, index: Tensor | None = None) -> Tensor:
        """Return the attacked images (B, C, H, W) of `run`, given its arguments; warn of images without a gradient."""
        attacked = self.run(model, pixels, label, index)
        blind = 0 if attacked.no_gradient is None else int(attacked.no_gradient.sum())
        if blind:
            warnings.warn(f"{type(self).__name__}: {without_gradient(blind, len(pixels))}", stacklevel=2)
        return attacked.pixels

    def run(
        self,
        model: Classifier,
        pixels: Tensor,
        label: Tensor,
        index: Tensor | None = None,
        report: Callable[[str], None] = unheard,
    ) -> Attacked:
        """Return the attacked images, and for which of them the loss has no gradient.

        Gradients are those of the whole model, in evaluation mode and float32 whatever autocast surrounds the call,
        and flow inside ``torch.inference_mode`` too. Each image is attacked by itself.

        Args:
            model: pixels (B, C, H, W) in 0..1 -> logits (B, classes), see `OnPixels`.
            pixels: (B, C, H, W) in 0..1.
            label: (B,) int64, the right classes.
            index: (B,) int64, the number of each sample: random starts follow from it, not from the batch; default
                0, 1, ...
            report: receives a few words on what the attack does, before each pass through the model.

        Returns:
            The pixels (B, C, H, W), float32, in the ball and in 0..1, and the images without a gradient.

        Raises:
            InputError: the model's logits or gradients are not finite, or it has fewer classes than the loss needs.
        """
        places = range(len(pixels)) if index is None else index.tolist()
        with _differentiating(model, pixels.device.type):
            pixels, label = pixels.float().clone(), label.clone()  # of inference mode, autograd could not keep them
            if not len(pixels):
                return Attacked(pixels, torch.zeros_like(label, dtype=torch.bool))
            outcome = self.perturb(Watched(model, type(self).__name__, report), pixels, label, places)
            outcome = outcome if isinstance(outcome, Attacked) else Attacked(outcome)
            return Attacked(outcome.pixels.detach(), outcome.no_gradient)

    @abstractmethod
    def perturb(self, model: Watched, pixels: Tensor, label: Tensor, index: Sequence[int]) -> Tensor | Attacked:
        """Attack a batch for `run`, which sets everything up; return pixels alone if no gradients are looked at."""

    @property
    def trusts_gradients(self) -> bool:
        """Whether the attack steps along the model's own gradients.

        Where another attack in the same ball finds more than such a one, these may be hidden.
        """
        return False

    @property
    def ball(self) -> str | None:
        """The ball that the attack stays in, in words: attacks are compared in the same ball alone; None without."""
        return None if self.eps is None else f"{self.norm} {length(self.eps, self.norm)}"

    @property
    def settings(self) -> dict[str, Any]:
        """All that the outcome depends on, by name; with the norm Linf, lengths are written as in ``1/255``."""
        values = {"attack": type(self).__name__, **vars(self)}
        if self.norm is not None:
            values["norm"] = self.norm
        values.pop("images", None)  # how many were attacked is a fact of the test
        return {key: length(value, self.norm) if key in ("eps", "step") else value for key, value in values.items()}


def without_gradient(number: int, images: int) -> str:
    """Return a warning about ``number`` of so many ``images``, at which the loss has no gradient."""
    return (
        f"the loss has no gradient at {number} of {images} images that the model gets right; that they withstand says "
        "nothing, take the loss dlr"
    )


def quotient(name: str, value: float | str) -> float:
    """Return the value of a positive number, or of a quotient of two numbers as text, such as ``4/255``.

    Raises:
        InputError: the value is neither; the message calls it ``name``.
    """
    above, sign, below = str(value).partition("/")
    try:
        number = float(above) / float(below if sign else 1)
    except (ValueError, ZeroDivisionError):
        number = 0.0
    if not 0 < number < float("inf"):
        raise InputError(f"{name}={value} must be a positive number or a quotient such as 4/255")
    return number


def length(value: float, norm: Norm | None) -> float | str:
    """Return a length as tables write it: as in ``1/255`` with the norm Linf, else the number itself."""
    return f"{255 * value:g}/255" if norm == "Linf" else value


def radius(eps: float | str, norm: Norm) -> float:
    """Return the radius of a ball; warn where a ball of the norm ``Linf`` holds every image, as pixels are in 0..1.

    Raises:
        InputError: it is neither a positive number nor a quotient; see `quotient`.
    """
    number = quotient("eps", eps)
    if norm == "Linf" and number > 1:
        warnings.warn(f"eps={eps}: pixels are in 0..1, so that this ball holds every image; 4/255?", stacklevel=3)
    return number


@contextmanager
def _differentiating(model: Classifier, device: str) -> Iterator[None]:
    """Turn gradients on and autocast off inside the context, and put the model in evaluation mode."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    training = [module for module in modules if module.training]
    try:
        for module in training:
            module.training = False
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device, enabled=False):
            yield
    finally:
        for module in training:
            module.training = True
