"""What other libraries say of the machine's limits and of the input is one line; what they say of bugs stays."""

import re
from pathlib import Path

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch._inductor.exc import InvalidCxxCompiler, TritonMissing

from attention_zoo import InputError, MixerFactory
from attention_zoo.cli import parser as parsing
from attention_zoo.cli.compat import importing_only
from attention_zoo.cli.errors import DENIED, KEYS, VALUES
from attention_zoo.sayings import SAYINGS, bad_input, in_our_words, not_restored, one_line, other_model
from tests import processes
from tests.killed_loader import main_whose_loader_dies

SAID = {
    "memory of Python": (MemoryError(), "out of memory"),
    "memory of torch": (
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        "out of memory",
    ),
    "memory of C++": (RuntimeError("std::bad_alloc"), "out of memory"),
    "memory of a GPU": (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory"),
    "memory for a process": (OSError(12, "Cannot allocate memory"), "out of memory"),
    "a worker killed": (
        RuntimeError("DataLoader worker (pid 77) is killed by signal: Killed. "),
        "(77) was killed, Killed",
    ),
    "a worker gone": (RuntimeError("DataLoader worker (pid(s) 77, 78) exited unexpectedly"), "(77, 78) ended before"),
    "no compiler": (InvalidCxxCompiler("g++-0"), "model.compile true needs a compiler of C++"),
    "no Triton": (TritonMissing(None), "model.compile true needs a compiler of C++"),
    "shared memory": (
        RuntimeError("unable to open shared memory object </torch_7_1> in read-write mode: Too many"),
        "shared memory",
    ),
    "shared memory full": (RuntimeError("unable to write to file </torch_77_1>"), "shared memory"),
    "threads": (RuntimeError("can't start new thread"), "no further thread"),
    "one value a channel": (
        ValueError("Expected more than 1 value per channel when training, got input size torch.Size([1, 16, 1, 1])"),
        "one value per channel (size torch.Size([1, 16, 1, 1]))",
    ),
    "a disk full": (OSError(28, "No space left on device"), "no space left"),
    "devices": (
        TypeError("`devices` selected with `CPUAccelerator` should be an int > 0."),
        "trainer.devices: of CPU devices give auto or a number from 1; -1 (all) and lists are for GPUs",
    ),
    "no GPU": (MisconfigurationException("No supported gpu backend found!"), "trainer.accelerator gpu: there is no"),
    "no such accelerator here": (
        MisconfigurationException(
            "`CUDAAccelerator` can not run on your system since the accelerator is not available. The following "
            "accelerator(s) is available and can be passed into `accelerator` argument of `Trainer`: ['cpu']."
        ),
        "trainer.accelerator: there is no CUDA here; choose from: 'auto', 'cpu'",
    ),
    "no such accelerator": (
        ValueError("You selected an invalid accelerator name: `accelerator='gpux'`. Available names are: auto, cpu."),
        "trainer.accelerator: unknown accelerator 'gpux'; choose from: auto, cpu, gpu",
    ),
    "fewer GPUs": (
        MisconfigurationException("You requested gpu: [0, 1]\n But your machine only has: [0]"),
        "trainer.devices: GPUs [0, 1] were asked for, and this machine has [0]",
    ),
    "validations too rare": (
        ValueError(
            " `val_check_interval` (1000) must be less than or equal to the number of the training batches (6). "
        ),
        "trainer.val_check_interval=1000 is more than the 6 batches of an epoch: give at most 6",
    ),
    "an optimizer that unscales": (
        RuntimeError("The current optimizer, AdamW, does not allow for gradient clipping because it performs"),
        "trainer.gradient_clip_val: AdamW with fused true",
    ),
    "two that accumulate": (
        ValueError(
            "You have set `accumulate_grad_batches` and are using the `GradientAccumulationScheduler` callback. "
        ),
        "trainer.accumulate_grad_batches and the callback GradientAccumulationScheduler set the same",
    ),
    "a strategy that accumulates alike": (
        RuntimeError("The `DeepSpeedStrategy` does not support `accumulate_grad_batches` changing between epochs."),
        "under DeepSpeedStrategy no GradientAccumulationScheduler",
    ),
    "a package": (
        ModuleNotFoundError(
            "Requirement 'torch_xla>=1.13' not met. HINT: Try running `pip install -U 'torch_xla>=1.13'`"
        ),
        "an option of the trainer needs torch_xla>=1.13, which is not installed",
    ),
    "two callbacks alike": (
        RuntimeError("Found more than one stateful callback of type `ModelCheckpoint`. In the current"),
        "two ModelCheckpoint",
    ),
    "a metric to watch": (
        RuntimeError("Early stopping conditioned on metric `x` which is not available."),
        "Early stopping conditioned on metric `x` which is not available.",
    ),
    "open files": (OSError(24, "Too many open files"), "too many open files"),
    "a name": (UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "surrogates not allowed"), "not UTF-8"),
}


class Part:
    """A class of an option."""

    def __init__(self, size: int = 1, deep: dict[str, int] | None = None) -> None:
        self.size = size


