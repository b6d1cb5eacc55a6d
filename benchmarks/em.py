"""Measure speed and memory of the probabilistic reading against its naive form with N x N responsibilities.

    python benchmarks/em.py [--pairs 5] [--large false]

1. One iteration of key adaptation with the read-out, and value propagation with the read-out: naive / fast, and fast
   over one fused attention. Both forms are checked to agree.
2. Peak memory above the inputs, each in a process of its own: key adaptation over 16,384 tokens, and full attention
   with five propagations over 65,536, of which the time is given too (the naive form needs 17 GB a matrix).
3. Peak memory of the backward pass of key adaptation over 16,384 tokens, beside that of plain fused attention.
"""

import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from jsonargparse import auto_cli
from rich.console import Console
from timing import Case, compare
from torch import Tensor

from attention_zoo.analysis.timing import peak_memory
from attention_zoo.functional.em import adapt_keys, infer_values, propagate_values


def main(pairs: int = 5, large: bool = True) -> None:
    """Time all cases, measure memory, and print the results.

    Args:
        pairs: the number of interleaved repetitions.
        large: whether to measure memory over many tokens too.
    """
    compare([*key_adaptation_cases(), *propagation_cases()], pairs)
    if large:
        for name, work in (("key adaptation, 16,384 tokens, 4 x 32", adapt_16k), ("65,536 tokens", propagate_65k)):
            seconds, megabytes = in_own_process(work)
            Console().print(f"{name}: {seconds:.2f} s, {megabytes:.0f} MB above its inputs")
        ours, plain = backward_16k()
        Console().print(
            f"forward and backward, 16,384 tokens of one head of 32: key adaptation {ours:.1f} MB, "
            f"plain attention {plain:.1f} MB, ratio {ours / plain:.2f}, goal <= 3"
        )


def heads(batch: int, num_heads: int, tokens: int, width: int, number: int = 3) -> tuple[Tensor, ...]:
    """Return ``number`` random tensors (batch, num_heads, tokens, width), such as queries, keys and values."""
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(batch, num_heads, tokens, width, generator=generator) for _ in range(number))


