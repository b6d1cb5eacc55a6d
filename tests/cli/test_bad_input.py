"""Whatever is wrong with the input ends in one line that names it, exit code 2, and nothing written."""

import pytest
import torch

from attention_zoo.cli.errors import DEBUG

ARGUMENTS = {
    "unknown mixer": (
        ["--model.mixer", "VarD"],
        ["model.mixer", "unknown mixer 'VarD'", "did you mean 'VarsD'?", "DotProduct", "Performer", "Probabilistic"],
    ),
    "unknown mixer of a layer": (["--model.layer_mixers.0", "nope"], ["model.layer_mixers", "'nope'", "VarsD"]),
    "wrong mixer argument": (
        ["--model.mixer", "VarsD", "--model.mixer.stepz", "5"],
        ["model.mixer", "'stepz'", "did you mean 'steps'?", "choose from: feature_ratio, lam, steps"],
    ),
    "host's argument": (["--model.mixer", "VarsD", "--model.mixer.num_heads", "5"], ["'num_heads'", "lam"]),
    "argument of a mixer without": (["--model.mixer", "DotProduct", "--model.mixer.steps", "5"], ["'steps'"]),
    "mixer argument without mixer": (["--model.mixer.steps", "5"], ["name the class before", "VarsD"]),
    "wrong type": (
        ["--model.mixer", "VarsD", "--model.mixer.steps", "two"],
        ["mixer.steps: expected int or null, got 'two'"],
    ),
    "value a mixer refuses": (["--model.mixer", "VarsD", "--model.mixer.steps", "-1"], ["VarsD: steps=-1"]),
    "no mixer at all": (["--model.mixer", "torch.nn.Linear"], ["torch.nn.Linear", "SelfMixer", "VarsD"]),
    "module that does not exist": (["--model.mixer", "foo.Bar"], ["No module named 'foo'"]),
    "mixer file missing": (["--model.mixer", "./nope.yaml"], ["no such file", "nope.yaml"]),
    "config missing": (["--config", "nope.yaml"], ["config nope.yaml does not exist"]),
    "config is a folder": (["--config", "."], ["is a folder"]),
    "unknown key": (["--trainer.max_epoch", "3"], ["'trainer.max_epoch'", "did you mean 'trainer.max_epochs'"]),
    "abbreviated key": (["--trainer.max_epoc=3"], ["'trainer.max_epoc'", "'trainer.max_epochs'"]),
    "unknown top key": (["--modell", "3"], ["'modell'", "did you mean 'model'?"]),
    "unknown key of the task": (["--model.mixr", "VarsD"], ["'mixr'", "did you mean 'mixer'?"]),
    "unknown key of the data": (["--data.batchsize", "3"], ["'batchsize'", "did you mean 'batch_size'?"]),
    "unknown task": (["--model", "Clasification"], ["unknown task", "did you mean 'Classification'?"]),
    "unknown data": (["--data", "Digit"], ["unknown data 'Digit'", "did you mean 'Digits'?", "CIFAR10", "ImageFolder"]),
    "unknown optimizer": (["--model.optimizer", "AdamV"], ["unknown optimizer 'AdamV'", "'Adam'"]),
    "no folder": (["--trainer.default_root_dir", ""], ["trainer.default_root_dir= must name a folder"]),
    "unknown callback": (["--trainer.callbacks+=EarlyStoping"], ["unknown callback", "'EarlyStopping'"]),
    "value the trainer refuses": (
        ["--trainer.accelerator", "abacus"],
        ["trainer.accelerator", "abacus", "cuda", "gpu"],
    ),
    "all devices of a CPU": (
        ["--trainer.accelerator", "cpu", "--trainer.devices", "-1"],
        ["trainer.devices: of CPU devices give auto or a number from 1; -1 (all) and lists are for GPUs"],
    ),
    "no number of devices": (["--trainer.devices", "-2"], ["trainer.devices=-2 must be auto, -1 (all GPUs), a number"]),
    "value the data refuse": (["--data.batch_size", "0"], ["batch_size must be at least 1"]),
    "unknown timm model": (["--model.model", "vit_nano"], ["vit_nano"]),
    "value that comes from the data": (["--model.num_classes", "3"], ["model.num_classes comes from the data"]),
    "stray word": (["VarsD"], ["stray argument 'VarsD'"]),
    "value missing": (["--model.mixer"], ["expected one argument"]),
    "data folder missing": (["--data", "ImageFolder", "--data.root", "nowhere"], ["nowhere"]),
    "no batch to train on": (
        ["--trainer.limit_train_batches", "0"],
        ["trainer.limit_train_batches=0 leaves nothing to"],
    ),
    "no batch to train on again": (
        ["--trainer.limit_train_batches", "0.0"],
        ["trainer.limit_train_batches=0.0 leaves"],
    ),
    "metric to watch": (["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/akk"], ["val/akk"]),
}

