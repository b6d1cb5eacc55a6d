"""Fused softmax attention that also returns its logsumexp, with gradients through both.

torch's fused kernels return the logsumexp but no gradient reaches it. Here a gradient reaches it, by one fused backward
pass and without the N x N matrix. This module alone decides which kernel runs where, see `_kernel`.
"""

import functools
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import repeat
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from attention_zoo.compat import in_transform, stands_for_many
from attention_zoo.functional.further_gradients import further_gradients
from attention_zoo.functional.precision import HALF, precise

ALIGNED = 8
"""Number of entries that widths, strides and offsets are multiples of on CUDA: 16 bytes of half precision at least."""

WIDEST_FLASH = 192
"""Width of a head up to which CUDA's flash kernel goes, forward and backward, on every GPU that has it."""

MOST_BLOCKS = (1 << 16) - 1
"""Size of batch and of heads up to which CUDA launches a fused kernel: both are counted in a grid of that size."""

FEW = 256
"""Tokens up to which weights are held where that saves time; see `few`."""


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
    *,
    key_bias: Tensor | None = None,
    mask: Tensor | None = None,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return softmax attention and the logarithm of its normaliser.

    Args:
        q: queries (B, H, N, D).
        k: keys (B, H, M, D).
        v: values (B, H, M, E); E may differ from D.
        scale: factor of q.k.
        key_bias: (B, H, M), added to the scores of each key; differentiable.
        mask: added to the scores, broadcasting to (B, H, N, M). A gradient reaches one that wants it, a learned bias of
            positions say, and then the N x M matrix is formed.
        is_causal: whether a query reads only the keys up to its own place, also where there is a mask. It forms no
            matrix, unless the mask is one of queries and keys.

    Returns:
        The attended values (B, H, N, E) and ``logsumexp_j(scale q_i.k_j + key_bias_j + mask_ij)`` (B, H, N), both
        differentiable. Memory grows with N + M where a fused kernel exists (the CPU, and CUDA in other than double
        precision), and with the mask, which is never expanded over batch and heads. A query whose row of the mask is
        -inf takes nothing: its value is 0, its logsumexp -inf, and no gradient passes through it.
    """
    if mask is None:
        return _attend(q, k, v, scale, key_bias, None, is_causal)
    # in the type of the scores first: the lowest number of a wider one is -inf there
    mask, is_causal, nothing = _opened(_unexpanded(mask).to(q.dtype), is_causal, q, k)
    if mask.shape[-1] == 1:  # what a query adds to all of its scores changes no weight
        out, lse = _attend(q, k, v, scale, key_bias, None, is_causal)
        lse = lse + mask[..., 0].to(lse.dtype)
    else:
        out, lse = _attend(q, k, v, scale, key_bias, mask, is_causal)
    return out.masked_fill(nothing, 0.0), lse.masked_fill(nothing[..., 0], -torch.inf)


def attend_to_later(
    q: Tensor, k: Tensor, v: Tensor, scale: float, *, key_bias: Tensor | None = None, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return what `attend` does where each query reads only the keys from its own place on; there are as many keys."""
    q, k, v = (x.flip(2) for x in (q, k, v))
    key_bias = None if key_bias is None else key_bias.flip(-1)
    mask = None if mask is None else _unexpanded(mask).flip((-2, -1))
    out, lse = attend(q, k, v, scale, key_bias=key_bias, mask=mask, is_causal=True)
    return out.flip(2), lse.flip(2)


