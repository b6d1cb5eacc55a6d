import math

import lightning as L
import pytest
import timm
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, GradientAccumulationScheduler, ModelCheckpoint
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, Dataset, IterableDataset

import attention_zoo as az
from tasks import Classification
from tasks.base import decay_groups
from tasks.classification import Mixing, classification_metrics
from tasks.schedules import Poly, warmup_cosine
from tests.mixers import costly

SMALL = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}


class Colours(Dataset):
    """Eight-pixel images whose label is their brightest channel; every third is only padding if asked for."""

    def __init__(self, size=24, padded=False):
        self.size, self.padded = size, padded

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        label = index % 3
        image = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(index))
        image[label] += 2
        return {"image": image, "label": label, "index": -1 if self.padded and index % 3 == 0 else index}


def task(seed=0, num_classes=3, **args):
    torch.manual_seed(seed)
    args = {"model_args": SMALL, "mixer": az.MIXERS["DotProduct"], **args}
    return Classification("vit_tiny_patch16_224", num_classes, (8, 8), **args)


def trainer(epochs=2, **args):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    saving = any(isinstance(callback, ModelCheckpoint) for callback in args.get("callbacks", ()))
    return L.Trainer(max_epochs=epochs, accelerator="cpu", enable_checkpointing=saving, **quiet, **args)


def loader(**args):
    return DataLoader(Colours(**args), batch_size=8)


def fit(module, epochs=2, **args):
    run = trainer(epochs, **args)
    run.fit(module, loader(), loader())
    return run


ALONE = ("ChannelAttention", "FocalModulation", "ToST")
"""Readings by which a class token takes hardly anything from the image; they are for models that average tokens."""


@pytest.mark.parametrize("name", costly())
def test_every_mixer_learns(name):
    pooling = {"class_token": False, "global_pool": "avg"} if name in ALONE else {}
    module = task(mixer=az.MIXERS[name], warmup_epochs=0.0, model_args=SMALL | pooling)
    run = fit(module, epochs=12, check_val_every_n_epoch=12)
    assert run.callback_metrics["val/accuracy"] == 1.0
    assert run.callback_metrics["train/images_per_second"] > 0
    assert run.callback_metrics["val/images_per_second"] > 0


def test_metrics_are_over_counted_samples():
    module, run = task(), trainer()
    (counted,) = run.test(module, loader(padded=True), verbose=False)
    images = [Colours(padded=True)[i] for i in range(24)]
    images = [sample for sample in images if sample["index"] >= 0]
    module.eval()
    logits = module(torch.stack([sample["image"] for sample in images]))
    labels = torch.tensor([sample["label"] for sample in images])
    assert counted["test/accuracy"] == pytest.approx((logits.argmax(-1) == labels).double().mean().item(), abs=1e-6)
    assert counted["test/loss"] == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), abs=1e-6)


def test_top_five_from_five_classes_on():
    assert "accuracy_top5" not in classification_metrics(4)
    metric = classification_metrics(10)["accuracy_top5"]
    logits = torch.arange(10.0).expand(4, 10)
    metric.update(logits, torch.tensor([9, 5, 4, 0]))
    assert metric.compute() == 0.5


def test_predicts_probabilities():
    batches = trainer().predict(task(), loader())
    probabilities = torch.cat(batches)
    assert probabilities.shape == (24, 3)
    assert_close(probabilities.sum(-1), torch.ones(24))


def test_mixers_of_some_layers():
    module = task(mixer=None, layer_mixers={"last": az.MIXERS["VarsD"]})
    assert [type(block.attn).__name__ for block in module.model.blocks] == ["Attention", "VarsD"]


