"""Pictures of the pixels that each query of a mask decoder takes at every layer, drawn in an evaluation."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from attention_zoo.analysis.assignments import NO_LABEL, Scene, assignment_sheet, assignments
from attention_zoo.domains import PositiveInt, checked
from attention_zoo.errors import InputError
from attention_zoo.runs.files import replacing
from attention_zoo.runs.folders import refuse_links
from tasks.dense import IGNORE
from tasks.mask_segmentation import MaskSegmentation
from tasks.pictures import due, pixels


class DrawAssignments(Callback):
    """Writes ``assignments_<stage>.png`` after each validation or test: a row for each of some images, evenly spread.

    Args:
        folder: folder of the pictures; None is ``assignments`` in the run folder.
        images: number of images.
    """

    @checked
    def __init__(self, folder: str | None = None, images: PositiveInt = 6) -> None:
        self.folder, self.images = folder, images
        self._scenes: list[Scene] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check that the task has a mask decoder.

        Raises:
            InputError: it has none.
        """
        if not isinstance(pl_module, MaskSegmentation):
            raise InputError(f"DrawAssignments draws what MaskSegmentation predicts, not {type(pl_module).__name__}")

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Keep the batch's share of the images to draw."""
        self._keep(trainer, pl_module, batch, batch_idx, sum(trainer.num_val_batches))

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Keep the batch's share of the images to draw."""
        self._keep(trainer, pl_module, batch, batch_idx, sum(trainer.num_test_batches))

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write ``assignments_val.png``, unless no image was kept."""
        self._write(trainer, "val")

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write ``assignments_test.png``, unless no image was kept."""
        self._write(trainer, "test")

    def _keep(self, trainer: Any, task: Any, batch: dict[str, Any], number: int, batches: float) -> None:
        """Keep the first images of a batch, as many as its share of those to draw; the first process alone does."""
        missing = due(self.images, number, batches, len(self._scenes))
        if not trainer.is_global_zero or not missing:
            return
        image = batch["image"][:missing]
        size = tuple(image.shape[2:])
        with torch.inference_mode():
            outputs = task(image)
            predicted = task.classes_at(outputs, image, size).cpu()
        covered = task.model.covered(size)
        layers = [_enlarged(x, covered)[:, : size[0], : size[1]].cpu() for x in assignments(outputs)]
        label = _enlarged(batch["mask"][:missing], size).cpu()
        label = label.masked_fill(label == IGNORE, NO_LABEL)
        shown = pixels(image.cpu().float(), trainer.datamodule.mean, trainer.datamodule.std)
        for place in range(len(image)):
            parts = [layer[place] for layer in layers]
            self._scenes.append(Scene(shown[place], parts, predicted[place], label[place]))

    def _write(self, trainer: L.Trainer, stage: str) -> None:
        if not self._scenes:
            return
        folder = Path(self.folder or Path(trainer.default_root_dir) / "assignments")
        if self.folder is None:
            refuse_links(folder)
        path = folder / f"assignments_{stage}.png"
        with replacing(path) as temporary:
            assignment_sheet(self._scenes).savefig(temporary, format="png")
        self._scenes = []
        rank_zero_info(f"wrote {path}")


def _enlarged(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Return labels (B, h, w) resized to ``size``, int64, each from the nearest pixel."""
    return F.interpolate(labels[:, None].double(), size, mode="nearest-exact")[:, 0].long()
