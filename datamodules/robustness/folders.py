"""Folders of corrupted images in their released layouts."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities import rank_zero_only
from rich.markup import escape
from rich.progress import track

from attention_zoo.errors import InputError
from attention_zoo.evaluation import RECORD
from attention_zoo.runs.files import read_json
from attention_zoo.terminal import terminal
from datamodules.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, GROUPS
from datamodules.corruptions.generate import Recipe
from datamodules.images import FileNames, contents, read_files, subfolders


def record(root: Path) -> dict[str, str | int]:
    """How the images in a folder were made, if they were made by this project; else nothing.

    Raises:
        InputError: the record cannot be read.
    """
    path = root / RECORD
    if not path.is_file():
        return {}
    try:
        content = read_json(path)
        recipe = Recipe(*(content[name] for name in ("scale", "size", "seed")))
        return made_facts(recipe, content.get("jpeg_quality"))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} does not say how the images were made: expected scale, size and seed in it"
        ) from error


def made_facts(recipe: Recipe, jpeg_quality: int | None) -> dict[str, str | int]:
    """Say how corrupted images were made that were not released."""
    return {
        "scale": recipe.scale,
        "size": recipe.size or "as it was",
        "seed": recipe.seed,
        "before_corruption": recipe.preparation,
        "jpeg_quality": jpeg_quality or "none",
    }


def class_folders(root: Path) -> list[str]:
    """Names of the classes that the first corruption found has, sorted.

    Raises:
        InputError: there is no corruption with a severity.
    """
    for corruption in CORRUPTIONS + EXTRA_CORRUPTIONS:
        for folder in _places(root, corruption):
            severities = subfolders(folder)
            if severities:
                return subfolders(folder / severities[0])
    raise _no_corruption(root, CORRUPTIONS[0])


def read_corruptions(
    root: Path, corruptions: Sequence[str], severities: Sequence[int], class_names: Sequence[str], kind: str
) -> Iterator[tuple[str, int, FileNames, np.ndarray]]:
    """The images in ``<corruption>/<severity>/<class>/*``, perhaps below the group of the corruption.

    All cells have the same images, whose names are therefore kept once.

    Args:
        root: the folder.
        corruptions: which.
        severities: which.
        class_names: in the order of their labels.
        kind: what an error calls a class.

    Yields:
        Corruption, severity, N names, and N labels.

    Raises:
        InputError: a folder is missing, or holds something else, or other images than the first cell.
    """
    folders = [
        (corruption, severity, _severity(_corruption(root, corruption), severity, severities))
        for corruption in corruptions
        for severity in severities
    ]
    first, labels = read_files(folders[0][2], class_names, kind=kind)
    for corruption, severity, folder in _shown(folders, f"listing {root}"):
        files, _ = read_files(folder, class_names, kind=kind)
        if not np.array_equal(files.relative, first.relative):
            other = np.setxor1d(files.relative, first.relative)[0].decode(errors="replace")
            raise InputError(
                f"{folder} has {len(files)} images and {first.folder} has {len(first)}, expected the same ones; "
                f"only one of them has {other}"
            )
        yield corruption, severity, FileNames(str(folder), first.relative), labels


def _places(root: Path, corruption: str) -> list[Path]:
    """Where a corruption is, in either depth."""
    group = GROUPS.get(corruption, "")  # those of ImageNet-3DCC have none
    return [path for path in dict.fromkeys((root / corruption, root / group / corruption)) if path.is_dir()]


def _corruption(root: Path, corruption: str) -> Path:
    places = _places(root, corruption)
    if not places:
        raise _no_corruption(root, corruption)
    return places[0]


def _no_corruption(root: Path, corruption: str) -> InputError:
    places = [corruption, *([f"{GROUPS[corruption]}/{corruption}"] if corruption in GROUPS else [])]
    expected = " or ".join(f"{place}/<severity>/<class>/*" for place in places)
    return InputError(f"no corruption {corruption} in {root}: expected {expected}; found: {contents(root)}")


def _severity(folder: Path, severity: int, severities: Sequence[int]) -> Path:
    path = folder / str(severity)
    if not path.is_dir():
        raise InputError(
            f"no severity {severity} in {folder}: expected folders {', '.join(map(str, severities))}; "
            f"found: {contents(folder)}"
        )
    return path


def _shown(folders: list[tuple[str, int, Path]], what: str) -> Iterator[tuple[str, int, Path]]:
    """With a progress bar, on a terminal: a whole ImageNet-C has millions of files."""
    console = terminal(stderr=True)
    disable = not console.is_terminal or getattr(rank_zero_only, "rank", 0) > 0
    yield from track(folders, description=escape(what), console=console, transient=True, disable=disable)
