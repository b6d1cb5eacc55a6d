"""Pictures of a task's validation images beside the curves, in every logger of the run that shows pictures."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger

from attention_zoo.analysis.figures import Cell, sheet
from attention_zoo.domains import PositiveInt, checked
from attention_zoo.errors import InputError
from tasks.base import Task
from tasks.pictures import due, pixels
from tasks.sharding import FullySharded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "val/pictures"
"""The name of the pictures in loggers."""


class LogPictures(Callback):
    """Logs a sheet of pictures after each validation of a training: a row for each of some images, evenly spread.

    The pictures are the task's, see `Task.pictures`: attention maps of a classifier, masks of a segmenter. They are
    drawn by the first process, from the weights that the validation has (averaged ones under ``EMAWeightAveraging``).

    Args:
        images: number of images.
        every_n_epochs: epochs from one sheet to the next.
    """

    @checked
    def __init__(self, images: PositiveInt = 4, every_n_epochs: PositiveInt = 1) -> None:
        self.images, self.every_n_epochs = images, every_n_epochs
        self._titles: list[str] = []
        self._rows: list[list[Cell]] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Check that there is something to draw, and where to.

        Raises:
            InputError: the task has no pictures, its model is sharded, or no logger of the run shows pictures.
        """
        if stage != "fit":
            return
        if not isinstance(pl_module, Task):
            raise InputError(f"LogPictures draws the pictures of a Task, which {type(pl_module).__name__} is not")
        if isinstance(trainer.strategy, FullySharded):
            raise InputError(
                "LogPictures: one process draws, which has but a shard of the model; leave out one of them"
            )
        if not any(shows_pictures(logger) for logger in trainer.loggers):
            kinds = ", ".join(type(logger).__name__ for logger in trainer.loggers) or "none"
            raise InputError(
                f"LogPictures: no logger of the run shows pictures ({kinds}); "
                "those of loggers/tensorboard.yaml, wandb.yaml, mlflow.yaml and trackio.yaml do"
            )

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Draw the batch's share of the images."""
        if not self._draws(trainer):
            return
        count = due(self.images, batch_idx, sum(trainer.num_val_batches), len(self._rows))
        if count:
            self._draw(trainer, pl_module, {name: values[:count] for name, values in batch.items()})

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the sheet. The check before a training draws one too, which shows what is wrong, and logs none."""
        if self._rows and not trainer.sanity_checking:
            picture = image_of(sheet(self._rows, self._titles))
            for logger in filter(shows_pictures, trainer.loggers):
                log_picture(logger, NAME, picture, trainer.global_step)
        self._rows = []

    def _draws(self, trainer: L.Trainer) -> bool:
        """Whether this process draws in this validation."""
        fits = trainer.state.fn == "fit"
        turn = trainer.sanity_checking or (trainer.current_epoch + 1) % self.every_n_epochs == 0
        return bool(trainer.is_global_zero and fits and turn)

    def _draw(self, trainer: Any, task: Any, batch: Mapping[str, Any]) -> None:
        """Add a row for each image of a batch."""
        data = trainer.datamodule
        with torch.compiler.set_stance("force_eager"):  # compiled layers do not say what they read
            pictures = {title: picture.cpu() for title, picture in task.pictures(batch).items()}
        self._titles = ["image", *pictures]
        for place, image in enumerate(pixels(batch["image"].cpu().float(), data.mean, data.std)):
            self._rows.append([Cell(image), *(Cell(image, picture[place]) for picture in pictures.values())])


def shows_pictures(logger: Logger) -> bool:
    """Whether `log_picture` can log to a logger: TensorBoard's, MLflow's, or one with ``log_image``, as wandb's."""
    return isinstance(logger, TensorBoardLogger | MLFlowLogger) or hasattr(logger, "log_image")


def log_picture(logger: Any, name: str, picture: np.ndarray, step: int) -> None:
    """Log a picture (H, W, 3) uint8 under a name, at an optimizer step, to a logger that shows pictures."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, picture, step, dataformats="HWC")
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_image(logger.run_id, picture, key=name, step=step)
    else:
        logger.log_image(name, [picture], step=step)


def image_of(figure: "Figure") -> np.ndarray:
    """Return the pixels (H, W, 3) uint8 of a figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
