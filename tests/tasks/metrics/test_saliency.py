"""Metrics of maps against where people looked."""

import numpy as np
import pytest
import torch
from scipy.special import rel_entr
from sklearn.metrics import roc_auc_score
from torch.testing import assert_close

from tasks.metrics import Saliency
from tasks.metrics.saliency import auc_judd, cc, kl, nss, resized, sim


@pytest.fixture
def looked():
    """Three maps of 24 x 30, the pixels that eleven fixations hit, and a density."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(3, 24, 30, generator=generator, dtype=torch.float64)
    seen = torch.zeros(24 * 30, dtype=torch.bool)
    seen[torch.randperm(len(seen), generator=generator)[:11]] = True
    density = torch.rand(24, 30, generator=generator, dtype=torch.float64)
    return maps, seen.view(24, 30), density / density.sum()


def by_thresholds(single, seen):
    """AUC-Judd as its authors' code goes: a threshold at each fixation, then trapezoids."""
    pixels, fixated = single.flatten().numpy(), np.sort(single[seen].numpy())[::-1]
    hits, alarms = [0.0], [0.0]
    for place, threshold in enumerate(fixated, 1):
        above = (pixels >= threshold).sum()
        hits.append(place / len(fixated))
        alarms.append((above - place) / (len(pixels) - len(fixated)))
    return np.trapezoid([*hits, 1.0], [*alarms, 1.0])


def test_auc_judd(looked):
    maps, seen, _ = looked
    found = auc_judd(maps, seen)
    assert found.tolist() == pytest.approx([roc_auc_score(seen.flatten(), single.flatten()) for single in maps])
    for single, area in zip(maps, found.tolist(), strict=True):
        assert 0 <= by_thresholds(single, seen) - area <= 1 / (2 * 11)
    assert auc_judd(torch.where(seen, 2.0, maps), seen).tolist() == [1.0] * 3


def test_ties_count_half(looked):
    _, seen, _ = looked
    coarse = torch.arange(24 * 30).view(1, 24, 30).remainder(4).double()
    assert auc_judd(coarse, seen).item() == pytest.approx(roc_auc_score(seen.flatten(), coarse[0].flatten()))


def test_nss_is_the_z_score_at_the_fixations(looked):
    maps, seen, _ = looked
    for single, score in zip(maps.numpy(), nss(maps, seen).tolist(), strict=True):
        z = (single - single.mean()) / single.std(ddof=1)
        assert score == pytest.approx(z[seen.numpy()].mean(), abs=1e-12)
    everywhere = torch.ones(24, 30, dtype=torch.bool)
    assert nss(maps, everywhere).abs().max() < 1e-12


def test_distributions(looked):
    maps, _, density = looked
    truth = density.numpy()
    for place, single in enumerate(maps.numpy()):
        assert cc(maps, density)[place].item() == pytest.approx(np.corrcoef(single.ravel(), truth.ravel())[0, 1])
        lifted = single - single.min()
        assert sim(maps, density)[place].item() == pytest.approx(np.minimum(lifted / lifted.sum(), truth).sum())
        assert kl(maps, density)[place].item() == pytest.approx(rel_entr(truth, single / single.sum()).sum())
    same = density[None]
    assert_close(cc(same, density), torch.ones(1).double())
    assert_close(kl(same, density), torch.zeros(1).double(), atol=1e-12, rtol=0)
    shifted = density.clone()
    shifted[0, 0] = 0  # so that it begins at 0
    assert_close(sim((shifted / shifted.sum())[None], shifted / shifted.sum()), torch.ones(1).double())


def test_flat_maps_say_nothing(looked):
    _, seen, density = looked
    for flat in (torch.ones(1, 24, 30).double(), torch.zeros(1, 24, 30).double()):
        even = density.new_full((24, 30), 1 / (24 * 30))
        assert nss(flat, seen).item() == cc(flat, density).item() == 0
        assert auc_judd(flat, seen).item() == 0.5
        assert sim(flat, density).item() == pytest.approx(torch.minimum(even, density).sum().item())
        assert kl(flat, density).item() == pytest.approx(rel_entr(density.numpy(), even.numpy()).sum())


def test_negative_entries_count_as_none(looked):
    maps, _, density = looked
    signed = maps - 0.3
    assert_close(kl(signed, density), kl(signed.clamp(min=0), density))
    assert kl(signed, density).isfinite().all()


def test_maps_are_resized_to_the_stimulus():
    saliency = torch.zeros(4, 4)
    saliency[1, 2] = 1
    metric = Saliency(rows=1, images=2)
    for index, (row, column) in enumerate([(15, 25), (35, 5)]):
        seen = torch.zeros(40, 40, dtype=torch.bool)
        seen[row, column] = True
        metric.update(index, [saliency], seen, seen.float())
    inside, outside = metric.compute()[0, 0].tolist()
    assert inside > 2 > 0 > outside
    assert resized(saliency, (8, 16)).shape == (8, 16)


def test_images_that_were_not_measured_do_not_count(looked):
    maps, seen, density = looked
    metric = Saliency(rows=3, images=5)
    for index in (4, 1):
        metric.update(index, list(maps + index), seen, density)
    values = metric.compute()
    assert values.shape == (3, 5, 2)
    assert_close(values[:, 0], nss(maps, seen)[:, None].expand(3, 2))
    twin = Saliency(rows=3, images=5)
    twin.update(0, list(maps), seen, density)
    merged = metric.values + twin.values, metric.counted + twin.counted  # what processes do
    assert (merged[1] == torch.tensor([1, 1, 0, 0, 1])).all()
    assert_close(merged[0][:, :, 0], twin.values[:, :, 0])