if not torch.cuda.is_available():
    ARGUMENTS["no GPU"] = (["--trainer.accelerator", "gpu"], ["trainer.accelerator gpu", "choose cpu, or auto"])
    ARGUMENTS["no CUDA"] = (["--trainer.accelerator", "cuda"], ["trainer.accelerator", "no CUDA here", "'auto', 'cpu'"])

CONFIGS = {
    "no YAML": ("model: {class_path: [\n  x: : 3", ["bad.yaml", "line 2"]),
    "a word": ("hello", ["bad.yaml", "holds no keys"]),
    "empty": ("", ["bad.yaml", "holds no keys"]),
    "unknown key": ("trainer: {max_epoch: 3}", ["'trainer.max_epoch'", "'trainer.max_epochs'"]),
    "unknown key of the mixer": (
        "model: {init_args: {mixer: {class_path: VarsD, init_args: {stepz: 3}}}}",
        ["model.mixer", "'stepz'", "did you mean 'steps'?"],
    ),
    "unknown mixer": ("model: {init_args: {mixer: nope}}", ["model.mixer: unknown mixer 'nope'", "Performer"]),
    "unknown mixer of a layer": ("model: {init_args: {layer_mixers: {last: Vars}}}", ["'Vars'", "'VarsS'"]),
    "unknown task": ("model: {class_path: Clasification}", ["unknown task", "'Classification'"]),
    "wrong type": ("trainer: {max_epochs: many}", ["trainer.max_epochs: expected int or null, got 'many'"]),
}


def one_line(ended, words):
    assert ended.code == 2
    lines = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert ended.err.endswith(lines[0] + "\n")
    assert "Traceback" not in ended.err
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments(zoo, tiny, tmp_path, case):
    argv, words = ARGUMENTS[case]
    one_line(zoo("fit", "--config", tiny, *argv), words)
    assert not list(tmp_path.rglob("config.yaml")) or case == "metric to watch"


@pytest.mark.parametrize(("command", "limit"), [("validate", "val"), ("test", "test"), ("predict", "predict")])
@pytest.mark.parametrize("none", ["0", "0.0"])
def test_no_batch_at_all(zoo, run_folder, tmp_path, images, command, limit, none):
    argv = ["--ckpt_path", run_folder / "checkpoints/last.ckpt", "--data.predict_dir", images]
    ended = zoo(command, *argv, f"--trainer.limit_{limit}_batches", none)
    one_line(ended, [f"trainer.limit_{limit}_batches={none} leaves nothing to {command}"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("case", CONFIGS)
def test_configs(zoo, tiny, tmp_path, case):
    text, words = CONFIGS[case]
    (tmp_path / "bad.yaml").write_text(text)
    one_line(zoo("fit", "--config", tiny, "--config", "bad.yaml"), words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.yaml"]


def test_neither_model_nor_data(zoo):
    one_line(zoo("fit"), ["--data and --model"])


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--model.mixer", "nope"], ["unknown mixer 'nope'"]),
        (["--model.mixer", "VarsD", "--model.mixer.steps", "-1"], ["VarsD: steps=-1"]),
    ],
)
def test_stderr_is_that_line_alone(process, tiny, tmp_path, argv, words):
    ended = process("fit", "--config", tiny, *argv, cwd=tmp_path)
    one_line(ended, words)
    assert len(ended.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_debugging_brings_the_traceback_back(process, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv(DEBUG, "true")
    ended = process("fit", "--config", tiny, "--model.mixer", "VarsD", "--model.mixer.steps", "-1", cwd=tmp_path)
    assert ended.code == 1 and "Traceback (most recent call last)" in ended.err
    assert "must not be negative" in ended.err.splitlines()[-1]


def test_no_command_is_debugged_in_the_process_of_the_tests(call, monkeypatch):
    monkeypatch.setenv(DEBUG, "true")
    with pytest.raises(AssertionError, match="a process of its own"):
        call("mixers")


def test_bugs_keep_their_traceback(zoo, tiny, monkeypatch):
    import tasks

    def broken(self, batch, batch_idx):
        raise ValueError("a bug")

    monkeypatch.setattr(tasks.Classification, "training_step", broken)
    with pytest.raises(ValueError, match="a bug"):
        zoo("fit", "--config", tiny)


def test_bugs_in_constructors_come_out_as_they_are(zoo, tiny, monkeypatch):
    import datamodules

    def broken(self, *args, **kwargs):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(datamodules.ImageDataModule, "__init__", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        zoo("fit", "--config", tiny)


@pytest.mark.parametrize("workers", [0, 1])
def test_truncated_image(zoo, run_folder, tmp_path, images, workers):
    broken = sorted(images.rglob("*.png"))[3]
    broken.write_bytes(broken.read_bytes()[:60])
    options = ["--ckpt_path", run_folder / "checkpoints/last.ckpt", "--data.num_workers", workers]
    ended = zoo("predict", *options, "--data.predict_dir", images)
    one_line(ended, [broken.name])
    assert "GPU available" in ended.out and "GPU available" not in ended.err
    assert not (tmp_path / "predictions.csv").exists()
