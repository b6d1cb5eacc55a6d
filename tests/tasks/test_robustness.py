import csv
import io
import json
from copy import deepcopy
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch.testing import assert_close

import attention_zoo as az
import tasks.classification
from attention_zoo.attacks import FGSM, PGD, Attack, Source, Square, Transfer
from attention_zoo.reports.robustness.comparison import cell_table, compare
from attention_zoo.results.robustness import RobustnessResult
from attention_zoo.runs import result_writer
from tasks import Robustness
from tasks.evaluations.robustness import AS_TRAINED
from tests.tasks.cells import CLASSES, DigitBenchmarks

SMALL = {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}


def task(seed=0, **args):
    torch.manual_seed(seed)
    args = {"model_args": SMALL, "mixer": az.MIXERS["DotProduct"], **args}
    built = Robustness(model="vit_tiny_patch16_224", num_classes=10, image_size=(8, 8), **args)
    for parameter in built.model.parameters():  # so that logits differ
        torch.nn.init.normal_(parameter, std=0.5)
    return built


def evaluate(built, data, **args):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(accelerator="cpu", devices=1, enable_checkpointing=False, **quiet, **args)
    trainer.test(built, datamodule=data, verbose=False)
    return built.result, trainer


@pytest.fixture(scope="module")
def evaluated():
    built = task(
        attacked_images=7,
        attacks={"fgsm": FGSM(), "pgd": PGD(), "strong": PGD("8/255", "2/255", 10)},
        variants={"same": az.MIXERS["Probabilistic"], "filter": az.MIXERS["Performer"]},
    )
    before = {name: value.clone() for name, value in built.state_dict().items()}
    data = DigitBenchmarks(images=20, batch_size=32)
    result, trainer = evaluate(built, data)
    return built, data, result, trainer, before


@pytest.fixture
def by_hand(evaluated):
    """Logits of the model itself, cell by cell."""
    built, data, *_ = evaluated
    batches = list(data.test_dataloader())
    image, label, cell = (torch.cat([batch[name] for batch in batches]) for name in ("image", "label", "cell"))
    with torch.no_grad():
        logits = built.model.eval()(image)
    return {place: (logits[cell == place], label[cell == place]) for place in range(len(data.cells))}


def test_every_cell_is_counted_by_itself(evaluated, by_hand):
    _, data, result, *_ = evaluated
    row = result.row(AS_TRAINED)
    counts = [row.counts["clean"][0], *row.counts["digits_c"]]
    for place, count in enumerate(counts):
        logits, label = by_hand[place]
        cell = data.cells[place]
        assert (count.total, count.corruption, count.severity) == (20, cell.corruption, cell.severity)
        assert count.correct == (logits.argmax(1) == label).sum()


def test_only_the_benchmarks_classes_compete(evaluated, by_hand):
    logits, label = by_hand[5]
    masked = torch.full_like(logits, -torch.inf)
    masked[:, CLASSES] = logits[:, CLASSES]
    (count,) = evaluated[2].row(AS_TRAINED).counts["some"]
    assert count.correct == (masked.argmax(1) == label).sum()
    assert count.total == len(label)
    assert not torch.isin(logits.argmax(1), torch.tensor(CLASSES)).all()


def test_attacks_are_of_an_even_part_of_the_clean_images(evaluated):
    built, data, result, *_ = evaluated
    batch = next(iter(data.test_dataloader()))
    chosen = torch.tensor([2, 5, 8, 11, 14, 17, 19])
    network = az.attacks.OnPixels(built.model, data.mean, data.std)
    pixels = data.splits["test"].images[chosen] / 255
    for name, attack in built.attacks.items():
        (count,) = result.row(AS_TRAINED).counts[name]
        attacked = attack(network, pixels, batch["label"][chosen], chosen)
        assert count.total == 7
        assert count.correct == (network(attacked).argmax(1) == batch["label"][chosen]).sum()
    columns = {column.name: column for column in result.columns}
    assert columns["strong"].title == "strong"
    assert columns["pgd"].protocol["images"] == 7
    assert columns["pgd"].protocol["source"] == "scikit-learn"
    assert columns["pgd"].protocol["eps"] == "1/255"


