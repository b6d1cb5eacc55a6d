"""``python -m attention_zoo corrupt``: a corrupted copy of a data set, in the layout of the released ones."""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from attention_zoo.cli.console import printable
from attention_zoo.domains import Seed
from attention_zoo.errors import InputError
from attention_zoo.evaluation import RECORD
from attention_zoo.runs.files import read_json
from attention_zoo.terminal import terminal

if TYPE_CHECKING:  # these take seconds to import, which other commands need not wait for
    from torch.utils.data import Dataset

    from datamodules.corruptions.generate import ArrayParts, FolderWriter

LINE_EVERY = 60.0
"""Seconds between lines of progress where there is no terminal."""

LIBRARIES = ("numpy", "scipy", "opencv-python", "scikit-image", "pillow")
"""Whose versions the record names."""


def corrupt(
    src: str,
    dst: str,
    *,
    corruptions: list[str] | None = None,
    severities: list[int] | None = None,
    scale: Literal["imagenet", "tiny", "cifar"] | None = None,
    format: Literal["folder", "cifar"] = "folder",
    groups: bool = False,
    size: int | None = None,
    keep_size: bool = False,
    per_class: int | None = None,
    limit: int | None = None,
    seed: Seed = 0,
    workers: int | None = None,
) -> None:
    """Write a data set under the corruptions of ImageNet-C, in the layout of the released ones.

    Can be interrupted and started again: finished files are kept. The result does not depend on the number of workers.

    Args:
        src: folder with one folder of images per class, such as ImageNet's val/<wnid>/*.JPEG.
        dst: folder to write; new, or of an earlier start with the same settings.
        corruptions: default: the 15 of the benchmark. Beside them: speckle_noise, gaussian_blur, spatter, saturate.
        severities: default: 1 to 5.
        scale: parameters, and how images are prepared: imagenet (default; the shorter side to 8/7 of the size, the
            middle cut out), tiny or cifar (squeezed into the square).
        format: folder: <corruption>/<severity>/<class>/*.JPEG of quality 85, as ImageNet-C and Tiny-ImageNet-C.
            cifar: <corruption>.npy and labels.npy, as CIFAR-10-C, by default of scale cifar.
        groups: put noise, blur, weather, digital or extra before the corruption in the path, as the released archives.
        size: side of the images in pixels; default 224, 64 or 32 for imagenet, tiny or cifar.
        keep_size: leave images at their own size.
        per_class: only so many images of each class, the first by name.
        limit: only so many images in all, evenly spread over the classes.
        seed: of all that is random.
        workers: processes beside this one; default one for each core.
    """
    from datamodules.corruptions import CORRUPTIONS, SIZES
    from datamodules.corruptions.generate import SEVERITIES, ArrayParts, FolderWriter, Recipe, read_source

    names = list(dict.fromkeys(CORRUPTIONS if corruptions is None else corruptions))
    levels = sorted(set(SEVERITIES if severities is None else severities))
    _check_choices(names, levels)
    _check_numbers(size, workers, seed, per_class=per_class, limit=limit)
    if keep_size and size is not None:
        raise InputError("give --size or --keep_size")
    if format == "cifar" and (keep_size or groups or levels != list(SEVERITIES)):
        raise InputError("--format cifar has images of one size, all five severities and no --groups")

    folder = Path(dst)
    _check_folders(Path(src), folder)
    scale = scale or ("cifar" if format == "cifar" else "imagenet")
    recipe = Recipe(scale, None if keep_size else size or SIZES[scale], seed)
    source = read_source(Path(src), per_class, limit)
    if format == "cifar":
        write = partial(_write_arrays, [ArrayParts(source, recipe, name) for name in names], folder)
    else:
        write = partial(_write_folder, FolderWriter(source, recipe, folder, names, levels, groups))
    given = {"format": format, "groups": groups, "per_class": per_class, "limit": limit}
    _record(folder, {"source": str(source.root.resolve()), **source.summary(), **asdict(recipe), **given})
    written, there = write(os.cpu_count() or 0 if workers is None else workers)
    sys.stdout.write(f"{printable(folder)}: {written:,} files written, {there:,} were there\n")


