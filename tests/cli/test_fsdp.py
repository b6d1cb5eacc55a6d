"""configs/machines/fsdp.yaml in two processes without a GPU: the weights that copies of the model get."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

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


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["shards", "copies"])
def test_a_broken_training_goes_on_in_shards_as_if_it_were_not(process, tiny, tmp_path, machine):
    """Also from a checkpoint of copies of the model, up to rounding."""
    steady = ["--model.scheduler", "ConstantLR", "--model.scheduler.factor", "1.0", "--trainer.max_epochs", "2"]
    start = ["fit", "--config", tiny, *steady]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    ended = process(*start, *SHARDED, "--trainer.default_root_dir", whole, ranks=2, cwd=tmp_path)
    assert ended.code == 0, ended.err
    first = SHARDED if machine == "shards" else [*TWO, "--trainer.strategy", "ddp"]
    cut = ["--trainer.max_steps", "4", "--trainer.default_root_dir", broken]
    ended = process(*start, *first, *cut, ranks=2, cwd=tmp_path)
    assert ended.code == 0, ended.err
    again = ["fit", "--ckpt_path", broken, *SHARDED, "--trainer.max_steps", "-1"]
    ended = process(*again, ranks=2, cwd=tmp_path)
    assert ended.code == 0, ended.err
    close = {"rtol": 0, "atol": 0} if machine == "shards" else {"rtol": 1e-4, "atol": 1e-5}
    assert_close(weights(broken), weights(whole), **close)


@pytest.mark.slow
def test_an_optimizer_without_state_goes_on_too_and_a_test_needs_none(process, tiny, tmp_path):
    folder = ["--trainer.default_root_dir", tmp_path / "run"]
    plain = ["--model.optimizer", "SGD", "--model.optimizer.lr", "0.1", "--trainer.max_epochs", "1"]
    for argv in (
        ["fit", "--config", tiny, *SHARDED, *plain, *folder],
        ["fit", "--ckpt_path", tmp_path / "run", *SHARDED, "--trainer.max_epochs", "2"],
        ["test", "--ckpt_path", tmp_path / "run", *SHARDED],
    ):
        ended = process(*argv, ranks=2, cwd=tmp_path)
        assert ended.code == 0, ended.err


@pytest.mark.slow
def test_averages_of_shards_are_refused(process, tiny, tmp_path):
    averaged = ["--trainer.callbacks+", "EMAWeightAveraging"]
    ended = process("fit", "--config", tiny, *SHARDED, *averaged, ranks=2, cwd=tmp_path)
    assert ended.code == 2 and "Traceback" not in ended.err
    assert "error: trainer.callbacks: EMAWeightAveraging copies the model, and shards have no copies" in ended.err