def softmax_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    always_open: bool = False,
) -> Tensor:
    """Return torch's fused ``softmax(scale q k^T + mask) v``, finite for tokens of any size and under any mask.

    Args:
        q: queries (B, H, N, D).
        k: keys (B, H, M, D).
        v: values (B, H, M, E).
        mask: boolean or additive, broadcasting to (B, H, N, M).
        dropout: rate at which weights are dropped.
        is_causal: whether a query reads only the keys up to its own place, also where there is a mask.
        scale: factor of q.k; None is 1/sqrt(D).
        always_open: the mask is known to let every query read some key, and is not searched for those that may not.

    Returns:
        The attended values (B, H, N, E); 0 for a query that may read no key.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    q = bounded(q, k, scale)
    return attention_within_bound(q, k, v, mask, dropout, is_causal, scale=scale, always_open=always_open)


def attention_within_bound(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    dropout: float,
    is_causal: bool = False,
    *,
    scale: float,
    always_open: bool = False,
) -> Tensor:
    """Return `softmax_attention`, arguments see there, of queries whose scores with the keys are within the bound."""
    if mask is None:
        return _torch_attention(q, k, v, None, dropout, is_causal, scale)
    mask = _unexpanded(mask)
    mask = mask if mask.dtype == torch.bool else mask.to(q.dtype)
    if is_causal and not (_on_cuda(q) and _kernel(q, mask) == "efficient"):  # torch's own attention takes one of both
        mask, is_causal = _not_later(mask, q, k), False
    if always_open:
        if _learned(mask) and q.device.type == "cpu" and q.dtype not in HALF:
            # torch takes this formula too, but searches its scores for rows of -inf, and scales queries and keys
            weights = torch.add(mask, q @ k.mT, alpha=scale).softmax(-1)
            return F.dropout(weights, dropout) @ v
        return _torch_attention(q, k, v, mask, dropout, is_causal, scale)
    mask, is_causal, nothing = _opened(mask, is_causal, q, k)
    if mask.shape[-1] == 1:  # what a query adds to all of its scores changes no weight
        mask = None
    return _torch_attention(q, k, v, mask, dropout, is_causal, scale).masked_fill(nothing, 0.0)


def opened(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return a mask that every kernel can work with: rows that allow no key are opened to all keys, and reported.

    Args:
        mask: (..., N, M), boolean or additive.

    Returns:
        The opened mask (..., N, M), and a boolean tensor (..., N, 1) that is true for queries that may read nothing;
        the caller sets what those queries take to zero.
    """
    if mask.dtype == torch.bool:
        nothing = ~mask.any(-1, keepdim=True)
        return mask | nothing, nothing  # not masked_fill, which ONNX Runtime has for no truth values
    nothing = ~(mask != -torch.inf).any(-1, keepdim=True)
    return mask.masked_fill(nothing, 0.0), nothing


def _opened(mask: Tensor, is_causal: bool, q: Tensor, k: Tensor) -> tuple[Tensor, bool, Tensor]:
    """Return what `opened` does of a mask and causality, which become one mask if that is of queries and keys.

    Args:
        mask: (..., N or 1, M or 1), boolean or additive.
        is_causal: whether a query reads only the keys up to its own place.
        q: queries (B, H, N, D).
        k: keys (B, H, M, D).

    Returns:
        The opened mask, whether queries read only earlier keys besides, and which (..., N or 1, 1) read nothing.
    """
    if is_causal and mask.shape[-2] > 1 and mask.shape[-1] > 1:
        mask, is_causal = _not_later(mask, q, k), False
    if not is_causal or mask.shape[-1] == 1:  # there is always a first key
        mask, nothing = opened(mask)
        return mask, is_causal, nothing
    mask = _additive(mask, q.dtype)
    places = torch.arange(q.shape[-2], device=q.device).clamp(max=k.shape[-2] - 1)
    nothing = ((mask != -torch.inf).cumsum(-1) == 0).index_select(-1, places).mT
    # queries before the first open key read the first of all: it is far below, so that no other query does
    first = mask[..., :1].masked_fill(mask[..., :1] == -torch.inf, forbidden(q.dtype))
    return torch.cat((first, mask[..., 1:]), -1), is_causal, nothing


def forbidden(dtype: torch.dtype) -> float:
    """Return a score so far below all others (see `bounded`) that its weight is 0, where -inf would leave NaN."""
    return max(-8 * largest_score(dtype), torch.finfo(dtype).min)


