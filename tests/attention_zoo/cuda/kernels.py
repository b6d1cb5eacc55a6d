"""Stand-ins for CUDA's attention kernels: they refuse what the kernels refuse, and compute what they compute.

The conditions are those of torch's sources: ``sdp_utils.cpp`` (which kernel torch may take), ``kernel_forward.h`` and
``kernel_backward.h`` of the memory-efficient kernel (alignment of pointers and strides), ``flash_api.cpp``.
"""

import math

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)
ENTRIES = {torch.float32: 4}
"""Entries of the 16 bytes that kernels load at once; 8 of half precision, and of float64 that stands in for it."""


def refusal(name: str, x: Tensor) -> str | None:
    """Why a kernel would not take q, k, v, a bias (B, H, N, D), or what is like them; None if it would."""
    entries = ENTRIES.get(x.dtype, 8)
    if x.dim() != 4:
        return f"{name} has {x.dim()} dimensions"
    if x.stride(-1) != 1:
        return f"{name} has its channels {x.stride(-1)} apart"
    if x.storage_offset() % entries:
        return f"{name} starts at entry {x.storage_offset()}"
    steps = [step for size, step in zip(x.shape[:-1], x.stride()[:-1], strict=True) if size > 1]
    if any(step % entries for step in steps):
        return f"{name} has strides {x.stride()}, which are no multiples of {entries}"
    return None


def check(**tensors: Tensor) -> None:
    """Fail where the memory-efficient kernel would."""
    refused = [why for name, x in tensors.items() if x is not None and (why := refusal(name, x))]
    assert not refused, "; ".join(refused)
    kinds = {x.dtype for x in tensors.values() if x is not None}
    assert len(kinds) == 1, f"types {kinds} are mixed"


