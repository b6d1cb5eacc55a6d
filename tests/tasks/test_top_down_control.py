"""Control by priors: what its numbers are where the right answer is known, and that nothing of a test is lost."""

import json
import math

import lightning as L
import numpy as np
import pytest
import timm
import torch
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.evaluation import Evaluated, Resumable, read_results, result_kinds
from attention_zoo.mixers.registry import MIXERS
from attention_zoo.results.top_down_control import ControlScores
from datamodules import Digits, TwoObjects
from datamodules.base import ImageDataModule
from datamodules.images import Split
from tasks import TopDownControl
from tasks.evaluations.top_down_control import absent_class, mass_on
from tasks.metrics.control import ControlRecords, intervals

SMALL = {"patch_size": 2, "embed_dim": 16, "depth": 2, "num_heads": 2, "class_token": False, "global_pool": "avg"}


class Colours(ImageDataModule):
    """Images of one colour, of which each has a channel of its own."""

    IMAGE_SIZE, MEAN, STD = 4, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    class_names = ["red", "green", "blue"]

    def default_augment(self):
        return []

    def load(self, parts):
        labels = torch.arange(12) % 3
        images = 255 * torch.eye(3, dtype=torch.uint8)[labels]
        return {part: Split(images[..., None, None].expand(-1, -1, 4, 4), {"label": labels}) for part in parts}


def control(mode="absvit", pool="avg", **options):
    """A fresh task for two digits."""
    torch.manual_seed(0)
    pooling = {} if pool == "avg" else {"class_token": True, "global_pool": "token"}
    args = {**SMALL, **pooling, "top_down": {"mode": mode}}
    return TopDownControl(
        model="absvit_tiny_patch16_224", num_classes=10, image_size=(8, 16), model_args=args, **options
    )


def known(mode, image_size=(4, 8), **options):
    """A task whose model has the colour of a patch as its token, and knows the colours."""
    args = {"patch_size": 2, "embed_dim": 3, "depth": 1, "num_heads": 1, "class_token": False, "global_pool": "avg"}
    task = TopDownControl(
        model="absvit_tiny_patch16_224",
        num_classes=3,
        image_size=image_size,
        model_args={**args, "fc_norm": False, "final_norm": False, "top_down": {"mode": mode}},
        **options,
    )
    vit = task.model.model
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.zero_()
        vit.patch_embed.proj.weight.copy_(torch.eye(3)[..., None, None].expand(-1, -1, 2, 2) / 4)
        vit.blocks[0].norm1.weight.fill_(1)
        attention = vit.blocks[0].attn
        attention.qkv.weight.copy_(torch.cat([100 * torch.eye(3), 100 * torch.eye(3), torch.eye(3)]))
        attention.proj.weight.copy_(torch.eye(3))
        vit.head.weight.copy_(torch.eye(3))
        if hasattr(task.model, "decoders"):
            for decoder in task.model.decoders:
                decoder.linear.weight.copy_(torch.eye(3))
                decoder.linear2.weight.copy_(torch.eye(3))
    return task


def run(task, data, **trainer):
    with torch.random.fork_rng():
        L.Trainer(
            accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, **trainer
        ).test(task, datamodule=data, verbose=False)
    return task.result


def two(pairs=12, **options):
    return TwoObjects(pairs=pairs, batch_size=5, num_workers=0, **options)


