"""Files that belong together, and those of which nothing says whether they do."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import datamodules as dm
from attention_zoo.errors import InputError
from datamodules.images import below
from datamodules.interactive.folder import ClickBenchmark
from datamodules.interactive.objects import read_bright, read_trimap
from datamodules.segmentation.masks import IndexMasks, pair_files
from tests.datamodules import interactive_files as files
from tests.datamodules.files import write_mit
from tests.datamodules.segmentation_files import write_pairs


@pytest.mark.parametrize("twice", ["images/train/scene00.JPG", "annotations/train/scene00.tif"])
def test_two_files_of_one_name_are_both_named(tmp_path, twice):
    write_pairs(tmp_path, "train", 2)
    kind = twice.partition("/")[0]
    shutil.copy(tmp_path / kind / "train" / "scene00.png", tmp_path / twice)
    what = "images" if kind == "images" else "masks"
    with pytest.raises(InputError, match=rf"^two {what} of one name: .*scene00\.\w+ and .*scene00\.\w+; keep one"):
        pair_files(tmp_path / "images" / "train", tmp_path / "annotations" / "train")


def test_two_masks_of_one_object_are_both_named(tmp_path):
    root = files.write_folder(tmp_path, parts=("test",), images=1)
    shutil.copy(root / "test/masks/im0#1.png", root / "test/masks/im0#1.bmp")
    with pytest.raises(InputError, match=r"^two masks of one name: .*im0#1.bmp and .*im0#1.png; keep one"):
        dm.MaskFolder(str(root)).setup("test")


def test_two_stimuli_of_the_same_fixations_are_both_named(tmp_path):
    root = write_mit(tmp_path)
    Image.new("RGB", (50, 30)).save(root / "ALLSTIMULI" / "i1.png")
    with pytest.raises(InputError, match=r"^two stimuli of the same fixations: .*i1.jpeg and .*i1.png; keep one"):
        dm.MIT1003(str(root)).setup("test")


def test_labels_beyond_8_bits_are_named_and_never_clipped(tmp_path):
    path = str(tmp_path / "mask.png")
    Image.fromarray(np.array([[0, 1, 2]], np.uint16)).save(path)
    assert IndexMasks([path], {0: 0, 1: 1, 2: 2})[0].mask.tolist() == [[0, 1, 2]]
    Image.fromarray(np.array([[0, 300, 65535]], np.uint16)).save(path)
    with pytest.raises(InputError, match="has the labels 300, 65535; choose from: 0..2"):
        IndexMasks([path], {0: 0, 1: 1, 2: 2})[0]
    with pytest.raises(InputError, match=r"mask.png has the value 300: expected 0 .* 128 .* 255"):
        read_trimap(path)
    assert read_bright(path).tolist() == [[0, 1, 1]]


def test_a_mask_of_one_bit_is_black_and_white(tmp_path):
    mask = np.array([[False, True]])
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert read_trimap(str(tmp_path / "mask.png")).tolist() == [[0, 1]]
    assert read_bright(str(tmp_path / "mask.png")).tolist() == [[0, 1]]


def test_clicks_and_masks_lie_on_the_upright_image(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    for part, pixels in (("images", np.zeros((40, 60, 3), np.uint8)), ("masks", 255 * files.blob(3, 44))):
        (tmp_path / part).mkdir()
        Image.fromarray(pixels).save(tmp_path / part / "a.png", exif=exif)

    class Turned(ClickBenchmark):
        IMAGES, MASKS = "images", "masks"

    found = Turned(str(tmp_path), crop="random", corner_noise=0.0)
    found.setup("test")
    (batch,) = found.test_dataloader()
    assert batch["image"].shape == (1, 3, 60, 40)
    rows, columns = (batch["mask"][0] == 1).nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (44, 57, 25, 36)
    assert torch.equal(batch["box"][0].sort().values, torch.tensor([25.0, 36, 44, 57]))


@pytest.mark.parametrize("name", ["../b.png", "/etc/passwd", "a/../../b.png", "", ".", "..", "a\0b", 7, None])
def test_paths_out_of_a_folder_are_refused(tmp_path, name):
    with pytest.raises(InputError, match="^list.json: .* is (not in the folder|no file name)"):
        below(tmp_path / "data", name, "list.json")


def test_paths_in_a_folder_are_normalised(tmp_path, monkeypatch):
    assert below("data", "a/../b/./c.png", "list") == "data/b/c.png"
    assert below("data", "..a/b.png", "list") == "data/..a/b.png"
    monkeypatch.chdir(tmp_path)
    assert below("data", str(tmp_path / "data" / "a.png"), "list") == "data/a.png"
    assert below("data", "../data/a.png", "list") == "data/a.png"
