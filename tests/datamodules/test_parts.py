"""Folders of parts under the names that people give them, in all data modules of a person's own folders."""

import shutil

import pytest

import datamodules as dm
from attention_zoo.errors import InputError
from attention_zoo.runs.account import described
from tests.datamodules import interactive_files
from tests.datamodules.files import COLOURS, write_images
from tests.datamodules.segmentation_files import write_pairs


def images(root, names):
    for name in names:
        write_images(root / name, COLOURS, 4, (8, 8))
    return dm.ImageFolder(str(root), val_fraction=0.25)


def segmentation(root, names):
    for name in names:
        write_pairs(root, name, 4)
    return dm.SegmentationFolder(str(root), list("abcd"), val_fraction=0.25)


def objects(root, names):
    return dm.MaskFolder(str(interactive_files.write_folder(root, parts=names, images=4)), val_fraction=0.25)


KINDS = pytest.mark.parametrize("write", [images, segmentation, objects])


def folders(data, root, parts=("train", "val", "test")):
    """The folders of part that the images of each part are in."""
    found = {}
    for part in parts:
        paths = data.load([part])[part].images.names
        found[part] = {
            next(name for name in path[len(str(root)) :].split("/") if name not in ("", "images")) for path in paths
        }
    return found


@KINDS
@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("Train", "Val", "Test"),
        ("TRAIN", "VALID", "TEST"),
        ("Training", "Validation", "Testing"),
        ("train", "valid", "test"),
        ("training", "dev", "test"),
    ],
)
def test_the_usual_names(tmp_path, write, names):
    data = write(tmp_path, names)
    assert folders(data, tmp_path) == {part: {name} for part, name in zip(("train", "val", "test"), names, strict=True)}
    data.splits = data.load(["train"])
    taken = [f"{name} for {part}" for part, name in zip(("train", "val", "test"), names, strict=True) if name != part]
    said = f", folders taken: {', '.join(taken)}" if taken else ""
    number = {images: "12 images", segmentation: "4 images", objects: "8 images"}[write]
    assert described(data).endswith(f"{number} to train on{said}")


@KINDS
def test_a_missing_part_is_treated_as_with_the_plain_names(tmp_path, write):
    data = write(tmp_path, ["Training", "Testing"])
    assert folders(data, tmp_path) == {"train": {"Training"}, "val": {"Training"}, "test": {"Testing"}}
    assert not set(data.load(["train"])["train"].images.names) & set(data.load(["val"])["val"].images.names)
    only = write(tmp_path / "only", ["training", "validation"])
    with pytest.raises(InputError, match="no folder .*test.* beside training and validation$"):
        only.load(["test"])


@KINDS
@pytest.mark.parametrize("names", [("train", "val", "valid"), ("Train", "train"), ("train", "test", "Testing")])
def test_two_folders_for_one_part(tmp_path, write, names):
    with pytest.raises(InputError, match=rf"^two folders for (val|train|test) in {tmp_path}.*: \w+ and \w+; keep one"):
        write(tmp_path, names).load(["train"])


@pytest.mark.parametrize("names", [("Train", "car"), ("test", "training", "car"), ("valid", "invalid"), ("dev", "val")])
def test_classes_may_have_such_names(tmp_path, names):
    write_images(tmp_path, names, 10, (8, 8))
    assert dm.ImageFolder(str(tmp_path)).class_names == sorted(names)


@pytest.mark.parametrize("name", ["Train", "dev"])
def test_a_class_of_such_a_name_may_have_folders(tmp_path, name):
    write_images(tmp_path, (name, "car", "bus"), 10, (8, 8))
    (tmp_path / name / "more").mkdir()
    shutil.copy(tmp_path / "car" / "000.png", tmp_path / name / "more")
    assert dm.ImageFolder(str(tmp_path)).class_names == sorted((name, "car", "bus"))


def test_images_to_segment_may_lie_in_such_a_folder(tmp_path):
    data = segmentation(tmp_path, ["dev", "field", "street"])
    assert folders(data, tmp_path, ["train"]) == {"train": {"dev", "field", "street"}}


def test_what_is_no_part_says_nothing(tmp_path):
    data = images(tmp_path, ["Train", "Test"])
    write_images(tmp_path, ["Meta"], 2, (8, 8))
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "notes.txt").write_text("no images")
    assert data.class_names == list(COLOURS)
    assert folders(data, tmp_path) == {"train": {"Train"}, "val": {"Train"}, "test": {"Test"}}
