"""What a classifier's confidence is worth: for refusing to answer, and for telling images that are unlike the others.

Confidence is the probability of the most probable class (D. Hendrycks, K. Gimpel, A Baseline for Detecting
Misclassified and Out-of-Distribution Examples, ICLR 2017).
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from attention_zoo.errors import InputError
from attention_zoo.runs.results import is_number


@dataclass(frozen=True)
class Detection:
    """How well confidence tells the images of a benchmark from the clean ones; all in percent.

    Attributes:
        benchmark: the name of the benchmark.
        title: its title in tables.
        images: the number of its images.
        auroc: the probability that a clean image has the higher confidence, ties count half; chance is 50.
        fpr95: the share of the benchmark's images that pass where 95 % of the clean ones do.
    """

    benchmark: str
    title: str
    images: int
    auroc: float
    fpr95: float


@dataclass(frozen=True)
class Confidence:
    """The numbers of one model.

    Attributes:
        aurc: the area under the risk-coverage curve of the clean images, in percent: the mean error among the k most
            confident images, over all k (Y. Geifman, G. Uziel, R. El-Yaniv, ICLR 2019).
        detections: one for each benchmark that confidence was to tell from the clean one.
    """

    aurc: float
    detections: tuple[Detection, ...] = ()


def aurc(confidence: np.ndarray, right: np.ndarray) -> float:
    """Return the area under the risk-coverage curve in percent; errors spread evenly over images of one confidence.

    Args:
        confidence: (N,) of the images.
        right: (N,) bool, whether the answer is right.
    """
    values, place = np.unique(-confidence, return_inverse=True)
    answered = np.arange(1, len(confidence) + 1)
    until = np.cumsum(np.bincount(place, minlength=len(values)))
    wrong = np.cumsum(np.bincount(place, weights=~right, minlength=len(values)))
    return float(100 * np.mean(np.interp(answered, [0, *until], [0, *wrong]) / answered))


def detection(benchmark: str, title: str, clean: np.ndarray, other: np.ndarray) -> Detection:
    """Return how well confidence tells ``other`` images from the clean ones, both (N,) confidences."""
    from sklearn.metrics import roc_auc_score, roc_curve  # imported here, since training needs none of it

    is_clean = np.repeat([1, 0], [len(clean), len(other)])
    confidence = np.concatenate([clean, other])
    false, true, _ = roc_curve(is_clean, confidence, drop_intermediate=False)
    fpr95 = false[np.argmax(true >= 0.95)]
    area = roc_auc_score(is_clean, confidence)
    return Detection(benchmark, title, len(other), float(100 * area), float(100 * fpr95))


def read_confidence(content: object) -> Confidence | None:
    """Return the numbers from the plain values that a file holds; None is none.

    Raises:
        InputError: they are something else, or cannot be.
    """
    if content is None:
        return None
    known = {"aurc", "detections"}
    if not isinstance(content, dict) or content.keys() != known or not isinstance(content["detections"], list):
        raise InputError(f"confidence must have aurc and detections, got {content!r:.60}")
    names = {entry.name for entry in fields(Detection)}
    for entry in content["detections"]:
        if not isinstance(entry, dict) or entry.keys() != names:
            raise InputError(f"a detection must have {', '.join(sorted(names))}, got {entry!r:.60}")
    found = Confidence(content["aurc"], tuple(Detection(**entry) for entry in content["detections"]))
    for wrong in _wrong(found):
        raise InputError(wrong)
    return found


def _wrong(found: Confidence) -> Iterator[str]:
    numbers: list[tuple[str, Any]] = [("aurc", found.aurc)]
    for each in found.detections:
        numbers += [(f"auroc of {each.title}", each.auroc), (f"fpr95 of {each.title}", each.fpr95)]
        if not isinstance(each.benchmark, str) or not isinstance(each.title, str):
            yield f"benchmark and title of a detection must be words, got {each.benchmark!r:.60}, {each.title!r:.60}"
        if type(each.images) is not int or each.images < 1:
            yield f"images of a detection must be a number from 1, got {each.images!r:.60}"
    for name, value in numbers:
        if not is_number(value) or not 0 <= value <= 100:
            yield f"{name} must be a number from 0 to 100, got {value!r:.60}"
