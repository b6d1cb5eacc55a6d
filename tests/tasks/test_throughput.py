"""Images per second: which batches count, and that compiling is no part of them."""

from types import SimpleNamespace

import lightning as L
import pytest
import torch
from torch import nn

from tasks.throughput import Throughput
from tests.tasks.test_classification import fit, loader, task


@pytest.fixture
def rate(monkeypatch):
    """The rate that is logged after batches, each of so many images and seconds; None if there is none."""
    now = [0.0]
    monkeypatch.setattr("tasks.throughput.time.perf_counter", lambda: now[0])

    def run(callback, *batches):
        logged = []
        callback.start("test")
        for images, seconds in batches:
            now[0] += seconds
            callback.count("test", {"image": torch.zeros(images, 3), "index": torch.arange(images)})
        now[0] += 1000  # what comes after the last batch
        module = SimpleNamespace(device="cpu", log=lambda name, value, **options: logged.append(float(value)))
        trainer = SimpleNamespace(strategy=SimpleNamespace(reduce=lambda value, reduce_op: value))
        callback.finish("test", trainer, module)
        return logged[0] if logged else None

    return run


def test_all_batches_count(rate):
    assert rate(Throughput(), (8, 90.0), (8, 1.0), (4, 9.0)) == pytest.approx(0.2)


def test_of_a_compiled_model_the_batches_of_new_sizes_do_not(rate):
    compiled = Throughput(compiled=True)
    assert rate(compiled, (8, 90.0), (8, 1.0), (8, 1.0), (4, 70.0)) == pytest.approx(8)
    assert rate(compiled, (8, 1.0), (8, 1.0), (4, 1.0)) == pytest.approx(20 / 3)


def test_where_nothing_is_left_nothing_is_logged(rate):
    assert rate(Throughput(compiled=True), (8, 90.0), (4, 70.0)) is None


def test_what_pads_a_batch_does_not_count():
    callback = Throughput()
    callback.start("test")
    callback.count("test", {"image": torch.zeros(3, 3), "index": torch.tensor([0, 1, -1])})
    assert int(callback._images["test"]) == 2


@pytest.mark.parametrize("stage", ["fit", "test"])
def test_compiling_is_no_part_of_a_speed(stage, monkeypatch):
    compiling = nn.Module.compile
    now = [0.0]

    def tick():
        now[0] += 1
        return now[0]

    def backend(graph, example):
        now[0] += 1000
        return graph.forward

    monkeypatch.setattr(nn.Module, "compile", lambda module: compiling(module, backend=backend))
    monkeypatch.setattr("tasks.throughput.time.perf_counter", tick)
    torch.compiler.reset()
    module = task(compile=True)
    if stage == "fit":
        run = fit(module, 1)
        assert now[0] > 1000 and run.callback_metrics["train/images_per_second"] > 1
    else:
        quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
        run = L.Trainer(accelerator="cpu", devices=1, **quiet)
        run.test(module, loader(), verbose=False)
        assert now[0] > 1000 and run.callback_metrics["test/images_per_second"] > 1
