"""Which process sees which sample, in which order.

The samplers yield keys instead of plain indices, so that a data set can derive the randomness of a sample from the
epoch and the index, whichever worker reads it. Both are ``DistributedSampler``s: Lightning leaves those in place and
calls their ``set_epoch``, which makes a resumed run see the order of an uninterrupted one.
"""

from collections.abc import Hashable, Iterator, Sequence, Sized
from typing import Any, NamedTuple, cast

import torch
from torch import distributed
from torch.utils.data import Dataset, DistributedSampler

from attention_zoo.errors import InputError
from attention_zoo.seeding import derive_seed


class SampleKey(NamedTuple):
    """One sample as a sampler asks for it.

    Attributes:
        epoch: the epoch it is read in, from 0.
        index: its position in the split, from 0.
        counted: False for a duplicate that only pads a process to the length of the others.
        repeat: how often this epoch asked for the sample before, so that each time has its own augmentation.
    """

    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody asks of a key
    counted: bool
    repeat: int = 0


def _processes(num_replicas: int | None, rank: int | None) -> tuple[int, int]:
    """The arguments, with what is missing taken from ``torch.distributed``: one process if that is not running."""
    running = distributed.is_available() and distributed.is_initialized()
    if num_replicas is None:
        num_replicas = distributed.get_world_size() if running else 1
    if rank is None:
        rank = distributed.get_rank() if running else 0
    return num_replicas, rank


class TrainSampler(DistributedSampler[SampleKey]):
    """A new order each epoch, shared out evenly; the few samples that are left over wait for another epoch.

    The order follows from ``seed`` and the epoch only. Every process gets ``len(dataset) // num_replicas`` samples.

    With ``repeats`` above 1 an epoch is as long as before, but has fewer samples, each so many times in a row, in the
    same batch or at the same step of several processes (repeated augmentation: E. Hoffer et al., Augment Your Batch,
    CVPR 2020, as DeiT's recipe has it).

    Args:
        dataset: anything with a length.
        num_replicas: number of processes; None asks ``torch.distributed`` (1 if it is not initialised).
        rank: this process; None asks ``torch.distributed`` (0 if it is not initialised).
        seed: the run's seed, not negative.
        first_epoch: that of a resumed run. Lightning starts to load a resumed run's data before it knows the epoch,
            and then tells this sampler 0.
        first: how many of this process's samples of the first epoch to leave out: those that a run which was resumed
            within the epoch has behind it.
        repeats: times that a sample of an epoch is asked for.

    Raises:
        InputError: there are fewer samples than processes.
    """

    def __init__(
        self,
        dataset: Sized,
        num_replicas: int | None = None,
        rank: int | None = None,
        seed: int = 0,
        first_epoch: int = 0,
        first: int = 0,
        repeats: int = 1,
    ) -> None:
        super().__init__(
            cast(Dataset[Any], dataset), *_processes(num_replicas, rank), shuffle=True, seed=seed, drop_last=True
        )
        if self.num_samples < 1:
            raise InputError(f"{len(dataset)} training images cannot be shared by {self.num_replicas} processes")
        self.first_epoch = self.epoch = first_epoch
        self.first = first
        self.repeats = repeats

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next; none before the first does."""
        super().set_epoch(max(epoch, self.first_epoch))

    def __iter__(self) -> Iterator[SampleKey]:
        """This process's keys of the epoch last given to ``set_epoch``."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
        order = torch.randperm(len(cast(Sized, self.dataset)), generator=generator).tolist()
        places = range(self.rank, self.total_size, self.num_replicas)
        for place in places[self.first if self.epoch == self.first_epoch else 0 :]:
            yield SampleKey(self.epoch, order[place // self.repeats], True, place % self.repeats)


class EvaluationSampler(DistributedSampler[SampleKey]):
    """Process r reads the samples r, r + num_replicas, ... in order, or a block of them, each sample exactly once.

    Collective operations run once a batch, so every process must make as many: a shorter one ends with a duplicate
    whose key says ``counted=False``.

    Args:
        dataset: anything with a length.
        num_replicas: number of processes; None asks ``torch.distributed`` (1 if it is not initialised).
        rank: this process; None asks ``torch.distributed`` (0 if it is not initialised).
        first: how many of this process's samples to leave out: those that an interrupted evaluation had behind it.
        blocks: give each process samples that follow one another, where neighbours share work.
    """

    def __init__(
        self,
        dataset: Sized,
        num_replicas: int | None = None,
        rank: int | None = None,
        first: int = 0,
        blocks: bool = False,
    ) -> None:
        super().__init__(cast(Dataset[Any], dataset), *_processes(num_replicas, rank), shuffle=False)
        self.first, self.blocks = min(first, self.num_samples), blocks

    def __len__(self) -> int:
        return self.num_samples - self.first

    def __iter__(self) -> Iterator[SampleKey]:
        """This process's keys, the padding last."""
        last = len(cast(Sized, self.dataset)) - 1
        every = range(self.rank, self.total_size, self.num_replicas)
        if self.blocks:
            every = range(self.rank * self.num_samples, (self.rank + 1) * self.num_samples)
        for index in every[self.first :]:
            yield SampleKey(self.epoch, min(index, last), index <= last)


class GroupedSampler(DistributedSampler[list[SampleKey]]):
    """Batches of samples that are alike, such as images of one size; every sample is in exactly one batch.

    For a loader with ``batch_size=None``. Process r reads the batches r, r + num_replicas, ...; for the reason that
    `EvaluationSampler` has, a shorter one ends with a batch whose keys say ``counted=False``.

    Args:
        groups: for each sample something that is equal for samples that may share a batch.
        batch_size: most samples a batch.
        num_replicas: number of processes; None asks ``torch.distributed`` (1 if it is not initialised).
        rank: this process; None asks ``torch.distributed`` (0 if it is not initialised).
    """

    def __init__(
        self, groups: Sequence[Hashable], batch_size: int, num_replicas: int | None = None, rank: int | None = None
    ) -> None:
        members: dict[Hashable, list[int]] = {}
        for index, group in enumerate(groups):
            members.setdefault(group, []).append(index)
        self.batches = [
            indices[start : start + batch_size]
            for indices in members.values()
            for start in range(0, len(indices), batch_size)
        ]
        super().__init__(cast(Dataset[Any], self.batches), *_processes(num_replicas, rank), shuffle=False)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        """This process's batches, the padding last."""
        last = len(self.batches) - 1
        for place in range(self.rank, self.total_size, self.num_replicas):
            yield [SampleKey(self.epoch, index, place <= last) for index in self.batches[min(place, last)]]
