"""Reads a checkpoint's config and metadata without running any code from it."""

import inspect
import json
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from attention_zoo.compat import UNSAFE
from attention_zoo.errors import InputError
from attention_zoo.runs.files import parse_yaml
from attention_zoo.runs.place import FIRST_BATCH, FIRST_EPOCH
from attention_zoo.runs.trust import FLAG, check_names, check_places, is_trusted, untrusted

CLASSES = "class_names"
"""The key of a checkpoint under which the command line keeps the names of the classes, in the order of their labels."""

CONFIG = "config"
"""The key of a checkpoint under which the command line keeps its config, as YAML."""

TAKEN = ("model", "data", "seed_everything")
"""Parts of the config that every command takes from a checkpoint."""

OF_THE_MACHINE = ("accelerator", "strategy", "devices", "num_nodes", "logger")
"""Trainer arguments of a fit that its evaluation, elsewhere and without curves, does not take over."""

OF_THE_NUMBERS = ("precision", "deterministic", "benchmark", "enable_progress_bar", "enable_model_summary")
"""Trainer arguments of a fit that its evaluation does take over: how numbers are computed and what is shown."""

FROM_ELSEWHERE = {"pretrained": False, "weights": None, "start": None, "download": False}
"""Arguments of model and data that read or fetch other weights, or write data; with the values that turn them off."""

SCHEDULES = "lr_schedulers"
"""The key of a checkpoint under which the states of the learning-rate schedules are listed."""

DEFAULT_OPTIMIZER = "AdamW"
"""The optimizer of a task that is given none."""

OF_A_TRAINING = {"optimizer_states": list, SCHEDULES: list, "loops": dict}
"""Keys, with their types, that a checkpoint needs beside the weights for a fit to go on from it.

None may be empty but the list of schedules, since a task of its own may have none.
"""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint file, without its tensors."""

    path: Path
    config: dict[str, Any] | None
    epoch: int
    step: int
    best: str | None
    """Where the best checkpoint of the same run was, if the run watched a metric."""
    trusted: bool = False
    """Whether the config may name classes of any module."""
    lacks: tuple[str, ...] = ()
    """The keys of `OF_A_TRAINING` that the file lacks."""
    displaced: bool = False
    """Whether the file was written within an epoch and does not keep the place in it, as older versions did not."""
    schedules: int = 0
    """The number of learning-rate schedules whose state the file holds."""
    class_names: tuple[str, ...] | None = field(default=None, repr=False)
    """The names of the classes that were trained on, in the order of their labels; None if the file does not tell."""
    kinds: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The kind of number of each weight, by its name: real, complex, integer or boolean."""

    @property
    def run_folder(self) -> Path | None:
        """Return the folder of the run that wrote the file, wherever it was moved to; None outside of a run."""
        return next((folder for folder in self.path.absolute().parents[:2] if (folder / "config.yaml").is_file()), None)

    def config_for(self, command: str) -> str | None:
        """Return the config that a command takes from the checkpoint, as YAML; None if there is none.

        A fit goes on with the trainer too. Other commands take model, data and seed, and of the trainer only
        `OF_THE_NUMBERS`; the rest has Lightning's defaults. The folder of the run is left out.

        Raises:
            InputError: the config of an untrusted checkpoint names something that it may not.
        """
        taken = self.taken(command)
        return None if taken is None else yaml.safe_dump(taken, sort_keys=False)

    def taken(self, command: str) -> dict[str, Any] | None:
        """Return the config of `config_for` as plain values.

        Raises:
            InputError: the config of an untrusted checkpoint names something that it may not.
        """
        if self.config is None:
            return None
        config = {key: self.config[key] for key in TAKEN if key in self.config}
        config |= {part: _on_its_own(config[part]) for part in ("model", "data") if part in config}
        trainer = self.config.get("trainer")
        trainer = dict(trainer) if isinstance(trainer, dict) else {}
        trainer.pop("default_root_dir", None)
        if command == "fit":
            if not self.trusted:
                check_places(trainer, self.path)
        else:
            trainer = _for_evaluation(trainer)
        config = {**config, "trainer": trainer}
        if not self.trusted:
            check_names(config, self.path)
        return config


