"""Sizes of images that models see whole, and position embeddings at other sizes."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from timm.layers import PatchEmbed, resample_abs_pos_embed, to_2tuple
from torch import Tensor, nn

from attention_zoo.compat import PositionedVisionTransformer
from attention_zoo.errors import InputError


class SizedVisionTransformer(PositionedVisionTransformer):
    """timm's ``VisionTransformer`` that can resample its position embeddings as the authors of AbSViT and GFNet do.

    Both resample by plain bicubic interpolation (a = -0.75); timm's is antialiased (a = -0.5), also where the grid
    grows, which from 14 x 14 to 32 x 32 differs by some percent.
    """

    plain_resampling: bool = False
    """Whether position embeddings are resampled without antialiasing."""

    def resampled(self, positions: Tensor, grid: tuple[int, int], old: tuple[int, int]) -> Tensor:
        """Return position embeddings (1, prefix + h * w, dim) of a grid ``old``, resampled for another ``grid``."""
        prefix = 0 if self.no_embed_class else self.num_prefix_tokens
        antialias = not self.plain_resampling
        return resample_abs_pos_embed(positions, grid, old, num_prefix_tokens=prefix, antialias=antialias)

    def set_input_size(
        self, img_size: tuple[int, int] | None = None, patch_size: tuple[int, int] | None = None
    ) -> None:
        """Set the size of images and patches as timm does; position embeddings are resampled from the present ones."""
        positions, old = self.pos_embed, self.patch_embed.grid_size
        super().set_input_size(img_size, patch_size)
        if positions is not None and self.pos_embed is not None and self.pos_embed is not positions:
            with torch.no_grad():
                self.pos_embed.copy_(self.resampled(positions, self.patch_embed.grid_size, old))

    def with_positions(self, x: Tensor) -> Tensor:
        """Return tokens (B, N, dim) with positions, of patches (B, h, w, dim), or (B, N, dim) if the size is fixed."""
        if not self.plain_resampling or not self.dynamic_img_size or self.pos_embed is None:
            return super().with_positions(x)
        height, width = x.shape[1:3]
        positions = self.resampled(self.pos_embed, (height, width), self.patch_embed.grid_size)
        prefix = [token.expand(len(x), -1, -1) for token in (self.cls_token, self.reg_token) if token is not None]
        x = x.flatten(1, 2)
        if self.no_embed_class:
            return self.pos_drop(torch.cat([*prefix, x + positions], 1))
        return self.pos_drop(torch.cat([*prefix, x], 1) + positions)


def check_patches(model: nn.Module, image_size: tuple[int, int] | None = None) -> None:
    """Refuse images of which ``model`` would not see some pixels.

    Args:
        model: a model whose ``patch_embed`` or ``stem`` sees the images; of any other nothing is known, and it passes.
        image_size: height and width; None is the size that the model is built for.

    Raises:
        InputError: the patches do not divide the images, the model is built for images of another size, or some rows or
            columns of pixels reach no token.
    """
    for embedding, outermost in _embeddings(model):
        own: Any = getattr(embedding, "img_size", None)
        size = image_size if outermost and image_size is not None else own
        if size is None:
            continue
        if own is not None and tuple(own) != tuple(size) and getattr(embedding, "strict_img_size", True):
            raise InputError(f"the model is built for images of {_by(own)} pixels, and these are of {_by(size)}")
        if _cuts(embedding):
            if not getattr(embedding, "dynamic_img_pad", False):
                _check_division(tuple(size), tuple(embedding.patch_size))
            elif outermost:  # padded they have more tokens than the model may have positions
                check_runs(model, tuple(size))
        elif outermost:
            _check_seen(embedding, tuple(size))


def check_patches_fit(model: nn.Module) -> None:
    """Refuse a model that is built for images with no room for one of its patches, which has no grid of tokens.

    Raises:
        InputError: the images are smaller than a patch.
    """
    for embedding, _ in _embeddings(model):
        own, patch = getattr(embedding, "img_size", None), getattr(embedding, "patch_size", None)
        if own is None or patch is None:
            continue
        own, patch = to_2tuple(own), to_2tuple(patch)
        if any(side < part for side, part in zip(own, patch, strict=True)):
            _check_division(tuple(own), tuple(patch))


def check_runs(model: nn.Module, image_size: tuple[int, int]) -> None:
    """Refuse images that ``model`` cannot take, by running it once on an image of zeros.

    Args:
        model: a model of images (B, 3, H, W).
        image_size: height and width.

    Raises:
        InputError: the model cannot take images of that size.
    """
    weight = next(model.parameters(), None)
    if weight is None or weight.is_meta:
        return
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            model(torch.zeros(1, 3, *image_size, device=weight.device, dtype=weight.dtype))
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"images of {_by(image_size)} pixels cannot be taken: {reason}") from error
    finally:
        for module, was in training.items():
            module.training = was


def _embeddings(model: nn.Module) -> Iterator[tuple[Any, bool]]:
    """Yield the modules that make tokens of images, and whether they get the images in their own size."""
    for part in model.modules():
        embeddings = getattr(part, "patch_embed", None)
        if isinstance(embeddings, nn.ModuleList):  # branches, which resize images for themselves
            yield from ((embedding, False) for embedding in embeddings)
        elif isinstance(embeddings, nn.Module):
            yield embeddings, True
            return
    if isinstance(getattr(model, "stem", None), nn.Module):  # as ConvNeXt and MLP-Mixer call it
        yield model.stem, True


def _cuts(embedding: nn.Module) -> bool:
    """Return whether the embedding cuts images into patches that do not overlap."""
    proj = getattr(embedding, "proj", None)
    cuts = isinstance(proj, nn.Conv2d) and proj.kernel_size == proj.stride and not any(proj.padding)
    return hasattr(embedding, "patch_size") and (cuts or isinstance(embedding, PatchEmbed))


def _check_division(size: tuple[int, int], patch: tuple[int, int]) -> None:
    if any(side % part for side, part in zip(size, patch, strict=True)):
        raise InputError(
            f"patches of {_by(patch)} pixels do not divide images of {_by(size)}, whose rest would not be seen; "
            f"nearest sizes: {_nearest(size, patch)}"
        )


def _check_seen(embedding: nn.Module, size: tuple[int, int]) -> None:
    """Refuse a size of images at which some row or column of pixels has no gradient from any token."""
    weight = next(embedding.parameters(), None)
    convolution = next((part for part in embedding.modules() if isinstance(part, nn.Conv2d)), None)
    if weight is None or weight.is_meta or convolution is None:
        return
    embedding = copy.deepcopy(embedding).eval()
    pixels = torch.arange(convolution.in_channels * size[0] * size[1], device=weight.device, dtype=torch.float64)
    image = (12.9898 * pixels).sin().mul(43758.5453).frac().to(weight.dtype)  # as good as random
    with torch.enable_grad():
        image = image.reshape(1, -1, *size).requires_grad_()
        try:
            tokens = embedding(image)
            tokens = tokens[0] if isinstance(tokens, tuple) else tokens
            (gradient,) = torch.autograd.grad(tokens.square().sum(), image)
        except (RuntimeError, AssertionError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"images of {_by(size)} pixels cannot be taken: {reason}") from error
    seen = gradient[0].abs().sum(0) > 0
    rows, columns = int(seen.any(1).sum()), int(seen.any(0).sum())
    if (rows, columns) != size:
        step = _step(embedding, convolution)
        raise InputError(
            f"of images of {_by(size)} pixels only {rows} rows and {columns} columns would be seen; nearest sizes: "
            + _nearest(size, (step, step))
        )


def _step(embedding: nn.Module, first: nn.Conv2d) -> int:
    """Return the number of pixels between neighbouring tokens."""
    stride = getattr(embedding, "stride", None)
    return stride if isinstance(stride, int) else first.stride[0]


def _nearest(size: tuple[int, int], step: tuple[int, int]) -> str:
    """Return in words the nearest sizes below and above that are multiples of a step, and at least the step itself."""
    (height, width), (rows, columns) = size, step
    below = (max(height // rows, 1) * rows, max(width // columns, 1) * columns)
    above = (-(-height // rows) * rows, -(-width // columns) * columns)
    return " or ".join(dict.fromkeys((_by(below), _by(above))))


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
