"""The premise of sparse reconstruction: values have sparse codes, which a few steps come near to."""

import math

import torch
from torch import Tensor

from attention_zoo.functional.dictionaries import Dictionary
from attention_zoo.functional.sparse import Lista, soft_threshold
from attention_zoo.mixers.premise import Measure, Measures

POWER_ITERATIONS, SOLVER_STEPS = 30, 200
"""The steps that find the largest eigenvalue of PᵀP, and those of the solver that codes are compared with."""

MARGIN = 1.05
"""The factor on the eigenvalue that power iteration found, which is never too large."""


def sparse_coding(dictionary: Dictionary, lista: Lista, v: Tensor) -> Measures:
    """Return how sparse the codes of values v (B, G, N, E) are, and how near to the best, step by step.

    Gap and distance are 0 for the best codes and 1 for codes of zeros, which any coding should beat. The best codes
    are those of `converged` for the layer's dictionary and lambda; a learned Γ lets the layer's own iteration end
    elsewhere.
    """
    lam = torch.as_tensor(lista.lam, dtype=v.dtype, device=v.device)
    best = converged(dictionary, v, lam)
    least, start = (objective(dictionary, codes, v, lam) for codes in (best, torch.zeros_like(best)))
    nothing = torch.ones_like(least)
    zeros, unexplained, gaps, distances = [], [], [], []
    for codes in lista.path():
        zeros.append((codes == 0).to(v.dtype).mean((-2, -1)))
        rest = v - dictionary.decode(codes)
        unexplained.append(_square(rest) / _square(v))
        gaps.append((objective(dictionary, codes, v, lam) - least) / (start - least))
        distances.append((_square(codes - best) / _square(best)).sqrt())
    return {
        "codes that are zero": Measure(torch.stack(zeros, -1)),
        "unexplained share of the values": Measure(torch.stack(unexplained, -1)),
        "gap to the least objective": Measure(torch.stack(gaps, -1), nothing, "lower"),
        "distance to the best codes": Measure(torch.stack(distances, -1), nothing, "lower"),
        "best codes that are zero": Measure((best == 0).to(v.dtype).mean((-2, -1))),
    }


def objective(dictionary: Dictionary, codes: Tensor, v: Tensor, lam: Tensor) -> Tensor:
    """Return ``½ |P u - v|² + λ |u|₁`` (B, G) of codes u (B, G, A, E) and values v (B, G, N, E)."""
    return _square(dictionary.decode(codes) - v) / 2 + lam.abs().squeeze() * codes.abs().sum((-2, -1))


def converged(dictionary: Dictionary, v: Tensor, lam: Tensor, steps: int = SOLVER_STEPS) -> Tensor:
    """Return codes (B, G, A, E) of values v (B, G, N, E) near the least `objective`, by accelerated soft thresholding.

    A. Beck, M. Teboulle, A Fast Iterative Shrinkage-Thresholding Algorithm for Linear Inverse Problems, 2009.
    """
    drive = dictionary.encode(v)
    step = 1 / (MARGIN * largest_eigenvalue(dictionary, drive))
    codes = ahead = torch.zeros_like(drive)
    momentum = 1.0
    for _ in range(steps):
        before = codes
        codes = soft_threshold(ahead - step * (dictionary.encode(dictionary.decode(ahead)) - drive), lam.abs() * step)
        faster = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        ahead = codes + (momentum - 1) / faster * (codes - before)
        momentum = faster
    return codes


def largest_eigenvalue(dictionary: Dictionary, like: Tensor) -> Tensor:
    """Return the largest eigenvalue of PᵀP (B, G, 1, 1) by power iteration; ``like`` are codes (B, G, A, E)."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)
    for _ in range(POWER_ITERATIONS):
        x = dictionary.encode(dictionary.decode(x / _square(x).sqrt()[..., None, None]))
    return _square(x).sqrt()[..., None, None]


def _square(x: Tensor) -> Tensor:
    """Return the squared length (B, G) of tensors (B, G, ...)."""
    return x.square().sum((-2, -1))
