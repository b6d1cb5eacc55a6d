"""What every task shares: the model's mixers, optimisation, and randomness that survives a restart."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn
from torchmetrics import Metric

from attention_zoo.domains import Checked, Fraction, checked
from attention_zoo.errors import InputError
from attention_zoo.functional.checks import check_number
from attention_zoo.scales import Scale, scale_of
from attention_zoo.seeding import derive_seed, run_seed
from tasks.guards import BatchNormGuard, FiniteWeights, check_training_loss
from tasks.schedules import Poly, warmup_cosine
from tasks.throughput import Throughput
from tasks.trial import try_out

STEP_SALT = 1
"""Sets the seeds of optimisation steps apart from those of samples and epochs."""

TOKENS = ("cls_token", "dist_token", "reg_token", "pos_embed")
"""Parameters without weight decay in every model, whatever its own ``no_weight_decay`` lists."""


FINAL_NORM = re.compile(r"\^?norm(?:_pre)?(?:\W|$)")
"""How matchers of timm's models call the norm after the last layer."""

JOINED = (99999,)
"""How such a matcher says that what it names joins the layer before."""


class Task(Checked, L.LightningModule):
    """Base of all tasks: optimizer, schedule, seeding of every step, throughput.

    A subclass builds ``self.model`` in its constructor and writes the steps.

    Args:
        optimizer: builds the optimizer from parameter groups; default AdamW, learning rate 1e-3, weight decay 0.05.
            Norms, biases, tokens, position embeddings and what the model names in ``no_weight_decay`` get no decay.
        scheduler: builds a schedule that steps once an epoch; default is linear warm-up and cosine, step by step.
        warmup_epochs: epochs of the default schedule's warm-up.
        min_lr_ratio: last learning rate of the default schedule, or of ``poly``, as a fraction of the highest.
        poly: polynomial decay step by step, with a warm-up of its own, in place of the default schedule.
        no_decay: patterns, such as ``*norm*``, of names of parameters without weight decay, in place of those above.
        layer_decay: factor of the learning rate from a layer of the model to the one before; None is 1.
    """

    METRICS: ClassVar[Mapping[str, Scale]] = {"loss": Scale("lower"), "images_per_second": Scale("higher", 0.0)}
    """Which way is better of what is logged as a plain number: by its name without the stage, or the last part of it,
    or a pattern of them (see fnmatch). A subclass states its own. A metric of torchmetrics states it itself."""

    model: nn.Module

    @checked
    def __init__(
        self,
        *,
        optimizer: OptimizerCallable | None = None,
        scheduler: LRSchedulerCallable | None = None,
        warmup_epochs: float = 1.0,
        min_lr_ratio: Fraction = 0.01,
        poly: Poly | None = None,
        no_decay: list[str] | None = None,
        layer_decay: float | None = None,
    ) -> None:
        super().__init__()
        if poly is not None and scheduler is not None:
            raise InputError("poly and scheduler are two schedules; give one")
        check_number("warmup_epochs", warmup_epochs, least=0)
        check_number("min_lr_ratio", min_lr_ratio, least=0, most=1)
        if layer_decay is not None:
            check_number("layer_decay", layer_decay, above=0, most=1)
        try_out(optimizer or _default_optimizer, scheduler)
        self.poly, self.no_decay, self.layer_decay = poly, no_decay, layer_decay
        self.optimizer, self.scheduler = optimizer, scheduler
        self.warmup_epochs, self.min_lr_ratio = warmup_epochs, min_lr_ratio
        self.scales: dict[str, Scale] = {}

    def log(self, name: str, value: Any, *args: Any, **options: Any) -> None:
        """Log as Lightning does, and keep in ``scales`` which way of the metric is better."""
        scale = scale_of(value) if isinstance(value, Metric) else None
        scale = scale or self._stated(name.partition("/")[2])
        if scale is not None:
            self.scales[name] = scale
        super().log(name, value, *args, **options)

    def _stated(self, name: str) -> Scale | None:
        stated = [entry for cls in type(self).__mro__ for entry in cls.__dict__.get("METRICS", {}).items()]
        names = (name, name.rpartition("/")[2])
        return next((scale for each in names for pattern, scale in stated if fnmatchcase(each, pattern)), None)

    def show_example(self, image_size: tuple[int, int] | None) -> None:
        """Let Lightning's summary, and what a run costs, count sizes and FLOPs for an image of this size."""
        if image_size is not None:
            self.example_input_array = torch.zeros(1, 3, *image_size)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with warm-up and cosine unless the config says otherwise; no decay on norms, biases, tokens."""
        groups = self.parameter_groups()
        try:
            optimizer = (self.optimizer or _default_optimizer)(groups)
        except ValueError as error:  # torch checks rates, betas and decays
            raise InputError(f"optimizer: {error}") from error
        for group in optimizer.param_groups:
            group["lr"] *= group.get("lr_scale", 1.0)
        if self.scheduler is not None:
            scheduler = self.scheduler(optimizer)
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": scheduler, "monitor": getattr(scheduler, "monitor", None)},
            }
        total = self.trainer.estimated_stepping_batches
        if not 0 <= total < math.inf:  # of data without a length it is max_steps, which is -1 where there are none
            raise InputError("the default schedule needs an end: give trainer.max_epochs or trainer.max_steps")
        if self.poly is not None:
            decay = self._steps(self.poly.epochs) if self.poly.epochs else int(total)
            schedule = self.poly.schedule(optimizer, total_steps=decay, floor=self.min_lr_ratio)
        else:
            warmup = min(self._steps(self.warmup_epochs), int(total))
            schedule = warmup_cosine(optimizer, warmup_steps=warmup, total_steps=int(total), floor=self.min_lr_ratio)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _steps(self, epochs: float) -> int:
        """Steps of the optimizer in so many epochs; the last batch of each makes one, however few were accumulated."""
        if not epochs:
            return 0
        self.trainer.fit_loop.setup_data()  # the estimate does so too, but not where max_steps is all it needs
        batches = self.trainer.num_training_batches
        if batches == math.inf:
            raise InputError("the data have no length, so that a schedule can count no epochs: warmup_epochs must be 0")
        return round(epochs * math.ceil(batches / self.trainer.accumulate_grad_batches))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the optimizer is built from; ``lr_scale`` is the factor of a group's learning rate."""
        return decay_groups(self.model, self.no_decay, self.layer_decay)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed dropout and stochastic depth from run, step and process, so that a resumed run repeats them."""
        torch.manual_seed(derive_seed(run_seed(), STEP_SALT, self.current_epoch, batch_idx, self.global_rank))
        self.log("train/learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_end(self) -> None:
        """Stop a training that is lost.

        Raises:
            InputError: the mean training loss of the epoch is not finite.
        """
        check_training_loss(self.trainer)

    def configure_callbacks(self) -> list[Callback]:
        """Every task logs its throughput, and stops where its numbers would mean nothing."""
        return [Throughput(), FiniteWeights(), BatchNormGuard()]


def decay_groups(
    model: nn.Module, no_decay: list[str] | None = None, layer_decay: float | None = None
) -> list[dict[str, Any]]:
    """Parameter groups: what the optimizer's weight decay is for, and what it is not (see `Task`).

    With ``layer_decay`` there are some for each layer, whose ``lr_scale`` is the factor of its learning rate. It is 1
    for the head and for the norm between the last layer and the head, as in the code of BEiT (H. Bao et al., ICLR 2022)
    and in mmsegmentation; timm counts that norm to the last layer.
    """
    spared = set(model.no_weight_decay()) if hasattr(model, "no_weight_decay") else set()
    rule = {"no_weight_decay_list": spared | set(TOKENS)}
    if no_decay is not None:
        rule = {"no_weight_decay_list": no_decay, "weight_decay_exclude_1d": False}
    if layer_decay is not None:
        with _final_norm_in_head(model):
            groups = param_groups_layer_decay(model, weight_decay=1.0, layer_decay=layer_decay, **rule)
    else:
        groups = param_groups_weight_decay(model, weight_decay=1.0, **rule)
    for group in groups:
        if group["weight_decay"]:
            del group["weight_decay"]  # the optimizer's own
    return groups


@contextmanager
def _final_norm_in_head(model: nn.Module) -> Iterator[None]:
    """Inside, the model's matcher of layers leaves a final norm, which it joins to the layer before, to the head."""
    matcher = getattr(model, "group_matcher", None)
    if matcher is None:
        yield
        return

    def without_norm(coarse: bool = False) -> Any:
        found = matcher(coarse=coarse)
        if not isinstance(found, dict):
            return found
        return {name: _rest(rules) if isinstance(rules, list | tuple) else rules for name, rules in found.items()}

    model.group_matcher = without_norm
    try:
        yield
    finally:
        del model.group_matcher


def _rest(rules: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return [rule for rule in rules if not (rule[1] == JOINED and FINAL_NORM.match(rule[0]))]


def _default_optimizer(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.05)
