"""Names, makes and guards run folders, and finds the one that ``--ckpt_path last`` means."""

import itertools
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attention_zoo.errors import InputError
from attention_zoo.runs.checkpoint import Checkpoint, read_checkpoint
from attention_zoo.runs.files import read_yaml
from attention_zoo.runs.lock import LOCK
from attention_zoo.runs.results import exists

RUNS = Path("runs")
"""The folder of all runs that were given no folder of their own."""

KEYWORDS = ("last", "best")
"""Words that ``--ckpt_path`` takes in place of a file."""

OF_A_START = ("config.yaml", "metrics.jsonl", "cost.json")
"""Files, beside its curves, that a run may have before its first checkpoint."""

FOLLOWED = ("checkpoints", "hparams.yaml")
"""Names that other libraries write to in a run folder; they would follow a link there."""

CURVES = "events.out.tfevents*"
"""The pattern of the names of TensorBoard's files of curves."""


def fresh_folder(config: Mapping[str, Any]) -> Path:
    """Return a new folder under ``runs/``, named by `run_name`; it is made here unless a launcher numbers the job."""
    name = run_name(config)
    return name if _job() else new_folder(name)


def run_name(config: Mapping[str, Any]) -> Path:
    """Return a path under ``runs/``, named after mixer, data and time.

    All processes of a job must agree on it: where a launcher numbers its jobs, that number takes the place of the
    time. (Processes that Lightning starts are told the folder.)
    """
    model, data = config.get("model") or {}, config.get("data") or {}
    options = model.get("init_args") or {}
    mixer = (options.get("mixer") or {}).get("class_path") or options.get("model") or model.get("class_path") or "run"
    parts = [_leaf(mixer), _leaf(data.get("class_path") or "data"), _job() or time.strftime("%Y%m%d-%H%M%S")]
    return RUNS / "-".join(parts)


def new_folder(wanted: Path) -> Path:
    """Make and return the folder ``wanted``, or if it exists ``wanted-2`` and so on: no two callers get the same.

    Raises:
        InputError: no folder can be made there.
    """
    for number in itertools.count(1):
        folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except FileExistsError as error:
            if not folder.is_dir():
                raise InputError(f"{error.filename} is a file, where a folder should be") from error
            continue
        except OSError as error:
            raise InputError(f"cannot make the folder {folder}: {error.strerror}") from error
        return folder
    raise AssertionError


def named_path(option: str, value: str) -> Path:
    """Return the path that an option names.

    Raises:
        InputError: the option is empty, as where a variable of the shell is not set; it would be the working folder.
    """
    if not value.strip():
        raise InputError(f"{option} is empty; name a path (the working folder is .)")
    return Path(value)


