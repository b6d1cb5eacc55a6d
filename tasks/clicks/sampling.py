"""Random clicks for training, placed where the model may be wrong or is wrong."""

import torch
from torch import Tensor

from attention_zoo.clicks import NEGATIVE, PADDING, POSITIVE, Clicks
from tasks.clicks.annotator import squared_depth


def sample_clicks(
    region: Tensor, label: int, counts: tuple[int, int], generator: torch.Generator | None = None
) -> Clicks:
    """Return clicks of one kind at distinct random pixels of a region, a random number of them for each image.

    Args:
        region: (B, H, W) bool, where they may be; an image without such a pixel gets none.
        label: the label of the clicks, ``POSITIVE`` or ``NEGATIVE``.
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
    kept = (best >= 0) & (torch.arange(most, device=region.device) < wanted[:, None])
    return Clicks(points, torch.where(kept, label, PADDING), checked=True)


def sample_corrections(
    missed: Tensor,
    false: Tensor,
    positive: tuple[int, int],
    negative: tuple[int, int],
    generator: torch.Generator | None = None,
) -> Clicks:
    """Return random positive clicks in what was missed and negative ones in what is false; see `sample_clicks`.

    Without a prediction, ``missed`` is the object and ``false`` the background: random clicks.

    Args:
        missed: (B, H, W) bool.
        false: (B, H, W) bool.
        positive: least and largest number of positive clicks.
        negative: least and largest number of negative clicks.
        generator: on the CPU; default is torch's.
    """
    first = sample_clicks(missed, POSITIVE, positive, generator)
    return first.then(sample_clicks(false, NEGATIVE, negative, generator))


def sample_deep(missed: Tensor, false: Tensor, generator: torch.Generator | None = None) -> Clicks:
    """Return one click an image, at random where the errors are more than half as deep as at their deepest.

    The errors are what was missed or what is false, whichever is deeper. An image without errors gets no click. This is
    how RITM trains (K. Sofiiuk et al., ICIP 2022).

    Args:
        missed: (B, H, W) bool.
        false: (B, H, W) bool.
        generator: on the CPU; default is torch's.
    """
    inner, labels = [], []
    for regions in zip(missed.cpu().numpy(), false.cpu().numpy(), strict=True):
        depths = [squared_depth(region) for region in regions]
        positive = depths[0].max() > depths[1].max()
        depth = depths[0 if positive else 1]
        inner.append(torch.from_numpy(4 * depth > depth.max()))  # squares
        labels.append(POSITIVE if positive else NEGATIVE)
    drawn = sample_clicks(torch.stack(inner).to(missed.device), POSITIVE, (1, 1), generator)
    label = torch.tensor(labels, device=missed.device)[:, None]
    return Clicks(drawn.points, torch.where(drawn.labels == PADDING, PADDING, label), checked=True)
