"""Premises of trained models from the command line."""

import csv
import json
import shutil

import pytest
import torch
from PIL import Image

FILES = ["premises.csv", "premises.json", "premises.md", "premises.png"]


@pytest.fixture(scope="module")
def checkpoint(run_folder):
    return run_folder / "checkpoints" / "last.ckpt"


def refused(ended, words, folder):
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error: ") and len(ended.err.splitlines()) == 1
    for word in words:
        assert word in ended.err
    assert not list(folder.rglob("premises.*"))


def test_table_figure_and_json(zoo, tmp_path, checkpoint):
    ended = zoo("premises", "--ckpt_path", checkpoint, "--readings", "Probabilistic", "--images", 5, "--batch_size", 2)
    assert ended.code == 0
    assert "gap to the least objective" in ended.out and "layer 1" in ended.out
    assert sorted(path.name for path in (tmp_path / "premises").iterdir()) == FILES
    (record,) = json.loads((tmp_path / "premises" / "premises.json").read_text())
    assert (record["name"], record["images"], record["data"]) == ("run", 5, "Digits")
    assert set(record["premises"]) == {"any reading", "VarsD", "Probabilistic"}
    gap = next(each for each in record["findings"] if each["measure"] == "gap to the least objective")
    assert len(gap["path"]) == 3 and len(gap["heads"]) == 2 and gap["total"] == 10
    rows = list(csv.DictReader((tmp_path / "premises" / "premises.csv").read_text().splitlines()))
    assert {row["layer"] for row in rows} == {"0", "1"}
    with Image.open(tmp_path / "premises" / "premises.png") as image:
        assert image.format == "PNG" and image.width > 1000


def test_two_checkpoints_of_one_name_and_an_existing_folder(zoo, tmp_path, checkpoint, run_folder):
    shutil.copytree(run_folder, tmp_path / "other" / "run")
    other = tmp_path / "other" / "run" / "checkpoints" / "last.ckpt"
    chosen = ("premises", "--ckpt_path", checkpoint, "--ckpt_path", other, "--layer", "last", "--images", 2)
    assert zoo(*chosen, "--out", "both").code == 0
    names = [record["name"] for record in json.loads((tmp_path / "both" / "premises.json").read_text())]
    assert names == [str(checkpoint), str(other)]
    before = (tmp_path / "both" / "premises.json").read_bytes()
    refused(zoo(*chosen, "--out", "both"), ["both", "--overwrite"], tmp_path / "premises")
    assert (tmp_path / "both" / "premises.json").read_bytes() == before
    assert zoo(*chosen[:3], "--images", 1, "--out", "both", "--overwrite").code == 0
    assert len(json.loads((tmp_path / "both" / "premises.json").read_text())) == 1


def test_a_run_by_its_folder_and_the_newest(zoo, tmp_path, run_folder):
    shutil.copytree(run_folder, tmp_path / "runs" / "mine")
    for wanted, out in ((tmp_path / "runs" / "mine", "folder"), ("last", "newest")):
        ended = zoo("premises", "--ckpt_path", wanted, "--layer", "0", "--images", 1, "--out", out)
        assert ended.code == 0, ended.err
        (record,) = json.loads((tmp_path / out / "premises.json").read_text())
        assert record["name"] == "mine" and record["checkpoint"].endswith("last.ckpt")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--readings", "VarsS"], ["VarsS", "parameters"]),
        (["--readings", "Window"], ["Window", "no premise"]),
        (["--readings", "Nothing"], ["Nothing", "choose from"]),
        (["--layer", "7"], ["7"]),
        (["--images", "0"], ["images", "at least 1"]),
        (["--device", "nonsense"], ["nonsense"]),
        (["--out", "file"], ["file", "--out"]),
    ],
)
def test_refusals(zoo, tmp_path, checkpoint, options, words):
    (tmp_path / "file").write_text("kept")
    refused(zoo("premises", "--ckpt_path", checkpoint, *options), words, tmp_path)
    assert (tmp_path / "file").read_text() == "kept"


def test_no_checkpoint_and_one_that_is_none(zoo, tmp_path):
    refused(zoo("premises"), ["--ckpt_path"], tmp_path)
    refused(zoo("premises", "--ckpt_path", "nowhere.ckpt"), ["nowhere.ckpt"], tmp_path)
    torch.save({"weights": 1}, tmp_path / "other.ckpt")
    refused(zoo("premises", "--ckpt_path", "other.ckpt"), ["other.ckpt"], tmp_path)
