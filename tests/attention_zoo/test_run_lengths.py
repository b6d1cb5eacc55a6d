"""Masks as run lengths: there and back, as COCO's own, and what is none."""

import warnings

import numpy as np
import pytest
import torch
from pycocotools import mask as coco

from attention_zoo.errors import InputError
from attention_zoo.run_lengths import RunLengths


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("size", [(5, 7), (1, 1), (64, 48)])
def test_there_and_back(size, share):
    mask = torch.rand(size, generator=torch.Generator().manual_seed(0)) < share
    runs = RunLengths.of(mask)
    assert torch.equal(runs.mask(), mask)
    assert RunLengths.parse(runs.plain()) == runs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pycocotools and NumPy 2
        theirs = coco.decode(coco.frPyObjects(runs.plain(), *size))
    np.testing.assert_array_equal(theirs, mask.numpy())


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {"size": [2, 2]},
        {"size": [2, 2], "counts": "04"},
        {"size": [2, 2], "counts": [5]},
        {"size": [2, 2], "counts": [5, -1]},
        {"size": [2, 2], "counts": [2.0, 2]},
        {"size": [2, 2], "counts": [True, 3]},
        {"size": [2, 2, 1], "counts": [4]},
        {"size": [2**40, 1], "counts": [2**40]},
    ],
)
def test_what_is_no_mask_is_refused(content):
    with pytest.raises(InputError, match="mask"):
        RunLengths.parse(content)
