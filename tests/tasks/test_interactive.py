"""The curriculum, validation and test of the interactive task on tiny models."""

import math
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch

import attention_zoo as az
from attention_zoo.clicks import NEGATIVE, POSITIVE, Clicks
from attention_zoo.models.interactive import CorrectiveAttention, Fusion, box_disks
from attention_zoo.reports.clicks.figures import overlay
from attention_zoo.reports.clicks.tables import differences, noc_table
from attention_zoo.results.clicks import ClickResult
from datamodules import Berkeley, ObjectScenes
from datamodules.interactive.objects import bounding_box
from tasks import Curriculum, InteractiveSegmentation, Setting
from tasks.clicks import number_of_clicks
from tasks.clicks.answers import whole
from tasks.schedules import Poly
from tests.datamodules.interactive_files import blob, write_mask
from tests.tasks.toy_clickers import Constant, Oracle, Painter

VIT = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "class_token": False, "global_pool": "avg"}
QUIET = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


def probabilistic(**host):
    return az.create_mixer("Probabilistic", **host)


def corrective(in_channels):
    mixer = partial(az.create_mixer, "Probabilistic", beta=0.1, value_propagation=1)
    return CorrectiveAttention(in_channels, dim=8, attention="full", stride=4, mixer=mixer)


def tiny(**options):
    given = {"image_size": (32, 32), "model_args": VIT, "mixer": probabilistic, "max_clicks": 3} | options
    return InteractiveSegmentation("vit_tiny_patch16_224", **given)


def scenes(**options):
    given = {"scenes": (2, 1, 2), "image_size": 32, "batch_size": 4, "scene_size": (48, 48)} | options
    return ObjectScenes(**given)


@pytest.fixture(scope="module")
def batch():
    data = scenes()
    data.setup("fit")
    return next(iter(data.train_dataloader()))


def places(clicks, image, label):
    chosen = clicks.labels[image] == label
    return clicks.points[image][chosen].long().T.unbind(0)


def in_epoch(task, epoch, monkeypatch):
    monkeypatch.setattr(type(task), "current_epoch", property(lambda self: epoch))
    return task


def test_the_stages_of_the_curriculum(batch, monkeypatch):
    task = tiny(curriculum=Curriculum(1, 1))
    task.model = ToyInModel(Oracle())
    target = batch["mask"] == 1
    clicks, previous = in_epoch(task, 0, monkeypatch).training_clicks(batch)
    assert clicks.count == 0
    assert previous is None
    clicks, previous = in_epoch(task, 1, monkeypatch).training_clicks(batch)
    assert previous is None
    for image in range(len(target)):
        assert 1 <= len(places(clicks, image, POSITIVE)[0]) <= 3
        assert len(places(clicks, image, NEGATIVE)[0]) <= 3
        assert target[image][places(clicks, image, POSITIVE)].all()
        assert not target[image][places(clicks, image, NEGATIVE)].any()


class ToyInModel(torch.nn.Module):
    """A toy with the interface of a whole model; what it finds wrong is known: the upper half is the object."""

    encoder_sees_clicks = True

    def __init__(self, toy):
        super().__init__()
        self.toy, self.calls = toy, []
        self.backbone = self.head = torch.nn.Identity()

    def forward(self, image, clicks, box=None, previous=None):
        self.calls.append((self.training, torch.is_grad_enabled(), clicks, box, previous))
        logits = torch.full_like(image[:, :1], -5.0)
        logits[:, :, :16] = 5.0
        return logits

    def encode(self, *args, **kwargs):
        return self.toy.encode(*args, **kwargs)

    def decode(self, *args, **kwargs):
        return self.toy.decode(*args, **kwargs)


@pytest.mark.parametrize("first", ["box", "random"])
def test_corrections_are_where_the_prediction_is_wrong(batch, monkeypatch, first):
    task = in_epoch(tiny(curriculum=Curriculum(0, 0, first=first, positive=(2, 3), negative=(1, 3))), 0, monkeypatch)
    task.model = ToyInModel(Oracle()).train()
    clicks, previous = task.training_clicks(batch)
    ((training, gradients, before, box, _),) = task.model.calls
    assert not training
    assert not gradients
    assert task.model.training
    assert torch.equal(box, batch["box"])
    assert before.count == (0 if first == "box" else 6)
    assert previous.shape == batch["mask"][:, None].shape
    corrections = Clicks(clicks.points[:, before.count :], clicks.labels[:, before.count :])
    found = torch.zeros_like(batch["mask"], dtype=torch.bool)
    found[:, :16] = True
    wrong = {POSITIVE: (batch["mask"] == 1) & ~found, NEGATIVE: (batch["mask"] == 0) & found}
    seen = 0
    for image in range(len(found)):
        for label, region in wrong.items():
            made = places(corrections, image, label)
            assert region[image][made].all()
            assert (len(made[0]) > 0) == bool(region[image].any())
            seen += len(made[0])
    assert seen > 0