PARSED = {
    "no such class": (VALUES, 0, ["--mixer=Nope"], "unknown mixer 'Nope'"),
    "options without a class": (VALUES, 1, ["--mixer.size=1"], "name the class before its options; choose from: "),
    "a file that is not there": (VALUES, 2, ["--mixer=./nope.yaml"], "no such file: ./nope.yaml"),
    "a class that is no mixer": (VALUES, 3, ["--mixer=torch.nn.Linear"], "torch.nn.Linear"),
    "an option that does not exist": (KEYS, 0, [f"--part={__name__}.Part", "--part.sise=1"], "did you mean 'size'?"),
    "a key that does not exist": (KEYS, 1, ["--numer=1"], "did you mean 'number'?"),
    "a stray word": (KEYS, 2, ["word"], "stray argument 'word'; options start with --"),
    "a key that is missing": (KEYS, 3, [], "missing: give --needed, or a --config that has them"),
    "a value that looks like an option": (KEYS, 4, ["--number", "-x"], "is given as --KEY=VALUE"),
}
"""What jsonargparse is given, the row of the table that fits what it says of it, and the line."""


@pytest.mark.parametrize("case", PARSED)
def test_what_jsonargparse_says(case, monkeypatch):
    table, row, argv, line = PARSED[case]
    seen = []
    for function in ("reason", "about_keys"):
        stock = getattr(parsing, function)
        monkeypatch.setattr(parsing, function, lambda *given, stock=stock: (seen.append(given[0]), stock(*given))[1])
    parser = parsing.ZooParser()
    parser.add_argument("--mixer", type=MixerFactory | None)
    parser.add_subclass_arguments(Part, "part")
    parser.add_argument("--number", type=int)
    parser.add_argument("--needed", type=int, required=case == "a key that is missing")
    with pytest.raises(InputError) as refused:
        parser.parse_args(argv)
    assert line in str(refused.value)
    first = [next((place for place, each in enumerate(table) if each.pattern.search(said)), None) for said in seen]
    assert row in first, seen


@pytest.mark.parametrize(
    ("value", "line"), [("x", "number: expected int, got 'x'"), ("[1]", "number: expected int, got")]
)
def test_a_value_of_another_type(value, line):
    parser = parsing.ZooParser()
    parser.add_argument("--number", type=int)
    with pytest.raises(InputError, match=re.escape(line)):
        parser.parse_args(["--number", value])


def test_an_import_that_is_refused():
    parser = parsing.ZooParser(exit_on_error=False)
    parser.add_subclass_arguments(Part, "part")
    with importing_only(["torch"]), pytest.raises(parsing.Refusal) as refused:
        parser.parse_object({"part": {"class_path": f"{__name__}.Part"}})
    said, error = [], refused.value
    while error is not None:
        said.append(str(error))
        error = error.__cause__ or error.__context__
    assert any(DENIED.search(text) and DENIED.search(text)[1] == f"{__name__}.Part" for text in said)


def test_weights_of_another_model():
    model = torch.nn.Linear(2, 1)
    with pytest.raises(RuntimeError) as refused:
        model.load_state_dict({"weight": torch.zeros(1, 3), "more": torch.zeros(1)})
    line = other_model(refused.value, Path("x.ckpt"))
    assert line.startswith("checkpoint x.ckpt is of another model than this Linear: ")
    assert "weight is 1, 3 in the file, 1, 2 in the model" in line.replace("[", "").replace("]", "")
    assert "bias" in line and "more" in line


