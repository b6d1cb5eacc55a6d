"""Pictures of two objects: which couples they are, where the objects stand, and what cannot be put together."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attention_zoo.errors import InputError
from datamodules import CIFAR10, MIT1003, Digits, ImageFolder, TwoObjects
from datamodules.two_objects import choose_couples
from tests.datamodules.files import write_images


def pictures(**options):
    data = TwoObjects(**{"pairs": 40, **options})
    data.setup("test")
    return data


def read(data):
    batches = list(data.test_dataloader())
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


class TestCouples:
    @given(st.lists(st.integers(0, 3), min_size=2, max_size=12), st.integers(1, 30), st.integers(0, 2**32 - 1))
    def test_two_classes_in_both_orders_and_none_twice(self, labels, number, seed):
        possible = sum(one != other for one in labels for other in labels)
        if number > possible:
            with pytest.raises(InputError, match=f"pairs={number} must be at most {possible}"):
                choose_couples(labels, number, seed)
            return
        couples = [tuple(couple) for couple in choose_couples(labels, number, seed).tolist()]
        assert len(couples) == len(set(couples)) == number
        assert all(labels[one] != labels[other] for one, other in couples)
        assert all(couples[i][::-1] == couples[i + 1] for i in range(0, number - 1, 2))
        if number > 1:
            assert choose_couples(labels, number - 1, seed).tolist() == [list(couple) for couple in couples[:-1]]

    def test_follow_from_the_seed_alone(self):
        one, batched, other = pictures(), pictures(batch_size=7, num_workers=1), pictures(seed=1)
        first = read(one)
        for name, values in read(batched).items():
            assert torch.equal(values, first[name])
        assert not torch.equal(read(other)["labels"], first["labels"])
        assert torch.equal(read(pictures(pairs=12))["image"], first["image"][:12])

    def test_processes_share_them(self):
        data, whole = pictures(pairs=11), read(pictures(pairs=11))
        for rank in range(2):
            data.processes = lambda rank=rank: (2, rank)
            shared = read(data)
            counted = shared["index"] >= 0
            assert torch.equal(shared["labels"][counted], whole["labels"][rank::2])


class TestPictures:
    @pytest.mark.parametrize(("layout", "size"), [("beside", (8, 16)), ("above", (16, 8))])
    def test_both_images_as_they_are(self, layout, size):
        data = pictures(layout=layout)
        assert data.image_size == size and data.num_classes == 10
        batch = read(data)
        digits = Digits()
        digits.setup("test")
        images, labels = digits.splits["test"].images, torch.tensor(digits.splits["test"].columns["label"])
        for place, couple in enumerate(choose_couples(labels, 40, 0)):
            assert torch.equal(batch["labels"][place], labels[couple])
            for image, mask in zip(images[couple], batch["masks"][place], strict=True):
                shown = batch["image"][place][:, mask].view(3, 8, 8) * 0.376 + 0.305
                assert torch.allclose(shown, image / 255, atol=1e-5)

    @pytest.mark.parametrize("layout", ["beside", "above"])
    def test_masks_are_the_halves(self, layout):
        masks = read(pictures(layout=layout, pairs=2))["masks"]
        assert masks.shape[1] == 2 and masks.dtype == torch.bool
        assert (masks.sum(1) == 1).all()
        assert masks[0, 0, 0, 0] and masks[0, 1, -1, -1]
        assert masks.flatten(2).float().mean(-1).eq(0.5).all()

    def test_squeezed_into_half_of_the_size_that_the_images_have(self):
        data = pictures(squeeze=True)
        assert data.image_size == (8, 8) and data.half == (8, 4)
        assert read(data)["image"].shape == (40, 3, 8, 8)

    def test_of_a_size_of_its_own(self):
        data = pictures(image_size=(12, 20), squeeze=True)
        assert data.half == (12, 10)
        assert read(data)["image"].shape == (40, 3, 12, 20)

    def test_photographs(self, cifar_folder, parts_folder):
        data = pictures(images=CIFAR10(str(cifar_folder), val_size=10), pairs=20)
        assert read(data)["image"].shape == (20, 3, 32, 64)
        assert data.mean == CIFAR10.MEAN
        data = pictures(images=ImageFolder(str(parts_folder), image_size=16), pairs=8, part="val", squeeze=True)
        assert read(data)["image"].shape == (8, 3, 16, 16)
        assert data.protocol["images"] == "ImageFolder"

    def test_of_some_classes_alone(self):
        batch = read(pictures(classes=[3, "8"]))  # as YAML reads the names of digits
        assert set(batch["labels"].flatten().tolist()) == {3, 8}
        assert batch["group"].tolist() == [place // 2 for place in range(40)]


class TestRefusals:
    def test_a_class_that_there_is_not(self):
        with pytest.raises(InputError, match="unknown class of Digits '33'; did you mean '3'"):
            pictures(classes=["33"])
        with pytest.raises(
            InputError, match="needs images of two classes; the test images of Digits have class 4 alone"
        ):
            pictures(classes=["4"])

    def test_one_class_alone(self, tmp_path):
        for part in ("train", "val", "test"):
            write_images(tmp_path / part, ["red"], 3, (8, 8))
        with pytest.raises(
            InputError, match="needs images of two classes; the test images of ImageFolder have class red alone"
        ):
            pictures(images=ImageFolder(str(tmp_path)))

    def test_images_without_labels(self, tmp_path, monkeypatch):
        source = MIT1003(str(tmp_path))
        monkeypatch.setattr(
            source.__class__, "load_test", lambda self: Digits().load(["test"])["test"]._replace(columns={})
        )
        with pytest.raises(InputError, match="needs images with labels, which MIT1003 has not"):
            pictures(images=source)

    def test_pictures_that_cannot_be_halved(self):
        with pytest.raises(InputError, match=r"image_size=\(8, 9\) cannot be halved for layout=beside"):
            pictures(image_size=(8, 9))
        assert pictures(image_size=(8, 9), layout="above").half == (4, 9)

    def test_more_pairs_than_there_are(self):
        with pytest.raises(InputError, match="pairs=1000000 must be at most"):
            pictures(pairs=1_000_000)

    def test_training(self):
        with pytest.raises(InputError, match="TwoObjects has no train split"):
            TwoObjects().setup("fit")
