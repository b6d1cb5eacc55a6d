"""The token grid of each forward pass, as a vision transformer tells it to its mixers.

timm's attention layers see tokens in a row and are not told the grid. Its patch embedding sees the images, so a hook
there calls `SelfMixer.set_grid` of every mixer before the first block runs. Blocks that run again in the backward pass
(checkpointing) see the grid of the last forward pass: images of two sizes need a backward pass each.
"""

import math

from timm.layers import Format
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from attention_zoo.errors import InputError
from attention_zoo.interface import SelfMixer


class GridTeller:
    """Forward hook of a patch embedding that tells mixers the grid of the images.

    It is an object rather than a function with a closure, so that a copied or pickled model tells its own mixers.

    Attributes:
        mixers: those that are told, without the mixers inside of them.
    """

    def __init__(self) -> None:
        self.mixers: list[SelfMixer] = []

    def __call__(self, embedding: nn.Module, images: tuple[Tensor, ...], tokens: Tensor) -> None:
        """Tell the grid of ``images[0]`` (B, C, H, W), of which the embedding made ``tokens``.

        Raises:
            InputError: the embedding does not say its grid, and a mixer looks at it.
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


def tell_grids(host: VisionTransformer) -> None:
    """Have ``host`` tell the mixers that it has now the grid of every forward pass."""
    teller = grid_teller(host.patch_embed)
    teller.mixers = outer_mixers(host)


def grid_teller(embedding: nn.Module) -> GridTeller:
    """The hook of a patch embedding, which has one at most."""
    if not hasattr(embedding, "grid_teller"):
        embedding.grid_teller = GridTeller()
        embedding.register_forward_hook(embedding.grid_teller)
    return embedding.grid_teller


def outer_mixers(model: nn.Module) -> list[SelfMixer]:
    """The mixers of ``model`` in its order, without those inside of another."""
    inside = {id(part) for found in model.modules() if isinstance(found, SelfMixer) for part in found.children()}
    return [found for found in model.modules() if isinstance(found, SelfMixer) and id(found) not in inside]


def token_grid(embedding: nn.Module, image: Tensor, tokens: Tensor) -> tuple[int, int] | None:
    """Rows and columns of the tokens that a patch embedding made of images (B, C, H, W); None where it does not say.

    Args:
        embedding: timm's ``PatchEmbed``, or one that knows its ``grid_size`` or ``dynamic_feat_size``.
        image: (B, C, H, W).
        tokens: (B, N, dim), or (B, h, w, dim) or (B, dim, h, w) as the embedding's ``output_fmt`` says.
    """
    if tokens.dim() == 4:
        first = 2 if getattr(embedding, "output_fmt", Format.NHWC) == Format.NCHW else 1
        return tuple(tokens.shape[first : first + 2])
    grids = []
    if hasattr(embedding, "dynamic_feat_size"):
        grids.append(tuple(embedding.dynamic_feat_size(tuple(image.shape[-2:]))))
    if getattr(embedding, "grid_size", None) is not None:
        grids.append(tuple(embedding.grid_size))
    return next((grid for grid in grids if math.prod(grid) == tokens.shape[1]), None)
