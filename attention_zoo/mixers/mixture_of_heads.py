"""Mixture of heads: each token weighs the heads, of which some serve all tokens and others a few that choose them.

    out_i = sum_h g_h(x_i) head_h(x)_i W_o^h
    shared heads:  g = 2 w_1 h_s softmax(W_s x)
    routed heads:  g = 2 w_2 k p_h / sum_{top k} p  for the k largest of p = softmax(W_r x), 0 for the others
    w = softmax(W_0 x)

h_s is the number of shared heads. P. Jin, B. Zhu, L. Yuan, S. Yan, MoH: Multi-Head Attention as Mixture-of-Head
Attention, ICML 2025 (eq. 6 to 9), with the factors of the released code, under which weights are 1 on average.
"""

from typing import Annotated, Unpack

import torch
from torch import Tensor, nn

from attention_zoo.domains import NOT_NEGATIVE, Domain
from attention_zoo.functional.diagnostics import evenness
from attention_zoo.functional.straight_through import straight_through
from attention_zoo.mixers.base import HostOptions, MixerFactory, SelfMixer
from attention_zoo.mixers.inside import building_inside
from attention_zoo.mixers.options import Amount
from attention_zoo.mixers.premise import Measure, Measures
from attention_zoo.mixers.protocols import Kept
from attention_zoo.mixers.registry import as_factory, wraps_mixers

Heads = Annotated[int, NOT_NEGATIVE, Domain(most=1 << 16)]
"""A number of heads, perhaps none."""


