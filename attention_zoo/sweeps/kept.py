"""What a broken training of a sweep has left, and whether it can go on from there."""

from pathlib import Path
from typing import Any

from attention_zoo.errors import InputError

SHARDED = "FullySharded"
"""The class of the trainer's strategy that loads no checkpoint; see `tasks.sharding`."""


def config_in(checkpoint: Path) -> dict[str, Any] | None:
    """Return the config of a training that left a whole checkpoint; None if there is none."""
    from attention_zoo.runs.checkpoint import read_checkpoint

    try:
        return read_checkpoint(checkpoint).config
    except InputError:
        return None


def is_sharded(config: dict[str, Any]) -> bool:
    """Return whether a config trains with the strategy that loads no checkpoint, `SHARDED`."""
    trainer = config.get("trainer")
    strategy = trainer.get("strategy") if isinstance(trainer, dict) else None
    name = strategy.get("class_path") if isinstance(strategy, dict) else strategy
    return str(name).rpartition(".")[2] == SHARDED
