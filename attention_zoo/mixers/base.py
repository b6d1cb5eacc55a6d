"""What all mixers are, and the interface of those that mix tokens among themselves; `cross` has that of the others.

Projections, heads and their reshapes live here once; a mixer's file holds only its mathematics. Shapes:
B batch, N tokens, H heads, D width of a head, dim = H * D.
"""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Protocol, Self, TypedDict, Unpack, cast

import torch
from torch import Tensor, nn

from attention_zoo.domains import Checked, complaint, shown
from attention_zoo.errors import InputError, unknown
from attention_zoo.mixers.options import DropRate, Grid, TokenWidth, Width


class HostOptions(TypedDict, total=False):
    """The keyword arguments that a host (a model) gives every self-mixer beside width and heads; names are timm's."""

    qkv_bias: bool
    qk_norm: bool
    scale_norm: bool
    proj_bias: bool
    attn_drop: float
    proj_drop: float
    norm_layer: type[nn.Module] | None
    grid: tuple[int, int] | None
    num_prefix_tokens: int
    device: torch.device | str | None
    dtype: torch.dtype | None


class TopDownOptions(TypedDict, total=False):
    """The keyword arguments that say how a top-down signal enters a mixer, beside the signal itself."""

    top_down_to: Literal["v", "qkv"]
    """Where the signal is added: to the values (AbSViT, the default), or to queries and keys too (AbSViT-QKV)."""
    top_down_bias: bool
    """Whether the signal's projection has the bias, as in the released code; by default it has not."""
    top_down_decoder: Tensor | None
    """A linear map (dim, width of the signal) of the signal before its projection; the two are applied as one."""
    value_gate: Tensor | None
    """A gate (B, N, 1) that multiplies the values (the report's MaskAtt)."""


class Made(TypedDict):
    """The device and the type of a layer's parameters, as keyword arguments of torch's layers."""

    device: torch.device | None
    dtype: torch.dtype | None