def key_adaptation_cases() -> Iterator[Case]:
    """Yield the cases of key adaptation: 3,136 tokens, batch 2, 4 heads x 32."""
    q, k, v = heads(2, 4, 3136, 32)

    def fast(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return infer_values(q, adapt_keys(q, k, alpha=32**-0.5), v, alpha=32**-0.5)

    def naive(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        w = responsibilities(q, k, 32**-0.5)
        return responsibilities(q, w.mT @ q / w.sum(-2)[..., None], 32**-0.5) @ v

    yield from cases("key adaptation, 3,136 tokens", naive, fast, (q, k, v), "> 6", "3.2")


def propagation_cases() -> Iterator[Case]:
    """Yield the cases of value propagation: 4,096 tokens, 20 of them fixed, 5 iterations, 1 head x 32, 2 values."""
    q, k, _ = heads(1, 1, 4096, 32)
    v = heads(1, 1, 4096, 2, 1)[0]
    index = torch.arange(20) * 200
    fixed_values = torch.randn(1, 1, 20, 2)
    fixed, is_fixed = torch.zeros(1, 1, 4096, 2), torch.zeros(1, 1, 4096, 1)
    fixed[:, :, index], is_fixed[:, :, index] = fixed_values, 1.0
    alpha, beta, theta = 32**-0.5, 0.1, 1.0

    def fast(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rest = {"alpha": alpha, "beta": beta, "prior_precision": theta, "iterations": 5}
        means = propagate_values(q, k, v, index, fixed_values, condition_on_values=False, **rest)
        return infer_values(q, k, means, alpha=alpha, beta=beta)

    def naive(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        for _ in range(5):
            w = responsibilities(q, k, alpha, v, beta) * is_fixed
            v = (theta * v + beta * (w.mT @ fixed)) / (theta + beta * w.sum(-2)[..., None])
        return responsibilities(q, k, alpha, v, beta) @ v

    yield from cases("value propagation, 4,096 tokens", naive, fast, (q, k, v), "> 60", "1.1")


def responsibilities(q: Tensor, k: Tensor, alpha: float, v: Tensor | None = None, beta: float = 0.0) -> Tensor:
    """Return the responsibilities (..., N queries, N keys), computed term by term as the released layer does.

    They are Eq. 5 with the densities of Eq. 8 and the magnitude prior of Eq. 10.
    """
    log_joint = q.square().sum(-1)[..., None] + k.square().sum(-1)[..., None, :] - 2 * (q @ k.mT)
    log_joint = -alpha / 2 * log_joint + alpha / 2 * k.square().sum(-1)[..., None, :]
    if v is not None:
        log_joint = log_joint + beta / 2 * v.square().sum(-1)[..., None, :]
    weights = torch.exp(log_joint - log_joint.amax(-1, keepdim=True))
    return weights / weights.sum(-1, keepdim=True)


def cases(
    name: str, naive: Callable, fast: Callable, inputs: tuple[Tensor, ...], goal: str, passes: str
) -> Iterator[Case]:
    """Yield naive over fast, and fast over one fused attention, forward and with the gradients of all inputs."""
    torch.testing.assert_close(fast(*inputs), naive(*inputs), rtol=1e-4, atol=1e-5)

    def fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, F.pad(v, (0, q.shape[-1] - v.shape[-1])))

    for way, run in (("forward", forward), ("forward + backward", backward)):
        yield Case(f"{name}, {way}: naive / fast", run(naive, inputs), run(fast, inputs), goal)
        yield Case("the same: fast / one fused pass", run(fast, inputs), run(fused, inputs), f"toward {passes}")


def forward(function: Callable, inputs: tuple[Tensor, ...]) -> Callable[[], None]:
    """Return a call of the function without gradients."""

    def call() -> None:
        with torch.inference_mode():
            function(*inputs)

    return call


def backward(function: Callable, inputs: tuple[Tensor, ...]) -> Callable[[], None]:
    """Return a call of the function that also computes the gradients of all inputs."""

    def call() -> None:
        function(*(x.detach().requires_grad_() for x in inputs)).sum().backward()

    return call


def adapt_16k() -> tuple[float, float]:
    """Return seconds and megabytes of one key adaptation with the read-out over 16,384 tokens."""
    q, k, v = heads(1, 4, 16384, 32)
    return measured(lambda: infer_values(q, adapt_keys(q, k, alpha=32**-0.5), v, alpha=32**-0.5))


def backward_16k() -> tuple[float, float]:
    """Return the peak megabytes of a forward and backward pass: of key adaptation with the read-out, of attention."""

    def adapted(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return infer_values(q, adapt_keys(q, k, alpha=32**-0.5), v, alpha=32**-0.5)

    inputs = heads(1, 1, 16384, 32)
    ours, plain = (peak_memory(backward(function, inputs)) for function in (adapted, F.scaled_dot_product_attention))
    return ours / 2**20, plain / 2**20


def propagate_65k() -> tuple[float, float]:
    """Return seconds and megabytes of five value propagations with the read-out over 65,536 tokens."""
    q, k, _ = heads(1, 1, 65536, 32)
    v = heads(1, 1, 65536, 2, 1)[0]
    index, values = torch.arange(20) * 3000, torch.randn(1, 1, 20, 2)

    def work() -> Tensor:
        rest = {"alpha": 32**-0.5, "beta": 0.1}
        means = propagate_values(q, k, v, index, values, prior_precision=1.0, iterations=5, **rest)
        return infer_values(q, k, means, **rest)

    return measured(work)


def measured(work: Callable[[], Tensor]) -> tuple[float, float]:
    """Return the seconds of one call, and by how many megabytes it raised the process's peak memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    with torch.inference_mode():
        work()
    return time.perf_counter() - start, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def in_own_process(work: Callable[[], tuple[float, float]]) -> tuple[float, float]:
    """Return the result of the work, done in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work)


if __name__ == "__main__":
    auto_cli(main)
