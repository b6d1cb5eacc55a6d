"""AutoAttack, run by its authors' own package."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from attention_zoo.attacks.base import Attack, Norm, Watched, radius
from attention_zoo.domains import PositiveInt, Seed
from attention_zoo.errors import InputError

FEWEST_CLASSES = 4
"""The fewest classes that AutoAttack's targeted loss is defined for."""

Version = Literal["standard", "plus", "rand"]


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
        images: the most images that a test attacks, evenly spread; None attacks as many as other attacks do.

    Raises:
        InputError: an argument is out of range, or the package is not installed.
    """

    norm: Norm
    eps: float

    def __init__(
        self,
        eps: float | str = 4 / 255,
        *,
        norm: Norm = "Linf",
        version: Version = "standard",
        seed: Seed = 0,
        images: PositiveInt | None = None,
    ) -> None:
        self.eps, self.norm, self.version, self.seed = radius(eps, norm), norm, version, seed
        self.images = images
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


def _announced(part: Any, model: Watched) -> Callable[..., Tensor]:
    """Return the ``perturb`` of a part of AutoAttack, made to tell ``model`` the part's name first."""
    perturb = part.perturb

    def announced(*args: Any, **options: Any) -> Tensor:
        model.enter(type(part).__name__.removesuffix("_PT"))
        return perturb(*args, **options)

    return announced


def _autoattack() -> type:
    try:
        from pyautoattack import AutoAttack as Ensemble
    except ImportError as error:
        raise InputError(
            'AutoAttack needs the package pyautoattack: pip install "attention_zoo[robustness]"'
        ) from error
    return Ensemble
