"""``python -m attention_zoo corrupt``: a corrupted copy of a data set, in the layout of the released ones."""

import os
import sys
from dataclasses import asdict
from functools import partial
from typing import Literal

from attention_zoo.domains import Seed
from attention_zoo.errors import InputError
from attention_zoo.runs.folders import named_path
from attention_zoo.terminal import printable


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
        corruptions: names; default: the 15 of the benchmark. There are also speckle_noise, gaussian_blur, spatter,
            saturate.
        severities: numbers from 1 to 5; default: all.
        scale: parameters, and how images are prepared: imagenet (default; the shorter side to 8/7 of the size, the
            middle cut out), tiny or cifar (squeezed into the square).
        format: folder: <corruption>/<severity>/<class>/*.JPEG of quality 85, as ImageNet-C and Tiny-ImageNet-C.
            cifar: <corruption>.npy and labels.npy, as CIFAR-10-C, by default of scale cifar.
        groups: put noise, blur, weather, digital or extra before the corruption in the path, as the released archives.
        size: side of the images in pixels; default 224, 64 or 32 for imagenet, tiny or cifar.
        keep_size: leave images at their own size.
        per_class: only so many images of each class, the first by name.
        limit: only so many images in all, evenly spread over the classes.
        seed: seed of everything that is random.
        workers: number of processes beside this one; 0 for none, default one for each core.
    """
    from datamodules.corruptions import CORRUPTIONS, SIZES
    from datamodules.corruptions.generate import SEVERITIES, ArrayParts, FolderWriter, Recipe, read_source
    from datamodules.corruptions.settings import check_choices, check_numbers
    from datamodules.corruptions.writing import check_folders, keep_record, write_arrays, write_folder

    names = list(dict.fromkeys(CORRUPTIONS if corruptions is None else corruptions))
    levels = sorted(set(SEVERITIES if severities is None else severities))
    check_choices(names, levels)
    check_numbers(size, workers, per_class=per_class, limit=limit)
    if keep_size and size is not None:
        raise InputError("give --size or --keep_size")
    if format == "cifar" and (keep_size or groups or levels != list(SEVERITIES)):
        raise InputError("--format cifar has images of one size, all five severities and no --groups")

    origin, folder = named_path("src", src), named_path("dst", dst)
    check_folders(origin, folder)
    scale = scale or ("cifar" if format == "cifar" else "imagenet")
    recipe = Recipe(scale, None if keep_size else size or SIZES[scale], seed)
    source = read_source(origin, per_class, limit)
    if format == "cifar":
        write = partial(write_arrays, [ArrayParts(source, recipe, name) for name in names], folder)
    else:
        write = partial(write_folder, FolderWriter(source, recipe, folder, names, levels, groups))
    settings = {"format": format, "groups": groups, "per_class": per_class, "limit": limit}
    keep_record(folder, {"source": str(source.root.resolve()), **source.summary(), **asdict(recipe), **settings})
    written, there = write(os.cpu_count() or 0 if workers is None else workers)
    sys.stdout.write(f"{printable(folder)}: {written:,} files written, {there:,} were there\n")
