"""``python -m attention_zoo export``: takes a trained classifier out of the project."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from attention_zoo.errors import InputError
from attention_zoo.runs.folders import free_file, free_folder, named_path
from attention_zoo.terminal import printable

if TYPE_CHECKING:
    from attention_zoo.exports.folders import Exported

DEFAULTS = {"torch": "model.pt2", "onnx": "model.onnx", "timm": "model", "huggingface": "model"}
"""What each format writes where ``out`` is not given: a file, or a folder."""

PROGRAMS = ("torch", "onnx")
"""Formats of one file."""


def export(
    *,
    ckpt_path: str,
    format: Literal["torch", "onnx", "timm", "huggingface"],
    out: str | None = None,
    overwrite: bool = False,
    trust_checkpoint: bool = False,
) -> None:
    """Write a trained classifier as a program of torch or ONNX, or as a folder for timm or the Hugging Face Hub.

    A program (torch: an archive of torch.export; onnx) takes any number of images (B, 3, H, W) float32, normalised; it
    keeps the mean, the deviation and the classes beside it. A folder has the weights as safetensors, a config, and a
    card with the numbers of the run. That of timm is for timm.create_model("local-dir:FOLDER", pretrained=True), and
    only for attention that timm has; that of huggingface is the same where timm has it, else for attention_zoo.load.
    What is written was compared with the model on random images before, and the largest difference is printed.

    Args:
        ckpt_path: a checkpoint of image classification, the folder of a run, or last or best.
        format: torch, onnx, timm or huggingface.
        out: file or folder to write (default model.pt2, model.onnx, or the folder model).
        overwrite: whether ``out`` may exist.
        trust_checkpoint: whether the config in the checkpoint may name any class, and run its code.
    """
    path = named_path("out", DEFAULTS[format] if out is None else out)
    if format in PROGRAMS:
        free_file(path, overwrite)
    else:
        free_folder(path, overwrite)
    if format == "onnx":
        from attention_zoo.exports.programs import require_onnx

        require_onnx()
    exported = exported_of(ckpt_path, trust_checkpoint)
    error = _write_program(path, exported, format) if format in PROGRAMS else _write_folder(path, exported, format)
    height, width = exported.size
    sys.stdout.write(
        f"{printable(path)}: {format}, {len(exported.classes)} classes, images of {height}x{width}; "
        f"largest difference from the model on random images {error:.1e} of its largest logit\n"
    )


def exported_of(run: str, trust: bool) -> "Exported":
    """Return what is to be written of a run.

    Raises:
        InputError: there is no such run, or it is not of image classification.
    """
    from attention_zoo.cli.loading import load_task
    from attention_zoo.exports.folders import Exported
    from attention_zoo.mixers.base import SelfMixer
    from attention_zoo.runs.results import read_cost, read_metrics

    checkpoint, task, data = load_task(run, trust=trust)
    folder, config = checkpoint.run_folder, checkpoint.taken("maps")
    name = checkpoint.path.name
    lines = read_metrics(folder) if folder else []
    assert config is not None
    return Exported(
        model=task.model.eval(),
        config={key: config[key] for key in ("model", "data")},
        size=data.image_size,
        classes=list(data.class_names),
        mean=data.mean,
        std=data.std,
        resize=data.default_resize(),
        mixers=sorted({type(part).__name__ for part in task.model.modules() if isinstance(part, SelfMixer)}),
        measured=[line for line in lines if line.checkpoint is not None and Path(line.checkpoint).name == name],
        cost=read_cost(folder) if folder else {},
    )


def _write_program(path: Path, exported: "Exported", format: str) -> float:
    """Write a program that was checked, and return its largest error."""
    from attention_zoo.exports.programs import largest_error, onnx_program, run_onnx, run_torch, torch_program
    from attention_zoo.runs.files import write_bytes

    make, run = (torch_program, run_torch) if format == "torch" else (onnx_program, run_onnx)
    content = make(exported.model, exported.size, exported.facts())
    error = largest_error(exported.model, run(content), exported.size)
    write_bytes(path, content)
    return error


def _write_folder(path: Path, exported: "Exported", format: str) -> float:
    """Write a folder that was read back and checked, and return the largest error of what was read."""
    from attention_zoo.cli.loading import load_task
    from attention_zoo.exports.folders import as_timm, write_card, write_timm, write_zoo
    from attention_zoo.exports.programs import largest_error
    from attention_zoo.reports.writing import whole

    by_timm = True
    try:
        as_timm(exported)
    except InputError:
        if format == "timm":
            raise
        by_timm = False
    with whole(path) as stage:
        if by_timm:
            error = write_timm(stage, exported)
        else:
            write_zoo(stage, exported)
            _, task, _ = load_task(str(stage))
            error = largest_error(exported.model, task.model.eval(), exported.size)
        write_card(stage, exported, by_timm=by_timm)
    return error
