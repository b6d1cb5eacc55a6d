"""Shards a task's model over processes, block by block, by torch's FSDP2."""

from functools import partial
from typing import Any, cast

import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.optim import Optimizer

from attention_zoo.domains import PositiveInt
from attention_zoo.errors import InputError
from attention_zoo.hosts.table import swappable


class FullySharded(ModelParallelStrategy):
    """Parameters, gradients and optimizer state are sharded over all processes; checkpoints are whole, as of any run.

    It is Lightning's strategy for FSDP2, which leaves the sharding to the task: here any classifier's is `shard`.

    Args:
        processes: number of processes; None, or else the trainer's ``devices`` times ``num_nodes``, which it must be.
    """

    def __init__(self, processes: PositiveInt | None = None) -> None:
        super().__init__(save_distributed_checkpoint=False)
        self.processes = processes
        self.mesh: DeviceMesh | None = None

    @property
    def device_mesh(self) -> DeviceMesh:
        """The mesh of all processes; Lightning's own has a dimension too many, and sizes that do not follow them.

        Raises:
            RuntimeError: the processes have not found each other yet.
        """
        if self.mesh is None:
            raise RuntimeError("there is no mesh before the processes have found each other")
        return self.mesh

    def setup_environment(self) -> None:
        """Let the processes find each other, and have the task shard its model when the trainer asks it to.

        Raises:
            InputError: there is another number of processes than was given, or a callback that copies the model.
        """
        if self.processes not in (None, self.num_processes * self.num_nodes):
            raise InputError(
                f"trainer.strategy.processes={self.processes} differs from trainer.devices x trainer.num_nodes, which "
                f"are {self.num_processes} x {self.num_nodes}: leave it out"
            )
        self._refuse_copies()
        super().setup_environment()
        self.mesh = init_device_mesh(self.root_device.type, (self.world_size,), mesh_dim_names=("data_parallel",))
        task: Any = self.lightning_module
        # of this task alone: a class that has the hook is told by Lightning what it may not do without sharding
        task.configure_model = partial(_shard_model_of, task, self.mesh)

    def _refuse_copies(self) -> None:
        task: Any = self.lightning_module
        for callback in task.trainer.callbacks:
            if isinstance(callback, (StochasticWeightAveraging, WeightAveraging)):
                raise InputError(
                    f"trainer.callbacks: {type(callback).__name__} copies the model, and shards have no copies: leave "
                    "it out, or train with strategy=ddp"
                )

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Load a whole checkpoint, of this strategy or another, into the shards of model and optimizers; return it.

        Lightning's own hands each layer its parameters, which torch takes for a root with shards of all.
        """
        path, model = self.broadcast(checkpoint_path), cast(nn.Module, self.lightning_module)
        content = torch.load(path, map_location="cpu", mmap=True, weights_only=weights_only)
        for part in model.modules():
            if isinstance(part, FSDPModule):
                part.reshard()  # a pass that was counted before the training has gathered the root's
        options = StateDictOptions(full_state_dict=True)
        set_model_state_dict(model, content["state_dict"], options=options)
        states = content["optimizer_states"] if self.optimizers else ()  # a test has no optimizers
        for optimizer, state in zip(self.optimizers, states, strict=True):
            if state["state"]:
                set_optimizer_state_dict(model, optimizer, _by_name(state, optimizer, model), options=options)
            else:  # torch looks for a tensor in vain, as of SGD without momentum
                optimizer.load_state_dict(state)
        return content


def _by_name(state: dict[str, Any], optimizer: Optimizer, model: nn.Module) -> dict[str, Any]:
    """Return an optimizer's state of a checkpoint by the names of the parameters, in place of their numbers.

    Numbers count in the order of the optimizer's groups.

    Raises:
        ValueError: the groups are of other sizes than in the checkpoint.
    """
    saved_sizes, sizes = ([len(group["params"]) for group in x["param_groups"]] for x in (state, vars(optimizer)))
    if saved_sizes != sizes:
        raise ValueError(f"parameter groups of {saved_sizes} in the file, of {sizes} in this optimizer")
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = [
        (saved, dict(zip(saved["params"], (names[parameter] for parameter in own["params"]), strict=True)))
        for saved, own in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    all_names = {number: name for _, named in groups for number, name in named.items()}
    return {
        "state": {all_names[number]: own for number, own in state["state"].items()},
        "param_groups": [{**saved, "params": list(named.values())} for saved, named in groups],
    }


def _shard_model_of(task: Any, mesh: DeviceMesh) -> None:
    if not task.SHARDS:
        raise InputError(f"trainer.strategy: {type(task).__name__} cannot shard its model; train it with strategy=ddp")
    shard(task.model, mesh)


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
