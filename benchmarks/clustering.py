"""Measure the cost of the k-means step against its form as products with a one-hot matrix.

    python benchmarks/clustering.py [--pairs 30] [--batch 1] [--repeats 5]

There are 128 centres and 128 x 128 pixels of width 256, as in the mask decoders. Gradients are those of the values,
the only ones that the step passes on in kMaX-DeepLab. A call repeats what it times, so that neither form pays for what
the other left in the cache; with --repeats 1 both do, and the shorter one is affected more.
"""

from collections.abc import Callable, Iterator

import torch
from jsonargparse import auto_cli
from timing import Case, compare
from torch import Tensor

from attention_zoo.functional import clustering

CENTRES, PIXELS, WIDTH = 128, 128 * 128, 256


def main(pairs: int = 30, batch: int = 1, repeats: int = 5, device: str = "cpu") -> None:
    """Time all cases and print a table.

    Args:
        pairs: the number of interleaved repetitions.
        batch: the number of images.
        repeats: the number of updates or steps in a call.
        device: the device to run on.
    """
    compare([*update_cases(batch, repeats, device), *step_cases(batch, repeats, device)], pairs, device)


def update_cases(batch: int, repeats: int, device: str) -> Iterator[Case]:
    """Yield the cases of the update: from values and the index of each pixel's centre to the sums of each centre."""
    values = torch.randn(batch, 1, PIXELS, WIDTH, device=device)
    index = torch.randint(CENTRES, (batch, 1, PIXELS), device=device)

    def ours(values: Tensor) -> Tensor:
        return clustering.collect(values, index, CENTRES)

    def product(values: Tensor) -> Tensor:
        return one_hot_product(values, index)

    yield Case("update, forward", forward(ours, values, repeats), forward(product, values, repeats), "< 0.1")
    yield Case(
        "update, forward + backward", backward(ours, values, repeats), backward(product, values, repeats), "< 0.1"
    )


def step_cases(batch: int, repeats: int, device: str) -> Iterator[Case]:
    """Yield the cases of the whole step: affinity, assignment, update."""
    centres = torch.randn(batch, 1, CENTRES, WIDTH, device=device)
    pixels, values = torch.randn(2, batch, 1, PIXELS, WIDTH, device=device)

    def ours(values: Tensor) -> Tensor:
        index = clustering.hard_assignment(clustering.affinity(centres, pixels))
        return clustering.collect(values, index, CENTRES)

    def product(values: Tensor) -> Tensor:
        return one_hot_product(values, (centres @ pixels.mT).argmax(-2))

    yield Case("step, forward", forward(ours, values, repeats), forward(product, values, repeats), "< 0.67")
    yield Case(
        "step, forward + backward", backward(ours, values, repeats), backward(product, values, repeats), "< 0.67"
    )


def one_hot_product(values: Tensor, index: Tensor) -> Tensor:
    """Return the update (B, heads, CENTRES, WIDTH) as the released layer does: a one-hot matrix times the values."""
    one_hot = values.new_zeros(*index.shape[:-1], CENTRES, index.shape[-1]).scatter_(-2, index[..., None, :], 1.0)
    return torch.einsum("bhlm,bhmd->bhld", one_hot, values)


def forward(update: Callable[[Tensor], Tensor], values: Tensor, repeats: int) -> Callable[[], None]:
    """Return a call that updates ``repeats`` times without gradients."""

    def call() -> None:
        with torch.inference_mode():
            for _ in range(repeats):
                update(values)

    return call


def backward(update: Callable[[Tensor], Tensor], values: Tensor, repeats: int) -> Callable[[], None]:
    """Return a call that computes update and gradient of the values ``repeats`` times, for a gradient of ones."""
    values = values.clone().requires_grad_()
    gradient = torch.ones_like(update(values))

    def call() -> None:
        for _ in range(repeats):
            torch.autograd.grad(update(values), values, gradient)

    return call


if __name__ == "__main__":
    auto_cli(main)
