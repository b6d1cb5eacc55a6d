"""Cost of the papers' models against the plain ones they are made of.

    python benchmarks/models.py [--pairs 15] [--batch 4]

AbSViT-Ti at 224 px over timm's ViT-Ti. Two passes, the decoders and the signal's projection are 2.2 times the
arithmetic; the released code takes 2.55 times.
"""

from collections.abc import Iterator

import timm
import torch
from jsonargparse import auto_cli
from timing import Case, compare, forward

import attention_zoo  # noqa: F401  registers the models


def main(pairs: int = 15, batch: int = 4, device: str = "cpu") -> None:
    """Time and print.

    Args:
        pairs: interleaved repetitions.
        batch: images a call.
        device: where to run.
    """
    compare(cases(batch, device), pairs, device)


def cases(batch: int, device: str) -> Iterator[Case]:
    """AbSViT-Ti over ViT-Ti."""
    torch.manual_seed(0)
    x = torch.randn(batch, 3, 224, 224, device=device)
    first, second = (timm.create_model(f"{name}_tiny_patch16_224").to(device) for name in ("absvit", "vit"))
    yield Case("AbSViT-Ti / ViT-Ti, 224 px, forward", forward(first, x), forward(second, x), "< 2.3")


if __name__ == "__main__":
    auto_cli(main)
