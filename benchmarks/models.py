"""Measure the cost of the papers' models against the plain models that they are made of.

    python benchmarks/models.py [--pairs 15] [--batch 4]

1. AbSViT-Ti at 224 px over timm's ViT-Ti. Two passes, the decoders and the signal's projection are 2.2 times the
   arithmetic; the released code takes 2.55 times.
2. RVT-Ti with the mixers of VARS as released, over the same with the authors' formulation of the mixer. Logits are
   compared first.
"""

import copy
from collections.abc import Iterator

import released_vars
import timm
import torch
from jsonargparse import auto_cli
from timing import Case, compare, forward
from torch import nn

from attention_zoo import SelfMixer


def main(pairs: int = 15, batch: int = 4, device: str = "cpu") -> None:
    """Time all cases and print a table.

    Args:
        pairs: the number of interleaved repetitions.
        batch: the number of images in a call.
        device: the device to run on.
    """
    compare(cases(batch, device), pairs, device)


def cases(batch: int, device: str) -> Iterator[Case]:
    """Yield AbSViT-Ti over ViT-Ti, and RVT-Ti over itself with the authors' formulation of each mixer."""
    torch.manual_seed(0)
    x = torch.randn(batch, 3, 224, 224, device=device)
    first, second = (timm.create_model(f"{name}_tiny_patch16_224").to(device) for name in ("absvit", "vit"))
    yield Case("AbSViT-Ti / ViT-Ti, 224 px, forward", forward(first, x), forward(second, x), "< 2.3")
    for name in ("DotProduct", "Performer", "VarsS", "VarsD", "VarsSD"):
        ours = timm.create_model("rvt_tiny", mixer=name, variant="released").to(device).eval()
        released = restated(ours, getattr(released_vars, f"Released{name}"))
        with torch.inference_mode():
            torch.testing.assert_close(ours(x), released(x), rtol=1e-2, atol=1e-2)  # codes near zero may change sign
        yield Case(f"RVT-Ti, {name}: ours / released, forward", forward(ours, x), forward(released, x), "<= 1")


def restated(model: nn.Module, formulation: type[released_vars.Released]) -> nn.Module:
    """Return a copy of a model with the same weights and another formulation of its mixers."""
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, SelfMixer):
            model.set_submodule(name, formulation(module))
    return model


if __name__ == "__main__":
    auto_cli(main)
