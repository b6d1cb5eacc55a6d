"""Simulated annotators: where the next click goes, where clicks go in training, and how many clicks a mask takes."""

from collections.abc import Sequence
from typing import Any, Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from attention_zoo.clicks import NEGATIVE, PADDING, POSITIVE, Clicks
from attention_zoo.errors import InputError, unknown

Click = tuple[int, int, bool]
"""Row, column, and whether it is on the object."""

Mask = np.ndarray | Tensor
"""(H, W) bool."""


def next_click(
    prediction: Mask,
    target: Mask,
    *,
    ignore: Mask | None = None,
    clicks: Sequence[Click] = (),
    strategy: Literal["center", "random"] = "center",
    generator: torch.Generator | np.random.Generator | None = None,
) -> Click | None:
    """Where an annotator clicks next.

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
        generator: of ``random``; default is torch's.

    Returns:
        Row, column and whether the click is positive; None if nothing is wrong, or only pixels that were clicked.

    Raises:
        InputError: the masks are of different sizes, a click is outside of them, or there is no such strategy.
    """
    prediction, target, counts = _as_arrays(prediction, target, ignore)
    missed, false = target & ~prediction & counts, prediction & ~target & counts
    free = np.ones(target.shape, dtype=bool)
    if clicks:
        rows, columns = np.asarray([click[:2] for click in clicks], dtype=np.int64).T
        _check_inside(rows, columns, target.shape)
        free[rows, columns] = False
    if strategy == "center":
        return _centre(missed, false, free)
    if strategy == "random":
        return _anywhere(missed, false, free, generator)
    raise unknown("strategy", strategy, ("center", "random"))


def _as_arrays(prediction: Mask, target: Mask, ignore: Mask | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted object, object, and pixels that count, (H, W) bool."""
    masks = [
        mask.detach().cpu().numpy() if isinstance(mask, Tensor) else np.asarray(mask) for mask in (prediction, target)
    ]
    given = np.zeros_like(masks[1], dtype=bool) if ignore is None else ignore
    masks.append(given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given))
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
    depths = [_depth(region) * free for region in (missed, false)]
    positive = bool(depths[0].max() > depths[1].max())
    depth = depths[0 if positive else 1]
    place = int(depth.argmax())
    if depth.flat[place] == 0:
        return None
    y, x = divmod(place, depth.shape[1])
    return y, x, positive


def _depth(region: np.ndarray) -> np.ndarray:
    """Distance of every pixel of a region to the nearest pixel outside of it, float32."""
    depth = np.zeros(region.shape, dtype=np.float32)
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    if len(rows):  # the nearest pixel outside is never beyond the line around the bounding box
        part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        padded = np.pad(region[part].astype(np.uint8), 1)
        depth[part] = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    return depth


def _anywhere(
    missed: np.ndarray, false: np.ndarray, free: np.ndarray, generator: torch.Generator | np.random.Generator | None
) -> Click | None:
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
    return y, x, positive


def _largest_region(region: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Flat indices of the free pixels in the connected part (also across corners) that has most of them."""
    labels = cv2.connectedComponents(region.astype(np.uint8))[1] * free
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.flatnonzero(labels == sizes.argmax()) if sizes.any() else np.empty(0, dtype=np.int64)


def number_of_clicks(ious: Any, threshold: float, max_clicks: int = 20) -> Tensor:
    """How many clicks each image takes (NoC): the first click after which the IoU is high enough.

    Args:
        ious: (images, clicks), IoU after the first click, the second, and so on; an array or a tensor.
        threshold: the IoU that is wanted, such as 0.9.
        max_clicks: the number for images that never reach it; later clicks do not count.

    Returns:
        (images,) int64, 1 to ``max_clicks``.

    Raises:
        InputError: ``ious`` has another shape, or no click.
    """
    ious = torch.as_tensor(ious)
    if ious.dim() != 2 or not ious.shape[1] or max_clicks < 1:
        raise InputError(f"ious must be (images, clicks) with at least one click, got {tuple(ious.shape)}")
    reached = ious[:, :max_clicks] >= threshold
    first = reached.to(torch.int64).argmax(1) + 1
    return torch.where(reached.any(1), first, max_clicks)


def sample_clicks(
    region: Tensor, label: int, counts: tuple[int, int], generator: torch.Generator | None = None
) -> Clicks:
    """Clicks of one kind at random pixels of a region, different ones, a random number for each image.

    Args:
        region: (B, H, W) bool, where they may be; an image without such a pixel gets none.
        label: of the clicks, positive or negative.
        counts: least and largest number of clicks, both included.
        generator: on the CPU; default is torch's.

    Returns:
        Clicks of B images, padded to ``counts[1]`` each.
    """
    batch, height, width = region.shape
    most = min(counts[1], height * width)
    wanted = torch.randint(counts[0], counts[1] + 1, (batch,), generator=generator).to(region.device)
    order = torch.rand(batch, height * width, generator=generator).to(region.device)
    order = torch.where(region.flatten(1), order, -1.0)  # pixels outside come last
    best, place = order.topk(most, dim=1)
    points = torch.stack([place // width, place % width], -1).float()
    made = (best >= 0) & (torch.arange(most, device=region.device) < wanted[:, None])
    return Clicks(points, torch.where(made, label, PADDING))


def sample_corrections(
    missed: Tensor,
    false: Tensor,
    positive: tuple[int, int],
    negative: tuple[int, int],
    generator: torch.Generator | None = None,
) -> Clicks:
    """Positive clicks in what was missed and negative ones in what is false; see `sample_clicks`.

    Without a prediction, ``missed`` is the object and ``false`` the background: random clicks.

    Args:
        missed: (B, H, W) bool.
        false: (B, H, W) bool.
        positive: least and largest number of positive clicks.
        negative: least and largest number of negative clicks.
        generator: on the CPU; default is torch's.
    """
    first = sample_clicks(missed, POSITIVE, positive, generator)
    second = sample_clicks(false, NEGATIVE, negative, generator)
    return first.append(second.points, second.labels)


def sample_deep(missed: Tensor, false: Tensor, generator: torch.Generator | None = None) -> Clicks:
    """One click an image, at random where the errors are more than half as deep as at their deepest.

    The errors are what was missed or what is false, whichever is deeper. An image without gets no click. So does RITM
    (K. Sofiiuk et al., ICIP 2022) train.

    Args:
        missed: (B, H, W) bool.
        false: (B, H, W) bool.
        generator: on the CPU; default is torch's.
    """
    inner, labels = [], []
    for regions in zip(missed.cpu().numpy(), false.cpu().numpy(), strict=True):
        depths = [_depth(region) for region in regions]
        positive = depths[0].max() > depths[1].max()
        depth = depths[0 if positive else 1]
        inner.append(torch.from_numpy(depth > depth.max() / 2))
        labels.append(POSITIVE if positive else NEGATIVE)
    found = sample_clicks(torch.stack(inner).to(missed.device), POSITIVE, (1, 1), generator)
    label = torch.tensor(labels, device=missed.device)[:, None]
    return Clicks(found.points, torch.where(found.labels == PADDING, PADDING, label))
