"""Two processes on one machine (gloo), against one."""

import csv

import pytest

TWO = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]


@pytest.fixture(scope="module")
def fitted(process, tiny, tmp_path_factory):
    """A run whose first process starts the second."""
    folder = tmp_path_factory.mktemp("ddp")
    ended = process("fit", "--config", tiny, "--model.mixer", "VarsD", *TWO, cwd=folder)
    assert ended.code == 0, ended.err
    assert ended.out.count("a step: 2 processes x 64 images = 128 images; the learning rate is that of the config") == 1
    return folder


def test_a_fit_of_two_processes_is_one_run(fitted, log):
    (run,) = (fitted / "runs").iterdir()
    assert run.name.startswith("VarsD-Digits-")
    assert len(list(run.rglob("config.yaml"))) == 1
    assert [(line["epoch"], line["step"]) for line in log(run)] == [(0, 3), (1, 6)]


def test_a_test_gives_the_same_as_one_process(fitted, process, call, log):
    (run,) = (fitted / "runs").iterdir()
    path = run / "checkpoints/last.ckpt"
    ended = process("test", "--ckpt_path", path, *TWO, ranks=2, cwd=fitted)  # 359 images: one process gets one more
    assert ended.code == 0, ended.err
    assert call("test", "--ckpt_path", path, "--trainer.accelerator", "cpu", "--trainer.devices", "1") == 0
    two, one = (line["metrics"] for line in log(run)[-2:])
    for name in ("test/accuracy", "test/accuracy_top5"):
        assert two[name] == one[name]
    assert two["test/loss"] == pytest.approx(one["test/loss"], abs=1e-6)


def test_predictions_of_two_processes_are_complete_and_in_order(fitted, process, images):
    (run,) = (fitted / "runs").iterdir()
    argv = ["--ckpt_path", run / "checkpoints/last.ckpt", "--data.predict_dir", images]
    ended = process("predict", *argv, *TWO, ranks=2, cwd=fitted)
    assert ended.code == 0, ended.err
    with (fitted / "predictions.csv").open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == [str(path) for path in sorted(images.rglob("*.png"))]


@pytest.mark.slow  # each waits for the other process
@pytest.mark.parametrize("place", [0, 1])
def test_an_error_of_either_process_ends_both_with_one_line(fitted, process, images, place):
    (run,) = (fitted / "runs").iterdir()
    broken = sorted(images.rglob("*.png"))[place]  # process 0 reads the first image, process 1 the second
    broken.write_bytes(broken.read_bytes()[:60])
    argv = ["--ckpt_path", run / "checkpoints/last.ckpt", "--data.predict_dir", images]
    argv += ["--prediction.path", f"x{place}.csv"]
    ended = process("predict", *argv, *TWO, cwd=fitted)
    assert ended.code == 2
    assert [line for line in ended.err.splitlines() if "error" in line.lower()] == [ended.err.splitlines()[-1]]
    assert broken.name in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err
    assert not (fitted / f"x{place}.csv").exists()
