"""Write reports whole or not at all, and only into their own folder."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from attention_zoo.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder whose files move into ``folder`` when the block ends without an error.

    They replace files of the same names. If the block raises, ``folder`` stays as it was. A link to a file is replaced,
    not followed; files in ``folder`` that the report does not have stay.

    Raises:
        InputError: a file cannot be written, or a folder below ``folder`` is a link or a file; the error names what
            was to be written.
    """
    new = not folder.exists()
    stage: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=".report-", dir=folder))
        yield stage
        _install(stage, folder)
    except OSError as error:
        name = None if error.filename is None else Path(os.fsdecode(error.filename))
        if name is not None and stage is not None and name.is_relative_to(stage):
            name = folder / name.relative_to(stage)
        raise InputError(f"cannot write {name or folder}: {error.strerror or error}") from error
    finally:
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)
        if new:
            with suppress(OSError):
                folder.rmdir()  # fails, and is meant to, if anything is in it


def save(figure: "Figure", target: Path | IO[bytes], metadata: Mapping[str, str] | None = None) -> None:
    """Save a figure as PNG, with ``metadata`` as text in the file.

    Dollar signs in the figure's text are printed as they are, not read as formulas.
    """
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
    figure.savefig(target, format="png", metadata=dict(metadata or {}))


def _install(stage: Path, folder: Path) -> None:
    """Move every file below ``stage`` to its place in ``folder``, after checking that no folder or link is in the way.

    Raises:
        InputError: the place of a file is a folder, or a folder above it is a link or a file.
    """
    files = [path.relative_to(stage) for path in sorted(stage.rglob("*")) if path.is_file()]
    for name in files:
        if (folder / name).is_dir() and not (folder / name).is_symlink():
            raise InputError(f"cannot write {folder / name}: it is a folder")
        for above in [*name.parents][:-1]:
            place = folder / above
            if place.is_symlink() or (place.exists() and not place.is_dir()):
                raise InputError(f"cannot write {folder / name}: {place} is a link or a file; move it away")
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (stage / name).replace(folder / name)


def remove_events(folder: Path) -> None:
    """Remove TensorBoard's event files from the run folders in ``folder``, and the run folders that are empty then."""
    if not folder.is_dir() or folder.is_symlink():
        return
    for run in folder.iterdir():
        if not stat.S_ISDIR(run.lstat().st_mode):
            continue
        for path in run.glob("events.out.tfevents.*"):
            path.unlink()
        with suppress(OSError):
            run.rmdir()
