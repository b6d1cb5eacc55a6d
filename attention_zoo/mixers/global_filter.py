"""GFNet's global filter: a convolution as large as the grid, learned as its spectrum.

    out = F^-1[W * F[x]]    (eq. 4),    F the two-dimensional Fourier transform, W learned for every channel

Y. Rao, W. Zhao, Z. Zhu, J. Lu, J. Zhou, Global Filter Networks for Image Classification, NeurIPS 2021.
"""

from typing import Annotated, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.domains import Domain
from attention_zoo.functional.precision import precise
from attention_zoo.mixers.base import HostOptions, SelfMixer
from attention_zoo.mixers.registry import register

FilterSide = Annotated[int, Domain(least=1, most=1024)]
"""Height or width of the grid that a spectrum is for."""


@register
class GlobalFilter(SelfMixer):
    """Mixes tokens by a learned global convolution, ``F⁻¹[W ∘ F[x]]``, the same for every image.

    It takes the tokens as they are and has no projections; the grid wraps around. On a grid of another size than its
    own the spectrum is resampled bicubically, corners on corners, as GFNet does for fine-tuning at a higher resolution.
    Every prefix token stands for a constant image: the grid is filtered with the mean of these images added, and a
    prefix token becomes the mean of the grid filtered with its own image added. Transforms are in float32 also under
    autocast.

    Args:
        dim: token width.
        num_heads: groups of channels that `attention_map` tells apart; the filter does not.
        filter_size: height and width of the grid the spectrum is for, where there is no ``grid``.
        **host: see `SelfMixer`.
    """

    reading = "global filter"
    paper = "Rao et al. 2021"
    equation = "F⁻¹[W ∘ F[x]] (4)"
    complexity = "N log N"
    projections = ()
    tokens = "grid"

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        filter_size: tuple[FilterSide, FilterSide] = (14, 14),
        **host: Unpack[HostOptions],
    ) -> None:
        super().__init__(dim, num_heads, **host)
        height, width = self.grid or filter_size
        drawn = torch.randn(height, width // 2 + 1, dim, 2, device=self.made["device"]) * 0.02
        self.complex_weight = nn.Parameter(drawn.to(self.made["dtype"]))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the filtered values (B, H, N, D) of values v (B, H, N, D); q and k are not used."""
        with torch.autocast(v.device.type, enabled=False):
            x = v.transpose(1, 2).flatten(2)  # (B, N, dim)
            mixed = self.filter(precise(x))
            return mixed.to(v.dtype).unflatten(-1, v.shape[1::2]).transpose(1, 2)

    def filter(self, x: Tensor) -> Tensor:
        """Return the filtered tokens (B, N, dim) of tokens x (B, N, dim), prefix included."""
        grid = self.spatial_shape(x.shape[1])
        spectrum = self.spectrum(grid, x.dtype)
        prefix, spatial = x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]
        if self.num_prefix_tokens:
            gain = spectrum[0, 0].real  # of a constant image
            read = (prefix + spatial.mean(1, keepdim=True)) * gain
            spatial = spatial + prefix.mean(1, keepdim=True)
        transformed = torch.fft.rfft2(spatial.unflatten(1, grid), dim=(1, 2), norm="ortho")
        filtered = torch.fft.irfft2(transformed * spectrum, s=grid, dim=(1, 2), norm="ortho").flatten(1, 2)
        return torch.cat([read, filtered], 1) if self.num_prefix_tokens else filtered

    def spectrum(self, grid: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """Return W for a grid, (height, width // 2 + 1, dim), complex."""
        weight, (height, width) = self.complex_weight.to(dtype), grid
        if weight.shape[:2] != (height, width // 2 + 1):
            planes = weight.flatten(2).permute(2, 0, 1)[None]  # (1, 2 dim, height, width // 2 + 1)
            planes = F.interpolate(planes, (height, width // 2 + 1), mode="bicubic", align_corners=True)
            weight = planes[0].permute(1, 2, 0).unflatten(-1, (-1, 2))
        return torch.view_as_complex(weight.contiguous())

    def map_weights(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the convolution as a matrix (B, H, N, N), mean over a head's channels, alike for every image."""
        batch, heads, number, _ = v.shape
        height, width = grid = self.spatial_shape(number)
        spectrum = self.spectrum(grid, torch.promote_types(v.dtype, torch.float32))
        spectrum = spectrum.unflatten(-1, (heads, -1)).mean(-1).permute(2, 0, 1)  # (H, height, width // 2 + 1)
        kernel = torch.fft.irfft2(spectrum, s=grid)
        rows, columns = (torch.arange(length, device=v.device) for length in grid)
        down, right = (rows[:, None] - rows) % height, (columns[:, None] - columns) % width
        shifted = kernel[:, down[:, None, :, None], right[None, :, None, :]]  # (H, height, width, height, width)
        weights = shifted.flatten(3).flatten(1, 2)
        return self.with_prefix(weights, spectrum[:, 0, 0].real).expand(batch, -1, -1, -1)

    def with_prefix(self, weights: Tensor, gain: Tensor) -> Tensor:
        """Return the map (H, N, N) of all tokens from that of the grid and the gain (H) of a constant image."""
        prefix, spatial = self.num_prefix_tokens, weights.shape[-1]
        full = F.pad(weights, (prefix, 0, prefix, 0))
        full[:, :prefix, :prefix] = torch.eye(prefix, dtype=gain.dtype, device=gain.device) * gain[:, None, None]
        full[:, :prefix, prefix:] = gain[:, None, None] / spatial
        full[:, prefix:, :prefix] = gain[:, None, None] / max(prefix, 1)
        return full
