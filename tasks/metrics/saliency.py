"""Metrics of maps against where people looked: NSS, AUC-Judd, CC, SIM and KL.

All are those of the MIT saliency benchmark (Z. Bylinskii et al., What do different evaluation metrics tell us about
saliency models?, TPAMI 2019), whose authors released them as Matlab code. Maps are (R, H, W), of R ways to look at one
image, ``seen`` (H, W) bool are its fixated pixels, ``density`` (H, W) sums to 1. A map that is the same everywhere says
nothing and gets what chance gets.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

from attention_zoo.functional.checks import check_finite
from attention_zoo.scales import PROPORTION, Scale


def nss(maps: Tensor, seen: Tensor) -> Tensor:
    """Return the normalised scanpath saliency (R,) of maps: their z-score at the fixations; chance is 0.

    The standard deviation is that of a sample, N - 1. R. J. Peters et al., Components of bottom-up gaze allocation in
    natural images, Vision Research 2005.
    """
    spread = maps.flatten(1).std(1)
    return (maps[:, seen].mean(1) - maps.flatten(1).mean(1)) / torch.where(spread > 0, spread, torch.inf)


def auc_judd(maps: Tensor, seen: Tensor) -> Tensor:
    """Return the area (R,) under the ROC curve of fixated against all other pixels; chance is 0.5.

    That is the probability that a fixated pixel is above another one; ties count half, which is what the authors'
    jitter makes of them. Their curve, straight between the thresholds of n fixations, has up to 1/2n more below it.
    T. Judd et al., Learning to Predict Where Humans Look, ICCV 2009.
    """
    fixated = maps[:, seen].sort(1).values
    others = maps[:, ~seen]
    if not others.shape[1]:
        return maps.new_full((len(maps),), 0.5)
    below = torch.searchsorted(fixated, others) + torch.searchsorted(fixated, others, right=True)
    return 1 - below.double().mean(1) / (2 * fixated.shape[1])


def cc(maps: Tensor, density: Tensor) -> Tensor:
    """Return the linear correlation (R,) of maps with the density of fixations; chance is 0."""
    maps, density = (values - values.mean((-2, -1), keepdim=True) for values in (maps, density))
    norms = maps.norm(dim=(1, 2)) * density.norm()
    return (maps * density).sum((1, 2)) / torch.where(norms > 0, norms, torch.inf)


def sim(maps: Tensor, density: Tensor) -> Tensor:
    """Return the similarity (R,): what two distributions have in common; the map's begins at its least entry."""
    return torch.minimum(as_distribution(maps - maps.amin((1, 2), keepdim=True)), density).sum((1, 2))


def kl(maps: Tensor, density: Tensor) -> Tensor:
    """Return the divergence KL(density || map) (R,) in nats; negative entries of a map count as 0."""
    least = torch.finfo(torch.float64).eps
    return (density * (least + density / (as_distribution(maps.clamp(min=0)) + least)).log()).sum((1, 2))


def as_distribution(maps: Tensor) -> Tensor:
    """Return maps (R, H, W) without negative entries divided by their sum; even ones where all entries are 0."""
    total = maps.sum((1, 2), keepdim=True)
    even = torch.full_like(maps, 1 / maps[0].numel())
    return torch.where(total > 0, maps / torch.where(total > 0, total, 1), even)


def resized(single: Tensor, size: Sequence[int]) -> Tensor:
    """Return a map (h, w) in the size (H, W) of an image, float64."""
    return F.interpolate(single[None, None].double(), tuple(size), mode="bicubic", antialias=True)[0, 0]


class Saliency(Metric):
    """Every score of every image, for several maps of each; exact over processes.

    Args:
        rows: the number of maps of an image, R.
        images: the number of images, N.
    """

    SCALES: ClassVar[Mapping[str, Scale]] = {
        "nss": Scale("higher"),
        "auc_judd": PROPORTION,
        "cc": Scale("higher", -1.0, 1.0),
        "sim": PROPORTION,
        "kl": Scale("lower", 0.0),
    }
    """The `Scale` of each score, in the order in which they are kept."""

    values: Tensor
    counted: Tensor
    full_state_update = False

    def __init__(self, rows: int, images: int) -> None:
        super().__init__()
        shape = (rows, len(self.SCALES), images)
        self.add_state("values", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("counted", torch.zeros(images, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, index: int, maps: Sequence[Tensor], fixations: Tensor, density: Tensor) -> None:
        """Measure one image.

        Args:
            index: its place among the images.
            maps: R tensors (h, w), resized to the image (bicubic).
            fixations: (H, W) bool, with a fixated pixel.
            density: (H, W), which sums to 1.

        Raises:
            InputError: a map is not finite.
        """
        size = fixations.shape
        large = torch.stack([resized(check_finite("saliency maps", single[None])[0], size) for single in maps])
        density = density.double() / density.double().sum()  # a float32 sums to 1 but for rounding
        scores = [nss(large, fixations), auc_judd(large, fixations)]
        scores += [measure(large, density) for measure in (cc, sim, kl)]
        self.values[:, :, index] = torch.stack(scores, 1)
        self.counted[index] = 1

    def compute(self) -> Tensor:
        """Return the scores of the images that were measured, (R, scores, images) float64."""
        return self.values[:, :, self.counted > 0]