def test_rounds_click_deep_in_the_errors_of_one_prediction_after_another(batch, monkeypatch):
    task = tiny(guidance="ritm", curriculum=Curriculum(0, 0, first="random", rounds=3))
    target, upper = batch["mask"] == 1, torch.zeros_like(batch["mask"], dtype=torch.bool)
    upper[:, :16] = True
    seen = set()
    for seed in range(12):
        torch.manual_seed(seed)
        task.model = ToyInModel(Oracle())
        clicks, previous = task.training_clicks(batch)
        rounds = len(task.model.calls)
        seen.add(rounds)
        assert clicks.count == 6 + rounds
        assert (previous is None) == (rounds == 0)
        for asked, (_, _, before, _, mask) in enumerate(task.model.calls):
            assert before.count == 6 + asked
            assert (mask is None) == (asked == 0)
        for image, place in ((image, place) for image in range(len(target)) for place in range(6, clicks.count)):
            (y, x), label = clicks.points[image, place].long().tolist(), clicks.labels[image, place]
            wrong = target[image] & ~upper[image] if label == POSITIVE else ~target[image] & upper[image]
            assert wrong[y, x]
    assert seen == {0, 1, 2, 3}


def test_the_schedule_of_the_paper(monkeypatch):
    """From 1e-4 down to 1e-5 at epoch 70, of 3 steps each, however long the run."""

    class Run:
        fit_loop = SimpleNamespace(setup_data=lambda: None)
        estimated_stepping_batches, num_training_batches, accumulate_grad_batches = 270, 6, 2

    def optimizer(groups):
        return torch.optim.RAdam(groups, lr=1e-4)

    task = tiny(optimizer=optimizer, poly=Poly(power=0.9, epochs=70), min_lr_ratio=0.1)
    monkeypatch.setattr(type(task), "trainer", Run)
    configured = task.configure_optimizers()
    schedule = configured["lr_scheduler"]["scheduler"]
    assert configured["lr_scheduler"]["interval"] == "step"
    rates = []
    for _ in range(270):
        rates.append(schedule.get_last_lr()[0])
        configured["optimizer"].step()
        schedule.step()
    assert rates[0] == pytest.approx(1e-4)
    assert rates[3 * 35] == pytest.approx(1e-5 + 9e-5 * 0.5**0.9)
    assert rates[3 * 70 :] == pytest.approx([1e-5] * 60)
    with pytest.raises(az.InputError, match="epochs=0"):
        Poly(epochs=0)


def adapting(**host):
    return az.create_mixer("Probabilistic", key_adaptation=1, key_prior_precision=0.001, **host)


def silent(task, monkeypatch):
    monkeypatch.setattr(task, "log", lambda *args, **kwargs: None)
    return task


@pytest.mark.parametrize("mixer", [probabilistic, adapting])
def test_training_lowers_the_loss_in_every_stage(batch, monkeypatch, mixer):
    torch.manual_seed(0)
    losses = {"normalised_focal": 1.0, "soft_iou": 0.5}
    task = silent(tiny(mixer=mixer, curriculum=Curriculum(1, 1), head=corrective, losses=losses), monkeypatch)
    optimizer = torch.optim.RAdam(task.parameters(), lr=1e-2)
    task.train()
    for epoch in range(3):
        in_epoch(task, epoch, monkeypatch)
        losses = []
        for _ in range(6):
            torch.manual_seed(0)
            loss = task.training_step(batch, 0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0]


def test_training_goes_through_key_adaptation(batch, monkeypatch):
    """Precisions and keys get other gradients than without: the iteration is a part of the graph."""
    gradients = []
    for mixer in (probabilistic, adapting):
        torch.manual_seed(0)
        task = in_epoch(silent(tiny(mixer=mixer, head=corrective), monkeypatch), 0, monkeypatch)
        task.training_step(batch, 0).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in task.model.backbone.parameters() if p.grad is not None]))
    assert gradients[1].isfinite().all()
    assert not torch.allclose(*gradients, rtol=1e-3)


