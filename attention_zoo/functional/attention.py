"""Fused softmax attention that also returns its logsumexp, with gradients through both.

torch's fused kernels return the logsumexp but no gradient reaches it. Here it does, by one fused backward pass and
without the N x N matrix. This module alone decides which kernel runs where.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable


def attend(
    q: Tensor, k: Tensor, v: Tensor, scale: float, *, key_bias: Tensor | None = None, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Softmax attention and the logarithm of its normaliser.

    Args:
        q: (B, H, N, D).
        k: (B, H, M, D).
        v: (B, H, M, E); E may differ from D.
        scale: factor of q.k.
        key_bias: (B, H, M), added to the scores of each key; differentiable.
        mask: added to the scores, broadcasting to (B, H, N, M); no gradient reaches it.

    Returns:
        The attended values (B, H, N, E) and ``logsumexp_j(scale q_i.k_j + key_bias_j + mask_ij)`` (B, H, N), both
        differentiable. Memory grows with N + M where a fused kernel exists: CPU, and CUDA in other than double
        precision and without ``mask``.
    """
    if not _has_kernel(q, mask):
        scores = scale * q @ k.mT  # (B, H, N, M)
        for bias in (None if key_bias is None else key_bias[..., None, :], mask):
            scores = scores if bias is None else scores + bias
        return scores.softmax(-1) @ v, scores.logsumexp(-1)
    if key_bias is not None and (mask is not None or q.device.type != "cpu"):
        q, k, key_bias = F.pad(q, (0, 1), value=1.0), torch.cat((k, key_bias[..., None] / scale), -1), None
    values = v.shape[-1]
    width = max(q.shape[-1], values)
    width += -width % _alignment(q)
    # views, since torch.compile does not take one tensor in two places of a function of ours
    q, k, v = (rows.view_as(rows) for rows in (_rows(_widen(x, width)) for x in (q, k, v)))
    out, lse = _FusedAttention.apply(q, k, v, key_bias, mask, scale)
    return out[..., :values], lse[..., : q.shape[-2]]


class _FusedAttention(torch.autograd.Function):
    """``(softmax(s) v, logsumexp(s))`` with s = scale q k^T + bias, for q, k, v of one width; CUDA without biases."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor | None, mask: Tensor | None, scale: float
    ) -> tuple[Tensor, Tensor]:
        if q.device.type == "cpu":
            bias = _bias(q, k, key_bias, mask)
            out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, attn_mask=bias, scale=scale)
            rest = ()
        else:
            out, lse, *rest = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True, scale=scale)
        ctx.save_for_backward(q, k, v, key_bias, mask, out, lse, *rest)
        ctx.scale = scale
        ctx.set_materialize_grads(False)
        return out, lse

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Tensor | None, ...]:
        q, k, v, key_bias, mask, out, lse, *rest = ctx.saved_tensors
        width, scale = q.shape[-1], ctx.scale
        if grad_out is None and grad_lse is None:
            return (None,) * 6
        grad_out = torch.zeros_like(out) if grad_out is None else _rows(grad_out)
        if grad_lse is not None or key_bias is not None:
            # The kernel computes dS = P * (grad_out v^T - rowsum(grad_out * out)), dK = scale dS^T q. One more channel
            # that is 0 in v, 1 in grad_out and -grad_lse in out turns dS into the gradient through both outputs;
            # the same channel, 1 in q and 0 in k, brings the column sums of dS, the gradient of the key bias.
            channel = torch.zeros_like(lse) if grad_lse is None else grad_lse
            channel = channel[..., : q.shape[-2], None].to(out.dtype)
            ones, wide = torch.ones_like(channel), width + _alignment(q)
            q, out, grad_out = (torch.cat(pair, -1) for pair in ((q, ones), (out, -channel), (grad_out, ones)))
            q, k, v, out, grad_out = (_widen(x, wide) for x in (q, k, v, out, grad_out))
        if q.device.type == "cpu":
            bias = _bias(q, k, key_bias, mask)
            grads = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                grad_out, q, k, v, out, lse, 0.0, False, attn_mask=bias, scale=scale
            )
        else:
            grads = torch.ops.aten._scaled_dot_product_efficient_attention_backward(
                grad_out, q, k, v, None, out, lse, *rest, 0.0, [True, True, True, False], scale=scale
            )
        grad_bias = None if key_bias is None else (grads[1][..., width] / scale).to(key_bias.dtype)
        return *(grad[..., :width] for grad in grads[:3]), grad_bias, None, None


def _bias(q: Tensor, k: Tensor, key_bias: Tensor | None, mask: Tensor | None) -> Tensor | None:
    """What is added to the scores, (B, H, N, M) without a copy."""
    bias = mask if key_bias is None else key_bias[..., None, :]
    if bias is None:
        return None
    return _rows(bias.to(q.dtype)).expand(*q.shape[:3], k.shape[2])  # of other layouts the kernel makes a full copy


def _has_kernel(q: Tensor, mask: Tensor | None) -> bool:
    if q.numel() == 0:  # the kernels' backward passes divide by the batch
        return False
    return q.device.type == "cpu" or (q.device.type == "cuda" and q.dtype != torch.float64 and mask is None)


def _alignment(q: Tensor) -> int:
    """Width multiple the kernel wants."""
    return 1 if q.device.type == "cpu" else 8


def _widen(x: Tensor, width: int) -> Tensor:
    return F.pad(x, (0, width - x.shape[-1])) if x.shape[-1] < width else x


def _rows(x: Tensor) -> Tensor:
    """``x`` with the channels of a token side by side: the kernels take that for granted and read elsewhere."""
    return x if x.stride(-1) == 1 else x.contiguous()
