"""Objects of COCO's JSON in every form, and those that are none."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays
from pycocotools import mask as pycocotools

import datamodules as dm
from attention_zoo.errors import InputError
from datamodules.interactive.coco import cover, read_shape
from tests.datamodules import interactive_files as files

SIZE = files.SIZE
SQUARE = files.box_polygon(20, 30, 12, 14)


def uncompressed(mask):
    """Lengths of the runs of 0, 1, 0, ... down the columns."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *edges, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": ([0] if flat[0] else []) + lengths}


def compressed(mask):
    found = pycocotools.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": found["counts"].decode()}


@pytest.mark.parametrize("form", [uncompressed, compressed])
@given(mask=arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=40)))
@settings(deadline=None, max_examples=60)
def test_run_lengths_are_decoded(form, mask):
    shape = read_shape(form(mask), mask.shape, "one")
    assert not mask.any() if not len(shape) else (cover(shape, mask.shape) == mask).all()


def write(root, annotations, images=1):
    """The val of an LVIS folder with these annotations, all on the first image."""
    files.write_lvis(root)
    records = [{"id": n, "height": SIZE[0], "width": SIZE[1], "file_name": f"{n:03}.jpg"} for n in range(images)]
    found = [{"id": 70 + place, "image_id": 0, "area": 500, **one} for place, one in enumerate(annotations)]
    content = {"images": records, "annotations": found}
    (root / "val" / "lvis_val.json").write_text(json.dumps(content))
    return dm.LVIS(str(root), image_size=32)


def masks(data):
    data.setup("test")
    split = data.splits["test"]
    objects = [split.columns["objects"][place] for place in range(len(split.images))]
    return [(one.labels == one.numbers[0]).numpy() for one in objects]


def test_iscrowd_decides_and_not_the_form(tmp_path):
    left, right = files.blob(3, 4), files.blob(20, 30)
    objects = [
        {"segmentation": uncompressed(left), "iscrowd": 0},
        {"segmentation": [SQUARE]},
        {"segmentation": [files.box_polygon(3, 40, 12, 14)], "iscrowd": 1},
        {"segmentation": compressed(files.blob(25, 2)), "iscrowd": 1},
        {"segmentation": compressed(files.blob(3, 24)), "iscrowd": 0},
    ]
    found = masks(write(tmp_path, objects))
    assert len(found) == 3
    for one, wanted in zip(found, (left, right, files.blob(3, 24)), strict=True):
        assert (one == (wanted > 0)).all()


@pytest.mark.parametrize("empty", [[[]], [], [[], []], [[-9, -9, -5, -9, -5, -5]], [[70, 3, 90, 3, 90, 9]]])
def test_an_empty_segmentation_does_not_stop_a_data_set(tmp_path, empty):
    data = write(tmp_path, [{"segmentation": empty}, {"segmentation": [[], SQUARE]}])
    assert [one.sum() for one in masks(data)] == [12 * 14]
    data = write(tmp_path / "rle", [{"segmentation": uncompressed(files.blob(0, 0) * 0)}, {"segmentation": [SQUARE]}])
    assert len(masks(data)) == 1


def test_a_polygon_that_leaves_the_image_is_cut_off(tmp_path):
    (found,) = masks(write(tmp_path, [{"segmentation": [[-5, -5, 9, -5, 9, 9, -5, 9]]}]))
    assert found.sum() == 100 and found[:10, :10].all()


WHOLE = SIZE[0] * SIZE[1]
BAD = {
    "NaN": ([[1, 2, float("nan"), 4, 5, 6]], "x of vertex 1 is nan"),
    "infinite": ([[1, 2, 3, float("inf"), 5, 6]], "y of vertex 1 is inf"),
    "huge": ([[1, 2, 3, 4, 10**400, 6]], "x of vertex 2 is a number of about 401 digits"),
    "odd": ([[1, 2, 3, 4, 5, 6, 7]], "a polygon has 7 coordinates"),
    "words": ([["a", 2, 3, 4]], "no list of polygons"),
    "flat": ([1, 2, 3, 4, 5, 6], "no list of polygons"),
    "null": (None, "neither a list of polygons nor run lengths"),
    "other size": ({"size": [SIZE[1], SIZE[0]], "counts": [WHOLE]}, r"of size \[60, 40\], its image is \[40, 60\]"),
    "no size": ({"counts": [WHOLE]}, "of size None"),
    "too few": ({"size": list(SIZE), "counts": [4, 5]}, "sum to 9; its image has 2400 pixels"),
    "too many": ({"size": list(SIZE), "counts": [4, 5, WHOLE]}, "sum to 2409"),
    "negative": ({"size": list(SIZE), "counts": [WHOLE + 5, -5]}, "no list of whole numbers"),
    "halves": ({"size": list(SIZE), "counts": [0.5, WHOLE - 0.5]}, "no list of whole numbers"),
    "no counts": ({"size": list(SIZE)}, "no list of whole numbers"),
    "compressed, too few": ({"size": list(SIZE), "counts": "014"}, "sum to 5"),
    "compressed, cut off": ({"size": list(SIZE), "counts": "P"}, "end in the middle"),
    "compressed, strange": ({"size": list(SIZE), "counts": "é!"}, "no string of COCO's"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_segmentations_name_the_annotation(tmp_path, case):
    segmentation, said = BAD[case]
    data = write(tmp_path, [{"segmentation": [SQUARE]}, {"segmentation": segmentation}])
    with pytest.raises(InputError, match=rf"^{tmp_path}/val/lvis_val.json: annotation 71: .*{said}"):
        data.setup("test")


def test_bad_records_name_the_file(tmp_path):
    data = write(tmp_path, [{"segmentation": [SQUARE], "iscrowd": "no"}])
    with pytest.raises(InputError, match="annotation 70 has iscrowd 'no'"):
        data.setup("test")
    data = write(tmp_path / "area", [{"segmentation": [SQUARE], "area": float("nan")}])
    with pytest.raises(InputError, match="annotation 70: its area is nan"):
        data.setup("test")
    path = tmp_path / "area" / "val" / "lvis_val.json"
    content = json.loads(path.read_text())
    for change, said in (
        ({"height": 10**9, "width": 10**9}, "image 0 is 1000000000 x 1000000000"),
        ({"height": -4}, "image 0 is 60 x -4"),
        ({"file_name": ".."}, "'..' is not in the folder"),
        ({"file_name": 7}, "image 0 has neither coco_url nor file_name"),
    ):
        changed = {
            "images": [content["images"][0] | change],
            "annotations": [content["annotations"][0] | {"area": 9**4}],
        }
        path.write_text(json.dumps(changed))
        with pytest.raises(InputError, match=said):
            dm.LVIS(str(tmp_path / "area")).setup("test")


def test_two_images_of_one_file_name_are_both_named(tmp_path):
    data = write(tmp_path, [{"segmentation": [SQUARE]}, {"segmentation": [SQUARE], "image_id": 1}], images=2)
    path = tmp_path / "val" / "lvis_val.json"
    path.write_text(path.read_text().replace('"001.jpg"', '"elsewhere/000.jpg"'))
    with pytest.raises(InputError, match=r"two images of one file name: 0 .000.jpg. and 1 .elsewhere/000.jpg."):
        data.setup("test")
