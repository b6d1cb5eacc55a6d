"""Tells the mixers of a vision transformer the token grid of each forward pass.

timm's attention layers see tokens in a row and are not told the grid. Its patch embedding sees the images, so a hook
there calls `SelfMixer.set_grid` of every mixer before the first block runs. Blocks that run again in the backward pass
(checkpointing) see the grid of the last forward pass: images of two sizes need a backward pass each.
"""

import math
from typing import cast

from timm.layers import Format
from torch import Tensor, nn

from attention_zoo.errors import InputError
from attention_zoo.mixers.base import SelfMixer


class GridTeller:
    """A forward hook of a patch embedding that tells mixers the grid of the images.

    It is an object rather than a function with a closure, so that a copied or pickled model tells its own mixers.

    Attributes:
        mixers: the mixers that are told; those inside another mixer are not among them.
    """

    def __init__(self) -> None:
        self.mixers: list[SelfMixer] = []

    def __call__(self, embedding: nn.Module, images: tuple[Tensor, ...], tokens: Tensor) -> None:
        """Tell the mixers the grid of ``images[0]`` (B, C, H, W), from which the embedding made ``tokens``.

        Raises:
            InputError: the embedding does not say its grid, and a mixer needs it.
        """
        grid = token_grid(embedding, images[0], tokens)
        for mixer in self.mixers:
            if grid is not None:
                mixer.set_grid(grid)
            elif mixer.tokens == "grid":
                raise InputError(
                    f"{type(embedding).__name__} makes tokens of shape {tuple(tokens.shape)} and does not say in how "
                    f"many rows and columns, which {type(mixer).__name__} needs"
                )


def tell_grids(host: nn.Module) -> None:
    """Make ``host``, a model with a patch embedding, tell its present mixers the grid of every forward pass."""
    teller = grid_teller(cast(nn.Module, host.patch_embed))
    teller.mixers = outer_mixers(host)


def grid_teller(embedding: nn.Module) -> GridTeller:
    """Return the hook of a patch embedding, after registering one if it has none yet; it has at most one."""
    teller = getattr(embedding, "grid_teller", None)
    if not isinstance(teller, GridTeller):
        teller = GridTeller()
        vars(embedding)["grid_teller"] = teller
        embedding.register_forward_hook(teller)
    return teller


def outer_mixers(model: nn.Module) -> list[SelfMixer]:
    """Return the mixers of ``model`` in the model's order, without those inside another mixer."""
    inside = {id(part) for mixer in model.modules() if isinstance(mixer, SelfMixer) for part in mixer.children()}
    return [mixer for mixer in model.modules() if isinstance(mixer, SelfMixer) and id(mixer) not in inside]


def token_grid(embedding: nn.Module, image: Tensor, tokens: Tensor) -> tuple[int, int] | None:
    """Return the rows and columns of the tokens that a patch embedding made; None if it does not say them.

    Args:
        embedding: timm's ``PatchEmbed``, or another that has a ``grid_size`` or ``dynamic_feat_size``.
        image: (B, C, H, W), the images.
        tokens: (B, N, dim), or (B, h, w, dim) or (B, dim, h, w) as the embedding's ``output_fmt`` says.
    """
    if tokens.dim() == 4:
        first = 2 if getattr(embedding, "output_fmt", Format.NHWC) == Format.NCHW else 1
        return tokens.shape[first], tokens.shape[first + 1]
    grids: list[tuple[int, int]] = []
    of_image, own = getattr(embedding, "dynamic_feat_size", None), getattr(embedding, "grid_size", None)
    if of_image is not None:
        grids.append(tuple(of_image(tuple(image.shape[-2:]))))
    if own is not None:
        grids.append(tuple(own))
    return next((grid for grid in grids if math.prod(grid) == tokens.shape[1]), None)
