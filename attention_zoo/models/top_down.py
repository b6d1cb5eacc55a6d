"""Top-down attention from analysis by synthesis: a second pass in which values carry what a prior asks for.

    z <- f(x),    z <- alpha clamp(cos(z, xi), 0, 1) z,    r_l = g_l(r_{l+1}), r_L = z,    out = f(x; td_l = h_l(r_l))

B. Shi, T. Darrell, X. Wang, Top-Down Visual Attention from Analysis by Synthesis (AbSViT), CVPR 2023; technical report
EECS-2024-49, chapter 2 (section 2.5, eq. 2.13).
"""

from collections.abc import Collection, Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.errors import InputError
from attention_zoo.mixers.premise import Measure, Measures
from attention_zoo.models.token_hosts import TokenHost, TokenModel, token_model
from attention_zoo.outputs import Outputs

Mode = Literal["absvit", "feedback", "perceiver_io", "mask_att", "qkv"]
DECODED = ("absvit", "feedback", "qkv")
"""The modes that have a feedback path."""


class Decoder(nn.Module):
    """g of one layer: ``linear`` rebuilds the layer's input from its output, ``linear2`` makes it a top-down signal."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim, bias=False)
        self.linear2 = nn.Linear(dim, dim, bias=False)


class TopDown(nn.Module, TokenModel):
    """A model that looks twice: the second time its self-mixers also hear what the first pass found under a prior.

    In training it returns `Outputs`: the logits of the second pass, those of the first, and the variational loss. The
    patch embedding runs once. It loads its own state dicts, those of the plain model, and AbSViT's released ones.

    Args:
        model: a model of self-mixers whose tokens stay tokens: timm's ``VisionTransformer`` or one of ours.
        mode: what the second pass hears (tech report section 2.6). ``absvit``: reweighted tokens through the decoders,
            added to the values; ``feedback``: without reweighting; ``qkv``: added to queries and keys too;
            ``mask_att``: no feedback, the weights multiply the values; ``perceiver_io``: no second pass, the
            reweighted tokens are the output.
        alpha: scale of the reweighted tokens (1 in training on ImageNet, 10 in the report's demonstration).
        variational_weight: factor of the variational loss.
        reduction: "mean" squared error, as released, or the "sum" over tokens and channels, halved, of eq. 2.13.
        variant: "paper" projects the signal without the projection's bias, so that a zero signal is none;
            "released" with it.

    Raises:
        InputError: the model is no such host, or the mode is unknown.
    """

    model: Any
    premise = "A layer's input can be told from its output, and the signal from above is of the same kind."
    own_names = ("decoders.", "unpools.", "prompt")
    """The first parts of the names of those parameters that the plain model lacks."""

    def __init__(
        self,
        model: nn.Module,
        *,
        mode: Mode = "absvit",
        alpha: float = 1.0,
        variational_weight: float = 0.1,
        reduction: Literal["mean", "sum"] = "mean",
        variant: Literal["paper", "released"] = "paper",
    ) -> None:
        super().__init__()
        for name, value, choices in (
            ("mode", mode, get_args(Mode)),
            ("reduction", reduction, ("mean", "sum")),
            ("variant", variant, ("paper", "released")),
        ):
            if value not in choices:
                raise InputError(f"TopDown: {name}={value!r} must be one of: {', '.join(choices)}")
        self.model = model
        self.mode, self.alpha, self.variant = mode, alpha, variant
        self.variational_weight, self.reduction = variational_weight, reduction
        layers = self.host.layers
        if mode in DECODED:
            self.decoders = nn.ModuleList(Decoder(layer.dim) for layer in layers)
            for weight in self.decoders.parameters():
                nn.init.trunc_normal_(weight, std=0.02)
            self.unpools = nn.ModuleList(
                nn.Linear(below.dim, above.dim, bias=False)
                for above, below in zip(layers, layers[1:], strict=False)
                if above.transition
            )
        self.prompt = nn.Parameter(torch.randn(layers[-1].dim)) if mode != "feedback" else None
        self.to(next(model.parameters()).device)
        self.register_load_state_dict_pre_hook(_name_the_model)

    @property
    def host(self) -> TokenHost:
        """The model as stem, layers and head.

        Raises:
            InputError: the model is none of tokens, looks twice already, or has layers that cannot hear signals.
        """
        if isinstance(self.model, TopDown):
            raise InputError("TopDown cannot be taken apart; give a VisionTransformer or one of our models")
        host = token_model(self.model).token_host()
        host.check_signals()
        return host

    def token_host(self) -> TokenHost:
        """Return the model taken apart into stem, layers and head, for one call."""
        return self.host

    def keep_layers(self, number: int, *, norm: bool) -> None:
        """Keep the first layers of the model, and perhaps the norm after the last, and take images of any size."""
        token_model(self.model).keep_layers(number, norm=norm)

    def keep_for_maps(self, indices: Sequence[int]) -> None:
        """Keep all layers, which the first pass runs, and do not train decoders that the second pass has no use for.

        Raises:
            InputError: the mode ``perceiver_io`` changes the last layer alone, and that layer gives no map.
        """
        number = len(self.host.layers)
        self.keep_layers(number, norm=True)
        if indices[-1] + 1 < number:
            if self.mode == "perceiver_io":
                raise InputError(f"out_indices={list(indices)}: perceiver_io changes layer {number - 1} alone")
            if self.mode in DECODED:
                for decoder in self.decoders[indices[-1] + 1 :]:
                    decoder.linear2.requires_grad_(False)  # it speaks to a layer that the second pass does not reach

    def forward(self, images: Tensor, prior: Tensor | None = None) -> Tensor | Outputs:
        """Return the logits (B, classes) of images (B, 3, H, W); in training, `Outputs`, except with ``perceiver_io``.

        Args:
            images: (B, 3, H, W), normalised.
            prior: what to look for, (dim,) or (B, dim) in the space of the output tokens, e.g. a class's prototype;
                None is the learned query.
        """
        host = self.host
        found, final, states = self._passes(host, images, prior, range(len(host.layers)) if self.training else ())
        logits = host.classify(final)
        if not self.training or self.mode == "perceiver_io":
            return logits
        loss = self.variational_weight * self._variational_loss(host, states) if self.mode in DECODED else 0.0
        return Outputs(logits, (host.classify(found),), loss)

    def _passes(
        self,
        host: TokenHost,
        images: Tensor,
        prior: Tensor | None,
        keep: Collection[int] = (),
        last: int | None = None,
    ) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
        """Return the output tokens of the first pass, those that the head reads, and the states of the last pass.

        States are the inputs and outputs of the layers to ``keep``. The second pass may end after the layer ``last``.
        """
        tokens = host.embed(images)
        only = self.mode == "perceiver_io"
        first, seen = host.run(tokens, keep=keep if only else ())
        found = host.finish(first)
        weights = self.similarity(found, prior)
        sent = self.alpha * weights * found
        if only:
            return found, sent, seen
        second, states = host.run(tokens, self._signals(host, sent, weights), keep, last)
        return found, host.finish(second), states

    def similarity(self, tokens: Tensor, prior: Tensor | None = None) -> Tensor:
        """Return how much each output token (B, N, dim) is what the prior asks for: (B, N, 1), in [0, 1]."""
        if self.prompt is None:  # mode "feedback"
            return torch.ones_like(tokens[..., :1])
        prior = self.prompt if prior is None else prior
        if prior.shape not in (tokens.shape[-1:], (tokens.shape[0], tokens.shape[-1])):
            raise InputError(f"TopDown: prior {tuple(prior.shape)} must be (dim,) or (B, dim), dim={tokens.shape[-1]}")
        prior = F.normalize(prior.to(tokens.dtype), dim=-1)
        prior = prior if prior.dim() == 1 else prior[:, None]
        return (F.normalize(tokens, dim=-1) * prior).sum(-1, keepdim=True).clamp(0, 1)

    def class_prior(self, index: int | Sequence[int] | Tensor) -> Tensor:
        """Return class prototypes, rows of the classifier: (dim,) for one, (B, dim) for several (tech report 2.6)."""
        classifier: Any = self.get_classifier()
        return classifier.weight[index]

    def _signals(self, host: TokenHost, found: Tensor, weights: Tensor) -> list[dict[str, Any]]:
        """Return the signals that each layer hears in the second pass, from the first layer to the last."""
        if self.mode == "mask_att":
            return [{"value_gate": host.spread(weights, layer)} for layer in host.layers]
        to, bias = ("qkv" if self.mode == "qkv" else "v"), self.variant == "released"
        signals, unpools = [], list(self.unpools)
        decoders: list[Any] = list(self.decoders)
        for layer, decoder in zip(reversed(host.layers), reversed(decoders), strict=True):
            if layer.transition:
                found = host.spread(unpools.pop()(found), layer)
            found = decoder.linear(found)
            signal = {"top_down": found, "top_down_decoder": decoder.linear2.weight}
            signals.append({**signal, "top_down_to": to, "top_down_bias": bias})
        return signals[::-1]

    def _variational_loss(self, host: TokenHost, states: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Return how far the decoders are from rebuilding each layer's input; only they learn from it (eq. 2.13)."""
        decoders: list[Any] = list(self.decoders)
        pairs = [
            (decoder.linear(after.detach()), before) for decoder, (before, after) in zip(decoders, states, strict=True)
        ]
        above = [index for index, layer in enumerate(host.layers) if layer.transition]
        for unpool, index in zip(self.unpools, above, strict=True):
            rebuilt = host.spread(unpool(states[index + 1][0].detach()), host.layers[index])
            pairs.append((rebuilt, states[index][1]))
        if self.reduction == "mean":
            losses = [F.mse_loss(rebuilt, seen.detach()) for rebuilt, seen in pairs]
        else:
            losses = [(rebuilt - seen.detach()).square().sum() / (2 * len(seen)) for rebuilt, seen in pairs]
        return sum(losses[1:], losses[0])

    def premise_measures(self, images: Tensor) -> list[Measures]:
        """Return how well each layer's input is rebuilt from its output, and how alike the signal is to that input.

        The rebuilt share is R² over tokens and channels, of the first pass, about the channels' means; 0 is what
        these means alone explain. The cosine is the mean over tokens of that between the signal that a layer hears and
        its input in the first pass. A mode without decoders has neither.

        Args:
            images: (B, 3, H, W), normalised.
        """
        if self.mode not in DECODED:
            return []
        host = self.host
        first, states = host.run(host.embed(images), keep=range(len(host.layers)))
        found = host.finish(first)
        weights = self.similarity(found)
        signals = self._signals(host, self.alpha * weights * found, weights)
        decoders: list[Any] = list(self.decoders)
        measures: list[Measures] = []
        for decoder, (before, after), signal in zip(decoders, states, signals, strict=True):
            rest = (decoder.linear(after) - before).square().sum((1, 2))
            spread = (before - before.mean(1, keepdim=True)).square().sum((1, 2))
            explained = (1 - rest / spread)[:, None]
            heard = F.linear(signal["top_down"], signal["top_down_decoder"])
            cosine = F.cosine_similarity(heard, before, dim=-1).mean(1, keepdim=True)
            zero = torch.zeros_like(explained)
            measures.append(
                {
                    "R² of the decoder": Measure(explained, zero, "higher"),
                    "cosine of signal and input": Measure(cosine, zero, "higher"),
                }
            )
        return measures

    def forward_maps(self, images: Tensor, indices: Sequence[int], prior: Tensor | None = None) -> list[Tensor]:
        """Return the outputs of some layers in the second (with ``perceiver_io``, the only) pass as maps (B, C, h, w).

        The map of the last layer is what the head reads.

        Args:
            images: (B, 3, H, W), normalised.
            indices: places of the layers, ascending.
            prior: what to look for, see `forward`.
        """
        host = self.host
        _, final, states = self._passes(host, images, prior, indices, indices[-1])
        outputs = [after for _, after in states]
        if indices[-1] == len(host.layers) - 1:
            outputs[-1] = final
        return host.maps_of(outputs, indices)

    def forward_features(self, images: Tensor, prior: Tensor | None = None) -> Tensor:
        """Return the output tokens (B, N, dim) of the second pass; for ``perceiver_io``, the reweighted tokens."""
        return self._passes(self.host, images, prior)[1]

    def forward_head(self, tokens: Tensor) -> Tensor:
        """Return the logits (B, classes) of output tokens (B, N, dim)."""
        return self.host.classify(tokens)

    def get_classifier(self) -> nn.Module:
        """Return the classifier of the plain model."""
        return self.model.get_classifier()

    def reset_classifier(self, num_classes: int, *args: str, **kwargs: str) -> None:
        """Put a fresh classifier of ``num_classes`` outputs into the plain model."""
        self.model.reset_classifier(num_classes, *args, **kwargs)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Switch gradient checkpointing of the plain model on or off."""
        self.model.set_grad_checkpointing(enable)

    def no_weight_decay(self) -> set[str]:
        """Return the names of the parameters that should have no weight decay."""
        return {"prompt"} | {f"model.{name}" for name in self.model.no_weight_decay()}

    @property
    def num_classes(self) -> int:
        """The number of classes of the model's head."""
        return self.model.num_classes


def _name_the_model(module: TopDown, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Rename the plain model's tensors in a released or a plain state dict to the names they have here."""
    own = tuple(f"{prefix}{name}" for name in ("model.", *TopDown.own_names))
    for name in [name for name in state if name.startswith(prefix) and not name.startswith(own)]:
        state[f"{prefix}model.{name.removeprefix(prefix)}"] = state.pop(name)