class Kernels:
    """The kernels as functions with the signatures of torch's, and the calls that they were given.

    Attributes:
        calls: (kernel, forward or backward, shape of q, whether something is added to the scores) of each call.
        taken: (kernel, type of q) of all calls.
        numbers: whether the kernels compute; otherwise they return tensors without numbers, as under fake tensors.
    """

    def __init__(self, numbers: bool = True) -> None:
        self.calls: list[tuple[str, str, tuple[int, ...], bool]] = []
        self.taken: set[tuple[str, torch.dtype]] = set()
        self.numbers = numbers

    @property
    def names(self) -> set[str]:
        return {call[0] for call in self.calls}

    def install(self, monkeypatch) -> "Kernels":
        """Stand in for torch's operators, and for `scaled_dot_product_attention`, which chooses among them."""
        for kernel in ("flash", "efficient"):
            for suffix in ("", "_backward"):
                operator = getattr(self, f"{kernel}{suffix}")
                monkeypatch.setattr(torch.ops.aten, f"_scaled_dot_product_{kernel}_attention{suffix}", operator)
        monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", self.chosen)
        return self

    def chosen(self, q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, *, scale=None):
        """torch's own attention; fails where it would take the N x N formula."""
        if torch.is_autocast_enabled("cuda"):  # which brings its inputs to one type
            kind = torch.get_autocast_dtype("cuda")
            q, k, v = (x.to(kind) for x in (q, k, v))
            attn_mask = attn_mask if attn_mask is None or attn_mask.dtype == torch.bool else attn_mask.to(kind)
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        flash = q.dtype in HALF and attn_mask is None and q.shape[-1] == v.shape[-1] <= 256
        flash = flash and not (is_causal and q.shape[2] != k.shape[2])
        if q.dtype == torch.float64 and not self.numbers:
            self._note("math", "forward", q, attn_mask)
        elif flash:
            return self.flash(q, k, v, dropout_p, is_causal, scale=scale)[0]
        entries = ENTRIES.get(q.dtype, 8)
        assert q.shape[-1] % entries == v.shape[-1] % entries == 0, f"width {q.shape[-1]} or {v.shape[-1]}: no kernel"
        bias = None
        if attn_mask is not None:
            assert not is_causal, "torch takes one of both"
            assert attn_mask.dtype == q.dtype and attn_mask.stride(-1) == 1, "a mask for which torch has no kernel"
            bias = attn_mask.expand(*q.shape[:3], k.shape[2])
        return self.efficient(q, k, v, bias, True, dropout_p, is_causal, scale=scale)[0]

    def flash(self, q, k, v, dropout_p=0.0, is_causal=False, return_debug_mask=False, *, scale):
        check(q=q, k=k, v=v)
        assert q.dtype in HALF or self.numbers
        assert q.shape[-1] == k.shape[-1] == v.shape[-1] <= 256 and q.shape[-1] % 8 == 0
        assert max(q.shape[:2]) < 1 << 16
        assert not is_causal or q.shape[2] == k.shape[2], "places are counted from the end"
        self._note("flash", "forward", q, None)
        out, lse = self._attend(q, k, v, None, is_causal, scale)
        return out, lse, None, None, q.shape[2], k.shape[2], lse.new_empty(2), lse.new_empty(()), out.new_empty(0)

    def flash_backward(self, g, q, k, v, out, lse, ends_q, ends_k, long_q, long_k, dropout_p, causal, seed, offset, *,
                       scale):  # fmt: skip
        check(g=g, q=q, k=k, v=v, out=out)
        assert q.shape[-1] == v.shape[-1] <= 256 and (long_q, long_k) == (q.shape[2], k.shape[2])
        assert lse.shape == q.shape[:3] and lse.is_contiguous()
        self._note("flash", "backward", q, None)
        return self._gradients(g, q, k, v, None, out, lse, causal, scale)

    def efficient(self, q, k, v, bias, compute_log_sumexp, dropout_p=0.0, is_causal=False, *, scale):
        check(q=q, k=k, v=v, bias=bias)
        assert q.shape[-1] == k.shape[-1] and k.shape[2] == v.shape[2] and q.shape[1] < 1 << 16
        assert bias is None or bias.shape == (*q.shape[:3], k.shape[2])
        self._note("efficient", "forward", q, bias)
        out, lse = self._attend(q, k, v, bias, is_causal, scale)
        padding = -q.shape[2] % 32
        lse = torch.nn.functional.pad(lse, (0, padding), value=math.inf)
        return out, lse, lse.new_empty(()), lse.new_empty(())

    def efficient_backward(self, g, q, k, v, bias, out, lse, seed, offset, dropout_p, wanted, causal=False, *, scale):
        check(g=g, q=q, k=k, v=v, bias=bias, out=out)
        assert lse.shape == (*q.shape[:2], q.shape[2] + -q.shape[2] % 32) and lse.stride(-1) == 1
        assert not wanted[3]  # the gradient of a bias is N x N
        # for half precision kernel_backward.h sums g * out itself: o_strideM() is heads x width, whatever out's strides
        assert out.transpose(1, 2).is_contiguous(), f"out would be read elsewhere than its strides {out.stride()} say"
        self._note("efficient", "backward", q, bias)
        return *self._gradients(g, q, k, v, bias, out, lse[..., : q.shape[2]], causal, scale), None

    def _note(self, kernel: str, way: str, q: Tensor, bias: Tensor | None) -> None:
        self.calls.append((kernel, way, tuple(q.shape), bias is not None))
        self.taken.add((kernel, q.dtype))

    def _attend(self, q, k, v, bias, is_causal, scale):
        batch, heads, number = q.shape[:3]
        out = q.new_empty(batch, number, heads, v.shape[-1]).transpose(1, 2)  # the layout of the kernels' output
        wide = torch.float64 if q.dtype == torch.float64 else torch.float32
        if not self.numbers:
            return out, q.new_empty(q.shape[:3], dtype=wide)
        scores = self._scores(q, k, bias, is_causal, scale)
        return out.copy_(scores.softmax(-1) @ v), scores.logsumexp(-1).to(wide)

    def _gradients(self, g, q, k, v, bias, out, lse, is_causal, scale):
        if not self.numbers:
            return tuple(torch.empty_like(x) for x in (q, k, v))
        weights = (self._scores(q, k, bias, is_causal, scale) - lse[..., None]).exp()
        by_scores = weights * (g @ v.mT - (g * out).sum(-1, keepdim=True))
        return scale * by_scores @ k, scale * by_scores.mT @ q, weights.mT @ g

    def _scores(self, q, k, bias, is_causal, scale):
        scores = scale * q @ k.mT
        if is_causal:
            scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), -math.inf)
        return scores if bias is None else scores + bias