class Guiding(Fusion):
    """A decoder with a mask of its own, all object or all background."""

    def __init__(self, channels, strides):
        super().__init__(channels, strides, width=8)
        self.own = torch.nn.Parameter(torch.tensor(0.7))

    def forward(self, maps, size):
        features, _ = super().forward(maps, size)
        return features, (self.own.expand(len(features), 1, *size),)


def test_what_a_decoder_predicts_on_the_way_is_supervised(batch, monkeypatch):
    losses = {}
    for weight in (0.0, 0.4, 1.0):
        torch.manual_seed(0)
        task = in_epoch(silent(tiny(decoder=Guiding, extra_weight=weight), monkeypatch), 0, monkeypatch)
        loss = task.training_step(batch, 0)
        loss.backward()
        losses[weight] = loss.item()
        assert (task.model.decoder.own.grad != 0) == (weight > 0)
    extra = task.loss(task.model.decoder.own.detach().expand(4, 1, 32, 32), batch["mask"]).item()
    assert losses[1.0] - losses[0.0] == pytest.approx(extra, rel=1e-4)
    assert losses[0.4] - losses[0.0] == pytest.approx(0.4 * extra, rel=1e-4)
    assert tiny().extra_weight == 0.4


class BoxChannel(L.Callback):
    """Compares what the backbone is given as box with the corners of the masks, in training and evaluation alike."""

    def __init__(self, model):
        self.stages = []
        model.backbone.register_forward_pre_hook(self.check)

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.mask, self.stage = batch["mask"], "train"

    def on_validation_batch_start(self, trainer, module, batch, batch_idx, dataloader_idx=0):
        self.mask, self.stage = batch["mask"], "val"

    def on_test_batch_start(self, trainer, module, batch, batch_idx, dataloader_idx=0):
        self.mask, self.stage = batch["mask"], "test"

    def check(self, backbone, args):
        self.stages.append(self.stage)
        for mask, channel in zip(self.mask, args[0][:, 3:4], strict=True):
            top, left, bottom, right = bounding_box(mask == 1)
            corners = torch.tensor([[top, left, bottom, right], [bottom, left, top, right]]).float()
            assert any(torch.equal(channel, one[0]) for one in box_disks(corners, mask.shape, 8).split(1))


def test_the_box_reaches_the_network_in_training_and_evaluation():
    """Noise is left out, and objects are so small that no view is resized: disks are exactly at the mask's corners."""
    task = tiny(image_size=(64, 64), curriculum=Curriculum(1, 1), val_clicks=1, max_clicks=1)
    data = scenes(scenes=(3, 2, 2), image_size=64, corner_noise=0.0)
    seen = BoxChannel(task.model)
    trainer = L.Trainer(**QUIET, max_epochs=3, limit_train_batches=1, callbacks=[seen], log_every_n_steps=1)
    trainer.fit(task, data)
    trainer.test(task, data, verbose=False)
    assert set(seen.stages) == {"train", "val", "test"}
    assert seen.stages.count("train") == 1 + 1 + 2  # corrections ask twice


class BoxFiller(torch.nn.Module):
    """Takes the box itself for the object."""

    encoder_sees_clicks = True

    def encode(self, image, clicks, box=None, previous=None):
        return image, box

    def decode(self, features, clicks, **adaptation):
        image, box = features
        rows, columns = (torch.arange(side).float() for side in image.shape[-2:])
        low, high = torch.minimum(box[:, :2], box[:, 2:]), torch.maximum(box[:, :2], box[:, 2:])
        high_enough = (rows >= low[:, :1]) & (rows <= high[:, :1])
        wide_enough = (columns >= low[:, 1:]) & (columns <= high[:, 1:])
        return 10.0 * (high_enough[:, :, None] & wide_enough[:, None, :])[:, None].float() - 5


def test_the_box_without_clicks_is_worth_what_it_encloses(clear):
    task = tiny(max_clicks=1)
    task.model = ToyInModel(BoxFiller())
    logged = evaluate(task, berkeley(clear, corner_noise=0.0))
    assert logged["test/miou_0"] > 0.99


def test_all_of_a_model_starts_from_a_run(tmp_path):
    torch.manual_seed(0)
    trained = tiny(head=corrective)
    trainer = L.Trainer(**QUIET, max_epochs=1, limit_train_batches=1, limit_val_batches=0, log_every_n_steps=1)
    trainer.fit(trained, scenes())
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    started = tiny(head=corrective, start=str(tmp_path / "run.ckpt")).model.state_dict()
    for name, weight in trained.model.state_dict().items():
        assert torch.equal(weight, started[name])
    with pytest.raises(az.InputError, match="run.ckpt holds no weights of this InteractiveModel"):
        tiny(start=str(tmp_path / "run.ckpt"))


