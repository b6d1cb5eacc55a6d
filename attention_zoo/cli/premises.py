"""``python -m attention_zoo premises``: whether the premises of readings hold in the layers of trained models."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attention_zoo.domains import PositiveInt
from attention_zoo.errors import InputError
from attention_zoo.runs.files import replacing, write_json, write_text
from attention_zoo.runs.folders import find_checkpoint, free_folder, named_path
from attention_zoo.sweeps.plan import told_apart
from attention_zoo.terminal import print_table, printable, tracked

if TYPE_CHECKING:  # drawing and training libraries take seconds to import, which other commands need not wait for
    import torch
    from torch import Tensor

    from attention_zoo.reports.premises import Subject
    from attention_zoo.runs.checkpoint import Checkpoint
    from datamodules.base import ImageDataModule
    from tasks import Classification


def premises(
    *,
    ckpt_path: list[str] | None = None,
    readings: list[str] | None = None,
    layer: str | None = None,
    images: PositiveInt = 64,
    batch_size: PositiveInt = 16,
    out: str = "premises",
    overwrite: bool = False,
    device: str = "cpu",
    trust_checkpoint: bool = False,
) -> None:
    """Ask of trained models whether the premises of their readings hold, layer by layer, on test images.

    Every mixer's own file says its premise and how it is measured: likelihood of the queries in a mixture, sparsity
    of codes and their distance to the best, clusters against chance, leave-one-out error of a smoother. For all of
    them: entropy, rank and regime of the rows of attention, and the diversity of the tokens. Writes premises.json,
    premises.csv, premises.md and premises.png.

    Args:
        ckpt_path: checkpoints of image classification, one or several; or runs, or last or best of the newest.
        readings: further mixers whose premises are asked of the queries, keys and values of every layer; they may have
            no parameters of their own (Probabilistic, DotProduct, Hopfield, Sinkhorn, Pro, Elliptical and others).
        layer: 3, 0-3, last or last-4, counted in the model's order; by default all.
        images: number of test images, spread evenly over the test data.
        batch_size: images at a time.
        out: folder to write to.
        overwrite: whether ``out`` may hold something already.
        device: where the models run, e.g. cuda.
        trust_checkpoint: whether the configs in the checkpoints may name any class, and run its code.
    """
    from attention_zoo.analysis.premises import check_readings
    from attention_zoo.analysis.subjects import find_device
    from attention_zoo.cli.lightning import load_classification
    from attention_zoo.reports.premises import long_table, premise_figure, premise_json, wide_table

    folder = free_folder(named_path("out", out), overwrite)
    if not ckpt_path:
        raise InputError("nothing to examine: give --ckpt_path CHECKPOINT [--ckpt_path CHECKPOINT ...]")
    check_readings(readings or ())
    place = find_device(device)
    paths = list(dict.fromkeys(ckpt_path))
    found = [find_checkpoint(path, None, trust=trust_checkpoint).path for path in paths]
    models = [load_classification(path, trust=trust_checkpoint) for path in found]
    names = _own_names(paths, [checkpoint for checkpoint, _, _ in models])
    subjects = [
        _examined(name, loaded, readings or [], layer, (images, batch_size), place)
        for name, loaded in zip(names, models, strict=True)
    ]
    note = "a cell is the mean over images and heads; what the premise compares it with; in how many of them it holds"
    table = wide_table(subjects, [note])
    write_json(folder / "premises.json", premise_json(subjects))
    write_text(folder / "premises.csv", long_table(subjects).csv())
    write_text(folder / "premises.md", table.markdown())
    with replacing(folder / "premises.png") as file:
        premise_figure(subjects).savefig(file, format="png")
    print_table(table, f"written to {folder}")


def _own_names(paths: list[str], checkpoints: "Sequence[Checkpoint]") -> list[str]:
    """Return a name for each checkpoint: what tells its run folder apart, or its path where others share that."""
    names = [
        found.run_folder.name if found.run_folder else Path(path).stem
        for path, found in zip(paths, checkpoints, strict=True)
    ]
    short = told_apart(names)
    return [printable(name if short.count(name) == 1 else path) for name, path in zip(short, paths, strict=True)]


def _examined(
    name: str,
    loaded: "tuple[Checkpoint, Classification, ImageDataModule]",
    readings: list[str],
    layer: str | None,
    sizes: tuple[int, int],
    device: "torch.device",
) -> "Subject":
    """Return what is found in a checkpoint's model on its own test data, so many images, so many at a time."""
    from attention_zoo.analysis.premises import DIVERSITY, examine, findings
    from attention_zoo.reports.premises import Subject

    checkpoint, task, data = loaded
    model = task.model.to(device)
    batches = [examine(model, batch.to(device), layer, readings) for batch in _batches(data, *sizes, name)]
    said = {each.reading: each.premise for each in batches[0]}
    count = sum(len(batch[0].measures[DIVERSITY].values) for batch in batches)
    about = {"checkpoint": printable(checkpoint.path), "data": type(data).__name__, "images": count}
    return Subject(name, findings(batches), said, about)


def _batches(data: "ImageDataModule", images: int, batch_size: int, name: str) -> "Iterator[Tensor]":
    """Yield normalised images (B, 3, H, W), spread evenly over the test data."""
    import torch

    data.setup("test")
    dataset, collate = data.dataset("test"), data.collate("test")
    number = min(images, len(dataset))
    indices = torch.linspace(0, len(dataset) - 1, number).round().long().tolist()
    starts = range(0, number, batch_size)
    for start in tracked(starts, name):
        yield collate([dataset[index] for index in indices[start : start + batch_size]])["image"]
