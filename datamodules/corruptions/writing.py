"""Writing a corrupted data set with many processes, in a folder that says how it was made and can be gone on with."""

import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Any

import cv2
import numpy as np
import threadpoolctl
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.utils.data import DataLoader, Dataset

from attention_zoo.errors import InputError
from attention_zoo.evaluation import RECORD
from attention_zoo.runs.files import read_json
from attention_zoo.terminal import terminal
from datamodules.corruptions.generate import (
    JPEG_QUALITY,
    SEVERITIES,
    ArrayParts,
    FolderWriter,
    write_array,
    write_whole,
)

LINE_EVERY = 60.0
"""Seconds between lines of progress where there is no terminal."""

LIBRARIES = ("numpy", "scipy", "opencv-python", "scikit-image", "pillow")
"""Whose versions the record names."""


def check_folders(source: Path, folder: Path) -> None:
    """Refuse to write where images are read from, or into a folder that holds other things.

    Raises:
        InputError: ``folder`` is no place to write what is read from ``source``.
    """
    if folder.resolve().is_relative_to(source.resolve()):
        raise InputError(f"{folder} is in the folder {source} that is read; choose another")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; expected a folder to write")
    if folder.is_dir() and not (folder / RECORD).exists() and any(folder.iterdir()):
        raise InputError(f"{folder} holds other things than this command writes; choose a new folder")


def keep_record(folder: Path, settings: dict[str, Any]) -> None:
    """Write down how the folder is made, or check that it was made in this way.

    Raises:
        InputError: it was made in another way, or what should say so cannot be read.
    """
    path = folder / RECORD
    if not path.exists():
        quality = {"jpeg_quality": JPEG_QUALITY} if settings["format"] == "folder" else {}
        about = {"generated_by": f"attention_zoo {version('attention_zoo')}"}
        libraries = {"libraries": {name: version(name) for name in LIBRARIES}}
        write_whole(path, json.dumps(about | settings | quality | libraries, indent=1).encode())
        return
    try:
        before = read_json(path)
        changed = [name for name, value in settings.items() if before[name] != value]
    except (InputError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no record of this command; choose a new folder") from error
    if changed:
        differences = ", ".join(f"{name} {before[name]!r}, not {settings[name]!r}" for name in changed)
        raise InputError(f"{folder} was written with {differences}; choose a new folder, or the same settings")


def write_folder(writer: FolderWriter, workers: int) -> tuple[int, int]:
    """Files written, and those that were there."""
    cells = len(writer.parts)
    total = len(writer) * cells
    written = sum(_progress(done_by(writer, workers), "files", total, cells))
    return written, total - written


def write_arrays(arrays: Sequence[ArrayParts], folder: Path, workers: int) -> tuple[int, int]:
    """Files written, and those that were there."""
    labels = folder / "labels.npy"
    missing = {folder / f"{parts.corruption}.npy": parts for parts in arrays}
    missing = {path: parts for path, parts in missing.items() if not path.exists()}
    written = len(missing) + (not labels.exists())
    if not labels.exists():
        write_array(labels, arrays[0].labels())
    for path, parts in missing.items():
        total, each = (len(SEVERITIES) * images for images in (len(parts.source.files), parts.IMAGES))
        items = list(_progress(done_by(parts, workers), f"{parts.corruption}, rows", total, each))
        write_array(path, np.concatenate(items, axis=1).reshape(total, *items[0].shape[2:]))
    return written, 1 + len(arrays) - written


def _progress(items: Iterator[Any], what: str, total: int, each: int) -> Iterator[Any]:
    """The same items, and on stderr how much is done: a bar on a terminal, elsewhere a line every minute.

    Args:
        items: what is done.
        what: is counted.
        total: of them.
        each: how many of them an item is; the last may be fewer.
    """
    console = terminal(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    name = TextColumn("{task.description}", markup=False)
    bar = Progress(name, *columns, console=console, disable=not console.is_terminal)
    last = time.monotonic()
    with bar:
        task = bar.add_task(what, total=total)
        for number, item in enumerate(items, 1):
            yield item
            done = min(number * each, total)
            bar.update(task, completed=done)
            if bar.disable and time.monotonic() - last > LINE_EVERY:
                last = time.monotonic()
                console.print(f"{what}: {done:,} of {total:,}")


def done_by(work: Dataset[Any], workers: int) -> Iterator[Any]:
    """The items of ``work``, in order, computed by so many processes."""
    return iter(DataLoader(work, batch_size=None, num_workers=workers, collate_fn=_same, worker_init_fn=_alone))


def _same(item: Any) -> Any:
    return item


def _alone(worker: int) -> None:
    """One thread for each worker, since there are as many of them as cores, and none that outlives its parent."""
    # torch's workers look for another parent than the one they have when this is done, which it may be by then
    Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)
    threadpoolctl.threadpool_limits(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:  # not started by another process
        return
    parent.join()
    os._exit(1)  # files are written whole or not at all
