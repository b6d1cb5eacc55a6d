"""Files of strangers: nothing outside of the named folder is read, and nothing that they declare is believed."""

import json
import os
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

import datamodules as dm
from attention_zoo.errors import InputError
from datamodules.cifar10 import CLASSES
from datamodules.corruptions import textures
from datamodules.images import list_images
from datamodules.interactive.instances import read_list, read_sbd
from datamodules.interactive.predict import read_clicks
from datamodules.robustness.images import open_array
from tests.datamodules import interactive_files as files
from tests.datamodules.files import write_images, write_voc

CLICK = {"y": 12, "x": 25, "positive": True}


def clicks(folder, entries):
    folder.mkdir(exist_ok=True)
    (folder / "clicks.json").write_text(json.dumps(entries))
    return str(folder / "clicks.json")


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "b/../../a.png", "..", ".", ""])
def test_clicks_name_images_in_their_folder_only(tmp_path, name):
    files.write_image(tmp_path / "a.png")
    with pytest.raises(
        InputError, match=r"clicks.json: entry 0, whose images are in predict_dir: .* is not in the folder"
    ):
        read_clicks(clicks(tmp_path / "data", [{"image": name, "clicks": [CLICK]}]))


def test_paths_of_clicks_are_normalised(tmp_path):
    entries = [
        {"image": name, "clicks": [CLICK]} for name in ("a.png", "./a.png", "b/../a.png", str(tmp_path / "a.png"))
    ]
    assert read_clicks(clicks(tmp_path, entries)).columns["path"] == [str(tmp_path / "a.png")] * 4


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"clicks": [{**CLICK, "y": NAN}]}, "the click at y=nan"),
        ({"clicks": [{**CLICK, "x": INF}]}, "the click at .*x=inf"),
        ({"clicks": [{**CLICK, "x": 10**400}]}, "the click at"),
        ({"clicks": [{**CLICK, "y": -1}]}, "the click at y=-1, x=25 is outside"),
        ({"clicks": [{**CLICK, "y": 40}]}, "the click at y=40, x=25 is outside the image of 60 x 40 pixels"),
        ({"box": [NAN] * 4}, r"the box \[nan, nan, nan, nan\] is outside"),
        ({"box": [0, 0, INF, 5]}, "the box .*is outside"),
        ({"box": [True, 0, 9, 5]}, "a box is"),
        ({"box": [50, 70, 60, 90]}, r"a.png: the box \[50, 70, 60, 90\] is outside the image of 60 x 40 pixels"),
        ({"box": [-20, 0, 20, 20]}, "is outside"),
        ({"box": [0, 0, 99999, 20], "clicks": [CLICK]}, "is outside"),
    ],
)
def test_clicks_and_boxes_that_are_no_places(tmp_path, entry, said):
    files.write_image(tmp_path / "a.png")
    data = dm.ObjectScenes(predict_clicks=clicks(tmp_path, [{"image": "a.png", **entry}]), scenes=(1, 1, 1))
    with pytest.raises(InputError, match=said):
        data.setup("predict")
        list(data.predict_dataloader())


def test_lists_name_images_in_their_folder_only(tmp_path):
    (tmp_path / "val.txt").write_text("a\n../../b\n")
    with pytest.raises(InputError, match=r"val.txt: '../../b' is not in the folder"):
        read_list(tmp_path / "val.txt")
    (tmp_path / "val.txt").write_text("a\nb\na\n")
    with pytest.raises(InputError, match=r"val.txt names a twice"):
        read_list(tmp_path / "val.txt")
    root = write_voc(tmp_path)
    (root / "ImageSets/Segmentation/val.txt").write_text("a ../../../b")
    with pytest.raises(InputError, match=r"val.txt: '../../../b' is not in the folder"):
        dm.VOCForeground(str(root)).setup("test")
    os.remove(root / "ImageSets/Segmentation/val.txt")
    os.mkfifo(root / "ImageSets/Segmentation/val.txt")
    with pytest.raises(InputError, match=r"val.txt"):
        dm.VOCForeground(str(root)).setup("test")