@pytest.fixture(scope="module")
def clear(tmp_path_factory):
    """Three images in the layout of Berkeley that are white where the object is."""
    root = tmp_path_factory.mktemp("clear")
    for number in range(3):
        mask = 255 * blob(6 + 3 * number, 8, 14, 20 + number)
        write_mask(root / "masks" / f"{number}.png", mask)
        write_mask(root / "images" / f"{number}.png", mask)
    return root


def berkeley(root, **options):
    given = {"image_size": 48, "batch_size": 2, "num_workers": 0, "mean": (0, 0, 0), "std": (1, 1, 1)} | options
    return Berkeley(str(root), **given)


def evaluate(task, data, **trainer):
    (logged,) = L.Trainer(**QUIET | trainer).test(task, data, verbose=False)
    return logged


@pytest.mark.parametrize(("toy", "clicks"), [(Oracle, 1), (Constant, 20)])
@pytest.mark.parametrize("protocol", ["paper", "ritm"])
def test_noc_of_an_oracle_and_a_constant(clear, toy, clicks, protocol):
    task = tiny(protocol=protocol, max_clicks=None)
    task.model = ToyInModel(toy())
    crop = "box" if protocol == "paper" else "random"
    logged = evaluate(task, berkeley(clear, crop=crop, trials=2))
    assert [logged[f"test/noc_{goal}"] for goal in (80, 85, 90, 95)] == [clicks] * 4
    (curve,) = task.result.curves
    assert curve.unreached["0.95"] == curve.unreached["0.90"]
    assert curve.unreached["0.90"] == (0 if clicks == 1 else 3)
    assert len(curve.mean) == 21
    assert np.shape(curve.trials) == (2, 21)
    assert curve.seconds_per_click > 0
    assert [name.rpartition("/")[2] for name in task.names] == ["0.png", "1.png", "2.png"]


def test_the_curve_is_the_mean_over_objects_and_the_error_over_trials(clear):
    task = tiny(max_clicks=5)
    task.model = ToyInModel(Painter())
    logged = evaluate(task, berkeley(clear, trials=3))
    assert task.ious.shape == (1, 3, 3, 6)
    means = task.ious[0].mean(0)
    (curve,) = task.result.curves
    assert curve.trials == means.tolist()
    np.testing.assert_allclose(curve.mean, means.mean(0))
    np.testing.assert_allclose(curve.standard_error, means.std(0, ddof=1) / 3**0.5)
    assert curve.standard_error[5] > 0
    every = torch.from_numpy(task.ious[0, ..., 1:].reshape(9, 5))
    assert curve.noc["0.80"] == number_of_clicks(every, 0.8, 5).double().mean()
    by_hand = [next((click for click, iou in enumerate(row, 1) if iou >= 0.5), 5) for row in every.tolist()]
    assert number_of_clicks(every, 0.5, 5).tolist() == by_hand
    assert logged["test/miou_5"] == pytest.approx(means[:, 5].mean(), abs=1e-6)


def test_batches_and_trials_do_not_change_what_an_object_gets(clear):
    found = []
    for options in ({"batch_size": 2, "trials": 2}, {"batch_size": 6, "trials": 2}):
        task = tiny(max_clicks=3)
        task.model = ToyInModel(Painter())
        evaluate(task, berkeley(clear, **options))
        found.append(task.ious)
    np.testing.assert_array_equal(*found)


def test_nothing_is_left_out_silently(clear):
    task = tiny(max_clicks=2)
    task.model = ToyInModel(Painter())
    with pytest.warns(UserWarning, match="1 of 2 batches were tested, as trainer.limit_test_batches says"):
        evaluate(task, berkeley(clear), limit_test_batches=1)
    assert task.ious.shape[1] == 2


SETTINGS = {
    "none": Setting(0, None, 0),
    "keys": Setting(1, 0.0, 0, adapt_in="backbone"),
    "values": Setting(0, None, 5, 0.1),
    "both": Setting(1, 0.0, 5, 0.1),
}


