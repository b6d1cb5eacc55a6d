"""Whether a model with a top-down pass looks at the object that it is asked for, over many pictures of two objects."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attention_zoo.domains import PositiveFloat
from attention_zoo.errors import InputError
from attention_zoo.evaluation import part_of
from attention_zoo.mixers.base import SelfMixer
from attention_zoo.models.checkpoints import TASK, resized_positions
from attention_zoo.models.top_down import TWICE, FirstPass, Mode, SecondPass, TopDown
from attention_zoo.results.top_down_control import ControlScores
from attention_zoo.scales import PROPORTION, Scale
from tasks.classification import Classification
from tasks.evaluations.provenance import circumstances, counts_of, take_up
from tasks.metrics.control import Asked, ControlRecords

PLAIN = "plain"
"""The name of the first pass in the place of a mode."""

UNSCALED = ("mask_att",)
"""The modes in which alpha scales nothing."""

SCALES = {
    "switch_rate": PROPORTION,
    "follow_rate": PROPORTION,
    "margin_shift": Scale("higher"),
    "mass_ratio": PROPORTION,
    "top1": PROPORTION,
}
PACKAGES = ("attention_zoo", "torch", "timm", "lightning")
"""The packages whose versions a result records."""

STATES = ("answers", "group", "counted")
"""The states of the metric by which a test that was cut off goes on."""


@dataclass(frozen=True)
class Setting:
    """What a model is asked: one row of the result.

    Attributes:
        mode: what the second pass hears; ``plain`` is the first pass alone.
        alpha: scale of the reweighted tokens; None where it scales nothing.
        prior: ``none``; ``query``, the learned one; ``prototype``, that of class A and then that of class B; or
            ``absent``, that of a class which is neither.
    """

    mode: str
    alpha: float | None
    prior: str

    def __str__(self) -> str:
        return f"{self.mode}/{'-' if self.alpha is None else f'{self.alpha:g}'}/{self.prior}"


class TopDownControl(Classification):
    """Control of a classifier by priors: two objects A and B, and the question which one the model looks at.

    Technical report EECS-2024-49, section 2.6, which shows pictures and no numbers. Each picture is asked for A and for
    B, by their class prototypes (the rows of the classifier). The learned query and the first pass alone, without any
    prior, are the rows to compare with, which answer the same whatever is asked for. A model could also say whatever
    it is asked for, looking or not: the rows ``absent`` ask for a class that is neither A nor B, and tell how often the
    answer is that class. Batches are as of `TwoObjects`, the scores those of `tasks.metrics.control.ControlRecords`.
    The first pass runs once for all modes, alphas and priors.

    Mass is the L2 norm of the tokens after a layer of the second pass (before the last norm, after which all tokens are
    about as long), with ``perceiver_io`` that of the reweighted tokens, its output. An object has its share of a token
    where it covers a part of the token's place.

    Metrics are ``test/plain/<score>``, ``test/at_10/<score>`` (asked, alpha 10), ``test/query_at_10/<score>``,
    ``test/absent_at_10/top1`` and, for modes that the model was not trained in, ``test/<mode>_at_10/<score>``; the
    result has all rows and intervals.

    A checkpoint of images of another size is taken: position embeddings are resampled for the grid of the pictures.

    Args:
        alphas: scales of the reweighted tokens (10 in the report, 40 in the authors' demonstration).
        modes: what the second pass hears; None is the mode that the model was trained in. Others have the same weights,
            which were not trained for them.
        layer: the layer whose tokens are weighed, from 0; None is the last. (The authors' pictures show that with
            three more after it.)
        mass: whether to measure the mass, for which the data need masks.
        **classification: see `Classification`.

    Attributes:
        result: what the last test measured; None before.
        seen: number of samples that this process is done with in a test.
    """

    METRICS = SCALES

    result: ControlScores | None = None
    records: ControlRecords

    def __init__(
        self,
        *,
        alphas: list[PositiveFloat] | None = None,
        modes: list[Mode] | None = None,
        layer: int | None = None,
        mass: bool = True,
        **classification: Any,
    ) -> None:
        super().__init__(**classification)
        if not isinstance(self.model, TopDown):
            name = classification.get("model", type(self.model).__name__)
            raise InputError(f"TopDownControl needs a model with a top-down pass; {name} has none: {TWICE}")
        model = self.top_down
        self.alphas = [1.0, 3.0, 10.0, 30.0] if alphas is None else alphas
        self.modes = [model.check_mode(mode) for mode in modes or [model.mode]]
        for name, values in (("alphas", self.alphas), ("modes", self.modes)):
            if not values or len(set(values)) < len(values):
                raise InputError(f"TopDownControl: {name}={values} must be different, and at least one")
        number = len(model.host.layers)
        self.layer, self.mass = number - 1 if layer is None else layer, mass
        if self.layer >= number:
            raise InputError(f"TopDownControl: layer={layer} must be below {number}, the number of layers")
        self.settings = [Setting(PLAIN, None, "none"), *self._settings()]
        self.seen = 0

    @property
    def top_down(self) -> TopDown:
        """The model, which looks twice."""
        return cast(TopDown, self.model)

    def _settings(self) -> Iterator[Setting]:
        for mode in self.modes:
            for alpha in (None,) if mode in UNSCALED else self.alphas:
                if self.top_down.prompt is not None and mode != "feedback":
                    yield Setting(mode, alpha, "query")
                yield Setting(mode, alpha, "none" if mode == "feedback" else "prototype")
                if self.top_down.num_classes > 2 and mode != "feedback":
                    yield Setting(mode, alpha, "absent")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Resample the position embeddings of a checkpoint for the grid of the pictures.

        Raises:
            InputError: its mixers have weights of another grid.
        """
        weights = checkpoint["state_dict"]
        own = {name.removeprefix(TASK): weights.pop(name) for name in list(weights) if name.startswith(TASK)}
        resized = resized_positions(self.model, own)
        check_grids(self.model, resized)
        weights.update({TASK + name: weight for name, weight in resized.items()})

    def setup(self, stage: str) -> None:
        """Set up the records of a test.

        Raises:
            InputError: the data show no two objects, or there are no masks of them where mass is asked for.
        """
        if stage != "test":
            return
        data: Any = self._data
        split, name = data.splits["test"], type(data).__name__
        columns = split.columns
        if "labels" not in columns:
            raise InputError(f"TopDownControl needs pictures of two objects, such as TwoObjects has; {name} has none")
        if self.mass and "masks" not in columns:
            raise InputError(
                f"the mass ratio needs masks of the objects, which {name} has not; without it: mass: false"
            )
        self.seen = 0
        self.records = ControlRecords(len(split.images), len(self.settings))

    def test_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Ask about one batch in every setting."""
        self.seen += len(batch["index"])
        counted = batch["index"] >= 0
        if not counted.any():
            return
        batch = {name: values[counted] for name, values in batch.items()}
        self.records.update(batch["index"], batch["group"])
        first = self.top_down.first_pass(batch["image"], keep=[self.layer])
        for place, setting in enumerate(self.settings):
            if setting.prior == "absent":
                label = absent_class(batch["labels"], batch["index"], self.top_down.num_classes)
                tokens = self._tokens(first, setting, self.top_down.class_prior(label))
                self.records.record_absent(place, batch["index"], label, self._answer(first, *tokens, batch))
            else:
                asked = self.ask(first, setting, batch)
                self.records.record(place, batch["index"], batch["labels"], *asked)

    def ask(self, first: FirstPass, setting: Setting, batch: dict[str, Tensor]) -> tuple[Asked, Asked]:
        """Return what the model says asked for A, and asked for B; the same where the setting has no prototypes."""
        if setting.mode == PLAIN:
            answer = self._answer(first, first.output, first.states[0][1], batch)
            return answer, answer
        if setting.prior != "prototype":
            answer = self._answer(first, *self._tokens(first, setting, None), batch)
            return answer, answer
        priors = [self.top_down.class_prior(batch["labels"][:, place]) for place in (0, 1)]
        a, b = (self._answer(first, *self._tokens(first, setting, prior), batch) for prior in priors)
        return a, b

    def _tokens(self, first: FirstPass, setting: Setting, prior: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the tokens that the head reads, and those that are weighed."""
        mode: Any = setting.mode
        second: SecondPass = self.top_down.second_pass(first, prior, alpha=setting.alpha, mode=mode, keep=[self.layer])
        return second.output, second.output if mode == "perceiver_io" else second.states[0][1]

    def _answer(self, first: FirstPass, output: Tensor, weighed: Tensor, batch: dict[str, Tensor]) -> Asked:
        """Return logits, and the share of the mass on both objects."""
        host = first.host
        logits = host.classify(output).float()
        if not self.mass:
            return Asked(logits, logits.new_full((len(logits), 2), torch.nan))
        layer = host.layers[-1] if weighed is output else host.layers[self.layer]
        return Asked(logits, mass_on(host.maps(weighed, layer), batch["masks"]))

    def on_test_epoch_end(self) -> None:
        """Log the scores over all processes, and keep them as the result."""
        with self.records.sync_context():
            scores_of_each, counted = self.records.scores(), self.records.counted.bool()
            undefined = self.records.without_mass()
        named = {
            f"{setting}/{score}": value
            for setting, scores in zip(self.settings, scores_of_each, strict=True)
            for score, value in scores.items()
        }
        for setting, scores in zip(self.settings, scores_of_each, strict=True):
            for key in self._logged_as(setting):
                self.log_dict({f"test/{key}/{score}": value.mean for score, value in scores.items()})
        self.result = ControlScores(
            scores={name: value.mean for name, value in named.items()},
            protocol={
                **self._data.protocol,
                "mass_layer": self.layer,
                **part_of(int(counted.sum()), len(self._data.splits["test"].images), "pairs"),
            },
            scales=dict(SCALES),
            facts={
                **self._facts(int(counted.sum())),
                "notes": [*self._notes(), *(self._undefined(undefined) if self.mass else ())],
            },
            intervals={name: (value.low, value.high) for name, value in named.items()},
        )

    def _logged_as(self, setting: Setting) -> list[str]:
        """Return the names of a setting in metrics, the same for models of all modes, so that sweeps have one column.

        ``at_10`` is the model's own mode with alpha 10, asked for A and B, whatever it can hear of that.
        """
        if setting.mode == PLAIN:
            return [PLAIN]
        mode = "" if setting.mode == self.top_down.mode else f"{setting.mode}_"
        query = f"{setting.prior}_" if setting.prior in ("query", "absent") else ""
        alphas = self.alphas if setting.alpha is None else [setting.alpha]
        return [f"{mode}{query}at_{alpha:g}" for alpha in alphas]

    def _undefined(self, numbers: list[int]) -> Iterator[str]:
        """Yield a line for each setting in which some pairs have no mass at all."""
        for setting, number in zip(self.settings, numbers, strict=True):
            if number:
                yield f"{setting}: {number} pairs have no mass ratio, as all tokens are 0"

    def _notes(self) -> Iterator[str]:
        """Yield what a reader must know of the model's modes and prototypes."""
        if getattr(self.top_down.model, "global_pool", "avg") != "avg":
            yield (
                "the classifier reads the class token: class prototypes are in its space and mean little for the other "
                "tokens; models with average pooling have prototypes for all (report 2.6)"
            )
        others = [mode for mode in self.modes if mode != self.top_down.mode]
        if others:
            yield f"the weights were trained as {self.top_down.mode}, not as {', '.join(others)}"
        if "feedback" in self.modes:
            yield "feedback hears no prior: it answers the same whatever is asked for"

    def _facts(self, pairs: int) -> dict[str, Any]:
        return {
            **circumstances(self.trainer, PACKAGES),
            "pairs": pairs,
            "processes": self.trainer.world_size,
            "trained_as": self.top_down.mode,
        }

    def progress(self) -> dict[str, Tensor]:
        """Return the records of this process so far, for `go_on` in another process to take up."""
        return counts_of(self.records, STATES, self.seen)

    def go_on(self, progress: dict[str, Tensor]) -> None:
        """Take up what `progress` gave; the data must begin after the samples ``seen``."""
        self.seen = take_up(self.records, STATES, progress)

    @property
    def _data(self) -> Any:
        trainer: Any = self.trainer
        return trainer.datamodule


def check_grids(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Refuse weights that differ from those of a model in the shapes of its mixers' own alone.

    Args:
        model: a model that is built for the grid of the pictures.
        weights: its weights by name, of a model of another grid.

    Raises:
        InputError: naming the mixer, and pictures that it can see.
    """
    shapes = {name: weight.shape for name, weight in model.state_dict().items()}
    other = [name for name, weight in weights.items() if shapes.get(name, weight.shape) != weight.shape]
    mixers = {place: mixer for place, mixer in model.named_modules() if isinstance(mixer, SelfMixer)}
    bound = {name: mixer for name in other for place, mixer in mixers.items() if name.startswith(f"{place}.")}
    if other and len(bound) == len(other):
        name = other[0]
        raise InputError(
            f"TopDownControl: {type(bound[name]).__name__} has weights for each place of the grid that it was trained "
            f"on, {name} {tuple(weights[name].shape)}, not {tuple(shapes[name])}; show it pictures of the size "
            f"of its images, such as TwoObjects with squeeze: true"
        )


def absent_class(labels: Tensor, index: Tensor, num_classes: int) -> Tensor:
    """Return for each pair a class (B,) int64 that is neither of its two; all such classes take their turns.

    Args:
        labels: (B, 2) int64, two different classes of each pair.
        index: (B,) int64, the places of the pairs.
        num_classes: number of classes, three or more.
    """
    low, high = labels.sort(1).values.unbind(1)
    absent = index % (num_classes - 2)
    absent = absent + (absent >= low)
    return absent + (absent >= high)


def mass_on(maps: Tensor, masks: Tensor) -> Tensor:
    """Return the share (B, K) of the L2 norms of token maps (B, C, h, w) on each of K objects; NaN where all are 0.

    Args:
        maps: (B, C, h, w), the tokens of a layer.
        masks: (B, K, H, W) bool, the pixels of each object.
    """
    norms = maps.double().norm(dim=1, keepdim=True)
    shares = F.adaptive_avg_pool2d(masks.double(), norms.shape[2:])
    return (norms * shares).sum((2, 3)) / norms.sum((2, 3))
