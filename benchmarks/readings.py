"""Measure the readings that are switches of one mixture, and those beside it, against dot-product attention.

    python benchmarks/readings.py [--pairs 10] [--batch 4] [--tokens 196 784]

What a reading costs at the least is the number of fused calls that it is made of, the goal beside its ratio; those
that need the weights form blocks of them, which on a CPU takes longer, and some are linear in the tokens. On a CPU
times are CPU seconds of this process.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jsonargparse import auto_cli
from timing import Case, backward, compare, forward

import attention_zoo as az

DIM, HEADS = 192, 3


class Reading(NamedTuple):
    """A mixer with options, and the number of fused attentions that it is made of; None if it is of none."""

    name: str
    options: dict[str, Any]
    calls: float | None


READINGS = (
    Reading("Twicing", {}, 2),
    Reading("Hopfield", {"steps": 1}, 2),
    Reading("Hopfield", {"steps": 2}, 3),
    Reading("Sinkhorn", {"iterations": 3}, 3),
    Reading("DoublyNormalized", {}, 2),
    Reading("Probabilistic", {}, 1),
    Reading("Probabilistic", {"magnitude_prior": False}, 1),
    Reading("Probabilistic", {"key_adaptation": 1}, 3),
    Reading("Elliptical", {}, 1),
    Reading("MixtureOfGaussianKeys", {}, 2),
    Reading("RobustKernel", {}, None),
    Reading("Pro", {"penalty": "l1"}, None),
    Reading("Pro", {"penalty": "huber"}, None),
    Reading("CRATE", {}, 1),
    Reading("ToST", {}, None),
    Reading("EnergyTransformer", {}, 2),
    Reading("Primal", {}, None),
    Reading("Kuramoto", {}, None),
    Reading("RobustPCA", {}, None),
)


def main(
    pairs: int = 10, batch: int = 4, tokens: list[int] | None = None, threads: int = 1, device: str = "cpu"
) -> None:
    """Time all cases and print a table.

    Args:
        pairs: the number of interleaved repetitions.
        batch: the number of sequences in a call.
        tokens: square numbers of tokens (default 196 and 784).
        threads: threads of torch.
        device: the device to run on.
    """
    torch.set_num_threads(threads)
    compare(list(cases(tokens or [196, 784], batch, device)), pairs, device, cpu_time=device == "cpu")


def cases(counts: list[int], batch: int, device: str) -> Iterator[Case]:
    """Yield the cases of every reading over `DotProduct` at every number of tokens."""
    for number in counts:
        side = math.isqrt(number)
        plain = az.create_mixer("DotProduct", DIM, HEADS).to(device)
        x = torch.randn(batch, number, DIM, device=device)
        for name, options, calls in READINGS:
            mixer = az.create_mixer(name, DIM, HEADS, grid=(side, side), **options).to(device)
            shown = ", ".join(f"{key}={value}" for key, value in options.items())
            least = "linear" if az.mixer_info(name).complexity == "N" else "weights"
            title, goal = f"{name}({shown}), {number} tokens", least if calls is None else f"{calls} x"
            yield Case(f"{title}, forward", forward(mixer, x), forward(plain, x), goal)
            yield Case(f"{title}, with backward", backward(mixer, x), backward(plain, x), goal)


if __name__ == "__main__":
    auto_cli(main)
