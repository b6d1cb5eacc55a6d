"""Models of tokens: their layers, the maps of these, and a second pass in which the layers hear signals."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from timm.layers import Format
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from attention_zoo.compat import with_positions
from attention_zoo.errors import InputError
from attention_zoo.grids import tell_grids
from attention_zoo.mixers.base import SelfMixer


@dataclass(frozen=True)
class Layer:
    """A block of tokens (B, N, dim) -> (B, N, dim) around a self-mixer.

    Attributes:
        run: calls the block; keyword arguments go to the mixer.
        dim: width of its tokens.
        transition: turns its output into the next layer's input; None if that is the output itself.
        stage: number of its stage; the layers of one stage have tokens of one grid and width.
    """

    run: Callable[..., Tensor]
    dim: int
    transition: Callable[[Tensor], Tensor] | None = None
    stage: int = 0

    def __call__(self, x: Tensor, **signal: Any) -> Tensor:
        """Return the tokens (B, N, dim) after the layer; keyword arguments go to the mixer."""
        return self.run(x, **signal)


class TokenHost(ABC):
    """A model taken apart into stem, layers and head. It is made anew for every call, and remembers its token grids."""

    layers: list[Layer]
    """The layers, from the first to the last."""
    stride: int
    """Pixels between neighbouring tokens of the first stage."""

    def check_signals(self) -> None:
        """Refuse a model whose layers cannot hear signals; by default every model passes.

        Raises:
            InputError: a layer cannot hear signals; the message says which.
        """
        return None

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Return the tokens (B, N, dim) of images (B, C, H, W) before the first layer."""

    @abstractmethod
    def finish(self, x: Tensor) -> Tensor:
        """Return the output tokens (B, N, dim), made from those after the last layer."""

    @abstractmethod
    def classify(self, tokens: Tensor) -> Tensor:
        """Return the logits (B, classes) of output tokens (B, N, dim)."""

    @abstractmethod
    def maps(self, tokens: Tensor, layer: Layer) -> Tensor:
        """Return the tokens (B, N, C) of a layer as maps (B, C, h, w), without those of the prefix."""

    def maps_of(self, outputs: Sequence[Tensor], indices: Sequence[int]) -> list[Tensor]:
        """Return the outputs of the layers ``indices`` as maps (B, C, h, w)."""
        return [self.maps(tokens, self.layers[index]) for index, tokens in zip(indices, outputs, strict=True)]

    def run(
        self,
        x: Tensor,
        signals: Sequence[Mapping[str, Any]] | None = None,
        keep: Collection[int] = (),
        last: int | None = None,
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Run the layers on tokens x (B, N, dim), each with its signal if there are any.

        Args:
            x: (B, N, dim), the tokens before the first layer.
            signals: keyword arguments for the mixer of each layer; None is no signals.
            keep: layers whose input and output are returned.
            last: the layer to end with; None is the model's last.

        Returns:
            The tokens after the last layer, and input and output of each of the layers to ``keep``.
        """
        states = []
        last = len(self.layers) - 1 if last is None else last
        for index, layer in enumerate(self.layers[: last + 1]):
            out = layer(x, **(signals[index] if signals else {}))
            if index in keep:
                states.append((x, out))
            x = layer.transition(out) if layer.transition and index < last else out
        return x, states

    def spread(self, x: Tensor, layer: Layer) -> Tensor:
        """Return tokens (B, M, C) of a later stage spread over the layer's (B, N, C); unchanged with one stage."""
        return x


class TokenModel(ABC):
    """A model of tokens, such as `RVT`, `TopDown`, or `ViTTokens` around timm's ``VisionTransformer``."""

    @abstractmethod
    def token_host(self) -> TokenHost:
        """Return the model taken apart into stem, layers and head, for one call."""

    @abstractmethod
    def keep_layers(self, number: int, *, norm: bool) -> None:
        """Keep the first layers, and perhaps the norm after the last, without a head, and take images of any size."""

    def keep_for_maps(self, indices: Sequence[int]) -> None:
        """Leave out, or do not train, all that `forward_maps` of the layers ``indices``, ascending, does not need."""
        self.keep_layers(indices[-1] + 1, norm=indices[-1] == len(self.token_host().layers) - 1)

    def forward_maps(self, images: Tensor, indices: Sequence[int]) -> list[Tensor]:
        """Return the outputs of some layers as maps (B, C, h, w); for the last layer it is what the head reads.

        Args:
            images: (B, C, H, W), the images.
            indices: places of the layers, ascending.
        """
        host = self.token_host()
        _, states = host.run(host.embed(images), keep=indices, last=indices[-1])
        outputs = [after for _, after in states]
        if indices[-1] == len(host.layers) - 1:
            outputs[-1] = host.finish(outputs[-1])
        return host.maps_of(outputs, indices)


class ViTTokens(TokenModel):
    """timm's ``VisionTransformer`` as a `TokenModel`; it holds nothing but the model.

    Args:
        model: a model of any blocks and attention; signals need more, see `ViTHost.check_signals`.
    """

    def __init__(self, model: VisionTransformer) -> None:
        self.model = model

    def token_host(self) -> "ViTHost":
        """Return the model taken apart into stem, layers and head, for one call."""
        return ViTHost(self.model)

    def keep_layers(self, number: int, *, norm: bool) -> None:
        """Keep the first blocks, and perhaps the norm after the last, without a head, and take images of any size.

        Any size is what timm's ``dynamic_img_size`` allows, here for a model that is built without, as mixers need a
        grid to be built. Only the mixers that remain are told the grid.
        """
        vit = self.model
        vit.prune_intermediate_layers(list(range(number)), prune_norm=not norm, prune_head=True)
        vit.dynamic_img_size = True  # type: ignore[misc]  # final for TorchScript, which no mixer is compiled by
        vit.patch_embed.strict_img_size = vit.patch_embed.flatten = False
        vit.patch_embed.output_fmt = Format.NHWC
        tell_grids(vit)


class ViTHost(TokenHost):
    """timm's ``VisionTransformer`` taken apart into stem, layers and head.

    Args:
        model: a model of any blocks and attention.
    """

    def __init__(self, model: VisionTransformer) -> None:
        self.model = model
        self.stride = model.patch_embed.feat_ratio()
        saves = model.grad_checkpointing and model.training
        self.layers = [Layer(_saving(partial(_run_block, block), saves), model.embed_dim) for block in model.blocks]

    def check_signals(self) -> None:
        """Refuse blocks that cannot hear signals.

        Raises:
            InputError: a block is neither timm's plain ``Block`` nor has a ``run``, or its attention is no self-mixer.
        """
        known = [isinstance(block, Block) or hasattr(block, "run") for block in self.model.blocks]
        strange = [type(block).__name__ for block, fits in zip(self.model.blocks, known, strict=True) if not fits]
        plain = [type(block.attn).__name__ for block in self.model.blocks if not isinstance(block.attn, SelfMixer)]
        if strange:
            raise InputError(f"top-down signals need timm's plain Block, not {strange[0]}")
        if plain:
            raise InputError(f"top-down signals need self-mixers, not timm's {plain[0]}: swap_mixers(model, ...) first")

    def embed(self, images: Tensor) -> Tensor:
        """Return the tokens (B, N, dim) of images (B, C, H, W) before the first layer."""
        model = self.model
        self.grid = model.patch_embed.dynamic_feat_size(images.shape[2:])
        return model.norm_pre(model.patch_drop(with_positions(model, model.patch_embed(images))))

    def maps(self, tokens: Tensor, layer: Layer) -> Tensor:
        """Return the tokens (B, N, C) of a layer as maps (B, C, h, w), without those of the prefix."""
        return tokens[:, self.model.num_prefix_tokens :].mT.unflatten(2, self.grid)

    def finish(self, x: Tensor) -> Tensor:
        """Return the output tokens (B, N, dim), made from those after the last layer."""
        return self.model.norm(x)

    def classify(self, tokens: Tensor) -> Tensor:
        """Return the logits (B, classes) of output tokens (B, N, dim)."""
        return self.model.forward_head(tokens)


def _run_block(block: Any, x: Tensor, **signal: Any) -> Tensor:
    """Return the tokens after a block of a ``VisionTransformer``; timm's own would pass its mixer only masks."""
    if not signal:
        return block(x)
    if not isinstance(block, Block):
        return block.run(x, **signal)
    x = x + block.drop_path1(block.ls1(block.attn(block.norm1(x), **signal)))
    return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))


