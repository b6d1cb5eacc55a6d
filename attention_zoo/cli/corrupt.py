"""``python -m attention_zoo corrupt``: a corrupted copy of a data set, in the layout of the released ones."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from attention_zoo.errors import InputError

if TYPE_CHECKING:  # these take seconds to import, which other commands need not wait for
    from torch.utils.data import Dataset

    from datamodules.corruptions.generate import Recipe, Source

RECORD = "generated.json"
"""In the folder that is written: how."""

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
    seed: int = 0,
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
    from datamodules.corruptions.generate import SEVERITIES, Recipe, read_source

    names = list(dict.fromkeys(CORRUPTIONS if corruptions is None else corruptions))
    levels = sorted(set(SEVERITIES if severities is None else severities))
    scale = scale or ("cifar" if format == "cifar" else "imagenet")
    _check_choices(names, levels)
    _check_numbers(size=size, per_class=per_class, limit=limit)
    if keep_size and size is not None:
        raise InputError("give --size or --keep_size")
    if format == "cifar" and (keep_size or groups or levels != list(SEVERITIES)):
        raise InputError("--format cifar has images of one size, all five severities and no --groups")
    if seed < 0:
        raise InputError(f"seed={seed} must be at least 0")
    workers = os.cpu_count() or 0 if workers is None else workers
    if workers < 0:
        raise InputError(f"workers={workers} must be at least 0")

    source_folder, folder = Path(src), Path(dst)
    _check_folders(source_folder, folder)
    recipe = Recipe(scale, None if keep_size else size or SIZES[scale], seed)
    source = read_source(source_folder, per_class, limit)
    settings = {
        "source": str(source_folder.resolve()),
        "images": len(source.files),
        "format": format,
        "groups": groups,
        "scale": scale,
        "size": recipe.size,
        "seed": seed,
        "per_class": per_class,
        "limit": limit,
    }
    _record(folder, settings)
    if format == "cifar":
        written, there = _write_arrays(source, recipe, folder, names, workers)
    else:
        written, there = _write_folder(source, recipe, folder, names, levels, groups, workers)
    sys.stdout.write(f"{folder}: {written:,} files written, {there:,} were there\n")


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


def _check_numbers(**numbers: int | None) -> None:
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise InputError(f"{name}={value} must be at least 1")


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
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name, value in settings.items() if before[name] != value]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no record of this command; choose a new folder") from error
    if changed:
        differences = ", ".join(f"{name} {before[name]!r}, not {settings[name]!r}" for name in changed)
        raise InputError(f"{folder} was written with {differences}; choose a new folder, or the same settings")


def _write_folder(
    source: "Source",
    recipe: "Recipe",
    folder: Path,
    names: Sequence[str],
    severities: Sequence[int],
    groups: bool,
    workers: int,
) -> tuple[int, int]:
    """Files written, and those that were there."""
    from datamodules.corruptions.generate import FolderWriter

    writer = FolderWriter(source, recipe, folder, names, severities, groups)
    cells = len(names) * len(severities)
    written = 0
    with _progress() as progress:
        task = progress.add_task("files", total=len(writer) * cells)
        for count in _done(writer, workers):
            written += count
            progress.advance(task, cells)
    return written, len(writer) * cells - written


def _write_arrays(
    source: "Source", recipe: "Recipe", folder: Path, names: Sequence[str], workers: int
) -> tuple[int, int]:
    """Files written, and those that were there."""
    import numpy as np

    from datamodules.corruptions.generate import SEVERITIES, ArrayParts, write_array

    places = {"labels": folder / "labels.npy", **{name: folder / f"{name}.npy" for name in names}}
    missing = [name for name, path in places.items() if not path.exists()]
    if "labels" in missing:
        kind = np.uint8 if len(source.classes) <= 256 else np.int64
        write_array(places["labels"], np.tile(np.array(source.labels, kind), len(SEVERITIES)))
    with _progress() as progress:
        for name in missing:
            if name != "labels":
                parts = ArrayParts(source, recipe, name)
                rows = progress.track(_done(parts, workers), len(parts), description=name)
                write_array(places[name], np.concatenate(list(rows)))
    return len(missing), len(places) - len(missing)


def _progress() -> Progress:
    """On a terminal; elsewhere only the end of it would be seen, among the lines of an error."""
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(TextColumn("{task.description}"), *columns, console=console, disable=not console.is_terminal)


def _done(work: "Dataset[Any]", workers: int) -> "Iterator[Any]":
    """The items of ``work``, in order, computed by so many processes."""
    from torch.utils.data import DataLoader

    return iter(DataLoader(work, batch_size=None, num_workers=workers, collate_fn=_same, worker_init_fn=_alone))


def _same(item: Any) -> Any:
    return item


def _alone(worker: int) -> None:
    """One thread for each worker: there are as many of them as cores."""
    import cv2
    from threadpoolctl import threadpool_limits

    cv2.setNumThreads(1)
    threadpool_limits(1)
