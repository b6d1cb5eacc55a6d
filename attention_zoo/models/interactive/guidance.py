"""Draws clicks and boxes as image channels."""

import math

import torch
from torch import Tensor

from attention_zoo.clicks import PADDING, POSITIVE, Clicks


def disks(clicks: Clicks, size: tuple[int, int], radius: float) -> Tensor:
    """Return clicks as binary disks, positive and negative ones in channels of their own.

    A disk has the pixels whose centres are at most ``radius`` away from the click; with radius 0, the clicked pixel.
    (Gabbur et al., NeurIPS 2021, appendix C.1, have a radius of 8; RITM, Sofiiuk et al., ICIP 2022, of 5.)

    Args:
        clicks: clicks on B images; the parts of disks outside the image are cut off.
        size: height and width of the images in pixels.
        radius: radius of the disks in pixels.

    Returns:
        (B, 2, H, W) float32 of 0 and 1: positive clicks, then negative ones.
    """
    device, (height, width) = clicks.points.device, size
    reach = math.floor(radius + 0.5)
    offsets = torch.arange(-reach, reach + 1, device=device)
    pixels = clicks.points.round().long()[..., None, :] + torch.cartesian_prod(offsets, offsets)  # (B, n, K, 2)
    counts = (pixels - clicks.points[..., None, :]).square().sum(-1) <= max(radius**2, 0.5)
    counts &= (pixels >= 0).all(-1) & (pixels[..., 0] < height) & (pixels[..., 1] < width)
    counts &= (clicks.labels != PADDING)[..., None]
    plane = 2 * torch.arange(clicks.batch_size, device=device)[:, None] + (clicks.labels != POSITIVE)
    place = (plane[..., None] * height + pixels[..., 0]) * width + pixels[..., 1]
    total = clicks.batch_size * 2 * height * width
    flat = torch.zeros(total + 1, device=device)  # the last takes what counts nowhere, so that no shape depends on it
    flat.scatter_(0, torch.where(counts, place, total).flatten(), 1.0)
    return flat[:-1].view(-1, 2, height, width)


def box_disks(box: Tensor, size: tuple[int, int], radius: float) -> Tensor:
    """Return a box as two disks at opposite corners (Gabbur et al., NeurIPS 2021, appendix C.1).

    Args:
        box: (B, 4), row and column of one corner, then of the opposite one: whichever two the annotator clicked. NaN:
            no box, and no disk.
        size: height and width of the images in pixels.
        radius: radius of the disks in pixels.

    Returns:
        (B, 1, H, W) float32 of 0 and 1.

    Raises:
        InputError: a coordinate of a corner is infinite.
    """
    known = ~box.isnan().any(-1)[:, None].expand(-1, 2)  # (B, 2)
    corners = torch.where(known[..., None], box.view(-1, 2, 2), 0.0)
    return disks(Clicks(corners, torch.where(known, POSITIVE, PADDING)), size, radius)[:, :1]
