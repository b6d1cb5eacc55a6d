"""The joint probability of queries and memory units, read both ways, if possible without forming the N x M matrix.

    log p(q_i, u_j) = scale q_i.k_j + bias_j + mask_ij + pairs_ij    up to terms of i alone

`joint` brings Eq. 5, 8-10, 25, 26, 29 and 40 of P. Gabbur, M. Bilkhu, J. Movellan, Probabilistic Attention for
Interactive Segmentation (NeurIPS 2021) into this form: whatever is a product of something of i and something of j
rides in further features. Only ``pairs``, positions that are given for every pair of tokens, and a prior that wants a
gradient have no such form; they are worked off in blocks of rows, computed again in the backward pass.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from attention_zoo.compat import in_transform
from attention_zoo.functional.attention import attend, attend_to_later, bounded, forbidden, largest_score, normalized
from attention_zoo.functional.positions import FactoredPositions, FactoredPrior, SplitPrior, come_later

Precision = float | Tensor
"""One precision for all units, or one for each unit (B, H, M)."""
Positions = Tensor | FactoredPositions
BLOCK = 1 << 22
"""Number of entries in a block of rows, over batch and heads."""


class Pairs(NamedTuple):
    """Terms with an embedding r_ij for each pair: (query_i.r_ij) weight_j + key_j.r_ij + norm_j |r_ij|^2."""

    positions: Tensor
    """Embeddings r_ij (N, M, D)."""
    query: Tensor | None = None
    """Queries (B, H, N, D) whose products with r_ij are added; None adds none."""
    weight: Precision = 1.0
    key: Tensor | None = None
    """Keys (B, H, M, D) whose products with r_ij are added; None adds none."""
    norm: Precision = 0.0

    def block(self, rows: slice | Tensor, columns: slice) -> Tensor:
        """Return the terms (B, H, rows, columns) of some rows, a slice or an index (B, S), and some columns."""
        positions = self.positions[rows][..., columns, :]
        total: Tensor | float = 0.0
        if self.query is not None:
            total = total + _dot(_rows(self.query, rows), positions) * _of_columns(self.weight, columns)
        if self.key is not None:
            total = total + _dot(self.key[:, :, columns], positions.transpose(-3, -2)).mT
        if isinstance(self.norm, Tensor) or self.norm:
            lengths = positions.square().sum(-1)
            lengths = lengths[:, None] if lengths.dim() == 3 else lengths
            total = total + lengths * _of_columns(self.norm, columns)
        return cast(Tensor, total)  # positions of queries or keys there are


@dataclass(frozen=True)
class Joint:
    """The logarithm of the joint probability, in the form that the module's docstring gives.

    Attributes:
        q: features of the queries (B, H, N, F).
        k: features of the units (B, H, M, F).
        scale: factor of q.k.
        bias: added to the scores of each unit (B, H, M).
        mask: added to the scores; broadcasts to (B, H, N, M).
        pairs: terms that are given for every pair of tokens.
        is_causal: whether a query reads only the units up to its own place, see `SplitPrior`.
        has_window: whether the features forbid some units, by scores of `forbidden` and less.
    """

    q: Tensor
    k: Tensor
    scale: float
    bias: Tensor | None = None
    mask: Tensor | None = None
    pairs: tuple[Pairs, ...] = ()
    is_causal: bool = False
    has_window: bool = False

    @property
    def fused(self) -> bool:
        """Return whether fused attention computes it all, so that no block of scores has to be formed."""
        return len(self.pairs) == 0 and not (self.mask is not None and self.mask.requires_grad)

    def with_bias(self, bias: Tensor) -> "Joint":
        """Return the joint probability with ``bias`` (B, H, M) added to that of the units."""
        return replace(self, bias=bias if self.bias is None else self.bias + bias)

    def scores(self, rows: slice | Tensor, columns: slice = slice(None)) -> Tensor:
        """Return the logarithm (B, H, rows, columns) for some rows, a slice or an index (B, S), and some columns."""
        total = self.scale * (_rows(self.q, rows) @ self.k[:, :, columns].mT)
        if self.bias is not None:
            total = total + self.bias[:, :, None, columns]
        if self.mask is not None:
            total = total + _rows(self.mask, rows)[..., columns]
        for pairs in self.pairs:
            total = total + pairs.block(rows, columns)
        if self.has_window:
            total = total.masked_fill(total < self._lowest, -torch.inf)
        return total.masked_fill(self._later(rows, columns), -torch.inf) if self.is_causal else total

    @property
    def _lowest(self) -> float:
        """The score below which a unit is out of the window."""
        return forbidden(self.q.dtype) / 2

    def _later(self, rows: slice | Tensor, columns: slice) -> Tensor:
        """Return which units come after the place of a query, (rows, columns) or for an index (B, 1, S, columns)."""
        queries, units = (torch.arange(x.shape[2], device=x.device) for x in (self.q, self.k))
        places = queries[rows] if isinstance(rows, slice) else rows[:, None]
        return come_later(units[columns], places, len(queries))

    def read(
        self, v: Tensor, v_pos: Tensor | None = None, reweighted: Callable[[slice], Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return each query's mean of v (B, H, M, E), plus v_pos (N, M, E), and logsumexp (B, H, N), over the units.

        A query that may read no unit takes nothing: its mean is 0 and its logsumexp -inf, with no gradient.
        ``reweighted`` returns what is added to the scores (B, H, rows, M) of a slice of the rows.
        """
        if self.fused and v_pos is None and reweighted is None:
            return self._within_window(*(self._attend_causally(v) if self.is_causal else self._attend(v)))

        def block(rows: slice) -> tuple[Tensor, Tensor]:
            scores = self.scores(rows)
            weights, log_sum = normalized(scores if reweighted is None else scores + reweighted(rows))
            out = weights @ v
            if v_pos is not None:
                out = out + torch.einsum("bhij,ije->bhie", weights, v_pos[rows])
            return out, log_sum

        out, lse = zip(*self._blocks(block, self.q.shape[2], self.k.shape[2]), strict=True)
        return torch.cat(out, 2), torch.cat(lse, 2)

    def read_back(self, x: Tensor, log_normaliser: Tensor, x_pos: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return each unit's mean of x (B, H, N, E) over the queries, and the log of its responsibility for them all.

        To the mean that of x_pos (M, N, E) is added, where it is given.

        The responsibilities are w_ij = exp(log p(q_i, u_j) - log_normaliser_i), so the means are a softmax over i:
        attention again, queries and keys in each other's place.

        Returns:
            Means (B, H, M, E) and log sum_i w_ij (B, H, M). A unit that no query may read has mean 0 and -inf; a query
            that may read no unit is responsible for none.
        """
        log_normaliser = log_normaliser.masked_fill(log_normaliser.isneginf(), 0.0)
        if self.fused and x_pos is None:
            mean, log_mass = self._within_window(*self._attend_back(x, -log_normaliser))
            return mean, log_mass if self.bias is None else log_mass + self.bias

        def block(columns: slice) -> tuple[Tensor, Tensor]:
            weights, log_mass = normalized((self.scores(slice(None), columns) - log_normaliser[..., None]).mT)
            mean = weights @ x
            if x_pos is not None:
                mean = mean + torch.einsum("bhji,jie->bhje", weights, x_pos[columns])
            return mean, log_mass

        means, log_masses = zip(*self._blocks(block, self.k.shape[2], self.q.shape[2]), strict=True)
        return torch.cat(means, 2), torch.cat(log_masses, 2)

    def _attend(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `read` does, by fused attention."""
        return attend(self.q, self.k, v, self.scale, key_bias=self.bias, mask=self.mask)

    def _attend_causally(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `_attend` does of the units up to a query's own place, each N of the units by themselves."""
        found = []
        for part in self._parts():
            bias = None if self.bias is None else self.bias[..., part]
            mask = None if self.mask is None else self.mask[..., part]
            units = self.k[:, :, part], v[:, :, part]
            found.append(attend(self.q, *units, self.scale, key_bias=bias, mask=mask, is_causal=True))
        if len(found) == 1:
            return found[0]
        outs, sums = (torch.stack(parts, -1) for parts in zip(*found, strict=True))
        weights, log_sum = normalized(sums)  # of each part
        return (outs * weights[..., None, :]).sum(-1), log_sum

    def _attend_back(self, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Return each unit's mean of x (B, H, N, E) over its readers, whose scores have a bias (B, H, N), and lse."""
        mask = None if self.mask is None else self.mask.mT
        if not self.is_causal:
            return attend(self.k, self.q, x, self.scale, key_bias=bias, mask=mask)
        found = []
        for part in self._parts():
            of_part = None if mask is None else mask[..., part, :]
            found.append(attend_to_later(self.k[:, :, part], self.q, x, self.scale, key_bias=bias, mask=of_part))
        mean, log_mass = (torch.cat(parts, 2) for parts in zip(*found, strict=True))
        return mean, log_mass

    def _parts(self) -> list[slice]:
        """Return the units in parts of as many as there are queries."""
        size = self.q.shape[2]
        return [slice(start, start + size) for start in range(0, self.k.shape[2], size)] or [slice(None)]

    def _within_window(self, out: Tensor, log_sum: Tensor) -> tuple[Tensor, Tensor]:
        """Return what was read (B, H, N, E) and its logsumexp (B, H, N), of nothing where no unit was in a window."""
        if not self.has_window:
            return out, log_sum
        nothing = log_sum.detach() < self._lowest
        return out.masked_fill(nothing[..., None], 0.0), log_sum.masked_fill(nothing, -torch.inf)

    def _blocks(
        self, function: Callable[[slice], tuple[Tensor, Tensor]], size: int, width: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the function's results for all of ``size``, slice by slice; no block is kept for the backward pass."""
        exporting = torch.compiler.is_exporting()
        if exporting and not self.pairs:  # of tokens of any number, so that no number of blocks fits
            yield function(slice(None))
            return
        batch = 1 if exporting else self.q.shape[0]  # a graph has as many blocks for every batch
        step = max(1, BLOCK // max(1, batch * self.q.shape[1] * width))
        for start in range(0, size, step):
            rows = slice(start, min(start + step, size))
            if torch.is_grad_enabled() and not in_transform():  # torch.func cannot forget and compute again
                yield checkpoint(function, rows, use_reentrant=False)
            else:
                yield function(rows)


def collect(log_weights: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return means of x (..., N, E) weighted by exp(log_weights) (..., M, N), and logarithms of the weights' sums.

    Where all weights are zero the mean is zero and the logarithm -inf, with finite gradients.
    """
    weights, log_mass = normalized(log_weights)
    return weights @ x, log_mass


def joint(
    q: Tensor,
    k: Tensor,
    *,
    alpha: Precision,
    beta: Precision = 0.0,
    v: Tensor | None = None,
    v_init: Tensor | None = None,
    q_pos: Positions | None = None,
    k_pos: Positions | None = None,
    v_pos: Positions | None = None,
    log_prior: Tensor | FactoredPrior | SplitPrior | None = None,
    log_mixing: Tensor | None = None,
    magnitude_prior: bool = True,
) -> Joint:
    """Return the joint probability of queries (B, H, N, D) and units with keys (B, H, M, D) and values v (B, H, M, E).

    Arguments are those of `attention_zoo.functional.em.infer_values`. Precisions that are tensors carry their
    normalisers d/2 log alpha_j and m/2 log beta_j. Of a value's likelihood only what ``v_init`` fixes enters.
    """
    features, bias, pairs = _query_terms(q, k, alpha, q_pos is not None, k_pos is not None, magnitude_prior)
    for positions, of_keys in ((q_pos, False), (k_pos, True)):
        if positions is not None:
            _add_positions(features, pairs, positions, of_keys, q, k, alpha, magnitude_prior)
    if v is not None and (isinstance(beta, Tensor) or beta):
        bias = bias + _value_terms(features, pairs, beta, v, v_init, v_pos, magnitude_prior)
    if log_mixing is not None:
        bias = bias + log_mixing
    prior = split(log_prior)
    if prior.near is not None:
        of_query, of_key = (part.expand(*q.shape[:2], *part.shape[-2:]).to(q.dtype) for part in prior.near)
        features.append((of_query, of_key))
    scale = 1.0 if isinstance(alpha, Tensor) else alpha
    pair = (q.shape[2], k.shape[2])
    parts = [features[0][0], *(of_query / scale for of_query, _ in features[1:])]
    queries = torch.cat(parts, -1) if len(parts) > 1 else parts[0]
    keys = torch.cat([of_key for _, of_key in features], -1) if len(features) > 1 else features[0][1]
    if isinstance(bias, Tensor):
        factor = _factor(bias)
        queries, bias = queries * factor[..., None], bias * factor
    queries, mask = bounded(queries, keys, scale), prior.mask
    if prior.window is not None:  # its scores are beyond the bound, on purpose
        far, places = (part.expand(*q.shape[:2], *part.shape).to(keys.dtype) for part in prior.window)
        queries = torch.cat((queries, far * (forbidden(keys.dtype) / scale)), -1)
        keys = torch.cat((keys, places), -1)
        mask = None if mask is None else _above_window(mask)
    return Joint(
        q=queries,
        k=keys,
        scale=scale,
        bias=bias if isinstance(bias, Tensor) else None,
        mask=None if mask is None else mask.expand(*mask.shape[:-2], *pair),
        pairs=tuple(pairs),
        is_causal=prior.is_causal,
        has_window=prior.window is not None,
    )


def split(log_prior: Tensor | FactoredPrior | SplitPrior | None) -> SplitPrior:
    """Return any prior as one in parts."""
    if isinstance(log_prior, SplitPrior):
        return log_prior
    if isinstance(log_prior, FactoredPrior):
        return SplitPrior(near=log_prior)
    return SplitPrior(mask=log_prior)


def _above_window(mask: Tensor) -> Tensor:
    """Return a mask whose finite entries are above those of what a window forbids: a mask may forbid by -1e9 too."""
    least = -2 * largest_score(mask.dtype)
    return torch.where(mask == -torch.inf, mask, mask.clamp(min=least))


def _factor(bias: Tensor) -> Tensor:
    """Return the factor (B, H, 1) that `bounded` would scale scores by, for a bias (B, H, M) beyond the bound."""
    bias = bias.detach()
    largest = bias.masked_fill(~bias.isfinite(), 0.0).abs().amax(-1, keepdim=True)
    return (largest_score(bias.dtype) / largest.clamp(min=1e-30)).clamp(max=1.0)


def _query_terms(
    q: Tensor, k: Tensor, alpha: Precision, query_positions: bool, key_positions: bool, magnitude_prior: bool
) -> tuple[list[tuple[Tensor, Tensor]], Tensor | float, list[Pairs]]:
    """Return log N(q_i | xi_j, 1/alpha_j) and the magnitude prior, as features and bias (Eq. 8, 10).

    With embeddings N(q_i | r_ij, 1/alpha_j) brings another |q_i|^2, N(xi_j | r_ji, 1/alpha_j) another |xi_j|^2
    (Eq. 25, 26; the magnitude prior cancels the second and the squares of the embeddings).
    """
    bias: Tensor | float = 0.0
    features = [(q, k)]
    if isinstance(alpha, Tensor):
        squares = (2 if query_positions else 1) * q.square().sum(-1, keepdim=True)
        features = [(q, alpha[..., None] * k), (squares, -alpha[..., None] / 2)]
        bias = q.shape[-1] / 2 * alpha.log()
    if not magnitude_prior:
        bias = bias - (2 if key_positions else 1) / 2 * alpha * k.square().sum(-1)
    return features, bias, []


def _add_positions(
    features: list[tuple[Tensor, Tensor]],
    pairs: list[Pairs],
    positions: Positions,
    of_keys: bool,
    q: Tensor,
    k: Tensor,
    alpha: Precision,
    magnitude_prior: bool,
) -> None:
    """Add alpha_j q_i.r_ij or alpha_j xi_j.r_ji, without the magnitude prior also -alpha_j/2 |r|^2 (Eq. 25, 26)."""
    precision = alpha[..., None] if isinstance(alpha, Tensor) else alpha
    if isinstance(positions, FactoredPositions) and magnitude_prior:
        indicators = positions.indicators(q).expand(*q.shape[:2], -1, -1)
        if of_keys:
            features.append((indicators, precision * positions.scores(k)))
        else:
            features.append((positions.scores(q), precision * indicators))
        return
    table = positions.full() if isinstance(positions, FactoredPositions) else positions
    norm = 0.0 if magnitude_prior else -alpha / 2
    if of_keys:
        pairs.append(Pairs(table.transpose(0, 1), key=precision * k, norm=norm))
    else:
        pairs.append(Pairs(table, query=q, weight=alpha, norm=norm))


def _value_terms(
    features: list[tuple[Tensor, Tensor]],
    pairs: list[Pairs],
    beta: Precision,
    v: Tensor,
    v_init: Tensor | None,
    v_pos: Positions | None,
    magnitude_prior: bool,
) -> Tensor | float:
    """Add log N(v_i | mu_j + r_ij, 1/beta_j) where v_i is given, and the magnitude prior's beta/2 |mu_j + r_ij|^2.

    Features and pairs are appended to the lists; the bias of the units is returned.
    """
    precision = beta[..., None] if isinstance(beta, Tensor) else beta
    squares = beta / 2 * v.square().sum(-1)
    bias: Tensor | float = squares if magnitude_prior else 0.0
    if v_init is not None:
        features.append((v_init, precision * v))
        bias = bias - squares
        if isinstance(beta, Tensor):
            features.append((v_init.square().sum(-1, keepdim=True), -beta[..., None] / 2))
            bias = bias + v.shape[-1] / 2 * beta.log()
    sign = int(magnitude_prior) - int(v_init is not None)  # of the squares that are left
    if v_pos is not None and (sign or v_init is not None):
        table = v_pos.full() if isinstance(v_pos, FactoredPositions) else v_pos
        key = sign * precision * v if sign else None
        pairs.append(Pairs(table, query=v_init, weight=beta, key=key, norm=sign * beta / 2 if sign else 0.0))
    return bias


def _rows(x: Tensor, rows: slice | Tensor) -> Tensor:
    """Return rows of x (..., N, F): a slice of them, or those that an index (B, S) names for each sample."""
    if isinstance(rows, slice):
        return x[..., rows, :]
    return x.reshape((1,) * (4 - x.dim()) + x.shape).take_along_dim(rows[:, None, :, None], dim=-2)


def _of_columns(weight: Precision, columns: slice) -> Precision:
    return weight[:, :, None, columns] if isinstance(weight, Tensor) else weight


def _dot(x: Tensor, positions: Tensor) -> Tensor:
    """Return products x_i.r_ij (B, H, N, M) of x (B, H, N, D) and positions (N, M, D) or (B, N, M, D)."""
    equation = "bhid,ijd->bhij" if positions.dim() == 3 else "bhid,bijd->bhij"
    return torch.einsum(equation, x, positions)
