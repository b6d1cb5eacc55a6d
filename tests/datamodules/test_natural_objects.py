"""Photographs of objects that ImageNet has: which classes they are, where they stand, and files that do not fit."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from attention_zoo.errors import InputError
from datamodules import COCOObjects, LVISObjects
from datamodules.imagenet import synsets
from datamodules.known_objects import COCO_SYNSETS, _table, coco_labels, label_of, offset_of, plain
from tests.datamodules.interactive_files import box_polygon

BANANA, ORANGE, ZEBRA = (synsets().index(COCO_SYNSETS[name]) for name in ("banana", "orange", "zebra"))
FRUIT = {
    "banana.n.02": "elongated crescent-shaped yellow fruit with soft sweet flesh",
    "orange.n.01": "round yellow to orange fruit of any of several citrus trees",
    "person.n.01": "a human being",
}


def read(data):
    data.setup("test")
    return next(iter(data.test_dataloader()))


class TestSynsets:
    def test_definitions_tell_synsets_of_one_lemma_apart(self):
        cranes = [offset for offset, lemmas in _table("lemma").items() if "crane" in lemmas.split(", ")]
        known = [offset for offset in cranes if offset in synsets()]
        assert len(known) == 2  # the bird and the machine
        for offset in known:
            category = {"name": "crane", "synset": "crane.n.05", "def": _table("definition")[offset].upper() + "."}
            assert offset_of(category) == offset
            assert synsets()[label_of(category)] == offset
        assert offset_of({"synset": "crane.n.04", "def": "words of their own"}) is None  # nothing tells which is meant

    def test_a_lemma_that_one_synset_alone_has_is_enough_where_the_definition_is_nearly_the_same(self):
        meter = {"synset": "parking_meter.n.01", "def": "a timer by a parking space that takes a coin"}
        assert offset_of(meter) == "n03891332"
        assert offset_of({**meter, "def": "words of their own"}) is None
        assert offset_of({**meter, "def": ""}) is None

    def test_classes_that_imagenet_1k_has_not(self):
        category = {"name": "person", "synset": "person.n.01", "def": "a human being"}
        assert label_of(category) is None
        kite = {"synset": "kite.n.03", "def": "plaything consisting of a light frame covered with tissue paper"}
        assert label_of(kite) is None  # not the hawk of that name

    @pytest.mark.parametrize("category", [{"name": "x"}, {"name": "x", "synset": 3}, {"synset": "x.n.01", "def": 1}])
    def test_categories_without_a_synset(self, category):
        with pytest.raises(InputError, match="has no synset, which categories of LVIS have"):
            offset_of(category)

    def test_names_of_coco_are_lemmas(self):
        assert len(set(COCO_SYNSETS.values())) == len(COCO_SYNSETS) == 23
        for name, offset in COCO_SYNSETS.items():
            assert offset in synsets()
            lemmas = [plain(lemma) for lemma in _table("lemma")[offset].split(",")]
            assert plain({"tv": "television", "skis": "ski"}.get(name, name)) in lemmas
        assert coco_labels(["person", "banana"]) == {1: BANANA}


@pytest.fixture
def coco(tmp_path):
    """An image of a banana, an orange and a zebra that cover 1/4, 1/8 and 1/400 of it, and one of a banana alone."""
    folder = tmp_path / "annotations" / "panoptic_val2017"
    folder.mkdir(parents=True)
    (tmp_path / "val2017").mkdir()
    images, annotations = [], []
    for number in range(2):
        ids = np.zeros((20, 40), dtype=np.uint8)
        ids[:10, :20] = 1
        if number == 0:
            ids[10:, 20:30], ids[19, :2] = 2, 3
        Image.fromarray(np.stack([ids, 0 * ids, 0 * ids], -1)).save(folder / f"{number:03}.png")
        Image.new("RGB", (40, 20), (number, 0, 0)).save(tmp_path / "val2017" / f"{number:03}.jpg")
        images.append({"id": number, "file_name": f"{number:03}.jpg", "height": 20, "width": 40})
        infos = [{"id": place, "category_id": place, "iscrowd": 0} for place in np.unique(ids)[1:].tolist()]
        annotations.append({"image_id": number, "file_name": f"{number:03}.png", "segments_info": infos})
    names = [(1, "banana"), (2, "orange"), (3, "zebra"), (4, "person")]
    categories = [{"id": place, "name": name, "isthing": 1} for place, name in names]
    content = {"images": images, "annotations": annotations, "categories": categories}
    folder.with_suffix(".json").write_text(json.dumps(content))
    return tmp_path


@pytest.fixture
def lvis(tmp_path):
    """An image of two bananas, an orange and a person."""
    folder = tmp_path / "val" / "images"
    folder.mkdir(parents=True)
    Image.new("RGB", (60, 40)).save(folder / "7.jpg")
    boxes = [(1, 3, 4, 12, 14), (1, 20, 4, 12, 14), (2, 3, 30, 10, 10), (3, 26, 40, 14, 14)]
    annotations = [
        {"id": place, "image_id": 7, "category_id": number, "area": height * width}
        | {"segmentation": [box_polygon(top, left, height, width)]}
        for place, (number, top, left, height, width) in enumerate(boxes)
    ]
    categories = [{"id": place, "synset": name, "def": text} for place, (name, text) in enumerate(FRUIT.items(), 1)]
    content = {"images": [{"id": 7, "height": 40, "width": 60, "coco_url": "http://x/7.jpg"}]}
    content |= {"annotations": annotations, "categories": categories}
    (tmp_path / "val" / "lvis_val.json").write_text(json.dumps(content))
    return tmp_path


class TestCOCO:
    def test_pairs_of_classes_with_their_masks(self, coco):
        data = COCOObjects(str(coco), image_size=20, num_workers=0)
        batch = read(data)
        assert data.num_classes == 1000
        assert batch["image"].shape == (1, 3, 20, 20)
        first, second = sorted([BANANA, ORANGE])
        assert batch["labels"].tolist() == [[first, second]]
        masks = dict(zip(batch["labels"][0].tolist(), batch["masks"][0], strict=True))
        assert masks[BANANA].sum() == 100 and masks[BANANA][:10, :10].all()
        assert masks[ORANGE].sum() == 50 and masks[ORANGE][10:, 10:15].all()

    def test_an_image_of_three_classes_has_three_pairs_of_one_group(self, coco):
        batch = read(COCOObjects(str(coco), least=0.0, num_workers=0))
        assert len(batch["labels"]) == 3 and set(batch["labels"].flatten().tolist()) == {BANANA, ORANGE, ZEBRA}
        assert batch["group"].tolist() == [0, 0, 0]
        assert len(read(COCOObjects(str(coco), least=0.0, pairs=2, num_workers=0))["labels"]) == 2

    def test_none(self, coco):
        with pytest.raises(InputError, match="no image in .* shows two classes of ImageNet of at least 0.5 of it"):
            read(COCOObjects(str(coco), least=0.5))
        with pytest.raises(InputError, match="no annotations"):
            read(COCOObjects(str(coco / "val2017")))


class TestLVIS:
    def test_pairs_of_classes_with_their_masks(self, lvis):
        batch = read(LVISObjects(str(lvis), image_size=(40, 60), num_workers=0))
        assert batch["labels"].tolist() == [sorted([BANANA, ORANGE])]
        masks = dict(zip(batch["labels"][0].tolist(), batch["masks"][0], strict=True))
        assert masks[BANANA].sum() == pytest.approx(2 * 12 * 14, rel=0.1)  # both of them
        assert masks[ORANGE].sum() == pytest.approx(100, rel=0.15)
        assert not (masks[BANANA] & masks[ORANGE]).any()
        assert masks[ORANGE][4:12, 31:39].all()
        assert batch["masks"].dtype == torch.bool

    def test_files_that_do_not_fit(self, lvis):
        file = lvis / "val" / "lvis_val.json"
        content = json.loads(file.read_text())
        file.write_text(json.dumps({**content, "categories": [{"id": 1, "name": "banana"}]}))
        with pytest.raises(InputError, match="the category 'banana' has no synset"):
            read(LVISObjects(str(lvis)))
        file.write_text(json.dumps({**content, "categories": []}))
        with pytest.raises(InputError, match="shows two classes of ImageNet"):
            read(LVISObjects(str(lvis)))
        file.unlink()
        with pytest.raises(InputError, match="no file .*lvis_val.json"):
            read(LVISObjects(str(lvis)))
