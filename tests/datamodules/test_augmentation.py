import random

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from datamodules import CIFAR10
from datamodules.erasing import PixelErasing
from datamodules.sampling import SampleKey


class AllGenerators(nn.Module):
    """Draws from Python, numpy and torch, as a user's own transform might."""

    def forward(self, image):
        noise = torch.randint(0, 9, image.shape, dtype=torch.uint8)
        return (image // 2) + noise + random.randrange(9) + np.random.randint(9)


def epoch_of(make, num_workers, epochs=(1,), seed="3", monkeypatch=None, **kwargs):
    monkeypatch.setenv("PL_GLOBAL_SEED", seed)
    data = make(batch_size=4, num_workers=num_workers, **kwargs)
    data.setup("fit")
    loader = data.train_dataloader()
    images = {}
    for epoch in epochs:
        loader.sampler.set_epoch(epoch)
        for batch in loader:
            images |= {(epoch, i): x for i, x in zip(batch["index"].tolist(), batch["image"], strict=True)}
        if len(images) > 200:
            break
    return images


@pytest.mark.parametrize("augment", [None, [AllGenerators()]])
def test_the_number_of_workers_changes_no_pixel(make, monkeypatch, augment):
    torch.manual_seed(0)
    alone = epoch_of(make, 0, (0, 1), monkeypatch=monkeypatch, augment=augment)
    torch.manual_seed(1)
    workers = epoch_of(make, 2, (0, 1), monkeypatch=monkeypatch, augment=augment)
    assert alone.keys() == workers.keys()
    for key, image in alone.items():
        assert torch.equal(image, workers[key])


def test_the_epoch_and_the_seed_of_the_run_change_the_pixels(make, monkeypatch):
    first = epoch_of(make, 0, (0,), monkeypatch=monkeypatch)
    later = epoch_of(make, 0, (1,), monkeypatch=monkeypatch)
    other = epoch_of(make, 0, (0,), "4", monkeypatch=monkeypatch)
    both = [index for _, index in first if (1, index) in later and (0, index) in other]
    assert len(both) > 3
    assert any(not torch.equal(first[0, i], later[1, i]) for i in both)
    assert any(not torch.equal(first[0, i], other[0, i]) for i in both)


def test_a_sample_does_not_depend_on_what_was_read_before_it(make):
    data = make(num_workers=0)
    data.setup("fit")
    dataset = data.train_dataloader().dataset
    keys = [SampleKey(2, index, True) for index in range(6)]
    forwards = [dataset[key]["image"] for key in keys]
    backwards = [dataset[key]["image"] for key in reversed(keys)][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert torch.equal(one, other)


def test_repetitions_of_an_image_are_augmented_differently(make):
    data = make(num_workers=0, batch_size=6, repeated_augmentation=3)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    first, second, third = batch["index"][:3].tolist()
    assert first == second == third != batch["index"][3]
    assert not torch.equal(batch["image"][0], batch["image"][1])
    assert not torch.equal(batch["image"][1], batch["image"][2])


def test_loading_draws_nothing_from_the_generators_of_the_run(make):
    data = make(num_workers=0, batch_size=4)
    data.setup("fit")
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    next(iter(data.train_dataloader()))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert np.array_equal(before[2], np.random.get_state()[1])


def test_default_augmentation_changes_images_and_an_empty_list_does_not(make):
    def train_images(**kwargs):
        data = make(num_workers=0, **kwargs)
        data.setup("fit")
        dataset = data.train_dataloader().dataset
        plain = [data.default_resize()(data.splits["train"].images[i]) for i in range(8)]
        return [torch.equal(dataset[SampleKey(0, i, True)]["image"], plain[i]) for i in range(8)]

    assert all(train_images(augment=[]))
    assert not all(train_images())


def test_images_that_an_augmentation_leaves_at_another_size_are_resized(make):
    data = make(num_workers=0, batch_size=4, image_size=24, augment=[v2.RandomHorizontalFlip(p=1.0), v2.CenterCrop(6)])
    data.setup("fit")
    assert next(iter(data.train_dataloader()))["image"].shape == (4, 3, 24, 24)


def test_augmentation_from_a_config_file(cifar_folder):
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(CIFAR10, "data")
    crop = {"class_path": "torchvision.transforms.v2.RandomCrop", "init_args": {"size": 32, "padding": 2}}
    arguments = {"root": str(cifar_folder), "val_size": 10, "num_workers": 0, "batch_size": 4, "augment": [crop]}
    config = parser.parse_object({"data": {"class_path": "datamodules.CIFAR10", "init_args": arguments}})
    data = parser.instantiate(config).data
    assert isinstance(data.augment[0], v2.RandomCrop) and data.augment[0].padding == [2, 2, 2, 2]
    data.setup("fit")
    assert next(iter(data.train_dataloader()))["image"].shape == (4, 3, 32, 32)


def test_erasing_puts_unit_noise_into_a_rectangle():
    torch.manual_seed(0)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.1)
    image = torch.full((3, 200, 300), 7, dtype=torch.uint8)
    erased = PixelErasing(p=1.0, mean=mean, std=std)(image)
    plain = PixelErasing(p=0.0)(image)
    changed = (erased != plain).all(0)
    rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
    inside = erased[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert changed.sum() == inside[0].numel()
    assert 0.01 < changed.float().mean() < 0.4
    normalised = (inside - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert normalised.mean().abs() < 0.05
    assert abs(normalised.std() - 1) < 0.05
    torch.testing.assert_close(plain, torch.full((3, 200, 300), 7 / 255))
