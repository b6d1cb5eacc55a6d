"""Evaluations of a classifier's attention against objects (VOC) and human gaze (MIT1003), which it never learned."""

from abc import abstractmethod
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attention_zoo.analysis import attention_pictures, observe
from attention_zoo.domains import Domain
from attention_zoo.functional.checks import check_finite
from attention_zoo.hosts.table import swappable
from tasks.classification import Classification
from tasks.metrics import NSS, ForegroundErrors


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

    def attention(self, image: Tensor) -> Tensor:
        """Return the attention maps (B, h, w) float32 of images (B, 3, H, W), on the token grid.

        A map is how strongly the query reads each token, the mean over heads.

        Raises:
            InputError: there is no such layer, or the model has no attention.
        """
        if self._chosen is None:
            self._chosen = self.layer or finest_layer(self.model, image)
        (seen,) = observe(self.model, image, self._chosen).layers
        return attention_pictures(seen, self.query)[""].float()

    @abstractmethod
    def count(self, attention: Tensor, batch: dict[str, Any], counted: Tensor) -> None:
        """Count a batch of images.

        Args:
            attention: (B, h, w), the maps of its images.
            batch: the batch of the data module.
            counted: (B,) bool, which of its images count.
        """

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Count one test batch."""
        counted = batch["index"] >= 0
        if counted.any():
            maps = check_finite("attention maps", self.attention(batch["image"]), batch["index"])
            self.count(maps, batch, counted)


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

    def count(self, attention: Tensor, batch: dict[str, Any], counted: Tensor) -> None:
        """Count the foreground errors of a batch; see `AttentionEvaluation.count`."""
        mask = batch["mask"][counted]
        large = F.interpolate(min_max(attention)[counted, None], mask.shape[1:], mode="bilinear")[:, 0]
        self.errors.update(large > self.threshold, mask)

    def on_test_epoch_end(self) -> None:
        """Log IoU, false positives and false negatives over all processes, and reset the counts."""
        self.log_dict({f"test/{name}": value for name, value in self.errors.compute().items()})
        self.errors.reset()


class AttentionSaliency(AttentionEvaluation):
    """Saliency of attention maps: whether attention is high where people look.

    Report EECS-2024-49, Table 1.5. Batches as of `MIT1003`. Logs ``test/nss``.

    Args:
        **evaluation: see `AttentionEvaluation`.
    """

    def __init__(
        self,
        model: str = "vit_tiny_patch16_224",
        num_classes: int = 1000,
        image_size: tuple[int, int] | None = None,
        **evaluation: Any,
    ) -> None:
        super().__init__(model, num_classes, image_size, **evaluation)
        self.nss = NSS()

    def count(self, attention: Tensor, batch: dict[str, Any], counted: Tensor) -> None:
        """Measure the saliency of a batch; see `AttentionEvaluation.count`."""
        fixations = [seen for seen, counts in zip(batch["fixations"], counted.tolist(), strict=True) if counts]
        self.nss.update(attention[counted], fixations)

    def on_test_epoch_end(self) -> None:
        """Log the normalised scanpath saliency over all processes."""
        self.log("test/nss", self.nss)


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
