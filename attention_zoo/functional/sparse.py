"""Recurrent sparse reconstruction: LISTA on a dictionary given by its Gram matrix (tech report eq. 1.10-1.12).

    u* = argmin_u 1/2 |P u - v|^2 + lam |u|_1

B. Shi, T. Darrell, X. Wang, Visual Attention Emerges from Recurrent Sparse Reconstruction (VARS), ICML 2022; chapter 1
of technical report EECS-2024-49.
"""

from collections.abc import Iterator

import torch
from torch import Tensor


def soft_threshold(x: Tensor, threshold: Tensor | float) -> Tensor:
    """S(x) = sgn(x) (|x| - threshold)_+, elementwise."""
    return x.sign() * (x.abs() - threshold).relu()


def lista_path(
    gram: Tensor, drive: Tensor, *, lam: Tensor | float, step_size: Tensor | float, steps: int
) -> Iterator[Tensor]:
    """The codes before the first and after each of ``steps`` updates (eq. 1.12).

        u <- S_{lam step}(u - step (G u - P^T v)),    starting from u = P^T v

    Args:
        gram: G = P^T P, or what was learned in its place, (..., M, M).
        drive: P^T v (..., M, D).
        lam: weight of the sparsity.
        step_size: 1 / (w_2 L), broadcasting to (..., M, D).
        steps: number of updates.

    Yields:
        Codes u (..., M, D), ``steps + 1`` times.
    """
    codes = drive
    yield codes
    for _ in range(steps):
        codes = soft_threshold(codes - step_size * (gram @ codes - drive), lam * step_size)
        yield codes


def lista(gram: Tensor, drive: Tensor, *, lam: Tensor | float, step_size: Tensor | float, steps: int) -> Tensor:
    """The codes (..., M, D) after the last step of `lista_path`."""
    for codes in lista_path(gram, drive, lam=lam, step_size=step_size, steps=steps):
        last = codes
    return last


def mean_code_jacobian(
    gram: Tensor, drive: Tensor, *, lam: Tensor | float, step_size: Tensor | float, steps: int
) -> Tensor:
    """Mean over channels of the derivative of `lista`'s codes with respect to the drive, (..., M, M).

    Each channel is coded alone, and its codes are linear in its drive as long as the set of active codes stays.
    """
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    jacobian = identity.expand(*drive.shape[:-2], drive.shape[-1], *identity.shape)  # (..., D, M, M)
    per_channel = step_size[..., None, :, :] if isinstance(step_size, Tensor) else step_size
    path = lista_path(gram, drive, lam=lam, step_size=step_size, steps=steps)
    next(path)  # the codes it starts from are the drive itself
    for codes in path:
        active = (codes != 0).mT[..., None]  # (..., D, M, 1)
        jacobian = active * (jacobian - per_channel * (gram[..., None, :, :] @ jacobian - identity))
    return jacobian.mean(-3)


def largest_eigenvalue(gram: Tensor, iterations: int = 8) -> Tensor:
    """An upper bound, tight after a few power iterations, of the largest eigenvalue of each ``gram`` (..., M, M).

    For a matrix without negative entries max_i (G x)_i / x_i bounds the largest eigenvalue for every positive x
    (Collatz-Wielandt), so a step of its inverse never overshoots. The gradient is that of the eigenvalue, x x^T for
    its unit eigenvector x.

    Args:
        gram: symmetric, no negative entries, positive diagonal.
        iterations: matrix-vector products.

    Returns:
        (..., 1, 1), ready to broadcast over codes.
    """
    with torch.no_grad():
        x = torch.ones_like(gram[..., :1])
        for _ in range(iterations):
            previous, x = x, gram @ x
            bound = (x / previous).amax(-2, keepdim=True)
            x = x / torch.linalg.vector_norm(x, dim=-2, keepdim=True)
    rayleigh = x.mT @ gram @ x
    return bound + rayleigh - rayleigh.detach()
