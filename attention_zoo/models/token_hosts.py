"""Models taken apart into stem, layers of self-mixers, and head, for those who run the layers themselves."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from attention_zoo.errors import InputError
from attention_zoo.interface import SelfMixer


@dataclass(frozen=True)
class Layer:
    """A block of tokens (B, N, dim) -> (B, N, dim) around a self-mixer.

    Attributes:
        run: the block; keyword arguments go to the mixer.
        dim: width of its tokens.
        transition: what makes its output the next layer's input, where that is of another size or width.
    """

    run: Callable[..., Tensor]
    dim: int
    transition: Callable[[Tensor], Tensor] | None = None

    def __call__(self, x: Tensor, **signal: Any) -> Tensor:
        """Tokens (B, N, dim) -> (B, N, dim)."""
        return self.run(x, **signal)


class TokenHost:
    """timm's ``VisionTransformer`` taken apart."""

    def __init__(self, model: VisionTransformer) -> None:
        self.model = model
        strange = [type(block).__name__ for block in model.blocks if not isinstance(block, Block)]
        plain = [type(block.attn).__name__ for block in model.blocks if not isinstance(block.attn, SelfMixer)]
        if strange:
            raise InputError(f"top-down signals need timm's plain Block, not {strange[0]}")
        if plain:
            raise InputError(f"top-down signals need self-mixers, not timm's {plain[0]}: swap_mixers(model, ...) first")

    @property
    def layers(self) -> list[Layer]:
        """From the first to the last."""
        return [Layer(self._runner(block), self.model.embed_dim) for block in self.model.blocks]

    def _runner(self, block: Block) -> Callable[..., Tensor]:
        def run(x: Tensor, **signal: Any) -> Tensor:
            x = x + block.drop_path1(block.ls1(block.attn(block.norm1(x), **signal)))
            return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))

        if self.model.grad_checkpointing and self.model.training:
            return lambda x, **signal: checkpoint(run, x, use_reentrant=False, **signal)
        return run

    def embed(self, images: Tensor) -> Tensor:
        """Tokens (B, N, dim) before the first layer."""
        model = self.model
        return model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images))))

    def finish(self, x: Tensor) -> Tensor:
        """Output tokens after the last layer."""
        return self.model.norm(x)

    def classify(self, tokens: Tensor) -> Tensor:
        """Logits of output tokens."""
        return self.model.forward_head(tokens)

    def resample(self, weights: Tensor) -> Iterator[Tensor]:
        """Weights of the output tokens (B, N, 1), for the tokens of each layer."""
        return (weights for _ in self.model.blocks)

    def unpool(self, x: Tensor, layer: Layer) -> Tensor:
        """Tokens of the layer after ``layer``, as many as that has."""
        raise NotImplementedError  # no transitions


def token_host(model: nn.Module) -> TokenHost:
    """The model taken apart.

    Raises:
        InputError: a model whose layers are not known, or are no self-mixers.
    """
    if hasattr(model, "token_host"):
        return model.token_host()
    if isinstance(model, VisionTransformer):
        return TokenHost(model)
    raise InputError(
        f"{type(model).__name__} cannot be taken apart; give a VisionTransformer or one of our models"
    )
