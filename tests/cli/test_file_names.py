"""Files whose names are not UTF-8, are links, or would become one file."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attention_zoo.errors import InputError
from datamodules.predictions import object_names, png_names, save_picture, write_csv

STRANGE = os.fsdecode(b"caf\xe9")
"""Latin 1, as old archives unpack to."""


@pytest.fixture
def photos(tmp_path):
    """Twelve images of two classes; class folder and files of one have names that are not UTF-8."""
    for name in (STRANGE, "plain"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(6):
            pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{name}{number}.png")
    return tmp_path / "photos"


def test_corrupt_keeps_names_as_they_are(zoo, photos):
    options = ["--corruptions", "contrast", "--severities", "1", "--scale", "cifar", "--workers", "0"]
    ended = zoo("corrupt", photos, STRANGE, *options)
    assert ended.code == 0, ended.err
    assert "caf\\udce9: 12 files written" in ended.out
    assert (Path(STRANGE) / "contrast" / "1" / STRANGE / f"{STRANGE}0.JPEG").is_file()
    assert zoo("corrupt", photos, STRANGE, *options).out.endswith("0 files written, 12 were there\n")
    (photos / STRANGE / f"{STRANGE}0.png").write_bytes(b"no image")
    ended = zoo("corrupt", photos, "other", *options)
    assert ended.code == 2 and len(ended.err.splitlines()) == 1
    assert ended.err.startswith(f"error: cannot read image {photos}/caf")


def test_predict_keeps_names_as_they_are(zoo, run_folder, photos):
    command = ["predict", "--ckpt_path", run_folder / "checkpoints/last.ckpt", "--prediction.path", "table.csv"]
    ended = zoo(*command, "--data.predict_dir", photos)
    assert ended.code == 0, ended.err
    with open("table.csv", encoding="utf-8", errors="surrogateescape", newline="") as file:
        images = [row["image"] for row in csv.DictReader(file)]
    names = [f"{photos}/{name}/{name}{number}.png" for name in ("plain", STRANGE) for number in range(6)]
    assert sorted(images) == sorted(names)
    ended = zoo(*command, "--data.predict_dir", photos / STRANGE, "--prediction.path", "other.csv")
    assert ended.code == 2 and len(ended.err.splitlines()) == 1 and "surrogates not allowed" in ended.err


def test_fit_keeps_names_of_images_and_names_those_of_classes(zoo, photos, tiny):
    data = ["--data", "ImageFolder", "--data.root", photos, "--data.image_size", "8", "--data.num_workers", "0"]
    given = ["--data.val_fraction", "0.2", "--data.test_fraction", "0.2", "--data.batch_size", "4"]
    given += ["--trainer.max_epochs", "1", "--trainer.default_root_dir", "run"]
    ended = zoo("fit", "--config", tiny, *data, *given)
    assert ended.code == 2 and len(ended.err.splitlines()) == 1
    assert r"the class folder 'caf\udce9'" in ended.err and "is not UTF-8; rename it" in ended.err
    assert not Path("run").exists()
    (photos / STRANGE).rename(photos / "other")
    ended = zoo("fit", "--config", tiny, *data, *given)
    assert ended.code == 0, ended.err


NAMES = [
    (["a.jpg", "a.png", "b.jpg"], ["a.jpg.png", "a.png.png", "b.png"]),
    (["a.jpg", "a.png", "a.jpg.bmp"], ["a.jpg.png", "a.png.png", "a.jpg.bmp.png"]),
    (["a.JPG", "A.jpg", "x/a.jpg"], ["a.png", "A.png", "x/a.png"]),
]


@pytest.mark.parametrize(("images", "wanted"), NAMES)
def test_no_two_images_become_one_file(tmp_path, images, wanted):
    names = png_names([str(tmp_path / image) for image in images], tmp_path)
    assert list(map(str, names.values())) == wanted


def test_no_name_leads_out_of_the_folder(tmp_path):
    with pytest.raises(InputError, match="is not in the folder"):
        png_names([str(tmp_path / "in" / ".." / "a.jpg")], tmp_path / "in")


def test_objects_of_two_images_do_not_become_one_file(tmp_path):
    paths = [str(tmp_path / name) for name in ("a.jpg", "a.jpg", "b.jpg", "a.jpg")]
    png = png_names(sorted(set(paths)), tmp_path)
    assert list(map(str, object_names(paths, png))) == ["a.png", "a#2.png", "b.png", "a#3.png"]
    paths = [str(tmp_path / name) for name in ("a#2.jpg", "a.jpg", "a.jpg")]
    with pytest.raises(InputError, match=r"objects of .*a#2.jpg and of .*a.jpg would both become a#2.png"):
        object_names(paths, png_names(sorted(set(paths)), tmp_path))


def test_what_is_written_follows_no_link(tmp_path):
    photograph = tmp_path / "photograph.png"
    photograph.write_bytes(b"dear")
    for name in ("mask.png", "table.csv"):
        (tmp_path / name).symlink_to(photograph)
    save_picture(Image.new("L", (4, 4)), tmp_path / "mask.png")
    write_csv(tmp_path / "table.csv", [["a", STRANGE]])
    assert photograph.read_bytes() == b"dear"
    assert (tmp_path / "table.csv").read_bytes() == b"a,caf\xe9\r\n"
    assert Image.open(tmp_path / "mask.png").size == (4, 4)
