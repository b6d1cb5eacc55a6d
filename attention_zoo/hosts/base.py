"""The base of layers that stand in models of timm in place of their attention, with a mixer in place of the softmax.

Each subclass is for one class of timm. It has that class's parameters under their names, does what that class does
around its softmax (projections, positions, norms, windows), and hands queries, keys and values in heads to a mixer.
"""

import copy
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from attention_zoo.mixers.base import SelfMixer
from attention_zoo.mixers.registry import Factory, self_mixers


class HostLayer(nn.Module):
    """Base of a timm attention layer that hands queries, keys and values to a mixer without projections.

    A subclass also derives from the class of timm, whose other methods (a new window size, say) so go on to work.

    Args:
        layer: the layer of timm, or one like this with another mixer; parameters and submodules are shared with it.
        mixer: the mixer, whose projections were dropped.

    Attributes:
        mixer: the mixer.
    """

    sees_grid: ClassVar[bool] = False
    """Whether the layer itself knows rows and columns of its tokens, as those of windows do."""

    mixer: SelfMixer

    def __init__(self, layer: nn.Module, mixer: SelfMixer) -> None:
        nn.Module.__init__(self)
        parts = {name: copy.copy(part) if isinstance(part, dict | set) else part for name, part in vars(layer).items()}
        vars(self).update(parts)
        self.mixer = mixer
        self._set_keys_aside("k" not in mixer.projections)

    def _set_keys_aside(self, unread: bool) -> None:
        """Have copies of the keys' own projection and norm, frozen if the reading takes no keys, else as the queries'.

        They keep their place among the weights, but no optimizer and no gradient has to wait for them.
        """
        for part in ("proj", "norm"):
            queries, keys = getattr(self, f"q_{part}", None), getattr(self, f"k_{part}", None)
            if isinstance(queries, nn.Module) and isinstance(keys, nn.Module):
                learns = all(parameter.requires_grad for parameter in queries.parameters())
                setattr(self, f"k_{part}", copy.deepcopy(keys).requires_grad_(learns and not unread))

    @classmethod
    def shape_of_heads(cls, layer: Any) -> tuple[int, int]:
        """Return the number of heads of a layer of timm, and their width."""
        return layer.num_heads, layer.qkv.out_features // (3 * layer.num_heads)

    @classmethod
    def adds_bias(cls, layer: Any, model: nn.Module) -> bool:
        """Return whether a layer of ``model`` adds position biases or masks to the scores."""
        return False

    @classmethod
    def window(cls, layer: Any) -> tuple[int, int] | None:
        """Return rows and columns of the tokens of each window; None where there are no windows."""
        return None

    @classmethod
    def obstacle(cls, layer: Any) -> str | None:
        """Return why this very layer of timm can have no mixer, or None: its values are wider than its keys, say."""
        return None

    def mix(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Return the mixed values (B, H, N, D) of q, k, v (B, H, N, D).

        Args:
            q: queries; the mixer scales their products with keys by ``1 / √D``.
            k: keys.
            v: values.
            bias: what is added to the scores, or a boolean mask; it broadcasts to (B, H, N, N).
            is_causal: a token reads only itself and those before it.
        """
        if bias is None and not is_causal:
            return self.mixer.mix(q, k, v)
        return self.mixer.mix_masked(q, k, v, bias, is_causal)

    def split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values (B, H, N, D) of their projections (B, N, 3 * H * D), in this order."""
        q, k, v = qkv.unflatten(-1, (3, self.mixer.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    @staticmethod
    def merge(heads: Tensor) -> Tensor:
        """Return heads (B, H, N, D) as tokens (B, N, H * D)."""
        return heads.transpose(1, 2).flatten(2)

    @classmethod
    def around(
        cls, layer: Any, factory: Factory[SelfMixer], model: nn.Module, grid: tuple[int, int] | None, prefix: int
    ) -> Self:
        """Return a layer like ``layer`` with a new mixer; ``layer`` itself is left as it is.

        Args:
            layer: the layer of timm, or one of this class.
            factory: what builds the mixer.
            model: the model that the layer is in.
            grid: rows and columns of the model's tokens; None if it does not tell them.
            prefix: number of class and register tokens before the grid.

        Raises:
            InputError: the reading, or an argument of it, does not fit the layer; the error says why and what fits.
        """
        (num_heads, width), window = cls.shape_of_heads(layer), cls.window(layer)
        weight = next(layer.parameters())
        mixer = factory(
            dim=num_heads * width,
            num_heads=num_heads,
            attn_drop=layer.attn_drop.p if hasattr(layer, "attn_drop") else 0.0,
            grid=window or (None if cls.sees_grid else grid),
            num_prefix_tokens=0 if window or cls.sees_grid else prefix,
            device=weight.device,
            dtype=weight.dtype,
        )
        bias, knows = cls.adds_bias(layer, model), cls.sees_grid or grid is not None
        reason = misfit(mixer, bias=bias, grid=knows)
        if reason is not None:
            fitting = ", ".join(fitting_mixers(bias=bias, grid=knows))
            raise mixer.refusal(f"{type(model).__name__} has no place for this reading, {reason}; these fit: {fitting}")
        return cls(layer, _carried(layer, mixer.drop_projections()).train(layer.training))


def joint_bias(layer: Any) -> Tensor | None:
    """Return the bias (3 * H * D) of a projection that keeps it apart and has none for keys; None without one."""
    return None if layer.q_bias is None else torch.cat((layer.q_bias, layer.k_bias, layer.v_bias))


def misfit(mixer: SelfMixer | type[SelfMixer], *, bias: bool, grid: bool) -> str | None:
    """Return why a mixer cannot stand in a host layer, or None if it can.

    Args:
        mixer: the mixer, or its class.
        bias: whether the layer adds a bias or a mask to the scores.
        grid: whether rows and columns of the tokens are known.
    """
    if mixer.takes_tokens:
        return "which needs the tokens beside queries, keys and values"
    if not {"q", "v"} <= set(mixer.projections):
        return "which does not take queries and values of separate projections"
    if bias and not mixer.takes_masks():
        return "which has no scores that the position biases of this model could be added to"
    if mixer.tokens == "grid" and not grid:
        return "which needs the grid of the tokens, that it does not tell"
    return None


def fitting_mixers(*, bias: bool, grid: bool) -> list[str]:
    """Return the names of the mixers for which `misfit` finds no reason."""
    return [name for name, kind in self_mixers().items() if misfit(kind, bias=bias, grid=grid) is None]


def _carried(layer: nn.Module, mixer: SelfMixer) -> SelfMixer:
    """Return ``mixer`` with the parameters that the mixer of ``layer``, if it has one, learned under the same names."""
    if isinstance(layer, HostLayer):
        state = mixer.state_dict()
        old = layer.mixer.state_dict()
        state.update({name: old[name] for name in state if name in old and old[name].shape == state[name].shape})
        mixer.load_state_dict(state)
    return mixer
