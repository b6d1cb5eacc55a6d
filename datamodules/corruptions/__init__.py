"""The corruptions of ImageNet-C, Tiny-ImageNet-C and CIFAR-10-C, made here for images of any size.

D. Hendrycks, T. Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, ICLR 2019.
The functions follow the authors' scripts that made the released images, their quirks included, but draw from a random
generator of their own, so that a seed gives the same image everywhere. Numbers on images that are made here are not
numbers on the released ones, which are JPEG files: say "generated" beside them.
"""

from datamodules.corruptions.apply import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    GROUPS,
    Corruption,
    corrupt,
    corruptions_at,
    require_corruption,
    require_severity,
)
from datamodules.corruptions.parameters import SCALES, SIZES, Scale, scale_for
from datamodules.corruptions.pixels import Picture

__all__ = [
    "CORRUPTIONS",
    "EXTRA_CORRUPTIONS",
    "GROUPS",
    "SCALES",
    "SIZES",
    "Corruption",
    "Picture",
    "Scale",
    "corrupt",
    "corruptions_at",
    "require_corruption",
    "require_severity",
    "scale_for",
]
