"""Patch-wise augmentation of RVT."""

import pytest
import torch
from torch.testing import assert_close

from attention_zoo.errors import InputError
from tasks.patch_augmentation import PatchAugmentation, augment_patches
from tests.tasks.test_classification import fit, task


def blocks(image, size):
    """The patches of images, in rows of the grid."""
    rows = [row.split(size, 3) for row in image.split(size, 2)]
    return [patch for row in rows for patch in row]


def test_without_draws_images_stay_as_they_are():
    image = torch.randn(2, 3, 8, 12)
    assert torch.equal(augment_patches(image, PatchAugmentation(4, prob=0.0)), image)


def test_reflection_is_of_each_patch():
    image = torch.randn(2, 3, 8, 12)
    options = PatchAugmentation(4, prob=1.0, area=1.0, noise=0.0)
    for before, after in zip(blocks(image, 4), blocks(augment_patches(image, options), 4), strict=True):
        assert_close(after, before.flip(3))


def test_a_crop_is_of_the_inside_of_its_own_patch():
    torch.manual_seed(0)
    slope = torch.linspace(-1, 1, 4).expand(1, 3, 4, 4)
    image = torch.cat([slope, 10 + slope], 3)
    for _ in range(5):
        found = augment_patches(image, PatchAugmentation(4, prob=1.0, area=0.25, noise=0.0))
        left, right = blocks(found, 4)
        for patch, mean in ((left, 0), (right, 10)):
            steps = patch.diff(dim=3)
            assert (patch - mean).abs().max() <= 1 + 1e-5  # nothing comes from a neighbour or from outside
            assert steps.abs().max() <= 2 / 3 + 1e-5 and (steps.abs() > 0.3 / 3).any()


def test_draws_are_of_each_patch_and_noise_stays_in_range():
    torch.manual_seed(0)
    image = torch.rand(4, 3, 64, 64)
    found = augment_patches(image, PatchAugmentation(8, prob=0.1))
    changed = [
        not torch.equal(a[i], b[i]) for a, b in zip(blocks(found, 8), blocks(image, 8), strict=True) for i in range(4)
    ]
    assert 0.15 < sum(changed) / len(changed) < 0.4  # 1 - 0.9^3 is 0.27
    assert found.min() >= image.min() and found.max() <= image.max()
    torch.manual_seed(0)
    torch.rand(4, 3, 64, 64)
    assert torch.equal(augment_patches(image, PatchAugmentation(8, prob=0.1)), found)


def test_patches_must_divide_the_images():
    with pytest.raises(InputError, match="patch_augmentation: size=5 does not divide images of 8 x 8"):
        augment_patches(torch.zeros(1, 3, 8, 8), PatchAugmentation(5))
    with pytest.raises(InputError, match="area=0"):
        PatchAugmentation(area=0.0)


def test_the_task_trains_on_both():
    same = task(patch_augmentation=PatchAugmentation(4, prob=0.0))
    batch = {"image": torch.randn(4, 3, 8, 8), "label": torch.tensor([0, 1, 2, 0])}
    both = same.training_step(batch, 0)
    same.patch_augmentation = None
    assert_close(both, 2 * same.training_step(batch, 0))
    fit(task(patch_augmentation=PatchAugmentation(4)), 1)
