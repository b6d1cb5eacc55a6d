"""Adversarial attacks on a classifier of pixels, with the settings of the robustness tables as defaults.

    x <- P(x + step sign(∇ loss(f(x), y))),  P onto the ball of radius eps about the image and onto [0, 1]

I. Goodfellow et al., Explaining and Harnessing Adversarial Examples, ICLR 2015 (FGSM); A. Madry et al., Towards Deep
Learning Models Resistant to Adversarial Attacks, ICLR 2018 (PGD); F. Croce, M. Hein, Reliable Evaluation of Adversarial
Robustness with an Ensemble of Diverse Parameter-free Attacks, ICML 2020 (AutoAttack).
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.domains import Checked, PositiveFloat, PositiveInt, Seed, SignedFloat, require
from attention_zoo.errors import InputError
from attention_zoo.functional.checks import check_finite
from attention_zoo.seeding import derive_seed

START_SALT = 0xA77
"""A number that keeps the seeds of random starts apart from other seeds of a sample."""

FEWEST_CLASSES = 4
"""The fewest classes that AutoAttack's targeted loss is defined for."""

Norm = Literal["Linf", "L2"]
Loss = Literal["cross_entropy", "margin", "dlr"]
Version = Literal["standard", "plus", "rand"]
Classifier = Callable[[Tensor], Tensor]

LEAST_CLASSES = {"cross_entropy": 1, "margin": 2, "dlr": 3}
"""The fewest classes that a loss needs: the margin needs a second logit, the DLR loss divides by the third largest."""