class TestKnownAnswers:
    @pytest.mark.parametrize(("layout", "size"), [("beside", (4, 8)), ("above", (8, 4))])
    def test_all_mass_and_every_answer_follow_the_prior(self, layout, size):
        task = known("perceiver_io", size, alphas=[1, 10])
        task.model.model.blocks[0].attn.proj.weight.detach().zero_()
        scores = run(task, two(images=Colours(), layout=layout)).scores
        for alpha in (1, 10):
            for name, value in {"switch_rate": 1, "follow_rate": 1, "mass_ratio": 1, "top1": 1}.items():
                assert scores[f"perceiver_io/{alpha}/prototype/{name}"] == value
            assert scores[f"perceiver_io/{alpha}/prototype/margin_shift"] == pytest.approx(alpha)  # half of 1 a side
        for name, value in {"switch_rate": 0, "margin_shift": 0, "mass_ratio": 0.5}.items():
            assert scores[f"plain/-/none/{name}"] == value

    @pytest.mark.parametrize("mode", ["absvit", "qkv", "mask_att"])
    def test_the_signal_of_the_second_pass_follows_too(self, mode):
        task = known(mode, alphas=[1000])
        scores = run(task, two(images=Colours())).scores
        prefix = f"{mode}/-/prototype" if mode == "mask_att" else f"{mode}/1000/prototype"
        assert scores[f"{prefix}/switch_rate"] == 1
        assert scores[f"{prefix}/mass_ratio"] > (0.55 if mode == "mask_att" else 0.99)

    def test_a_model_that_looks_does_not_say_what_is_not_there(self):
        task = known("perceiver_io", alphas=[1])
        task.model.model.blocks[0].attn.proj.weight.detach().zero_()
        task.model.model.head.bias.data[2] = -0.1  # of the classes that are not there, none is first by its number
        scores = run(task, two(images=Colours(), classes=["red", "green"])).scores
        assert scores["perceiver_io/1/absent/top1"] == 0
        assert [name for name in scores if "/absent/" in name] == ["perceiver_io/1/absent/top1"]
        task.model.model.head.bias.data[2] = 9.0
        assert run(task, two(images=Colours(), classes=["red", "green"])).scores["perceiver_io/1/absent/top1"] == 1

    def test_absent_classes_are_neither_and_take_turns(self):
        labels = torch.tensor([[a, b] for a in range(5) for b in range(5) if a != b]).repeat(3, 1)
        for index in (torch.arange(60), torch.zeros(60, dtype=torch.int64), torch.full((60,), 2)):
            absent = absent_class(labels, index, 5)
            assert ((absent[:, None] != labels).all(1) & (absent >= 0) & (absent < 5)).all()
        assert absent_class(torch.tensor([[1, 3]]).expand(6, 2), torch.arange(6), 5).tolist() == [0, 2, 4, 0, 2, 4]

    def test_masks_are_weighed_by_the_part_of_a_token_that_they_cover(self):
        maps = torch.zeros(2, 3, 1, 2)
        maps[0, :, 0, 0], maps[0, :, 0, 1] = 2, 1
        masks = torch.zeros(2, 2, 2, 4, dtype=torch.bool)
        masks[:, 0, :, :2], masks[:, 1, 0, 2:] = True, True
        assert_close(mass_on(maps, masks)[0], torch.tensor([2 / 3, 1 / 6], dtype=torch.float64))
        assert mass_on(maps, masks)[1].isnan().all()  # all tokens are 0


