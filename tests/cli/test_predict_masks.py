"""Predictions as pictures."""

import csv

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from attention_zoo.errors import InputError
from datamodules import SegmentationFolder
from datamodules.predictions import PredictionWriter, draw_legend, png_names
from tests.datamodules.files import truncate
from tests.datamodules.segmentation_files import PALETTE, painted, random_mask

CLASSES = ["floor", "wall", "plant", "chair"]


class NearestColour(L.LightningModule):
    """Sees the class of a pixel in its colour."""

    def predict_step(self, batch):
        colours = torch.tensor(PALETTE, dtype=torch.float32)[:, :, None, None] / 255
        distance = (batch["image"][:, None] - colours).square().sum(2)
        return [
            interpolate(one[None], size.tolist()).argmin(1)[0]
            for one, size in zip(distance, batch["size"], strict=True)
        ]


@pytest.fixture
def photographs(tmp_path):
    """Five images of two sizes, one deeper, and two whose names differ in the suffix only."""
    names = {"a.png": (24, 32), "a.bmp": (24, 32), "b.png": (16, 48), "sub/a.png": (24, 32), "sub/c.tiff": (16, 48)}
    masks = {}
    (tmp_path / "photographs" / "sub").mkdir(parents=True)
    for seed, (name, size) in enumerate(names.items()):
        masks[name] = random_mask(seed, size)
        Image.fromarray(painted(masks[name])).save(tmp_path / "photographs" / name)
    return tmp_path / "photographs", masks


def predict(folder, writer, **kwargs):
    plain = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "num_workers": 0, "batch_size": 2}
    data = SegmentationFolder("/nowhere", CLASSES, image_size=48, predict_dir=str(folder), **plain)
    quiet = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu", "enable_checkpointing": False}
    trainer = L.Trainer(callbacks=[writer], **quiet, **kwargs)
    trainer.predict(NearestColour(), data, return_predictions=False)
    return data


def test_masks_overlays_and_legend(photographs, tmp_path):
    folder, masks = photographs
    data = predict(folder, PredictionWriter(str(tmp_path / "out"), opacity=0.25))
    files = {"a.png": "a.png.png", "a.bmp": "a.bmp.png", "b.png": "b.png", "sub/a.png": "sub/a.png"}
    files["sub/c.tiff"] = "sub/c.png"
    for kind in ("masks", "overlays"):
        written = {str(path.relative_to(tmp_path / "out" / kind)) for path in (tmp_path / "out" / kind).rglob("*.png")}
        assert written == set(files.values())
    colours = np.array(data.palette)
    for name, mask in masks.items():
        found = Image.open(tmp_path / "out/masks" / files[name])
        assert (np.array(found) == mask).mean() > 0.9  # borders blend where an image was resized
        assert np.array_equal(np.array(found.convert("RGB")), colours[np.array(found)])
        overlay = np.array(Image.open(tmp_path / "out/overlays" / files[name]), dtype=int)
        blend = 0.75 * painted(mask) + 0.25 * colours[np.array(found)]
        assert np.abs(overlay - blend).max() <= 0.5
    with (tmp_path / "out" / "legend.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == CLASSES
    assert [tuple(int(row[key]) for key in ("red", "green", "blue")) for row in rows] == data.palette
    assert Image.open(tmp_path / "out" / "legend.png").width > 50


def test_an_existing_folder_is_kept(photographs, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="out exists; choose another with --prediction.path"):
        predict(photographs[0], PredictionWriter(str(tmp_path / "out")))
    assert not list((tmp_path / "out").iterdir())


def test_the_default_path_follows_the_data(photographs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    predict(photographs[0], PredictionWriter())
    assert len(list((tmp_path / "predictions" / "masks").rglob("*.png"))) == 5


@pytest.fixture
def told(monkeypatch):
    """The lines that are told."""
    lines = []
    monkeypatch.setattr("datamodules.predictions.rank_zero_info", lines.append)
    return lines


def test_masks_before_a_broken_image_are_kept_and_counted(photographs, tmp_path, told):
    truncate(photographs[0] / "sub" / "c.tiff")
    with pytest.raises(InputError, match="c.tiff"):
        predict(photographs[0], PredictionWriter(str(tmp_path / "out")))
    kept = list((tmp_path / "out" / "masks").rglob("*.png"))
    assert told == [f"cut off: {tmp_path / 'out'} has masks of {len(kept)} of 5 images"]
    assert 0 < len(kept) < 5


def test_a_part_of_the_masks_is_told_as_such(photographs, tmp_path, told):
    predict(photographs[0], PredictionWriter(str(tmp_path / "out")), limit_predict_batches=1)
    assert told == [f"{tmp_path / 'out'}: masks of 2 of 5 images, as trainer.limit_predict_batches says"]


@pytest.mark.parametrize("opacity", [-0.1, 1.1])
def test_opacity_is_a_share(opacity):
    with pytest.raises(InputError, match=r"prediction.opacity=.* must be in \[0, 1\]"):
        PredictionWriter(opacity=opacity)
    with pytest.raises(InputError, match="prediction.path is empty"):
        PredictionWriter("")


def test_a_legend_of_many_classes_has_columns(tmp_path):
    draw_legend(tmp_path / "few.png", ["a"] * 20, [(0, 0, 0)] * 20)
    draw_legend(tmp_path / "many.png", ["a"] * 100, [(0, 0, 0)] * 100)
    few, many = (Image.open(tmp_path / f"{name}.png") for name in ("few", "many"))
    assert many.width > 2 * few.width
    assert many.height < 2 * few.height


def test_names_stay_apart(tmp_path):
    names = png_names([str(tmp_path / name) for name in ("a.jpg", "a.png", "b.v1.jpg", "c/a.jpg")], tmp_path)
    assert list(map(str, names.values())) == ["a.jpg.png", "a.png.png", "b.v1.png", "c/a.png"]
