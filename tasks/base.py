"""The base of all tasks: optimizer, schedule, logged metrics, and seeds that a resumed run repeats."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import Annotated, Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, GradientAccumulationScheduler
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from timm.models.vision_transformer import VisionTransformer
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn
from torchmetrics import Metric

from attention_zoo.analysis.maps import Pictures, attention_pictures, observe
from attention_zoo.domains import Checked, Domain, Fraction, checked
from attention_zoo.errors import InputError
from attention_zoo.mixers.running_statistics import hold_statistics
from attention_zoo.scales import Scale, scale_of
from attention_zoo.seeding import derive_seed, run_seed
from tasks.compiling import Compile
from tasks.guards import BatchNormGuard, FiniteWeights, WholeTest, check_training_loss
from tasks.optimizers import fused
from tasks.resuming import Resuming
from tasks.schedules import Poly, warmup_cosine
from tasks.throughput import Throughput
from tasks.trial import try_out

STEP_SALT = 1
"""Number that keeps the seeds of optimisation steps different from those of samples and epochs."""

TOKENS = ("cls_token", "dist_token", "reg_token", "pos_embed")
"""Names of parameters that get no weight decay in any model, whatever its own ``no_weight_decay`` lists."""


FINAL_NORM = re.compile(r"\^?norm(?:_pre)?(?:\W|$)")
"""Pattern of the name that the layer matchers of timm's models give to the norm after the last layer."""

JOINED = (99999,)
"""Group by which such a matcher says that the parameters it names join the layer before them."""


