"""The names of metrics in words, as pages for readers have them."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

WORDS: Mapping[str, str | Callable[[re.Match[str]], str]] = {
    "accuracy": "accuracy",
    r"accuracy_top(\d+)": lambda found: f"top-{found[1]} accuracy",
    "loss": "loss",
    "mean_iou": "mean IoU",
    r"iou/(.+)": lambda found: f"IoU of {found[1]}",
    "pixel_accuracy": "accuracy of pixels",
    "mean_accuracy": "accuracy of classes, mean",
    r"(\w+)_quality": lambda found: f"{found[1]} quality",
    r"noc_(\d+)": lambda found: f"clicks to {found[1]} % IoU",
    r"nof_(\d+)": lambda found: f"objects that never reach {found[1]} % IoU",
    "clean": "accuracy on clean images",
    "fgsm": "accuracy under FGSM",
    "pgd": "accuracy under PGD",
    "autoattack": "accuracy under AutoAttack",
    "imagenet_c": "error under corruption (mCE), %",
    r"(cifar10|tiny_imagenet)_c": "error under corruption, %",
    "imagenet_a": "accuracy on ImageNet-A",
    "imagenet_r": "accuracy on ImageNet-R",
    "imagenet_sketch": "accuracy on ImageNet-Sketch",
    "images_per_second": "images/s",
    "seconds_per_click": "seconds a click",
}
"""Patterns of the ends of metrics' names, with what they are called; of other names the underscores become spaces."""


def in_words(metrics: Iterable[str]) -> dict[str, str]:
    """Return the names of metrics in words, each another one, by ``evaluation/metric`` or ``evaluation/row/metric``.

    The evaluation is named only where two metrics would have the same name without it.
    """
    metrics = list(dict.fromkeys(metrics))
    short = {metric: _words(metric.partition("/")[2] or metric) for metric in metrics}
    counts = Counter(short.values())
    long = {
        metric: words if counts[words] == 1 else f"{words}, {metric.partition('/')[0]}"
        for metric, words in short.items()
    }
    counts = Counter(long.values())
    return {metric: words if counts[words] == 1 else metric for metric, words in long.items()}


def _words(name: str) -> str:
    """Return a metric's name in words; what comes before its end, such as the row of a table, comes after the words."""
    for pattern, words in WORDS.items():
        found = re.fullmatch(rf"(?:(?P<row>.+)/)?(?P<end>{pattern})", name)
        if found is None:
            continue
        end = re.fullmatch(pattern, found["end"])
        said = words if isinstance(words, str) or end is None else words(end)
        return f"{said}, {found['row']}" if found["row"] else str(said)
    return name.replace("_", " ")
