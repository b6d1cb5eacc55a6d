"""What there is: the commands with a line and an example of each, and the options of training that people use most.

Nothing here imports what it tells about, so that help comes at once; ``tests/cli/test_help.py`` holds it to the truth.
"""

from dataclasses import dataclass
from typing import Any

PROGRAM = "python -m attention_zoo"


@dataclass(frozen=True)
class Command:
    """A command, as the overview has it.

    Attributes:
        line: what it does; of a tool, the first line of its docstring.
        example: words that follow its name in an example.
    """

    line: str
    example: str


TRAINING = {
    "fit": Command("Train a model, or go on with a run.", "--config classification/digits.yaml --model.mixer VarsD"),
    "validate": Command("Measure a checkpoint on the validation data.", "--ckpt_path last"),
    "test": Command("Measure a checkpoint on the test data.", "--ckpt_path RUN/checkpoints/best.ckpt"),
    "predict": Command(
        "Write what a checkpoint sees in a folder of images: classes, or masks.",
        "--ckpt_path last --data.predict_dir FOLDER --prediction.path predictions.csv",
    ),
}
"""Commands of LightningCLI."""

TOOLS = {
    "mixers": Command(
        "List the mixers: name, reading, paper, equation, options with their defaults, and cost in tokens N.",
        "--kind self",
    ),
    "hosts": Command(
        "List timm's architectures with attention: which are hosts, of how many mixers, or why not.", "--filter 'swin*'"
    ),
    "maps": Command(
        "Draw attention maps of several mixers or checkpoints side by side.", "IMAGE --ckpt_path A.ckpt B.ckpt"
    ),
    "look": Command(
        "Look at attention in a browser: what a patch reads, who reads it, rollout, norms, steps, atoms, clusters.",
        "--ckpt_path A B",
    ),
    "decode": Command(
        "Decode images from the bottom-up and the top-down signal of a model's first layer.",
        "IMAGE --ckpt_path RUN --prior tern",
    ),
    "premises": Command(
        "Ask of trained models whether the premises of their readings hold, layer by layer, on test images.",
        "--ckpt_path A.ckpt B.ckpt",
    ),
    "click": Command("Mark objects by clicks, on a page in the browser.", "--ckpt_path RUN --images FOLDER"),
    "corrupt": Command(
        "Write a data set under the corruptions of ImageNet-C, in the layout of the released ones.",
        "SRC DST --severities 1 3 5",
    ),
    "export": Command(
        "Write a trained classifier as a program of torch or ONNX, or as a folder for timm or the Hugging Face Hub.",
        "--ckpt_path RUN --format onnx --out model.onnx",
    ),
    "sweep": Command(
        "Train and evaluate one recipe over mixers, seeds and any other axis.",
        "--config sweeps/digits_mixers.yaml --workers 2",
    ),
    "report": Command(
        "Report on a sweep, or join the results of several runs into one table (csv, markdown) and figure.",
        "RUN RUN --out curves",
    ),
    "claims": Command(
        "Put the papers' claims beside what the runs here say of them: which held, which did not, which are noise.",
        "--check true",
    ),
    "bench": Command(
        "Measure what mixers cost: time forward and in training, memory, operations, parameters, growth in the tokens.",
        "VarsD Performer --tokens 196 784",
    ),
}
"""Commands that are functions: ``NAME`` is the function ``NAME`` of the module ``attention_zoo.cli.NAME``."""


@dataclass(frozen=True)
class Option:
    """An option of the training commands, as their help has it.

    Attributes:
        name: its key on the command line.
        text: what it is.
        default: its default; `UNSAID` where the text says what happens without it.
    """

    name: str
    text: str
    default: Any = ...


UNSAID = ...
"""The default of options without one that is worth a word."""

SHARED = (
    Option("config", "a config, by path or name; several add up, later ones win, and options after them"),
    Option("print_config", "show the config that results, and stop"),
    Option("seed_everything", "the seed of the run", 0),
    Option("ckpt_path", "a checkpoint, a run, or last or best: of --trainer.default_root_dir, or the newest run"),
    Option("data", "the class of the data: Digits, ImageFolder, CIFAR10, Shapes, GrabCut, ..."),
    Option("data.root", "the folder of the data"),
    Option("data.batch_size", "images in a batch"),
    Option("data.num_workers", "processes that load images"),
    Option("model", "the task: Classification, SemanticSegmentation, InteractiveSegmentation, ..."),
    Option("model.model", "a model of timm, or of a paper (rvt_tiny, absvit_tiny_patch16_224, ...)"),
)
"""Options of all training commands that people use most."""

OF_FIT = (
    Option("model.mixer", "the mixer of all layers (`mixers` lists them), and --model.mixer.OPTION"),
    Option("model.layer_mixers", "mixers of single layers: --model.layer_mixers.last-4 VarsD"),
    Option("model.pretrained", "start from timm's released weights", False),
    Option("model.optimizer", "the optimizer, such as AdamW, and --model.optimizer.lr"),
    Option("trainer.max_epochs", "epochs to train"),
    Option("trainer.accelerator", "cpu, gpu or auto", "auto"),
    Option("trainer.devices", "how many of them", "auto"),
    Option("trainer.precision", "such as bf16-mixed"),
    Option("trainer.logger", "curves go elsewhere: --config loggers/csv.yaml, mlflow, trackio, wandb, tensorboard"),
    Option("trainer.default_root_dir", "the folder of the run (a new one under runs/)"),
)
"""Further options of ``fit`` that people use most."""

OF_EVALUATION = (
    Option("trainer.accelerator", "cpu, gpu or auto", "auto"),
    Option("trainer.devices", "how many of them", "auto"),
    Option("trainer.limit_test_batches", "so many batches (integer), or such a share of them (float)"),
    Option("trust_checkpoint", "whether the config in the checkpoint may name any class, and run its code", False),
)
"""Further options of ``validate`` and ``test``."""

OF_PREDICT = (
    Option("data.predict_dir", "the folder of images, searched with all that is in it"),
    Option("prediction.path", "the file, or of masks the folder, to write"),
    Option("prediction.top_k", "so many classes for each image"),
    Option("trainer.accelerator", "cpu, gpu or auto", "auto"),
    Option("trust_checkpoint", "whether the config in the checkpoint may name any class, and run its code", False),
)
"""Further options of ``predict``."""

OPTIONS = {
    "fit": (*SHARED, *OF_FIT),
    "validate": (*SHARED, *OF_EVALUATION),
    "test": (*SHARED, *OF_EVALUATION),
    "predict": (*SHARED, *OF_PREDICT),
}
"""The options that the help of each training command shows."""


def overview() -> str:
    """Return the help that lists all commands."""
    lines = [f"  {name:<10} {command.line}" for name, command in {**TRAINING, **TOOLS}.items()]
    return (
        f"usage: {PROGRAM} [--help] [--version] COMMAND ...\n\n"
        "Readings of attention behind one registry.\n\ncommands:\n"
        + "\n".join(lines)
        + f"\n\n{PROGRAM} COMMAND --help lists the options of a command.\n"
    )
