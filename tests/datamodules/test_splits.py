from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules import CIFAR10, PACS, Digits, ImageFolder
from datamodules.splits import stratified_split


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=80), st.data())
def test_sets_are_disjoint_and_of_the_asked_sizes(labels, data):
    first = data.draw(st.integers(0, len(labels)))
    second = data.draw(st.integers(0, len(labels) - first))
    sizes = (first, second, len(labels) - first - second)
    sets = stratified_split(labels, *sizes)
    assert tuple(map(len, sets)) == sizes
    assert sorted(index for indices in sets for index in indices) == list(range(len(labels)))
    assert all(indices == sorted(indices) for indices in sets)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 6), st.integers(1, 12), st.integers(0, 2**31), st.data())
def test_equal_classes_get_equal_shares(classes, count, seed, data):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(classes), count)).tolist()
    (chosen,) = stratified_split(labels, data.draw(st.integers(0, len(labels))))
    shares = Counter({label: 0 for label in range(classes)}) + Counter(labels[i] for i in chosen)
    assert max(shares.values(), default=0) - min(shares[label] for label in range(classes)) <= 1


def test_unequal_classes_keep_their_shares():
    labels = [0] * 800 + [1] * 150 + [2] * 50
    for chosen in stratified_split(labels, 100, 100, 800):
        shares = np.bincount([labels[i] for i in chosen]) / len(chosen)
        np.testing.assert_allclose(shares, [0.8, 0.15, 0.05], atol=0.011)


def test_the_split_is_shuffled_and_smaller_ones_are_part_of_larger_ones():
    labels = [0, 1] * 50
    val, small = map(set, stratified_split(labels, 10, 20))
    same_val, large = map(set, stratified_split(labels, 10, 60))
    assert val == same_val and small < large
    assert val != set(range(10))


def contents(split):
    return [split.images[i].numpy().tobytes() for i in range(len(split.images))]


def test_parts_never_overlap_and_cover_the_data(make, monkeypatch):
    splits = {}
    for seed in ("1", "2"):
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        data = make()
        data.setup("fit")
        data.setup("test")
        splits[seed] = {part: contents(split) for part, split in data.splits.items()}
    assert splits["1"] == splits["2"]
    images = [image for part in splits["1"].values() for image in part]
    # scikit-learn's digits hold no two equal images, the noise of the others does not either.
    assert len(set(images)) == len(images) == {CIFAR10: 110, Digits: 1797, ImageFolder: 30, PACS: 140}[type(data)]
    for part in data.splits.values():
        assert set(part.columns["label"]) == set(range(data.num_classes))


@pytest.mark.parametrize("stages", [("validate", "fit"), ("fit", "validate", "fit")])
def test_the_order_of_the_stages_does_not_matter(make, stages):
    data, reference = make(), make()
    reference.setup("fit")
    for stage in stages:
        data.setup(stage)
    for part in ("train", "val"):
        assert contents(data.splits[part]) == contents(reference.splits[part])
        assert data.splits[part].columns == reference.splits[part].columns


def test_digits_are_split_60_20_20():
    data = Digits()
    data.setup("fit")
    data.setup("test")
    assert {part: len(split.images) for part, split in data.splits.items()} == {"train": 1079, "val": 359, "test": 359}
    assert int(data.splits["train"].images.max()) == 255
