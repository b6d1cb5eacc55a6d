"""The mask decoder as a task: it learns scenes, and evaluates exactly."""

from dataclasses import replace

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torchmetrics.classification import MulticlassConfusionMatrix

import attention_zoo as az
from attention_zoo.errors import InputError
from attention_zoo.models.mask_decoder import DecoderSize, MaskDecoder, semantic_probabilities
from attention_zoo.runs.cost_log import count_flops
from datamodules.segmentation import Shapes
from tasks import MaskSegmentation
from tasks.mask_losses import LossWeights, MaskCriterion, Sampling

SIZE = DecoderSize(
    num_queries=8, dim=32, mask_dim=16, hidden=32, num_heads=4, widths=(16, 8, 8, 8), blocks=(1, 1, 1, 1)
)
CLASSES = 5

interactions = pytest.mark.parametrize("interaction", az.list_mixers("cross"))


def task(interaction="KMeansCross", things=None, **options):
    torch.manual_seed(0)
    return MaskSegmentation(
        "test_resnet",
        CLASSES,
        (64, 64),
        things,
        interaction=az.MIXERS[interaction],
        loss_weights=LossWeights(contrastive=0.1, mask_id=1.0),
        sampling=Sampling(contrastive_samples=64, semantic_samples=0),
        **{"decoder": SIZE, **options},
    )


def data(panoptic=False, **options):
    return Shapes(
        **{
            "scenes": (4, 5, 3),
            "classes": CLASSES,
            "image_size": 64,
            "batch_size": 2,
            "num_workers": 0,
            "panoptic": panoptic,
            **options,
        }
    )


