"""Attention of a checkpoint, or of a model that is built, against objects and fixations."""

import numpy as np
import pytest

from tests.datamodules.files import write_mit, write_voc


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
