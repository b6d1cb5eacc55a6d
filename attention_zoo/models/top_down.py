"""Top-down attention from analysis by synthesis: a second pass in which values carry what a prior asks for.

    z <- f(x),    z <- alpha clamp(cos(z, xi), 0, 1) z,    r_l = g_l(r_{l+1}), r_L = z,    out = f(x; td_l = h_l(r_l))

B. Shi, T. Darrell, X. Wang, Top-Down Visual Attention from Analysis by Synthesis (AbSViT), CVPR 2023; technical report
EECS-2024-49, chapter 2 (section 2.5, eq. 2.13).
"""

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.domains import PositiveFloat, require, shown
from attention_zoo.errors import InputError
from attention_zoo.mixers.premise import Measure, Measures
from attention_zoo.models.passes import FirstPass, SecondPass
from attention_zoo.models.synthesis_losses import (
    Reduction,
    class_prior_loss,
    code_length,
    hearing_codes,
    prior_loss,
    reconstruction_loss,
    sparse_mixers,
)
from attention_zoo.models.token_hosts import TokenHost, TokenModel, token_model
from attention_zoo.outputs import Outputs

Mode = Literal["absvit", "feedback", "perceiver_io", "mask_att", "qkv"]
DECODED = ("absvit", "feedback", "qkv")
"""The modes that have a feedback path."""
GATED = ("absvit", "qkv")
"""The modes in which something is sent back that depends on the prior."""
SECOND = ("absvit", "feedback", "mask_att", "qkv")
"""The modes that have a second pass."""
TWICE = "train it with --model.top_down absvit, or take a model such as absvit_tiny_patch16_224"
"""What errors about a model without a top-down pass say of how to get one."""
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
"""The types of the places of classes."""


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
        variational_weight: factor of the reconstruction in the variational loss (0.1 as released).
        reduction: "mean" squared error, as released, the "sum" over tokens and channels, halved, of eq. 2.13, or
            "cosine"; see `reconstruction_loss`.
        variant: "paper" projects the signal without the projection's bias, so that a zero signal is none;
            "released" with it.
        channel_gate: factor c by which what is sent back is projected on the prior, z <- c (xi^T z) xi, so that it has
            the prior's channels too. The authors' vision-language model does so with c = 5 and xi of any length, in no
            equation ("selecting relevant features on the channel dimension"); 0 is off.
        prior_weight: factor of -log p_xi(z_L) in training (eq. 2.15; 0.1 in a line of the released code that is
            commented out), where xi is the prior that each image is given. The learned query, the same for all, says
            nothing of an image, and the report takes the term as 0 there. Where no prior is given, xi is here the
            prototype of the image's class, which the loss alone is told: the second pass hears the query still.
            See `prior_loss` and ``Outputs.target_loss``.
        temperature: divisor of its cosines; 0.07 as released.
        sparsity: the lambda of eq. 2.10 and 2.12, factor of the L1 norm of the second pass's codes; see `code_length`.

    Raises:
        InputError: the model is no such host, the mode is unknown, or has no use for an option.
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
        reduction: Reduction = "mean",
        variant: Literal["paper", "released"] = "paper",
        channel_gate: float = 0.0,
        prior_weight: float = 0.0,
        temperature: PositiveFloat = 0.07,
        sparsity: float = 0.0,
    ) -> None:
        super().__init__()
        for name, value, choices in (
            ("mode", mode, get_args(Mode)),
            ("reduction", reduction, get_args(Reduction)),
            ("variant", variant, ("paper", "released")),
        ):
            if value not in choices:
                raise InputError(f"TopDown: {name}={value!r} must be one of: {', '.join(choices)}")
        for name, number, kind, fitting in (
            ("alpha", alpha, float, get_args(Mode)),
            ("variational_weight", variational_weight, float, get_args(Mode)),
            ("channel_gate", channel_gate, float, GATED),
            ("prior_weight", prior_weight, float, SECOND),
            ("temperature", temperature, PositiveFloat, get_args(Mode)),
            ("sparsity", sparsity, float, SECOND),
        ):
            require(f"TopDown: {name}", number, kind)
            if number and mode not in fitting:
                raise InputError(f"TopDown: {name}={number} is for the modes {', '.join(fitting)}, not for {mode}")
        if sparsity:
            sparse_mixers(model)
        self.model = model
        self.mode, self.alpha, self.variant = mode, alpha, variant
        self.variational_weight, self.reduction = variational_weight, reduction
        self.channel_gate, self.sparsity = channel_gate, sparsity
        self.prior_weight, self.temperature = prior_weight, temperature
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
        if not self.training or self.mode == "perceiver_io":
            first, second = self._passes(images, prior)
            return first.host.classify(second.output)
        first = self.first_pass(images)
        with hearing_codes(self.model, self.sparsity > 0) as codes:
            second = self.second_pass(first, prior, keep=range(len(first.host.layers)))
        logits, first_logits = (first.host.classify(each.output) for each in (second, first))
        loss, of_classes = self._loss(first.host, second, codes), None
        if self.prior_weight:
            seen = self._summary(first.host, second.output)
            options: dict[str, Any] = {"temperature": self.temperature, "both_ways": self.variant == "released"}
            if prior is None:
                options |= {"seen": seen, "prototypes": self._prototypes(), "weight": self.prior_weight}
                of_classes = partial(class_prior_loss, **options)
            elif prior.dim() < 2:
                raise InputError(
                    f"TopDown: prior_weight={self.prior_weight} needs a prior (B, dim) of each image in training; "
                    f"one for all says nothing of an image"
                )
            else:
                loss = loss + self.prior_weight * prior_loss(seen, prior, **options)
        return Outputs(logits, (first_logits,), loss, of_classes)

    def _loss(self, host: TokenHost, second: SecondPass, codes: list[Tensor]) -> Tensor | float:
        """Return what a second pass alone says of the variational loss; its parts that are off cost nothing."""
        loss: Tensor | float = 0.0
        if self.mode in DECODED:
            loss = self.variational_weight * reconstruction_loss(self._rebuilt(host, second.states), self.reduction)
        if self.sparsity:
            loss = loss + self.sparsity * code_length(codes, self.reduction)
        return loss

    def _summary(self, host: TokenHost, output: Tensor) -> Tensor:
        """Return what the head reads of output tokens (B, N, dim): the class token, or the average, (B, dim)."""
        if getattr(self.model, "global_pool", "avg") == "token":
            return output[:, 0]
        return host.maps(output, host.layers[-1]).mean((2, 3))

    def first_pass(self, images: Tensor, keep: Collection[int] = ()) -> FirstPass:
        """Return the bottom-up pass of images (B, 3, H, W), which `second_pass` takes for any number of priors.

        Args:
            images: (B, 3, H, W), normalised.
            keep: layers whose input and output are wanted.
        """
        host = self.host
        tokens = host.embed(images)
        last, states = host.run(tokens, keep=keep)
        return FirstPass(tokens, host.finish(last), states, host)

    def second_pass(
        self,
        first: FirstPass,
        prior: Tensor | None = None,
        *,
        alpha: float | None = None,
        mode: Mode | None = None,
        keep: Collection[int] = (),
        last: int | None = None,
    ) -> SecondPass:
        """Return the top-down pass under a prior.

        Args:
            first: the bottom-up pass of the same images.
            prior: what to look for, see `forward`.
            alpha: scale of the reweighted tokens; None is the model's own.
            mode: what the pass hears; None is the model's own. Another one has weights that were not trained for it.
            keep: layers whose input and output are wanted.
            last: the layer to end with; None is the model's last.

        Raises:
            InputError: the prior or alpha does not fit, or the model has no weights for the mode.
        """
        if alpha is not None:
            require("TopDown: alpha", alpha, float)
        mode, host = self.mode if mode is None else self.check_mode(mode), first.host
        similarity = self.similarity(first.output, prior, mode)
        sent = (self.alpha if alpha is None else alpha) * similarity * first.output
        if mode == "perceiver_io":
            return SecondPass(sent, similarity, [], first.states)
        if mode == "mask_att":
            fed, signals = [], [{"value_gate": host.spread(similarity, layer)} for layer in host.layers]
        else:
            gated = self.channel_gate and mode in GATED
            fed = self._feed_back(host, self._channels(sent, prior) if gated else sent)
            signals = [self._signal(mode, *pair) for pair in zip(fed, self.decoders, strict=True)]
        x, states = host.run(first.tokens, signals, keep, last)
        return SecondPass(host.finish(x), similarity, fed, states)

    def check_mode(self, mode: Mode) -> Mode:
        """Return the mode, if the model has the weights that it needs.

        Raises:
            InputError: the model has no feedback path, which the mode needs.
        """
        if mode in DECODED and self.mode not in DECODED:
            raise InputError(f"mode={mode!r} needs the feedback path, which a model of mode {self.mode!r} has not")
        return mode

    def _passes(
        self, images: Tensor, prior: Tensor | None, keep: Collection[int] = (), last: int | None = None
    ) -> tuple[FirstPass, SecondPass]:
        """Return both passes; the layers to ``keep`` are those of the second, which may end after layer ``last``."""
        first = self.first_pass(images, keep if self.mode == "perceiver_io" else ())
        return first, self.second_pass(first, prior, keep=keep, last=last)

    def similarity(self, tokens: Tensor, prior: Tensor | None = None, mode: Mode | None = None) -> Tensor:
        """Return how much each output token (B, N, dim) is what the prior asks for: (B, N, 1), in [0, 1].

        Args:
            tokens: (B, N, dim), output tokens of the first pass.
            prior: what to look for, see `forward`.
            mode: None is the model's own; ``feedback`` asks for nothing, so that every token is as good.
        """
        if (mode or self.mode) == "feedback":
            return torch.ones_like(tokens[..., :1])
        asked = F.normalize(self._asked(tokens, prior), dim=-1)
        return (F.normalize(tokens, dim=-1) * asked).sum(-1, keepdim=True).clamp(0, 1)

    def _asked(self, tokens: Tensor, prior: Tensor | None) -> Tensor:
        """Return the prior, or the learned query, so that it broadcasts to tokens (B, N, dim)."""
        prior = self.prompt if prior is None else prior
        if prior is None:
            raise InputError("TopDown: a model of mode 'feedback' has no learned query: give a prior")
        if prior.shape not in (tokens.shape[-1:], (tokens.shape[0], tokens.shape[-1])):
            raise InputError(f"TopDown: prior {tuple(prior.shape)} must be (dim,) or (B, dim), dim={tokens.shape[-1]}")
        prior = prior.to(tokens.dtype)
        return prior if prior.dim() == 1 else prior[:, None]

    def _channels(self, sent: Tensor, prior: Tensor | None) -> Tensor:
        """Return c (xi^T z) xi of tokens z (B, N, dim) that are sent back, where c is ``channel_gate``."""
        asked = self._asked(sent, prior)
        return self.channel_gate * (sent * asked).sum(-1, keepdim=True) * asked

    def class_prior(self, index: int | Sequence[int] | Tensor) -> Tensor:
        """Return class prototypes, rows of the classifier: (dim,) for one, (B, dim) for several (tech report 2.6).

        They share the space of the output tokens where the classifier reads the average of these. A class token's
        classifier says little about the other tokens.

        Raises:
            InputError: the classifier is not one linear layer, or there is no such class.
        """
        prototypes = self._prototypes()
        number = len(prototypes)
        try:
            places = torch.as_tensor(index, device=prototypes.device)
        except (TypeError, ValueError, RuntimeError):
            places = torch.empty(0)
        if places.dtype not in INTEGERS or bool(((places < 0) | (places >= number)).any()):
            raise InputError(f"class_prior: {shown(index)} must be places of classes, integers from 0 to {number - 1}")
        return prototypes[places.long()]

    def _prototypes(self) -> Tensor:
        """Return the prototypes (classes, dim) of all classes."""
        classifier = self.get_classifier()
        if not isinstance(classifier, nn.Linear):
            raise InputError(f"class prototypes are rows of one linear classifier; this is {type(classifier).__name__}")
        return classifier.weight

    def _feed_back(self, host: TokenHost, sent: Tensor) -> list[Tensor]:
        """Return r of each layer, from the first to the last, of tokens (B, N, dim) that are sent back."""
        fed, unpools = [], list(self.unpools)
        decoders: list[Any] = list(self.decoders)
        for layer, decoder in zip(reversed(host.layers), reversed(decoders), strict=True):
            if layer.transition:
                sent = host.spread(unpools.pop()(sent), layer)
            sent = decoder.linear(sent)
            fed.append(sent)
        return fed[::-1]

    def _signal(self, mode: Mode, fed: Tensor, decoder: Any) -> dict[str, Any]:
        """Return the arguments by which a layer's mixer hears what is fed back to it, (B, N, dim)."""
        to, bias = ("qkv" if mode == "qkv" else "v"), self.variant == "released"
        signal = {"top_down": fed, "top_down_decoder": decoder.linear2.weight}
        return {**signal, "top_down_to": to, "top_down_bias": bias}

    def _rebuilt(self, host: TokenHost, states: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        """Return what the decoders rebuild of each layer's input, and that input; only they learn from it."""
        decoders: list[Any] = list(self.decoders)
        pairs = [
            (decoder.linear(after.detach()), before) for decoder, (before, after) in zip(decoders, states, strict=True)
        ]
        above = [index for index, layer in enumerate(host.layers) if layer.transition]
        for unpool, index in zip(self.unpools, above, strict=True):
            rebuilt = host.spread(unpool(states[index + 1][0].detach()), host.layers[index])
            pairs.append((rebuilt, states[index][1]))
        return pairs

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
        first = self.first_pass(images, keep=range(len(self.host.layers)))
        signals = self.second_pass(first).signals
        decoders: list[Any] = list(self.decoders)
        measures: list[Measures] = []
        for decoder, (before, after), signal in zip(decoders, first.states, signals, strict=True):
            rest = (decoder.linear(after) - before).square().sum((1, 2))
            spread = (before - before.mean(1, keepdim=True)).square().sum((1, 2))
            explained = (1 - rest / spread)[:, None]
            heard = decoder.linear2(signal)
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
        first, second = self._passes(images, prior, indices, indices[-1])
        outputs = [after for _, after in second.states]
        if indices[-1] == len(first.host.layers) - 1:
            outputs[-1] = second.output
        return first.host.maps_of(outputs, indices)

    def forward_features(self, images: Tensor, prior: Tensor | None = None) -> Tensor:
        """Return the output tokens (B, N, dim) of the second pass; for ``perceiver_io``, the reweighted tokens."""
        return self._passes(images, prior)[1].output

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
