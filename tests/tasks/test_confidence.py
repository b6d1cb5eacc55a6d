"""What a classifier's confidence is worth: AURC, AUROC and FPR95 as columns of the robustness evaluation."""

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import attention_zoo as az
from attention_zoo.errors import InputError
from attention_zoo.reports.robustness.comparison import compare
from attention_zoo.results.confidence import aurc, detection
from attention_zoo.results.robustness import RobustnessResult
from datamodules import ImageNetRobustness
from tasks import Robustness
from tasks.evaluations.robustness import AS_TRAINED
from tests.datamodules.files import SYNSETS, write_images
from tests.tasks.cells import DigitBenchmarks
from tests.tasks.test_robustness import evaluate, task


def test_aurc_by_hand():
    right = np.array([True, False, True, False])
    assert aurc(np.array([0.9, 0.8, 0.7, 0.6]), right) == pytest.approx(100 * (0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)
    assert aurc(np.array([0.6, 0.9, 0.7, 0.8]), right) == pytest.approx(100 * (1 + 1 + 2 / 3 + 2 / 4) / 4)
    assert aurc(np.full(4, 0.5), right) == pytest.approx(50)  # of one confidence, whatever their order
    assert aurc(np.random.default_rng(0).random(9), np.ones(9, bool)) == 0


def test_aurc_of_ties_is_the_mean_over_their_orders():
    generator = np.random.default_rng(0)
    confidence, right = generator.integers(0, 4, 30) / 4, generator.random(30) < 0.6
    orders = [aurc(confidence + 1e-6 * generator.random(30), right) for _ in range(3000)]
    assert aurc(confidence, right) == pytest.approx(np.mean(orders), abs=0.2)


def test_detection_by_hand():
    clean, other = np.linspace(0.41, 1, 60), np.linspace(0.005, 0.5, 100)
    found = detection("ood", "textures", clean, other)
    assert (found.benchmark, found.title, found.images) == ("ood", "textures", 100)
    assert found.auroc == pytest.approx(100 * roc_auc_score([1] * 60 + [0] * 100, [*clean, *other]))
    least = np.sort(clean)[3]  # 57 of 60 have at least that
    assert found.fpr95 == pytest.approx(100 * np.mean(other >= least))
    assert detection("ood", "ood", clean, clean).auroc == pytest.approx(50)


@pytest.fixture(scope="module")
def evaluated():
    data = DigitBenchmarks(images=30, batch_size=32)
    built = task(attacks={}, outliers=["some"], variants={"filter": az.MIXERS["Performer"]})
    return built, data, evaluate(built, data)[0]


def test_columns(evaluated):
    built, data, result = evaluated
    batches = list(data.test_dataloader())
    image, label, cell = (torch.cat([batch[name] for batch in batches]) for name in ("image", "label", "cell"))
    with torch.no_grad():
        confidence, answer = built.model.eval()(image).double().softmax(1).max(1)
    clean, other = (confidence[cell == place].numpy() for place in (0, 5))
    found = result.row(AS_TRAINED).confidence
    assert found.aurc == pytest.approx(aurc(clean, (answer == label)[cell == 0].numpy()), abs=1e-4)
    expected = detection("some", "some digits", clean, other)
    (told,) = found.detections
    assert (told.benchmark, told.title, told.images) == ("some", "some digits", len(other))
    assert (told.auroc, told.fpr95) == pytest.approx((expected.auroc, expected.fpr95), abs=1e-3)
    assert result.row("filter").confidence.aurc != found.aurc
    table = compare({"model": result})
    assert table.header[-3:] == ("AURC ↓", "some digits AUROC ↑", "some digits FPR95 ↓")
    assert table.rows[0][-3] == f"{found.aurc:.2f}"
    assert any(note.startswith("confidence, the probability") for note in table.notes)


def test_it_is_written_and_read(evaluated, tmp_path):
    result = evaluated[2]
    result.write(tmp_path)
    assert RobustnessResult.read(tmp_path / "robustness.json").rows == result.rows
    content = json.loads((tmp_path / "robustness.json").read_text())
    for change, said in (
        ({"aurc": 200}, "aurc must be a number from 0 to 100"),
        ({"detections": [{}]}, "a detection must have auroc, benchmark"),
        ({"more": 1}, "confidence must have aurc and detections"),
    ):
        broken = json.loads(json.dumps(content))
        broken["rows"][0]["confidence"].update(change)
        (tmp_path / "broken.json").write_text(json.dumps(broken))
        with pytest.raises(InputError, match=said):
            RobustnessResult.read(tmp_path / "broken.json")


def test_it_goes_on(evaluated):
    built, data, result = evaluated
    progress = built.progress()
    other = task(attacks={}, outliers=["some"], variants={"filter": az.MIXERS["Performer"]})
    other.confidences, other.tallies = (
        type(built.confidences)(data.cells, [AS_TRAINED, "filter"], ["some"]),
        built.tallies,
    )
    other.go_on(progress)
    assert other.confidences.of(AS_TRAINED) == result.row(AS_TRAINED).confidence


@pytest.mark.parametrize("batches", [1, 2])
def test_what_a_part_of_a_test_did_not_see_has_no_numbers(tmp_path, batches):
    data = DigitBenchmarks(images=2, batch_size=1, num_workers=0)
    result, _ = evaluate(task(attacks={}, outliers=["some"]), data, limit_test_batches=batches)
    (row,) = result.rows
    assert row.confidence.detections == () and 0 <= row.confidence.aurc <= 100
    result.write(tmp_path)
    assert RobustnessResult.read(tmp_path / "robustness.json").rows == result.rows


def test_nothing_unless_asked_for():
    result, _ = evaluate(task(attacks={}), DigitBenchmarks(images=5, batch_size=32))
    assert result.row(AS_TRAINED).confidence is None
    assert not any("AU" in heading for heading in compare({"model": result}).header)
    result, _ = evaluate(task(attacks={}, outliers=[]), DigitBenchmarks(images=5, batch_size=32))
    assert result.row(AS_TRAINED).confidence.detections == ()


@pytest.mark.parametrize(
    ("outliers", "said"),
    [
        (["textures"], "unknown benchmark without corruptions in outliers: 'textures'"),
        (["clean"], "none of them clean"),
    ],
)
def test_bad_outliers(outliers, said):
    with pytest.raises(InputError, match=said):
        evaluate(task(attacks={}, outliers=outliers), DigitBenchmarks(images=5, batch_size=32))


def test_images_without_labels_are_no_column(tmp_path):
    write_images(tmp_path / "val", SYNSETS, 2, (12, 12))
    write_images(tmp_path / "textures", ["banded", "woven"], 3, (12, 12))
    roots = {"val": str(tmp_path / "val"), "ood": str(tmp_path / "textures")}
    data = ImageNetRobustness(**roots, image_size=8, batch_size=5, num_workers=0)
    model = {"model": "vit_tiny_patch16_224", "num_classes": 1000, "image_size": (8, 8)}
    small = {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
    result, _ = evaluate(Robustness(**model, model_args=small, attacks={}, outliers=["ood"]), data)
    assert [column.name for column in result.columns] == ["clean"]
    (found,) = result.row(AS_TRAINED).confidence.detections
    assert (found.benchmark, found.title, found.images) == ("ood", "textures", 6)
