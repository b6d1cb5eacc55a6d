"""One training step with batches normalised over all processes; test_sync_norm runs it in several."""

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from tasks import SemanticSegmentation, SyncBatchNorm

TINY = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
HEADS = {"decode_head": {"channels": 8, "dropout_ratio": 0}, "auxiliary_head": {"channels": 8, "dropout_ratio": 0}}


class Step(torch.nn.Module):
    """What Lightning wraps: the forward pass is a training step."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, image, mask):
        losses = self.model.losses(image, mask)
        return sum(value.sum() for name, value in losses.items() if "loss" in name)


def train(rank, world):
    """Parameters and running statistics after a step on this process's share of the batch."""
    torch.manual_seed(0)
    task = SemanticSegmentation(num_classes=3, image_size=(32, 48), model_args=TINY, mixer="VarsD", **HEADS)
    step = Step(task.model)
    if world > 1:
        step = DistributedDataParallel(SyncBatchNorm().apply(step))
    optimizer = torch.optim.SGD(task.parameters(), lr=0.5)
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(4, 3, 32, 48, generator=generator) * torch.arange(1, 5).view(-1, 1, 1, 1)  # no two alike
    mask = torch.randint(0, 3, (4, 32, 48), generator=generator)
    share = slice(rank * 4 // world, (rank + 1) * 4 // world)
    step(image[share], mask[share]).backward()
    optimizer.step()
    return {name: tensor.detach() for name, tensor in task.model.state_dict().items()}


def save_step(path):
    """Train as one of the processes, and save what `train` returns."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.save(train(rank, dist.get_world_size()), f"{path}.{rank}")
    dist.destroy_process_group()
