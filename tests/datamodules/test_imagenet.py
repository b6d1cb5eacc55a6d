import numpy as np
import pytest
import torch
from timm.data import ImageNetInfo

from attention_zoo.errors import InputError
from datamodules import ImageNet, TinyImageNet
from datamodules.imagenet import outputs_of, synsets
from tests.datamodules.files import SYNSETS, write_images, write_tiny_imagenet


@pytest.fixture(scope="module")
def imagenet_folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("imagenet")
    write_images(root / "train", synsets(), 1, (8, 8))
    write_images(root / "val", SYNSETS, 2, (30, 20))
    return root


def test_synsets():
    assert list(synsets()) == ImageNetInfo().label_names()
    assert len(synsets()) == 1000 and list(synsets()) == sorted(synsets())
    a, r = set(synsets("a")), set(synsets("r"))
    assert len(a) == len(r) == 200 and len(a & r) == 86 and len(a | r) == 314 and a | r < set(synsets())
    for subset in ("a", "r"):
        labels = outputs_of(subset)
        assert list(labels) == sorted(labels) and [synsets()[label] for label in labels] == sorted(synsets(subset))
    assert [label in outputs_of("a") for label in (0, 6, 13, 388)] == [False, True, True, False]
    assert [label in outputs_of("r") for label in (0, 6, 13, 388)] == [False, True, True, True]


def test_imagenet_trains_on_all_synsets_and_tests_on_the_validation_images(imagenet_folder):
    data = ImageNet(str(imagenet_folder), image_size=16, batch_size=10, num_workers=0)
    assert data.class_names == list(synsets())
    data.setup("fit")
    data.setup("test")
    assert data.splits["train"].columns["label"].tolist() == list(range(1000))
    for part in ("val", "test"):
        assert data.splits[part].columns["label"].tolist() == [0, 0, 6, 6, 13, 13, 388, 388]
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (10, 3, 16, 16) and batch["label"].dtype == torch.int64
    assert data.splits["test"].images.names[7] == str(imagenet_folder / "val" / SYNSETS[3] / "001.png")


def test_imagenet_refuses_other_layouts(imagenet_folder, tmp_path):
    with pytest.raises(InputError, match=f"no folder {tmp_path}/train: expected train/ and val/.*found: nothing"):
        ImageNet(str(tmp_path)).setup("fit")
    write_images(tmp_path / "train", ["n99999999"], 1, (8, 8))
    with pytest.raises(InputError, match="train/n99999999: unknown synset of ImageNet-1k 'n99999999'"):
        ImageNet(str(tmp_path)).setup("fit")
    (tmp_path / "train" / "n99999999").rename(tmp_path / "train" / SYNSETS[0])
    with pytest.raises(InputError, match=f"no folder {tmp_path}/train/{synsets()[1]}"):
        ImageNet(str(tmp_path)).setup("fit")


@pytest.fixture
def tiny_folder(tmp_path):
    return write_tiny_imagenet(tmp_path / "tiny-imagenet-200")


def labelled(split):
    return dict(zip((name.rpartition("/")[2] for name in split.images.names), split.columns["label"], strict=True))


def test_tiny_imagenet_as_released(tiny_folder):
    data = TinyImageNet(str(tiny_folder), batch_size=3, num_workers=0)
    assert data.class_names == list(SYNSETS[:3])
    data.setup("fit")
    assert data.splits["train"].columns["label"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert labelled(data.splits["val"]) == {f"{i:03}.png": 2 - i % 3 for i in range(6)}
    assert next(iter(data.val_dataloader()))["image"].shape == (3, 3, 64, 64)


def test_tiny_imagenet_with_class_folders_to_validate(tiny_folder):
    released = TinyImageNet(str(tiny_folder))
    released.setup("validate")
    for i in range(6):
        folder = tiny_folder / "val" / SYNSETS[2 - i % 3]
        folder.mkdir(exist_ok=True)
        (tiny_folder / "val" / "images" / f"{i:03}.png").rename(folder / f"{i:03}.png")
    (tiny_folder / "val" / "images").rmdir()
    (tiny_folder / "val" / "val_annotations.txt").unlink()
    data = TinyImageNet(str(tiny_folder))
    data.setup("validate")
    assert labelled(data.splits["val"]) == labelled(released.splits["val"])


def test_broken_tiny_imagenet(tiny_folder):
    def refused(message):
        with pytest.raises(InputError, match=message):
            TinyImageNet(str(tiny_folder)).setup("validate")

    path = tiny_folder / "val" / "val_annotations.txt"
    good = path.read_text()
    path.write_text(good + "006.png n01440764 0 0 1 1\n")
    refused("val_annotations.txt, line 7: expected file, synset and box with tabs between")
    path.write_text(good + "006.png\tn99\t0\t0\t1\t1\n")
    refused("val_annotations.txt: unknown class 'n99'")
    path.write_text(good + f"006.png\t{SYNSETS[0]}\t0\t0\t1\t1\n")
    refused(f"val_annotations.txt: no image {tiny_folder}/val/images/006.png")
    path.write_text("")
    refused("val_annotations.txt is empty")
    path.unlink()
    refused(f"no val_annotations.txt in {tiny_folder}/val")
    with pytest.raises(InputError, match=f"no class folders in {tiny_folder}/val/train: expected <synset>/images"):
        _ = TinyImageNet(str(tiny_folder / "val")).class_names


def test_names_stay_in_one_array(imagenet_folder):
    data = ImageNet(str(imagenet_folder))
    data.setup("fit")
    names = data.splits["train"].images.names
    assert isinstance(names.relative, np.ndarray) and names.relative.dtype.kind == "S"
    assert names[999] == str(imagenet_folder / "train" / synsets()[999] / "000.png")
