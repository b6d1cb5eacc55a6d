"""Simulated annotators, who choose where the next click goes."""

from collections.abc import Sequence
from typing import Literal, get_args

import cv2
import numpy as np
import torch
from torch import Tensor

from attention_zoo.clicks import PADDING, Click, Clicks
from attention_zoo.errors import InputError, unknown

Strategy = Literal["center", "random"]
STRATEGIES = get_args(Strategy)
Generator = torch.Generator | np.random.Generator

Mask = np.ndarray | Tensor
"""A mask (H, W) bool, of NumPy or torch."""


def next_click(
    prediction: Mask,
    target: Mask,
    *,
    ignore: Mask | None = None,
    clicks: Sequence[tuple[float, float, bool]] = (),
    strategy: Strategy = "center",
    generator: Generator | None = None,
) -> Click | None:
    """Return the next click of a simulated annotator.

    ``center``: the pixel of the errors that is farthest from their border, which the border of the image is too; of
    several the first in row-major order. It is positive if that distance is larger in missed than in false object (K.
    Sofiiuk et al., Reviving Iterative Training with Mask Guidance, ICIP 2022, after N. Xu et al., CVPR 2016).
    ``random``: any pixel of the largest connected region of missed or of false object, all alike (P. Gabbur et al.,
    NeurIPS 2021, appendix C.3). Pixels that were clicked are not clicked again.

    Args:
        prediction: (H, W) bool, the predicted object.
        target: (H, W) bool, the object.
        ignore: (H, W) bool, pixels that are neither right nor wrong.
        clicks: those made so far, (y, x, positive).
        strategy: ``center`` or ``random``.
        generator: draws the pixel of ``random``; default is torch's.

    Returns:
        Row, column and whether the click is positive; None if nothing is wrong, or only pixels that were clicked.

    Raises:
        InputError: the masks are of different sizes, a click is outside of them, or there is no such strategy.
    """
    prediction, target, counts = _as_arrays(prediction, target, ignore)
    missed, false = target & ~prediction & counts, prediction & ~target & counts
    free = np.ones(target.shape, dtype=bool)
    if clicks:
        before = [Click(y, x, bool(positive)) for y, x, positive in clicks]
        rows, columns = np.asarray([click[:2] for click in before], dtype=np.int64).T
        _check_inside(rows, columns, target.shape)
        free[rows, columns] = False
    if strategy == "center":
        return _centre(missed, false, free)
    if strategy == "random":
        return _anywhere(missed, false, free, generator)
    raise unknown("strategy", strategy, STRATEGIES)


class Annotators:
    """One annotator for each object of a batch, who looks at the predicted masks and clicks where they are wrong.

    Args:
        target: (B, H, W) bool, the objects.
        ignore: (B, H, W) bool, pixels that are neither right nor wrong.
        strategy: how the clicks are placed, see `next_click`.
        seeds: the seed of each annotator's clicks.

    Attributes:
        clicks: the clicks of all annotators, in the order they were made.
        history: the clicks of each annotator.
    """

    def __init__(self, target: Tensor, ignore: Tensor, strategy: Strategy, seeds: Sequence[int]) -> None:
        self.target, self.ignore, self.strategy = target.cpu().numpy(), ignore.cpu().numpy(), strategy
        self.generators = [np.random.default_rng(seed) for seed in seeds]
        self.clicks = Clicks.empty(len(target), target.device)
        self.history: list[list[Click]] = [[] for _ in seeds]

    def click(self, prediction: Tensor) -> Tensor:
        """Let each annotator click once on its predicted mask, unless nothing is wrong with it.

        Args:
            prediction: (B, H, W) bool, the predicted masks.

        Returns:
            Which annotators clicked, (B,) bool.
        """
        masks = zip(prediction.cpu().numpy(), self.target, self.ignore, strict=True)
        new = [
            next_click(mask, target, ignore=ignore, clicks=history, strategy=self.strategy, generator=generator)
            for (mask, target, ignore), history, generator in zip(masks, self.history, self.generators, strict=True)
        ]
        for history, click in zip(self.history, new, strict=True):
            history += [] if click is None else [click]
        if any(new):
            points = torch.tensor([click[:2] if click else (0, 0) for click in new], dtype=torch.float32)
            labels = torch.tensor([int(click.positive) if click else PADDING for click in new])
            self.clicks = self.clicks.append(points, labels)
        return torch.tensor([click is not None for click in new], device=prediction.device)


