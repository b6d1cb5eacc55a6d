"""Semantic segmentation: heads, inference, mean IoU against mmsegmentation's, optimisation."""

from typing import ClassVar

import lightning as L
import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader

from attention_zoo.errors import InputError
from attention_zoo.mmseg import import_mmseg
from tasks import SemanticSegmentation
from tasks.base import decay_groups
from tasks.dense_inference import Inference
from tasks.metrics import MeanIoU
from tasks.schedules import Poly
from tasks.semantic import classes_at
from tests.mixers import costly

TINY = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
HEADS = {"decode_head": {"channels": 8}, "auxiliary_head": {"channels": 8}}


def task(**options):
    torch.manual_seed(0)
    options = {"model_args": TINY, "num_classes": 3, "image_size": (32, 48), **HEADS, **options}
    return SemanticSegmentation(**options)


def batch(size=(32, 48), number=4, label_size=None):
    generator = torch.Generator().manual_seed(1)
    mask = torch.randint(0, 3, (number, *(label_size or size)), generator=generator)
    mask[:, :3] = 255
    image = torch.randn(number, 3, *size, generator=generator)
    return {"image": image, "mask": mask, "index": torch.arange(number)}


def test_classes_that_are_out_of_the_question_stay_numbers():
    logits = torch.zeros(1, 3, 8, 8)
    logits[:, 1, :, :4], logits[:, 2, :, 4:] = 300.0, 300.0  # the probabilities of the others are 0 in float32
    scores = Inference(flip=True)(lambda image: logits if image[0, 0, 0, 0] == 0 else logits.flip(3), ramp(8))
    assert scores.isfinite().all()
    expected = torch.tensor([1, 2]).repeat_interleave(8).expand(1, 16, 16)
    assert torch.equal(classes_at(scores, (16, 16)), expected)


def ramp(side):
    """An image that differs from its reflection."""
    return torch.arange(side, dtype=torch.float32).expand(1, 3, side, side)


class TestModel:
    @pytest.mark.parametrize("mixer", [None, *costly()])
    @pytest.mark.parametrize("top_down", [None, "absvit"])
    def test_every_mixer_in_one_pass_and_two(self, mixer, top_down):
        model = task(mixer=mixer, top_down=top_down)
        losses = model.model.losses(**{name: batch(number=2)[name] for name in ("image", "mask")})
        total = sum(value.sum() for name, value in losses.items() if "loss" in name)
        total.backward()
        assert set(losses) == {f"{head}.{what}" for head in ("decode", "auxiliary") for what in ("loss_ce", "acc_seg")}
        assert not [name for name, p in model.named_parameters() if p.grad is None]
        assert model.eval()(batch((40, 56), 1)["image"]).shape == (1, 3, 40, 56)

    def test_recipe_of_absvit(self):
        model = SemanticSegmentation("absvit_tiny_patch16_224", image_size=(64, 64)).model
        assert model.backbone.indices == [2, 5, 8, 11]
        head, auxiliary = model.decode_head, model.auxiliary_head
        assert type(head).__name__ == "UPerHead" and head.channels == 512 and head.dropout.p == 0.1
        assert list(head.psp_modules.pool_scales) == [1, 2, 3, 6]
        assert type(auxiliary).__name__ == "FCNHead" and auxiliary.channels == 256 and auxiliary.in_index == 3
        assert auxiliary.loss_decode.loss_weight == 0.4 and len(auxiliary.convs) == 1

    def test_sides_that_are_no_multiples_are_padded_and_cropped(self):
        model = task().eval()
        image = batch((30, 45))["image"]
        padded = nn.functional.pad(image, (0, 3, 0, 2))
        assert_close(model(image), model(padded)[..., :30, :45])
        losses = model.model.losses(image, batch((30, 45))["mask"])
        assert all(value.isfinite().all() for value in losses.values())

    def test_neck_other_heads_and_none(self):
        neck = {"type": "MultiLevelNeck", "out_channels": 16, "scales": [2, 1]}
        fcn = {"type": "FCNHead", "in_index": 1, "channels": 8}
        model = task(neck=neck, decode_head=fcn, auxiliary_head={}).model
        assert model.auxiliary_head is None
        assert [tuple(x.shape[1:]) for x in model.maps(batch()["image"])] == [(16, 8, 12), (16, 4, 6)]
        assert model(batch()["image"]).shape == (4, 3, 32, 48)
        convolutional = task(model="resnet18", model_args=None)
        assert convolutional.eval()(batch()["image"]).shape == (4, 3, 32, 48)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"decode_head": {"type": "UperHead"}}, "unknown head 'UperHead'; did you mean 'UPerHead'"),
            ({"auxiliary_head": {"in_index": 7}}, "in_index=7, of 2 maps"),
            ({"decode_head": {"chanels": 3}}, "chanels"),
            ({"layer_decay": 2.0}, "layer_decay=2.0"),
        ],
    )
    def test_bad_input(self, options, message):
        with pytest.raises(InputError, match=message):
            task(**options)

    def test_a_checkpoint_of_mmsegmentation_with_more_than_tensors(self, tmp_path):
        """mmengine's runner saves its history of losses, objects, beside the weights."""
        from mmengine.logging import HistoryBuffer

        weights = task().model.backbone.model.state_dict()
        hub = {"log_scalars": {"train/loss": HistoryBuffer([0.5], [1])}}
        torch.save({"meta": {"epoch": 1}, "state_dict": weights, "message_hub": hub}, tmp_path / "iter_20000.pth")
        with pytest.raises(InputError, match="iter_20000.pth refused as weights.*could run code$"):
            task(weights=str(tmp_path / "iter_20000.pth"))

    def test_labels_that_are_no_classes(self):
        bad = batch()
        bad["mask"][0, -1, -1] = 7
        with pytest.raises(InputError, match=r"labels \[7\]; classes are 0 to 2"):
            task().training_step(bad, 0)


