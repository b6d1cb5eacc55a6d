"""Arguments out of range, of every data module: one line that names the argument."""

import inspect
import math

import pytest

import datamodules as dm
from attention_zoo.errors import InputError
from datamodules.checks import require_whole
from datamodules.loading import DataModule

NEEDED = {
    "root": "nowhere",
    "val": "nowhere",
    "test": "nowhere",
    "target": "sketch",
    "class_names": ["a", "b"],
    "dataset": "pascal_voc12",
}
"""For what a data module cannot do without."""

KINDS = {name: kind for name in dm.__all__ if not inspect.isabstract(kind := getattr(dm, name))}

HUGE = 10**400
BAD = {
    "batch_size": [0, -1, 1.5, True, 10**20, HUGE, "many"],
    "num_workers": [-1, 10**20, HUGE, 0.5, math.nan],
    "mean": [(math.nan, 0.0, 0.0), (0.0, 0.0), (0.0, math.inf, 0.0), 0.5],
    "std": [(0.0, 1.0, 1.0), (-1.0, 1.0, 1.0), (math.nan, 1.0, 1.0), (math.inf, 1.0, 1.0), (1.0,), (HUGE, 1.0, 1.0)],
    "image_size": [0, -5, 10**6, 10**20, HUGE, 7.5, math.nan, (8, 0), (8, 8, 8), (10**5, 10**5), (), "8", [[8, 8]]],
    "box": [(0, 8), (8, -8), (10**20, 8), (8,)],
    "repeated_augmentation": [0, -3, 1.5],
    "val_fraction": [0.0, -0.1, 1.0, math.nan, math.inf, -math.inf, HUGE, "half"],
    "test_fraction": [0.0, 0.95, math.nan, math.inf],
    "holdout": [0.0, 1.0, -1.0, math.nan, math.inf],
    "min_fill": [-0.1, 1.1, math.nan],
    "min_area": [0, -4, 1.5],
    "val_size": [0, -1],
    "num_train": [0, -1],
    "val_images": [0, -1],
    "trials": [0, -1, 10**20],
    "padding": [-1.0, math.nan, math.inf, HUGE],
    "corner_noise": [-0.1, 0.5, math.nan],
    "scale": [(0.0, 1.0), (2.0, 1.0), (math.nan, 1.0), (1.0, math.inf), (1.0,), (-1.0, 1.0)],
    "scenes": [(0, 1, 1), (1, -1, 1), (1, 1, 10**20), (1, 1.5, 1), (1, 1)],
    "scene_size": [(8, 8), (10**20, 16), (10**6, 10**6)],
    "num_classes": [0, -1, 10**20],
    "ignored": [[-1], [256], [0], [1.5]],
    "corruptions": [[], ["fog", "fog"], ["fgo"]],
    "severities": [[], [0], [6], [1, 1], [1.0], [True], [10**400]],
    "images_per_cell": [0, -1],
    "corruption_seed": [-1, 10**20, 1.5],
}
"""For each argument values that it must refuse."""


def parameters(kind):
    """Names of all arguments, those that are handed on included."""
    bases = [base for base in kind.__mro__ if issubclass(base, DataModule) and "__init__" in vars(base)]
    named = (name for base in bases for name in inspect.signature(base.__init__).parameters)
    return set(named) - {"self", "kwargs", "loading"}


def needed(kind):
    own = inspect.signature(kind.__init__).parameters
    return {name: value for name, value in NEEDED.items() if name in own}


@pytest.mark.parametrize("name", KINDS)
def test_every_argument_out_of_range_is_named(name):
    kind = KINDS[name]
    kind(**needed(kind))
    tried = 0
    for argument in sorted(BAD.keys() & parameters(kind)):
        for value in BAD[argument]:
            try:
                kind(**needed(kind) | {argument: value})
            except InputError as error:
                assert "severity" in str(error) or "corruption" in str(error) or argument in str(error), error
                assert "\n" not in str(error) and len(str(error)) < 400
            except TypeError as error:  # an argument that this one sets itself
                assert "multiple values" in str(error) or "unexpected keyword" in str(error), (argument, value, error)
            else:
                pytest.fail(f"{name}({argument}={str(value)[:50]}) was taken")
            tried += 1
    assert tried > 10


def test_a_number_of_thousands_of_digits_can_be_refused():
    with pytest.raises(InputError, match="^seed must be at most 4, got a number of about 10001 digits$"):
        require_whole("seed", 10**10_000, 0, 4)