def test_settings_are_curves_of_one_test():
    torch.manual_seed(0)
    task = tiny(head=corrective, settings=SETTINGS)
    logged = evaluate(task, scenes())
    assert [curve.name for curve in task.result.curves] == list(SETTINGS)
    for name in SETTINGS:
        assert 0 <= logged[f"test/{name}/miou_3"] <= 1
    alone = tiny(head=corrective, settings={"values": SETTINGS["values"]})
    alone.load_state_dict(task.state_dict())
    evaluate(alone, scenes())
    np.testing.assert_array_equal(alone.ious[0], task.ious[2])


def test_settings_reach_the_layers_they_name():
    task = tiny(head=corrective, settings=SETTINGS, key_prior_precision=0.001)
    keys = {name: [] for name in ("backbone", "head")}
    with task.adaptation(task.settings["keys"]):
        for part, found in keys.items():
            found += [m.key_adaptation for m in getattr(task.model, part).modules() if hasattr(m, "key_adaptation")]
    assert set(keys["backbone"]) == {1}
    assert set(keys["head"]) == {0}
    assert task.settings["none"].key_prior_precision == 0.001  # what a setting leaves open is the task's
    assert task.settings["keys"].key_prior_precision == 0.0


def test_keys_adapt_in_backbone_and_head_separately(batch):
    torch.manual_seed(0)
    task = tiny(head=corrective).eval()
    clicks, found = Clicks.empty(len(batch["mask"])), {}
    with torch.no_grad():
        found["none"] = task(batch["image"], clicks, batch["box"])
        for part in ("backbone", "head", "both"):
            with task.adaptation(Setting(key_adaptation=1, key_prior_precision=0.0, adapt_in=part)):
                found[part] = task(batch["image"], clicks, batch["box"])
    results = list(found.values())
    for place, one in enumerate(results):
        assert all(not torch.allclose(one, other, atol=1e-6) for other in results[:place])


def test_the_search_takes_the_least_clicks(monkeypatch):
    torch.manual_seed(0)
    task = tiny(head=corrective, settings={"values": Setting(0, None, 1)}, value_prior_precision_search=[0.1, 10.0])
    seen = []

    def count(table, batch, settings, protocol):
        seen.append([one.value_prior_precision for one in settings])
        for place, one in enumerate(settings):
            good = 1.0 if one.value_prior_precision == 10.0 else 0.0
            ious = torch.full((len(batch["index"]), protocol.clicks + 1), good)
            table.update(place, batch["index"], ious, torch.ones(len(ious), dtype=torch.int64), 0.1)

    monkeypatch.setattr(task, "count", count)
    logged = evaluate(task, scenes())
    assert seen[0] == [0.1, 10.0]
    assert seen[-1] == [10.0]
    assert logged["test/value_prior_precision"] == 10.0


def test_a_search_needs_validation_data_unless_the_precision_is_given(clear):
    options = {
        "head": corrective,
        "settings": {"values": Setting(0, None, 1)},
        "value_prior_precision_search": [0.1, 1],
    }
    with pytest.raises(az.InputError, match="needs validation data"):
        evaluate(tiny(image_size=(48, 48), max_clicks=1, **options), berkeley(clear))
    task = tiny(image_size=(48, 48), max_clicks=1, value_prior_precision=10.0, **options)
    assert "test/value_prior_precision" not in evaluate(task, berkeley(clear))
    assert task.result.curves[0].options["value_prior_precision"] == 10.0


def test_validation_logs_a_short_curve():
    task = tiny(val_clicks=2)
    (logged,) = L.Trainer(**QUIET).validate(task, scenes(), verbose=False)
    assert {"val/miou_0", "val/miou_1", "val/miou_2", "val/miou"} <= set(logged)
    assert logged["val/miou"] == logged["val/miou_2"]


def test_models_without_boxes_train_with_masks_before(batch):
    task = tiny(guidance="ritm", curriculum=Curriculum(0, 0, first="random"))
    clicks, previous = task.training_clicks(batch)
    assert clicks.count == 12
    assert task(batch["image"], clicks, None, previous).shape == (4, 1, 32, 32)


def test_a_view_is_put_back_where_it_was():
    probability = torch.arange(16.0).view(1, 4, 4)
    found = whole(probability, (-1, 2, 4, 4), (5, 6))
    assert found[0].tolist() == [0, 0, 4, 5, 6, 7]
    assert found[3:].sum() == 0
    assert whole(torch.ones(1, 4, 4), (0, 0, 10, 12), (10, 12)).min() == pytest.approx(1)


