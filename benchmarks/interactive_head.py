"""Measure the speed of a click: the cost of the head beside the encoder, and value propagation by full attention.

    python benchmarks/interactive_head.py [--pairs 5] [--size 256]

1. One more click where clicks do not enter the encoder: the call of the head over the whole model's, for full and axial
   corrective attention, with and without value propagation.
2. Full attention over 128 x 128 units, 1 head x 32, 2 values: five propagations of 20 clicks and the read-out, over the
   read-out alone, one fused attention; and the head's seconds for that click, by the clock and of all cores together.
"""

import time
from collections.abc import Iterator
from functools import partial

import torch
from jsonargparse import auto_cli
from timing import Case, compare

from attention_zoo.clicks import Clicks
from attention_zoo.functional.em import infer_values, propagate_values
from attention_zoo.mixers.probabilistic import Probabilistic
from attention_zoo.models import build_backbone
from attention_zoo.models.interactive import CorrectiveAttention, InteractiveModel

ALPHA, BETA = 32**-0.5, 0.1


def main(pairs: int = 5, size: int = 256) -> None:
    """Time all cases and a click of the head, and print the results.

    Args:
        pairs: the number of interleaved repetitions.
        size: the height and width of the images, in pixels.
    """
    compare([*head_cases(size), propagation_case()], pairs)
    mixer = partial(Probabilistic, beta=BETA, value_propagation=5)
    head = CorrectiveAttention(64, attention="full", mixer=mixer).eval()
    call = torch.inference_mode()(partial(head, torch.randn(1, 64, 32, 32), some_clicks(128), (128, 128)))
    call()
    start, used = time.perf_counter(), time.process_time()
    for _ in range(pairs):
        call()
    seconds, used = (time.perf_counter() - start) / pairs, (time.process_time() - used) / pairs
    print(f"a click, head of 128 x 128 units, 5 propagations: {seconds:.2f} s, {used:.2f} s of all cores (goal 0.5 s)")


def some_clicks(size: int, number: int = 20) -> Clicks:
    """Return clicks at random places of one square image."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(1, number, 2, generator=generator) * size
    return Clicks(points, torch.randint(0, 2, (1, number), generator=generator))


def head_cases(size: int) -> Iterator[Case]:
    """Yield the cases of BoTNet-50 with full and axial heads, with and without value propagation."""
    for attention, stride in (("full", 4), ("axial", 1)):
        for steps in (0, 5):
            mixer = partial(Probabilistic, beta=BETA, value_propagation=steps)
            head = partial(CorrectiveAttention, attention=attention, stride=stride, mixer=mixer)
            backbone = build_backbone("botnet50", mixer="Probabilistic", image_size=(size, size))
            model = InteractiveModel(backbone, head=head, clicks_in="head").eval()
            image, clicks = torch.randn(1, 3, size, size), some_clicks(size)
            with torch.inference_mode():
                features = model.encode(image, clicks)
            name = f"{attention}, stride {stride}, {steps} propagations: another click / the first"
            first = torch.inference_mode()(partial(model.decode, features, clicks))
            yield Case(name, first, torch.inference_mode()(partial(model, image, clicks)), "< 1")


def propagation_case() -> Case:
    """Return the case of value propagation over 16,384 units with 20 clicks, over the read-out alone."""
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 128 * 128, 32, generator=generator)
    v, values = (torch.randn(1, 1, number, 2, generator=generator) for number in (128 * 128, 20))
    index = torch.randint(0, 128 * 128, (1, 20), generator=generator)

    def propagated() -> torch.Tensor:
        args = {"alpha": ALPHA, "beta": BETA}
        means = propagate_values(q, k, v, index, values, prior_precision=1.0, iterations=5, **args)
        return infer_values(q, k, means, **args)

    return Case(
        "128 x 128 units, 5 propagations / read-out", propagated, lambda: infer_values(q, k, v, alpha=ALPHA), "< 1.5"
    )


if __name__ == "__main__":
    auto_cli(main)
