"""Cost of the k-means step, against its form as products with a one-hot matrix.

    python benchmarks/clustering.py [--pairs 30] [--batch 1] [--repeats 5]

128 centres, 128 x 128 pixels, width 256, as in the mask decoders. Gradients are those of the values, all that the step
passes on in kMaX-DeepLab. A call repeats what it times, so that neither pays for what the other left in the cache; with
--repeats 1 both do, and the shorter one feels it more.
"""

from collections.abc import Callable, Iterator

import torch
from jsonargparse import auto_cli
from timing import Case, compare
from torch import Tensor

from attention_zoo.functional import clustering

CENTRES, PIXELS, WIDTH = 128, 128 * 128, 256


def main(pairs: int = 30, batch: int = 1, repeats: int = 5, device: str = "cpu") -> None:
    """Time and print.

    Args:
        pairs: interleaved repetitions.
        batch: images.
        repeats: updates or steps a call.
        device: where to run.
    """
    compare([*update_cases(batch, repeats, device), *step_cases(batch, repeats, device)], pairs, device)


def update_cases(batch: int, repeats: int, device: str) -> Iterator[Case]:
    """From values and the index of each pixel's centre to what the centres collect."""
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
    """The whole step: affinity, assignment, update."""
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
    """The update as the released layer has it: a matrix of zeros and ones times the values."""
    one_hot = values.new_zeros(*index.shape[:-1], CENTRES, index.shape[-1]).scatter_(-2, index[..., None, :], 1.0)
    return torch.einsum("bhlm,bhmd->bhld", one_hot, values)


def forward(update: Callable[[Tensor], Tensor], values: Tensor, repeats: int) -> Callable[[], None]:
    """Calls without gradients."""

    def call() -> None:
        with torch.inference_mode():
            for _ in range(repeats):
                update(values)

    return call


def backward(update: Callable[[Tensor], Tensor], values: Tensor, repeats: int) -> Callable[[], None]:
    """Calls and the gradient of the values, for a given gradient of the update."""
    values = values.clone().requires_grad_()
    gradient = torch.ones_like(update(values))

    def call() -> None:
        for _ in range(repeats):
            torch.autograd.grad(update(values), values, gradient)

    return call


if __name__ == "__main__":
    auto_cli(main)
