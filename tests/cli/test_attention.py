"""Attention of a checkpoint, or of a model that is built, against objects and fixations."""

import numpy as np
import pytest

from attention_zoo.results.saliency import SaliencyScores
from tests.datamodules.files import write_mit, write_osie, write_voc


@pytest.mark.parametrize("mixer", ["VarsD", "GlobalFilter"])
def test_on_the_command_line(run_folder, tiny, zoo, log, tmp_path, mixer):
    voc, mit = write_voc(tmp_path), write_mit(tmp_path)
    given = ["--config", tiny, "--model.mixer", mixer] if mixer != "VarsD" else []
    checkpoint = ["--ckpt_path", run_folder / "checkpoints/last.ckpt"] if mixer == "VarsD" else []
    common = ["--data.image_size", "8", "--data.num_classes", "10", "--data.batch_size", "2"]
    common += ["--data.num_workers", "0", "--trainer.default_root_dir", tmp_path / "out"]
    for task, data, root in (("AttentionSegmentation", "VOCForeground", voc), ("AttentionSaliency", "MIT1003", mit)):
        ended = zoo("test", *given, *checkpoint, "--model", task, "--data", data, "--data.root", root, *common)
        assert ended.code == 0, ended.err
    first, second = (line["metrics"] for line in log(tmp_path / "out"))
    assert first.keys() >= {"test/iou", "test/false_positives", "test/false_negatives"}
    assert 0 <= first["test/iou"] <= 100
    assert np.isfinite(second["test/nss"])


def test_readings_and_layers_beside_the_centre(tiny, zoo, tmp_path):
    osie, out = write_osie(tmp_path), tmp_path / "out"
    data = ["--data", "OSIE", "--data.root", osie, "--data.image_size", "8", "--data.num_classes", "10"]
    data += ["--data.batch_size", "2", "--data.num_workers", "0", "--trainer.default_root_dir", out]
    readings = '{"adapted": {"class_path": "Probabilistic", "init_args": {"key_adaptation": 1}}, "same": "DotProduct"}'
    model = ["--config", tiny, "--model", "AttentionSaliency", "--model.mixer", "DotProduct", "--model.layer", "0-1"]
    model += ["--model.model_args.depth", "2"]
    ended = zoo("test", *model, "--model.readings", readings, *data)
    assert ended.code == 0, ended.err
    assert "nss ↑" in ended.out and "other images" in ended.out
    found = SaliencyScores.read(out / "saliency.json")
    rows = {name.rpartition("/")[0] for name in found.scores}
    looking = {f"{reading}/{layer}" for reading in ("as trained", "adapted", "same") for layer in (0, 1)}
    assert rows == looking | {"other images/-", "Gaussian/-"}
    assert {name.rpartition("/")[2] for name in found.scores} == {"nss", "auc_judd", "cc", "sim", "kl"}
    for name, score in found.scores.items():
        low, high = found.intervals[name]
        assert low <= score + 1e-9 and score <= high + 1e-9
    for name, (difference, low, high) in found.over_centre.items():
        score = name.rpartition("/")[2]
        assert difference == pytest.approx(found.scores[name] - found.scores[f"other images/-/{score}"])
        assert low - 1e-9 <= difference <= high + 1e-9
    assert {name.rpartition("/")[0] for name in found.over_centre} == looking
    same = [ends for name, ends in found.over_trained.items() if name.startswith("same/")]
    assert len(same) == 10 and np.allclose(same, 0, atol=1e-6)
    adapted = [ends[0] for name, ends in found.over_trained.items() if name.startswith("adapted/")]
    assert len(adapted) == 10 and np.abs(adapted).max() > 1e-6
    assert found.protocol["images"] == 2

    for wrong, said in (
        (["--model.readings", '{"as trained": "DotProduct"}'], "readings: 'as trained' is taken or has a slash"),
        (["--data", "Digits"], "AttentionSaliency needs data on gaze, such as OSIE; Digits has none"),
    ):
        ended = zoo("test", *model, *(data if wrong[0] != "--data" else ["--data.batch_size", "2"]), *wrong)
        assert ended.code == 2 and said in ended.err


def test_one_image_has_no_interval(tiny, zoo, tmp_path):
    data = [
        "--data",
        "MIT1003",
        "--data.root",
        write_mit(tmp_path),
        "--data.image_size",
        "8",
        "--data.num_classes",
        "10",
    ]
    data += ["--data.batch_size", "1", "--data.num_workers", "0", "--trainer.limit_test_batches", "1"]
    ended = zoo("test", "--config", tiny, "--model", "AttentionSaliency", "--trainer.default_root_dir", "out", *data)
    assert ended.code == 2
    assert "intervals over images need two or more; give a larger trainer.limit_test_batches" in ended.err
