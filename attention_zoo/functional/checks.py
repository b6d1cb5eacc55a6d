"""Whether arguments fit, said by their names: any constructor's numbers, and what `functional.em` is given."""

import math
import operator
import sys
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from attention_zoo.errors import InputError, unknown
from attention_zoo.functional.mixture import Positions, Precision
from attention_zoo.functional.positions import FactoredPositions
from attention_zoo.options import real, require, shown, whole

FINITE = sys.float_info.max


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
) -> None:
    """Raise an InputError that names the argument that does not fit."""
    units, pair = k.shape[:3], (q.shape[2], k.shape[2])
    if q.shape[:2] != k.shape[:2] or q.shape[3] != k.shape[3]:
        raise InputError(f"q {tuple(q.shape)} and k {tuple(k.shape)} must agree in all but the number of tokens")
    for name, precision in (("alpha", alpha), ("beta", beta)):
        if isinstance(precision, Tensor):
            fits = precision.shape == units
            require(fits, f"{name} {tuple(precision.shape)} must be (batch, heads, units) {tuple(units)}")
        else:
            require(*real(name, precision, strict=name == "alpha", most=FINITE))
    if v is not None and v.shape[:3] != units:
        raise InputError(f"v {tuple(v.shape)} must be {tuple(units)} and its width")
    if v_init is not None and v_init.shape != (*q.shape[:3], v.shape[3]):
        raise InputError(f"v_init {tuple(v_init.shape)} must be {(*q.shape[:3], v.shape[3])}")
    width = None if v is None else v.shape[3]
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


LARGEST = 2**63 - 1
"""Integers above it fit no tensor."""


def check_integer(name: str, value: Any, least: int | None = None) -> None:
    """Raise an InputError unless ``value`` is an integer of 64 bits, of at least ``least``; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(f"{name}={_short(value)} must be an integer")
    if least is not None and value < least:
        raise InputError(f"{name}={_short(value)} must be at least {least}")
    if not -LARGEST <= value <= LARGEST:
        raise InputError(f"{name}={_short(value)} is too large")


def check_number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> None:
    """Raise an InputError unless ``value`` is a finite number in a range; a bool is none.

    Args:
        name: of the argument.
        value: what was given.
        above: the number is larger.
        least: the number is no smaller.
        below: the number is smaller.
        most: the number is no larger.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputError(f"{name}={_short(value)} must be a number")
    try:
        finite = math.isfinite(value)
    except OverflowError:  # an integer beyond the range of floats
        finite = False
    limits = (("above", above, operator.gt), ("at least", least, operator.ge))
    limits += (("below", below, operator.lt), ("at most", most, operator.le))
    given = [(word, limit, fits) for word, limit, fits in limits if limit is not None]
    if not finite or not all(fits(value, limit) for _, limit, fits in given):
        said = [f"{word} {limit:g}" for word, limit, _ in given] + ([] if finite else ["finite"])
        must = "not be negative" if said == ["at least 0"] else f"be {' and '.join(said)}"
        raise InputError(f"{name}={_short(value)} must {must}")


def _short(value: Any) -> str:
    """The beginning of what was given: some numbers have hundreds of digits, and Python writes no more than 4,300."""
    if isinstance(value, int) and abs(value) >= 10**40:
        return "an integer of more than 40 digits"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def check_finite(name: str, values: Tensor, index: Tensor | None = None) -> Tensor:
    """The tensor itself, if all of its numbers are finite.

    NaN has an argmax, a bin and a class like any number, so that what is not finite must stop before it is scored.

    Args:
        name: of the values, in the plural.
        values: (B, ...), one entry for each image.
        index: (B,) int64, which samples they are; default their places.

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


def check_steps(prior_precision: float, iterations: int, anchor: str) -> None:
    """Raise an InputError that names the argument of an EM update that does not fit."""
    require(*real("prior_precision", prior_precision, most=FINITE))
    require(*whole("iterations", iterations))
    if anchor not in ("current", "initial"):
        raise unknown("anchor", anchor, ("current", "initial"))


def check_exist(missing: Tensor, num_units: int) -> None:
    """Raise an InputError that names the first of the fixed units that there are not, if any."""
    if missing.numel():
        raise InputError(f"fixed_index {missing[0].item()} is none of the {num_units} units, 0 to {num_units - 1}")


def check_gamma(shape: float, rate: float) -> None:
    """Raise an InputError unless the Gamma prior has a mode."""
    fits, _ = real("shape", shape, 1.0, most=FINITE)
    require(fits, f"shape={shown(shape)} of the Gamma prior must be at least 1")
    fits, _ = real("rate", rate, strict=True, most=FINITE)
    require(fits, f"rate={shown(rate)} of the Gamma prior must be above 0")


def check_fixed(q: Tensor, index: Tensor, values: Tensor, mask: Tensor | None) -> None:
    """Raise an InputError that names what of the fixed units does not fit; what the index says is not looked at."""
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
