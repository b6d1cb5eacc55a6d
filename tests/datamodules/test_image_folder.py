import shutil
from pathlib import Path

import pytest
import torch
from torchvision.transforms import v2

from attention_zoo.errors import InputError
from datamodules import ImageFolder
from tests.datamodules.files import COLOURS, write_images


def names(root, parts=("fit", "test"), **kwargs):
    data = ImageFolder(str(root), **kwargs)
    for stage in parts:
        data.setup(stage)
    return {part: [str(Path(p).relative_to(root)) for p in split.images.names] for part, split in data.splits.items()}


def test_folders_of_parts_are_taken_as_they_are(parts_folder):
    found = names(parts_folder)
    for part, count in (("train", 6), ("val", 2), ("test", 3)):
        assert found[part] == [f"{part}/{colour}/{i:03}.png" for colour in COLOURS for i in range(count)]


def test_class_folders_alone_are_split_by_the_fractions(flat_folder):
    found = names(flat_folder, val_fraction=0.2, test_fraction=0.1)
    assert {part: len(paths) for part, paths in found.items()} == {"train": 21, "val": 6, "test": 3}
    for part in found.values():
        assert len({Path(path).parent for path in part}) == 3


def test_a_missing_val_is_taken_from_train(parts_folder):
    shutil.rmtree(parts_folder / "val")
    found = names(parts_folder, val_fraction=0.2)
    assert len(found["val"]) == 4 and len(found["train"]) == 14 and len(found["test"]) == 9
    assert all(path.startswith("train/") for path in found["val"] + found["train"])
    assert not set(found["val"]) & set(found["train"])


def test_a_missing_test_is_an_error_and_not_the_validation_images(parts_folder):
    shutil.rmtree(parts_folder / "test")
    assert len(names(parts_folder, ["fit"])["val"]) == 6
    with pytest.raises(InputError, match=f"no folder {parts_folder}/test with .*beside train and val"):
        names(parts_folder)


def test_only_a_val_folder_validates_and_does_not_train(parts_folder):
    shutil.rmtree(parts_folder / "train")
    assert len(names(parts_folder, ["validate"])["val"]) == 6
    with pytest.raises(InputError, match=f"no folder {parts_folder}/train with"):
        names(parts_folder, ["fit"])


def test_a_val_without_class_folders_is_not_passed_over(parts_folder):
    shutil.rmtree(parts_folder / "val")
    (parts_folder / "val").mkdir()
    (parts_folder / "val" / "0001.png").write_bytes(b"")
    with pytest.raises(InputError, match=f"no class folders in {parts_folder}/val: .*found: 0001.png"):
        names(parts_folder)


def test_a_class_may_be_called_train(flat_folder):
    (flat_folder / "red").rename(flat_folder / "train")
    data = ImageFolder(str(flat_folder))
    data.setup("fit")
    assert data.class_names == ["blue", "green", "train"]
    assert len(data.splits["train"].images) == 24


def test_given_class_names_fix_the_labels(flat_folder):
    data = ImageFolder(str(flat_folder), class_names=["red", "green", "blue"])
    data.setup("fit")
    assert data.class_names == ["red", "green", "blue"] and data.num_classes == 3
    for path, label in zip(data.splits["train"].images.names, data.splits["train"].columns["label"], strict=True):
        assert Path(path).parent.name == data.class_names[label]


def test_given_class_names_are_authoritative(flat_folder, parts_folder):
    with pytest.raises(InputError, match=f"{flat_folder}/red: unknown class 'red'; .*choose from: blue, green"):
        names(flat_folder, class_names=["blue", "green"])
    four = [*COLOURS, "violet"]
    with pytest.raises(InputError, match=f"no folder {parts_folder}/train/violet"):
        names(parts_folder, ["fit"], class_names=four)
    assert len(names(parts_folder, ["test"], class_names=four)["test"]) == 9
    for bad in ([], ["a", "a"]):
        with pytest.raises(InputError, match="class_names must be different names"):
            ImageFolder("/nowhere", class_names=bad)


def test_a_class_of_val_that_train_does_not_have(parts_folder):
    write_images(parts_folder / "val", ["violet"], 1, (8, 8))
    with pytest.raises(InputError, match=f"{parts_folder}/val/violet: unknown class 'violet'"):
        names(parts_folder)


def test_a_class_without_images(flat_folder):
    (flat_folder / "violet").mkdir()
    (flat_folder / "violet" / "notes.txt").write_text("none yet")
    with pytest.raises(InputError, match=f"no images in {flat_folder}/violet"):
        names(flat_folder)


@pytest.mark.parametrize(("present", "found"), [(False, "no such folder"), (True, "nothing")])
def test_missing_or_empty_folder(tmp_path, present, found):
    root = tmp_path / "root"
    if present:
        root.mkdir()
    with pytest.raises(InputError, match=f"no class folders in {root}: expected train/<class>.*found: {found}"):
        _ = ImageFolder(str(root)).num_classes


def test_too_few_images_for_a_fraction(tmp_path):
    write_images(tmp_path / "few", COLOURS, 1, (8, 8))
    with pytest.raises(InputError, match="few has 3 images, too few to split off val by its fraction"):
        names(tmp_path / "few")
    for fractions in ({"val_fraction": 0}, {"val_fraction": 0.5, "test_fraction": 0.5}):
        with pytest.raises(InputError, match="val_fraction and test_fraction must be positive and together less"):
            ImageFolder(str(tmp_path / "few"), **fractions)


def test_evaluation_shows_the_centre(flat_folder):
    data = ImageFolder(str(flat_folder))
    image = torch.randint(0, 256, (3, 512, 300), dtype=torch.uint8)
    shown = data.default_resize()(image)
    whole = v2.Resize(256, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)(image)
    assert whole.shape == (3, 436, 256)
    assert torch.equal(shown, v2.CenterCrop(224)(whole))
    assert ImageFolder(str(flat_folder), image_size=(64, 32)).default_resize()(image).shape == (3, 64, 32)
