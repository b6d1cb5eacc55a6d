"""Batch normalisation over processes: a step of two is that of one with the same images."""

import torch
from torch import nn
from torch.testing import assert_close

from tasks import SyncBatchNorm
from tasks.sync_norm import ProcessBatchNorm
from tests import processes
from tests.tasks.one_step import save_step, train


def steps_of_two(path):
    """Parameters and running statistics after the step, as each of two processes has them."""
    ended = processes.run(save_step, path, ranks=2, cwd=path.parent)
    assert ended.code == 0, ended.err
    return [torch.load(f"{path}.{rank}") for rank in range(2)]


def test_a_step_of_two_processes_is_that_of_one(tmp_path):
    one = train(0, 1)
    assert any("running_var" in name for name in one)
    for found in steps_of_two(tmp_path / "two.pt"):
        assert_close(found, one, rtol=1e-5, atol=1e-5)


def test_layers_change_their_class_and_nothing_else():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4, affine=False)))
    x = torch.randn(5, 3, 6, 7)
    before, state = model.eval()(x), model.state_dict()
    weight = model[1].weight
    synced = SyncBatchNorm().apply(model)
    assert type(synced[1]) is ProcessBatchNorm and synced[1].weight is weight
    assert type(synced[2][0]) is nn.BatchNorm2d
    assert_close(synced(x), before)
    back = SyncBatchNorm().revert(synced)
    assert type(back[1]) is nn.BatchNorm2d
    assert_close(dict(back.state_dict()), dict(state))