def _as_arrays(prediction: Mask, target: Mask, ignore: Mask | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the predicted object, the object, and the pixels that count, each an array (H, W) bool.

    Raises:
        InputError: the masks are not (H, W) of one size.
    """
    masks = [
        mask.detach().cpu().numpy() if isinstance(mask, Tensor) else np.asarray(mask) for mask in (prediction, target)
    ]
    ignored = np.zeros_like(masks[1], dtype=bool) if ignore is None else ignore
    masks.append(ignored.detach().cpu().numpy() if isinstance(ignored, Tensor) else np.asarray(ignored))
    if masks[0].ndim != 2 or len({mask.shape for mask in masks}) > 1:
        shapes = ", ".join(str(mask.shape) for mask in masks)
        raise InputError(f"prediction, target and ignore must be masks (H, W) of one size, got {shapes}")
    prediction, target, ignored = (mask.astype(bool, copy=False) for mask in masks)
    return prediction, target, ~ignored


def _check_inside(rows: np.ndarray, columns: np.ndarray, size: tuple[int, int]) -> None:
    outside = (rows < 0) | (columns < 0) | (rows >= size[0]) | (columns >= size[1])
    if outside.any():
        first = outside.argmax()
        raise InputError(
            f"the click at ({rows[first]}, {columns[first]}) is outside the image of {size[0]} x {size[1]}"
        )


def _centre(missed: np.ndarray, false: np.ndarray, free: np.ndarray) -> Click | None:
    depths = [squared_depth(region) * free for region in (missed, false)]
    positive = bool(depths[0].max() > depths[1].max())
    depth = depths[0 if positive else 1]
    place = int(depth.argmax())
    if depth.flat[place] == 0:
        return None
    y, x = divmod(place, depth.shape[1])
    return Click(y, x, positive)


def squared_depth(region: np.ndarray) -> np.ndarray:
    """Return the squared distance (H, W) int64 of every pixel of a region to the nearest pixel outside of it.

    Squares are whole numbers, so that pixels of equal depth are equal: OpenCV's roots differ in their last digit from
    call to call, which would leave it to chance which of several deepest pixels is clicked.
    """
    depth = np.zeros(region.shape, dtype=np.int64)
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    if len(rows):  # the nearest pixel outside is never beyond the line around the bounding box
        part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        padded = np.pad(region[part].astype(np.uint8), 1)
        roots = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
        depth[part] = np.rint(np.square(roots, dtype=np.float64))
    return depth


def _anywhere(missed: np.ndarray, false: np.ndarray, free: np.ndarray, generator: Generator | None) -> Click | None:
    largest = [_largest_region(region, free) for region in (missed, false)]
    positive = len(largest[0]) >= len(largest[1])
    places = largest[0 if positive else 1]
    if not len(places):
        return None
    if isinstance(generator, np.random.Generator):
        chosen = int(generator.integers(len(places)))
    else:
        chosen = int(torch.randint(len(places), (), generator=generator))
    y, x = divmod(int(places[chosen]), missed.shape[1])
    return Click(y, x, positive)


def _largest_region(region: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Return the flat indices, int64, of the free pixels in one connected part of a region.

    It is the part with the most free pixels; pixels that touch at a corner are connected.
    """
    labels = cv2.connectedComponents(region.astype(np.uint8))[1] * free
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.flatnonzero(labels == sizes.argmax()) if sizes.any() else np.empty(0, dtype=np.int64)