def _not_later(mask: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """Return a mask, boolean or additive, that forbids the keys after a query's own place too, (..., N, M)."""
    before = _before(q, k)
    return mask & before if mask.dtype == torch.bool else mask.masked_fill(~before, -torch.inf)


def _before(q: Tensor, k: Tensor) -> Tensor:
    """Return which keys (B, H, M, D) are not after the place of each query (B, H, N, D), (N, M) bool."""
    return torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()


def normalized(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return the softmax of scores (..., N, M) over the last dimension, and their logsumexp (..., N).

    A row of -inf has weights of zero and a logsumexp of -inf, and no gradient passes through it.
    """
    nothing = scores.isneginf().all(-1, keepdim=True)
    finite = scores.masked_fill(nothing, 0.0)
    log_sum = finite.logsumexp(-1, keepdim=True).masked_fill(nothing, -torch.inf)
    return finite.softmax(-1).masked_fill(nothing, 0.0), log_sum[..., 0]


def log_normalized(scores: Tensor) -> Tensor:
    """Return the logarithm (..., N, M) of the weights that `normalized` returns."""
    nothing = scores.isneginf().all(-1, keepdim=True)
    return scores.masked_fill(nothing, 0.0).log_softmax(-1).masked_fill(nothing, -torch.inf)


def bounded(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """Return queries (..., N, D), scaled down where their scores with keys k (..., M, D) are too large to tell apart.

    Scores beyond `largest_score` have rounding errors above an eighth. A fused backward pass, which takes the
    exponential of scores minus their logsumexp, both computed again, then overflows to NaN. Scaled to
    that bound, their weights are still one-hot, except where scores agree to all their digits. Queries within the bound
    are returned as they are.
    """
    if q.numel() == 0 or k.numel() == 0:
        return q
    if readable(q, k) and largest(q) * largest(k) * scale * q.shape[-1] <= largest_score(q.dtype):
        return q
    return bounded_by(q, largest_entry(k).amax(-2, keepdim=True), scale)


def bounded_by(q: Tensor, largest_key: Tensor, scale: float) -> Tensor:
    """Return queries (..., N, D) as `bounded` does, for keys whose `largest_entry` is ``largest_key`` (..., 1, 1)."""
    bound = largest_entry(q) * largest_key * (scale * q.shape[-1])
    return q * (largest_score(q.dtype) / bound.clamp(min=1e-30)).clamp(max=1.0).to(q.dtype)


def largest_entry(x: Tensor) -> Tensor:
    """Return the size of the largest entry of each vector (..., D) as (..., 1), in a type that holds their products."""
    return precise(x.detach().abs().amax(-1, keepdim=True))  # not a norm of torch's, which takes fifteen times as long


def readable(*tensors: Tensor) -> bool:
    """Return whether a number can be read from each tensor at once: on a CPU, outside of graphs and transforms."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or in_transform():
        return False
    return all(x.device.type == "cpu" and type(x) in (Tensor, nn.Parameter) and not stands_for_many(x) for x in tensors)


def largest(x: Tensor) -> float:
    """Return the size of the largest entry of a readable tensor, in one pass over it."""
    lowest, highest = (entry.item() for entry in torch.aminmax(x.detach()))
    return max(-lowest, highest)


def few(q: Tensor, k: Tensor) -> bool:
    """Return whether the weights of queries (B, H, N, D) and keys (B, H, M, D) had better be held than computed again.

    On a CPU two normalisations of one matrix take half the time of two fused passes. The matrix is small where there
    are no more than `FEW` tokens, a few times the values. A graph is compiled for any number of tokens, so never there.
    """
    if q.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return max(q.shape[-2], k.shape[-2]) <= FEW


def largest_score(dtype: torch.dtype) -> float:
    """Return the size of score up to which ``dtype`` tells scores apart to an eighth."""
    return 2.0**49 if dtype == torch.float64 else 2.0**20


def _torch_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float, is_causal: bool, scale: float
) -> Tensor:
    """Return torch's attention of q, k and v, handed over as its fused kernels want them.

    On CUDA torch takes its N x N formula where channels are not side by side, or where there is a mask, or single
    precision, and a width that is not aligned.
    """
    if not _on_cuda(q):
        # inside of torch.func torch does not see that a mask is learned, and takes a kernel without a gradient by it
        with sdpa_kernel(SDPBackend.MATH) if mask is not None and in_transform() else nullcontext():
            return F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal, scale=scale)
    for dim in (0, 1):
        if q.shape[dim] > MOST_BLOCKS:
            parts = zip(*(x.split(MOST_BLOCKS, dim) for x in (q, k, v)), _mask_parts(mask, dim), strict=False)
            return torch.cat([_torch_attention(a, b, c, of, dropout, is_causal, scale) for a, b, c, of in parts], dim)
    values = v.shape[-1]
    if mask is not None:
        mask = _aligned_rows(_additive(mask, q.dtype))
    q, k, v = (_rows(_widen(x, _aligned(x.shape[-1]))) for x in (q, k, v))
    if mask is not None and is_causal:  # the kernel takes both, though torch's function does not
        kind = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else q.dtype
        q, k, v, mask = (x.to(kind) for x in (q, k, v, mask))
        mask = _aligned_rows(mask).expand(*q.shape[:3], k.shape[2])
        attended = torch.ops.aten._scaled_dot_product_efficient_attention
        return attended(q, k, v, mask, True, dropout, True, scale=scale)[0][..., :values]
    return F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal, scale=scale)[..., :values]


