"""Attacks that follow the gradient of a loss by the pixels: PGD, and its one step, FGSM."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attention_zoo.attacks.base import Attack, Attacked, Norm, Watched, quotient, radius
from attention_zoo.attacks.losses import Loss, harm, losses_of
from attention_zoo.domains import PositiveInt, Seed
from attention_zoo.errors import InputError
from attention_zoo.functional.checks import check_finite
from attention_zoo.mixers.protocols import passing_straight_through
from attention_zoo.seeding import derive_seed

START_SALT = 0xA77
"""A number that keeps the seeds of random starts apart from other seeds of a sample."""


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
        bpda: whether to follow the gradients of the mixers' surrogates for thresholds and choices that stop gradients
            (see `attention_zoo.mixers.protocols.StraightThrough`); without such a mixer it changes nothing.
        seed: seed of the random starts; each start follows from it and the number of the sample.

    Raises:
        InputError: an argument is out of range.
    """

    looks_at_gradients = True
    norm: Norm
    eps: float

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
        bpda: bool = False,
        seed: Seed = 0,
    ) -> None:
        self.eps, self.step = radius(eps, norm), quotient("step", step)
        self.steps, self.restarts = steps, restarts
        self.random_start, self.loss, self.norm, self.seed = random_start, loss, norm, seed
        self.bpda = bpda
        if restarts > 1 and not random_start:
            raise InputError(f"restarts={restarts} need random_start: without it all are the same")

    @property
    def trusts_gradients(self) -> bool:
        """Whether the steps follow the model's own gradients."""
        return self.steps > 1 and not self.bpda

    @property
    def settings(self) -> dict[str, Any]:
        """The values that the outcome depends on; ``bpda`` where it is on."""
        settings = super().settings
        return settings if self.bpda else {key: value for key, value in settings.items() if key != "bpda"}

    def perturb(self, model: Watched, pixels: Tensor, label: Tensor, index: Sequence[int]) -> Attacked:
        """Attack one batch for `Attack.run`."""
        with passing_straight_through(model.model) if self.bpda else nullcontext():
            return self._worst(model, pixels, label, index)

    def _worst(self, model: Watched, pixels: Tensor, label: Tensor, index: Sequence[int]) -> Attacked:
        """Return the outcome of the restart that is worst for the model, image by image."""
        worst, blind = self._attempt(model, pixels, label, index, 0)
        for restart in range(1, self.restarts):
            attempt, also_blind = self._attempt(model, pixels, label, index, restart)
            blind &= also_blind
            with torch.no_grad():
                harms = [harm(model(images), label, self.loss) for images in (worst, attempt)]
            worst = torch.where((harms[1] > harms[0]).view(-1, 1, 1, 1), attempt, worst)
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
            gradient = _gradient(losses_of(logits, label, self.loss), attacked)
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
