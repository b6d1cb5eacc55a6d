"""Losses of masks against their formulas written out, pixels that do not count included."""

import pytest
import torch

from tasks.clicks.losses import LOSSES, normalised_focal


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    target = (torch.rand(3, 5, 6, generator=generator) > 0.6).double()
    counts = (torch.rand(3, 5, 6, generator=generator) > 0.2).double()
    return logits, target, counts


def written_out(name, logits, target, counts):
    p = logits.sigmoid()
    right = torch.where(target > 0, p, 1 - p)
    found = []
    for image in range(len(logits)):
        kept = counts[image] > 0
        r, t, q = right[image][kept], target[image][kept], p[image][kept]
        if name == "bce":
            found.append(-r.log().mean())
        elif name == "soft_iou":
            found.append(1 - (q * t).sum() / torch.maximum(q, t).sum())
        else:
            focus = (1 - r) ** 2
            found.append((-0.5 * r.log() * focus / focus.mean().detach()).mean())
    return torch.stack(found)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_their_formulas(name, case):
    torch.testing.assert_close(LOSSES[name](*case), written_out(name, *case), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", LOSSES)
def test_pixels_that_do_not_count_get_no_gradient(name, case):
    logits, target, counts = case
    LOSSES[name](logits, target, counts).sum().backward()
    assert (logits.grad[counts == 0] == 0).all()
    assert (logits.grad[counts > 0] != 0).any()


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_counts(name, case):
    logits, target, counts = case
    assert torch.isfinite(LOSSES[name](logits, target, 0 * counts)).all()


def test_focal_weights_hard_pixels(case):
    _, target, counts = case
    target, counts = torch.zeros_like(target), torch.ones_like(counts)
    logits = torch.full_like(target, -6.0)
    logits[:, 0, 0] = 1.0
    focal = normalised_focal(logits, target, counts)
    assert (focal > 5 * 0.5 * LOSSES["bce"](logits, target, counts)).all()
