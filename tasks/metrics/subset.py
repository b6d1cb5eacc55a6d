"""Top-1 accuracy among some of a model's outputs, counted in several cells at once."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from attention_zoo.errors import InputError
from attention_zoo.functional.checks import check_finite


class ClassSubset(nn.Module):
    """The choice of the outputs of a model that compete for an image.

    ImageNet-A and -R have 200 of ImageNet's classes; the other 800 logits are left out before the argmax (D.
    Hendrycks et al., Natural Adversarial Examples, CVPR 2021; The Many Faces of Robustness, ICCV 2021).

    Args:
        classes: indices of these outputs, ascending; None is all.

    Raises:
        InputError: the indices are none, negative or not ascending.
    """

    kept: Tensor | None

    def __init__(self, classes: Sequence[int] | None = None) -> None:
        super().__init__()
        if classes is not None and (not classes or list(classes) != sorted(set(classes)) or classes[0] < 0):
            raise InputError(f"classes must be indices of outputs in ascending order, got {list(classes)[:5]} ...")
        self.register_buffer("kept", None if classes is None else torch.tensor(classes), persistent=False)

    def forward(self, logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (N, K) of the K kept outputs, and the labels (N,) as positions among them.

        Args:
            logits: (N, C), of all outputs of the model.
            label: (N,) int64, outputs of the model.

        Raises:
            InputError: there are fewer logits, one is not finite, or a label is none of the outputs that compete.
        """
        check_finite("logits", logits)
        if self.kept is None:
            return logits, label
        if logits.shape[1] <= int(self.kept[-1]):
            raise InputError(f"the model has {logits.shape[1]} outputs, the benchmark's classes reach {self.kept[-1]}")
        place = torch.searchsorted(self.kept, label).clamp(max=len(self.kept) - 1)
        foreign = label[self.kept[place] != label]
        if len(foreign):
            raise InputError(f"label {int(foreign[0])} is none of the benchmark's {len(self.kept)} classes")
        return logits[:, self.kept], place


class SubsetAccuracy(Metric):
    """Top-1 accuracy among ``classes``, in each of ``cells``.

    Args:
        classes: the outputs that compete, ascending; None is all.
        cells: parts that are counted on their own.
        **metric: arguments of torchmetrics' Metric.

    Attributes:
        correct: (cells,) int64, number of images whose answer is right.
        total: (cells,) int64, number of images.
    """

    correct: Tensor
    total: Tensor
    higher_is_better: bool | None = True
    plot_lower_bound: float | None = 0.0
    plot_upper_bound: float | None = 1.0
    is_differentiable = False
    full_state_update = False

    def __init__(self, classes: Sequence[int] | None = None, cells: int = 1, **metric: Any) -> None:
        super().__init__(**metric)
        self.subset = ClassSubset(classes)
        for name in ("correct", "total"):
            self.add_state(name, torch.zeros(cells, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, label: Tensor, cell: Tensor | None = None) -> None:
        """Count the images of a batch in their cells.

        Args:
            logits: (N, C), of all outputs of the model.
            label: (N,) int64, outputs of the model.
            cell: (N,) int64, the cell of each; default the first.

        Raises:
            InputError: a logit is not finite, there are too few of them, or a label is none of the classes.
        """
        logits, label = self.subset(logits, label)
        cell = torch.zeros_like(label) if cell is None else cell
        self.total += cell.bincount(minlength=len(self.total))
        self.correct += cell[logits.argmax(1) == label].bincount(minlength=len(self.total))

    def compute(self) -> Tensor:
        """Return the accuracy of each cell (cells,) in 0..1; NaN where nothing was counted. Without cells a scalar."""
        return (self.correct.double() / self.total).squeeze()