def test_variants_are_rows_and_leave_the_model_alone(evaluated):
    built, _, result, _, before = evaluated
    rows = {row.name: row.counts for row in result.rows}
    assert list(rows) == [AS_TRAINED, "same", "filter"]
    correct = {name: [cell.correct for cells in counts.values() for cell in cells] for name, counts in rows.items()}
    assert correct["same"] == correct[AS_TRAINED] != correct["filter"]
    for name, value in built.state_dict().items():
        assert_close(value, before[name], rtol=0, atol=0)


def test_a_variant_may_take_some_layers_alone(monkeypatch):
    seen = {}
    swapped = tasks.evaluations.robustness.swap_mixers

    def swap(model, *args, **kwargs):
        model = swapped(model, *args, **kwargs)
        seen[len(seen)] = [type(block.attn).__name__ for block in model.blocks]
        return model

    monkeypatch.setattr(tasks.evaluations.robustness, "swap_mixers", swap)
    twicing = az.MIXERS["Twicing"]
    built = task(attacks={}, variants={"all": twicing, "last": twicing}, variant_layers={"last": "last"})
    result, _ = evaluate(built, DigitBenchmarks(images=20, batch_size=32))
    assert list(seen.values()) == [["Twicing", "Twicing"], ["DotProduct", "Twicing"]]
    assert [row.name for row in result.rows] == [AS_TRAINED, "all", "last"]


def test_what_is_logged_is_the_table(evaluated):
    _, _, result, trainer, _ = evaluated
    logged = trainer.callback_metrics
    for row, scores in result.scores.items():
        for column in result.columns:
            value = logged[f"test/{column.name}" if row == AS_TRAINED else f"test/{row}/{column.name}"].item()
            assert value * (1 if column.corruptions else 100) == pytest.approx(scores[column.name])


def test_the_result_says_how_it_was_found(evaluated):
    facts = evaluated[2].facts
    assert facts["versions"]["torch"].startswith(torch.__version__.partition("+")[0])
    assert facts["versions"].keys() >= {"attention_zoo", "timm", "lightning"}
    assert (facts["num_classes"], facts["processes"], facts["precision"]) == (10, 1, "32-true")
    assert facts["normalisation"]["mean"] == list(evaluated[1].mean)


def test_the_batches_do_not_matter(evaluated):
    built, _, result, *_ = evaluated
    again, _ = evaluate(built, DigitBenchmarks(images=20, batch_size=7))
    assert [row.counts.keys() for row in again.rows] == [row.counts.keys() for row in result.rows]
    for one, other in zip(again.rows, result.rows, strict=True):
        for name in one.counts:
            for a, b in zip(one.counts[name], other.counts[name], strict=True):
                assert (a.correct, a.total) == (b.correct, b.total), name
                # rounding may turn the sign of a gradient that is nearly zero
                assert a.calibration == pytest.approx(b.calibration, abs=0.02 if name in built.attacks else 1e-5)


def test_a_part_of_the_data():
    data = {"images": 20, "batch_size": 10}
    with pytest.warns(UserWarning, match=r"^3 of \d+ batches were tested, as trainer.limit_test_batches says"):
        result, _ = evaluate(task(), DigitBenchmarks(**data), limit_test_batches=3)
    counts = result.row(AS_TRAINED).counts
    told = {name: (protocol["images"], protocol.get("part_of")) for name, protocol in result.protocol.items()}
    some = len([label for label in DigitBenchmarks(**data).load(["test"])["test"].columns["cell"] if label == 5])
    assert told == {"clean": (20, None), "fgsm": (20, None), "pgd": (20, None), "digits_c": (10, 80), "some": (0, some)}
    whole, _ = evaluate(task(), DigitBenchmarks(**data))
    with pytest.raises(az.InputError, match=r"different protocols: .*images is 80 in whole, 10 in part"):
        compare({"whole": whole, "part": result})
    notes = compare({"whole": whole, "part": result}, mixed=True).notes
    assert any("images 10, part_of 80" in note for note in notes)
    assert [cell.total for cell in counts["digits_c"]] == [10, 0, 0, 0]
    assert counts["some"][0].calibration is None
    assert result.scores[AS_TRAINED]["digits_c"] != result.scores[AS_TRAINED]["digits_c"]


