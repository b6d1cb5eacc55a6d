"""Evaluation of a classifier's attention against where people look, which it never learned."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from attention_zoo import MixerFactory, swap_mixers
from attention_zoo.errors import InputError
from attention_zoo.evaluation import part_of
from attention_zoo.functional.checks import check_finite
from attention_zoo.results.saliency import SaliencyScores
from attention_zoo.seeding import run_seed, seeded
from tasks.evaluations.attention import AttentionEvaluation
from tasks.evaluations.provenance import circumstances, counts_of, take_up
from tasks.metrics import Saliency

AS_TRAINED = "as trained"
"""The name of the reading that the model was trained with."""

CENTRE, GAUSSIAN = "other images", "Gaussian"
"""The names of the baselines that do not look at the image: the mean density of the fixations on the other images, and
a Gaussian in the middle whose standard deviations are a quarter of the sides."""

GRID = (48, 64)
"""Rows and columns on which densities of images of different sizes are averaged."""

READING_SALT = 0x6A
"""Number that keeps the seed of the fresh parts of readings different from other seeds."""

RESAMPLES, BATCH = 1000, 20
"""The number of bootstrap samples of images, and of those that are in memory at a time."""

NO_LAYER = "-"
"""The name of the layer of what is no attention."""

PACKAGES = ("attention_zoo", "torch", "timm", "lightning", "scipy")
"""The packages whose versions a result records."""

STATES = ("values", "counted")
"""The states of the metric by which a test that was cut off goes on."""


class AttentionSaliency(AttentionEvaluation):
    """Saliency of attention maps: whether attention is high where people look, and higher than the centre bias is.

    Report EECS-2024-49, Table 1.5, which has NSS alone and no baseline. Batches as of `GazeDataModule`. The scores are
    those of `tasks.metrics.Saliency`. People look at the middle of a photograph whatever it shows, so that maps have to
    beat what is known without a look at the image: the rows ``other images`` and ``Gaussian``.

    Metrics are ``test/<score>`` of the model as trained, where one layer is asked for; the result has all rows with
    intervals.

    Args:
        readings: further rows, by name: mixers that take the place of all the model's own in a copy of it, the weights
            carried over and nothing trained (see `attention_zoo.swap_mixers`).
        **evaluation: see `AttentionEvaluation`. A ``layer`` such as ``0-11`` gives a row for each of its layers.

    Attributes:
        result: what the last test measured; None before.
        seen: number of samples that this process is done with in a test.
    """

    METRICS = Saliency.SCALES

    result: SaliencyScores | None = None
    saliency: Saliency

    def __init__(
        self,
        model: str = "vit_tiny_patch16_224",
        num_classes: int = 1000,
        image_size: tuple[int, int] | None = None,
        *,
        readings: dict[str, MixerFactory] | None = None,
        **evaluation: Any,
    ) -> None:
        super().__init__(model, num_classes, image_size, **evaluation)
        self.readings = readings or {}
        for name in self.readings:
            if "/" in name or name in (AS_TRAINED, CENTRE, GAUSSIAN):
                raise InputError(f"readings: {name!r} is taken or has a slash; choose another name")
        self.seen = 0
        self.networks: dict[str, nn.Module] = {}

    def setup(self, stage: str) -> None:
        """Set all counts of a test to zero, and take the sum of all densities.

        Raises:
            InputError: the data have no gaze, or less than two images, or there is no such layer.
        """
        if stage != "test":
            return
        split = self._data.splits["test"]
        if "density" not in split.columns:
            raise InputError(
                f"AttentionSaliency needs data on gaze, such as OSIE; {type(self._data).__name__} has none"
            )
        if len(split.images) < 2:
            raise InputError("intervals over images need two images or more, the data have one")
        self.seen = 0
        densities = (split.columns["density"][index] for index in range(len(split.images)))
        self.total = torch.stack([on_grid(density) for density in densities]).sum(0)
        example = torch.zeros(1, 3, *self._data.image_size, device=self.device)
        layers = self.attention(example)
        looking = [(name, str(layer)) for name in (AS_TRAINED, *self.readings) for layer in layers]
        self.rows = [*looking, (CENTRE, NO_LAYER), (GAUSSIAN, NO_LAYER)]
        self.saliency = Saliency(len(self.rows), len(split.images)).to(self.device)

    def on_test_start(self) -> None:
        """Build the model of each reading from the weights, which are loaded by now."""
        with seeded(run_seed(), READING_SALT):  # some mixers start fresh with random parts
            swapped = {name: swap_mixers(deepcopy(self.model), mixer) for name, mixer in self.readings.items()}
        self.networks = {AS_TRAINED: self.model, **{name: each.to(self.device) for name, each in swapped.items()}}

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Measure one batch, in every reading."""
        self.seen += len(batch["index"])
        found = {name: self.attention(batch["image"], network) for name, network in self.networks.items()}
        for name, layers in found.items():
            for maps in layers.values():
                check_finite(f"attention maps ({name})", maps, batch["index"])
        for place, index in enumerate(batch["index"].tolist()):
            if index >= 0:
                fixations, density = batch["fixations"][place], batch["density"][place]
                centre = (self.total - on_grid(density.cpu())).to(fixations.device)
                own = [maps[place] for layers in found.values() for maps in layers.values()]
                self.saliency.update(index, [*own, centre, gaussian().to(centre)], fixations, density)

    def on_test_epoch_end(self) -> None:
        """Log the scores over all processes, and keep them as the result.

        Raises:
            InputError: fewer than two images were tested.
        """
        with self.saliency.sync_context():
            values = self.saliency.compute().cpu().numpy()
        if values.shape[2] < 2:
            raise InputError("intervals over images need two or more; give a larger trainer.limit_test_batches")
        self.networks = {}
        by_row = dict(zip(self.rows, values, strict=True))
        trained = {layer: by_row[row] for row in self.rows if row[0] == AS_TRAINED for layer in row[1:]}
        over_centre = {row: by_row[row] - by_row[CENTRE, NO_LAYER] for row in self.rows if row[1] != NO_LAYER}
        over_trained = {row: by_row[row] - trained[row[1]] for row in over_centre if row[0] != AS_TRAINED}
        scores = named(by_row)
        if len(trained) == 1:
            (layer,) = trained
            self.log_dict({f"test/{score}": scores[f"{AS_TRAINED}/{layer}/{score}"][0] for score in Saliency.SCALES})
        self.result = SaliencyScores(
            scores={name: mean for name, (mean, _, _) in scores.items()},
            protocol={
                "images": values.shape[2],
                "query": self.query,
                "image_size": list(self._data.image_size),
                **part_of(values.shape[2], len(self._data.splits["test"].images)),
            },
            scales=dict(Saliency.SCALES),
            facts=self._facts(),
            intervals={name: (low, high) for name, (_, low, high) in scores.items()},
            over_centre=named(over_centre),
            over_trained=named(over_trained),
        )

    def progress(self) -> dict[str, Tensor]:
        """Return the scores of this process so far, for `go_on` in another process to take up."""
        return counts_of(self.saliency, STATES, self.seen)

    def go_on(self, progress: dict[str, Tensor]) -> None:
        """Take up what `progress` gave; the data must begin after the samples ``seen``."""
        self.seen = take_up(self.saliency, STATES, progress)

    def _facts(self) -> dict[str, Any]:
        return {
            **circumstances(self.trainer, PACKAGES),
            "processes": self.trainer.world_size,
        }

    @property
    def _data(self) -> Any:
        trainer: Any = self.trainer
        return trainer.datamodule


