"""Cost of the mixers as ratios of things timed in one run, interleaved, so that a noisy machine hits both alike.

    python benchmarks/mixers.py [--pairs 30] [--batch 4]

1. A ViT-Ti at 224 px with `DotProduct` against timm's own, forward and forward + backward: goal at most 1.03.
2. The time of each mixer at 3,136 tokens over that at 196 (16 times as many): goal at most 1.2 x 16 = 19.2 for the
   linear ones, `VarsD` and `Performer`.
"""

import statistics
import time
from collections.abc import Callable

import timm
import torch
from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import attention_zoo as az


def main(pairs: int = 30, batch: int = 4, device: str = "cpu") -> None:
    """Time and print both tables.

    Args:
        pairs: interleaved repetitions.
        batch: images, or sequences of tokens, a call.
        device: where to run.
    """
    console = Console()
    table = Table(title=f"{torch.__version__}, {device}, {torch.get_num_threads()} threads, median of {pairs} pairs")
    for column in ("what", "numerator ms", "denominator ms", "ratio"):
        table.add_column(column)
    with console.status("timing"):
        for name, first, second in [*dot_product_pairs(batch, device), *growth_pairs(batch, device)]:
            times = interleaved((first, second), pairs, device)
            milliseconds = [statistics.median(t) * 1e3 for t in times]
            ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
            table.add_row(name, *(f"{m:.1f}" for m in milliseconds), f"{ratio:.3f}")
    console.print(table)


def dot_product_pairs(batch: int, device: str) -> list[tuple[str, Callable[[], None], Callable[[], None]]]:
    """ViT-Ti with `DotProduct` over ViT-Ti of timm."""
    torch.manual_seed(0)
    own = timm.create_model("vit_tiny_patch16_224").to(device)
    ours = az.swap_mixers(timm.create_model("vit_tiny_patch16_224").to(device), "DotProduct")
    x = torch.randn(batch, 3, 224, 224, device=device)
    return [
        ("ViT-Ti/16 224 px: DotProduct / timm, forward", forward(ours, x), forward(own, x)),
        ("ViT-Ti/16 224 px: DotProduct / timm, forward + backward", backward(ours, x), backward(own, x)),
    ]


def growth_pairs(batch: int, device: str) -> list[tuple[str, Callable[[], None], Callable[[], None]]]:
    """Each mixer at 3,136 tokens over itself at 196, width and heads of ViT-Ti."""
    found = []
    for name in az.list_mixers("self"):
        mixer = az.create_mixer(name, 192, 3, qkv_bias=True).to(device)
        many, few = (torch.randn(batch, n, 192, device=device) for n in (3136, 196))
        found.append((f"{name}: 3,136 / 196 tokens, forward", forward(mixer, many), forward(mixer, few)))
        found.append((f"{name}: 3,136 / 196 tokens, forward + backward", backward(mixer, many), backward(mixer, few)))
    return found


def forward(model: nn.Module, x: Tensor) -> Callable[[], None]:
    """A call of the model without gradients."""

    def call() -> None:
        with torch.inference_mode():
            model.eval()(x)

    return call


def backward(model: nn.Module, x: Tensor) -> Callable[[], None]:
    """A call of the model and the gradients of all its parameters."""

    def call() -> None:
        model.train().zero_grad()
        model(x).square().sum().backward()

    return call


def interleaved(calls: tuple[Callable[[], None], ...], repeats: int, device: str) -> list[list[float]]:
    """Seconds of each call, taken in turns after two rounds of warm-up."""
    times: list[list[float]] = [[] for _ in calls]
    for repeat in range(-2, repeats):
        for call, measured in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            if repeat >= 0:
                measured.append(time.perf_counter() - start)
    return times


if __name__ == "__main__":
    auto_cli(main)