@pytest.mark.parametrize("name", ["imagenet_c", "digits_c"])
def test_only_imagenet_c_has_a_reference(name):
    result, _ = evaluate(task(attacks={}), DigitBenchmarks(images=5, corrupted=name))
    column = result.columns[1]
    assert not column.normalised  # two severities of unknown corruptions
    assert "plain mean" in column.meaning


def test_released_weights_see_pixels_as_in_their_training(monkeypatch):
    build = tasks.classification.build_model
    monkeypatch.setattr(tasks.classification, "build_model", lambda *a, **b: build(*a, **{**b, "pretrained": False}))
    built = Robustness(num_classes=1000, pretrained=True, model_args={**SMALL, "depth": 1})
    assert built.released == {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    with pytest.raises(az.InputError, match="vit_tiny.* was trained on 1000 classes, the data have 10"):
        Robustness(num_classes=10, pretrained=True, model_args={**SMALL, "depth": 1})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"attacked_images": 0}, "attacked_images=0"),
        ({"variants": {AS_TRAINED: az.MIXERS["VarsD"]}}, "'as trained' is the model itself"),
        ({"variants": {"x": az.MIXERS["VarsD"]}, "variant_layers": {"y": "last"}}, "variant_layers 'y'.*x"),
        ({"variants": {"x": az.MIXERS["VarsD"]}, "variant_layers": {"x": "last-3"}}, "the model has layers 0-1"),
    ],
)
def test_bad_arguments(arguments, said):
    with pytest.raises(az.InputError, match=said):
        task(**arguments)


@pytest.mark.parametrize(
    ("arguments", "data", "trainer", "said"),
    [
        ({}, "Digits", {}, "needs data with benchmarks, which Digits has not"),
        ({"attacks": {"some": FGSM()}}, "DigitBenchmarks", {}, "'some' is a benchmark of the data"),
        ({}, "DigitBenchmarks", {"clean": False}, "attacks need the clean images"),
        ({}, "DigitBenchmarks", {"precision": "bf16-true"}, "precision=bf16-true: attacks differentiate in float32"),
    ],
)
def test_data_that_do_not_fit(arguments, data, trainer, said):
    import datamodules

    classes = {"Digits": datamodules.Digits, "DigitBenchmarks": DigitBenchmarks}
    own = {"clean": trainer.pop("clean")} if "clean" in trainer else {}
    with pytest.raises(az.InputError, match=said):
        evaluate(task(**arguments), classes[data](**own), **trainer)


def test_fitting_is_that_of_classification(evaluated):
    data = DigitBenchmarks(images=20, batch_size=64)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    brief = {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1}
    trainer = L.Trainer(accelerator="cpu", devices=1, enable_checkpointing=False, **brief, **quiet)
    trainer.fit(task(), datamodule=data)
    assert trainer.callback_metrics.keys() >= {"val/accuracy", "val/loss"}


def saturated():
    """The task with logits so large that the cross-entropy of the right ones has no gradient."""
    built = task(attacks={"fgsm": FGSM(), "dlr": FGSM("64/255", loss="dlr"), "plain": Plain()})
    with torch.no_grad():
        built.model.head.weight *= 1e6
    return built


class Plain(Attack):
    """Looks at no gradients, and may give its pixels alone."""

    def perturb(self, model, pixels, label, index):
        model(pixels)
        return (pixels + 1 / 255).clamp(0, 1)


