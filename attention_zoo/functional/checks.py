"""Checks that refuse tensors and numbers that do not fit, in errors that name the argument."""

import sys
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from attention_zoo.domains import NOT_NEGATIVE, Domain, shown
from attention_zoo.errors import InputError, unknown
from attention_zoo.functional.mixture import Positions, Precision
from attention_zoo.functional.positions import FactoredPositions

FINITE = sys.float_info.max
POSITIVE, AT_LEAST_ONE, COUNTS = Domain(above=0), Domain(least=1), Domain(least=0, most=1 << 31)


def check_number(name: str, value: Any, domain: Domain, kind: Any = Real) -> None:
    """Raise an InputError unless ``value`` is a finite number of ``domain``; quick enough for forward passes.

    Args:
        name: the argument's name, for the error.
        value: the value to check; a bool is no number.
        domain: the numbers that are allowed.
        kind: the kind of number that is needed, `Real` or `Integral`.
    """
    is_number = isinstance(value, kind) and not isinstance(value, bool)
    if not is_number:
        raise InputError(f"{name}={shown(value)} must be {'an integer' if kind is Integral else 'a number'}")
    if not -FINITE <= value <= FINITE:  # NaN neither
        raise InputError(f"{name}={shown(value)} must be finite")
    if value not in domain:
        raise InputError(f"{name}={shown(value)} must {domain}")


def check_mixture(
    q: Tensor,
    k: Tensor,
    *,
    alpha: Precision,
    beta: Precision = 0.0,
    v: Tensor | None = None,
    v_init: Tensor | None = None,
    q_pos: Positions | None = None,
    k_pos: Positions | None = None,
    v_pos: Positions | None = None,
    log_mixing: Tensor | None = None,
) -> None:
    """Raise an InputError that names the first argument of a mixture whose shape or value does not fit."""
    units, pair = k.shape[:3], (q.shape[2], k.shape[2])
    if q.shape[:2] != k.shape[:2] or q.shape[3] != k.shape[3]:
        raise InputError(f"q {tuple(q.shape)} and k {tuple(k.shape)} must agree in all but the number of tokens")
    for name, precision in (("alpha", alpha), ("beta", beta)):
        if isinstance(precision, Tensor):
            _check_units(name, precision, units)
        else:
            check_number(name, precision, POSITIVE if name == "alpha" else NOT_NEGATIVE)
    if log_mixing is not None:
        _check_units("log_mixing", log_mixing, units)
    if v is not None and v.shape[:3] != units:
        raise InputError(f"v {tuple(v.shape)} must be {tuple(units)} and its width")
    width = None if v is None else v.shape[3]
    if v_init is not None and v_init.shape != (*q.shape[:3], width):
        raise InputError(f"v_init {tuple(v_init.shape)} must be {(*q.shape[:3], width)}")
    for name, positions, shape in (
        ("q_pos", q_pos, (*pair, q.shape[3])),
        ("k_pos", k_pos, (*reversed(pair), q.shape[3])),
        ("v_pos", v_pos, (*pair, width)),
    ):
        if isinstance(positions, Tensor) and positions.shape != shape:
            raise InputError(f"{name} {tuple(positions.shape)} must be {shape}")
        if isinstance(positions, FactoredPositions) and (positions.num_tokens,) * 2 != pair:
            raise InputError(
                f"{name} is for {positions.num_tokens} tokens; there are {pair[0]} queries, {pair[1]} keys"
            )


def _check_units(name: str, numbers: Tensor, units: torch.Size) -> None:
    """Raise an InputError unless there is a number for each of the ``units`` (batch, heads, units)."""
    if numbers.shape != units:
        raise InputError(f"{name} {tuple(numbers.shape)} must be (batch, heads, units) {tuple(units)}")


def check_finite(name: str, values: Tensor, index: Tensor | None = None) -> Tensor:
    """Return the tensor ``values`` itself if all of its numbers are finite.

    NaN has an argmax, a bin and a class like any number, so a tensor that is not finite must be stopped before it is
    scored.

    Args:
        name: what the values are, in the plural, for the error.
        values: (B, ...), one entry for each image.
        index: (B,) int64, the numbers of the samples, which the error names; None names their places in the batch.

    Raises:
        InputError: an entry is NaN or infinite; the line names the first image.
    """
    finite = values.isfinite()
    if not finite.all():
        bad = ~finite.flatten(1).all(1) if values.dim() > 1 else ~finite
        first = int(bad.nonzero()[0])
        number = values[first][~finite[first]].flatten()[0].item()
        place = f"sample {int(index[first])}" if index is not None else f"place {first}"
        raise InputError(
            f"{name} of {int(bad.sum())} of {len(bad)} images are not finite ({number} at {place}): "
            "the model's weights, or the images, give no number that could be scored"
        )
    return values


def check_steps(prior_precision: Precision, iterations: int, anchor: str, units: torch.Size) -> None:
    """Raise an InputError that names the argument of an EM update of ``units`` (B, H, M) that does not fit."""
    if isinstance(prior_precision, Tensor):
        _check_units("prior_precision", prior_precision, units)
    else:
        check_number("prior_precision", prior_precision, NOT_NEGATIVE)
    check_number("iterations", iterations, COUNTS, Integral)
    if anchor not in ("current", "initial"):
        raise unknown("anchor", anchor, ("current", "initial"))


def check_exist(missing: Tensor, num_units: int) -> None:
    """Raise an InputError that names the first unit of ``missing``, the fixed units that do not exist, if any."""
    if missing.numel():
        raise InputError(f"fixed_index {missing[0].item()} is none of the {num_units} units, 0 to {num_units - 1}")


def check_gamma(shape: float, rate: float) -> None:
    """Raise an InputError unless the Gamma prior has a mode."""
    check_number("shape", shape, AT_LEAST_ONE)
    check_number("rate", rate, POSITIVE)


def check_fixed(q: Tensor, index: Tensor, values: Tensor, mask: Tensor | None) -> None:
    """Raise an InputError if shapes or types of the fixed units do not fit; the index's numbers are not looked at."""
    batch, heads = q.shape[:2]
    fits = index.dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    if index.dim() not in (1, 2) or (index.dim() == 2 and index.shape[0] != batch) or not fits:
        raise InputError(f"fixed_index {tuple(index.shape)} must be integers (S,) or ({batch}, S)")
    number = index.shape[-1]
    if values.dim() != 4 or values.shape[:3] != (batch, heads, number):
        raise InputError(
            f"fixed_values {tuple(values.shape)} must be ({batch}, {heads}, {number}, width of the values)"
        )
    if mask is not None and mask.shape != (batch, number):
        raise InputError(f"fixed_mask {tuple(mask.shape)} must be ({batch}, {number})")
