"""Attention against objects."""

import pytest
import torch
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.errors import InputError
from attention_zoo.models import build_model
from tasks.evaluations.attention import AttentionSegmentation, finest_layer, min_max
from tasks.metrics import ForegroundErrors


def mask(*rows):
    return torch.tensor(rows, dtype=torch.uint8)


class TestForegroundErrors:
    def test_images_in_which_nothing_counts_are_left_out(self):
        errors = ForegroundErrors()
        mask = torch.tensor([[[1, 0]], [[255, 255]]])
        errors.update(torch.tensor([[[True, False]], [[True, True]]]), mask)
        assert errors.compute() == {"iou": 100, "false_positives": 0, "false_negatives": 0}
        errors.reset()
        errors.update(torch.tensor([[[True, True]]]), mask[1:])
        with pytest.raises(InputError, match="no pixel of any mask counts"):
            errors.compute()

    def test_by_hand(self):
        errors = ForegroundErrors()
        found = torch.tensor([[True, True, False, False], [True, False, False, True]])
        truth = mask([1, 0, 1, 255], [0, 0, 0, 255])
        errors.update(found[None], truth[None])
        # of six pixels that count: one right, two too many, one missed
        assert_close(
            errors.compute(),
            {
                k: torch.tensor(100 * v, dtype=torch.float64)
                for k, v in {"iou": 1 / 4, "false_positives": 2 / 6, "false_negatives": 1 / 6}.items()
            },
        )

    def test_is_a_mean_over_images_however_they_are_batched(self):
        generator = torch.Generator().manual_seed(0)
        found = torch.rand(7, 5, 6, generator=generator) > 0.4
        truth = torch.randint(0, 2, (7, 5, 6), generator=generator)
        together, one_by_one = ForegroundErrors(), [ForegroundErrors() for _ in range(7)]
        together.update(found, truth)
        for metric, *pair in zip(one_by_one, found[:, None], truth[:, None], strict=True):
            metric.update(*pair)
        mean = sum(metric.compute()["iou"] for metric in one_by_one) / 7
        assert_close(together.compute()["iou"], mean)

    def test_an_image_without_an_object(self):
        errors = ForegroundErrors()
        errors.update(torch.zeros(1, 2, 2, dtype=torch.bool), torch.zeros(1, 2, 2))
        assert errors.compute()["iou"] == 100


class TestMaps:
    def test_from_zero_to_one(self):
        maps = torch.randn(3, 4, 5)
        scaled = min_max(maps)
        assert_close(scaled.amin((1, 2)), torch.zeros(3))
        assert_close(scaled.amax((1, 2)), torch.ones(3))
        assert (min_max(torch.ones(1, 2, 2)) == 0).all()

    def test_the_finest_grid_is_that_of_the_first_stage(self):
        size = {"embed_dims": (12, 24), "depths": (2, 1), "num_heads": (2, 4)}
        rvt = build_model("rvt_tiny", num_classes=3, image_size=(32, 32), model_args=size)
        assert finest_layer(rvt, torch.zeros(1, 3, 32, 32)) == "1"

    def test_the_last_layer_of_a_vit(self):
        size = {"patch_size": 8, "embed_dim": 8, "depth": 3, "num_heads": 1}
        vit = build_model("vit_tiny_patch16_224", num_classes=3, image_size=(16, 16), model_args=size)
        assert finest_layer(vit, torch.zeros(1, 3, 16, 16)) == "2"

    def test_a_threshold_outside(self):
        with pytest.raises(az.InputError, match="threshold=2"):
            AttentionSegmentation(threshold=2)