class TestMixing:
    def test_changes_images_and_targets(self):
        module = task(mixing=Mixing())
        module.trainer = trainer()
        batch = next(iter(loader()))
        image, target = module.mix(batch["image"], batch["label"], 0)
        assert not torch.equal(image, batch["image"])
        assert target.shape == (8, 3)
        assert_close(target.sum(-1), torch.ones(8))

    def test_is_drawn_from_the_step(self):
        module = task(mixing=Mixing())
        module.trainer = trainer()
        batch = next(iter(loader()))
        first, again, other = (module.mix(batch["image"], batch["label"], i)[0] for i in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_refuses_odd_batches(self):
        module = task(mixing=Mixing())
        with pytest.raises(az.InputError, match="batch_size=3 must be even"):
            module.mix(torch.zeros(3, 3, 8, 8), torch.zeros(3, dtype=torch.long), 0)

    def test_refuses_to_do_nothing(self):
        with pytest.raises(az.InputError, match="mixup_alpha or cutmix_alpha"):
            task(mixing=Mixing(mixup_alpha=0, cutmix_alpha=0))


class Ensemble(nn.Module):
    """A model with an extra output and a loss of its own, as `Outputs` allows in training."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))

    def forward(self, x):
        logits = self.net(x)
        return az.Outputs(logits, (2 * logits,), torch.tensor(5.0)) if self.training else logits


def test_outputs_are_averaged_and_their_loss_added():
    module = task(label_smoothing=0.0)
    module.model = Ensemble()
    module.log = lambda *args, **kwargs: None
    module.trainer = trainer()
    batch = next(iter(loader()))
    loss = module.training_step(batch, 0)
    logits = module.model.net(batch["image"])
    cross_entropy = nn.functional.cross_entropy
    expected = (cross_entropy(logits, batch["label"]) + cross_entropy(2 * logits, batch["label"])) / 2 + 5
    assert_close(loss, expected)


class TestOptimisation:
    def test_norms_biases_and_tokens_do_not_decay(self):
        model = timm.create_model("vit_small_patch14_reg4_dinov2", img_size=8, **SMALL)
        names = {id(p): n for n, p in model.named_parameters()}
        spared, decayed = ({names[id(p)] for p in group["params"]} for group in decay_groups(model))
        assert {"cls_token", "reg_token", "pos_embed", "norm.weight", "blocks.0.attn.qkv.bias"} <= spared
        assert {"blocks.0.attn.qkv.weight", "patch_embed.proj.weight"} <= decayed
        assert not any("norm" in n or n.endswith("bias") for n in decayed)
        assert len(spared) + len(decayed) == len(names)

    def test_decay_is_the_optimizers_own(self):
        module = task(optimizer=lambda groups: torch.optim.AdamW(groups, lr=0.1, weight_decay=0.3))
        run = fit(module)
        assert sorted(group["weight_decay"] for group in run.optimizers[0].param_groups) == [0.0, 0.3]

    def test_a_model_of_biases_only(self):
        assert [group["weight_decay"] for group in decay_groups(nn.LayerNorm(3))] == [0.0]

    def test_warm_up_and_cosine(self):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
        schedule = warmup_cosine(optimizer, warmup_steps=4, total_steps=14, floor=0.1)
        rates = []
        for _ in range(16):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        assert rates[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])
        assert rates[9] == pytest.approx((2.0 + 0.2) / 2)
        assert rates[14:] == pytest.approx([0.2, 0.2])

    def test_default_schedule_spans_the_run(self):
        run = fit(task(warmup_epochs=1.0, min_lr_ratio=0.01))
        assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-3 * 0.01)

    def test_warm_up_counts_epochs_of_a_run_that_counts_steps(self):
        for accumulated, steps in ((1, 6), (3, 2)):  # three batches an epoch
            run = trainer(-1, max_steps=8, accumulate_grad_batches=accumulated)
            run.fit(task(warmup_epochs=2.0), loader(), None)
            factor = run.lr_scheduler_configs[0].scheduler.lr_lambdas[0]
            assert [factor(0), factor(steps - 1), factor(8)] == pytest.approx([1 / steps, 1.0, 0.01])

    def test_no_batch_to_train_on_is_told_as_such(self):
        with pytest.raises(az.InputError, match="^trainer.limit_train_batches=0 leaves a schedule no step to count"):
            trainer(2, limit_train_batches=0).fit(task(), loader(), None)

    @pytest.mark.parametrize(
        ("limits", "epochs", "per_epoch"),
        [
            ({"accumulate_grad_batches": 4}, 8, 2),  # of five batches: four, and the one that is left
            ({"accumulate_grad_batches": 9}, 2, 1),
            ({"accumulate_grad_batches": 2, "limit_train_batches": 0.6}, 3, 2),
            ({"accumulate_grad_batches": 2, "max_steps": 7}, -1, 3),
        ],
    )
    @pytest.mark.parametrize("poly", [False, True])
    def test_schedules_span_the_steps_that_lightning_makes(self, limits, epochs, per_epoch, poly):
        taken = limits.get("max_steps") or epochs * per_epoch
        span = 2 if epochs == -1 else epochs
        schedule = {"poly": Poly(epochs=span)} if poly else {"warmup_epochs": span / 2}
        module = task(min_lr_ratio=0.0, model_args={**SMALL, "depth": 1}, **schedule)
        rates = []
        module.on_before_zero_grad = lambda optimizer: rates.append(optimizer.param_groups[0]["lr"] / 1e-3)
        run = trainer(epochs, **limits)
        run.fit(module, DataLoader(Colours(10), batch_size=2))
        assert run.global_step == len(rates) == taken
        steps = span * per_epoch
        if poly:
            expected = [1 - step / steps if step < steps else 0 for step in range(taken)]
        else:
            ramp = round(steps / 2)
            expected = [
                min((step + 1) / ramp, (1 + math.cos(math.pi * max(step - ramp, 0) / (taken - ramp))) / 2)
                for step in range(taken)
            ]
        assert rates == pytest.approx(expected)

    @pytest.mark.parametrize("poly", [False, True])
    @pytest.mark.parametrize("most", [-1, 8])
    def test_schedules_where_accumulation_changes_between_epochs(self, poly, most):
        schedule = {"poly": Poly()} if poly else {"warmup_epochs": 2.5}
        module = task(min_lr_ratio=0.0, model_args={**SMALL, "depth": 1}, **schedule)
        rates = []
        module.on_before_zero_grad = lambda optimizer: rates.append(optimizer.param_groups[0]["lr"] / 1e-3)
        scheduler = GradientAccumulationScheduler({0: 1, 1: 2, 3: 9})
        run = trainer(4, callbacks=[scheduler], max_steps=most)
        run.fit(module, DataLoader(Colours(10), batch_size=2))  # 5, 3, 3 and 1 steps
        taken, ramp = (12 if most == -1 else most), min(round(5 + 3 + 3 / 2), 12 if most == -1 else most)
        assert len(rates) == taken
        falling = [1 - step / taken for step in range(taken)]
        rising = [
            min((step + 1) / ramp, (1 + math.cos(math.pi * max(step - ramp, 0) / max(taken - ramp, 1))) / 2)
            for step in range(taken)
        ]
        assert rates == pytest.approx(falling if poly else rising)

    def test_the_default_schedule_needs_an_end(self):
        with pytest.raises(az.InputError, match="max_epochs or trainer.max_steps"):
            trainer(-1).fit(task(), loader(), loader())

    def test_data_without_a_length(self):
        class Endless(IterableDataset):
            def __iter__(self):
                return iter(Colours())

        data = DataLoader(Endless(), batch_size=8)
        with pytest.raises(az.InputError, match="max_epochs or trainer.max_steps"):
            trainer(1).fit(task(), data)
        with pytest.raises(az.InputError, match="the data have no length.*warmup_epochs must be 0"):
            trainer(-1, max_steps=2).fit(task(), data)
        run = trainer(-1, max_steps=2)
        run.fit(task(warmup_epochs=0), data)
        assert run.global_step == 2

    def test_the_final_norm_is_of_the_head(self):
        for name, before in (("vit_tiny_patch16_224", "blocks.1"), ("deit3_small_patch16_224", "blocks.1")):
            model = timm.create_model(name, img_size=8, **SMALL)
            names = {id(p): n for n, p in model.named_parameters()}
            groups = decay_groups(model, layer_decay=0.5)
            scale = {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
            assert scale["norm.weight"] == scale["norm.bias"] == scale["head.weight"] == 1
            assert scale[f"{before}.norm1.weight"] == scale[f"{before}.mlp.fc1.weight"] == 1 / 2
            assert scale["pos_embed"] == 1 / 8
            assert model.group_matcher().keys() == type(model).group_matcher(model).keys()

    def test_layers_of_a_model_that_does_not_name_them(self):
        absvit = timm.create_model("absvit_tiny_patch16_224", img_size=8, **SMALL)
        names = {id(p): n for n, p in absvit.named_parameters()}
        groups = decay_groups(absvit, layer_decay=0.5)
        scale = {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
        for block, factor in ((0, 1 / 4), (1, 1 / 2)):
            assert {scale[name] for name in scale if name.startswith(f"model.blocks.{block}.")} == {factor}
        assert scale["model.pos_embed"] == scale["model.patch_embed.proj.weight"] == 1 / 8
        assert scale["model.norm.weight"] == scale["model.head.weight"] == scale["prompt"] == 1
        rvt = timm.create_model("rvt_tiny", img_size=32, embed_dims=(12,), depths=(1,), num_heads=(2,))
        with pytest.raises(az.InputError, match="layer_decay counts layers, and .* does not say"):
            decay_groups(rvt, layer_decay=0.5)

    def test_a_scheduler_from_the_config_steps_by_epoch(self):
        module = task(scheduler=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5))
        assert fit(module).optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-3 * 0.25)


class TestRandomness:
    def weights(self, module):
        return torch.cat([p.flatten() for p in module.parameters()])

    def dropping(self, seed=0):
        args = {**SMALL, "proj_drop_rate": 0.2, "drop_path_rate": 0.3}
        return task(seed, model_args=args, mixing=Mixing())

    def test_steps_do_not_depend_on_what_was_drawn_before(self):
        first, second = self.dropping(), self.dropping()
        torch.manual_seed(1)
        fit(first)
        torch.manual_seed(2)
        fit(second)
        assert torch.equal(self.weights(first), self.weights(second))

    @pytest.mark.parametrize("averaged", [False, True])
    def test_resumed_equals_uninterrupted(self, tmp_path, averaged):
        callbacks = lambda: [EMAWeightAveraging(decay=0.9)] if averaged else []  # noqa: E731
        saving = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, every_n_epochs=1)
        whole = self.dropping()
        fit(whole, epochs=4, callbacks=[*callbacks(), saving])
        resumed = self.dropping(seed=9)
        checkpoint = tmp_path / "epoch=1.ckpt"
        trainer(4, callbacks=callbacks()).fit(resumed, loader(), loader(), ckpt_path=checkpoint, weights_only=True)
        assert torch.equal(self.weights(whole), self.weights(resumed))


def test_refuses_label_smoothing_out_of_range():
    with pytest.raises(az.InputError, match="label_smoothing=1.5"):
        task(label_smoothing=1.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, "num_classes=1: a classifier needs data of two or more classes"),
        ({"image_size": (8, 16), "mixer": "DotProduct"}, "'vit_tiny_patch16_224': patches of 16 x 16 pixels do not"),
        ({"image_size": (8, 16), "top_down": "absvit"}, "'vit_tiny_patch16_224': patches of 16 x 16 pixels do not"),
    ],
)
def test_what_no_classifier_can_be_made_for(options, message):
    with pytest.raises(az.InputError, match=message):
        Classification(model="vit_tiny_patch16_224", **options)
