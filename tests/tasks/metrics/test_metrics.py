import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from torchmetrics.functional.classification import multiclass_calibration_error

from attention_zoo.corruption_error import ALEXNET_ERRORS, EXTRA_ALEXNET_ERRORS, mean_corruption_error
from attention_zoo.errors import InputError
from tasks.metrics import CalibrationError, MeanCorruptionError, SubsetAccuracy


def batch(count=60, classes=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=generator) * 2
    return logits, torch.randint(classes, (count,), generator=generator)


def test_alexnets_own_errors_give_exactly_100():
    assert mean_corruption_error(ALEXNET_ERRORS, normalised=True) == 100
    assert len(ALEXNET_ERRORS) == 15
    for name, error in EXTRA_ALEXNET_ERRORS.items():
        assert mean_corruption_error({name: error}, normalised=True) == 100


def test_the_released_formula():
    """Accuracy over severities first, then 100 - it over 100 times the reference, then the mean."""
    accuracy = {name: 30.0 + place for place, name in enumerate(ALEXNET_ERRORS)}
    released = sum((100 - value) / (100 * ALEXNET_ERRORS[name]) for name, value in accuracy.items()) / 15 * 100
    errors = {name: 1 - value / 100 for name, value in accuracy.items()}
    assert mean_corruption_error(errors, normalised=True) == pytest.approx(released)


def test_the_mean_of_no_errors_or_unknown_ones():
    with pytest.raises(InputError, match="at least one"):
        mean_corruption_error({}, normalised=True)
    with pytest.raises(InputError, match="under rain is not known; known: gaussian_noise"):
        mean_corruption_error({"rain": 0.5}, normalised=True)
    assert mean_corruption_error({"rain": 0.5, "hail": 0.7}, normalised=False) == pytest.approx(60)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), classes=st.sets(st.integers(0, 9), min_size=1))
def test_subset_accuracy_is_masking_by_hand(seed, classes):
    classes = sorted(classes)
    logits, _ = batch(seed=seed)
    label = torch.tensor(classes)[torch.randint(len(classes), (60,))]
    metric = SubsetAccuracy(classes)
    for part in (slice(0, 13), slice(13, 60)):
        metric.update(logits[part], label[part])
    masked = torch.full_like(logits, -torch.inf)
    masked[:, classes] = logits[:, classes]
    assert metric.compute() == (masked.argmax(1) == label).double().mean()


def test_accuracy_of_cells():
    logits, label = batch()
    cell = torch.arange(60) % 3
    metric = SubsetAccuracy(cells=4)
    metric.update(logits, label, cell)
    right = logits.argmax(1) == label
    assert metric.total.tolist() == [20, 20, 20, 0]
    assert_close(metric.compute()[:3], torch.stack([right[cell == place].double().mean() for place in range(3)]))
    assert metric.compute()[3].isnan()


@pytest.mark.parametrize(
    ("classes", "label", "said"),
    [
        ((0, 3), 2, "label 2 is none of the benchmark's 2 classes"),
        ((0, 3), 7, "label 7 is none"),
        ((0, 12), 0, "has 10 outputs"),
    ],
)
def test_labels_and_outputs_that_do_not_fit(classes, label, said):
    with pytest.raises(InputError, match=said):
        SubsetAccuracy(classes).update(torch.zeros(1, 10), torch.tensor([label]))


@pytest.mark.parametrize("classes", [(), (3, 1), (1, 1), (-1, 2)])
def test_classes_that_are_no_subset(classes):
    with pytest.raises(InputError, match="ascending"):
        SubsetAccuracy(classes)


@pytest.mark.parametrize("normalised", [True, False])
def test_the_error_is_counted_over_corruptions_and_severities(normalised):
    names = ["fog", "snow"]
    metric = MeanCorruptionError(names, 5, normalised=normalised)
    wrong = torch.tensor([[0, 1, 2, 3, 4], [5, 5, 5, 5, 5]])  # of ten images a cell
    for corruption in range(2):
        for severity in range(5):
            label = (torch.arange(10) < wrong[corruption, severity]).long()
            cell = torch.full((10,), corruption * 5 + severity)
            metric.update(torch.tensor([[1.0, 0.0]]).repeat(10, 1), label, cell)
    errors = {"fog": 0.2, "snow": 0.5}
    expected = mean_corruption_error(errors, normalised=normalised)
    assert metric.compute().item() == pytest.approx(expected)
    assert metric.normalised is normalised


def test_calibration_is_torchmetrics():
    logits, label = batch(500)
    metric = CalibrationError()
    for part in (slice(0, 100), slice(100, 500)):
        metric.update(logits[part], label[part])
    expected = multiclass_calibration_error(logits.double(), label, num_classes=10, n_bins=15)
    assert metric.compute().item() == pytest.approx(expected.item(), abs=1e-6)
    classes = [1, 4, 5]
    kept = torch.isin(label, torch.tensor(classes))
    metric = CalibrationError(classes, cells=2, bins=7)
    metric.update(logits[kept], label[kept], torch.ones_like(label[kept]))
    own = torch.searchsorted(torch.tensor(classes), label[kept])
    expected = multiclass_calibration_error(logits[kept][:, classes].double(), own, num_classes=3, n_bins=7)
    assert metric.compute()[0].isnan()
    assert metric.compute()[1].item() == pytest.approx(expected.item(), abs=1e-6)


def test_certain_predictions_fall_into_the_last_bin():
    metric = CalibrationError()
    metric.update(torch.tensor([[1e4, 0.0], [1e4, 0.0]]), torch.tensor([0, 1]))
    assert metric.compute() == 0.5


def test_states_are_sums_that_do_not_grow():
    for metric in (SubsetAccuracy(cells=3), CalibrationError(cells=3)):
        sizes = {name: value.shape for name, value in metric.metric_state.items()}
        for seed in range(3):
            metric.update(*batch(seed=seed))
        assert {name: value.shape for name, value in metric.metric_state.items()} == sizes
        assert {reduction.__name__ for reduction in metric._reductions.values()} == {"dim_zero_sum"}