class StagedHost(TokenHost):
    """Stages of blocks on maps that grow coarser, each block called with tokens and their grid.

    Args:
        stem: turns images into maps (B, C, h, w).
        stages: the blocks of each stage, called as ``block(tokens, grid, **signal)``.
        pools: each turns the maps of a stage into those of the next.
        head: turns the maps of the last stage into logits.
        saves: whether blocks keep only their inputs for the backward pass.
        stride: stride of the stem in pixels.
    """

    def __init__(
        self,
        stem: Callable[[Tensor], Tensor],
        stages: Sequence[Sequence[Any]],
        pools: Sequence[nn.Module],
        head: Callable[[Tensor], Tensor],
        *,
        saves: bool,
        stride: int,
    ) -> None:
        self.stem, self.head, self.stride = stem, head, stride
        self.grids: list[tuple[int, int]] = []
        self.layers = []
        for stage, blocks in enumerate(stages):
            for block in blocks:
                last = block is blocks[-1] and stage < len(pools)
                transition = partial(self._pool, pools[stage], stage) if last else None
                run = _saving(partial(self._run, block, stage), saves)
                self.layers.append(Layer(run, block.attn.dim, transition, stage))

    def _run(self, block: nn.Module, stage: int, x: Tensor, **signal: Any) -> Tensor:
        return block(x, self.grids[stage], **signal)

    def _pool(self, pool: nn.Module, stage: int, x: Tensor) -> Tensor:
        return self._enter(pool(x.mT.unflatten(2, self.grids[stage])), stage + 1)

    def _enter(self, maps: Tensor, stage: int) -> Tensor:
        """Return the tokens (B, N, C) of a stage's maps (B, C, h, w), and remember their grid."""
        height, width = maps.shape[2:]
        self.grids[stage:] = [(height, width)]
        return maps.flatten(2).mT

    def embed(self, images: Tensor) -> Tensor:
        """Return the tokens (B, N, dim) of images (B, C, H, W) before the first layer."""
        return self._enter(self.stem(images), 0)

    def finish(self, x: Tensor) -> Tensor:
        """Return the tokens as they are; the head normalises their average."""
        return x

    def classify(self, tokens: Tensor) -> Tensor:
        """Return the logits (B, classes) of output tokens (B, N, dim)."""
        return self.head(tokens.mT.unflatten(2, self.grids[-1]))

    def maps(self, tokens: Tensor, layer: Layer) -> Tensor:
        """Return the tokens (B, N, C) of a layer as maps (B, C, h, w)."""
        return tokens.mT.unflatten(2, self.grids[layer.stage])

    def spread(self, x: Tensor, layer: Layer) -> Tensor:
        """Return tokens (B, M, C) of a later stage, each repeated in the places it was pooled from: (B, N, C)."""
        grid = next(grid for grid in self.grids if grid[0] * grid[1] == x.shape[1])
        maps = x.mT.unflatten(2, grid)
        return nn.functional.interpolate(maps, size=self.grids[layer.stage]).flatten(2).mT


def _saving(run: Callable[..., Tensor], saves: bool) -> Callable[..., Tensor]:
    """Return ``run`` itself, or, if it ``saves``, made to keep only its inputs for the backward pass."""
    return partial(checkpoint, run, use_reentrant=False) if saves else run


def token_model(model: nn.Module) -> TokenModel:
    """Return the model itself if it is a `TokenModel`, or timm's ``VisionTransformer`` as one.

    Raises:
        InputError: the layers of the model are not known.
    """
    if isinstance(model, TokenModel):
        return model
    if isinstance(model, VisionTransformer):
        return ViTTokens(model)
    raise InputError(f"{type(model).__name__} cannot be taken apart; give a VisionTransformer or one of our models")