def test_images_without_a_gradient_are_counted_and_told(tmp_path):
    built = saturated()
    with pytest.warns(UserWarning, match=r"FGSM, as trained: the loss has no gradient at \d+ of 20 images") as warned:
        result, _ = evaluate(built, DigitBenchmarks(images=20, batch_size=16))
    assert not [warning for warning in warned if "dlr, as trained" in str(warning.message)]
    counts = result.row(AS_TRAINED).counts
    (blind,), (margin,), (plain,), (clean,) = (counts[name] for name in ("fgsm", "dlr", "plain", "clean"))
    assert blind.no_gradient == blind.correct == clean.correct > 0
    assert (margin.no_gradient, plain.no_gradient, clean.no_gradient) == (0, None, None)
    assert margin.correct < blind.correct
    result.write_json(tmp_path / "robustness.json")
    again = RobustnessResult.read(tmp_path / "robustness.json")
    assert again.row(AS_TRAINED).counts == counts
    (note,) = [note for note in compare({"run": again}).notes if "no gradient" in note]
    assert note.startswith(f"FGSM, run: the loss has no gradient at {blind.no_gradient} of 20 images")
    rows = list(csv.DictReader(io.StringIO(cell_table({"run": again}).csv())))
    assert {row["no_gradient"] for row in rows if row["benchmark"] == "fgsm"} == {str(blind.no_gradient)}
    assert {row["no_gradient"] for row in rows if row["benchmark"] == "clean"} == {""}


def fit_head(model, batch):
    """Make a model of random features get most images of a batch right, by least squares."""
    head, model.head = model.head, torch.nn.Identity()
    with torch.no_grad():
        features = model.eval()(batch["image"])
        features = torch.cat((features, torch.ones(len(features), 1)), 1)
        solution = torch.linalg.lstsq(features, torch.eye(10)[batch["label"]]).solution
        head.weight.copy_(solution[:-1].T)
        head.bias.copy_(solution[-1])
    model.head = head


@pytest.fixture(scope="module")
def hidden():
    """A result of a model whose gradients are hidden by a rounding, and the data; two attacks do not follow them."""
    data = DigitBenchmarks(images=36, batch_size=36)
    transfer = Transfer("another.ckpt", PGD("16/255", "4/255", 10))
    attacks = {"square": Square("16/255", 30, images=8), "pgd": PGD("16/255", "4/255"), "transfer": transfer}
    attacks |= {"small": Square("1/255", 2), "fgsm": FGSM("16/255")}
    built = task(attacks=attacks, attacked_images=24)
    data.setup("test")
    fit_head(built.model, next(iter(data.test_dataloader())))
    source = az.attacks.OnPixels(deepcopy(built.model), data.mean, data.std)
    transfer.take(Source(source, "the same", data.class_names, data.image_size))
    built.model.patch_embed.register_forward_pre_hook(lambda _, inputs: ((inputs[0] * 64).round() / 64,))
    return evaluate(built, data)[0]


def test_attacks_in_a_ball_are_compared_image_by_image(hidden, tmp_path):
    row = hidden.row(AS_TRAINED)
    pairs = {pair.other: pair for pair in row.pairs}
    assert list(pairs) == ["square", "transfer", "fgsm"]  # not the one in a smaller ball
    assert {pair.reference for pair in row.pairs} == {"pgd"}
    assert [pair.images for pair in row.pairs] == [8, 24, 24]
    columns = {column.name: column for column in hidden.columns}
    assert [columns[name].protocol["images"] for name in ("square", "pgd", "small")] == [8, 24, 24]
    assert columns["transfer"].protocol["transferred_from"] == "the same"
    assert columns["transfer"].protocol["source"] == "scikit-learn"
    assert columns["transfer"].protocol["attack"] == "Transfer of PGD"
    (pgd,), (transfer,) = row.counts["pgd"], row.counts["transfer"]
    assert pairs["transfer"].only_other - pairs["transfer"].only_reference == pgd.correct - transfer.correct > 0
    hidden.write_json(tmp_path / "robustness.json")
    assert RobustnessResult.read(tmp_path / "robustness.json").row(AS_TRAINED) == row