def test_what_a_loader_process_says():
    class Broken(torch.utils.data.Dataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            raise InputError("broken.png is no image")

    with pytest.raises(InputError) as refused:
        next(iter(torch.utils.data.DataLoader(Broken(), num_workers=1)))
    assert one_line(str(refused.value)) == "broken.png is no image"


BUGS = [
    RuntimeError("shapes cannot be multiplied"),
    ValueError("a bug"),
    KeyError("x"),
    UnicodeEncodeError("ascii", "ä", 0, 1, "ordinal not in range"),
]


@pytest.mark.parametrize("case", SAID)
def test_a_line_for_each(case):
    error, line = SAID[case]
    assert line in bad_input(error)
    assert "{" not in bad_input(error) and "\n" not in bad_input(error)


def test_every_saying_is_tested():
    said = {in_our_words(error) for error, _ in SAID.values()}
    assert len(said) >= len({saying.line for saying in SAYINGS})
    assert all(
        any(s.pattern.search(str(error)) and isinstance(error, s.kinds) for error, _ in SAID.values()) for s in SAYINGS
    )


@pytest.mark.parametrize("bug", BUGS, ids=repr)
def test_bugs_have_none(bug):
    assert bad_input(bug) is None
    assert not_restored(bug, None) is None


def test_what_mlflow_refuses_is_one_line():
    refused = type("MlflowException", (Exception,), {})("The filesystem backend\nis in maintenance mode.")
    assert bad_input(refused) == "MLflow: The filesystem backend is in maintenance mode."


def test_a_name_that_is_no_utf8_can_be_said():
    assert one_line("no file a\udcff.png") == "no file a\\udcff.png"


def fit(zoo, tiny, *argv):
    ended = zoo("fit", "--config", tiny, "--trainer.default_root_dir", "run", "--trainer.max_epochs", "1", *argv)
    errors = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in ended.err
    return ended.code, errors[0] if errors else ""


def test_a_killed_loader_worker(tiny, tmp_path):
    """In a process of its own: torch raises wherever Python is, also where it holds the lock of all logging.

    Where Python can only say so and go on ("Exception ignored"), torch's next look at its loader raises again.
    """
    options = ["--trainer.max_epochs", "1", "--data.num_workers", "1"]
    ended = processes.run(main_whose_loader_dies, ["fit", "--config", tiny, *options], cwd=tmp_path)
    last = ended.err.splitlines()[-1]
    assert ended.code == 2 and last.startswith("error: a loader process"), ended.err
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_no_memory_in_training(zoo, tiny, tmp_path, monkeypatch, error):
    import tasks

    def full(self, batch, batch_idx):
        raise error

    monkeypatch.setattr(tasks.Classification, "training_step", full)
    code, line = fit(zoo, tiny)
    assert code == 2 and "out of memory" in line


def test_one_image_a_batch_under_batch_normalisation(zoo, tmp_path):
    argv = ["--model", "SemanticSegmentation", "--data", "Shapes", "--data.batch_size", "1", "--data.image_size", "32"]
    head = ["--model.decode_head", "{type: UPerHead, channels: 8}", "--model.out_indices", "[0, 1, 2, 3]"]
    options = ["--model.model_args", "{patch_size: 8, embed_dim: 24, depth: 4, num_heads: 2}"]
    quiet = ["--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu", "--trainer.max_epochs", "1"]
    ended = zoo("fit", *argv, *head, *options, *quiet, "--trainer.default_root_dir", "run")
    assert ended.code == 2 and "Traceback" not in ended.err
    assert "one value there" in ended.err and "two images or more a batch" in ended.err


def test_names_that_are_no_utf8(zoo, tiny, tmp_path):
    import os

    name = os.fsdecode(b"run\xff")
    ended = zoo("fit", "--config", tiny, "--trainer.default_root_dir", name, "--trainer.max_epochs", "1")
    assert "Traceback" not in ended.err
    if ended.code == 0:
        assert (tmp_path / name / "checkpoints/last.ckpt").is_file()
        assert zoo("test", "--ckpt_path", tmp_path / name / "checkpoints/last.ckpt").code == 0
    else:
        assert ended.code == 2 and "UTF-8" in ended.err
        assert not list(tmp_path.rglob("*.ckpt"))
    ended = zoo("fit", "--config", os.fsdecode(b"no\xff.yaml"))
    assert ended.code == 2 and "does not exist" in ended.err


def test_validations_that_no_epoch_has_batches_for(zoo, tiny):
    code, line = fit(zoo, tiny, "--trainer.val_check_interval", "4")
    assert code == 2 and "trainer.val_check_interval=4 is more than the 3 batches of an epoch" in line
    assert "trainer.check_val_every_n_epoch null" in line
    assert fit(zoo, tiny, "--trainer.val_check_interval", "4", "--trainer.check_val_every_n_epoch", "null")[0] == 0


def test_two_that_accumulate(zoo, tiny):
    schedule = ["--trainer.callbacks+=GradientAccumulationScheduler", "--trainer.callbacks.scheduling={0: 2}"]
    code, line = fit(zoo, tiny, *schedule, "--trainer.accumulate_grad_batches", "2")
    assert code == 2 and "trainer.accumulate_grad_batches and the callback" in line


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_weights_of_another_precision(zoo, tiny, precision):
    assert fit(zoo, tiny, "--trainer.precision", precision) == (0, "")


def test_clipping_under_an_optimizer_that_unscales():
    from lightning.pytorch.plugins import MixedPrecision

    parameter = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(RuntimeError) as refused:
        MixedPrecision("bf16-mixed", "cpu").clip_gradients(torch.optim.AdamW([parameter], fused=True), 1.0)
    assert "AdamW with fused true" in bad_input(refused.value)


@pytest.mark.parametrize(
    ("scheduler", "said"),
    [
        (["ExponentialLR", "gamma", "0.5", "last_epoch", "3"], "scheduler: param 'initial_lr' is not specified"),
        (["StepLR", "step_size", "0"], "scheduler: "),
        (["ExponentialLR", "gamma", "-3.0"], "scheduler: the learning rate becomes -"),
    ],
)
def test_a_schedule_that_cannot_begin(zoo, tiny, tmp_path, scheduler, said):
    name, *options = scheduler
    pairs = zip(options[::2], options[1::2], strict=True)
    arguments = [word for key, value in pairs for word in (f"--model.scheduler.{key}", value)]
    code, line = fit(zoo, tiny, "--model.scheduler", name, *arguments)
    assert code == 2 and said in line and "\n" not in line
    assert not list(tmp_path.rglob("*.ckpt"))