class Mixer(Checked, nn.Module, ABC):
    """Base of both kinds of mixer: width, heads, where parameters are made, and errors that name the mixer.

    Attributes:
        dim: token width.
        num_heads: heads.
        head_dim: width of a head, ``dim / num_heads``.
        made: device and type of the parameters, for what a reading makes of its own.
    """

    reading: ClassVar[str]
    paper: ClassVar[str]
    equation: ClassVar[str]
    complexity: ClassVar[str]

    def __init__(self, dim: int, num_heads: int, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.check(dim > 0 and dim % num_heads == 0, f"num_heads={num_heads} must divide dim={dim}")
        fits = dtype is None or (isinstance(dtype, torch.dtype) and dtype.is_floating_point)
        self.check(fits, f"dtype={shown(dtype)} must be a floating type of torch")
        try:
            place = None if device is None else torch.device(device)
        except (RuntimeError, TypeError, ValueError) as error:
            raise self.refusal(f"device={shown(device)} is no device of torch") from error
        self.dim, self.num_heads, self.head_dim = dim, num_heads, dim // num_heads
        self.made: Made = {"device": place, "dtype": dtype}

    def check(self, fits: bool, message: str) -> None:
        """Raise an InputError that names this mixer unless ``fits``; for conditions that annotations cannot state."""
        if not fits:
            raise self.refusal(message)

    def warn(self, message: str) -> None:
        """Warn, naming this mixer, of what works and is hardly what was wanted."""
        warnings.warn(f"{type(self).__name__}: {message}", UserWarning, stacklevel=2)

    def refusal(self, message: str) -> InputError:
        """Return an InputError with ``message`` after the name of this mixer."""
        return InputError(f"{type(self).__name__}: {message}")


class SelfMixer(Mixer):
    """Mixes tokens: (B, N, dim) -> (B, N, dim); a drop-in for the attention layer of timm's ``VisionTransformer``.

    A subclass writes `mix`, the reading itself, on tensors (B, H, N, D), and states where it comes from in the
    class attributes. Parameters are named ``qkv`` and ``proj`` in timm's order, so timm's weights load straight.

    Args:
        dim: token width.
        num_heads: heads; must divide ``dim``.
        qkv_bias: whether the query, key and value projections have a bias.
        qk_norm: normalise queries and keys in each head by ``norm_layer``.
        scale_norm: normalise the mixed tokens before the output projection by ``norm_layer``.
        proj_bias: whether the output projection has a bias.
        attn_drop: dropout rate on attention weights; a reading without such weights refuses a rate above 0.
        proj_drop: dropout rate after the output projection.
        norm_layer: normalisation for ``qk_norm`` and ``scale_norm`` (default: LayerNorm).
        grid: height and width of the token grid, for readings that look at positions.
        num_prefix_tokens: class and register tokens before the grid. All tokens are mixed alike unless the
            reading's docstring says otherwise.
        device: where the parameters are made.
        dtype: type of the parameters.

    Raises:
        InputError: an argument does not fit; the error names the mixer and the argument.
    """

    tokens: Literal["set", "grid"] = "set"
    """What the reading takes the tokens for: a set, whose order does not matter, or a grid with neighbours."""
    projections: ClassVar[tuple[str, ...]] = ("q", "k", "v")
    """Row blocks of ``qkv``; a reading whose queries are its keys says ``("q", "v")``, one that takes the tokens as
    they are says ``()`` and has no output projection either."""
    norms_by_batch: bool = False
    """Whether the layer normalises by batch where it needs to, so that a block like RVT's does too, and not before."""
    bound_to_grid: bool = False
    """Whether parameters are for the one ``grid`` that they were made for, as those of some released layers are."""
    takes_tokens: ClassVar[bool] = False
    """Whether `mix` also gets the tokens themselves, for what it predicts from them (gates, windows): they follow the
    queries in the channels of each head, so that ``q`` is (B, H, N, 2 D). Heads that project for `mix` in their own way
    may leave them out; see `split_tokens`."""
    drops_attention: ClassVar[bool] = False
    """Whether `mix` drops attention weights at the rate ``attn_drop.p`` in training; otherwise the base refuses one.

    It is not inherited by a class that writes another `mix`, which has to say so itself.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "mix" in vars(cls) and "drops_attention" not in vars(cls):
            cls.drops_attention = False

    def __init__(
        self,
        dim: TokenWidth,
        num_heads: Width = 8,
        *,
        qkv_bias: bool = False,
        qk_norm: bool = False,
        scale_norm: bool = False,
        proj_bias: bool = True,
        attn_drop: DropRate = 0.0,
        proj_drop: DropRate = 0.0,
        norm_layer: type[nn.Module] | None = None,
        grid: Grid | None = None,
        num_prefix_tokens: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(dim, num_heads, device, dtype)
        fits = norm_layer is None or callable(norm_layer)
        self.check(fits, f"norm_layer={shown(norm_layer)} must be a class of norms")
        fits = self.drops_attention or attn_drop == 0
        self.check(fits, f"attn_drop={attn_drop}: this reading drops no attention weights (drops_attention), give 0")
        self.grid, self.num_prefix_tokens = None if grid is None else (int(grid[0]), int(grid[1])), num_prefix_tokens
        norm, made = norm_layer or nn.LayerNorm, self.made
        self.projects = projects = bool(self.projections)
        self.qkv = nn.Linear(dim, dim * len(self.projections), bias=qkv_bias, **made) if projects else nn.Identity()
        self.q_norm = norm(self.head_dim, **made) if qk_norm and "q" in self.projections else nn.Identity()
        self.k_norm = norm(self.head_dim, **made) if qk_norm and "k" in self.projections else nn.Identity()
        self.attn_drop = nn.Dropout(attn_drop)
        self.norm = norm(dim, **made) if scale_norm else nn.Identity()
        self.proj: nn.Module = nn.Linear(dim, dim, bias=proj_bias, **made) if projects else nn.Identity()
        self.proj_drop = nn.Dropout(proj_drop)

    @abstractmethod
    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the mixed values (B, H, N, D) of q, k, v (B, H, N, D). Where queries are keys, ``k`` is not used."""

    @classmethod
    def takes_masks(cls) -> bool:
        """Return whether the reading can be told who may read whom: whether it has a `mix_masked` of its own."""
        return cls.mix_masked is not SelfMixer.mix_masked

    def mix_masked(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, is_causal: bool) -> Tensor:
        """Mix as `mix` does, where ``attn_mask`` (broadcasts to (B, H, N, N)) or ``is_causal`` says who reads whom.

        Raises:
            InputError: the reading has no attention weights to mask.
        """
        raise InputError(f"{type(self).__name__} cannot use attn_mask or is_causal")

    def forward(
        self,
        x: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        *,
        top_down: Tensor | None = None,
        **how: Unpack[TopDownOptions],
    ) -> Tensor:
        """Return the tokens ``x`` (B, N, dim) mixed, (B, N, dim).

        Args:
            x: tokens (B, N, dim).
            attn_mask: who may read whom, boolean or additive, broadcasting to (B, H, N, N).
            is_causal: a token reads only itself and those before it.
            top_down: a signal (B, N, dim), added to the values through the value projection (AbSViT, tech report
                section 2.5), as the second pass of analysis by synthesis needs.
            **how: see `TopDownOptions`.

        Raises:
            InputError: shapes do not fit, or there is a mask that the reading cannot use.
        """
        q, k, v = self.project(x, top_down, **how)
        masked = attn_mask is not None or is_causal
        if attn_mask is not None:
            self._check_mask(attn_mask, (*q.shape[:3], k.shape[2]))
            attn_mask = torch.atleast_2d(attn_mask)
        mixed = self.mix_masked(q, k, v, attn_mask, is_causal) if masked else self.mix(q, k, v)
        if not torch.compiler.is_compiling() and mixed.shape != v.shape:
            raise self.refusal(f"mixed values have the shape {tuple(mixed.shape)}, not {tuple(v.shape)} as the values")
        return self.proj_drop(self.proj(self.norm(mixed.transpose(1, 2).flatten(2))))

    def project(
        self, x: Tensor, top_down: Tensor | None = None, **how: Unpack[TopDownOptions]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values (B, H, N, D) of tokens ``x`` (B, N, dim).

        Where the reading takes the tokens too (``takes_tokens``), queries are (B, H, N, 2 D) and end in them; a signal
        that goes to queries and keys is added to these tokens as well.

        Raises:
            InputError: shapes do not fit, or a keyword is none of `TopDownOptions`.
        """
        self.check_tokens(x)
        gate = self._check_how(x.shape, how)
        parts = list(self.qkv(x).split(self.dim, -1)) if self.projections else [x]
        if len(parts) == 1:  # it stands for queries and for values, which alone a signal may enter
            parts = parts * 2
        if top_down is not None:
            signal = self._project_signal(top_down, x.shape, how)
            first = len(parts) - len(signal)
            parts[first:] = [part + added for part, added in zip(parts[first:], signal, strict=True)]
        heads = [self._to_heads(part) for part in parts]
        q, v = self.q_norm(heads[0]), heads[-1]
        k = self.k_norm(heads[1]) if "k" in self.projections else q
        if self.takes_tokens:
            if top_down is not None and how.get("top_down_to") == "qkv":
                decoder = how.get("top_down_decoder")
                x = x + (top_down if decoder is None else nn.functional.linear(top_down, decoder))
            q = torch.cat((q, self._to_heads(x).to(q.dtype)), -1)  # autocast has queries in another type
        return q, k, v if gate is None else v * gate[:, None]

    def _to_heads(self, x: Tensor) -> Tensor:
        """Return tokens (B, N, dim) in heads, (B, H, N, D)."""
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def warn_if_covered(self, option: str, side: int) -> None:
        """Warn where windows of this ``side``, which an option gives, cover the grid, if it is known."""
        if self.grid is not None and max(self.grid) <= side:
            self.warn(f"{option}={side} covers the grid {self.grid}: every token reads all tokens, as in DotProduct")

    def split_tokens(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """Return the queries (B, H, N, D) and the tokens (B, N, dim) that ``q`` (B, H, N, 2 D) holds.

        Queries without tokens, (B, H, N, D), which `project` did not make, stand for the tokens too.
        """
        queries, tokens = q.split(self.head_dim, -1) if q.shape[-1] > self.head_dim else (q, q)
        return queries, tokens.transpose(1, 2).flatten(2)

    def drop_projections(self) -> Self:
        """Remove ``qkv`` and ``proj``, here and in mixers inside; for heads that project for `mix` in their own way.

        Returns:
            The mixer itself, whose `forward` refuses tokens from then on.
        """
        for module in self.modules():
            if isinstance(module, SelfMixer):
                module.projects = False
                module.qkv = module.proj = nn.Identity()
        return self

    def check_tokens(self, x: Tensor) -> None:
        """Raise an InputError unless ``x`` is (B, N, dim) and the projections were not dropped."""
        fits = self.projects or not self.projections
        self.check(fits, "tokens need the projections that were dropped; give q, k and v to mix")
        fits = x.dim() == 3 and x.shape[-1] == self.dim
        self.check(fits, f"tokens of shape {tuple(x.shape)} are not (B, N, {self.dim})")

    def _check_how(self, shape: torch.Size, how: TopDownOptions) -> Tensor | None:
        """Return the gate of the values; refuse keywords that `TopDownOptions` lacks and values that do not fit."""
        for name in how:
            if name not in TopDownOptions.__annotations__:
                raise unknown(f"argument of mixer {type(self).__name__}", name, TopDownOptions.__annotations__)
        where, bias = how.get("top_down_to", "v"), how.get("top_down_bias", False)
        self.check(isinstance(where, str) and where in ("v", "qkv"), f"top_down_to={where!r} must be 'v' or 'qkv'")
        self.check(isinstance(bias, bool), f"top_down_bias={bias!r} must be True or False")
        decoder, gate = how.get("top_down_decoder"), how.get("value_gate")
        if decoder is not None:
            fits = decoder.dim() == 2 and decoder.shape[0] == self.dim
            self.check(fits, f"top_down_decoder {tuple(decoder.shape)} must be ({self.dim}, width of the signal)")
        if gate is not None:
            fits = gate.shape == (*shape[:2], 1)
            self.check(fits, f"value_gate {tuple(gate.shape)} must be {(*shape[:2], 1)}")
        return gate

    def _check_mask(self, mask: Tensor, pair: tuple[int, ...]) -> None:
        """Refuse a mask that is neither boolean nor additive, or does not broadcast to (B, H, N, N)."""
        fits = mask.dtype == torch.bool or mask.dtype.is_floating_point
        self.check(fits, f"attn_mask of type {mask.dtype} must be boolean or additive")
        offset = len(pair) - mask.dim()
        fits = offset >= 0 and all(s in (1, p) for s, p in zip(mask.shape, pair[offset:], strict=True))
        self.check(fits, f"attn_mask {tuple(mask.shape)} must broadcast to {pair}")

    def _project_signal(self, top_down: Tensor, shape: torch.Size, how: TopDownOptions) -> tuple[Tensor, ...]:
        """Return what a signal adds to the last of the projections, or to all, (B, N, dim) each."""
        top_down_decoder = how.get("top_down_decoder")
        width = self.dim if top_down_decoder is None else top_down_decoder.shape[1]
        fits = top_down.shape == (*shape[:2], width)
        self.check(fits, f"top_down {tuple(top_down.shape)} must be {(*shape[:2], width)}")
        where = how.get("top_down_to", "v")
        everywhere = 2 if where == "qkv" and len(self.projections) < 2 else 1
        if not self.projections:
            signal = top_down if top_down_decoder is None else nn.functional.linear(top_down, top_down_decoder)
            return (signal,) * everywhere
        rows = slice(-self.dim, None) if where == "v" else slice(None)
        qkv = cast(nn.Linear, self.qkv)
        weight = qkv.weight[rows]
        weight = weight if top_down_decoder is None else weight @ top_down_decoder
        bias = qkv.bias[rows] if how.get("top_down_bias") and qkv.bias is not None else None
        return nn.functional.linear(top_down, weight, bias).split(self.dim, -1) * everywhere

    def attention_map(self, x: Tensor, top_down: Tensor | None = None, **how: Unpack[TopDownOptions]) -> Tensor:
        """Return who reads whom for tokens ``x`` (B, N, dim): (B, H, N, N), entry (i, j) is what i takes from j.

        For every reading this is the mean over value channels of the derivative of token i's mixed value with
        respect to token j's value, with queries and keys held. Where the reading is a weighted mean of the values
        (a softmax, say) these are its weights and rows sum to one; elsewhere entries can be negative.

        Args:
            x: tokens (B, N, dim).
            top_down: the signal that the mixer hears, see `forward`.
            **how: see `TopDownOptions`; a gate of the values is part of the map.
        """
        return gated(self.map_weights(*self.project(x, top_down, **how)), how)

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the `attention_map` (B, H, N, N) of q, k and v (B, H, N, D).

        This default differentiates `mix`, which is right for any reading but slow; a mixer overrides it with a closed
        form.
        """
        return _mean_derivative(lambda values: self.mix(q.detach(), k.detach(), values), v)

    @property
    def has_closed_map(self) -> bool:
        """Whether `attention_map` is computed at once, and not by differentiating `mix` token by token."""
        cls = type(self)
        return cls.map_weights is not SelfMixer.map_weights or cls.attention_map is not SelfMixer.attention_map

    def masked_map_weights(self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor) -> Tensor:
        """Return `map_weights` under a mask, boolean or additive, that broadcasts to (B, H, N, N)."""
        return _mean_derivative(lambda values: self.mix_masked(q.detach(), k.detach(), values, attn_mask, False), v)

    def set_grid(self, grid: tuple[int, int]) -> None:
        """Expect tokens of another grid from now on; models whose images vary in size call this.

        Args:
            grid: height and width; what the reading learned about its own grid is resampled to it.

        Raises:
            InputError: the reading is bound to the grid it was built for.
        """
        if grid == self.grid:
            return
        if not torch.compiler.is_compiling():  # annotations cannot be traced
            why = complaint(grid, Grid)
            self.check(why is None, f"grid={shown(grid)} must {why}")
        new = grid[0], grid[1]
        fits = not self.bound_to_grid or new == self.grid
        self.check(fits, f"variant='released' is bound to grid={self.grid} and cannot take tokens of grid={new}")
        self.grid = new

    def spatial_shape(self, num_tokens: int) -> tuple[int, int]:
        """Return height and width of the grid that ``num_tokens`` tokens (prefix included) form.

        Raises:
            InputError: there is no ``grid`` and the tokens are not a square, or there is one and it does not fit.
        """
        spatial = num_tokens - self.num_prefix_tokens
        # no root where there is a grid: a graph for any number of tokens has none
        height, width = self.grid or (math.isqrt(max(spatial, 0)),) * 2
        self.check(
            height * width == spatial,
            f"{num_tokens} tokens with num_prefix_tokens={self.num_prefix_tokens} are no grid of "
            + (f"grid={self.grid}" if self.grid else "a square; give grid=(height, width)"),
        )
        return height, width


def gated(weights: Tensor, how: TopDownOptions) -> Tensor:
    """Return maps (..., B, H, N, N) of what is taken from the values before the ``value_gate``, if there is one.

    Args:
        weights: maps of what is taken from the values after the gate.
        how: options that may have a gate (B, N, 1).
    """
    gate = how.get("value_gate")
    return weights if gate is None else weights * gate.mT[:, None]


def _mean_derivative(mix: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
    """Return the mean (B, H, N, N) over channels of d mix(v)_i / d v_j, for v (B, H, N, D)."""
    rows = []
    with torch.enable_grad():
        v = v.detach().requires_grad_()
        mixed = mix(v)
        for token in range(v.shape[2]):
            row = torch.zeros_like(v[..., 0])  # (B, H, N)
            for channel in range(v.shape[3]):
                target = mixed[:, :, token, channel].sum()
                row = row + torch.autograd.grad(target, v, retain_graph=True)[0][..., channel].detach()
            rows.append(row / v.shape[3])
    return torch.stack(rows, dim=2)


def log_mask(q: Tensor, k: Tensor, attn_mask: Tensor | None, is_causal: bool) -> Tensor | None:
    """Return a boolean or additive mask and causality as one additive mask that broadcasts to (B, H, N, M).

    It is None where there is neither.
    """
    found = []
    if is_causal:
        found.append(torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril())
    if attn_mask is not None:
        found.append(attn_mask)
    total = None
    for mask in found:
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -torch.inf)
        total = mask if total is None else total + mask
    return total


class MixerFactory(Protocol):
    """Anything that builds a self-mixer for a host: a mixer class, a partial of one, or a choice in a config."""

    def __call__(self, dim: int, num_heads: int, **host: Unpack[HostOptions]) -> SelfMixer:
        """Build the mixer for tokens of width ``dim`` in ``num_heads`` heads, with what the host gives."""
