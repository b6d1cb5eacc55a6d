"""Readers of data with instances, on small files in the real layouts."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from attention_zoo.errors import InputError
from datamodules import ADE20KPanoptic, CityscapesPanoptic, COCOPanoptic
from datamodules.loading import DataModule

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "num_workers": 0, "batch_size": 1}
CATEGORIES = [
    {"id": 92, "name": "banner", "isthing": 0, "color": [255, 255, 128]},
    {"id": 1, "name": "person", "isthing": 1, "color": [220, 20, 60]},
    {"id": 13, "name": "stop sign", "isthing": 1, "color": [220, 220, 0]},
]
IDS = [3, 300, 70_000, 16_777_214]
"""Segments of every image: person, person, a crowd of stop signs, banner; all three bytes are needed."""


def regions(size=(20, 30)):
    """Four regions 0..3 and a margin of -1."""
    mask = np.full(size, -1)
    mask[2:10, 2:15], mask[2:10, 15:28], mask[10:18, 2:15], mask[10:18, 15:28] = 0, 1, 2, 3
    return mask


@pytest.fixture
def coco(tmp_path):
    """One image of train, two of val."""
    for part, count in (("train", 1), ("val", 2)):
        (tmp_path / f"{part}2017").mkdir()
        folder = tmp_path / "annotations" / f"panoptic_{part}2017"
        folder.mkdir(parents=True)
        images, annotations = [], []
        for number in range(count):
            ids = np.where(regions() >= 0, np.array(IDS)[regions()], 0)
            Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)).save(
                folder / f"{number:012}.png"
            )
            Image.new("RGB", (30, 20), (number, 0, 0)).save(tmp_path / f"{part}2017" / f"{number:012}.jpg")
            images.append({"id": number, "file_name": f"{number:012}.jpg", "height": 20, "width": 30})
            infos = zip(IDS, (1, 1, 13, 92), (0, 0, 1, 0), strict=True)
            listed = [{"id": i, "category_id": category, "iscrowd": crowd} for i, category, crowd in infos]
            annotations.append({"image_id": number, "file_name": f"{number:012}.png", "segments_info": listed[::-1]})
        content = {"images": images[::-1], "annotations": annotations, "categories": CATEGORIES}
        folder.with_suffix(".json").write_text(json.dumps(content))
    return tmp_path


def test_ade20k_is_the_same_in_other_folders(coco):
    expected = only(COCOPanoptic(str(coco), image_size=15, **PLAIN))
    (coco / "images").mkdir()
    for part, folder in (("train", "training"), ("val", "validation")):
        (coco / f"{part}2017").rename(coco / "images" / folder)
        for ending in ("", ".json"):
            (coco / "annotations" / f"panoptic_{part}2017{ending}").rename(coco / f"ade20k_panoptic_{part}{ending}")
    batch = only(ADE20KPanoptic(str(coco), image_size=15, **PLAIN))
    assert torch.equal(batch["mask"], expected["mask"]) and torch.equal(batch["image"], expected["image"])
    assert len(only(ADE20KPanoptic(str(coco), image_size=15, **PLAIN), "train")["image"]) == 1


def only(data: DataModule, part="val"):
    data.setup({"val": "validate", "train": "fit"}.get(part, part))
    return next(iter(getattr(data, f"{part}_dataloader")()))


def test_coco(coco):
    data = COCOPanoptic(str(coco), image_size=15, **PLAIN)
    assert data.class_names == ["person", "stop sign", "banner"]
    assert data.palette == [(220, 20, 60), (220, 220, 0), (255, 255, 128)]
    assert data.things == [0, 1]
    batch = only(data)
    assert batch["image"].shape == (1, 3, 10, 15)
    mask = torch.from_numpy(regions())
    expected = torch.tensor([0, 0, 1, 2, 255])[mask]
    assert torch.equal(batch["mask"][0], expected)
    (segments,) = batch["segments"]
    assert torch.equal(segments["masks"], torch.stack([mask == number for number in range(4)]))
    assert segments["labels"].tolist() == [0, 0, 1, 2]
    assert segments["is_thing"].tolist() == [True, True, True, False]
    assert segments["crowd"].tolist() == [False, False, True, False]
    assert len(data.val_dataloader()) == 2


def test_coco_in_training(coco):
    data = COCOPanoptic(str(coco), image_size=24, **PLAIN)
    batch = only(data, "train")
    (segments,) = batch["segments"]
    assert batch["mask"].shape[1:] == segments["masks"].shape[1:] == (24, 24)
    assert torch.equal(segments["masks"].any(0), batch["mask"][0] != 255)


def test_names_of_coco_suffice_to_predict(coco):
    data = COCOPanoptic("/nowhere", ["person", "stop sign", "banner"], predict_dir=str(coco / "val2017"), **PLAIN)
    assert data.num_classes == len(data.palette) == 3
    assert only(data, "predict")["path"] == [str(coco / "val2017" / "000000000000.jpg")]
    with pytest.raises(InputError, match="class_names are not the 3 categories of .*panoptic_val2017.json"):
        only(COCOPanoptic(str(coco), ["a", "b", "c"], **PLAIN))


@pytest.fixture
def cityscapes(tmp_path):
    """One scene in each part: road, a crowd of persons, a car, unlabelled pixels and a caravan."""
    for part in ("train", "val"):
        for kind in ("leftImg8bit", "gtFine"):
            (tmp_path / kind / part / "ulm").mkdir(parents=True)
        ids = np.array([7, 24, 26003, 29001, 0])[regions()].astype(np.uint16)
        Image.fromarray(ids).save(tmp_path / "gtFine" / part / "ulm" / "ulm_000000_000019_gtFine_instanceIds.png")
        Image.new("RGB", (30, 20)).save(tmp_path / "leftImg8bit" / part / "ulm" / "ulm_000000_000019_leftImg8bit.png")
    return tmp_path


def test_cityscapes(cityscapes):
    data = CityscapesPanoptic(str(cityscapes), image_size=16, box=(30, 20), **PLAIN)
    assert data.num_classes == 19
    assert [data.class_names[label] for label in data.things] == [
        *("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
    ]
    batch = only(data)
    mask = torch.from_numpy(regions())
    assert torch.equal(batch["mask"][0], torch.tensor([0, 11, 13, 255, 255])[mask])
    (segments,) = batch["segments"]
    assert segments["labels"].tolist() == [0, 11, 13]
    assert segments["is_thing"].tolist() == [False, True, True]
    assert segments["crowd"].tolist() == [False, True, False]
    assert torch.equal(segments["masks"], torch.stack([mask == number for number in range(3)]))


def test_an_image_without_segments(cityscapes):
    path = next((cityscapes / "gtFine/val/ulm").iterdir())
    Image.fromarray(np.zeros((20, 30), np.uint16)).save(path)
    batch = only(CityscapesPanoptic(str(cityscapes), image_size=16, **PLAIN))
    assert (batch["mask"] == 255).all()
    assert Counter({key: len(value) for key, value in batch["segments"][0].items()}).total() == 0


def spoil_json(root):
    (root / "annotations/panoptic_val2017.json").unlink()


def spoil_format(root):
    (root / "annotations/panoptic_val2017.json").write_text("{}")


def spoil_png(root):
    (root / "annotations/panoptic_val2017/000000000001.png").unlink()


def spoil_image(root):
    (root / "val2017/000000000001.jpg").unlink()


def spoil_segment(root):
    path = root / "annotations/panoptic_val2017/000000000000.png"
    pixels = np.array(Image.open(path))
    pixels[5, 5] = (9, 1, 0)
    Image.fromarray(pixels).save(path)


def spoil_category(root):
    path = root / "annotations/panoptic_val2017.json"
    path.write_text(path.read_text().replace('"category_id": 13', '"category_id": 14'))


BAD = {
    spoil_json: "no annotations {}/annotations/panoptic_val2017.json; found in .*: panoptic_train2017, panoptic_train",
    spoil_format: "panoptic_val2017.json is not of the COCO panoptic format: it has no images and no",
    spoil_png: "1 of 2 files are missing, the first of them {}/annotations/panoptic_val2017/000000000001.png; found in",
    spoil_image: "1 of 2 files are missing, the first of them {}/val2017/000000000001.jpg; found in",
    spoil_segment: "000000000000.png has pixels of the segment 265, which its annotation does not list",
    spoil_category: "panoptic_val2017.json: segment 70000 has the unknown category 14",
}


@pytest.mark.parametrize("spoil", BAD)
def test_bad_coco(coco, spoil):
    spoil(coco)
    with pytest.raises(InputError, match=BAD[spoil].format(coco)):
        only(COCOPanoptic(str(coco), image_size=16, **PLAIN))


def test_bad_cityscapes(cityscapes):
    (path,) = (cityscapes / "gtFine/val/ulm").iterdir()
    ids = np.array(Image.open(path))
    ids[0, 0] = 34_001
    Image.fromarray(ids).save(path)
    with pytest.raises(InputError, match=f"{path} has the instance 34"):
        only(CityscapesPanoptic(str(cityscapes), image_size=16, **PLAIN))
    path.unlink()
    with pytest.raises(InputError, match=f"1 of 1 files are missing, the first of them {path}"):
        only(CityscapesPanoptic(str(cityscapes), image_size=16, **PLAIN))
    with pytest.raises(InputError, match="no images /nowhere/leftImg8bit/val/<city>/.*found: no such folder"):
        only(CityscapesPanoptic("/nowhere", **PLAIN))
