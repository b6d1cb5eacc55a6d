"""The columns of a robustness evaluation that say what a model's confidence is worth."""

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
from torch import Tensor, nn

from attention_zoo.errors import InputError, unknown
from attention_zoo.evaluation import Cell
from attention_zoo.results.confidence import Confidence, aurc, detection
from tasks.metrics.confidence import ConfidenceRecords

CLEAN = "clean"


class ConfidenceColumns(nn.Module):
    """Confidences of several models on the clean images and on those of other benchmarks.

    Args:
        cells: all cells of the data.
        rows: the names of the models.
        outliers: the names of the other benchmarks; None records nothing.

    Raises:
        InputError: there is no such benchmark, or it has corruptions or is the clean one, or no clean one is there.
    """

    def __init__(self, cells: Sequence[Cell], rows: Sequence[str], outliers: Sequence[str] | None) -> None:
        super().__init__()
        without = {cell.benchmark.name: place for place, cell in enumerate(cells) if cell.corruption is None}
        names = [] if outliers is None else [CLEAN, *outliers]
        for name in names:
            if name not in without:
                raise unknown("benchmark without corruptions in outliers:", name, without)
        if len(set(names)) < len(names):
            raise InputError(f"outliers: {list(outliers or ())} must be different, and none of them {CLEAN}")
        self.titles = {name: cells[without[name]].benchmark.title for name in names}
        self.places = {name: without[name] for name in names}
        self.rows = {row: str(place) for place, row in enumerate(rows)}
        own = {name: cells[place].images for name, place in self.places.items()}
        self.records = nn.ModuleDict(
            {
                number: nn.ModuleDict({name: ConfidenceRecords(own[name]) for name in names})
                for number in self.rows.values()
            }
        )

    def update(self, row: str, logits: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Record the answers of a model to a batch.

        Args:
            row: the name of the model.
            logits: (N, C).
            batch: ``cell``, ``number`` and ``label`` of its images, (N,) int64 each.
        """
        for name, place in self.places.items():
            chosen = batch["cell"] == place
            if chosen.any():
                self._of(row, name).update(logits[chosen], batch["label"][chosen], batch["number"][chosen])

    def of(self, row: str) -> Confidence | None:
        """Return the numbers of a model over all processes; None where no clean image was recorded.

        A benchmark of which no image was seen, in a test of a part of the data, has none.
        """
        if not self.places:
            return None
        found = {}
        for name in self.places:
            with self._of(row, name).sync_context():
                # compute squeezes what is of one image
                found[name] = tuple(np.atleast_1d(values.cpu().numpy()) for values in self._of(row, name).compute())
        clean, right = found.pop(CLEAN)
        if not len(clean):
            return None
        seen = ((name, other) for name, (other, _) in found.items() if len(other))
        told = (detection(name, self.titles[name], clean, other) for name, other in seen)
        return Confidence(aurc(clean, right), tuple(told))

    def _of(self, row: str, name: str) -> ConfidenceRecords:
        return cast(ConfidenceRecords, cast(nn.ModuleDict, self.records[self.rows[row]])[name])