class Task(Checked, L.LightningModule):
    """Base of all tasks: optimizer, schedule, seeding of every step, throughput.

    A subclass builds ``self.model`` in its constructor and writes the steps.

    Args:
        optimizer: builds the optimizer from parameter groups; default AdamW, learning rate 1e-3, weight decay 0.05.
            AdamW steps in torch's fused kernel on CPUs and CUDA unless ``fused`` or ``foreach`` say otherwise. Norms,
            biases, tokens, position embeddings and what the model names in ``no_weight_decay`` get no decay.
        scheduler: builds a schedule that steps once an epoch; default is linear warm-up and cosine, step by step.
        warmup_epochs: epochs of the default schedule's warm-up.
        min_lr_ratio: last learning rate of the default schedule, or of ``poly``, as a fraction of the highest.
        poly: polynomial decay step by step, with a warm-up of its own, in place of the default schedule.
        no_decay: patterns, such as ``*norm*``, of names of parameters without weight decay, in place of those above.
        layer_decay: factor of the learning rate from a layer of the model to the one before; None is 1.
        compile: compile the model by ``torch.compile`` before its first step (see `compiled_parts`); its checkpoints
            stay the same. It needs a compiler of C++, and on CUDA Triton.
        grad_checkpointing: keep only the inputs of the model's (or its backbone's) blocks in training, and compute the
            rest again in the backward pass: less memory, the same gradients, about a third more time.
    """

    METRICS: ClassVar[Mapping[str, Scale]] = {"loss": Scale("lower"), "images_per_second": Scale("higher", 0.0)}
    """The `Scale` (which way is better) of each metric that is logged as a plain number.

    Keys are the metric's name without the stage, the last part of that name, or a pattern of either (see fnmatch). A
    subclass states its own. A metric of torchmetrics states its scale itself.
    """

    SHARDS: ClassVar[bool] = False
    """Whether the task enters its model by ``forward`` alone, so that `FullySharded` can shard it over processes."""

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
        layer_decay: Annotated[float, Domain(above=0, most=1)] | None = None,
        compile: bool = False,
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if poly is not None and scheduler is not None:
            raise InputError("poly and scheduler are two schedules; give one")
        try_out(optimizer or _default_optimizer, scheduler)
        self.poly, self.no_decay, self.layer_decay = poly, no_decay, layer_decay
        self.optimizer, self.scheduler = optimizer, scheduler
        self.warmup_epochs, self.min_lr_ratio = warmup_epochs, min_lr_ratio
        self.scales: dict[str, Scale] = {}
        self.without_scale: set[str] = set()
        self.compiles, self.grad_checkpointing = compile, grad_checkpointing

    def log(self, name: str, value: Any, *args: Any, **options: Any) -> None:
        """Log a metric as Lightning does, and keep its `Scale` in ``scales``; a test warns if none is known."""
        scale = scale_of(value) if isinstance(value, Metric) else None
        scale = scale or self._stated(name.partition("/")[2])
        if scale is not None:
            self.scales[name] = scale
        elif name.startswith("test/") and name not in self.without_scale:
            self.without_scale.add(name)
            metric = name.partition("/")[2]
            rank_zero_warn(f"{metric} does not say which way is better; {type(self).__name__}.METRICS can state it")
        super().log(name, value, *args, **options)

    def _stated(self, name: str) -> Scale | None:
        stated = [entry for cls in type(self).__mro__ for entry in cls.__dict__.get("METRICS", {}).items()]
        names = (name, name.rpartition("/")[2])
        return next((scale for each in names for pattern, scale in stated if fnmatchcase(each, pattern)), None)

    def show_example(self, image_size: tuple[int, int] | None) -> None:
        """Set the example input from which Lightning's summary and a run's costs count sizes and FLOPs.

        Args:
            image_size: height and width of the image; None sets no example.
        """
        if image_size is not None:
            self.example_input_array = torch.zeros(1, 3, *image_size)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer and its schedule: AdamW, warm-up and cosine unless the config says otherwise.

        Raises:
            InputError: the optimizer refuses its arguments, or a schedule cannot count the steps of the run.
        """
        groups = self.parameter_groups()
        try:
            optimizer = (self.optimizer or _default_optimizer)(groups)
        except ValueError as error:  # torch checks rates, betas and decays
            raise InputError(f"optimizer: {error}") from error
        optimizer = fused(optimizer, clips_scaled=self._clips_scaled)
        for group in optimizer.param_groups:
            group["lr"] *= group.get("lr_scale", 1.0)
        if self.scheduler is not None:
            scheduler = self.scheduler(optimizer)
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": scheduler, "monitor": getattr(scheduler, "monitor", None)},
            }
        total = self._total_steps()
        if self.poly is not None:
            decay = self._steps(self.poly.epochs) if self.poly.epochs else int(total)
            schedule = self.poly.schedule(optimizer, total_steps=decay, floor=self.min_lr_ratio)
        else:
            warmup = min(self._steps(self.warmup_epochs), int(total))
            schedule = warmup_cosine(optimizer, warmup_steps=warmup, total_steps=int(total), floor=self.min_lr_ratio)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @property
    def _clips_scaled(self) -> bool:
        """Whether the trainer clips gradients under mixed precision."""
        mixed = str(getattr(self.trainer, "precision", "")).endswith("-mixed")
        return mixed and bool(getattr(self.trainer, "gradient_clip_val", None))

    def _total_steps(self) -> int:
        """Return the number of optimizer steps in the whole run.

        Raises:
            InputError: the run has no end, or no batch to train on.
        """
        total = self.trainer.estimated_stepping_batches
        if not 0 <= total < math.inf:  # of data without a length it is max_steps, which is -1 where there are none
            if self.trainer.limit_train_batches == 0:
                raise InputError("trainer.limit_train_batches=0 leaves a schedule no step to count")
            raise InputError("the default schedule needs an end: give trainer.max_epochs or trainer.max_steps")
        # Lightning assumes that every epoch accumulates as many batches as the first
        if self._accumulation is None:
            return int(total)
        epochs, most = self.trainer.max_epochs, self.trainer.max_steps
        if epochs in (None, -1) or self.trainer.num_training_batches == math.inf:
            return int(total)
        return self._steps(epochs) if most == -1 else min(self._steps(epochs), most)

    @property
    def _accumulation(self) -> GradientAccumulationScheduler | None:
        """The trainer's callback that changes the number of accumulated batches from epoch to epoch, or None."""
        callbacks = getattr(self.trainer, "callbacks", ())
        return next((one for one in callbacks if isinstance(one, GradientAccumulationScheduler)), None)

    def _steps(self, epochs: float) -> int:
        """Return the number of optimizer steps in ``epochs`` epochs.

        The last batch of an epoch makes a step, however few batches were accumulated by then.

        Raises:
            InputError: the data have no length.
        """
        if not epochs:
            return 0
        self.trainer.fit_loop.setup_data()  # the estimate does so too, but not where max_steps is all it needs
        batches = self.trainer.num_training_batches
        if batches == math.inf:
            raise InputError("the data have no length, so that a schedule can count no epochs: warmup_epochs must be 0")
        if self._accumulation is None:
            return round(epochs * math.ceil(batches / self.trainer.accumulate_grad_batches))
        started = range(math.ceil(epochs))
        each = [math.ceil(batches / self._accumulation.get_accumulate_grad_batches(epoch)) for epoch in started]
        return round(sum(each) - (len(each) - epochs) * each[-1])  # of the last perhaps a part

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the groups the optimizer is built from; ``lr_scale`` multiplies the learning rate of a group."""
        return decay_groups(self.model, self.no_decay, self.layer_decay)

    def on_fit_start(self) -> None:
        """Switch gradient checkpointing on, if it is asked for.

        Raises:
            InputError: the model has none.
        """
        if not self.grad_checkpointing:
            return
        switch = getattr(self.model, "set_grad_checkpointing", None)
        if switch is None:
            raise InputError(f"grad_checkpointing: {type(self.model).__name__} has no blocks to compute again")
        switch()
        hold_statistics(self.model)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed dropout and stochastic depth from run, epoch, batch and process, so that a resumed run repeats them.

        Also log the learning rate of the first parameter group.
        """
        torch.manual_seed(derive_seed(run_seed(), STEP_SALT, self.current_epoch, batch_idx, self.global_rank))
        self.log("train/learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_epoch_end(self) -> None:
        """Stop a training whose loss is no longer finite.

        Raises:
            InputError: the mean training loss of the epoch is not finite.
        """
        check_training_loss(self.trainer)

    def pictures(self, batch: Mapping[str, Any]) -> Pictures:
        """Return pictures of a batch by title, each (B, height, width) on some grid over the images, for `LogPictures`.

        Integers are labels, negative ones none. It is called in evaluation mode and without gradients, as a validation
        is. Here the pictures are what the average token reads in the last layer of the model.

        Raises:
            InputError: the model has no attention of which a map spans the image.
        """
        seen = observe(self.model, batch["image"]).layers[-1]
        return {f"layer {seen.layer}, {type(seen.mixer).__name__}": attention_pictures(seen)[""]}

    def configure_callbacks(self) -> list[Callback]:
        """Return the callbacks of every task.

        They log its throughput, keep its place, stop it where its numbers mean nothing, warn of a test of a part of the
        data, and compile its model if it is to be compiled.
        """
        compiling = [Compile(self.compiled_parts())] if self.compiles else []
        return [Throughput(self.compiles), Resuming(), FiniteWeights(), BatchNormGuard(), WholeTest(), *compiling]

    def compiled_parts(self) -> list[nn.Module]:
        """Return the modules that ``compile`` compiles, each as one graph: here the model."""
        return [self.model]


def decay_groups(
    model: nn.Module, no_decay: list[str] | None = None, layer_decay: float | None = None
) -> list[dict[str, Any]]:
    """Return the parameter groups of a model: those with the optimizer's weight decay and those without.

    With ``layer_decay`` each layer has groups of its own, whose ``lr_scale`` is the factor of its learning rate. It is
    1 for the head and for the norm between the last layer and the head, as in the code of BEiT (H. Bao et al., ICLR
    2022) and in mmsegmentation; timm counts that norm to the last layer. Where a model does not say what its layers
    are, they are the blocks of the vision transformer inside it.

    Args:
        model: whose parameters are grouped.
        no_decay: see `Task`.
        layer_decay: see `Task`.

    Raises:
        InputError: ``layer_decay`` is given for a model whose layers cannot be told.
    """
    spared = set(getattr(model, "no_weight_decay", set)())
    rule: dict[str, Any] = {"no_weight_decay_list": spared | set(TOKENS)}
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
    """Count the norm after the last layer to the head while the context lasts.

    The model's ``group_matcher`` is replaced by one that does not join that norm to the layer before it.
    """
    matched: Any = model
    matcher = getattr(matched, "group_matcher", None) or partial(_blocks_of_the_host, model)
    matcher(coarse=False)  # before anything is changed

    def without_norm(coarse: bool = False) -> Any:
        layers = matcher(coarse=coarse)
        if not isinstance(layers, dict):
            return lambda name: math.inf if FINAL_NORM.match(name) else layers(name)
        return {name: _rest(rules) if isinstance(rules, list | tuple) else rules for name, rules in layers.items()}

    matched.group_matcher = without_norm
    try:
        yield
    finally:
        del matched.group_matcher


def _blocks_of_the_host(model: nn.Module, coarse: bool = False) -> dict[str, Any]:
    """Return the patterns that sort the parameters of a model around one vision transformer into layers.

    The layers are what comes before the blocks, then each block; timm takes everything else as the last layer.

    Raises:
        InputError: the model does not hold exactly one vision transformer. timm would otherwise cut the parameters into
            groups of equal number, which need not be layers.
    """
    hosts = [name for name, part in model.named_modules() if isinstance(part, VisionTransformer)]
    if len(hosts) != 1:
        raise InputError(f"layer_decay counts layers, and {type(model).__name__} does not say what its layers are")
    first = "^" + re.escape(f"{hosts[0]}." if hosts[0] else "")
    stem = "|".join((*TOKENS, "patch_embed", "norm_pre"))
    return {"stem": rf"{first}(?:{stem})", "blocks": [(rf"{first}blocks\.(\d+)", None)]}


def _rest(rules: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return [rule for rule in rules if not (rule[1] == JOINED and FINAL_NORM.match(rule[0]))]


def _default_optimizer(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.05)
