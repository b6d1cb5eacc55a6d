"""Fused softmax attention that also returns its logsumexp, with gradients through both.

torch's fused kernels return the logsumexp but no gradient reaches it. Here it does, by one fused backward pass and
without the N x N matrix. This module alone decides which kernel runs where.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Softmax attention and the logarithm of its normaliser.

    Args:
        q: (B, H, N, D).
        k: (B, H, M, D).
        v: (B, H, M, E); E may differ from D.
        scale: factor of q.k.

    Returns:
        The attended values (B, H, N, E) and ``logsumexp_j(scale q_i.k_j)`` (B, H, N), both differentiable. Memory
        grows with N + M where a fused kernel exists: CPU, and CUDA in other than double precision.
    """
    if not _has_kernel(q):
        scores = scale * q @ k.mT  # (B, H, N, M)
        return scores.softmax(-1) @ v, scores.logsumexp(-1)
    width = max(q.shape[-1], v.shape[-1])
    width += -width % _alignment(q)
    out, lse = _FusedAttention.apply(_widen(q, width), _widen(k, width), _widen(v, width), scale)
    return out[..., : v.shape[-1]], lse[..., : q.shape[-2]]


class _FusedAttention(torch.autograd.Function):
    """``(softmax(scale q k^T) v, logsumexp(scale q k^T))`` for q, k, v of one width."""

    @staticmethod
    def forward(ctx: FunctionCtx, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        if q.device.type == "cpu":
            out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, scale=scale)
            rest = ()
        else:
            out, lse, *rest = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True, scale=scale)
        ctx.save_for_backward(q, k, v, out, lse, *rest)
        ctx.scale = scale
        ctx.set_materialize_grads(False)
        return out, lse

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse, *rest = ctx.saved_tensors
        width = q.shape[-1]
        if grad_out is None and grad_lse is None:
            return None, None, None, None
        grad_out = torch.zeros_like(out) if grad_out is None else grad_out
        if grad_lse is not None:
            # The kernel computes dS = P * (grad_out v^T - rowsum(grad_out * out)). One more channel that is 0 in v,
            # 1 in grad_out and -grad_lse in out turns that into the gradient through both outputs.
            wide = width + _alignment(q)
            q, k, v = _widen(q, wide), _widen(k, wide), _widen(v, wide)
            lse_channel = grad_lse[..., : q.shape[-2], None].to(out.dtype)
            out = _widen(torch.cat((out, -lse_channel), -1), wide)
            grad_out = _widen(torch.cat((grad_out, torch.ones_like(lse_channel)), -1), wide)
        if q.device.type == "cpu":
            grads = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                grad_out, q, k, v, out, lse, 0.0, False, scale=ctx.scale
            )
        else:
            grads = torch.ops.aten._scaled_dot_product_efficient_attention_backward(
                grad_out, q, k, v, None, out, lse, *rest, 0.0, [True, True, True, False], scale=ctx.scale
            )
        return *(grad[..., :width] for grad in grads[:3]), None


def _has_kernel(q: Tensor) -> bool:
    if q.numel() == 0:  # the kernels' backward passes divide by the batch
        return False
    return q.device.type == "cpu" or (q.device.type == "cuda" and q.dtype != torch.float64)


def _alignment(q: Tensor) -> int:
    """Width multiple the kernel wants."""
    return 1 if q.device.type == "cpu" else 8


def _widen(x: Tensor, width: int) -> Tensor:
    return F.pad(x, (0, width - x.shape[-1])) if x.shape[-1] < width else x
