import hashlib
import pickle
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from attention_zoo.errors import InputError
from datamodules import CIFAR10
from datamodules.cifar10 import CLASSES
from tests.datamodules.files import truncate

REAL = Path(__file__).parents[3] / "shared" / "data" / "cifar10.tar.xz"


def read(root, **kwargs):
    data = CIFAR10(str(root), **{"val_size": 20} | kwargs)
    data.setup("fit")
    data.setup("test")
    return data.splits


def assert_equal(splits, others):
    assert splits.keys() == others.keys()
    for part, split in splits.items():
        assert torch.equal(split.images, others[part].images)
        assert split.columns == others[part].columns


def test_folder(cifar_folder):
    splits = read(cifar_folder)
    assert {part: len(split.images) for part, split in splits.items()} == {"train": 60, "val": 20, "test": 30}
    first = torch.from_numpy(np.array(Image.open(cifar_folder / "test" / "airplane" / "000.png"))).permute(2, 0, 1)
    assert torch.equal(splits["test"].images[0], first)
    assert splits["test"].columns["label"] == [label for label in range(10) for _ in range(3)]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.xz", "a.tar.bz2"])
@pytest.mark.parametrize("prefix", ["cifar10", ".", "some/where"])
def test_an_archive_is_read_as_its_folder_is(cifar_folder, archive, name, prefix):
    assert_equal(read(archive(name, prefix)), read(cifar_folder))


def test_folder_inside_a_folder(cifar_folder, tmp_path):
    expected = read(cifar_folder)
    (tmp_path / "outer").mkdir()
    cifar_folder.rename(tmp_path / "outer" / "cifar10")
    assert_equal(read(tmp_path / "outer"), expected)


@pytest.fixture
def torchvision_folder(tmp_path, monkeypatch):
    """torchvision's files with 20 images each, under checksums of their own."""
    folder = tmp_path / "tv" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    def batch(name):
        pixels = generator.integers(0, 256, (20, 3072), dtype=np.uint8)
        return [name, write(name, {"data": pixels, "labels": list(range(10)) * 2})]

    meta = datasets.CIFAR10.meta | {"md5": write("batches.meta", {"label_names": list(CLASSES)})}
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [batch(f"data_batch_{i}") for i in range(1, 6)])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [batch("test_batch")])
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    return folder.parent


def test_files_of_torchvision(torchvision_folder):
    splits = read(torchvision_folder)
    assert {part: len(split.images) for part, split in splits.items()} == {"train": 80, "val": 20, "test": 20}
    image, label = datasets.CIFAR10(torchvision_folder, train=False)[7]
    assert torch.equal(splits["test"].images[7], torch.from_numpy(np.array(image)).permute(2, 0, 1))
    assert splits["test"].columns["label"][7] == label == 7


def test_corrupt_files_of_torchvision(torchvision_folder):
    truncate(torchvision_folder / "cifar-10-batches-py" / "data_batch_3")
    with pytest.raises(InputError, match="cifar-10-batches-py is incomplete or corrupt"):
        read(torchvision_folder)


