"""Evaluation of a classifier's attention against objects, which it never learned, and the base of such evaluations."""

from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attention_zoo.analysis import attention_pictures, observe
from attention_zoo.domains import Domain
from attention_zoo.errors import InputError
from attention_zoo.functional.checks import check_finite
from attention_zoo.hosts.table import swappable
from tasks.classification import Classification
from tasks.metrics import ForegroundErrors


class AttentionEvaluation(Classification):
    """Base of evaluations that compare the attention maps of a trained classifier with a target.

    Args:
        layer: the layer whose attention is taken, such as ``3`` or ``last``. The report EECS-2024-49 does not say which
            it takes; its Figure A.1 shows the last layer of the first stage, which None is: the last layer that has the
            finest grid.
        query: token whose reading is the map: ``mean``, over all tokens, as in the report; ``cls``; or ``row,column``.
        **classification: see `Classification`.
    """

    def __init__(
        self,
        model: str = "vit_tiny_patch16_224",
        num_classes: int = 1000,
        image_size: tuple[int, int] | None = None,
        *,
        layer: str | None = None,
        query: str = "mean",
        **classification: Any,
    ) -> None:
        super().__init__(model, num_classes, image_size, **classification)
        self.layer, self.query = layer, query
        self._chosen: str | None = None

    def attention(self, image: Tensor, model: nn.Module | None = None) -> dict[int, Tensor]:
        """Return the attention maps of images (B, 3, H, W), (B, h, w) float32 on the token grid, by the layer's place.

        A map is how strongly the query reads each token, the mean over heads.

        Args:
            image: (B, 3, H, W), normalised.
            model: None is the model of the task.

        Raises:
            InputError: there is no such layer, or the model has no attention.
        """
        if self._chosen is None:
            self._chosen = self.layer or finest_layer(self.model, image)
        layers = observe(self.model if model is None else model, image, self._chosen).layers
        return {seen.layer: attention_pictures(seen, self.query)[""].float() for seen in layers}


class AttentionSegmentation(AttentionEvaluation):
    """Foreground segmentation by attention maps: whether objects are where attention is high.

    Report EECS-2024-49, Table 1.4. A map is brought to 0..1 by its least and largest entry, enlarged to the image
    (bilinear), and is foreground above a threshold. Batches as of `VOCForeground`. Logs ``test/iou``,
    ``test/false_positives`` and ``test/false_negatives`` in percent.

    Args:
        threshold: entry of a map, in 0..1, above which a pixel is foreground.
        **evaluation: see `AttentionEvaluation`.
    """

    METRICS = ForegroundErrors.SCALES

    def __init__(
        self,
        model: str = "vit_tiny_patch16_224",
        num_classes: int = 1000,
        image_size: tuple[int, int] | None = None,
        *,
        threshold: Annotated[float, Domain(least=0, below=1)] = 0.3,
        **evaluation: Any,
    ) -> None:
        super().__init__(model, num_classes, image_size, **evaluation)
        self.threshold = threshold
        self.errors = ForegroundErrors()

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Count the foreground errors of one test batch."""
        counted = batch["index"] >= 0
        if not counted.any():
            return
        maps = self.attention(batch["image"])
        if len(maps) > 1:
            raise InputError(f"layer={self.layer!r}: objects are found by the attention of one layer")
        (attention,) = maps.values()
        check_finite("attention maps", attention, batch["index"])
        mask = batch["mask"][counted]
        large = F.interpolate(min_max(attention)[counted, None], mask.shape[1:], mode="bilinear")[:, 0]
        self.errors.update(large > self.threshold, mask)

    def on_test_epoch_end(self) -> None:
        """Log IoU, false positives and false negatives over all processes, and reset the counts."""
        self.log_dict({f"test/{name}": value for name, value in self.errors.compute().items()})
        self.errors.reset()


def finest_layer(model: nn.Module, image: Tensor) -> str:
    """Return the name that `observe` has for the last of the layers with the finest token grid.

    Args:
        model: a model with mixers or attention of timm.
        image: (B, 3, H, W), of which the first is run through the model.
    """
    depth = len(swappable(model))
    grids = [seen.grid for seen in observe(model, image[:1], f"0-{depth - 1}" if depth > 1 else "last").layers]
    return str(max(range(depth), key=lambda layer: (grids[layer][0] * grids[layer][1], layer)))


def min_max(maps: Tensor) -> Tensor:
    """Return maps (B, h, w) scaled to 0 at the least entry of each and 1 at its largest; 0 if all are the same."""
    least, largest = maps.aminmax(dim=-1)
    least, largest = least.amin(-1)[:, None, None], largest.amax(-1)[:, None, None]
    return (maps - least) / torch.where(largest > least, largest - least, 1)


def __getattr__(name: str) -> Any:
    """Return what has moved to another module under the name by which saved configs know it."""
    if name == "AttentionSaliency":
        from tasks.evaluations.saliency import AttentionSaliency

        return AttentionSaliency
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
