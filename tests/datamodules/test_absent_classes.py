"""Classes that no training mask has are said before a training, and 255 can be the label of a class."""

import warnings

import numpy as np
import pytest
from PIL import Image

import datamodules as dm
from attention_zoo.errors import InputError
from datamodules.segmentation import masks as module


def write(root, *contents):
    """Masks whose left and right halves have two labels each."""
    for folder in ("images", "annotations"):
        (root / folder).mkdir(parents=True)
    for number, (left, right) in enumerate(contents):
        mask = np.full((16, 16), left, np.uint8)
        mask[:, 8:] = right
        Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(root / "images" / f"{number:03}.png")
        Image.fromarray(mask).save(root / "annotations" / f"{number:03}.png")
    return root


def data(root, names=("background", "object"), **kwargs):
    return dm.SegmentationFolder(str(root), list(names), image_size=16, num_workers=0, batch_size=4, **kwargs)


def said(datamodule, stage="fit"):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        datamodule.setup(stage)
    return [str(warning.message) for warning in caught]


def test_masks_of_black_and_white_are_not_trained_on_in_silence(tmp_path):
    (line,) = said(data(write(tmp_path, *[(0, 255)] * 10)))
    assert line == (
        "none of the 8 masks to train on has a pixel of object; 255 counts nowhere: "
        "data.labels says which label is which class, such as [0, 255]"
    )


def test_255_can_be_the_label_of_a_class(tmp_path):
    binary = data(write(tmp_path, *[(0, 255)] * 10), labels=[0, 255])
    assert said(binary) == []
    (mask,) = next(iter(binary.val_dataloader()))["mask"]
    assert (mask[:, :8] == 0).all() and (mask[:, 8:] == 1).all()


def test_labels_need_not_be_in_order(tmp_path):
    turned = data(write(tmp_path, *[(7, 3)] * 10), labels=[3, 7], ignored=[0])
    turned.setup("fit")
    assert turned.splits["train"].columns["mask"][0].mask[0].tolist() == [1] * 8 + [0] * 8
    Image.fromarray(np.full((16, 16), 1, np.uint8)).save(turned.splits["train"].columns["mask"].paths[0])
    with pytest.raises(InputError, match=r"has the label 1; choose from: 3, 7 \(classes\), 0, 255 \(ignored\)$"):
        turned.splits["train"].columns["mask"][0]


def test_where_255_is_a_class_nothing_need_be_ignored(tmp_path):
    binary = data(write(tmp_path, *[(0, 9)] * 10), labels=[0, 255])
    with pytest.raises(InputError, match=r"has the label 9; choose from: 0, 255 \(classes\)$"):
        binary.load(["train"])["train"].columns["mask"][0]


@pytest.mark.parametrize(
    ("kwargs", "line"),
    [
        ({"labels": [0]}, "labels must be one for each of the 2 class_names, got 1"),
        ({"labels": [1, 1]}, "labels must be different ones, at least one; got"),
        ({"labels": [0, 256]}, "labels must be at most 255, got 256"),
        ({"labels": [0, -1]}, "each must not be negative"),
        ({"labels": [0, 255], "ignored": [255]}, "ignored: 255 is the label of a class"),
        ({"ignored": [1]}, "ignored must be at least 2, got 1"),
    ],
)
def test_bad_labels(kwargs, line):
    with pytest.raises(InputError, match=line):
        data("/nowhere", **kwargs)


def test_each_absent_class_is_named(tmp_path):
    root = write(tmp_path, *[(0, 2)] * 10)
    assert said(data(root, "abcd")) == ["none of the 8 masks to train on has a pixel of b, d"]
    assert said(data(root, "abc", labels=[0, 1, 2])) == ["none of the 8 masks to train on has a pixel of b"]
    assert said(data(root, "abcd"), "test") == []


def test_of_many_masks_some_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOOKED_AT", 4)
    root = write(tmp_path / "one", *[(0, 0)] * 20)
    assert said(data(root, "abc")) == ["4 of 16 masks to train on were looked at, and have no pixel of b, c"]
    root = write(tmp_path / "two", *[(0, 1)] * 20)
    assert said(data(root, "abc")) == []  # a rare class may be in those that were not looked at


def test_no_more_masks_are_read_than_needed(tmp_path, monkeypatch):
    read = []
    original = module.decode_labels
    monkeypatch.setattr(module, "decode_labels", lambda path: read.append(path) or original(path))
    said(data(write(tmp_path, *[(0, 1)] * 40)))
    assert len(read) == 1


def test_a_bad_mask_is_left_to_the_training(tmp_path):
    broken = data(write(tmp_path, *[(0, 1)] * 2, *[(0, 9)] * 8))
    assert said(broken) == []
    with pytest.raises(InputError, match="has the label 9"):
        list(broken.train_dataloader())
