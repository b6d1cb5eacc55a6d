"""Images decoded from the first layer's signals, from the command line."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from attention_zoo.cli.decode import read_mask


@pytest.fixture(scope="module")
def twice(call, tiny, tmp_path_factory):
    """A finished run of a model that looks twice."""
    folder = tmp_path_factory.mktemp("twice") / "run"
    model = ["--model.model", "absvit_tiny_patch16_224", "--model.model_args.top_down", "{alpha: 2}"]
    assert call("fit", "--config", tiny, *model, "--trainer.default_root_dir", folder) == 0
    return folder


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """An image of two halves, and the mask of its left one, the rim of which counts nowhere."""
    folder = tmp_path_factory.mktemp("photo")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    (folder / "masks").mkdir()
    labels = np.zeros((8, 8), np.uint8)
    labels[:, :3], labels[:, 3] = 7, 255
    Image.fromarray(labels).save(folder / "masks" / "photo.png")
    return folder / "photo.png"


def test_the_runs_own_images(zoo, tmp_path, twice):
    ended = zoo("decode", "--ckpt_path", twice, "--rows", "2", "--prior", "3", "learned")
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[-1] == "written to decode" and len(ended.out.splitlines()) == 6
    record = json.loads((tmp_path / "decode" / "decode.json").read_text())
    assert (record["fitted_on"], record["ridge"], record["alpha"]) == (1079, 1e-4, 2.0)
    names = ["bottom-up", "top-down, prior 3", "sum, prior 3", "top-down, learned query", "sum, learned query"]
    assert list(record["signals"]) == names
    assert record["fit_psnr"] > 20
    assert record["signals"]["bottom-up"]["all"]["images"] == 2
    assert record["signals"]["bottom-up"]["all"]["psnr"] > 20 > record["signals"]["top-down, prior 3"]["all"]["psnr"]
    with Image.open(tmp_path / "decode" / "decode.png") as picture:
        width, height = picture.size
    assert 2 < width / height < 4  # six columns, two rows
    assert "not empty" in zoo("decode", "--ckpt_path", twice).err


def test_inside_and_outside_of_an_object(zoo, tmp_path, twice, photo):
    arguments = ["--ckpt_path", twice / "checkpoints" / "last.ckpt", "--masks", photo.parent / "masks"]
    ended = zoo("decode", photo, *arguments, "--data", photo.parent, "--out", "seen", "--ridge", "0")
    assert ended.code == 0, ended.err
    record = json.loads((tmp_path / "seen" / "decode.json").read_text())
    assert record["fitted_on"] == 2  # the image, and the mask beside it
    for each in record["signals"].values():
        assert each["difference"]["psnr"] == pytest.approx(each["inside"]["psnr"] - each["outside"]["psnr"])
    assert "difference" in ended.out


def test_maps_of_the_run_under_a_prior(zoo, tmp_path, twice, photo):
    run = ["--ckpt_path", twice / "checkpoints" / "last.ckpt", "--out", "maps.svg"]
    ended = zoo("maps", photo, *run, "--prior", "3", "--modes", "absvit", "mask_att", "--norms", "plain")
    assert (ended.code, ended.out) == (0, "maps.svg: 1 model on 1 image; norms of tokens\n"), ended.err
    svg = (tmp_path / "maps.svg").read_text()
    for words in ("prior 3", "similarity", "absvit, α = 2", "mask_att"):
        assert f"<!-- {words} -->" in svg
    ended = zoo("maps", photo, *run, "--overwrite", "--prior", "eleven")
    assert ended.code == 2 and "unknown class 'eleven'; choose from: 0, 1, 2" in ended.err


def test_masks_of_one_number_and_of_several(tmp_path):
    labels = np.zeros((2, 4), np.uint8)
    labels[:, 1:3] = 255
    image = torch.zeros(3, 2, 4, dtype=torch.uint8)
    Image.fromarray(labels).save(tmp_path / "one.png")
    mask = read_mask(tmp_path / "one.png", image, lambda pixels: pixels)
    assert mask.inside[0].tolist() == [False, True, True, False] and torch.equal(mask.outside, ~mask.inside)
    labels[:, 1] = 4
    Image.fromarray(labels).save(tmp_path / "rim.png")
    mask = read_mask(tmp_path / "rim.png", image, lambda pixels: pixels.flip(-1))
    assert mask.inside[0].tolist() == [False, False, True, False]
    assert mask.outside[0].tolist() == [True, False, False, True]


def test_an_interrupt_leaves_nothing(zoo, tmp_path, twice, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("attention_zoo.analysis.decoder.LeastSquares.add", stopped)
    assert zoo("decode", "--ckpt_path", twice).code == 130
    assert not list(tmp_path.iterdir())


BAD = {
    "no checkpoint named": ([], ["ckpt_path"]),
    "no such checkpoint": (["--ckpt_path", "nope.ckpt"], ["nope.ckpt does not exist"]),
    "a model that looks once": (["--ckpt_path", "ONCE"], ["VisionTransformer has no top-down pass"]),
    "no such class": (["--ckpt_path", "RUN", "--prior", "eleven"], ["unknown class 'eleven'"]),
    "no such image": (["nope.png", "--ckpt_path", "RUN"], ["cannot read image nope.png"]),
    "masks without images": (["--ckpt_path", "RUN", "--masks", "masks"], ["--masks needs images"]),
    "no such masks": (["PHOTO", "--ckpt_path", "RUN", "--masks", "nope"], ["no folder nope"]),
    "no mask of the image": (["PHOTO", "--ckpt_path", "RUN", "--masks", "."], ["no mask of", "photo.png"]),
    "no images to fit on": (["--ckpt_path", "RUN", "--data", "."], ["no images in ."]),
    "negative ridge": (["--ckpt_path", "RUN", "--ridge=-1"], ["ridge", "must not be negative"]),
    "no rows": (["--ckpt_path", "RUN", "--rows", "0"], ["rows", "at least 1"]),
    "negative alpha": (["--ckpt_path", "RUN", "--alpha=-1"], ["alpha", "must not be negative"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(zoo, tmp_path, twice, run_folder, photo, case):
    argv, words = BAD[case]
    names = {"RUN": twice, "ONCE": run_folder, "PHOTO": photo}
    ended = zoo("decode", *(names.get(word, word) for word in argv))
    assert ended.code == 2
    assert ended.err.startswith("error: ") and len(ended.err.splitlines()) == 1
    for word in words:
        assert word in ended.err
    assert not list(tmp_path.iterdir())