def trainer(**options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return L.Trainer(**{**quiet, "enable_checkpointing": False, **options})


@interactions
def test_a_scene_is_learned(interaction):
    """Two images of blocks, each pixel's features its class in noise."""
    torch.manual_seed(0)
    mask = torch.randint(0, CLASSES, (2, 4, 4)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    pixels = torch.nn.functional.one_hot(mask, CLASSES).permute(0, 3, 1, 2) + 0.3 * torch.randn(2, CLASSES, 32, 32)
    maps = [torch.nn.functional.avg_pool2d(pixels, stride) for stride in (1, 2, 4, 8)]
    size = replace(SIZE, layers=(1, 1, 1), mask_gain=2.0)
    model = MaskDecoder([CLASSES] * 4, CLASSES, interaction=interaction, size=size)
    criterion = MaskCriterion(LossWeights(contrastive=0.1, mask_id=1.0), Sampling(contrastive_samples=64))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    losses, scores = [], []
    for _ in range(25):
        outputs = model(maps)
        predicted = semantic_probabilities(outputs.final.class_logits, outputs.final.mask_logits).argmax(1)
        counts = MulticlassConfusionMatrix(CLASSES)(predicted, mask).double()
        scores.append((counts.diag() / (counts.sum(0) + counts.sum(1) - counts.diag())).nanmean().item())
        found = criterion(outputs, {"mask": mask})
        losses.append(found["mask_id"].item())
        optimizer.zero_grad()
        sum(found.values()).backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 2
    assert scores[-1] > max(0.8, scores[0] + 0.3)


class Count(Callback):
    """Keeps what was predicted, to count again."""

    def __init__(self):
        self.counts = torch.zeros(CLASSES, CLASSES)
        self.images = []

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, *_):
        kept = batch["index"] >= 0
        self.images += batch["index"][kept].tolist()
        predicted = pl_module.classes_at(pl_module(batch["image"]), batch["image"], tuple(batch["mask"].shape[1:]))
        both = predicted[kept].flatten(), batch["mask"][kept].flatten()
        self.counts += MulticlassConfusionMatrix(CLASSES, ignore_index=255)(*both)


def test_mean_iou_over_the_whole_set():
    """Counted over all images, at the labels' size; labels are larger than what the model sees."""
    counted, scenes = Count(), data(scene_size=(80, 96))
    (found,) = trainer(callbacks=[counted]).validate(task(), scenes, verbose=False)
    counts = counted.counts.double()
    union = counts.sum(0) + counts.sum(1) - counts.diag()
    assert sorted(counted.images) == list(range(5))
    assert found["val/mean_iou"] == pytest.approx(float((counts.diag() / union)[union > 0].mean()), abs=1e-6)
    assert "val/panoptic_quality" not in found


def test_panoptic_quality_is_measured_where_there_are_things():
    scenes = data(panoptic=True)
    (found,) = trainer().test(task(things=scenes.things), scenes, verbose=False)
    assert 0 <= found["test/panoptic_quality"] <= 1
    assert found["test/panoptic_quality"] <= min(found["test/segmentation_quality"], found["test/recognition_quality"])


@pytest.mark.parametrize(
    ("name", "mixer"), [("vit_tiny_patch16_224", "VarsD"), ("absvit_tiny_patch16_224", None)], ids=["one", "two passes"]
)
def test_backbones_of_tokens_get_a_pyramid(name, mixer):
    """Four maps of one stride; no parameter is without a gradient."""
    args = {"patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}
    torch.manual_seed(0)
    model = MaskSegmentation(
        name, CLASSES, (64, 64), mixer=mixer and az.MIXERS[mixer], model_args=args, decoder=SIZE, dual_path=True
    )
    scenes = data()
    scenes.setup("fit")
    batch = next(iter(scenes.train_dataloader()))
    outputs = model(batch["image"])
    assert [tuple(x.mask_logits.shape[2:]) for x in outputs.predictions[1::2]] == [(2, 2), (4, 4), (8, 8)]
    assert outputs.final.mask_logits.shape[2:] == (16, 16)
    sum(model.criterion(outputs, batch).values()).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_auxiliary_loss():
    scenes = data()
    scenes.setup("fit")
    batch = next(iter(scenes.train_dataloader()))
    for auxiliary in (None, "conv"):
        model = task(auxiliary=auxiliary)
        losses = model.criterion(model(batch["image"]), batch)
        assert ("semantic" in losses) == (auxiliary is not None)


def test_a_batch_that_pads_a_process_counts_nowhere():
    scenes = data()
    scenes.setup("validate")
    batch = next(iter(scenes.val_dataloader()))
    model = task().eval()
    once = {**batch, "index": torch.tensor([0, -1])}
    model.validation_step(once, 0)
    value = model.val_metrics["iou"].compute()["mean_iou"]
    model.val_metrics["iou"].reset()
    model.validation_step({**{key: batch[key][:1] for key in ("image", "mask")}, "index": torch.tensor([0])}, 0)
    torch.testing.assert_close(value, model.val_metrics["iou"].compute()["mean_iou"])
    model.val_metrics["iou"].reset()
    model.validation_step({**batch, "index": torch.tensor([-1, -1])}, 0)


def test_images_that_the_backbone_pads_are_labelled_where_they_are():
    """What is padded is void in training, and is cut off in evaluation."""
    model = task()
    assert model.model.covered((40, 64)) == (64, 64)
    scenes = data(image_size=(40, 64), panoptic=True)
    scenes.setup("fit")
    batch = next(iter(scenes.train_dataloader()))
    padded = model.padded(batch)
    assert padded["mask"].shape == (2, 64, 64)
    assert torch.equal(padded["mask"][:, :40], batch["mask"]) and (padded["mask"][:, 40:] == 255).all()
    for before, after in zip(batch["segments"], padded["segments"], strict=True):
        assert torch.equal(after["masks"][:, :40], before["masks"]) and not after["masks"][:, 40:].any()
    outputs = model(batch["image"])
    large = torch.nn.functional.interpolate(outputs.final.mask_logits, (64, 64), mode="bilinear")
    torch.testing.assert_close(model.seen_masks(outputs, batch["image"]), large[:, :, :40])
    assert model.padded(next(iter(data_of((64, 64)))))["mask"].shape == (2, 64, 64)


def data_of(size):
    scenes = data(image_size=size)
    scenes.setup("fit")
    return scenes.train_dataloader()


class Rates(Callback):
    """Learning rate of every parameter at the first step."""

    def on_train_batch_start(self, trainer, pl_module, *_):
        groups = trainer.optimizers[0].param_groups
        self.found = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}


def test_the_backbone_has_its_own_learning_rate():
    rates, model = Rates(), task(backbone_lr=0.1, warmup_epochs=0)
    trainer(max_steps=1, callbacks=[rates]).fit(model, data())
    first = {name: rates.found[id(parameter)] for name, parameter in model.model.named_parameters()}
    rest = {rate for name, rate in first.items() if not name.startswith("backbone.")}
    own = {rate for name, rate in first.items() if name.startswith("backbone.")}
    assert len(rest) == len(own) == 1
    assert own.pop() == pytest.approx(0.1 * rest.pop())
    with pytest.raises(InputError, match="backbone_lr=-1"):
        task(backbone_lr=-1.0)


def test_its_operations_are_counted():
    model = task()
    assert model.example_input_array.shape == (1, 3, 64, 64) and count_flops(model) > 1e6


def test_things_must_be_classes():
    with pytest.raises(InputError, match="things=\\[5\\] are no classes of 5"):
        task(things=[5])
