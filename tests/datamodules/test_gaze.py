"""Readers of where people looked."""

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from attention_zoo.errors import InputError
from datamodules import MIT1003, OSIE
from tests.datamodules.files import FIXATIONS, lay_down, write_mit, write_osie


@pytest.fixture
def mit(tmp_path):
    return write_mit(tmp_path)


@pytest.mark.parametrize("workers", [0, 1])
def test_fixations_keep_the_size_of_their_stimulus(mit, workers):
    data = MIT1003(str(mit), image_size=16, num_workers=workers)
    data.setup("test")
    (batch,) = data.test_dataloader()
    assert batch["image"].shape == (2, 3, 16, 16)
    assert [tuple(seen.shape) for seen in batch["fixations"]] == [(30, 50), (44, 20)]
    assert [seen.nonzero().tolist() for seen in batch["fixations"]] == [[[5, 7]]] * 2
    for seen, density in zip(batch["fixations"], batch["density"], strict=True):
        assert density.shape == seen.shape
        assert_close(density.sum(), torch.tensor(1.0))
        assert density.argmax() == seen.int().argmax()


def test_fixations_of_another_size_are_refused(mit):
    lay_down(mit / "ALLSTIMULI" / "i1.jpeg")
    data = MIT1003(str(mit), num_workers=0)
    data.setup("test")
    next(iter(data.test_dataloader()))  # upright it has the size of its fixations
    with Image.open(mit / "ALLSTIMULI" / "i1.jpeg") as image:
        image.save(mit / "ALLSTIMULI" / "i1.jpeg")  # without EXIF
    with pytest.raises(InputError, match=r"i1_fixPts.jpg has \d+ x \d+ pixels, its image .*i1.jpeg has"):
        next(iter(data.test_dataloader()))


def test_bad_fixations(mit):
    with pytest.raises(InputError, match="no folder .*ALLSTIMULI/ALLSTIMULI: expected"):
        MIT1003(str(mit / "ALLSTIMULI")).setup("test")
    path = mit / "ALLFIXATIONMAPS" / "i2_fixPts.jpg"
    Image.new("L", (20, 44)).save(path)
    data = MIT1003(str(mit), num_workers=0)
    data.setup("test")
    with pytest.raises(InputError, match="i2_fixPts.jpg: no fixated pixel"):
        next(iter(data.test_dataloader()))
    path.unlink()
    with pytest.raises(InputError, match=r"no fixations of .*i2.jpeg: expected .*i2_fixPts.jpg"):
        MIT1003(str(mit)).setup("test")


def test_fixations_without_their_density(mit):
    (mit / "ALLFIXATIONMAPS" / "i1_fixMap.jpg").unlink()
    with pytest.raises(InputError, match=r"no fixations of .*i1.jpeg: expected .*i1_fixMap.jpg"):
        MIT1003(str(mit)).setup("test")
    Image.new("L", (50, 30)).save(mit / "ALLFIXATIONMAPS" / "i1_fixMap.jpg")
    data = MIT1003(str(mit), num_workers=0)
    data.setup("test")
    with pytest.raises(InputError, match=r"i1_fixMap.jpg: all of it is black"):
        next(iter(data.test_dataloader()))


@pytest.mark.parametrize("first", [False, True])
def test_osie(tmp_path, first):
    data = OSIE(str(write_osie(tmp_path)), image_size=(12, 16), num_workers=0, first_fixations=first)
    data.setup("test")
    (batch,) = data.test_dataloader()
    assert batch["image"].shape == (2, 3, 12, 16)
    assert batch["index"].tolist() == [0, 1]
    seen = [each.nonzero().tolist() for each in batch["fixations"]]  # row, column
    assert seen == (
        [[[7, 5], [9, 9], [20, 30], [20, 31]], [[0, 0], [1, 1]]] if first else [[[20, 30], [20, 31]], [[0, 0]]]
    )
    for density in batch["density"]:
        assert density.shape == (30, 40)
        assert_close(density.sum(), torch.tensor(1.0))


def test_the_density_falls_off_over_a_degree(tmp_path):
    data = OSIE(str(write_osie(tmp_path, {**FIXATIONS, "2": [[[0, 0, 1], [20, 15, 1]]]})), degree=20, num_workers=0)
    data.setup("test")
    density = data.splits["test"].columns["density"][1]
    assert density.argmax() == 15 * 40 + 20
    spread = 20 / 400 * 40  # two pixels of an image of the width 40
    assert density[15, 22] / density[15, 20] == pytest.approx(
        float(torch.exp(torch.tensor(-(2**2) / (2 * spread**2)))), rel=1e-4
    )


@pytest.mark.parametrize(
    ("fixations", "said"),
    [
        ([], "must have the fixations of each image by its name"),
        ({"1": [[[1, 2, 3]]]}, "1 has no fixation that counts"),
        ({"1": [[[1, 2, 3], [1, 2]]]}, r"1 must be a list of \[x, y, milliseconds\] for each viewer"),
        ({"1": "looked"}, r"1 must be a list of \[x, y, milliseconds\]"),
        ({"../1": [[[1, 2, 3]] * 2]}, "'../1.jpg' is not in the folder"),
        ({"3": [[[1, 2, 3]] * 2]}, "there is no .*3.jpg"),
    ],
)
def test_bad_osie(tmp_path, fixations, said):
    with pytest.raises(InputError, match=said):
        OSIE(str(write_osie(tmp_path, fixations))).setup("test")


@pytest.mark.parametrize("place", [[40, 3, 1], [-1, 3, 1], [3, float("nan"), 1]])
def test_a_fixation_outside(tmp_path, place):
    data = OSIE(str(write_osie(tmp_path, {"1": [[place, place]]})), num_workers=0)
    data.setup("test")
    with pytest.raises(InputError, match=r"a fixation is not in .*1.jpg, 40 x 30 pixels"):
        next(iter(data.test_dataloader()))


def test_no_osie(tmp_path):
    with pytest.raises(
        InputError, match="no file .*fixations.json: expected images and fixations.json; found: nothing"
    ):
        OSIE(str(tmp_path)).setup("test")


def test_some_images_evenly_spread(tmp_path, mit):
    for data in (OSIE(str(write_osie(tmp_path)), images=1), MIT1003(str(mit), images=1)):
        data.setup("test")
        assert [len(column) for column in data.splits["test"].columns.values()] == [1, 1, 1]
    data = OSIE("nowhere", images=3)
    assert data.chosen("abcdefg") == ["a", "c", "e"]
    assert OSIE("nowhere", images=9).chosen("abc") == OSIE("nowhere").chosen("abc") == ["a", "b", "c"]