def test_smaller_training_sets_are_balanced_and_leave_the_validation_images_alone(cifar_folder):
    whole = read(cifar_folder)
    for num_train in (10, 30, 60):
        splits = read(cifar_folder, num_train=num_train)
        assert set(Counter(splits["train"].columns["label"]).values()) == {num_train // 10}
        assert torch.equal(splits["val"].images, whole["val"].images)
        pixels = {part: {x.numpy().tobytes() for x in split.images} for part, split in splits.items()}
        assert not pixels["train"] & pixels["val"]


def test_download_only_if_asked_and_needed(cifar_folder, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(datasets, "CIFAR10", lambda root, download: asked.append((root, download)))
    CIFAR10(str(tmp_path / "none")).prepare_data()
    CIFAR10(str(cifar_folder), download=True).prepare_data()
    assert asked == []
    CIFAR10(str(tmp_path / "none"), download=True).prepare_data()
    assert asked == [(tmp_path / "none", True)]


def test_a_failed_download(tmp_path, monkeypatch):
    def fail(root, download):
        raise OSError("no route to host")

    monkeypatch.setattr(datasets, "CIFAR10", fail)
    with pytest.raises(InputError, match=f"cannot download CIFAR-10 to {tmp_path}: no route to host"):
        CIFAR10(str(tmp_path), download=True).prepare_data()


def delete_class(root):
    shutil.rmtree(root / "train" / "cat")


def empty_class(root):
    delete_class(root)
    (root / "train" / "cat").mkdir()


def unknown_class(root):
    (root / "train" / "cat").rename(root / "train" / "kat")


def broken_image(root):
    truncate(root / "train" / "cat" / "003.png")


def large_image(root):
    Image.new("RGB", (40, 32)).save(root / "train" / "cat" / "003.png")


def no_classes(root):
    shutil.rmtree(root / "train")
    (root / "train").mkdir()


def no_parts(root):
    (root / "train").rename(root / "training")
    (root / "test").rename(root / "testing")


BAD = {
    delete_class: "no folder {}/train/cat: expected a folder of images",
    empty_class: "no images in {}/train/cat: expected files ending in .jpg",
    unknown_class: "{}/train/kat: unknown class 'kat'; did you mean 'cat'",
    broken_image: "cannot read image {}/train/cat/003.png: ",
    large_image: "{}/train/cat/003.png has 40 x 32 pixels, CIFAR-10 has 32 x 32",
    no_classes: "no class folders in {}/train: expected <class>/.*; found: nothing",
    no_parts: "no CIFAR-10 in {}: expected cifar-10-batches-py/, or train/.* found: testing, training",
}


@pytest.mark.parametrize("spoil", BAD)
def test_bad_folder(cifar_folder, spoil):
    spoil(cifar_folder)
    with pytest.raises(InputError, match=BAD[spoil].format(cifar_folder)):
        read(cifar_folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (delete_class, "no images in train/cat of {}: expected train/<class>"),
        (unknown_class, "train/kat in {}: unknown class 'kat'; did you mean 'cat'"),
        (broken_image, "cannot read image {}:cifar10/train/cat/003.png: "),
    ],
)
def test_bad_archive(cifar_folder, archive, spoil, message):
    spoil(cifar_folder)
    path = archive("bad.tar.xz")
    with pytest.raises(InputError, match=message.format(path)):
        read(path)


def test_an_archive_that_was_cut_between_two_images_is_refused(archive):
    path = archive("a.tar")
    with tarfile.open(path) as tar:
        middle = tar.getmembers()[len(tar.getmembers()) // 2].offset
    path.write_bytes(path.read_bytes()[:middle])
    with pytest.raises(InputError, match=f"cannot read archive {path}: its end is missing"):
        read(path)


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.xz", "a.tar.bz2"])
def test_truncated_archive(archive, name):
    path = archive(name)
    truncate(path)
    with pytest.raises(InputError, match=f"cannot read archive {path}: "):
        read(path)


def test_a_file_that_is_no_archive(tmp_path):
    (tmp_path / "x.tar").write_text("no archive")
    with pytest.raises(InputError, match=f"cannot read archive {tmp_path}/x.tar: "):
        read(tmp_path / "x.tar")


def test_missing_folder(tmp_path):
    with pytest.raises(InputError, match=f"no CIFAR-10 in {tmp_path}/none: .*found: no such folder"):
        read(tmp_path / "none")


@pytest.mark.parametrize("sizes", [{"num_train": 61}, {"val_size": 80}, {"val_size": 5000}])
def test_sizes_that_the_images_do_not_suffice_for(cifar_folder, sizes):
    with pytest.raises(InputError, match=f"{cifar_folder} has 80 training images, too few"):
        read(cifar_folder, **sizes)
    for name in ("num_train", "val_size"):
        with pytest.raises(InputError, match=f"{name} must be at least 1, got 0"):
            CIFAR10(str(cifar_folder), **{name: 0})


@pytest.mark.slow
@pytest.mark.skipif(not REAL.exists(), reason=f"no CIFAR-10 at {REAL}")
def test_the_real_images():
    splits = read(REAL, val_size=5000, num_train=10_000)
    assert {part: len(split.images) for part, split in splits.items()} == {"train": 10_000, "val": 5000, "test": 10_000}
    for split in splits.values():
        assert len(set(Counter(split.columns["label"]).values())) == 1
    mean = (splits["train"].images / 255).mean((0, 2, 3))
    torch.testing.assert_close(mean, torch.tensor(CIFAR10.MEAN), atol=0.005, rtol=0)
