"""Time UPerNet with our ViT against the same network built by mmsegmentation alone: forward pass and training step.

python -m benchmarks.semantic [--pairs 5] [--size 512] [--embed-dim 192] [--batch 2] [--device cpu]
"""

import argparse

import torch
from torch import nn

from attention_zoo.mmseg import build_part, import_mmseg
from attention_zoo.models import build_backbone
from attention_zoo.models.segmentor import Segmentor
from benchmarks.timing import Case, compare

CLASSES = 21


def ours(dim: int, side: int, mixer: str) -> Segmentor:
    """Return a segmentor of our ViT of 12 blocks with a mixer, UPerNet and the auxiliary head."""
    size = {"embed_dim": dim, "depth": 12, "num_heads": dim // 64}
    backbone = build_backbone("vit_base_patch16_224", mixer=mixer, image_size=(side, side), model_args=size)
    upper = {"type": "UPerHead", "channels": 512, "pool_scales": (1, 2, 3, 6)}
    return Segmentor(backbone, CLASSES, upper, {"type": "FCNHead", "channels": 256, "num_convs": 1})


def theirs(dim: int, side: int) -> nn.Module:
    """Return the same network by mmsegmentation: its VisionTransformer in its EncoderDecoder."""
    import_mmseg()
    norm, everything = {"type": "BN"}, [0, 1, 2, 3]
    backbone = {
        "type": "VisionTransformer",
        "img_size": (side, side),
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


def step(losses: dict[str, torch.Tensor], model: nn.Module) -> None:
    """Compute the gradients of the sum of the losses, then clear them."""
    sum(value.sum() for name, value in losses.items() if "loss" in name).backward()
    model.zero_grad()


def main() -> None:
    """Read the command line, time both networks and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--embed-dim", type=int, default=192)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    mine = ours(args.embed_dim, args.size, "DotProduct").to(args.device)
    other = theirs(args.embed_dim, args.size).to(args.device)
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    image = torch.randn(args.batch, 3, args.size, args.size, device=args.device)
    mask = torch.randint(0, CLASSES, (args.batch, args.size, args.size), device=args.device)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=one[None])) for one in mask]
    metas = [{"img_shape": (args.size, args.size)}] * args.batch
    with torch.no_grad():
        mine.eval(), other.eval()
        forward = Case("forward, ours / mmseg", lambda: mine(image), lambda: other.encode_decode(image, metas), "<= 1")
        compare([forward], args.pairs, args.device)
    mine.train(), other.train()
    training = Case(
        "training step, ours / mmseg",
        lambda: step(mine.losses(image, mask), mine),
        lambda: step(other.loss(image, samples), other),
        "<= 1",
    )
    compare([training], args.pairs, args.device)


if __name__ == "__main__":
    main()
