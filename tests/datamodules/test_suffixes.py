"""Images are found by the suffixes of what the decoder reads; those of other kinds are counted and said."""

import warnings

import numpy as np
import pytest
from PIL import Image, features

import datamodules as dm
from datamodules import decoding
from datamodules.images import decode, is_image, list_images
from tests.datamodules.files import COLOURS, write_images

KINDS = {
    ".gif": "GIF",
    ".jfif": "JPEG",
    ".JPE": "JPEG",
    ".avif": "AVIF",
    ".jp2": "JPEG2000",
    ".apng": "PNG",
    ".pbm": "PPM",
}


@pytest.mark.parametrize("suffix", KINDS)
def test_what_the_decoder_reads_is_an_image(tmp_path, suffix):
    codec = {".avif": "avif", ".jp2": "jpg_2000"}.get(suffix)
    if codec and not features.check(codec):
        assert not is_image(f"a{suffix}")
        return
    path = tmp_path / f"a{suffix}"
    Image.new("1" if suffix == ".pbm" else "RGB", (8, 6), "white").save(path, format=KINDS[suffix])
    assert list_images(tmp_path) == [str(path)]
    assert decode(str(path)).shape == (3, 6, 8) and decode(str(path)).min() > 250


def test_of_an_animation_the_first_frame(tmp_path):
    frames = [Image.fromarray(np.full((6, 8, 3), value, np.uint8)) for value in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (decode(str(tmp_path / "a.gif")) == 10).all()


def test_suffixes_of_formats_that_pillow_was_built_without_are_none(monkeypatch):
    monkeypatch.setattr(decoding.features, "check", lambda name: name != "avif")
    found = decoding.suffixes.__wrapped__()
    assert ".avif" not in found and {".jpg", ".webp", ".gif", ".jp2"} < set(found)
    assert ".pfm" not in found  # floats, which are refused


def said(data, stage="fit"):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data.setup(stage)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("stage", ["fit", "test", "predict"])
def test_images_that_are_not_read_are_said_once(tmp_path, stage):
    write_images(tmp_path, COLOURS, 10, (8, 8))
    data = dm.ImageFolder(str(tmp_path), predict_dir=str(tmp_path))
    (tmp_path / "red" / "notes.txt").write_text("no image")
    assert said(data, stage) == []
    for name in ("blue/1.HEIC", "red/2.heic", "red/3.svg", "red/.4.svg"):
        (tmp_path / name).write_bytes(b"")
    data = dm.ImageFolder(str(tmp_path), predict_dir=str(tmp_path))
    (line,) = said(data, stage)
    assert line == (
        f"3 files are left out, the first of them {tmp_path}/blue/1.HEIC: images ending in .heic, .svg are not read; "
        "save them as PNG or JPEG"
    )
    assert said(data, stage) == []