def _mask_parts(mask: Tensor | None, dim: int) -> Iterator[Tensor | None]:
    """Return a mask (..., N, M) in parts along dimension ``dim`` of (B, H, N, M), or the whole for every part."""
    place = dim - 4
    if mask is None or mask.dim() < -place or mask.shape[place] == 1:
        return repeat(mask)
    return iter(mask.split(MOST_BLOCKS, place))


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a mask, boolean or additive, as what is added to the scores."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, -torch.inf)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, scale: float, key_bias: Tensor | None, mask: Tensor | None, is_causal: bool
) -> tuple[Tensor, Tensor]:
    """Compute `attend` for a mask in which every row allows some key to be read."""
    if (mask is not None and _learned(mask)) or not _has_kernel(q, mask) or not k.numel():  # kernels divide by the keys
        return _dense(q, k, v, key_bias, mask, scale, is_causal)
    if mask is not None:
        mask = _aligned_rows(mask) if _on_cuda(q) else mask
    if key_bias is not None and mask is not None:
        # their sum would be a mask of its own for each batch and head; as a channel the bias costs next to nothing
        channel = (key_bias[..., None] / scale).to(k.dtype)  # the kernels take one type, and do not look
        q, k, key_bias = F.pad(q, (0, 1), value=1.0), torch.cat((k, channel), -1), None
    values = v.shape[-1]
    width = max(q.shape[-1], values)
    width = _aligned(width) if _on_cuda(q) else width
    # views, since torch.compile does not take one tensor in two places of a function of ours
    q, k, v = (rows.view_as(rows) for rows in (_rows(_widen(x, width)) for x in (q, k, v)))
    out, lse = _FusedAttention.apply(q, k, v, key_bias, mask, scale, is_causal)
    return out[..., :values], lse[..., : q.shape[-2]]


def _dense(
    q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor | None, mask: Tensor | None, scale: float, is_causal: bool
) -> tuple[Tensor, Tensor]:
    """Compute what `_FusedAttention` does by the scores themselves."""
    scores = scale * q @ k.mT  # (B, H, N, M)
    for bias in (None if key_bias is None else key_bias[..., None, :], mask):
        scores = scores if bias is None else scores + bias
    if is_causal:
        scores = scores.masked_fill(~_before(q, k), -torch.inf)
    weights, log_sum = normalized(scores)
    return weights.to(v.dtype) @ v, log_sum


