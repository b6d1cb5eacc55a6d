"""Attention maps from the command line."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from attention_zoo.cli.arguments import as_config
from datamodules.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS

LOW = ["--model", "vit_tiny_patch16_224"]
TWICE = ["--model", "absvit_tiny_patch16_224"]


def picture(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def refused(ended, folder, words):
    assert ended.code == 2
    assert ended.err.startswith("error: ") and len(ended.err.splitlines()) == 1
    for word in words:
        assert word in ended.err
    assert not list(folder.rglob("maps.*"))


@pytest.fixture(scope="module")
def checkpoint(run_folder):
    return run_folder / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """Wide, and red at the right."""
    pixels = np.full((40, 100, 3), 90, np.uint8)
    pixels[:, 80:, 0] = 250
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


def test_checkpoint(zoo, tmp_path, checkpoint, images):
    files = sorted(images.glob("*.png"))[:2]
    ended = zoo("maps", *files, "--ckpt_path", checkpoint, "--layer", "0-1")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == f"maps.png: 1 model on {len(files)} images\n"
    height, width, _ = picture(tmp_path / "maps.png").shape
    assert 1.1 < width / height < 1.7  # three columns, two rows, and what is written around


def test_prediction_below_is_the_one_of_predict(zoo, tmp_path, checkpoint, images):
    assert zoo("predict", "--ckpt_path", checkpoint, "--data.predict_dir", images / "sub").code == 0
    row = (tmp_path / "predictions.csv").read_text().splitlines()[1].split(",")
    path, label, probability = row[:3]
    assert zoo("maps", path, "--ckpt_path", checkpoint, "--out", "maps.svg").code == 0
    svg = (tmp_path / "maps.svg").read_text()
    for words in (f"{label} ({100 * float(probability):.0f} %)", "VarsD", path.rpartition("/")[2].removesuffix(".png")):
        assert f"<!-- {words} -->" in svg


def test_several_checkpoints_and_what_they_are_called(zoo, tmp_path, run_folder, images):
    shutil.copytree(run_folder, tmp_path / "other")
    file = next(images.glob("*.png"))
    both = [folder / "checkpoints" / "last.ckpt" for folder in (run_folder, Path("other"))]
    assert zoo("maps", file, "--ckpt_path", both[0], "--ckpt_path", both[1], "--out", "maps.svg").code == 0
    svg = (tmp_path / "maps.svg").read_text()
    assert svg.count("<!-- VarsD -->") == 2
    assert "<!-- run -->" in svg and "<!-- other -->" in svg
    assert zoo("maps", file, "--ckpt_path", both[0], "other", "--out", "same.svg").code == 0  # a run by its folder
    assert (tmp_path / "same.svg").read_text().count("<!-- VarsD -->") == 2


def test_steps_and_atoms(zoo, tmp_path, checkpoint, images):
    file = next(images.glob("*.png"))
    common = ["maps", file, "--ckpt_path", checkpoint, "--out", "maps.svg", "--overwrite"]
    assert zoo(*common, "--steps", "--query", "1,2").code == 0
    assert "<!-- step 2 -->" in (tmp_path / "maps.svg").read_text()
    assert zoo(*common, "--atoms", "3").code == 0
    assert "<!-- atom 3 -->" in (tmp_path / "maps.svg").read_text()


def test_mixers_on_a_model_keep_the_aspect_of_the_image(zoo, tmp_path, photo):
    ended = zoo("maps", photo, "--mixers", "DotProduct", "KMeans", "--query", "cls", "--corruption", "contrast")
    assert ended.code == 0, ended.err
    assert "random" in ended.out
    drawn = picture(tmp_path / "maps.png")
    red = (drawn[..., 0] > 200) & (drawn[..., 1] < 130) & (drawn[..., 2] < 130)
    rows, columns = np.nonzero(red[: drawn.shape[0] // 2, : drawn.shape[1] // 3 + 20])
    shape = rows.max() - rows.min(), columns.max() - columns.min()
    assert shape[0] / shape[1] == pytest.approx(2, abs=0.4)  # 40 x 20 pixels of the photo
    assert columns.max() < drawn.shape[1] / 3 + 20


@pytest.mark.slow
def test_every_corruption(zoo, tmp_path, photo):
    names = [*CORRUPTIONS, *EXTRA_CORRUPTIONS]
    ended = zoo("maps", photo, *LOW, "--corruption", *names, "--severity", "5", "--out", "maps.svg")
    assert ended.code == 0, ended.err
    drawn = (tmp_path / "maps.svg").read_text()
    assert all(f"<!-- {name} 5 -->" in drawn for name in names)


def test_models_own_attention_and_options_of_mixers(zoo, tmp_path, photo):
    assert zoo("maps", photo, *LOW).code == 0
    mixers = "[{class_path: VarsD, init_args: {steps: 1}}, {class_path: VarsD, init_args: {steps: 4}}]"
    ended = zoo("maps", photo, "--mixers", mixers, "--steps", "--out", "maps.svg")
    assert ended.code == 0, ended.err
    svg = (tmp_path / "maps.svg").read_text()
    assert svg.count("<!-- step 1 -->") == 2 and svg.count("<!-- step 4 -->") == 1


def test_assignments(zoo, tmp_path, photo):
    assert zoo("maps", photo, "--mixers", "Cluster", "--assignments", "true", "--out", "new/maps.svg").code == 0
    assert "<!-- head 2 -->" in (tmp_path / "new" / "maps.svg").read_text()


def test_priors_of_a_model_that_looks_twice(zoo, tmp_path, photo):
    tiny = ["--model", "absvit_tiny_patch16_224"]
    ended = zoo("maps", photo, *tiny, "--prior", "3", "learned", "--alpha", "1", "10", "--out", "maps.svg")
    assert ended.code == 0, ended.err
    facts = ["1 model on 1 image", "norms of tokens, cut at 0.7 max + 0.3 min", "of random weights"]
    assert ended.out == f"maps.svg: {'; '.join(facts)}; see --ckpt_path and --pretrained\n"
    svg = (tmp_path / "maps.svg").read_text()
    for words in ("bottom-up", "layer 8", "similarity", "absvit, α = 10", "learned query", "prior 3"):
        assert f"<!-- {words} -->" in svg


def test_nothing_is_overwritten_unasked(zoo, tmp_path, checkpoint, images):
    file = next(images.glob("*.png"))
    (tmp_path / "maps.png").write_text("mine")
    ended = zoo("maps", file, "--ckpt_path", checkpoint)
    assert ended.code == 2
    assert ended.err.startswith("error: maps.png exists; choose another file with --out")
    assert (tmp_path / "maps.png").read_text() == "mine"
    assert zoo("maps", file, "--ckpt_path", checkpoint, "--overwrite", "true").code == 0
    picture(tmp_path / "maps.png")


BAD = {
    "no image": ([], ["no image given"]),
    "no model": (["PHOTO"], ["--ckpt_path", "--mixers", "--model"]),
    "missing image": (["nope.jpg", "--mixers", "VarsD"], ["cannot read image nope.jpg"]),
    "no image at all": (["text.png", "--mixers", "VarsD"], ["text.png", "not an image"]),
    "missing checkpoint": (["PHOTO", "--ckpt_path", "nope.ckpt"], ["nope.ckpt does not exist"]),
    "no checkpoint": (["PHOTO", "--ckpt_path", "text.png"], ["text.png is not a checkpoint"]),
    "checkpoint and mixers": (["PHOTO", "--ckpt_path", "a", "--mixers", "VarsD"], ["--ckpt_path, or --mixers"]),
    "unknown mixer": (["PHOTO", "--mixers", "DotProduct", "VarD"], ["unknown mixer 'VarD'", "'VarsD'"]),
    "cross-mixer": (["PHOTO", "--mixers", "KMeansCross"], ["'KMeansCross'", "KMeans"]),
    "unknown model": (["PHOTO", "--model", "vit_nano"], ["'vit_nano'"]),
    "model without attention": (["PHOTO", "--model", "resnet18"], ["ResNet has no attention"]),
    "unknown layer": (["PHOTO", *LOW, "--layer", "12"], ["'12'", "0-11"]),
    "no layer": (["PHOTO", *LOW, "--layer", "first"], ["'first'", "'last'"]),
    "layers without an end": (["PHOTO", *LOW, "--layer", "0-"], ["'0-'", "'0-3'"]),
    "layers as an exponent": (["PHOTO", *LOW, "--layer", "²"], ["'²'", "'last'"]),
    "query as an exponent": (["PHOTO", *LOW, "--query", "²,1"], ["'²,1'", "'row,column'"]),
    "query below 0": (["PHOTO", *LOW, "--query=-1,0"], ["'-1,0'", "'row,column'"]),
    "query of many digits": (["PHOTO", *LOW, "--query", f"{'9' * 5000},0"], ["'row,column'"]),
    "mixers of nothing": (["PHOTO", "--ckpt_path", "x.ckpt", "--mixers"], ["mixers is given nothing"]),
    "a model of no name": (["PHOTO", "--ckpt_path", "x.ckpt", "--model", ""], ["give --ckpt_path, or --mixers"]),
    "no atoms": (["PHOTO", "--mixers", "VarsD", "--atoms", "0"], ["0 atoms to draw, must be at least 1"]),
    "function as a mixer": (["PHOTO", "--mixers", "os.kill"], ["os.kill"]),
    "unknown query": (["PHOTO", *LOW, "--query", "99,0"], ["'99,0'", "14 rows and 35 columns"]),
    "unknown heads": (["PHOTO", *LOW, "--heads", "all"], ["heads", "'mean' or 'each'"]),
    "unknown corruption": (["PHOTO", *LOW, "--corruption", "blur"], ["'blur'", "zoom_blur"]),
    "severity of none": (["PHOTO", *LOW, "--severity", "0"], ["severity=0", "1 to 5"]),
    "severity": (["PHOTO", *LOW, "--corruption", "contrast", "--severity", "6"], ["severity=6", "1 to 5"]),
    "no steps": (["PHOTO", "--mixers", "Performer", "--steps"], ["Performer: no recurrent steps"]),
    "no dictionary": (["PHOTO", *LOW, "--atoms", "3"], ["DotProduct: no dictionary"]),
    "no clusters": (["PHOTO", *LOW, "--assignments"], ["DotProduct: no assignments"]),
    "prior of a model that looks once": (["PHOTO", *LOW, "--prior", "3"], ["VisionTransformer has no top-down pass"]),
    "prior that is no class": (["PHOTO", *TWICE, "--prior", "1000"], ["prior '1000'", "0 to 999"]),
    "prior by a name where there are none": (["PHOTO", *TWICE, "--prior", "tern"], ["'tern'", "no names"]),
    "alpha without a prior": (["PHOTO", *TWICE, "--alpha", "3"], ["--alpha needs --prior"]),
    "negative alpha": (["PHOTO", *TWICE, "--prior", "3", "--alpha=-1"], ["alpha", "must not be negative"]),
    "unknown mode": (["PHOTO", *TWICE, "--prior", "3", "--modes", "mask"], ["modes", "mask_att"]),
    "prior and steps": (["PHOTO", *TWICE, "--prior", "3", "--steps"], ["--prior draws norms", "--steps"]),
    "two readings": (["PHOTO", *LOW, "--steps", "--atoms", "3"], ["one of --steps, --atoms and --assignments"]),
    "unknown device": (["PHOTO", *LOW, "--device", "abacus"], ["device 'abacus'"]),
    "device that computes nothing": (["PHOTO", *LOW, "--device", "meta"], ["device 'meta' computes nothing"]),
    "no device": (["PHOTO", *LOW, "--device", ""], ["device ''"]),
    "unknown format": (["PHOTO", *LOW, "--out", "maps.gif"], ["maps.gif", ".png"]),
    "unknown option": (["PHOTO", *LOW, "--layers", "3"], ["'layers'", "'layer'"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(zoo, tmp_path, photo, case):
    argv, words = BAD[case]
    (tmp_path / "text.png").write_text("hello")
    refused(zoo("maps", *(photo if word == "PHOTO" else word for word in argv)), tmp_path, words)


def change_weights(content):
    content["state_dict"] = {name: tensor[..., :1].clone() for name, tensor in content["state_dict"].items()}


def change_config(content, **model):
    config = yaml.safe_load(content["config"])
    config["model"]["init_args"].update(model)
    content["config"] = yaml.safe_dump(config)


CHANGES = {
    "other weights": (change_weights, ["broken.ckpt is of another model"]),
    "weights that are no numbers": (
        lambda content: content["state_dict"]["model.head.weight"].fill_(math.nan),
        ["the weight model.head.weight is not finite"],
    ),
    "no config": (lambda content: content.pop("config"), ["broken.ckpt carries no config"]),
    "mixer that is gone": (lambda content: change_config(content, mixer="Gone"), ["unknown mixer 'Gone'"]),
    "value that is refused": (
        lambda content: change_config(content, mixer={"class_path": "VarsD", "init_args": {"steps": -1}}),
        ["broken.ckpt: VarsD: steps=-1"],
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_checkpoint_of_something_else(zoo, tmp_path, checkpoint, photo, case):
    change, words = CHANGES[case]
    content = torch.load(checkpoint, weights_only=True)
    change(content)
    torch.save(content, tmp_path / "broken.ckpt")
    refused(zoo("maps", photo, "--ckpt_path", "broken.ckpt"), tmp_path, words)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["a", "b", "--many", "x", "y"], ['["a", "b"]', "--many", '["x", "y"]']),
        (["a", "--many", "x", "--one", "1", "--many=y"], ['["a"]', "--many", '["x", "y"]', "--one", "1"]),
        (["--one", "1", "a", "b"], ['["a", "b"]', "--one", "1"]),
        (["--one=1", "a"], ['["a"]', "--one=1"]),
        (["a", "--switch"], ['["a"]', "--switch", "true"]),
        (["--switch", "a"], ['["a"]', "--switch", "true"]),
        (["--switch", "false", "a"], ['["a"]', "--switch", "false"]),
        (["[a, b]", "--many", "[{x: 1}]"], ["[a, b]", "--many", "[{x: 1}]"]),
        ([], ["[]"]),
        (["a", "--many", "x", "--config", "c"], ["--config", "c", '["a"]', "--many", '["x"]']),
        (["a", "--many", "-1", "-.5", "--one", "-2"], ['["a"]', "--many", '["-1", "-.5"]', "--one", "-2"]),
        (["--one", "1", "--config=c"], ["[]", "--config=c", "--one", "1"]),
    ],
)
def test_words_as_shells_like_them(argv, expected):
    def tool(words: list[str], *, many: list[int] | None = None, one: int = 0, switch: bool = False):
        pass

    assert as_config(tool, argv) == expected


def test_tools_without_lists_get_their_words_as_they_are():
    def tool(kind: str | None = None, other: int = 1):
        pass

    argv = ["word", "--kind", "self", "--other=2"]
    assert as_config(tool, argv) == argv


@pytest.mark.parametrize(
    "argv",
    [
        ("bench", "VarsD", "--tokens"),
        ("bench", "VarsD", "--modes"),
        ("corrupt", "a", "b", "--severities"),
        ("corrupt", "a", "b", "--corruptions", "--seed", "1"),
        ("sweep", "--out", "x", "--configs", "y.yaml", "--seeds"),
    ],
)
def test_an_option_without_a_value_is_not_one_left_out(zoo, tmp_path, argv):
    ended = zoo(*argv)
    assert ended.code == 2 and "is given nothing: name at least one" in ended.err
    assert len(ended.err.splitlines()) == 1 and not list(tmp_path.iterdir())