TINY = 1e-12
"""A number added to the divisor of the DLR loss, as its authors do."""


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
        self.part, self.passes = "", 0

    def enter(self, part: str) -> None:
        """Begin a part of the attack, and count its passes from zero."""
        self.part, self.passes = part, 0

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return the logits (B, classes) of pixels (B, C, H, W).

        Raises:
            InputError: a logit is not finite.
        """
        self.passes += 1
        words = " ".join(filter(None, (self.name, self.part)))
        self.report(f"{words}: pass {self.passes} over {len(pixels)} images")
        return check_finite(f"logits under {self.name}", self.model(pixels))


class Attack(Checked, ABC):
    """An attack: it changes images within a small ball so that a classifier errs.

    Attributes:
        settings: everything that the outcome depends on, as plain values by name.
        looks_at_gradients: whether the attack finds out for which images the loss has no gradient.
    """

    looks_at_gradients = False

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
    def settings(self) -> dict[str, Any]:
        """All that the outcome depends on, by name; with the norm Linf, lengths are written as in ``1/255``."""
        values = {"attack": type(self).__name__, **vars(self)}
        lengths = ("eps", "step") if values.get("norm") == "Linf" else ()
        return {key: f"{255 * value:g}/255" if key in lengths else value for key, value in values.items()}


class PGD(Attack):
    """Projected gradient descent; the defaults are those of the VARS, AbSViT and RVT tables.

    Args:
        eps: radius of the ball, of pixels in 0..1; a number or a quotient such as ``4/255``.
        step: length of a step, written in the same way.
        steps: number of steps.
        random_start: whether to start anywhere in the ball, or else at the image.
        restarts: number of attacks from different random starts; the one that is worst for the model counts.
        loss: the loss to increase: ``cross_entropy``; ``margin``, the largest other logit minus the right one; or
            ``dlr``, the margin over the difference of the largest and the third largest logit (Croce and Hein 2020,
            eq. 6), which does not change with the logits' scale and needs three classes. The first saturates where
            logits are large: its gradient is 0, and such images withstand without having been attacked.
        norm: norm of the ball: ``Linf``, or ``L2`` over an image.
        seed: seed of the random starts; each start follows from it and the number of the sample.

    Raises:
        InputError: an argument is out of range.
    """

    looks_at_gradients = True

    def __init__(
        self,
        eps: float | str = 1 / 255,
        step: float | str = 0.5 / 255,
        steps: PositiveInt = 5,
        *,
        random_start: bool = True,
        restarts: PositiveInt = 1,
        loss: Loss = "cross_entropy",
        norm: Norm = "Linf",
        seed: Seed = 0,
    ) -> None:
        self.eps, self.step = radius(eps, norm), quotient("step", step)
        self.steps, self.restarts = steps, restarts
        self.random_start, self.loss, self.norm, self.seed = random_start, loss, norm, seed
        if restarts > 1 and not random_start:
            raise InputError(f"restarts={restarts} need random_start: without it all are the same")

    def perturb(self, model: Watched, pixels: Tensor, label: Tensor, index: Sequence[int]) -> Attacked:
        """Attack one batch for `Attack.run`."""
        worst, blind = self._attempt(model, pixels, label, index, 0)
        for restart in range(1, self.restarts):
            attempt, also_blind = self._attempt(model, pixels, label, index, restart)
            blind &= also_blind
            with torch.no_grad():
                harm = [_harm(model(images), label, self.loss) for images in (worst, attempt)]
            worst = torch.where((harm[1] > harm[0]).view(-1, 1, 1, 1), attempt, worst)
        return Attacked(worst, blind)

    def _attempt(
        self, model: Watched, pixels: Tensor, label: Tensor, index: Sequence[int], restart: int
    ) -> tuple[Tensor, Tensor]:
        """Return the attacked images, and which of them (B,) never had a gradient while the model was right."""
        attacked, blind = pixels, torch.ones_like(label, dtype=torch.bool)
        if self.random_start:
            seeds = [derive_seed(self.seed, START_SALT, place, restart) for place in index]
            attacked = self._project(pixels + self._starts(pixels, seeds), pixels)
        for _ in range(self.steps):
            attacked = attacked.detach().requires_grad_()
            logits = model(attacked).float()
            gradient = _gradient(_losses(logits, label, self.loss), attacked)
            check_finite(f"gradients under {type(self).__name__}", gradient)
            blind &= (logits.argmax(1) == label) & ~gradient.flatten(1).any(1)
            direction = gradient.sign() if self.norm == "Linf" else _unit(gradient)
            attacked = self._project(attacked.detach() + self.step * direction, pixels)
        return attacked, blind

    def _starts(self, pixels: Tensor, seeds: list[int]) -> Tensor:
        """Return uniform offsets in the ball, each from its own seed; the CPU draws them, the same for every device."""
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        shape = pixels.shape[1:]
        if self.norm == "Linf":
            noise = torch.stack([2 * torch.rand(shape, generator=generator) - 1 for generator in generators])
            return self.eps * noise.to(pixels.device)
        dim = shape.numel()
        directions = torch.stack([torch.randn(dim, generator=generator) for generator in generators])
        radii = torch.stack([torch.rand(1, generator=generator) for generator in generators]) ** (1 / dim)
        return (self.eps * radii * F.normalize(directions)).view_as(pixels).to(pixels.device)

    def _project(self, attacked: Tensor, pixels: Tensor) -> Tensor:
        """Return the nearest point of the ball, cut to 0..1, which only brings it nearer to the image."""
        change = attacked - pixels
        if self.norm == "Linf":
            change = change.clamp(-self.eps, self.eps)
        else:
            change = change.flatten(1).renorm(2, 0, self.eps).view_as(change)
        return (pixels + change).clamp(0, 1)


class FGSM(PGD):
    """The fast gradient sign method: one step of PGD from the image to the ball's edge.

    Args:
        eps: radius of the ball, of pixels in 0..1; a number or a quotient such as ``4/255``.
        loss: the loss to increase, see `PGD`.
    """

    def __init__(self, eps: float | str = 1 / 255, *, loss: Loss = "cross_entropy") -> None:
        super().__init__(eps, eps, steps=1, random_start=False, loss=loss)

    @property
    def settings(self) -> dict[str, Any]:
        """The values that the outcome depends on, without those that FGSM fixes."""
        return {key: value for key, value in super().settings.items() if key in ("attack", "eps", "loss", "norm")}


class AutoAttack(Attack):
    """The ensemble of attacks without parameters, run by its authors' own package (extra ``robustness``).

    The standard version is APGD on the cross-entropy, targeted APGD and FAB (9 classes each) and Square (5,000
    queries). Its random draws follow from the seed and the batch: other batches or another number of processes draw
    others.

    Args:
        eps: radius of the ball, of pixels in 0..1; RobustBench: ``4/255`` on ImageNet, ``8/255`` on CIFAR-10 (``0.5``
            with the norm L2).
        norm: norm of the ball, ``Linf`` or ``L2``.
        version: ``standard``, ``plus`` (more attacks and restarts) or ``rand`` (of randomised models).
        seed: seed of the random draws.

    Raises:
        InputError: an argument is out of range, or the package is not installed.
    """

    def __init__(
        self, eps: float | str = 4 / 255, *, norm: Norm = "Linf", version: Version = "standard", seed: Seed = 0
    ) -> None:
        self.eps, self.norm, self.version, self.seed = radius(eps, norm), norm, version, seed
        _autoattack()  # before the first batch, not hours into an evaluation

    def perturb(self, model: Watched, pixels: Tensor, label: Tensor, index: Sequence[int]) -> Tensor:
        """Attack one batch for `Attack.run`."""
        attack = _autoattack()(
            model, norm=self.norm, eps=self.eps, version=self.version, seed=self.seed, device=pixels.device
        )
        with torch.no_grad():
            classes = model(pixels[:1]).shape[1]
        if classes < FEWEST_CLASSES:
            raise InputError(f"AutoAttack's losses need at least {FEWEST_CLASSES} classes, the model has {classes}")
        for part in (attack.apgd_targeted, attack.fab):
            part.n_target_classes = min(part.n_target_classes, classes - 1)
        for part in (attack.apgd, attack.apgd_targeted, attack.fab, attack.square):
            part.perturb = _announced(part, model)
        with torch.random.fork_rng(list(range(torch.cuda.device_count()))):  # it seeds torch's generators
            attacked, _ = attack.run_standard_evaluation(pixels, label, batch_size=len(pixels))
        return attacked


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


def radius(eps: float | str, norm: Norm) -> float:
    """Return the radius of a ball; warn where a ball of the norm ``Linf`` holds every image, as pixels are in 0..1.

    Raises:
        InputError: it is neither a positive number nor a quotient; see `quotient`.
    """
    number = quotient("eps", eps)
    if norm == "Linf" and number > 1:
        warnings.warn(f"eps={eps}: pixels are in 0..1, so that this ball holds every image; 4/255?", stacklevel=3)
    return number


def _losses(logits: Tensor, label: Tensor, loss: Loss) -> Tensor:
    """Return the loss (B,) of each image.

    Raises:
        InputError: the loss is not defined for so few classes.
    """
    least = LEAST_CLASSES[loss]
    if logits.shape[1] < least:
        raise InputError(f"loss={loss} needs at least {least} classes, the model has {logits.shape[1]}")
    if loss == "cross_entropy":
        return F.cross_entropy(logits, label, reduction="none")
    right = F.one_hot(label, logits.shape[1]).bool()
    margin = logits.masked_fill(right, -torch.inf).amax(1) - logits[right]
    if loss == "margin":
        return margin
    largest = logits.topk(3).values
    return margin / (largest[:, 0] - largest[:, 2] + TINY)


def _gradient(losses: Tensor, images: Tensor) -> Tensor:
    """Return the gradient of each loss (B,) by its image (B, C, H, W); 0 if no differentiable path joins the two."""
    if not losses.requires_grad:
        return torch.zeros_like(images)
    (gradient,) = torch.autograd.grad(losses.sum(), images, allow_unused=True)
    return torch.zeros_like(images) if gradient is None else gradient


def _unit(gradient: Tensor) -> Tensor:
    """Return the gradient scaled to L2 length 1 over each image, however small it is; 0 stays 0."""
    flat = gradient.flatten(1)
    largest = flat.abs().amax(1, keepdim=True)
    return F.normalize(flat / torch.where(largest > 0, largest, 1)).view_as(gradient)


def _announced(part: Any, model: Watched) -> Callable[..., Tensor]:
    """Return the ``perturb`` of a part of AutoAttack, made to tell ``model`` the part's name first."""
    perturb = part.perturb

    def announced(*args: Any, **options: Any) -> Tensor:
        model.enter(type(part).__name__.removesuffix("_PT"))
        return perturb(*args, **options)

    return announced


def _harm(logits: Tensor, label: Tensor, loss: Loss) -> Tensor:
    """Return how bad an attack is for the model, (B,): infinite where the model errs, else the loss."""
    wrong = logits.argmax(1) != label
    return torch.where(wrong, torch.inf, _losses(logits.float(), label, loss))


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


def _autoattack() -> type:
    try:
        from pyautoattack import AutoAttack as Ensemble
    except ImportError as error:
        raise InputError(
            'AutoAttack needs the package pyautoattack: pip install "attention_zoo[robustness]"'
        ) from error
    return Ensemble
