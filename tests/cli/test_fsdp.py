"""configs/machines/fsdp.yaml in two processes without a GPU: the weights that copies of the model get."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from attention_zoo.errors import InputError
from tasks.sharding import FullySharded

CONFIG = Path(__file__).parents[2] / "configs" / "machines" / "fsdp.yaml"
TWO = ["--trainer.accelerator", "cpu", "--trainer.devices", "2"]
SHARDED = ["--config", CONFIG, *TWO, "--trainer.precision", "32-true"]


@pytest.fixture(scope="module")
def fitted(process, tiny, tmp_path_factory):
    """Runs of the same training, by copies of the model and by shards, and the options of each."""
    folder = tmp_path_factory.mktemp("fsdp")
    for name, machine in (("copies", [*TWO, "--trainer.strategy", "ddp"]), ("shards", SHARDED)):
        argv = ["--model.mixer", "VarsD", *machine, "--trainer.default_root_dir", folder / name]
        ended = process("fit", "--config", tiny, *argv, ranks=2, cwd=folder)
        assert ended.code == 0, ended.err
    return folder


def weights(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]


@pytest.mark.slow
def test_shards_train_as_copies_do_and_leave_a_whole_checkpoint(fitted):
    copies, shards = weights(fitted / "copies"), weights(fitted / "shards")
    assert all(type(tensor) is torch.Tensor for tensor in shards.values())
    assert_close(shards, copies, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_one_process_tests_it_as_any_other(fitted, call, log):
    found = []
    for name in ("copies", "shards"):
        argv = ["--trainer.accelerator", "cpu", "--trainer.devices", "1", "--trainer.strategy", "auto"]
        assert call("test", "--ckpt_path", fitted / name / "checkpoints" / "last.ckpt", *argv) == 0
        found.append(log(fitted / name)[-1]["metrics"])
    assert found[0]["test/accuracy"] == found[1]["test/accuracy"]
    assert found[0]["test/loss"] == pytest.approx(found[1]["test/loss"], rel=1e-4)


@pytest.mark.slow
def test_tasks_that_enter_parts_of_their_model_are_refused(process, tmp_path):
    argv = ["--data", "Shapes", "--data.scenes", "[4,2,2]", "--data.image_size", "32", "--data.num_workers", "0"]
    ended = process("fit", "--model", "SemanticSegmentation", *argv, *SHARDED, ranks=2, cwd=tmp_path)
    assert ended.code == 2
    assert "error: trainer.strategy: SemanticSegmentation cannot shard its model" in ended.err


def test_another_number_of_processes_than_there_are_is_refused(process, tiny, tmp_path):
    argv = [*SHARDED, "--trainer.strategy.processes", "8"]
    ended = process("fit", "--config", tiny, *argv, ranks=2, cwd=tmp_path)
    assert ended.code == 2 and "Traceback" not in ended.err
    assert "error: trainer.strategy.processes=8 differs from trainer.devices x trainer.num_nodes" in ended.err


def test_no_checkpoint_is_loaded_into_shards():
    with pytest.raises(
        InputError, match="checkpoint a.ckpt cannot be loaded into a sharded model: give --trainer.strat"
    ):
        FullySharded(2).load_checkpoint("a.ckpt")
