"""Bad segmentation data end a command with one line and exit code 2."""

import numpy as np
import pytest
from PIL import Image

from tests.datamodules.segmentation_files import write_pairs


def out_of_range(root):
    Image.fromarray(np.full((24, 32), 9, np.uint8)).save(root / "annotations/val/scene01.png")
    return "error: mask data/annotations/val/scene01.png has the label 9; choose from: 0..3 (classes), 255 (ignored)\n"


def other_size(root):
    Image.fromarray(np.zeros((24, 30), np.uint8)).save(root / "annotations/val/scene01.png")
    return (
        "error: image data/images/val/scene01.png has 32 x 24 pixels, its mask data/annotations/val/scene01.png has "
        "30 x 24: they must be equal\n"
    )


def colours(root):
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(root / "annotations/val/scene01.png")
    return (
        "error: cannot read image data/annotations/val/scene01.png: a mask of indices has one channel of numbers "
        "(L or P), not RGB\n"
    )


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("spoil", [out_of_range, other_size, colours])
def test_one_line(zoo, tiny, tmp_path, spoil, workers):
    for part in ("train", "val"):
        write_pairs(tmp_path / "data", part, 4)
    line = spoil(tmp_path / "data")
    data = ["--data", "SegmentationFolder", "--data.root", "data", "--data.class_names", "[a,b,c,d]"]
    sizes = ["--data.image_size", "[24,32]", "--data.num_workers", workers]
    ended = zoo("fit", "--config", tiny, *data, *sizes, "--trainer.default_root_dir", "run")
    assert ended.code == 2
    assert ended.err.splitlines(keepends=True)[-1] == line


@pytest.mark.slow  # mmsegmentation takes long to import; its data sets are refused in tests/datamodules
def test_a_missing_split_file(zoo, tiny, tmp_path):
    data = ["--data", "MMSegData", "--data.dataset", "pascal_voc12", "--data.root", tmp_path, "--data.image_size", "32"]
    ended = zoo("fit", "--config", tiny, *data, "--trainer.default_root_dir", "run")
    assert ended.code == 2
    wanted = f"error: no split file {tmp_path}/ImageSets/Segmentation/train.txt; found in"
    assert ended.err.splitlines()[-1].startswith(wanted)