def test_results_are_read_back_and_compared(clear, tmp_path):
    results = {}
    for name, padding in (("a", 0.25), ("b", 0.25), ("c", 0.5)):
        task = tiny(max_clicks=2)
        task.model = ToyInModel(Painter())
        evaluate(task, berkeley(clear, trials=2, padding=padding))
        task.result.write(tmp_path / name)
        results[name] = ClickResult.read(tmp_path / name / "clicks.json")
        assert results[name] == task.result
    rows = (tmp_path / "a" / "clicks_objects.csv").read_text().splitlines()
    assert len(rows) == 1 + 3 * 2
    assert (tmp_path / "a" / "clicks.png").stat().st_size > 5000
    assert differences({"a": results["a"], "b": results["b"]}) == []
    assert differences(results) == ["padding"]
    table = noc_table(results)
    assert [row[0] for row in table.rows] == ["a", "b", "c"]
    assert "NoC@95" in table.header
    curve = results["a"].curves[0]
    older = replace(curve, noc={key: value for key, value in curve.noc.items() if key != "0.95"})
    before = {"older": replace(results["a"], curves=[older])}
    assert "NoC@95" not in noc_table(before).header
    assert noc_table(before | {"b": results["b"]}).rows[0][table.header.index("NoC@95")] == ""
    axes = overlay(results).axes
    assert [line.get_label() for line in axes[0].lines] == ["a", "b", "c"]


NO_WEIGHTS = (math.nan, math.inf, -1.0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"losses": {"dice": 1.0}}, "unknown loss 'dice'"),
        ({"losses": {"bce": 0.0}}, "must be positive"),
        ({"losses": {}}, "give a weight"),
        ({"protocol": "f-brs"}, "paper, ritm"),
        ({"max_clicks": 0}, "max_clicks"),
        ({"guidance": "ritm"}, "box_epochs must be 0"),
        ({"guidance": "sam"}, "guidance"),
        *(({name: value}, name) for name in ("max_clicks", "val_clicks") for value in (0, -1, 10**20, 2.5, True)),
        *(({name: value}, name) for name in ("extra_weight", "key_prior_precision") for value in NO_WEIGHTS),
        *(({"losses": {"bce": value}}, "bce") for value in NO_WEIGHTS),
        *(({"value_prior_precision_search": [1.0, value]}, "search") for value in NO_WEIGHTS),
        ({"protocol": "ritm", "zoom_size": -1}, "zoom_size"),
        ({"protocol": "ritm", "zoom_size": 10**20}, "zoom_size"),
        ({"settings": {}}, "at least one"),
    ],
)
def test_bad_arguments(options, said):
    with pytest.raises(az.InputError, match=said):
        tiny(**options)
    with pytest.raises(az.InputError, match="the least first"):
        Curriculum(positive=(3, 1))
    with pytest.raises(az.InputError, match="rounds"):
        Curriculum(rounds=-1)


def test_settings_say_how_keys_adapt():
    setting = Setting(key_adaptation=1, gauge="moments", centre=True)
    assert setting.plain() == {"key_adaptation": 1, "gauge": "moments", "centre": True, "adapt_in": "both"}
    task = tiny(head=corrective, settings={"matched": setting})
    layers = [layer for layer in task.model.modules() if isinstance(layer, az.mixers.Probabilistic)]
    with task.adaptation(task.settings["matched"]):
        assert {(layer.switches.adapt.gauge, layer.switches.adapt.centre) for layer in layers} == {("moments", True)}
    assert {(layer.switches.adapt.gauge, layer.switches.adapt.centre) for layer in layers} == {("trained", False)}


COUNTS = (-1, 10**20, 2.5, True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        *(({name: value}, name) for name in ("key_adaptation", "value_propagation") for value in COUNTS),
        *(({f"{what}_prior_precision": value}, what) for what in ("key", "value") for value in NO_WEIGHTS),
        ({"adapt_in": "neck"}, "backbone, both, head"),
        ({"gauge": "matched"}, "moments"),
        ({"centre": 1}, "centre"),
    ],
)
def test_settings_out_of_range(options, said):
    with pytest.raises(az.InputError, match=said):
        Setting(**options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        *(({name: value}, name) for name in ("box_epochs", "random_epochs", "rounds") for value in COUNTS),
        ({"positive": (0, 10**20)}, "positive"),
        ({"negative": (-1, 2)}, "negative"),
        ({"first": "nothing"}, "box, random"),
    ],
)
def test_curricula_out_of_range(options, said):
    with pytest.raises(az.InputError, match=said):
        Curriculum(**options)
