"""Fixed stratified splits: they depend on the labels only, never on the seed of a run."""

from collections.abc import Sequence

import numpy as np

_SPLIT_SEED = 20_240_607
"""Changing it changes every split, and with them every published number."""


def stratified_split(labels: Sequence[int], *sizes: int) -> list[list[int]]:
    """Disjoint sets of positions in which the classes keep their shares.

    The samples are put into one fixed order that runs through all classes at the pace of their sizes, and each set is
    the next stretch of it. A set thus depends on what comes before it only: with the validation set first, training
    sets of different sizes are nested and never touch it.

    Args:
        labels: class of every sample.
        sizes: how many samples each set gets; together no more than there are.

    Returns:
        One ascending list of positions for each of ``sizes``.
    """
    classes = np.asarray(labels)
    shuffled = np.random.default_rng(_SPLIT_SEED).permutation(len(classes))
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    counts = np.unique(classes, return_counts=True)[1]
    pace = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    order = by_class[np.argsort(pace, kind="stable")]
    ends = np.cumsum(sizes)
    return [np.sort(order[end - size : end]).tolist() for size, end in zip(sizes, ends, strict=True)]