class TestRows:
    def test_each_mode_alpha_and_prior(self):
        names = [str(setting) for setting in control(alphas=[1, 2.5]).settings]
        priors = ("query", "prototype", "absent")
        assert names == ["plain/-/none", *(f"absvit/{a}/{p}" for a in ("1", "2.5") for p in priors)]
        names = [str(setting) for setting in control(modes=["feedback", "mask_att"], alphas=[3]).settings]
        assert names == ["plain/-/none", "feedback/3/none", *(f"mask_att/-/{prior}" for prior in priors)]
        assert [str(setting) for setting in control("feedback", alphas=[3]).settings][1:] == ["feedback/3/none"]

    def test_without_signal_every_answer_is_that_of_the_first_pass(self):
        task = control(alphas=[1])
        with torch.no_grad():
            for decoder in task.model.decoders:
                decoder.linear.weight.zero_()
        scores = run(task, two()).scores
        for name in ("switch_rate", "follow_rate", "margin_shift", "mass_ratio", "top1"):
            assert len({value for key, value in scores.items() if key.endswith(name) and "absent" not in key}) == 1
        assert scores["absvit/1/prototype/margin_shift"] == 0
        assert scores["absvit/1/prototype/follow_rate"] == 0.5

    def test_the_same_as_asking_the_model_itself(self):
        task, data = control(alphas=[30]), two()
        result = run(task, data)
        model, shifts, both = task.model.eval(), [], 0
        model.alpha = 30
        for batch in data.test_dataloader():
            (a, b), rows = batch["labels"].T, torch.arange(len(batch["labels"]))
            with torch.no_grad():
                margins = [
                    logits[rows, a] - logits[rows, b]
                    for logits in (model(batch["image"], model.class_prior(asked)) for asked in (a, b))
                ]
            shifts.append(margins[0] - margins[1])
            both += int(((margins[0] > 0) & (margins[1] < 0)).sum())
        assert result.scores["absvit/30/prototype/margin_shift"] == pytest.approx(
            float(torch.cat(shifts).mean()), abs=1e-5
        )
        assert result.scores["absvit/30/prototype/switch_rate"] == pytest.approx(both / 12)

    def test_the_first_pass_runs_once(self):
        task, calls = control(alphas=[1, 2]), []
        task.model.model.blocks[0].register_forward_hook(lambda *_: calls.append(1))
        task.model.model.blocks[0].attn.register_forward_hook(lambda *_: calls.append(2))
        run(task, TwoObjects(pairs=4, batch_size=4))
        assert calls.count(2) == 1 + 2 * 4  # the first pass; for each alpha the query, A, B and C

    def test_metrics_have_the_same_names_whatever_the_mode(self):
        for mode in ("absvit", "feedback", "mask_att"):
            task = control(mode, alphas=[1, 10])
            names = [name for setting in task.settings for name in task._logged_as(setting) if name[:2] != "qu"]
            assert [name for name in names if "absent" not in name] == ["plain", "at_1", "at_10"]
        task = control(modes=["absvit", "mask_att"], alphas=[1])
        names = [name for setting in task.settings for name in task._logged_as(setting)]
        own = ["query_at_1", "at_1", "absent_at_1"]
        assert names == ["plain", *own, *(f"mask_att_{name}" for name in own)]

    def test_notes(self):
        notes = run(control(pool="token", modes=["absvit", "feedback"], alphas=[1]), two()).notes
        assert len(notes) == 3
        assert "the classifier reads the class token" in notes[0]
        assert "the weights were trained as absvit, not as feedback" in notes[1]
        assert run(control(alphas=[1]), two()).notes == []

    def test_mass_is_no_number_where_there_is_none(self):
        task = control("perceiver_io", alphas=[1])
        with torch.no_grad():
            task.model.model.blocks[-1].mlp.fc2.bias.fill_(-1e6)  # no token looks like a prototype
            task.model.model.head.weight.abs_()
        result = run(task, two())
        assert "perceiver_io/1/prototype/mass_ratio" not in result.scores
        assert "perceiver_io/1/prototype/switch_rate" in result.scores
        assert any("12 pairs have no mass ratio" in note for note in result.notes)

    def test_weights_that_are_not_finite_are_no_score(self):
        task = control(alphas=[1])
        with torch.no_grad():
            task.model.model.head.weight[0, 0] = math.nan
        with pytest.raises(az.InputError, match="finite"):
            run(task, two())

    def test_mass_is_left_out_where_it_is_not_wanted(self):
        result = run(control(alphas=[1], mass=False), two())
        assert not [name for name in result.scores if name.endswith("mass_ratio")]
        assert all(math.isfinite(value) for value in result.scores.values())


class TestIntervals:
    def test_cover_the_mean_as_often_as_they_say(self):
        draw, inside = np.random.default_rng(0), 0
        for seed in range(100):
            low, high = intervals({"x": draw.normal(size=60)}, np.arange(60), seed)["x"][1:]
            inside += low < 0 < high
        assert 86 <= inside <= 100

    def test_are_over_groups(self):
        values = np.repeat(np.random.default_rng(0).normal(size=50), 20)
        alone = intervals({"x": values}, np.arange(1000))["x"]
        together = intervals({"x": values}, np.repeat(np.arange(50), 20))["x"]
        assert alone.mean == pytest.approx(together.mean)
        assert together.high - together.low > 3 * (alone.high - alone.low)

    def test_nothing_that_is_no_number(self):
        found = intervals({"x": np.array([1.0, np.nan]), "y": np.full(2, np.nan)}, np.array([7, 9]))
        assert found == {"x": (1.0, 1.0, 1.0)}
        assert intervals({"y": np.full(0, np.nan)}, np.zeros(0, dtype=int)) == {}


