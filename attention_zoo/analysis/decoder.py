"""Images from tokens: the linear decoder from the first layer's input to pixels, in closed form.

    decoder = fit_decoder(model, batches)                 # one pass over normalised images
    seen = decode_signals(model, decoder, images)         # images from what goes up, what comes down, and their sum

Tech report EECS-2024-49, section 2.7 and Figure 2.9: "we train a linear decoder that projects the bottom-up input
x_0^bu of the first layer to the original image", and decode with it x_0^bu, x_0^td and x_0^bu + x_0^td. The report
does not say how it trains; least squares have a closed form, and that is what is computed here.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attention_zoo.analysis.maps import evaluating
from attention_zoo.domains import require
from attention_zoo.errors import InputError
from attention_zoo.functional.checks import check_finite
from attention_zoo.models.token_hosts import token_model
from attention_zoo.models.top_down import DECODED, TWICE, FirstPass, TopDown

RIDGE = 1e-4
"""The default ridge, relative to the average variance of the inputs."""

LEAST_ERROR = 1e-12
"""Squared errors below it count as this much, so that an exact image has a signal-to-noise ratio of 120 dB."""


class LeastSquares:
    """A linear regression with an intercept, Y = X W + b, of which only sufficient statistics are kept.

    It keeps the means and the sums of products about them in float64, and merges those of each batch into the others
    (T. F. Chan, G. H. Golub, R. J. LeVeque 1979): what it holds does not grow with the number of rows, and does not
    suffer where the means are large.

    Args:
        inputs: columns of X.
        targets: columns of Y.
        device: where the statistics are kept.
    """

    def __init__(self, inputs: int, targets: int, device: torch.device | str | None = None) -> None:
        self.count = 0
        self.mean = torch.zeros(inputs + targets, dtype=torch.float64, device=device)
        self.products = torch.zeros(inputs, inputs + targets, dtype=torch.float64, device=device)
        self.spread = torch.zeros(targets, dtype=torch.float64, device=device)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Take rows of inputs x (n, inputs) and targets y (n, targets)."""
        inputs = self.products.shape[0]
        rows = torch.cat((x.to(self.mean), y.to(self.mean)), 1)
        mean = rows.mean(0)
        rows -= mean
        apart, total = mean - self.mean, self.count + len(rows)
        weight = self.count * len(rows) / total
        self.products += rows[:, :inputs].T @ rows + weight * torch.outer(apart[:inputs], apart)
        self.spread += rows[:, inputs:].square().sum(0) + weight * apart[inputs:].square()
        self.mean += apart * (len(rows) / total)
        self.count = total

    def solve(self, ridge: float = RIDGE) -> tuple[Tensor, Tensor]:
        """Return W (inputs, targets) and b (targets,) in float64.

        They minimise ``|Y - X W - b|² + ridge · s · |W|²`` where s is the trace of the centred ``XᵀX`` over its size,
        so that the ridge has no unit. Where it is 0 and columns depend on each other, W is the shortest solution.
        """
        inputs = self.products.shape[0]
        values, vectors = torch.linalg.eigh(self.products[:, :inputs])
        values = values.clamp(min=0)
        penalty = ridge * values.mean()
        rounding = values.max() * inputs * torch.finfo(values.dtype).eps
        inverse = torch.where(values > rounding, 1 / (values + penalty), 0.0)
        weight = vectors @ (inverse[:, None] * (vectors.T @ self.products[:, inputs:]))
        return weight, self.mean[inputs:] - self.mean[:inputs] @ weight

    def errors(self, weight: Tensor) -> Tensor:
        """Return the mean squared error (targets,) of W (inputs, targets), with the b that suits it, on all rows."""
        inputs = self.products.shape[0]
        cross, gram = self.products[:, inputs:], self.products[:, :inputs]
        squares = self.spread + (weight * (gram @ weight - 2 * cross)).sum(0)
        return squares.clamp(min=0) / max(self.count, 1)


@dataclass(frozen=True)
class ImageDecoder:
    """A linear map from the tokens of a grid to the pixels below them, the same in every place.

    Attributes:
        weight: (D, 3 · height · width of a patch), float64.
        bias: (3 · height · width of a patch,), float64.
        patch: height and width of the pixels that a token stands for.
        images: number of images that it was fitted on.
        error: mean squared error on these.
    """

    weight: Tensor
    bias: Tensor
    patch: tuple[int, int]
    images: int
    error: float

    @property
    def psnr(self) -> float:
        """The peak signal-to-noise ratio in dB of that error, at most 120; nothing is cut to 0..1 in it."""
        return -10 * math.log10(max(self.error, LEAST_ERROR))

    def __call__(self, maps: Tensor) -> Tensor:
        """Return the images (B, 3, H, W) of tokens on their grid (B, D, h, w), in 0..1 but for errors."""
        pixels = torch.einsum("bdhw,dp->bhwp", maps.to(self.weight), self.weight) + self.bias
        patches = pixels.unflatten(-1, (3, *self.patch))  # (B, h, w, 3, ph, pw)
        return patches.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3).to(maps.dtype)