class _FusedAttention(torch.autograd.Function):
    """Computes ``(softmax(s) v, logsumexp(s))``, s = scale q k^T + bias, for q, k, v of one width."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        key_bias: Tensor | None,
        mask: Tensor | None,
        scale: float,
        is_causal: bool,
    ) -> tuple[Tensor, Tensor]:
        bias = _bias(q, k, key_bias, mask)
        kernel = _kernel(q, bias)
        if kernel == "flash" and is_causal and q.shape[-2] != k.shape[-2]:  # it counts places from the end
            kernel = "efficient"
        rest: tuple[Any, ...] = ()
        lengths: tuple[int, ...] = ()
        if kernel == "cpu":
            attended = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
            out, lse = attended(q, k, v, 0.0, is_causal, attn_mask=bias, scale=scale)
        elif kernel == "flash":
            out, lse, *ends, longest_q, longest_k, seed, offset, _ = torch.ops.aten._scaled_dot_product_flash_attention(
                q, k, v, 0.0, is_causal, scale=scale
            )
            rest, lengths = (*ends, seed, offset), (longest_q, longest_k)
        else:
            attended = torch.ops.aten._scaled_dot_product_efficient_attention
            out, lse, *rest = attended(q, k, v, bias, True, 0.0, is_causal, scale=scale)
        ctx.save_for_backward(q, k, v, key_bias, mask, out, lse, *rest)
        ctx.scale, ctx.kernel, ctx.lengths, ctx.is_causal = scale, kernel, lengths, is_causal
        ctx.set_materialize_grads(False)
        return out, lse

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Tensor | None, ...]:
        q, k, v, key_bias, mask, out, lse, *rest = ctx.saved_tensors
        width, scale, is_causal = q.shape[-1], ctx.scale, ctx.is_causal
        if grad_out is None and grad_lse is None:
            return (None,) * 7
        further = torch.is_grad_enabled()
        if further or any(grad is not None and stands_for_many(grad) for grad in (grad_out, grad_lse)):
            # no kernel has further gradients, or takes several at once
            rows = q.shape[-2]  # CUDA's kernels may return more of the logsumexp
            grads = grad_out, None if grad_lse is None else grad_lse.narrow(-1, 0, rows)
            plain = functools.partial(_dense, mask=mask, scale=scale, is_causal=is_causal)
            wanted = ctx.needs_input_grad[:4]
            return *further_gradients(plain, (q, k, v, key_bias), grads, wanted, further=further), None, None, None
        grad_out = torch.zeros_like(out) if grad_out is None else _rows(grad_out)
        if grad_lse is not None or key_bias is not None:
            # The kernel computes dS = P * (grad_out v^T - rowsum(grad_out * out)), dK = scale dS^T q. One more channel
            # that is 0 in v, 1 in grad_out and -grad_lse in out turns dS into the gradient through both outputs;
            # the same channel, 1 in q and 0 in k, brings the column sums of dS, the gradient of the key bias.
            channel = torch.zeros_like(lse) if grad_lse is None else grad_lse
            channel = channel[..., : q.shape[-2], None].to(out.dtype)
            ones, wide = torch.ones_like(channel), width + (1 if ctx.kernel == "cpu" else ALIGNED)
            q, out, grad_out = (torch.cat(pair, -1) for pair in ((q, ones), (out, -channel), (grad_out, ones)))
            q, k, v, out, grad_out = (_widen(x, wide) for x in (q, k, v, out, grad_out))
        bias = _bias(q, k, key_bias, mask)
        if ctx.kernel == "cpu":
            grads = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                grad_out, q, k, v, out, lse, 0.0, is_causal, attn_mask=bias, scale=scale
            )
        elif ctx.kernel == "flash":
            *ends, seed, offset = rest
            grads = torch.ops.aten._scaled_dot_product_flash_attention_backward(
                grad_out, q, k, v, out, lse, *ends, *ctx.lengths, 0.0, is_causal, seed, offset, scale=scale
            )
        else:
            # In half precision the kernel goes from token to token of out by heads times width, whatever its strides.
            out = out.transpose(1, 2).contiguous().transpose(1, 2)
            grads = torch.ops.aten._scaled_dot_product_efficient_attention_backward(
                grad_out, q, k, v, bias, out, lse, *rest, 0.0, [True, True, True, False], is_causal, scale=scale
            )
        grad_bias = None if key_bias is None else (grads[1][..., width] / scale).to(key_bias.dtype)
        return *(grad[..., :width] for grad in grads[:3]), grad_bias, None, None, None


def _bias(q: Tensor, k: Tensor, key_bias: Tensor | None, mask: Tensor | None) -> Tensor | None:
    """Return what is added to the scores, expanded to (B, H, N, M) without a copy; None if nothing is."""
    bias = mask if key_bias is None else key_bias[..., None, :]
    if bias is None:
        return None
    bias = bias.to(q.dtype)
    # of other layouts the CPU's kernel makes a full copy
    bias = _aligned_rows(bias) if _on_cuda(q) else _rows(bias)
    return bias.expand(*q.shape[:3], k.shape[2])


def _learned(mask: Tensor) -> bool:
    """Return whether a gradient is to reach the mask, which no fused kernel of a CPU brings to it."""
    return mask.requires_grad and torch.is_grad_enabled()


def _has_kernel(q: Tensor, mask: Tensor | None) -> bool:
    return _kernel(q, mask) != "dense"


def _kernel(q: Tensor, bias: Tensor | None) -> Literal["cpu", "flash", "efficient", "dense"]:
    """Return the kernel that computes the attention of queries q (B, H, N, D), with something added to the scores.

    "cpu" is torch's flash kernel for the CPU. On CUDA "flash" is the faster one: for half precision, an Ampere GPU or
    newer, heads that with a further channel are not too wide, and nothing added to the scores. "efficient" takes
    all the rest but double precision, and bfloat16 where the GPU has none. "dense" forms the scores.
    """
    if q.numel() == 0:  # the kernels' backward passes divide by the batch
        return "dense"
    if torch.compiler.is_exporting():  # an exported graph keeps neither our backward pass nor, as ONNX, the kernels
        return "dense"
    if in_transform():  # torch.func cannot enter a function of ours
        return "dense"
    if q.device.type == "cpu":
        return "cpu"
    if not _on_cuda(q) or q.dtype == torch.float64:
        return "dense"
    if q.dtype in HALF and torch.cuda.get_device_properties(q.device).major >= 8:
        fits = bias is None and q.shape[-1] + ALIGNED <= WIDEST_FLASH and max(q.shape[:2]) <= MOST_BLOCKS
        return "flash" if fits else "efficient"
    return "dense" if q.dtype == torch.bfloat16 else "efficient"


def _on_cuda(x: Tensor) -> bool:
    return x.device.type == "cuda"


def _aligned(size: int) -> int:
    """Return the next multiple of `ALIGNED`."""
    return size + -size % ALIGNED


def _widen(x: Tensor, width: int) -> Tensor:
    return F.pad(x, (0, width - x.shape[-1])) if x.shape[-1] < width else x


def _unexpanded(x: Tensor) -> Tensor:
    """Return ``x`` with size 1 in each dimension along which its memory repeats."""
    for dim in range(x.dim()):
        if x.shape[dim] > 1 and x.stride(dim) == 0:
            x = x.narrow(dim, 0, 1)
    return x


def _rows(x: Tensor) -> Tensor:
    """Return ``x`` with a token's channels side by side in memory: kernels assume that, and would read elsewhere.

    On CUDA every token of a width that is a multiple of `ALIGNED` then starts at an address that kernels load from.
    """
    return x if _in_rows(x) else x.clone(memory_format=torch.contiguous_format)


def _in_rows(x: Tensor) -> bool:
    if not _on_cuda(x):
        return x.stride(-1) == 1
    steps = [step for size, step in zip(x.shape[:-1], x.stride()[:-1], strict=True) if size > 1]
    if not torch.compiler.is_compiling():  # a graph has no such number; its compiler lays out what kernels read
        steps.append(int(x.storage_offset()))
    return x.stride(-1) == 1 and all(step % ALIGNED == 0 for step in steps)


def _aligned_rows(mask: Tensor) -> Tensor:
    """Return a mask (..., M) with rows in a layout that CUDA's kernels can load."""
    if _in_rows(mask):
        return mask
    return F.pad(mask, (0, -mask.shape[-1] % ALIGNED)).contiguous()[..., : mask.shape[-1]]
