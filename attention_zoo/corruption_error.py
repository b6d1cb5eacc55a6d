"""The mean corruption error of ImageNet-C.

    CE_c = mean over severities of err(c, s) / AlexNet's mean error under c,    mCE = 100 mean over c of CE_c

D. Hendrycks, T. Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, ICLR 2019.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

from attention_zoo.errors import InputError

ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
"""AlexNet's top-1 error on ImageNet-C, mean over the five severities, in the canonical order of the 15 corruptions."""

CATEGORIES = {
    name: category
    for names, category in (
        (("gaussian_noise", "shot_noise", "impulse_noise"), "noise"),
        (("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"), "blur"),
        (("snow", "frost", "fog", "brightness"), "weather"),
        (("contrast", "elastic_transform", "pixelate", "jpeg_compression"), "digital"),
    )
    for name in names
}
"""The category of each of the 15 corruptions, as the authors of ImageNet-C sort them."""

EXTRA_ALEXNET_ERRORS = {
    "speckle_noise": 0.845388,
    "gaussian_blur": 0.787108,
    "spatter": 0.717512,
    "saturate": 0.658248,
}
"""AlexNet's top-1 error, likewise, under the four validation corruptions, which the mCE leaves out."""


def mean_corruption_error(errors: Mapping[str, float], *, normalised: bool) -> float:
    """Return the mean corruption error in percent.

    Args:
        errors: the mean error over the severities, 0..1, by the name of the corruption; those of the four
            validation corruptions count only where there are no others.
        normalised: whether to divide by AlexNet's errors, which are of ImageNet-C and all five severities; if not,
            the plain mean is taken.

    Raises:
        InputError: ``errors`` is empty, or AlexNet's error under one of the corruptions is not known.
    """
    if not errors:
        raise InputError("a mean corruption error needs at least one corruption")
    errors = {name: error for name, error in errors.items() if name not in EXTRA_ALEXNET_ERRORS} or errors
    if not normalised:
        return 100 * fmean(errors.values())
    known = ALEXNET_ERRORS | EXTRA_ALEXNET_ERRORS
    missing = [name for name in errors if name not in known]
    if missing:
        raise InputError(f"AlexNet's error under {missing[0]} is not known; known: {', '.join(known)}")
    return 100 * fmean(error / known[name] for name, error in errors.items())


def of_alexnets_kind(benchmark: str, corruptions: Sequence[str], severities: Sequence[int]) -> bool:
    """Return whether AlexNet's errors apply: ImageNet-C, all five severities, and corruptions that they cover."""
    known = ALEXNET_ERRORS.keys() | EXTRA_ALEXNET_ERRORS.keys()
    return benchmark == "imagenet_c" and set(severities) == {1, 2, 3, 4, 5} and known >= set(corruptions)