def patches_of(images: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the pixels below each place of a grid: (B, h, w, 3 · height · width of a patch), of images (B, 3, H, W).

    Raises:
        InputError: the grid does not divide the images.
    """
    (height, width), (rows, columns) = images.shape[-2:], grid
    if height % rows or width % columns:
        raise InputError(f"images of {height} x {width} pixels cannot be cut into {rows} x {columns} tokens")
    cut = images.unflatten(3, (columns, width // columns)).unflatten(2, (rows, height // rows))  # (B, 3, h, ph, w, pw)
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(3)


@torch.no_grad()
def fit_decoder(
    model: nn.Module,
    batches: Iterable[Tensor],
    ridge: float = RIDGE,
    *,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
) -> ImageDecoder:
    """Return the linear decoder from the input of the model's first layer to the images, in one pass over these.

    Tokens of all places share one map, and those of the prefix (a class token) are left out. Where the patch embedding
    is invertible, that is where its tokens are as wide as a patch has values and there is no position embedding, the
    decoder without a ridge is its inverse.

    Args:
        model: a VisionTransformer or one of our models of tokens, with or without `TopDown`.
        batches: normalised images (B, 3, H, W), one batch after the other.
        ridge: see `LeastSquares.solve`.
        mean: of each channel, which the normalisation has subtracted from images in 0..1.
        std: of each channel, which it has divided by.

    Raises:
        InputError: there are no images, the model is none of tokens, or the ridge is negative.
    """
    require("ridge", ridge, float)
    statistics: LeastSquares | None = None
    patch, seen = (0, 0), 0
    for images in batches:
        with evaluating(model):
            maps = first_input(model, images)
        middle, scale = (images.new_tensor(values)[:, None, None] for values in (mean, std))
        pixels = patches_of(images * scale + middle, (maps.shape[2], maps.shape[3]))
        if statistics is None:
            statistics = LeastSquares(maps.shape[1], pixels.shape[-1], _of_doubles(maps.device))
            patch = images.shape[2] // maps.shape[2], images.shape[3] // maps.shape[3]
        statistics.add(maps.movedim(1, -1).flatten(0, 2), pixels.flatten(0, 2))
        seen += len(images)
    if statistics is None:
        raise InputError("a decoder needs at least one image to be fitted on")
    weight, bias = statistics.solve(ridge)
    return ImageDecoder(weight, bias, patch, seen, float(statistics.errors(weight).mean()))


def first_input(model: nn.Module, images: Tensor) -> Tensor:
    """Return the input x_0^bu of the model's first layer for images (B, 3, H, W), as maps (B, D, h, w)."""
    host = token_model(model).token_host()
    return host.maps(host.embed(images), host.layers[0])


@dataclass(frozen=True)
class DecodedSignals:
    """The images (B, 3, H, W) that are decoded from the first layer's signals, in 0..1 but for errors.

    Attributes:
        bottom_up: from x_0^bu, the input of the first layer.
        top_down: from x_0^td, what is fed back to it.
        both: from their sum.
    """

    bottom_up: Tensor
    top_down: Tensor
    both: Tensor


@torch.no_grad()
def decode_signals(
    model: nn.Module,
    decoder: ImageDecoder,
    images: Tensor | FirstPass,
    prior: Tensor | None = None,
    alpha: float | None = None,
) -> DecodedSignals:
    """Return what the signals of a model's first layer look like as images (tech report, Figure 2.9).

    The report does not say where x_0^td is read. Here it is the output of the first layer's decoder, which the
    variational loss trains to rebuild that layer's input, before ``linear2`` makes it a signal for the values.

    Args:
        model: a `TopDown` with a feedback path.
        decoder: a decoder of that model's tokens.
        images: (B, 3, H, W), normalised; or the model's first pass over them, which several priors can share.
        prior: what to look for, see `TopDown.forward`.
        alpha: scale of what is sent back; None is the model's own.

    Raises:
        InputError: nothing flows back in the model, or what does is not finite.
    """
    looks = require_feedback(model)
    if alpha is not None:
        require("alpha", alpha, float)
    with evaluating(looks):
        first = images if isinstance(images, FirstPass) else looks.first_pass(images)
        fed = looks.second_pass(first, prior, alpha=alpha, last=0).signals[0]
    layer = first.host.layers[0]
    up, down = (first.host.maps(tokens, layer) for tokens in (first.tokens, fed))
    tokens = (check_finite("tokens to decode", each) for each in (up, down, up + down))
    return DecodedSignals(*map(decoder, tokens))


def require_feedback(model: nn.Module) -> TopDown:
    """Return the model, if it has a top-down pass in which something is fed back to the first layer.

    Raises:
        InputError: it has none.
    """
    if not isinstance(model, TopDown):
        raise InputError(f"{type(model).__name__} has no top-down pass to decode; {TWICE}")
    if model.mode not in DECODED:
        raise InputError(f"mode {model.mode!r} feeds nothing back to the first layer; use one of: {', '.join(DECODED)}")
    return model


def signal_to_noise(decoded: Tensor, images: Tensor, where: Tensor | None = None) -> Tensor:
    """Return the peak signal-to-noise ratio (B,) in dB of decoded images, at most 120.

    Args:
        decoded: (B, 3, H, W); what is outside of 0..1 is cut, as in a picture.
        images: (B, 3, H, W) in 0..1.
        where: (B, H, W), the pixels that count; None is all. Images with no such pixel get NaN.
    """
    errors = (decoded.clamp(0, 1) - images).double().square().mean(1)  # (B, H, W)
    counted = torch.ones_like(errors) if where is None else where.to(errors)
    error = (errors * counted).sum((1, 2)) / counted.sum((1, 2))
    return -10 * error.clamp(min=LEAST_ERROR).log10()


def _of_doubles(device: torch.device) -> torch.device:
    """Return the device itself, or the CPU where it has no float64."""
    return torch.device("cpu") if device.type == "mps" else device
