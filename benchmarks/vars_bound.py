"""Time what a training step of a VARS mixer cannot do without, over timm's attention: the bound of `vars`' ratios.

    OMP_NUM_THREADS=1 python benchmarks/vars_bound.py [--pairs 30] [--batch 4] [--side 14]

That is its projections, convolutions and matrix products, forwards and backwards, each in the quickest form that is
known here; thresholds, sums and norms are left out. Between the bound and the whole mixer lie passes over the codes,
which a compiler may join into fewer, and calls. Times are CPU seconds of this process.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from jsonargparse import auto_cli
from timing import Case, backward, compare
from timm.layers import Attention
from torch import Tensor, nn

import attention_zoo as az
from attention_zoo.functional.dictionaries import gram
from attention_zoo.functional.operators import Operator, operators
from attention_zoo.functional.solution import MOST_AT_ONCE
from attention_zoo.mixers.vars import VarsD, VarsSD

WIDTH, HEADS = 192, 3
EACH = WIDTH // HEADS


def main(pairs: int = 30, batch: int = 4, side: int = 14, device: str = "cpu") -> None:
    """Time all cases and print a table.

    Args:
        pairs: the number of interleaved repetitions.
        batch: the number of sequences of tokens in a call.
        side: the side of the grid, whose square is the number of tokens.
        device: the device to run on.
    """
    compare(cases(batch, side, device), pairs, device, cpu_time=True)


def cases(batch: int, side: int, device: str) -> Iterator[Case]:
    """Yield the arithmetic of each mixer over timm's attention, and the whole mixer over its arithmetic."""
    for name in ("VarsS", "VarsSD", "VarsD"):
        torch.manual_seed(0)
        x = torch.randn(batch, side**2, WIDTH, device=device)
        mixer = az.create_mixer(name, WIDTH, HEADS, grid=(side, side)).to(device)
        attention = Attention(WIDTH, HEADS).to(device)
        arithmetic = products_of(mixer, x)
        title = f"{name}, arithmetic alone / timm's attention, {side**2:,} tokens"
        yield Case(title, arithmetic, backward(attention, x), "")
        yield Case(f"{name} / its arithmetic", backward(mixer, x), arithmetic, "1")


def products_of(mixer: nn.Module, x: Tensor) -> Callable[[], None]:
    """Return a function that carries out the projections and products of a training step on tokens x (B, N, C)."""
    linears = [layer for layer in mixer.modules() if isinstance(layer, nn.Linear)]
    size = len(x) if isinstance(mixer, VarsD) else max(1, MOST_AT_ONCE // codes_of_a_sample(mixer, x))
    q, v = torch.randn(2, size, HEADS, x.shape[1], EACH, device=x.device).unbind()
    inside = gram_steps(mixer, q, v) if isinstance(mixer, VarsD) else applications(mixer, q, v)
    made = mixed_features(mixer, q) if isinstance(mixer, VarsSD) else lambda: None

    def carry_out() -> None:
        for linear in linears:
            linear(x).backward(torch.ones_like(x[..., :1]).expand(-1, -1, linear.out_features))
        for _ in range(0, len(x), size):
            made()
            inside()

    return carry_out


def codes_of_a_sample(mixer: nn.Module, x: Tensor) -> int:
    """Return how many codes a sample of x (B, N, C) has."""
    like = torch.zeros(1, HEADS, x.shape[1], EACH, device=x.device)
    return mixer.form.dictionaries(mixer, like, like)[0].num_atoms * WIDTH


def applications(mixer: nn.Module, q: Tensor, v: Tensor) -> Callable[[], None]:
    """Return a function that applies P, A and their transposes, and takes the gradients by them, as often as a step."""
    with torch.no_grad():
        parts = [operators(whole, HEADS, EACH) for whole in mixer.form.dictionaries(mixer, q, v)]
        values = v.transpose(1, 2).flatten(2).contiguous()
        codes = [[part.encode(values) for part in whole] for whole in parts]

    @torch.no_grad()
    def carry_out() -> None:
        for whole, own, times in zip(parts, codes, (1, mixer.steps), strict=True):
            _apply(whole, own, values, 2 * times)

    return carry_out


def _apply(parts: Sequence[Operator], codes: Sequence[Tensor], values: Tensor, times: int) -> None:
    """Encode, decode and add to the gradients ``times`` times, once for either direction of each use."""
    for part, own in zip(parts, codes, strict=True):
        gradient = part.gradient(len(values))
        for _ in range(times):
            part.decode(own)
            part.encode(values)
            if gradient is not None:
                gradient.add(values, own)


def mixed_features(mixer: nn.Module, q: Tensor) -> Callable[[], None]:
    """Return a function that takes the products that VARS-SD makes its atoms by, and autograd's for the gradients."""
    q = q.requires_grad_()
    gamma, _, _ = mixer.learned(q)

    def carry_out() -> None:
        atoms = q @ mixer.rand_matrix
        products, mixed = gram(atoms), atoms @ gamma
        torch.autograd.backward((products, mixed), (products.detach(), mixed.detach()))

    return carry_out


def gram_steps(mixer: nn.Module, q: Tensor, v: Tensor) -> Callable[[], None]:
    """Return a function that takes the products of VARS-D, and autograd's for their gradients."""
    q, v = (x.requires_grad_() for x in (q, v))
    gamma, _, _ = mixer.learned(q)

    def carry_out() -> None:
        atoms = q @ mixer.rand_matrix
        contraction = gamma.mT @ (gram(atoms) @ gamma)
        codes = atoms.mT @ v
        for _ in range(mixer.steps):
            codes = contraction @ codes
        (atoms @ codes).backward(v.detach())

    return carry_out


if __name__ == "__main__":
    auto_cli(main)
