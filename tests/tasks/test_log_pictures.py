"""Pictures beside the curves: which there are, of which images, and where they go."""

import sys
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from attention_zoo.errors import InputError
from attention_zoo.runs.trackio_logger import TrackioLogger
from datamodules import Digits
from tasks import Classification, LogPictures
from tasks.log_pictures import log_picture
from tasks.pictures import due, pixels
from tests.tasks import test_interactive, test_mask_segmentation, test_semantic

TINY = {"patch_size": 2, "embed_dim": 16, "depth": 2, "num_heads": 2}


def fit(logger, callback, **options):
    data = Digits(batch_size=32, num_workers=0)
    task = Classification(
        num_classes=10, image_size=(8, 8), model_args=TINY, mixer=test_interactive.probabilistic, **options
    )
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    limits = {"limit_train_batches": 1, "limit_val_batches": 2, "max_epochs": 2, "log_every_n_steps": 1}
    trainer = L.Trainer(accelerator="cpu", devices=1, logger=logger, callbacks=[callback], **limits, **quiet)
    trainer.fit(task, datamodule=data)
    return trainer


def test_tensorboard_has_a_sheet_of_each_second_epoch(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="", version="")
    fit(logger, LogPictures(images=3, every_n_epochs=2))
    events = EventAccumulator(str(tmp_path)).Reload()
    (picture,) = events.Images("val/pictures")
    assert picture.step == 2
    assert picture.height > picture.width  # three rows of two tiles


def test_images_are_spread_evenly():
    kept = []
    for number in range(5):
        kept.append(due(3, number, 5, sum(kept)))
    assert kept == [1, 1, 0, 1, 0] and due(4, 0, 1, 0) == 4


def test_pixels_are_those_before_the_normalisation():
    image = torch.randint(256, (2, 3, 4, 5), dtype=torch.uint8)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.1)
    shift, scale = (torch.tensor(values)[:, None, None] for values in (mean, std))
    assert torch.equal(pixels((image / 255 - shift) / scale, mean, std), image)


def test_a_classifier_has_maps_on_the_grid():
    task = Classification(num_classes=10, image_size=(8, 8), model_args=TINY).eval()
    (title,), (picture,) = zip(*task.pictures({"image": torch.randn(2, 3, 8, 8)}).items(), strict=True)
    assert title == "layer 1, DotProduct" and picture.shape == (2, 4, 4)


@pytest.mark.parametrize(("kind", "size"), [(test_semantic, (32, 48)), (test_mask_segmentation, (64, 64))])
def test_segmenters_have_predicted_and_true_classes(kind, size):
    batch, task = test_semantic.batch(size), kind.task().eval()
    with torch.no_grad():
        pictures = task.pictures(batch)
    assert pictures["prediction"].shape == (4, *size) and int(pictures["prediction"].max()) < task.num_classes
    assert torch.equal(pictures["label"] == -1, batch["mask"] == 255)


def test_a_clicked_object_and_its_mask():
    task, data = test_interactive.tiny().eval(), test_interactive.scenes()
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    with torch.no_grad():
        pictures = task.pictures(batch)
    assert torch.equal(pictures["label"] == 0, batch["mask"] == 1)
    assert set(pictures["prediction"].unique().tolist()) <= {-1, 0}


class Shown:
    """A logger with ``log_image``, as Weights & Biases' and Trackio's."""

    def log_image(self, key, images, step=None):
        self.logged = key, images, step


def test_loggers_with_log_image_get_one_picture():
    logger, picture = Shown(), np.zeros((4, 5, 3), np.uint8)
    log_picture(logger, "val/pictures", picture, 7)
    assert logger.logged == ("val/pictures", [picture], 7)


def test_trackio_gets_its_own_images(monkeypatch):
    logged = []
    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(Image=lambda image: ("image", image.shape)))
    logger = TrackioLogger()
    logger.run = SimpleNamespace(log=lambda values, step: logged.append((values, step)))
    log_picture(logger, "val/pictures", np.zeros((4, 5, 3), np.uint8), 7)
    assert logged == [({"val/pictures": ("image", (4, 5, 3))}, 7)]


def test_a_run_without_such_a_logger_and_other_modules_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"no logger of the run shows pictures \(CSVLogger\)"):
        fit(CSVLogger(tmp_path), LogPictures())
    with pytest.raises(InputError, match=r"LogPictures draws the pictures of a Task, which LightningModule is not"):
        LogPictures().setup(SimpleNamespace(), L.LightningModule(), "fit")
    with pytest.raises(InputError, match="images=0"):
        LogPictures(images=0)


def test_a_classifier_with_no_attention_says_so():
    plain = Classification("test_resnet", num_classes=3)
    with pytest.raises(InputError, match="has no attention to look at"):
        plain.eval().pictures({"image": torch.zeros(1, 3, 32, 32)})