@wraps_mixers
class MixtureOfHeads(SelfMixer):
    """Any self-mixer of q, k and v, whose heads every token weighs; like `Axial` it is no reading of its own.

    In training it has a loss of its own (eq. 9), which keeps the loads of the routed heads even. All heads are
    computed, for all tokens: the readings are, as released, weighed and not skipped.

    Args:
        dim: token width.
        num_heads: heads, shared and routed together.
        mixer: the reading of the heads, a name, a dotted path or a factory; None is `DotProduct`.
        shared: number of heads that serve every token, the first ones; None leaves what is not routed, and where
            neither is given a quarter of the heads, at least one.
        routed: number of heads among which tokens choose; None is all that are not shared.
        topk: number of routed heads that a token reads; None is half of them, rounded up.
        balance: factor of the loss that evens the loads.
        **host: see `SelfMixer`.
    """

    reading = "around a mixer, weighing heads"
    paper = "Jin et al. 2025 (MoH)"
    equation = "Σ_h g_h(x) head_h (6 to 9)"
    complexity = "as inside"
    premise = "Tokens choose different heads, and none of the heads stays without tokens."
    takes_tokens = True
    drops_attention = True  # the mixer inside refuses it where it does not
    straight_through: bool = False

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        mixer: str | MixerFactory | None = None,
        shared: Heads | None = None,
        routed: Heads | None = None,
        topk: Heads | None = None,
        balance: Amount = 0.01,
        **host: Unpack[HostOptions],
    ) -> None:
        super().__init__(dim, num_heads, **host)
        inside: HostOptions = {**host, "qkv_bias": False, "qk_norm": False, "scale_norm": False, "proj_drop": 0.0}
        with building_inside(self, mixer):
            self.inside = as_factory("DotProduct" if mixer is None else mixer)(dim, num_heads, **inside)
        self.tokens = self.inside.tokens
        self._project_as(self.inside, host)
        if self.inside.norms_by_batch:  # the norm before the output projection, which is this mixer's
            self.norms_by_batch, self.norm, self.inside.norm = True, self.inside.norm, nn.Identity()
        self.takes_masks = self.inside.takes_masks  # type: ignore[method-assign]  # of this mixer, as its projections
        self.inside.drop_projections()
        shared, routed = self._numbers(shared, routed)
        self.check(topk is None or min(1, routed) <= topk <= routed, f"topk={topk} must be 1 to routed={routed}")
        self.shared, self.routed, self.balance = shared, routed, balance
        self.topk = -(-routed // 2) if topk is None else topk
        made = self.made
        self.of_shared = nn.Linear(dim, shared, bias=False, **made) if shared > 1 else None
        self.of_routed = nn.Linear(dim, routed, bias=False, **made) if routed > 1 else None
        self.of_kinds = nn.Linear(dim, 2, bias=False, **made) if shared and routed else None
        self.own_loss = Kept()

    def _project_as(self, inside: SelfMixer, host: HostOptions) -> None:
        """Have the projections of the reading ``inside``, whose queries may be its keys."""
        fits = "q" in inside.projections and not inside.takes_tokens
        self.check(fits, f"mixer={type(inside).__name__} does not read queries, keys and values head by head")
        if inside.projections != self.projections:
            self.projections = inside.projections  # type: ignore[misc]  # of this mixer, in place of its class
            width = self.dim * len(inside.projections)
            self.qkv = nn.Linear(self.dim, width, bias=host.get("qkv_bias", False), **self.made)
            self.k_norm = self.k_norm if "k" in inside.projections else nn.Identity()

    def _numbers(self, shared: int | None, routed: int | None) -> tuple[int, int]:
        """Return the numbers of shared and of routed heads, which are all heads together."""
        if shared is None:
            shared = max(1, self.num_heads // 4) if routed is None else self.num_heads - routed
        routed = self.num_heads - shared if routed is None else routed
        fits = shared >= 0 and routed >= 0 and shared + routed == self.num_heads
        self.check(fits, f"shared={shared} and routed={routed} must be num_heads={self.num_heads} together")
        return shared, routed

    def set_grid(self, grid: tuple[int, int]) -> None:
        """Expect tokens of another grid from now on, as `SelfMixer.set_grid` does, in the reading inside too."""
        super().set_grid(grid)
        self.inside.set_grid(grid)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the weighed heads (B, H, N, D) of q (B, H, N, 2 D; see `SelfMixer.split_tokens`), k and v."""
        q, tokens = self.split_tokens(q)
        return self.inside.mix(q, k, v) * self.gates(tokens)

    def mix_masked(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, is_causal: bool) -> Tensor:
        """Mix as `mix` does, where the reading inside reads only what the mask allows.

        Raises:
            InputError: the reading inside takes no masks.
        """
        q, tokens = self.split_tokens(q)
        return self.inside.mix_masked(q, k, v, attn_mask, is_causal) * self.gates(tokens)

    def gates(self, tokens: Tensor) -> Tensor:
        """Return the weight g of each head for tokens (B, N, dim), (B, H, N, 1); in training, keep the own loss."""
        parts, ones = [], tokens.new_ones(*tokens.shape[:2], 1)
        if self.shared:
            parts.append(ones if self.of_shared is None else self.of_shared(tokens).softmax(-1) * self.shared)
        if self.routed:
            parts.append(ones if self.of_routed is None else self.choose(self.of_routed(tokens).softmax(-1)))
        if self.of_kinds is not None:
            kinds = 2 * self.of_kinds(tokens).softmax(-1)
            parts = [part * kinds[..., place, None] for place, part in enumerate(parts)]
        return torch.cat(parts, -1).transpose(1, 2)[..., None].to(tokens.dtype)

    def choose(self, chances: Tensor) -> Tensor:
        """Return the weights (B, N, E) of the routed heads from their ``chances``: those of the top k sum to k."""
        chosen = torch.zeros_like(chances).scatter(-1, chances.topk(self.topk, -1).indices, 1.0)
        if self.training:
            self.own_loss.value = self.balance * self.imbalance(chances, chosen)
        if self.straight_through:
            chosen = straight_through(chosen, chances)
        kept = chances * chosen
        return self.topk * kept / kept.sum(-1, keepdim=True).clamp(min=torch.finfo(kept.dtype).eps)

    def imbalance(self, chances: Tensor, chosen: Tensor) -> Tensor:
        """Return ``E sum_e P_e f_e``, of chances (B, N, E) and choices: topk where the loads of all heads are even.

        P_e is the mean chance of a head and f_e the share of the tokens that chose it.
        """
        return self.routed * (chances.mean((0, 1)) * chosen.mean((0, 1))).sum()

    @property
    def has_closed_map(self) -> bool:
        """Whether the reading inside has its map at once."""
        return self.inside.has_closed_map

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the maps (B, H, N, N) of the reading inside, each row times the weight of its head."""
        q, tokens = self.split_tokens(q)
        return self.inside.map_weights(q, k, v) * self.gates(tokens)

    def premise_measures(self, q: Tensor, k: Tensor, v: Tensor) -> Measures:
        """Return how evenly tokens choose among the routed heads, one number an image, for q (B, H, N, 2 D), k and v.

        It is compared with what it is where all tokens choose the same; where all heads are chosen there is nothing to
        say.
        """
        if self.of_routed is None or self.topk == self.routed:
            return {}
        _, tokens = self.split_tokens(q)
        chances = self.of_routed(tokens)
        loads = torch.zeros_like(chances).scatter(-1, chances.topk(self.topk, -1).indices, 1.0).sum(1)  # (B, E)
        even = evenness(loads)[:, None]
        return {
            "evenness of the heads' loads": Measure(even, torch.full_like(even, self.topk / self.routed), "higher"),
            "routed heads without a token": Measure((loads == 0).to(even.dtype).mean(-1, keepdim=True)),
        }