def on_grid(density: Tensor) -> Tensor:
    """Return a density (H, W) on `GRID`, float64; it keeps its shape, not its sum."""
    return F.adaptive_avg_pool2d(density[None].double(), GRID)[0] * density.numel()


def gaussian() -> Tensor:
    """Return a Gaussian in the middle on `GRID`, float64, with standard deviations of a quarter of the sides."""
    lines = [(torch.arange(side, dtype=torch.float64) + 0.5) / side - 0.5 for side in GRID]
    rows, columns = (torch.exp(-(line**2) / (2 * 0.25**2)) for line in lines)
    return rows[:, None] * columns


def named(by_row: Mapping[tuple[str, str], np.ndarray]) -> dict[str, tuple[float, float, float]]:
    """Return means over images with the ends of their 95 % intervals, by ``reading/layer/score``.

    Args:
        by_row: (scores, images), by reading and layer. All are resampled alike.
    """
    if not by_row:
        return {}
    names = ["/".join((*row, score)) for row in by_row for score in Saliency.SCALES]
    values = np.concatenate(list(by_row.values()))
    options: dict[str, Any] = {"axis": -1, "vectorized": True, "method": "percentile", "n_resamples": RESAMPLES}
    ends = stats.bootstrap((values,), np.mean, batch=BATCH, rng=0, **options).confidence_interval
    found = zip(values.mean(-1).tolist(), ends.low.tolist(), ends.high.tolist(), strict=True)
    return dict(zip(names, found, strict=True))
