"""UPerNet with our ViT against the same network built by mmsegmentation alone, interleaved, at 512 x 512 pixels.

    python -m benchmarks.semantic [--repeats 3] [--embed-dim 192] [--batch 2]

Forward pass and training step (losses and gradients), seconds of each and the ratio ours / mmsegmentation's.
"""

import argparse
from collections.abc import Callable
from statistics import median
from time import perf_counter

import torch
from torch import nn

from attention_zoo.mmseg import build_part, import_mmseg
from attention_zoo.models import build_backbone
from attention_zoo.models.segmentor import Segmentor

CLASSES = 21


def ours(dim: int, mixer: str) -> Segmentor:
    """A ViT of 12 blocks with a mixer under UPerNet and the auxiliary head."""
    size = {"embed_dim": dim, "depth": 12, "num_heads": dim // 64}
    backbone = build_backbone("vit_base_patch16_224", mixer=mixer, image_size=(512, 512), model_args=size)
    upper = {"type": "UPerHead", "channels": 512, "pool_scales": (1, 2, 3, 6)}
    return Segmentor(backbone, CLASSES, upper, {"type": "FCNHead", "channels": 256, "num_convs": 1})


def theirs(dim: int) -> nn.Module:
    """The same by mmsegmentation: its VisionTransformer in its EncoderDecoder."""
    import_mmseg()
    norm, everything = {"type": "BN"}, [0, 1, 2, 3]
    backbone = {
        "type": "VisionTransformer",
        "img_size": (512, 512),
        "embed_dims": dim,
        "num_layers": 12,
        "num_heads": dim // 64,
        "out_indices": (2, 5, 8, 11),
        "final_norm": True,
        "norm_cfg": {"type": "LN", "eps": 1e-6},
    }
    given = {"num_classes": CLASSES, "norm_cfg": norm}
    config = {
        "type": "mmseg.EncoderDecoder",
        "backbone": backbone,
        "decode_head": {
            "type": "UPerHead",
            "in_channels": [dim] * 4,
            "in_index": everything,
            "channels": 512,
            "pool_scales": (1, 2, 3, 6),
            **given,
        },
        "auxiliary_head": {"type": "FCNHead", "in_channels": dim, "in_index": 3, "channels": 256, "num_convs": 1}
        | given,
    }
    return build_part("MODELS", "model", config)


def seconds(run: Callable[[], None]) -> float:
    """Of one call, on this machine's CPU."""
    start = perf_counter()
    run()
    return perf_counter() - start


def compare(name: str, left: Callable[[], None], right: Callable[[], None], repeats: int) -> None:
    """Print the medians of interleaved calls and of their ratios."""
    left(), right()
    pairs = [(seconds(left), seconds(right)) for _ in range(repeats)]
    ratio = median(a / b for a, b in pairs)
    print(f"{name:16} {median(a for a, _ in pairs):8.3f} {median(b for _, b in pairs):8.3f}   x{ratio:.2f}", flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--embed-dim", type=int, default=192)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=512)
    args = parser.parse_args()
    from mmengine.structures import PixelData

    mine, other = ours(args.embed_dim, "DotProduct"), theirs(args.embed_dim)
    from mmseg.structures import SegDataSample

    image = torch.randn(args.batch, 3, args.size, args.size)
    mask = torch.randint(0, CLASSES, (args.batch, args.size, args.size))
    samples = [SegDataSample(gt_sem_seg=PixelData(data=one[None])) for one in mask]
    metas = [{"img_shape": (args.size, args.size)}] * args.batch

    def step(losses: dict[str, torch.Tensor], model: nn.Module) -> None:
        sum(value.sum() for name, value in losses.items() if "loss" in name).backward()
        model.zero_grad()

    print(f"{'':16} {'ours':>8} {'mmseg':>8}   ours / mmseg")
    with torch.no_grad():
        mine.eval(), other.eval()
        compare("forward", lambda: mine(image), lambda: other.encode_decode(image, metas), args.repeats)
    mine.train(), other.train()
    compare(
        "training step",
        lambda: step(mine.losses(image, mask), mine),
        lambda: step(other.loss(image, samples), other),
        args.repeats,
    )


if __name__ == "__main__":
    main()
