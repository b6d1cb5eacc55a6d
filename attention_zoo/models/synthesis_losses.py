"""The losses by which a model learns analysis by synthesis: reconstruction, prior, and the length of sparse codes.

    L_var = sum_l 1/2 ||sg(z_l) - g_l(sg(z_{l+1}))||^2 + lambda ||u_l||_1 - log p_xi(z_L)

B. Shi, T. Darrell, X. Wang, Top-Down Visual Attention from Analysis by Synthesis (AbSViT), CVPR 2023; technical report
EECS-2024-49, eq. 2.12 to 2.15.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.errors import InputError
from attention_zoo.mixers.vars.lista import SparseReconstruction

Reduction = Literal["mean", "sum", "cosine"]


def reconstruction_loss(pairs: Sequence[tuple[Tensor, Tensor]], reduction: Reduction) -> Tensor:
    """Return how far rebuilt tokens are from those that were seen, summed over the layers (eq. 2.13).

    Args:
        pairs: for each layer the rebuilt and the seen tokens, (B, N, dim) each; those seen get no gradient.
        reduction: ``mean`` squared error, as released; the ``sum`` over tokens and channels, halved, of eq. 2.13; or
            ``cosine``, one minus the cosine of each token, mean over tokens (the report: "similar results").
    """
    if reduction == "mean":
        losses = [F.mse_loss(rebuilt, seen.detach()) for rebuilt, seen in pairs]
    elif reduction == "sum":
        losses = [(rebuilt - seen.detach()).square().sum() / (2 * len(seen)) for rebuilt, seen in pairs]
    else:
        losses = [1 - F.cosine_similarity(rebuilt, seen.detach(), dim=-1).mean() for rebuilt, seen in pairs]
    return sum(losses[1:], losses[0])


def prior_loss(seen: Tensor, prior: Tensor, temperature: float, *, both_ways: bool = False) -> Tensor:
    """Return the mean of -log p_xi(z_L), where other images are the negatives (eq. 2.15).

    The equation has plain inner products. Here they are cosines over a temperature, as in CLIP, which it refers to, and
    as in the released code, where the loss is commented out (vision_language/meter/modules/absvit.py, ``clip_loss``).

    Args:
        seen: (B, dim), what each image ends in.
        prior: (B, dim), what each image is asked for.
        temperature: divisor of the cosines.
        both_ways: also compare each image with all priors, and take the mean, as in the released code. The equation
            compares each prior with all images.
    """
    cosines = F.normalize(prior.to(seen.dtype), dim=-1) @ F.normalize(seen, dim=-1).T / temperature
    own = torch.arange(len(seen), device=seen.device)
    loss = F.cross_entropy(cosines, own)
    return (loss + F.cross_entropy(cosines.T, own)) / 2 if both_ways else loss


def class_prior_loss(
    target: Tensor, *, seen: Tensor, prototypes: Tensor, temperature: float, both_ways: bool, weight: float
) -> Tensor:
    """Return ``weight`` times `prior_loss`, where an image's prior is the prototype of its class.

    Images of one class have the same prior and are negatives of each other nonetheless, as equal texts are in CLIP.

    Args:
        target: labels (B,) int64; or shares of the classes (B, classes), whose prior is the mean of the prototypes.
        seen: (B, dim), what each image ends in.
        prototypes: (classes, dim), one of each class.
        temperature: see `prior_loss`.
        both_ways: see `prior_loss`.
        weight: factor of the loss.
    """
    prior = target.to(prototypes.dtype) @ prototypes if target.dim() > 1 else prototypes[target]
    return weight * prior_loss(seen, prior, temperature, both_ways=both_ways)


def code_length(codes: Sequence[Tensor], reduction: Reduction) -> Tensor:
    """Return the L1 norm of sparse codes, summed over the layers: the term of lambda in eq. 2.10 and 2.12.

    The authors set lambda to 0, as self-attention has no codes.

    Args:
        codes: those of each layer, (B, ...).
        reduction: ``sum`` is the norm of an image's codes, as in the equation; the others are the mean over entries.
    """
    lengths = [each.abs().sum() / len(each) if reduction == "sum" else each.abs().mean() for each in codes]
    return sum(lengths[1:], lengths[0])


def sparse_mixers(model: nn.Module) -> list[SparseReconstruction]:
    """Return the mixers of ``model`` that find sparse codes, in the order of the layers.

    Raises:
        InputError: there are none.
    """
    mixers = [module for module in model.modules() if isinstance(module, SparseReconstruction)]
    if not mixers:
        raise InputError("sparsity is of the codes of sparse mixers, of which the model has none: VarsS, VarsD, VarsSD")
    return mixers


@contextmanager
def hearing_codes(model: nn.Module, wanted: bool = True) -> Iterator[list[Tensor]]:
    """Collect the sparse codes (B, G, A, E) that the mixers of ``model`` find in the block, in the order of the layers.

    Args:
        model: a model with `SparseReconstruction` mixers.
        wanted: whether to collect any.

    Raises:
        InputError: no mixer of the model finds sparse codes.
    """
    mixers = sparse_mixers(model) if wanted else []
    codes: list[Tensor] = []
    for mixer in mixers:
        mixer.hear = codes.append
    try:
        yield codes
    finally:
        for mixer in mixers:
            mixer.hear = None