def read_checkpoint(path: Path, *, trust: bool = False, weights_only: bool = True) -> Checkpoint:
    """Return the checkpoint at ``path``, without its tensors.

    Args:
        path: path of the file.
        trust: whether the reader trusts it; a folder that `attention_zoo.runs.trust.TRUSTED` lists does as well.
        weights_only: whether it must hold tensors and plain values alone; what else it holds is code that runs.

    Raises:
        InputError: the file does not exist, is no checkpoint, has parts of the wrong kind, or would run code when it
            is loaded.
    """
    if not path.is_file():
        reason = "is a folder" if path.is_dir() else "is no regular file" if path.exists() else "does not exist"
        raise InputError(f"{path} {reason}" if path.exists() else f"checkpoint {path} {reason}")
    trusted = is_trusted(path, trust)
    if not (weights_only or trusted):
        raise untrusted(path, "is to be loaded with weights_only: false, which runs what code it holds")
    content = _load(path, weights_only)
    if not isinstance(content, dict) or "state_dict" not in content:
        raise InputError(f"{path} is not a checkpoint of this program: it has no state_dict")
    weights = content["state_dict"]
    _check_weights(weights, path)
    lacks = tuple(key for key, kind in OF_A_TRAINING.items() if not _has(content.get(key), kind, key == SCHEDULES))
    config = _config(content.get(CONFIG), path)
    return Checkpoint(
        path=path,
        config=config,
        epoch=_count(content, "epoch", path),
        step=_count(content, "global_step", path),
        best=_best(content.get("callbacks"), path),
        trusted=trusted,
        lacks=lacks,
        displaced="loops" not in lacks and _displaced(content),
        schedules=0 if SCHEDULES in lacks else len(content[SCHEDULES]),
        class_names=_class_names(content.get(CLASSES), config or {}),
        kinds={name: _kind(weight) for name, weight in weights.items() if isinstance(weight, Tensor)},
    )


def of_a_run(path: Path) -> Checkpoint | None:
    """Return the checkpoint at ``path``; None if the file is none of a run, but bare weights or something else."""
    try:
        return read_checkpoint(path)
    except InputError:
        return None


def check_fit(checkpoint: Checkpoint) -> None:
    """Check that a training can go on from a checkpoint.

    Raises:
        InputError: it lacks some of `OF_A_TRAINING`, or does not tell where in its epoch it was written.
    """
    if checkpoint.displaced:
        raise InputError(
            f"{checkpoint.path} was written within an epoch by a version that kept no place in it, so that no training "
            "can go on from it; take one that was written at the end of an epoch"
        )
    if checkpoint.lacks:
        raise InputError(
            f"{checkpoint.path} has no {', '.join(checkpoint.lacks)}, so that no training can go on from it; "
            f"to start another one from its weights, give them as model.weights"
        )


def check_optimizer(checkpoint: Checkpoint, config: Mapping[str, Any]) -> None:
    """Check that a training goes on with the optimizer whose state a checkpoint holds; other numbers would not count.

    Args:
        checkpoint: the checkpoint that a training goes on from.
        config: the config of the training.

    Raises:
        InputError: the configs name different classes, or numbers of them.
    """
    kept, given = (_optimizer(each) for each in (checkpoint.config or {}, config))
    if kept is None or given is None or kept == given:
        return
    why = f"the state of {kept[0]}, from which no {given[0]} can go on"
    if kept[0] == given[0]:
        names = [name for name in {**kept[1], **given[1]} if kept[1].get(name) != given[1].get(name)]
        why = f"the numbers of {kept[0]} ({', '.join(names)}), which those of model.optimizer would not change"
    raise InputError(
        f"checkpoint {checkpoint.path} holds {why}: leave out model.optimizer, or start another training from its "
        "weights: model.weights"
    )