def free_file(path: Path, overwrite: bool) -> Path:
    """Return ``path`` if a command may write its output there.

    Args:
        path: the file that ``--out`` names; it need not exist.
        overwrite: whether it may be there already, be it as a broken link.

    Raises:
        InputError: it is a folder, or is there and may not be.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; choose a file with --out")
    if exists(path) and not overwrite:
        raise InputError(f"{path} exists; choose another file with --out, or give --overwrite true")
    return path


def free_folder(folder: Path, overwrite: bool) -> Path:
    """Return ``folder`` if a command may write its output there.

    Args:
        folder: the folder that ``--out`` names; it need not exist.
        overwrite: whether it may hold something already.

    Raises:
        InputError: it is a file, or holds something that it may not.
    """
    if exists(folder) and not folder.is_dir():
        raise InputError(f"{folder} is a file; choose a folder with --out")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise InputError(f"{folder} is not empty; choose another folder with --out, or give --overwrite true")
    return folder


def find_checkpoint(wanted: str, folder: Path | None, *, trust: bool = False, weights_only: bool = True) -> Checkpoint:
    """Return the checkpoint that ``--ckpt_path`` names: a file, or the last or best of a run.

    Args:
        wanted: a path of a checkpoint, or of a run, whose last one it is; ``"last"`` or ``"best"``.
        folder: the run that the keywords mean; without one, the newest under ``runs/``.
        trust: whether the reader trusts the file; see `read_checkpoint`.
        weights_only: whether it must hold tensors and plain values alone; see `read_checkpoint`.

    Raises:
        InputError: there is no such checkpoint, or `read_checkpoint` refuses it.
    """
    if wanted not in KEYWORDS and Path(wanted).is_dir():
        folder, wanted = Path(wanted), "last"
    if wanted not in KEYWORDS:
        return read_checkpoint(Path(wanted), trust=trust, weights_only=weights_only)
    last = _last_of(folder) if folder else _newest()
    checkpoint = read_checkpoint(last, trust=trust, weights_only=weights_only)
    if wanted == "last":
        return checkpoint
    if checkpoint.best is None:
        raise InputError(f"{last.parent.parent} has no best checkpoint: no ModelCheckpoint of that run has a monitor")
    beside = last.parent / Path(checkpoint.best).name  # the run may have moved since
    best = beside if beside.is_file() else Path(checkpoint.best)
    return read_checkpoint(best, trust=trust, weights_only=weights_only)


def guard_run(folder: Path, checkpoint: Checkpoint | None) -> None:
    """Refuse to train in the folder of another run, unless that run has no checkpoint yet.

    Raises:
        InputError: ``folder`` holds a run with checkpoints and ``checkpoint`` does not continue it, or it holds a link
            that the run would write through.
    """
    refuse_links(*(folder / name for name in FOLLOWED))
    if not (folder / "config.yaml").is_file() or is_start(folder):
        return
    if checkpoint and checkpoint.run_folder and checkpoint.run_folder.resolve() == folder.resolve():
        return
    if not has_checkpoints(folder):
        raise InputError(
            f"{folder}/config.yaml is of no run, and would be taken for this one's: "
            "choose another folder with --trainer.default_root_dir"
        )
    raise InputError(
        f"{folder} already holds a run: continue it with --ckpt_path last, "
        "or choose another folder with --trainer.default_root_dir"
    )


def refuse_links(*paths: Path) -> None:
    """Refuse to write through links, in a folder that may come from somebody else.

    Raises:
        InputError: one of ``paths`` is a link.
    """
    for path in paths:
        if path.is_symlink():
            raise InputError(f"{path} is a link, and what is written there would be elsewhere: remove it")


def is_start(folder: Path) -> bool:
    """Return whether a folder holds a run without a checkpoint, rather than somebody's own config."""
    if not (folder / "config.yaml").is_file() or has_checkpoints(folder):
        return False
    if any((folder / name).exists() for name in (LOCK, *OF_A_START[1:])) or any(folder.glob(CURVES)):
        return True
    try:
        config = read_yaml(folder / "config.yaml")
    except InputError:
        return False
    return isinstance(config, dict) and "ckpt_path" in config  # a key that only a resolved config has


def has_checkpoints(folder: Path) -> bool:
    """Return whether a run folder has a finished checkpoint, of any name."""
    return any(path.is_file() and not path.name.startswith(".") for path in folder.rglob("*.ckpt"))


def put_away(folder: Path) -> Path | None:
    """Make room for a new run in the folder of one that has no checkpoint.

    Config and logs of the old run move to the folder ``abandoned`` inside (``abandoned-2`` and so on if it exists);
    files that a kill left half written are removed.

    Returns:
        The folder that they moved to; None if there was no such run.

    Raises:
        InputError: a file cannot be moved.
    """
    for partial in (folder / "checkpoints").glob(".*partial*"):  # nobody else writes while the folder is held
        partial.unlink(missing_ok=True)
    if not is_start(folder):
        return None
    left = [folder / name for name in OF_A_START if (folder / name).is_file()] + sorted(folder.glob(CURVES))
    away = new_folder(folder / "abandoned")
    try:
        for path in left:
            path.replace(away / path.name)
    except OSError as error:
        raise InputError(f"cannot move {error.filename} to {away}: {error.strerror}") from error
    return away


def _last_of(folder: Path) -> Path:
    path = folder / "checkpoints" / "last.ckpt"
    if not path.is_file():
        anew = "; it never got that far: start it anew, by the same command without --ckpt_path"
        anew = anew if is_start(folder) else ""
        raise InputError(f"{folder} has no last checkpoint: {path} does not exist{anew}")
    return path


def _newest() -> Path:
    checkpoints = sorted(RUNS.glob("*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
    if not checkpoints:
        raise InputError(f"no run with a last checkpoint under {RUNS}/; name one with --trainer.default_root_dir")
    return checkpoints[-1]


def _leaf(name: str) -> str:
    return name.rpartition(".")[2].replace(os.sep, "_")


def _job() -> str | None:
    """Return the launcher's number for this job if it started several processes; None otherwise."""
    if int(os.environ.get("SLURM_NTASKS", 1)) > 1 and "SLURM_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_JOB_ID']}.{os.environ.get('SLURM_STEP_ID', 0)}"
    return os.environ.get("TORCHELASTIC_RUN_ID")
