"""Reversed attention: tokens send their values to those that they attend to, their parents in a tree of parts.

    out_j = sum_i A_ij m_i p_i^h v_i,    A = softmax_j(q_i.k_j / sqrt(d))
    p_i = softmax_h(W_p x_i / tau),    m_i^l = m_i^{l-1} sigmoid(MLP(x_i))

M. Ding, Y. Shen, L. Fan, Z. Chen, Z. Chen, P. Luo, J. B. Tenenbaum, C. Gan, Visual Dependency Transformers: Dependency
Tree Emerges from Reversed Attention, CVPR 2023 (section 3.2). No code was released; that p and m are those of the
sending token is how we read the section.
"""

from typing import Annotated, Unpack

import torch
from torch import Tensor, nn

from attention_zoo.domains import Domain
from attention_zoo.functional.attention import attend, bounded, few
from attention_zoo.functional.memory import score_bound
from attention_zoo.functional.precision import precise, widened
from attention_zoo.mixers.base import HostOptions, SelfMixer
from attention_zoo.mixers.protocols import KeptByThread
from attention_zoo.mixers.registry import register

Temperature = Annotated[float, Domain(least=1e-3, most=1e6)]
"""What logits are divided by before a softmax."""


@register
class Reversed(SelfMixer):
    """``Aᵀ (m ∘ p ∘ V)``: each token chooses a head to send by (p), and sends less the more of a leaf it is (m).

    The message m falls from layer to layer: a mixer in a model multiplies its own with that of the last layer before
    it that is `Reversed` too.

    Args:
        dim: token width.
        num_heads: heads.
        temperature: tau; the smaller, the more a token sends by one head alone.
        **host: see `SelfMixer`.
    """

    reading = "kernel smoothing, reversed"
    paper = "Ding et al. 2023 (DependencyViT)"
    equation = "softmax(Q Kᵀ/√d)ᵀ (m ∘ p ∘ V)"
    complexity = "N²"
    takes_tokens = True

    def __init__(
        self, dim: int, num_heads: int = 8, *, temperature: Temperature = 1.0, **host: Unpack[HostOptions]
    ) -> None:
        super().__init__(dim, num_heads, **host)
        self.temperature, made = temperature, self.made
        self.of_heads = nn.Linear(dim, num_heads, bias=False, **made) if num_heads > 1 else None
        self.of_message = nn.Sequential(
            nn.Linear(dim, max(1, dim // 4), **made), nn.GELU(), nn.Linear(max(1, dim // 4), 1, **made)
        )
        self.message = KeptByThread()
        self.before: KeptByThread | None = None

    def follow(self, before: "Reversed | None") -> None:
        """Multiply the message with that of ``before``, an earlier layer, in each pass; None ends that."""
        self.before = None if before is None else before.message

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the values (B, H, N, D) that tokens are sent, of q (B, H, N, 2 D; see `split_tokens`), k and v."""
        q, tokens = self.split_tokens(q)
        sent = v * self.gates(tokens)
        scale = self.head_dim**-0.5
        with torch.autocast(q.device.type, enabled=False):
            q, k, sent = widened(score_bound(q, k, scale), q, k, sent)
            q = bounded(q, k, scale)
            if few(q, k):
                return ((scale * q @ k.mT).softmax(-1).mT @ sent).to(v.dtype)
            _, log_sum = attend(q, k, sent, scale)
            # A^T is a softmax over the senders, by scores less those log-sums, times its own normaliser
            mean, log_load = attend(k, q, sent, scale, key_bias=-log_sum)
            return (mean * log_load.exp()[..., None]).to(v.dtype)

    def gates(self, tokens: Tensor) -> Tensor:
        """Return m p (B, H, N, 1) of tokens (B, N, dim)."""
        message = self.of_message(tokens).sigmoid()
        last = None if self.before is None else self.before.value
        if last is not None and last.shape == message.shape:
            message = message * last.to(message)
        self.message.value = message
        gates = message[:, None]
        if self.of_heads is None:
            return gates
        chosen = (self.of_heads(tokens) / self.temperature).softmax(-1).transpose(1, 2)[..., None]
        return gates * chosen

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return Aᵀ (B, H, N, N), each column times the gate of its sender."""
        q, tokens = self.split_tokens(q)
        q, k = precise(q), precise(k)
        weights = (bounded(q, k, self.head_dim**-0.5) @ k.mT * self.head_dim**-0.5).softmax(-1)
        return (weights * self.gates(tokens)).mT
