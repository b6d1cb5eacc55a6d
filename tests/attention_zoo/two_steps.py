"""Two training steps of given models with mixers; test_two_processes runs them in two processes."""

import timm
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import attention_zoo as az


def build_all(pairs, models, size):
    for name, mixer in pairs:
        torch.manual_seed(0)
        yield f"{name} with {mixer}", timm.create_model(name, mixer=mixer, img_size=size, **models[name])
        if name.startswith("deit"):
            torch.manual_seed(0)
            host = timm.create_model(name, mixer=mixer, img_size=size, **models[name])
            yield f"TopDown of {name} with {mixer}", az.TopDown(host)


def train(model, size, rank):
    """Parameters after two steps; a parameter without a gradient in the first is an error of the second."""
    model = DistributedDataParallel(model.train())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for step in range(2):
        images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(10 * step + rank))
        outputs = model(images)
        outputs = outputs if isinstance(outputs, az.Outputs) else az.Outputs(outputs)
        total = sum(x.square().mean() for x in (outputs.logits, *outputs.extra_logits)) + outputs.aux_loss
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def train_all(pairs, models, size):
    """Train as one of the processes.

    Args:
        pairs: names of models, each with that of a mixer.
        models: arguments by the names of the models.
        size: height and width of the images.
    """
    dist.init_process_group("gloo")
    for name, model in build_all(pairs, models, size):
        try:
            flat = train(model, size, dist.get_rank())
        except Exception as error:
            raise RuntimeError(name) from error
        both = [torch.empty_like(flat) for _ in range(2)]
        dist.all_gather(both, flat)
        if not (flat.isfinite().all() and torch.equal(*both)):
            raise RuntimeError(f"{name}: parameters are not finite or not the same in both processes")
    dist.destroy_process_group()