class TestProcesses:
    def test_records_of_several_add_up(self):
        whole = run(control(alphas=[2]), two()).scores
        parts = []
        for rank in range(2):
            data = two()
            data.processes = lambda rank=rank: (2, rank)
            task = control(alphas=[2])
            run(task, data)
            parts.append(task.records)
        both = ControlRecords(12, 4)
        both.update(torch.arange(12), torch.arange(12))
        for name in ("answers", "group", "counted"):
            setattr(both, name, sum(getattr(part, name) for part in parts))
        assert both.counted.tolist() == [1] * 12
        named = {
            f"{s}/{name}": v.mean
            for s, found in zip(task.settings, both.compute(), strict=True)
            for name, v in found.items()
        }
        assert named == pytest.approx(whole, rel=1e-5, abs=1e-6)

    def test_are_gathered(self):
        whole = run(control(alphas=[2]), two())
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
        try:
            result = run(control(alphas=[2]), two())
        finally:
            torch.distributed.destroy_process_group()
        assert result.scores == whole.scores and result.facts["pairs"] == 12

    def test_goes_on(self):
        result, task = run(control(alphas=[2]), two()), control(alphas=[2])
        whole = result.scores
        assert isinstance(task, Resumable)
        part = run(task, two(), limit_test_batches=1)
        assert (part.protocol["pairs"], part.protocol["part_of"]) == (5, 12) and "part_of" not in result.protocol
        assert "part_of is not said in whole, 12 in part" in ControlScores.differences({"whole": result, "part": part})
        progress, data, again = task.progress(), two(), control(alphas=[2])
        data.tested = int(progress["seen"])
        again.on_test_start = lambda: again.go_on(progress)
        assert run(again, data).scores == whole


class TestResult:
    def test_written_read_and_compared(self, tmp_path):
        result = run(control(alphas=[1]), two()).of(Evaluated("absvit", "DotProduct", "random", None, {}))
        result.write(tmp_path / "one")
        again = ControlScores.read(tmp_path / "one" / "top_down_control.json")
        assert again.scores == result.scores
        assert {name: tuple(ends) for name, ends in again.intervals.items()} == result.intervals
        assert ControlScores in result_kinds()
        run(control("mask_att"), two()).write(tmp_path / "two")
        results = read_results(ControlScores, [tmp_path / "one", tmp_path / "two"])
        table = ControlScores.compare(results)
        assert table.header == (
            *("model", "mode", "alpha", "prior", "switch rate ↑", "follow rate ↑"),
            *("margin shift ↑", "mass ratio ↑", "top1 ↑"),
        )
        assert [row[1:4] for row in table.rows] == [
            ("plain", "-", "none"), *(("absvit", "1", prior) for prior in ("query", "prototype", "absent")),
            ("plain", "-", "none"), *(("mask_att", "-", prior) for prior in ("query", "prototype", "absent")),
        ]  # fmt: skip
        ControlScores.write_comparison(tmp_path / "both", results, table)
        assert (tmp_path / "both" / "top_down_control.md").is_file()

    def test_of_other_pairs_are_not_compared(self):
        results = {"one": run(control(alphas=[1]), two()), "two": run(control(alphas=[1]), two(seed=1))}
        with pytest.raises(az.InputError, match="different protocols: seed is 0 in one, 1 in two"):
            ControlScores.compare(results)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"intervals": {}}, "intervals must be a mapping with the names of the scores"),
            ({"scores": {"a": 1.0}, "intervals": {"a": [0, 1]}}, "must be named mode/alpha/prior/score"),
            ({"intervals": {"a/1/b/c": [0]}}, "must be two finite numbers"),
        ],
    )
    def test_files_that_are_none(self, tmp_path, change, message):
        result = ControlScores({"a/1/b/c": 0.5}, {}, intervals={"a/1/b/c": (0, 1)})
        result.write(tmp_path)
        file = tmp_path / "top_down_control.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
        with pytest.raises(az.InputError, match=message):
            ControlScores.read(file)


