"""Token-aware pooling: each token is blurred as far as it asks for, and then mixed by any self-mixer.

    x_a = sum_s pi_s(x) AvgPool_{3 x 3, dilation s}(x),    s = 0 .. S - 1 (0: as it is),    out = mixer(x_a)
    pi = softmax_s(Conv3x3(BN(Conv3x3(x))))

with the attention diversity loss: the mean cosine between a token's weights and the mean token's, both without weights
below 2/N. Y. Guo, D. Stutz, B. Schiele, Robustifying Token Attention for Vision Transformers, ICCV 2023 (eq. 2 to 6).
"""

from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.mixers.base import HostOptions, MixerFactory, SelfMixer, TopDownOptions
from attention_zoo.mixers.inside import building_inside
from attention_zoo.mixers.options import Amount, KernelSide
from attention_zoo.mixers.protocols import Kept
from attention_zoo.mixers.registry import as_factory, wraps_mixers
from attention_zoo.mixers.running_statistics import hold_statistics


@wraps_mixers
class TokenAwarePooling(SelfMixer):
    """Any self-mixer behind pooling of a range that each token of the grid chooses; prefix tokens are not pooled.

    It wraps a whole mixer, its projections included, and is no reading of its own. The released blocks pool the
    tokens before their norm, which a mixer does not see: here the normed tokens are pooled.

    Args:
        dim: token width.
        num_heads: heads.
        mixer: what mixes the pooled tokens, a name, a dotted path or a factory; None is `DotProduct`.
        scales: number S of ranges; with one nothing is pooled.
        diversity: factor of the attention diversity loss (the paper's is 1), which in training needs the N x N map;
            0 leaves both out.
        **host: see `SelfMixer`.
    """

    reading = "around a mixer, behind pooling"
    paper = "Guo et al. 2023 (TAP)"
    equation = "mixer(Σ_s π_s(x) AvgPool_s(x)) (2 to 6)"
    complexity = "as inside"
    projections = ()
    tokens = "grid"
    drops_attention = True  # the mixer inside refuses it where it does not

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        mixer: str | MixerFactory | None = None,
        scales: KernelSide = 4,
        diversity: Amount = 0.0,
        **host: Unpack[HostOptions],
    ) -> None:
        own: HostOptions = {**host, "qk_norm": False, "scale_norm": False, "proj_drop": 0.0}
        super().__init__(dim, num_heads, **own)
        self.scales, self.diversity, made = scales, diversity, self.made
        with building_inside(self, mixer):
            self.inside = as_factory("DotProduct" if mixer is None else mixer)(dim, num_heads, **host)
        self.norms_by_batch = self.inside.norms_by_batch
        self.ranges = nn.Sequential(
            nn.Conv2d(dim, scales, 3, padding=1, bias=False, **made),
            nn.BatchNorm2d(scales, **made),
            nn.Conv2d(scales, scales, 3, padding=1, bias=False, **made),
        )
        hold_statistics(self.ranges)
        self.own_loss = Kept()

    def set_grid(self, grid: tuple[int, int]) -> None:
        """Expect tokens of another grid from now on, as `SelfMixer.set_grid` does, in the mixer inside too."""
        super().set_grid(grid)
        self.inside.set_grid(grid)

    def forward(
        self,
        x: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        *,
        top_down: Tensor | None = None,
        **how: Unpack[TopDownOptions],
    ) -> Tensor:
        """Pool tokens and mix them as `SelfMixer.forward` of the mixer inside does; a signal is not pooled.

        Raises:
            InputError: there is a mask, which pooled tokens would carry across, or the tokens are no grid.
        """
        self.check(attn_mask is None and not is_causal, "pooled tokens cannot use attn_mask or is_causal")
        pooled = self.pool(x)
        if self.training and self.diversity:
            self.own_loss.value = self.diversity * likeness(self.inside.attention_map(pooled))
        return self.inside(pooled, top_down=top_down, **how)

    def pool(self, x: Tensor) -> Tensor:
        """Return tokens (B, N, dim), each of the grid averaged over the range that it chose.

        Raises:
            InputError: the tokens are no grid.
        """
        self.check_tokens(x)
        grid, prefix = self.spatial_shape(x.shape[1]), self.num_prefix_tokens
        image = x[:, prefix:].transpose(1, 2).unflatten(-1, grid)
        weights = self.ranges(image).softmax(1).to(x.dtype)
        pooled = image * weights[:, :1]
        for scale in range(1, self.scales):
            pooled = pooled + weights[:, scale, None] * dilated_mean(image, scale)
        return torch.cat((x[:, :prefix], pooled.flatten(2).transpose(1, 2)), 1)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the mixed values (B, H, N, D) of queries, keys and values that were pooled before."""
        return self.inside.mix(q, k, v)

    @property
    def has_closed_map(self) -> bool:
        """Whether the reading inside has its map at once."""
        return self.inside.has_closed_map

    def attention_map(self, x: Tensor, top_down: Tensor | None = None, **how: Unpack[TopDownOptions]) -> Tensor:
        """Return who reads whom among the pooled tokens of ``x`` (B, N, dim): (B, H, N, N); a signal is not pooled."""
        return self.inside.attention_map(self.pool(x), top_down, **how)


def dilated_mean(image: Tensor, dilation: int) -> Tensor:
    """Return the mean over 3 x 3 positions, ``dilation`` apart, of an image (B, C, h, w) with zeros around it."""
    height, width = image.shape[2:]
    padded = F.pad(image, (dilation,) * 4)
    steps = (0, dilation, 2 * dilation)
    rows = torch.stack([padded[:, :, step : step + height] for step in steps]).sum(0)
    return torch.stack([rows[..., step : step + width] for step in steps]).sum(0) / 9


def likeness(weights: Tensor) -> Tensor:
    """Return how alike the tokens' weights (B, H, N, N) are, in [0, 1]: the attention diversity loss of one layer."""
    mean = weights.mean(1)  # over heads, as released
    least = 2 / weights.shape[-1]
    common, own = (torch.where(part > least, part, 0.0) for part in (mean.mean(1, keepdim=True), mean))
    return F.cosine_similarity(common, own, dim=-1).mean()