def _check_choices(names: Sequence[str], severities: Sequence[int]) -> None:
    from datamodules.corruptions import require_corruption, require_severity
    from datamodules.corruptions.textures import textures_folder

    if not names or not severities:
        raise InputError("--corruptions and --severities need at least one")
    for name in names:
        require_corruption(name)
    for severity in severities:
        require_severity(severity)
    if "frost" in names:
        textures_folder()


def _check_numbers(size: int | None, workers: int | None, seed: int, **numbers: int | None) -> None:
    from datamodules.checks import MOST_SEED, MOST_WORKERS, require_whole, two_sides

    if size is not None:
        two_sides("size", size)
    if workers is not None:
        require_whole("workers", workers, 0, MOST_WORKERS)
    require_whole("seed", seed, 0, MOST_SEED)
    for name, value in numbers.items():
        if value is not None:
            require_whole(name, value, 1)


def _check_folders(source: Path, folder: Path) -> None:
    """Refuse to write where images are read from, or into a folder that holds other things."""
    if folder.resolve().is_relative_to(source.resolve()):
        raise InputError(f"{folder} is in the folder {source} that is read; choose another")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; expected a folder to write")
    if folder.is_dir() and not (folder / RECORD).exists() and any(folder.iterdir()):
        raise InputError(f"{folder} holds other things than this command writes; choose a new folder")


def _record(folder: Path, settings: dict[str, Any]) -> None:
    """Write down how the folder is made, or check that it was made in this way."""
    from datamodules.corruptions.generate import JPEG_QUALITY, write_whole

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


def _write_folder(writer: "FolderWriter", workers: int) -> tuple[int, int]:
    """Files written, and those that were there."""
    cells = len(writer.parts)
    total = len(writer) * cells
    written = sum(_progress(_done(writer, workers), "files", total, cells))
    return written, total - written


def _write_arrays(arrays: "Sequence[ArrayParts]", folder: Path, workers: int) -> tuple[int, int]:
    """Files written, and those that were there."""
    import numpy as np

    from datamodules.corruptions.generate import write_array

    labels = folder / "labels.npy"
    missing = {folder / f"{parts.corruption}.npy": parts for parts in arrays}
    missing = {path: parts for path, parts in missing.items() if not path.exists()}
    written = len(missing) + (not labels.exists())
    if not labels.exists():
        write_array(labels, arrays[0].labels())
    for path, parts in missing.items():
        rows = _progress(_done(parts, workers), f"{parts.corruption}, rows", len(parts.samples), parts.ROWS)
        write_array(path, np.concatenate(list(rows)))
    return written, 1 + len(arrays) - written


def _progress(items: "Iterator[Any]", what: str, total: int, each: int) -> "Iterator[Any]":
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
    said = time.monotonic()
    with bar:
        task = bar.add_task(what, total=total)
        for number, item in enumerate(items, 1):
            yield item
            done = min(number * each, total)
            bar.update(task, completed=done)
            if bar.disable and time.monotonic() - said > LINE_EVERY:
                said = time.monotonic()
                console.print(f"{what}: {done:,} of {total:,}")


def _done(work: "Dataset[Any]", workers: int) -> "Iterator[Any]":
    """The items of ``work``, in order, computed by so many processes."""
    from torch.utils.data import DataLoader

    return iter(DataLoader(work, batch_size=None, num_workers=workers, collate_fn=_same, worker_init_fn=_alone))


def _same(item: Any) -> Any:
    return item


def _alone(worker: int) -> None:
    """One thread for each worker, since there are as many of them as cores, and none that outlives its parent."""
    import cv2
    from threadpoolctl import threadpool_limits

    # torch's workers look for another parent than the one they have when this is done, which it may be by then
    Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)
    threadpool_limits(1)


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)  # files are written whole or not at all