def test_hidden_gradients_raise_an_alarm(hidden):
    table = compare({"run": hidden})
    assert table.header[-1] == "PGD minus the best of all ↓"
    assert table.rows[0][-1].endswith(" alarm")
    (note,) = [note for note in table.notes if "may be hidden" in note]
    assert note.startswith("PGD, run: Transfer lowers the accuracy by ")
    plain = compare({"run": hidden}, intervals=False)
    assert all(float(cell) >= 0 for cell in plain.rows[0][1:])


def test_a_source_must_fit():
    transfer = Transfer("other.ckpt")
    built = task(attacks={"transfer": transfer})
    data = DigitBenchmarks(images=20, batch_size=16)
    with pytest.raises(az.InputError, match="the source other.ckpt is not loaded"):
        evaluate(built, data)
    transfer.take(Source(built.model, "x", ["cat", "dog"], (8, 8)))
    with pytest.raises(az.InputError, match=r"other.ckpt is of other classes: 2 \(cat, dog\); those of the data: 10"):
        evaluate(built, data)
    transfer.take(Source(built.model, "x", data.class_names, (32, 32)))
    with pytest.raises(az.InputError, match=r"for images of 32 x 32 pixels; those of the data: 8 x 8"):
        evaluate(built, data)
    with pytest.raises(az.InputError, match="a transfer"):
        Transfer("one.ckpt", transfer)


def test_results_and_progress_of_before_know_nothing_of_gradients(tmp_path, evaluated):
    result = evaluated[2]
    result.write_json(tmp_path / "robustness.json")
    content = json.loads((tmp_path / "robustness.json").read_text())
    for cells in content["rows"][0]["counts"].values():
        for cell in cells:
            del cell["no_gradient"]
    (tmp_path / "robustness.json").write_text(json.dumps(content))
    old = RobustnessResult.read(tmp_path / "robustness.json")
    assert old.row(AS_TRAINED).counts["fgsm"][0].no_gradient is None
    assert old.scores == result.scores
    built = evaluated[0]
    progress = built.progress()
    older = {name: value for name, value in progress.items() if not {"no_gradient", "pair"} & {*name.split(".")}}
    assert len(older) < len(progress)
    built.go_on(older)
    assert built.progress().keys() == progress.keys()


def test_a_corrupted_image_that_is_not_finite_names_itself():
    built = task(attacks={})
    place = torch.tensor(25)  # in the first batch: an image of the first corruption
    built.model.register_forward_hook(lambda model, images, logits: logits.index_fill(0, place, torch.nan))
    with pytest.raises(az.InputError, match=r"logits \(as trained\) of 1 of 3[0-9] images .*nan at sample 5\)"):
        evaluate(built, DigitBenchmarks(images=20, batch_size=32))


def test_a_running_attack_speaks_in_the_progress_bar(monkeypatch):
    monkeypatch.setattr(result_writer, "REPORT_SECONDS", -1.0)
    said = []
    monkeypatch.setattr(result_writer, "describe", lambda trainer, words: said.append(words))
    writer = result_writer.Narrator()
    built = task(attacks={"fgsm": FGSM()})
    trainer = SimpleNamespace(datamodule=None, progress_bar_callback=object())
    writer.on_test_batch_start(trainer, built, None, 0)
    FGSM().run(built.model, torch.rand(2, 3, 8, 8), torch.tensor([0, 1]), report=built.report)
    assert said == ["FGSM: pass 1 over 2 images"]


def test_without_a_progress_bar_a_slow_attack_prints_lines(monkeypatch):
    monkeypatch.setattr(result_writer, "LOG_SECONDS", -1.0)
    said = []
    monkeypatch.setattr(result_writer, "rank_zero_info", said.append)
    built = task(attacks={"square": Square(queries=1)})
    loop = SimpleNamespace(batch_progress=SimpleNamespace(current=SimpleNamespace(ready=2)))
    trainer = SimpleNamespace(progress_bar_callback=None, test_loop=loop, num_test_batches=[5])
    result_writer.Narrator().on_test_batch_start(trainer, built, None, 1)
    Square(queries=1).run(built.model, torch.rand(1, 3, 8, 8), torch.tensor([0]), report=built.report)
    assert said[0] == "batch 2 of 5: Square: pass 1 of 2 over 1 images"