class TestInference:
    def test_windows_that_cover_the_image_are_the_whole(self):
        model, image = task().eval(), batch()["image"]
        assert_close(Inference(window=(64, 64))(model, image), model(image))

    def test_overlaps_are_averaged(self):
        image = torch.arange(24.0).view(1, 1, 4, 6)

        def model(part):
            return part - part[..., :1, :1]

        windows = [(top, left) for top in (0, 1) for left in (0, 2, 3)]
        total, number = torch.zeros(4, 6), torch.zeros(4, 6)
        for top, left in windows:
            total[top : top + 3, left : left + 3] += (
                model(image)[0, 0, top : top + 3, left : left + 3] - (image[0, 0, top, left])
            )
            number[top : top + 3, left : left + 3] += 1
        assert_close(Inference(window=(3, 3), stride=(2, 2))(model, image)[0, 0], total / number)

    def test_equals_mmsegmentations(self):
        """Windows of mmsegmentation's own sliding inference."""
        import_mmseg()
        from mmengine import ConfigDict
        from mmseg.models import EncoderDecoder

        model, image = task().eval(), batch((45, 80))["image"]
        seen = ConfigDict(crop_size=(32, 48), stride=(16, 24))

        class Reference:
            test_cfg, out_channels = seen, 3
            encode_decode = staticmethod(lambda crop, metas: model(crop))

        wanted = EncoderDecoder.slide_inference(Reference(), image, [{}])
        assert_close(Inference(window=(32, 48), stride=(16, 24))(model, image), wanted)

    def test_a_reflected_image_is_labelled_the_same(self):
        model, image = task().eval(), batch()["image"]
        scores = Inference(flip=True, scales=[0.75, 1.0])(model, image)
        assert_close(scores.exp().sum(1), torch.ones(4, 32, 48))
        assert_close(Inference(flip=True, scales=[0.75, 1.0])(model, image.flip(3)), scores.flip(3))

    def test_bad_options(self):
        for options in ({"scales": []}, {"stride": (3, 3)}, {"window": (3, 3), "stride": (4, 1)}):
            with pytest.raises(InputError):
                Inference(**options)


class TestMeanIoU:
    def test_of_no_label_that_counts_there_is_none(self):
        metric = MeanIoU(3)
        metric.update(torch.zeros(1, 2, 2, dtype=torch.int64), torch.full((1, 2, 2), 255))
        with pytest.raises(InputError, match="no pixel has a label"):
            metric.compute()

    def samples(self):
        generator = torch.Generator().manual_seed(0)
        for side in (16, 31, 8):
            prediction = torch.randint(0, 4, (2, side, 20), generator=generator)
            mask = torch.where(torch.rand(2, side, 20, generator=generator) < 0.6, prediction, 0)
            mask[torch.rand(2, side, 20, generator=generator) < 0.1] = 255
            yield prediction, mask  # class 4 of 5 never occurs

    def test_equals_mmsegmentations(self):
        import_mmseg()
        from mmseg.evaluation import IoUMetric

        metric, reference = MeanIoU(5), IoUMetric(iou_metrics=["mIoU"])
        reference.dataset_meta = {"classes": list("abcde")}
        for predictions, masks in self.samples():
            metric.update(predictions, masks)
            pairs = zip(predictions, masks, strict=True)
            data = [{"pred_sem_seg": {"data": p[None]}, "gt_sem_seg": {"data": m[None]}} for p, m in pairs]
            reference.process({}, data)
        found, wanted = metric.compute(), reference.compute_metrics(reference.results)
        assert found["iou"][4].isnan()
        for name, theirs in {"mean_iou": "mIoU", "pixel_accuracy": "aAcc", "mean_accuracy": "mAcc"}.items():
            assert round(100 * found[name].item(), 2) == pytest.approx(wanted[theirs], abs=0.011)

    def test_is_that_of_the_whole_set_however_it_is_divided(self):
        whole, parts = MeanIoU(5), [MeanIoU(5), MeanIoU(5)]
        for number, (prediction, mask) in enumerate(self.samples()):
            whole.update(prediction, mask)
            parts[number % 2].update(prediction, mask)
        parts[0].confmat += parts[1].confmat  # what processes do
        assert_close(parts[0].compute(), whole.compute(), equal_nan=True)

    def test_by_hand(self):
        metric = MeanIoU(3)
        metric.update(torch.tensor([[0, 0, 1, 1, 1]]), torch.tensor([[0, 1, 1, 255, 1]]))
        found = metric.compute()
        assert_close(found["iou"], torch.tensor([1 / 2, 2 / 3, torch.nan]), equal_nan=True)
        assert_close(found["mean_iou"], torch.tensor(7 / 12))
        assert_close(found["pixel_accuracy"], torch.tensor(3 / 4))

    def test_padding_samples_do_not_count_and_labels_keep_their_size(self):
        model = task().eval()
        data = batch(label_size=(50, 70))
        data["index"] = torch.tensor([0, 1, -1, -1])
        model.test_step(data, 0)
        wanted = MeanIoU(3)
        wanted.update(classes_at(model(data["image"][:2]), (50, 70)), data["mask"][:2])
        assert_close(model.test_iou.compute(), wanted.compute(), equal_nan=True)
        assert int(model.test_iou.confmat.sum()) == 2 * 47 * 70


