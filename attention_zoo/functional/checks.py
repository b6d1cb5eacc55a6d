"""What fits the functions of `attention_zoo.functional.em`, said by the argument's name."""

import math

from torch import Tensor

from attention_zoo.errors import InputError, unknown
from attention_zoo.functional.mixture import Positions, Precision
from attention_zoo.functional.positions import FactoredPositions


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
    for name, precision, fits in (("alpha", alpha, _positive), ("beta", beta, _not_negative)):
        if isinstance(precision, Tensor) and precision.shape != units:
            raise InputError(f"{name} {tuple(precision.shape)} must be (batch, heads, units) {tuple(units)}")
        if not isinstance(precision, Tensor) and not fits(precision):
            raise InputError(
                f"{name}={precision} must {'be above 0' if name == 'alpha' else 'not be negative'}, and finite"
            )
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


def _positive(number: float) -> bool:
    return 0 < number < math.inf


def _not_negative(number: float) -> bool:
    return 0 <= number < math.inf


def check_steps(prior_precision: float, iterations: int, anchor: str) -> None:
    """Raise an InputError that names the argument of an EM update that does not fit."""
    if not 0 <= prior_precision < math.inf:
        raise InputError(f"prior_precision={prior_precision} must not be negative, and finite")
    if isinstance(iterations, (bool, float, str)) or not iterations >= 0:
        raise InputError(f"iterations={iterations} must be an integer and must not be negative")
    if anchor not in ("current", "initial"):
        raise unknown("anchor", anchor, ("current", "initial"))


def check_gamma(shape: float, rate: float) -> None:
    """Raise an InputError unless the Gamma prior has a mode."""
    if not 1 <= shape < math.inf:
        raise InputError(f"shape={shape} of the Gamma prior must be at least 1, and finite")
    if not 0 < rate < math.inf:
        raise InputError(f"rate={rate} of the Gamma prior must be above 0, and finite")


def check_fixed(q: Tensor, index: Tensor, values: Tensor, mask: Tensor | None) -> None:
    """Raise an InputError that names what of the fixed units does not fit; what the index says is not looked at."""
    batch, heads = q.shape[:2]
    if index.dim() not in (1, 2) or (index.dim() == 2 and index.shape[0] != batch) or index.is_floating_point():
        raise InputError(f"fixed_index {tuple(index.shape)} must be integers (S,) or ({batch}, S)")
    number = index.shape[-1]
    if values.dim() != 4 or values.shape[:3] != (batch, heads, number):
        raise InputError(
            f"fixed_values {tuple(values.shape)} must be ({batch}, {heads}, {number}, width of the values)"
        )
    if mask is not None and mask.shape != (batch, number):
        raise InputError(f"fixed_mask {tuple(mask.shape)} must be ({batch}, {number})")
