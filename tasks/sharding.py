"""Shards a task's model over processes, block by block, by torch's FSDP2 under Lightning's strategy for it."""

from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from attention_zoo.errors import InputError
from attention_zoo.hosts.table import swappable


def is_sharding(strategy: Strategy) -> bool:
    """Return whether a strategy expects the task to shard its model.

    Raises:
        InputError: it expects tensors to be split as well, which no model here is written for.
    """
    if not isinstance(strategy, ModelParallelStrategy):
        return False
    if strategy.device_mesh["tensor_parallel"].size() != 1:
        raise InputError(
            "trainer.strategy: tensor_parallel_size must be 1, and data_parallel_size the number of processes: models "
            "are sharded (FSDP), their tensors are not split"
        )
    return True


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Shard the parameters of ``model`` over the processes of a mesh, in place; a second time nothing happens.

    A block, what holds a layer of attention that can have a mixer, is gathered and freed by itself, and what is left of
    the model once. The model must be entered by its ``forward``.
    """
    if isinstance(model, FSDPModule):
        return
    for name in dict.fromkeys(name.rpartition(".")[0] for name, _ in swappable(model)):
        if name:
            fully_shard(model.get_submodule(name), mesh=mesh)
    fully_shard(model, mesh=mesh)