class TestOptimisation:
    def test_poly(self):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
        schedule = Poly(power=1.0, warmup_steps=4, warmup_ratio=0.1).schedule(optimizer, total_steps=10, floor=0.0)
        rates = []
        for _ in range(12):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        assert_close(rates[0], 0.2)
        assert_close(rates[2], 2.0 * 0.8 * (1 - 0.5 * 0.9))
        assert_close(rates[4:], [2.0 * (1 - step / 10) for step in range(4, 11)] + [0.0])
        assert_close(Poly(0.9).schedule(optimizer, total_steps=10, floor=0.5).lr_lambdas[0](5), 0.5 + 0.5 * 0.5**0.9)
        with pytest.raises(InputError, match="power above 0"):
            Poly(power=0)

    def test_decay_as_the_protocol_has_it(self):
        model = task(model="absvit_tiny_patch16_224").model
        names = {id(p): name for name, p in model.named_parameters()}
        groups = decay_groups(model, ["*pos_embed*", "*cls_token*", "*norm*"])
        spared, decayed = ({names[id(p)] for p in group["params"]} for group in groups)
        assert all("norm" in name or name.endswith(("pos_embed", "cls_token")) for name in spared)
        assert {"backbone.model.prompt", "backbone.model.model.patch_embed.proj.bias"} <= decayed
        assert not [name for name in decayed if "norm" in name]
        spared = {names[id(p)] for p in decay_groups(model)[0]["params"]}
        assert {"backbone.model.prompt", "backbone.model.model.pos_embed", "decode_head.conv_seg.bias"} <= spared

    @pytest.mark.parametrize("top_down", [None, "absvit"])
    def test_layers_before_learn_slower(self, top_down):
        model = task(top_down=top_down).model
        names = {id(p): name for name, p in model.named_parameters()}
        groups = decay_groups(model, layer_decay=0.5)
        scale = {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
        inner = "backbone.model.model" if top_down else "backbone.model"
        expected = {"pos_embed": 1 / 8, "blocks.0.mlp.fc1.weight": 1 / 4, "blocks.1.mlp.fc1.weight": 1 / 2}
        assert {name: scale[f"{inner}.{name}"] for name in expected} == expected
        assert scale["decode_head.conv_seg.weight"] == 1
        assert scale[f"{inner}.norm.weight"] == 1  # of the head's group, as in BEiT and mmsegmentation
        with pytest.raises(InputError, match="vision transformer"):
            decay_groups(task(model="resnet18", model_args=None).model, layer_decay=0.5)

    def test_training_lowers_the_loss_and_is_iteration_based(self, tmp_path):
        class Data(L.LightningDataModule):
            class_names: ClassVar = ["a", "b", "c"]

            def train_dataloader(self):
                image = torch.randn(8, 3, 32, 48, generator=torch.Generator().manual_seed(0))
                mask = (image.mean(1) > 0).long()
                return DataLoader(
                    [{"image": i, "mask": m, "index": n} for n, (i, m) in enumerate(zip(image, mask, strict=True))],
                    batch_size=4,
                )

            val_dataloader = train_dataloader

        def optimizer(groups):
            return torch.optim.AdamW(groups, lr=3e-3)

        model = task(optimizer=optimizer, poly=Poly(warmup_steps=2), min_lr_ratio=0.0)
        trainer = L.Trainer(
            max_steps=12, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(model, Data())
        assert trainer.global_step == 12
        assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-9)
        values = trainer.callback_metrics
        assert values["train/loss_epoch"] < 1.5  # 1.4 log 3 = 1.54 by chance
        assert {"val/mean_iou", "val/pixel_accuracy", "val/iou/a", "val/iou/c"} <= set(values)
        assert values["val/iou/c"].isnan() or values["val/iou/c"] == 0

    def test_prediction_has_the_size_of_the_file(self):
        sizes = torch.tensor([[20, 30], [50, 60]])
        found = task().eval().predict_step({"image": batch()["image"][:2], "size": sizes}, 0)
        assert [tuple(one.shape) for one in found] == [(20, 30), (50, 60)]
