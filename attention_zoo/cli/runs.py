"""Run folders: how a new one is named, and which one ``--ckpt_path last`` means."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attention_zoo.cli.checkpoint import Checkpoint, read_checkpoint
from attention_zoo.errors import InputError

RUNS = Path("runs")
"""Where runs go that were given no folder."""

KEYWORDS = ("last", "best")
"""What ``--ckpt_path`` takes beside a file."""


def fresh_folder(config: Mapping[str, Any]) -> Path:
    """A folder under ``runs/`` that no run has yet, named after mixer and data.

    All processes of a job must agree on it: where a launcher numbers its jobs, that number takes the place of the
    time. (Processes that Lightning starts are told the folder.)
    """
    model, data = config.get("model") or {}, config.get("data") or {}
    options = model.get("init_args") or {}
    mixer = (options.get("mixer") or {}).get("class_path") or options.get("model") or model.get("class_path") or "run"
    parts = [_leaf(mixer), _leaf(data.get("class_path") or "data"), _job() or time.strftime("%Y%m%d-%H%M%S")]
    name = "-".join(parts)
    taken = [] if _job() else [path.name for path in RUNS.glob(f"{name}*")]
    return RUNS / (f"{name}-{len(taken) + 1}" if taken else name)


def find_checkpoint(wanted: str, folder: Path | None) -> Checkpoint:
    """The checkpoint that ``--ckpt_path`` names: a file, or the last or best of a run.

    Args:
        wanted: a path, ``"last"`` or ``"best"``.
        folder: the run that the keywords mean; without one, the newest under ``runs/``.

    Raises:
        InputError: there is none.
    """
    if wanted not in KEYWORDS:
        return read_checkpoint(Path(wanted))
    last = _last_of(folder) if folder else _newest()
    found = read_checkpoint(last)
    if wanted == "last":
        return found
    if found.best is None:
        raise InputError(f"{last.parent.parent} has no best checkpoint: no ModelCheckpoint of that run has a monitor")
    beside = last.parent / Path(found.best).name  # the run may have moved since
    return read_checkpoint(beside if beside.is_file() else Path(found.best))


def guard_run(folder: Path, checkpoint: Checkpoint | None) -> None:
    """Refuse to train in the folder of another run.

    Raises:
        InputError: ``folder`` holds a run and ``checkpoint`` does not continue it.
    """
    if not (folder / "config.yaml").is_file():
        return
    if checkpoint and checkpoint.run_folder and checkpoint.run_folder.resolve() == folder.resolve():
        return
    raise InputError(
        f"{folder} already holds a run: continue it with --ckpt_path last, "
        "or choose another folder with --trainer.default_root_dir"
    )


def _last_of(folder: Path) -> Path:
    path = folder / "checkpoints" / "last.ckpt"
    if not path.is_file():
        raise InputError(f"{folder} has no last checkpoint: {path} does not exist")
    return path


def _newest() -> Path:
    found = sorted(RUNS.glob("*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise InputError(f"no run with a last checkpoint under {RUNS}/; name one with --trainer.default_root_dir")
    return found[-1]


def _leaf(name: str) -> str:
    return name.rpartition(".")[2].replace(os.sep, "_")


def _job() -> str | None:
    """The launcher's number for this job, where it started several processes."""
    if int(os.environ.get("SLURM_NTASKS", 1)) > 1 and "SLURM_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_JOB_ID']}.{os.environ.get('SLURM_STEP_ID', 0)}"
    return os.environ.get("TORCHELASTIC_RUN_ID")
