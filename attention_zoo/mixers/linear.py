"""Linear attention: a kernel that factorises, so that keys and values are summed once for all queries.

    sum      out_i = phi(q_i) (sum_j phi(k_j) v_j^T) / (phi(q_i).sum_j phi(k_j))
    rms      out_i = RMSNorm(phi(q_i) sum_j phi(k_j) v_j^T)
    inline   out_i = phi(q_i) (1/N sum_j phi(k_j) v_j^T) - (phi(q_i).kbar) vbar + vbar

A. Katharopoulos et al., Transformers are RNNs, ICML 2020 (eq. 5, 7): elu + 1, normalised by the sum. Z. Qin et al., The
Devil in Linear Transformer, EMNLP 2022 (eq. 9): NormAttention. D. Han et al., FLatten Transformer, ICCV 2023 (eq. 6):
focused features. D. Han et al., Bridging the Divide: Reconsidering Softmax and Linear Attention (InLine), NeurIPS 2024
(eq. 7). kbar and vbar are means over the tokens.
"""

from typing import Literal, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from attention_zoo.functional.precision import precise
from attention_zoo.mixers.base import HostOptions, SelfMixer
from attention_zoo.mixers.premise import Measures, approximation, kernel_smoothing
from attention_zoo.mixers.registry import register

FOCUS = 3
"""The power p to which focused features are raised."""


def elu_feature(x: Tensor) -> Tensor:
    """Return the feature elu(x) + 1 of each entry, which is positive."""
    return F.elu(x) + 1


def focused_feature(x: Tensor) -> Tensor:
    """Return relu(x)^p, rescaled to the length of relu(x): directions move towards their largest channel."""
    x = x.relu()
    # in units of the largest channel: powers of large or small channels leave the range of float32
    largest = x.amax(-1, keepdim=True)
    largest = torch.where(largest > 0, largest, 1)
    unit = x / largest
    focused = unit**FOCUS
    return focused * largest * (_length(unit) / _length(focused))


def _length(x: Tensor) -> Tensor:
    """Return the length of each token (..., 1), 1 where it is zero, so that the gradient is finite there."""
    square = x.square().sum(-1, keepdim=True)
    return torch.where(square > 0, square, 1).sqrt()


_FEATURES = {"elu": elu_feature, "relu": torch.relu, "focused": focused_feature}


@register
class Linear(SelfMixer):
    """Kernel smoothing with a kernel φ(q)·φ(k) of few features: linear in the tokens.

    Features and sums are computed in float32 also under autocast.

    Args:
        dim: token width.
        num_heads: heads.
        feature: φ: "elu" (elu + 1), "relu", or "focused" (FLatten, p = 3).
        normaliser: "sum" of the weights, as softmax has it; "rms" of each head's output (NormAttention); or "inline",
            by which weights sum to one without a division, and tokens of other queries get other weights.
        **host: see `SelfMixer`.
    """

    reading = "kernel smoothing, a kernel that factorises"
    paper = "Katharopoulos et al. 2020; Han et al. 2023, 2024"
    equation = "φ(Q) (φ(K)ᵀ V) / (φ(Q) φ(K)ᵀ 1)"
    complexity = "N"
    premise = "Features of single tokens tell who reads whom: about as softmax does, and so that values are foretold."

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        feature: Literal["elu", "relu", "focused"] = "elu",
        normaliser: Literal["sum", "rms", "inline"] = "sum",
        **host: Unpack[HostOptions],
    ) -> None:
        super().__init__(dim, num_heads, **host)
        self.feature, self.normaliser = feature, normaliser

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the mixed values (B, H, N, D) of queries q, keys k and values v, all (B, H, N, D)."""
        with torch.autocast(q.device.type, enabled=False):
            phi_q, phi_k = self.features(q, k)
            values = v.to(phi_q.dtype)
            context = phi_k.mT @ values  # (B, H, D, D)
            if self.normaliser == "rms":
                return F.rms_norm(phi_q @ context, (v.shape[-1],)).to(v.dtype)
            if self.normaliser == "sum":
                return (phi_q @ context / self.total(phi_q, phi_k)).to(v.dtype)
            number = k.shape[2]
            mean = values.mean(2, keepdim=True)
            centred = context / number - phi_k.mean(2, keepdim=True).mT @ mean
            return (phi_q @ centred + mean).to(v.dtype)

    def features(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Return φ(Q) and φ(K), (B, H, N, D) each, in float32 or wider."""
        phi = _FEATURES[self.feature]
        return phi(precise(q)), phi(precise(k))

    def total(self, phi_q: Tensor, phi_k: Tensor) -> Tensor:
        """Return the sums of queries' weights (B, H, N, 1); 1 where all are zero, so that a query takes nothing."""
        total = phi_q @ phi_k.sum(-2)[..., None]
        return torch.where(total > 0, total, 1)

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the weights, which may be negative under "inline"; under "rms" the derivative, computed by torch."""
        if self.normaliser == "rms":
            return super().map_weights(q, k, v)
        phi_q, phi_k = self.features(q, k)
        weights = phi_q @ phi_k.mT
        if self.normaliser == "sum":
            return weights / self.total(phi_q, phi_k)
        return (weights - weights.mean(-1, keepdim=True) + 1) / k.shape[2]

    def premise_measures(self, q: Tensor, k: Tensor, v: Tensor) -> Measures:
        """Return how near the weights are to those of softmax, and how well they foretell tokens, for q, k and v.

        Under "rms" there are no weights, and nothing to say.
        """
        if self.normaliser == "rms":
            return {}
        weights = self.map_weights(q, k, v)
        softmax = (precise(q) @ precise(k).mT * self.head_dim**-0.5).softmax(-1)
        return {**approximation(weights, softmax), **kernel_smoothing(weights, v)}
