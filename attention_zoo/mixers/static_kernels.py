"""The static dictionary of VARS in the paper's form: small kernels at every position of the grid."""

import torch
from torch import Tensor, nn

from attention_zoo.functional.dictionaries import Dictionary, Kernels, Tabulated
from attention_zoo.options import MOST_SIDE, whole

MOST_KERNELS = 1 << 12
"""Of a dictionary; Γ has as many rows."""


class StaticKernels:
    """Mix-in of a `SparseReconstruction`: the parameter ``kernel`` (H, K, s, s), shared by the channels of a head."""

    kernel: Tensor
    most_tabulated = 150
    """Tokens up to which a matrix takes less time than convolutions; see benchmarks/static_kernels.py."""

    def add_kernels(self, num_kernels: int, kernel_size: int) -> None:
        """Register ``num_kernels`` Gaussian kernels of side ``kernel_size`` for every head."""
        drawn = torch.randn(self.num_heads, num_kernels, kernel_size, kernel_size, device=self.made["device"])
        self.kernel = nn.Parameter((drawn / kernel_size).to(self.made["dtype"]))

    def check_kernels(self, num_kernels: int, kernel_size: int) -> None:
        """Raise an InputError unless there are kernels and they have a centre."""
        self.check(*whole("num_kernels", num_kernels, 1, MOST_KERNELS))
        self.check(*whole("kernel_size", kernel_size, 1, MOST_SIDE))
        self.check(kernel_size % 2 == 1, f"kernel_size={kernel_size} must be odd, so that a kernel has a centre")

    def kernels(self, like: Tensor) -> Kernels:
        """The dictionary for tokens (B, H, N, D) in their type; every kernel is scaled to unit length."""
        kernel = self.kernel.to(like.dtype)
        unit = kernel / kernel.square().sum((-2, -1), keepdim=True).sqrt()
        return Kernels(unit, self.spatial_shape(like.shape[2]), self.num_prefix_tokens)

    def quick(self, dictionary: Dictionary, v: Tensor) -> Dictionary:
        """The same for values v (B, H, N, D): a matrix where the tokens are few."""
        return Tabulated(dictionary, self.identity(v)) if v.shape[2] <= self.most_tabulated else dictionary
