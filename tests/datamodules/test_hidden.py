"""Files and folders whose names begin with a dot are no data: Jupyter keeps copies of images in such ones."""

import shutil

import numpy as np
import pytest
from PIL import Image

import datamodules as dm
from tests.datamodules import interactive_files
from tests.datamodules.files import COLOURS, write_images, write_mit, write_tiny_imagenet, write_videos
from tests.datamodules.segmentation_files import write_pairs


def image_folder(root):
    write_images(root, COLOURS, 6, (8, 8))
    return dm.ImageFolder(str(root))


def parts(root):
    for part in ("train", "test"):
        write_images(root / part, COLOURS, 6, (8, 8))
    return dm.ImageFolder(str(root))


def tiny_imagenet(root):
    return dm.TinyImageNet(str(write_tiny_imagenet(root)))


def segmentation(root):
    write_pairs(root, ".", 10)
    return dm.SegmentationFolder(str(root), list("abcd"))


def ade20k(root):
    for part in ("training", "validation"):
        write_pairs(root, part, 2)
        for path in (root / "images" / part).iterdir():
            path.rename(path.with_suffix(".jpg"))
    return dm.MMSegData("ade20k", str(root))


def cityscapes(root):
    for kind, name in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_instanceIds")):
        for part in ("train", "val"):
            (root / kind / part / "ulm").mkdir(parents=True)
            pixels = np.zeros((8, 8), np.uint16 if kind == "gtFine" else np.uint8)
            Image.fromarray(pixels).save(root / kind / part / "ulm" / f"ulm_0_{name}.png")
    return dm.CityscapesPanoptic(str(root))


def mask_folder(root):
    return dm.MaskFolder(str(interactive_files.write_folder(root)))


def davis585(root):
    return dm.DAVIS585(str(interactive_files.write_davis585(root)))


def videos(root):
    return dm.ImageNetP(str(write_videos(root, ["tilt"])), ["tilt"])


def gaze(root):
    return dm.MIT1003(str(write_mit(root.parent)))


MAKE = [image_folder, parts, tiny_imagenet, segmentation, ade20k, cityscapes, mask_folder, davis585, videos, gaze]


def hide_copies(root):
    """Copy all files into hidden folders beside them, and beside themselves under hidden names."""
    for path in [path for path in root.rglob("*") if path.is_file()]:
        (path.parent / ".ipynb_checkpoints").mkdir(exist_ok=True)
        shutil.copy(path, path.parent / ".ipynb_checkpoints" / path.name)
        shutil.copy(path, path.parent / f"._{path.name}")
    for folder in [path for path in root.rglob("*") if path.is_dir() and not path.name.startswith(".")]:
        shutil.copytree(folder, folder.parent / f".{folder.name}", ignore=shutil.ignore_patterns(".*"))


def listed(data):
    """The files of each part that the data have."""
    found = {}
    for part in ("train", "val", "test"):
        try:
            images = data.load([part])[part].images
        except dm.checks.InputError:  # no such part
            continue
        files = getattr(images, "names", None) or images.paths
        found[part] = [files[number] for number in range(len(images))]
    return found


@pytest.mark.parametrize("make", MAKE)
def test_hidden_files_and_folders_are_left_out(tmp_path, make):
    data = make(tmp_path / "root")
    before = listed(data)
    assert before
    hide_copies(tmp_path)
    assert listed(data) == before


def test_in_an_archive_too(cifar_folder, archive):
    def read(name):
        data = dm.CIFAR10(str(archive(name)), val_size=20)
        data.setup("fit")
        return data.splits["train"].images

    before = read("before.tar")
    hide_copies(cifar_folder)
    assert (read("after.tar") == before).all()


def test_images_to_predict_on_and_a_root_that_is_hidden_itself(tmp_path):
    write_images(tmp_path / ".cache" / "data", COLOURS, 2, (8, 8))
    hide_copies(tmp_path / ".cache" / "data")
    data = dm.ImageFolder("/nowhere", COLOURS, predict_dir=str(tmp_path / ".cache" / "data"))
    data.setup("predict")
    assert len(data.splits["predict"].images) == 6