def npy(shape, kind="|u1", content=b""):
    header = repr({"descr": kind, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


ARRAYS = {
    "larger than the file": npy((10**6, 32, 32, 3), content=b"few"),
    "larger than any file": npy((10**30,)),
    "negative": npy((-5,)),
    "of words": npy(("a",)),
    "of objects": npy((1,), "|O", pickle.dumps([print])),
    "an archive": b"PK\x03\x04 and so on",
    "a pickle": pickle.dumps([1, 2, 3]),
    "empty": b"",
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_are_none(tmp_path, case):
    path = tmp_path / "fog.npy"
    path.write_bytes(ARRAYS[case])
    with pytest.raises(InputError, match=f"^cannot read array {path}: "):
        open_array(path)


def test_an_archive_file_or_a_pipe_is_no_array(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    os.mkfifo(tmp_path / "pipe.npy")
    for name, said in (("a.npz", "magic"), ("pipe.npy", "no regular file")):
        with pytest.raises(InputError, match=said):
            open_array(tmp_path / name)


class Spy:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_a_strangers_pickle_of_cifar_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta"]:
        (folder / name).write_bytes(pickle.dumps(Spy()))
    with pytest.raises(InputError, match="cifar-10-batches-py is incomplete or corrupt"):
        dm.CIFAR10(str(tmp_path)).setup("test")
    assert not (tmp_path / "ran").exists()


def test_an_image_of_an_archive_is_not_read_beyond_its_size(tmp_path):
    write_images(tmp_path / "test", CLASSES, 1, (32, 32))
    (tmp_path / "test" / "cat" / "big.png").write_bytes(bytes(5_000_000))
    with tarfile.open(tmp_path / "cifar.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "test", "test")
    with pytest.raises(InputError, match=r"test/cat/big.png in .* has 5,000,000 bytes, too many"):
        dm.CIFAR10(str(tmp_path / "cifar.tar.gz")).setup("test")


@pytest.mark.parametrize("labels", [np.zeros(3), np.full((2, 2), -1), np.zeros((2, 2, 2), int), np.array([["a"]])])
def test_instances_of_sbd_that_are_none(tmp_path, labels):
    from scipy.io import savemat

    instances = np.empty((1, 1), dtype=[("Segmentation", object)])
    instances[0, 0] = (labels,)
    savemat(tmp_path / "a.mat", {"GTinst": instances})
    with pytest.raises(InputError, match=r"cannot read instances from .*a.mat: its instances are"):
        read_sbd(str(tmp_path / "a.mat"))


def test_frost_is_looked_for_before_anything_is_tested(tmp_path, monkeypatch, caplog):
    write_images(tmp_path / "test", CLASSES, 1, (32, 32))
    monkeypatch.setattr(textures, "find_spec", lambda name: None)
    given = {"test": str(tmp_path), "c_generated": True, "severities": [1]}
    with pytest.raises(InputError, match=r"frost needs the pictures .*missing: skip, or corruptions without it"):
        dm.CIFAR10Robustness(**given).setup("test")
    with pytest.raises(InputError, match="no CIFAR-10 test images at nowhere"):
        dm.CIFAR10Robustness(**{**given, "test": "nowhere"}).setup("test")
    with pytest.raises(InputError, match="frost needs the pictures"):
        dm.CIFAR10Robustness(**given, corruptions=["frost"], missing="skip").setup("test")
    data = dm.CIFAR10Robustness(**given, missing="skip")
    with caplog.at_level("INFO", logger="lightning.pytorch.utilities.rank_zero"):
        data.setup("test")
    assert "skipped frost" in caplog.text
    assert [cell.corruption for cell in data.cells].count("frost") == 0 and len(data.cells) == 15
    dm.CIFAR10Robustness(**given, corruptions=["fog"]).setup("test")


def panoptic(root, change):
    """COCO's panoptic layout with one image of one segment, its JSON changed."""
    files.write_image(root / "val2017" / "a.jpg")
    png = np.zeros((*files.SIZE, 3), np.uint8)
    png[..., 0] = 7
    files.write_mask(root / "annotations" / "panoptic_val2017" / "a.png", png)
    segment = {"id": 7, "category_id": 1}
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": [segment]}],
        "categories": [{"id": 1, "name": "cat", "isthing": 1}],
    }
    change(content)
    (root / "annotations" / "panoptic_val2017.json").write_text(json.dumps(content))
    return dm.COCOPanoptic(str(root))


PANOPTIC = {
    "image outside": (lambda c: c["images"][0].update(file_name="../../a.jpg"), "'../../a.jpg' is not in the folder"),
    "PNG outside": (lambda c: c["annotations"][0].update(file_name="/etc/a.png"), "'/etc/a.png' is not in the folder"),
    "image twice": (lambda c: c["annotations"].append(c["annotations"][0]), "two annotations of the image .*a.jpg"),
    "no segments": (lambda c: c["annotations"][0].pop("segments_info"), "not of the COCO panoptic format: KeyError"),
    "segments of a word": (lambda c: c["annotations"][0].update(segments_info="ab"), "not of the COCO panoptic format"),
    "no id": (lambda c: c["annotations"][0]["segments_info"][0].pop("id"), "not of the COCO panoptic format: KeyError"),
    "huge id": (lambda c: c["annotations"][0]["segments_info"][0].update(id=10**30), "segment 1000.*24 bits"),
    "no isthing": (lambda c: c["categories"][0].pop("isthing"), "not of the COCO panoptic format: KeyError"),
    "isthing of a word": (lambda c: c["categories"][0].update(isthing="no"), "isthing is 'no'; expected 0 or 1"),
    "iscrowd of a word": (lambda c: c["annotations"][0]["segments_info"][0].update(iscrowd="no"), "iscrowd 'no'"),
    "no list": (lambda c: c.update(images=7), "it has no images"),
    "256 categories": (
        lambda c: c["categories"].extend({"id": n, "name": str(n), "isthing": 0} for n in range(2, 300)),
        "at most 255",
    ),
}


@pytest.mark.parametrize("case", PANOPTIC)
def test_panoptic_annotations_that_are_none(tmp_path, case):
    change, said = PANOPTIC[case]
    with pytest.raises(InputError, match=said):
        panoptic(tmp_path, change).setup("test")


def test_a_fifo_among_the_images_is_named(tmp_path):
    write_images(tmp_path, ("a", "b"), 12, (8, 8))
    os.mkfifo(tmp_path / "a" / "000b.png")
    data = dm.ImageFolder(str(tmp_path), image_size=8, num_workers=0)
    with pytest.raises(InputError, match="cannot read image .*000b.png: it is no regular file"):
        for stage in ("fit", "test"):
            data.setup(stage)
        for part in ("train", "val", "test"):
            list(getattr(data, f"{part}_dataloader")())


def test_a_link_back_is_refused_and_not_followed_for_ever(tmp_path):
    write_images(tmp_path, ("a",), 2, (8, 8))
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a")
    with pytest.raises(InputError, match="a/again is a link to a folder that it lies in"):
        list_images(tmp_path / "a")
    (tmp_path / "a" / "again").unlink()
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert len(list_images(tmp_path)) == 4


def test_a_photograph_with_exif_is_predicted_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 8
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg", exif=exif)
    data = dm.ObjectScenes(predict_clicks=clicks(tmp_path, [{"image": "a.jpg", "clicks": [{**CLICK, "y": 55}]}]))
    data.setup("predict")
    (batch,) = data.predict_dataloader()
    assert batch["size"].tolist() == [[60, 40]]
