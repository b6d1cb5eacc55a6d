"""The released mixers of the authors of VARS, restated step by step on the parameters of our mixers, to compare."""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attention_zoo.mixers.base import SelfMixer


class Released(nn.Module):
    """The released formulation of a mixer, on the parameters of ours."""

    def __init__(self, mixer: SelfMixer) -> None:
        super().__init__()
        self.mixer = mixer

    @abstractmethod
    def mix(self, q: Tensor, v: Tensor, *k: Tensor) -> Tensor:
        """Mix queries, values and, where they differ from the queries, keys (B, H, N, D) -> (B, H, N, D)."""

    def forward(self, x: Tensor) -> Tensor:
        """Mix tokens (B, N, dim) -> (B, N, dim)."""
        mixer, (batch, number, dim) = self.mixer, x.shape
        parts = mixer.qkv(x).reshape(batch, number, -1, mixer.num_heads, mixer.head_dim).permute(2, 0, 3, 1, 4)
        mixed = self.mix(parts[0], parts[-1], *parts[1:-1])
        return mixer.proj(mixer.norm(mixed.transpose(1, 2).reshape(batch, number, dim)))


class ReleasedDotProduct(Released):
    """Attention that holds its N x N matrix, normalised by softmax."""

    def mix(self, q: Tensor, v: Tensor, *k: Tensor) -> Tensor:
        """Mix queries, values and keys (B, H, N, D) -> (B, H, N, D)."""
        return (q @ k[0].transpose(-2, -1) * self.mixer.head_dim**-0.5).softmax(-1) @ v


class ReleasedPerformer(Released):
    """Attention that holds its N x N matrix, made of random features, with rows divided by their sums."""

    def mix(self, q: Tensor, v: Tensor, *k: Tensor) -> Tensor:
        """Mix queries, values and keys (B, H, N, D) -> (B, H, N, D)."""
        directions, scale = self.mixer.rand_matrix, self.mixer.head_dim**-0.25
        units = [F.normalize(x * scale, dim=-1) for x in (q, k[0])]
        phi_q, phi_k = (
            (x @ directions - x.norm(dim=-1, keepdim=True) ** 2 / 2).exp() / directions.shape[-1] ** 0.5 for x in units
        )
        return F.normalize(phi_q @ phi_k.transpose(-2, -1), p=1, dim=-1) @ v


class ReleasedVarsD(Released):
    """VARS-D with atoms that are normalised one by one and copied for their transpose."""

    def atoms(self, q: Tensor) -> Tensor:
        """Return random features (B, H, N, M) of queries (B, H, N, D) made unit length, with every constant factor."""
        directions = self.mixer.rand_matrix
        unit = F.normalize(q * self.mixer.head_dim**-0.25, dim=-1)
        exponent = unit @ directions - unit.norm(dim=-1, keepdim=True) ** 2 / 2
        return exponent.exp() / directions.shape[-1] ** 0.5

    def mix(self, q: Tensor, v: Tensor) -> Tensor:
        """Mix queries and values (B, H, N, D) -> (B, H, N, D)."""
        mixer = self.mixer
        atoms = F.normalize(self.atoms(q), dim=-2)
        transposed = atoms.clone().transpose(-2, -1)
        gram, drive = transposed @ atoms, transposed @ v
        largest = gram.norm(p=1, dim=-1).max(dim=-1)[0].detach()[..., None, None] + 1
        lipschitz, lam = largest / mixer.learned_L, mixer.learned_lam * mixer.lam
        gram = mixer.learned_k[None, None] @ gram @ mixer.learned_k
        codes = drive.sign() * F.gelu(drive.abs() - lam)
        for _ in range(mixer.steps):
            codes = codes - (gram @ codes - drive) / lipschitz
            codes = codes.sign() * F.gelu(codes.abs() - lam / lipschitz)
        return atoms @ codes


class ReleasedVarsSD(ReleasedVarsD):
    """VARS-SD with the static table repeated for every sample beside the random features."""

    def atoms(self, q: Tensor) -> Tensor:
        """Return the random features and the table side by side, (B, H, N, 2 M)."""
        return torch.cat([super().atoms(q), self.mixer.kernel.repeat(len(q), 1, 1, 1)], dim=-1)


class ReleasedVarsS(Released):
    """VARS-S with every pair of a channel's kernels multiplied at every frequency."""

    def mix(self, q: Tensor, v: Tensor) -> Tensor:
        """Mix values (B, H, N, D) -> (B, H, N, D); queries are not used."""
        mixer, (batch, heads, number, width) = self.mixer, v.shape
        kernel, kernel2 = torch.view_as_complex(mixer.kernel), torch.view_as_complex(mixer.kernel2)
        x = v.transpose(1, 2).reshape(batch, number, -1).transpose(-2, -1)  # (B, dim, N)
        pairs = torch.einsum("cjixy,ckixy->cjkxy", kernel, kernel.conj())
        drive = self.convolve(x, kernel)
        codes = drive.sign() * (drive.abs() - mixer.lam).relu()
        lipschitz = mixer.L.repeat_interleave(kernel.shape[1])[None, :, None]
        for _ in range(mixer.steps):
            codes = codes - (self.convolve(codes, pairs) - drive) / lipschitz
            codes = codes.sign() * (codes.abs() - mixer.lam / lipschitz).relu()
        decoded = self.convolve(codes, kernel.conj().transpose(1, 2))
        return self.convolve(decoded, kernel2).reshape(batch, heads, width, number).transpose(-2, -1)

    def convolve(self, x: Tensor, spectra: Tensor) -> Tensor:
        """Convolve signals (B, dim in, N) by spectra (dim, out, in, height, width // 2 + 1) to (B, dim out, N)."""
        batch, _, number = x.shape
        signals = x.reshape(batch, len(spectra), 1, spectra.shape[2], *self.mixer.grid)
        mixed = (torch.fft.rfftn(signals, dim=(-2, -1), norm="ortho") * spectra[None]).sum(dim=3)
        back = torch.fft.irfftn(mixed, s=self.mixer.grid, dim=(-2, -1), norm="ortho")
        return back.reshape(batch, -1, number)
