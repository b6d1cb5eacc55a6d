"""Attention whose marginals are both fixed: rows and columns of the weights are normalised in turn.

M. Sander, P. Ablin, M. Blondel, G. Peyré, Sinkformers: Transformers with Doubly Stochastic Attention, AISTATS 2022. The
steps are taken in the log domain, as potentials of queries and units, so that each is one fused attention and no N x M
matrix is formed.
"""

from typing import Literal

import torch
from torch import Tensor

from attention_zoo.functional.mixture import Joint

Marginal = Literal["rows", "columns"]


def infer_balanced_values(model: Joint, v: Tensor, half_steps: int, begin: Marginal) -> Tensor:
    """Return W v (B, H, N, E), where W is exp(scores) after ``half_steps`` normalisations, of rows and columns in turn.

    One that begins with rows is softmax attention. Two that begin with columns are doubly normalised attention, the
    maximum-likelihood adaptation of keys with queries and keys in each other's place. After an even number that began
    with rows the columns sum to one, and the rows do only in the limit.

    Args:
        model: the joint probability of queries and units.
        v: mean values (B, H, M, E).
        half_steps: normalisations, at least one.
        begin: which of the two comes first.

    Returns:
        Values (B, H, N, E); 0 for a query that may read no unit. A unit that no query may read has no column.
    """
    log_rows = torch.zeros_like(model.q[..., 0])  # minus the potential of the queries
    for step in range(half_steps):
        rows = (begin == "rows") == (step % 2 == 0)
        if rows and step < half_steps - 1:
            log_rows = model.read(v[..., :1])[1]
        if not rows:
            log_mass = model.read_back(model.q[..., :1], log_rows)[1]
            model = model.with_bias(-log_mass.masked_fill(log_mass.isneginf(), 0.0))
    out, log_sum = model.read(v)
    if rows:
        return out
    nothing = log_sum.isneginf()
    return out * (log_sum.masked_fill(nothing, 0.0) - log_rows.masked_fill(nothing, 0.0)).exp()[..., None]
