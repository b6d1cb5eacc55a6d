"""What each result of an evaluation says of how it came about, and the counts by which one that was cut off goes on."""

from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor
from torchmetrics import Metric


def circumstances(trainer: Trainer, packages: Iterable[str]) -> dict[str, Any]:
    """Return the date, the precision, and the versions of packages, for the facts of a result."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "precision": str(trainer.precision),
        "versions": {package: version(package) for package in packages},
    }


def counts_of(metric: Metric, states: Iterable[str], seen: int) -> dict[str, Tensor]:
    """Return copies of some states of a metric, by name, and the number of samples that it has seen."""
    return {**{name: getattr(metric, name).clone() for name in states}, "seen": torch.tensor(seen)}


def take_up(metric: Metric, states: Iterable[str], counts: dict[str, Tensor]) -> int:
    """Put what `counts_of` gave into a metric, and return the number of samples that it has seen."""
    for name in states:
        getattr(metric, name).copy_(counts[name])
    return int(counts["seen"])
