"""Evaluation in several processes is exact, and bad files end a command with one line."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import SegmentationFolder
from tests import processes
from tests.datamodules.evaluate_in_processes import evaluate
from tests.datamodules.segmentation_files import write_pairs

SIZES = ((24, 32), (32, 24), (24, 32), (40, 40))


@pytest.fixture
def folder(tmp_path):
    write_pairs(tmp_path / "data", "train", 4)
    write_pairs(tmp_path / "data", "val", 9, SIZES)
    return tmp_path / "data"


@pytest.mark.parametrize("world", [2, 3, 7])
def test_the_processes_of_a_trainer_share_the_evaluation(folder, world):
    data = SegmentationFolder(str(folder), list("abcd"), image_size=24, batch_size=2, num_workers=0)
    data.setup("validate")
    counted, lengths = [], set()
    for rank in range(world):
        data.trainer = SimpleNamespace(world_size=world, global_rank=rank)
        batches = list(data.val_dataloader())
        lengths.add(len(batches))
        counted += [index for batch in batches for index in batch["index"].tolist() if index >= 0]
    assert len(lengths) == 1
    assert sorted(counted) == list(range(9))


def test_two_processes_see_every_sample_once(folder, tmp_path):
    ended = processes.run(evaluate, folder, tmp_path, ranks=2, cwd=tmp_path)
    assert ended.code == 0, ended.err
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    paths = sorted((folder / "annotations" / "val").iterdir())
    means = [torch.from_numpy(np.array(Image.open(path))).double().mean().item() for path in paths]
    assert sorted(pair for validated, _ in ranks for pair in validated) == [[i, mean] for i, mean in enumerate(means)]
    images = sorted((folder / "images" / "val").iterdir())
    assert sorted(pair for _, found in ranks for pair in found) == [[i, str(path)] for i, path in enumerate(images)]
    assert all(found and validated for found, validated in ranks)
