"""What a self-mixer may offer beyond its reading; a caller asks for it by ``isinstance``."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, Self, Unpack, runtime_checkable

import torch
from torch import Tensor, nn

from attention_zoo.compat import in_backward
from attention_zoo.functional.mixture import Joint
from attention_zoo.mixers.base import TopDownOptions


@runtime_checkable
class Steps(Protocol):
    """A self-mixer that refines what it reads step by step: ``isinstance(mixer, Steps)``."""

    steps: int
    """The number of steps."""

    def attention_path(self, x: Tensor, top_down: Tensor | None = None, **how: Unpack[TopDownOptions]) -> Tensor:
        """Return `SelfMixer.attention_map` before the first step and after each, (steps + 1, B, H, N, N)."""

    def weights_path(self, q: Tensor, v: Tensor, along: Tensor | None = None) -> Tensor:
        """Return the `attention_path` of q and v (B, H, N, D).

        With ``along`` (B, H, N, R) it is the product of the maps with it, (steps + 1, B, H, N, R), linear in ``along``
        and differentiable.
        """


@runtime_checkable
class Atoms(Protocol):
    """A self-mixer that codes its values in a dictionary: ``isinstance(mixer, Atoms)``."""

    def dictionary(self, x: Tensor, top_down: Tensor | None = None, **how: Unpack[TopDownOptions]) -> Tensor:
        """Return the atoms for tokens ``x`` (B, N, dim): (B, H, N, number of atoms)."""


@runtime_checkable
class Assignments(Protocol):
    """A self-mixer whose tokens belong to clusters: ``isinstance(mixer, Assignments)``."""

    def assignments(self, x: Tensor, top_down: Tensor | None = None, **how: Unpack[TopDownOptions]) -> Tensor:
        """Return which of K clusters each token of ``x`` (B, N, dim) belongs to: (B, H, K, N), soft or one-hot."""


@runtime_checkable
class Responsibilities(Protocol):
    """A self-mixer whose map is a softmax of a joint probability: ``isinstance(mixer, Responsibilities)``.

    Rows and columns of such a map can be had one by one, without the others.
    """

    def joint_probability(self, q: Tensor, k: Tensor, v: Tensor) -> Joint | None:
        """Return the log probability whose softmax over the units is `map_weights` of q, k and v (B, H, N, D).

        It is None where the options make the reading another one.
        """


@runtime_checkable
class Numbered(Protocol):
    """A self-mixer that is another one in each layer: ``isinstance(mixer, Numbered)``; hosts tell it which."""

    def set_layer(self, index: int) -> None:
        """Be the mixer of the layer ``index``, counted from 0 in the model's order."""


@runtime_checkable
class Linked(Protocol):
    """A self-mixer that takes up what the last of its reading before it kept: ``isinstance(mixer, Linked)``.

    A layer that is called by itself takes up what its thread's last pass of the model left; ``follow(None)`` ends that.
    """

    def follow(self, before: Any) -> None:
        """Take up what ``before``, a mixer of the same class, keeps of each pass; None: begin anew in each pass."""


@runtime_checkable
class StraightThrough(Protocol):
    """A mixer with thresholds or choices (arg-max, top-k) that stop gradients: ``isinstance(mixer, StraightThrough)``.

    It states a surrogate for each of them: an operation whose gradient is passed on while ``straight_through`` is True.
    What the mixer computes must not depend on it.
    """

    straight_through: bool
    """Whether gradients are those of the surrogates; False outside of `passing_straight_through`."""


@contextmanager
def passing_straight_through(model: Any) -> Iterator[int]:
    """Let gradients be those of the mixers' surrogates inside the context; yield how many modules have any.

    Args:
        model: a module with mixers at any depth; anything else has none.
    """
    modules = model.modules() if isinstance(model, nn.Module) else ()
    mixers = [module for module in modules if isinstance(module, StraightThrough)]
    before = [mixer.straight_through for mixer in mixers]
    try:
        for mixer in mixers:
            mixer.straight_through = True
        yield len(mixers)
    finally:
        for mixer, value in zip(mixers, before, strict=True):
            mixer.straight_through = value


@runtime_checkable
class AuxiliaryLoss(Protocol):
    """A self-mixer with a loss of its own, which a task adds to its own: ``isinstance(mixer, AuxiliaryLoss)``."""

    own_loss: "Kept"
    """The loss of the last forward pass in training, a scalar; see `attention_zoo.mixers.losses`."""


class Kept:
    """Holds a tensor of the last forward pass, with its graph; copies and pickles of a model hold none.

    What gradient checkpointing computes again in the backward pass changes nothing here.
    """

    def __init__(self) -> None:
        self._last: Tensor | None = None

    @property
    def value(self) -> Tensor | None:
        """The tensor, or None before the first pass."""
        return self._read()

    @value.setter
    def value(self, value: Tensor | None) -> None:
        """Keep a tensor, unless this is a backward pass."""
        if not in_backward():
            self._write(value)

    def _read(self) -> Tensor | None:
        return self._last

    def _write(self, value: Tensor | None) -> None:
        self._last = value

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)()

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()


class OfPasses:
    """Holds a tensor of each of the last forward passes in training, for what checkpointing computes of them again.

    A backward pass goes through passes from the last to the first. Copies and pickles of a model hold none.
    """

    MOST = 16
    """Passes that a layer may be in before a backward pass."""

    def __init__(self) -> None:
        self._tensors: deque[Tensor] = deque(maxlen=self.MOST)

    def of_this_pass(self, now: Tensor) -> Tensor:
        """Return ``now``, or where a pass is computed again, what it was then."""
        if in_backward():
            return self._tensors.pop() if self._tensors else now
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # a graph has it from the pass itself
            self._tensors.append(now)
        return now

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)()

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()


class KeptByThread(Kept):
    """Holds what one layer hands to a later one of the same pass: each thread its own, so that passes do not meet.

    A thread without one sees the last of all: on GPUs the backward pass has threads of its own, in which checkpointing
    computes layers again. There are then the values of the last forward pass, so that two of them with checkpointing
    need a backward pass each.
    """

    def __init__(self) -> None:
        super().__init__()
        self._own = threading.local()

    def _read(self) -> Tensor | None:
        return getattr(self._own, "value", self._last)

    def _write(self, value: Tensor | None) -> None:
        self._own.value = self._last = value