def _optimizer(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Return the name of the optimizer's class in a config, and its arguments; None if its task has no such option."""
    options: Any = config
    for key in ("model", "init_args"):
        options = options.get(key) if isinstance(options, Mapping) else None
    if not isinstance(options, Mapping) or "optimizer" not in options:
        return None
    chosen = options["optimizer"]
    if not isinstance(chosen, Mapping):
        chosen = {"class_path": chosen or DEFAULT_OPTIMIZER}
    arguments = json.loads(json.dumps(chosen.get("init_args") or {}, default=str))  # a tuple is a list in a file
    return str(chosen.get("class_path")).rpartition(".")[2], arguments


def check_schedules(checkpoint: Checkpoint, wanted: int) -> None:
    """Check that a checkpoint has a state for each learning-rate schedule; Lightning would start others anew.

    Args:
        checkpoint: the checkpoint that a training goes on from.
        wanted: the number of schedules of the training.

    Raises:
        InputError: the numbers differ.
    """
    if checkpoint.schedules != wanted:
        raise InputError(
            f"checkpoint {checkpoint.path} cannot be gone on from: learning-rate schedules: {checkpoint.schedules} in "
            f"the file, {wanted} in this training"
        )


def check_kinds(checkpoint: Checkpoint, model: torch.nn.Module) -> None:
    """Check that the weights are the same kind of number as those of ``model``; torch would convert them in silence.

    Raises:
        InputError: one is complex, boolean or an integer where the model's is real, or the other way round.
    """
    for name, own in model.state_dict().items():
        kind = checkpoint.kinds.get(name)
        if kind is not None and isinstance(own, Tensor) and kind != _kind(own):
            raise InputError(f"checkpoint {checkpoint.path}: weight {name} is {kind}, {_kind(own)} in the model")


def check_classes(checkpoint: Checkpoint, names: Sequence[str]) -> None:
    """Check that the labels of the data are those that a checkpoint was trained on, by the names of their classes.

    Names that are new to the checkpoint may stand for the same classes, which a warning tells.

    Args:
        checkpoint: the checkpoint.
        names: of the data's classes, in the order of their labels.

    Raises:
        InputError: a class of the checkpoint has another label in the data.
    """
    known, names = checkpoint.class_names, tuple(names)
    if known is None or known == names or len(known) != len(names):  # of another number, which the weights will tell
        return
    place = {name: label for label, name in enumerate(known)}
    moved = next(((name, label) for label, name in enumerate(names) if place.get(name, label) != label), None)
    if moved:
        name, label = moved
        order = f"[{', '.join(known)}]"
        raise InputError(
            f"checkpoint {checkpoint.path} was trained with class {name} as label {place[name]}, which is {label} in "
            f"these data: give the data that order, by data.class_names where they have it: {order:.200}"
        )
    other = next(pair for pair in zip(known, names, strict=True) if pair[0] != pair[1])
    rank_zero_warn(
        f"labels are taken by their place: class {other[0]} of checkpoint {checkpoint.path} for class {other[1]} of "
        f"the data, and so on"
    )


def _class_names(kept: Any, config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the names that a file keeps, or else those in its config, which names them where a user may choose."""
    data = config.get("data")
    options = data.get("init_args") if isinstance(data, Mapping) else None
    names = kept if kept is not None else options.get("class_names") if isinstance(options, Mapping) else None
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _displaced(content: Mapping[str, Any]) -> bool:
    """Return whether data of ours kept the epoch alone in a file that was written within one."""
    kept = [state for state in content.values() if isinstance(state, dict) and FIRST_EPOCH in state]
    try:
        loop = content["loops"]["fit_loop"]
        epochs, batches = loop["epoch_progress"]["current"], loop["epoch_loop.batch_progress"]
        within = epochs["ready"] == epochs["processed"] + 1 and not batches["is_last_batch"]
    except (KeyError, TypeError):  # of another version of Lightning, which says itself what it cannot read
        return False
    return within and any(FIRST_BATCH not in state for state in kept)


def _has(state: Any, kind: type, may_be_empty: bool) -> bool:
    return isinstance(state, kind) and (may_be_empty or bool(state))


def _kind(tensor: Tensor) -> str:
    if tensor.is_complex():
        return "complex"
    return "real" if tensor.is_floating_point() else "boolean" if tensor.dtype == torch.bool else "integer"


def _load(path: Path, weights_only: bool) -> Any:
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is not a checkpoint (or one that was cut short)")
    try:
        _check_archive(path)
        return torch.load(path, map_location="cpu", weights_only=weights_only, mmap=True)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        if not UNSAFE.search(str(error)):
            raise InputError(f"{path} is not a checkpoint") from error
        raise InputError(
            f"checkpoint {path} refused: it holds more than tensors and plain values, so loading it could run code; "
            f"if you trust the file, add {FLAG} --weights_only false"
        ) from error
    except Exception as error:  # a foreign file can make the reader fail in any way
        raise InputError(f"{path} is not a checkpoint") from error


def _check_archive(path: Path) -> None:
    """Refuse a program in TorchScript, and an archive that is larger unpacked than packed, which torch never writes."""
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
        if any(name.endswith("/constants.pkl") for name in archive.namelist()):
            raise InputError(f"{path} is not a checkpoint: it is a program in TorchScript")
    if unpacked > path.stat().st_size:
        raise InputError(f"{path} is not a checkpoint: it would unpack to {unpacked:,} bytes, as torch writes none")


def _check_weights(weights: Any, path: Path) -> None:
    if not isinstance(weights, Mapping):
        raise InputError(f"{path} is not a checkpoint: its state_dict is a {type(weights).__name__}, not named weights")
    for name, weight in weights.items():
        if not isinstance(name, str):
            raise InputError(f"{path} is not a checkpoint: its state_dict has the key {name!r}, which is no name")
        if isinstance(weight, Tensor) and (weight.layout != torch.strided or weight.is_meta or weight.is_quantized):
            raise InputError(f"{path} is not a checkpoint: weight {name} holds no plain numbers")


def _config(text: Any, path: Path) -> dict[str, Any] | None:
    if not isinstance(text, str):
        return None
    config = parse_yaml(text, f"the config in checkpoint {path}")
    return config if isinstance(config, dict) else None


def _count(content: dict[str, Any], key: str, path: Path) -> int:
    value = content.get(key, 0)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**62:
        shown = repr(value)
        raise InputError(f"checkpoint {path}: {key} is {shown[:40]}{'...' if len(shown) > 40 else ''}, not a count")
    return value


def _best(callbacks: Any, path: Path) -> str | None:
    """Return the path of the best checkpoint, by the first `ModelCheckpoint` that watched a metric; or None."""
    if callbacks is not None and not isinstance(callbacks, Mapping):
        raise InputError(f"checkpoint {path}: callbacks is a {type(callbacks).__name__}, not states by name")
    for name, state in (callbacks or {}).items():
        if str(name).startswith("ModelCheckpoint") and isinstance(state, Mapping) and state.get("monitor"):
            best = state.get("best_model_path")
            if isinstance(best, str) and best:
                return best
    return None


def _on_its_own(part: Any) -> Any:
    """Return the model or data of a config with the arguments of `FROM_ELSEWHERE` turned off."""
    if not isinstance(part, dict) or not isinstance(part.get("init_args"), dict):
        return part
    arguments = part["init_args"]
    return {**part, "init_args": arguments | {key: off for key, off in FROM_ELSEWHERE.items() if arguments.get(key)}}


def _for_evaluation(trainer: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a fit's trainer that its evaluation takes over."""
    from lightning import Trainer

    stock = {name: parameter.default for name, parameter in inspect.signature(Trainer).parameters.items()}
    taken = {}
    for key, value in trainer.items():
        if key in OF_THE_MACHINE or key not in stock:
            continue
        plain = value is None or isinstance(value, (str, bool, int))
        taken[key] = value if key in OF_THE_NUMBERS and plain else stock[key]
    return taken
