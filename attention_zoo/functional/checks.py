"""What fits the functions of `attention_zoo.functional.em`, said by the argument's name."""

import sys

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
