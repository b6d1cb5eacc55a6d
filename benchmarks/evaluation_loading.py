"""Measure how far evaluation overlaps the loading of segmentation data: a pass with workers against one without.

    python benchmarks/evaluation_loading.py [--pairs 5] [--images 64] [--workers 1]

Without workers a pass takes the time of loading plus that of the model; one that overlaps completely takes the longer
of both, so that the first ratio can come down to the larger of the second and one minus the second. It needs a core for
each process. The scenes are generated.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

import timm
import torch
from jsonargparse import auto_cli
from timing import Case, compare

from datamodules import Shapes

SIZE = (144, 192)


def main(pairs: int = 5, images: int = 64, workers: int = 1) -> None:
    """Time both cases and print a table.

    Args:
        pairs: the number of interleaved repetitions.
        images: the number of images in the test split.
        workers: the number of processes that load.
    """
    torch.set_num_threads(1)
    model = timm.create_model("vit_tiny_patch16_224", img_size=SIZE).eval()
    overlapped, plain = (loader(images, number) for number in (workers, 0))
    compare(
        [
            Case(
                "with workers / without", partial(evaluate, model, overlapped), partial(evaluate, model, plain), "< 1"
            ),
            Case("loading / evaluation, without", partial(list, plain), partial(evaluate, model, plain), ""),
        ],
        pairs,
    )


def loader(images: int, workers: int) -> Iterable[dict[str, Any]]:
    """Return a loader of the test split of generated scenes."""
    data = Shapes(scenes=(1, 1, images), image_size=SIZE, batch_size=8, num_workers=workers)
    data.setup("test")
    return data.test_dataloader()


@torch.inference_mode()
def evaluate(model: torch.nn.Module, batches: Iterable[dict[str, Any]]) -> None:
    """Run the model on every batch of images."""
    for batch in batches:
        model(batch["image"])


if __name__ == "__main__":
    auto_cli(main)
