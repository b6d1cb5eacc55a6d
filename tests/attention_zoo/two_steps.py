"""One of two processes that train every given model with every mixer for two steps; run by test_two_processes.

Arguments: rank, port, and JSON of ``{"size": [H, W], "models": {name: arguments}}``.
"""

import json
import os
import sys

import timm
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import attention_zoo as az


def models(wanted):
    for name, args in wanted["models"].items():
        for mixer in az.list_mixers("self"):
            torch.manual_seed(0)
            yield f"{name} with {mixer}", timm.create_model(name, mixer=mixer, img_size=wanted["size"], **args)
            if name.startswith("deit"):
                torch.manual_seed(0)
                host = timm.create_model(name, mixer=mixer, img_size=wanted["size"], **args)
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


def main():
    rank, port, wanted = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    for name, model in models(wanted):
        try:
            flat = train(model, wanted["size"], rank)
        except Exception as error:
            raise RuntimeError(name) from error
        both = [torch.empty_like(flat) for _ in range(2)]
        dist.all_gather(both, flat)
        if not (flat.isfinite().all() and torch.equal(*both)):
            raise RuntimeError(f"{name}: parameters are not finite or not the same in both processes")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