def test_a_checkpoint_of_smaller_images(tmp_path):
    small = timm.create_model("absvit_tiny_patch16_224", img_size=8, num_classes=10, **SMALL)
    weights = {f"model.{name}": tensor for name, tensor in small.state_dict().items()}
    task, checkpoint = control(), {"state_dict": dict(weights)}
    task.on_load_checkpoint(checkpoint)
    left = task.load_state_dict(checkpoint["state_dict"])
    assert not left.missing_keys and not left.unexpected_keys
    assert task.model.model.pos_embed.shape == (1, 32, 16)
    assert_close(task.model.decoders[0].linear.weight, small.decoders[0].linear.weight)


@pytest.mark.parametrize("mixer", ["Sparsifier", "GlobalFilter", "Primal", "Agent"])
def test_a_checkpoint_of_mixers_of_another_grid(mixer):
    def weights(**size):
        model = timm.create_model("absvit_tiny_patch16_224", num_classes=10, mixer=MIXERS[mixer], **{**SMALL, **size})
        return {"state_dict": {f"model.{name}": tensor for name, tensor in model.state_dict().items()}}

    task = control(mixer=MIXERS[mixer])
    with pytest.raises(az.InputError, match=f"{mixer} has weights for each place of the grid.*squeeze: true"):
        task.on_load_checkpoint(weights(img_size=8))
    task.on_load_checkpoint(weights(img_size=(8, 8), embed_dim=32))  # another model, which loading says


class TestRefusals:
    @pytest.mark.parametrize(
        ("build", "message"),
        [
            (
                lambda: TopDownControl(model="vit_tiny_patch16_224"),
                "a model with a top-down pass; vit_tiny_patch16_224 has none: train it with --model.top_down absvit",
            ),
            (lambda: control(modes=["absvitt"]), "did you mean 'absvit'|must be one of|absvit"),
            (lambda: control("mask_att", modes=["qkv"]), "mode='qkv' needs the feedback path"),
            (lambda: control(alphas=[]), "alphas=.* must be different, and at least one"),
            (lambda: control(alphas=[1, 1]), "must be different"),
            (lambda: control(alphas=[0]), "must be a list of which each must be above 0"),
            (lambda: control(layer=2), "layer=2 must be below 2, the number of layers"),
        ],
    )
    def test_arguments(self, build, message):
        with pytest.raises(az.InputError, match=message):
            build()

    def test_data_without_two_objects(self):
        with pytest.raises(
            az.InputError, match="needs pictures of two objects, such as TwoObjects has; Digits has none"
        ):
            run(control(), Digits(image_size=(8, 16)))

    def test_pairs_without_masks(self, monkeypatch):
        data = two()
        split = data.load_test()
        columns = {name: values for name, values in split.columns.items() if name != "masks"}
        monkeypatch.setattr(data, "load_test", lambda: Split(split.images, columns))
        with pytest.raises(az.InputError, match="mass ratio needs masks.*TwoObjects has not; without it: mass: false"):
            run(control(), data)
        assert run(control(alphas=[1], mass=False), data).scores

    def test_weights_that_give_no_number(self):
        task = control(alphas=[1])
        with torch.no_grad():
            task.model.model.head.bias[0] = 3e38
            task.model.model.head.weight[0] = 3e38
        with pytest.raises(az.InputError, match="logits of 5 of 5 images are not finite"):
            run(task, two())


@pytest.mark.parametrize("mixer", ["DotProduct", "VarsSD", "Probabilistic"])
def test_any_host_and_mixer_under_top_down(mixer):
    torch.manual_seed(0)
    small = {"embed_dims": (12, 24), "depths": (1, 1), "num_heads": (2, 4)}
    task = TopDownControl(
        model="rvt_tiny",
        num_classes=10,
        image_size=(16, 32),
        model_args=small,
        top_down="absvit",
        mixer=MIXERS[mixer],
        alphas=[1],
        layer=0,
    )
    scores = run(task, two(pairs=4, images=Digits(image_size=16))).scores
    assert scores["absvit/1/prototype/mass_ratio"] == pytest.approx(0.5, abs=0.1)
    assert math.isfinite(scores["absvit/1/prototype/margin_shift"])
