"""A CUDA device without one: fake tensors, our backward functions called by hand, and a watch on every operator."""

import contextlib
import types
import weakref
from collections.abc import Collection, Iterator

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import attention_zoo
from tests.attention_zoo.cuda.kernels import Kernels

WAITS = {
    *("_local_scalar_dense", "is_nonzero", "equal", "allclose"),  # a number is read
    *("nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive", "bincount"),  # a size is
    *("_linalg_check_errors", "_pin_memory", "record_stream"),
}
"""Operators for which the program waits until the device has done everything before."""


class Watch(TorchDispatchMode):
    """Fails where a tensor leaves the device or is made beside it, or the program waits; counts what is allocated.

    Args:
        allowed: operators that may do so, of a step that has to look at numbers.

    Attributes:
        waits: the operators that did so.
        largest: number of entries of the largest tensor that was allocated.
        largest_by: the operator that allocated it.
        total: bytes of all that was allocated.
        peak: the most bytes that were held at once, of what was allocated.
    """

    def __init__(self, allowed: Collection[str] = ()) -> None:
        super().__init__()
        self.allowed, self.waits = allowed, set()
        self.largest, self.largest_by = 0, ""
        self.total = self.peak = self._held = 0
        self._storages: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if _waits(name, func._overloadname, given, kwargs or {}):
            self._note(name, f"{name} waits for the device")
        out = func(*args, **(kwargs or {}))
        views = any(result.alias_info is not None for result in func._schema.returns)
        from_device = any(x.device.type == "cuda" for x in given)
        for tensor in tree_leaves(out):
            if not isinstance(tensor, Tensor):
                continue
            beside = tensor.device.type not in ("cuda", "meta")
            if beside and from_device:
                self._note(name, f"{name} moves {tuple(tensor.shape)} to the {tensor.device}")
            elif beside and tensor.numel() > 1 and not (given and self.waits):  # not of what has left already
                self._note(name, f"{name} makes {tuple(tensor.shape)} on the {tensor.device}")
            if not views and not beside:
                self._count(tensor, f"{name} {tuple(tensor.shape)}")
        return out

    def _note(self, name: str, words: str) -> None:
        assert name in self.allowed, words
        self.waits.add(name)

    def _count(self, tensor: Tensor, by: str) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return
        self._storages.add(key)
        weakref.finalize(storage, self._free, key, size)
        if tensor.numel() > self.largest:
            self.largest, self.largest_by = tensor.numel(), by
        self.total += size
        self._held += size
        self.peak = max(self.peak, self._held)

    def _free(self, key: int, size: int) -> None:
        self._storages.discard(key)
        self._held -= size


def _waits(name: str, overload: str, given: list[Tensor], options: dict) -> bool:
    """Whether the program waits for the device in an operator, given so many tensors and options."""
    if name == "repeat_interleave":  # a size is read, unless it is given
        return overload in ("Tensor", "self_Tensor") and options.get("output_size") is None
    if name in ("index", "index_put", "index_put_", "_index_put_impl_"):  # by truth values, whose number is read
        return any(x.dtype in (torch.bool, torch.uint8) for x in given[1:] if x.dim() and name == "index")
    return name in WAITS


class Context:
    """What a function's forward pass keeps for its backward pass; autograd has no engine for fake tensors."""

    def __init__(self, args) -> None:
        self.needs_input_grad = tuple(isinstance(x, Tensor) and x.is_floating_point() for x in args)
        self.saved_tensors: tuple[Tensor | None, ...] = ()

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        self.saved_tensors = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Gradients are all given here."""

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """No gradients are asked of them."""


def forward_and_backward(function, *args):
    """Apply a function of ours, and its backward function to gradients of ones; gradients must fit the inputs."""
    ctx = Context(args)
    if function.setup_context is torch.autograd.Function.setup_context:
        out = function.forward(ctx, *args)
    else:
        out = function.forward(*args)
        function.setup_context(ctx, args, out)
    results = out if isinstance(out, tuple) else (out,)
    with torch.no_grad():  # as the engine calls it where no further gradients are wanted
        gradients = function.backward(ctx, *(torch.ones_like(result) for result in results))
    for x, gradient in zip(args, gradients if isinstance(gradients, tuple) else (gradients,), strict=True):
        if isinstance(gradient, Tensor):
            assert (gradient.shape, gradient.device) == (x.shape, x.device)
            assert gradient.dtype == x.dtype
    return out


def ours(base: type) -> Iterator[type]:
    """The autograd functions of this project."""
    for cls in base.__subclasses__():
        if cls.__module__.startswith(attention_zoo.__name__):
            yield cls
        yield from ours(cls)


class Device:
    """A CUDA device whose tensors have no numbers.

    Attributes:
        kernels: its attention kernels, which note how they are called.
    """

    def __init__(self, kernels: Kernels, mode: FakeTensorMode) -> None:
        self.kernels, self._mode = kernels, mode

    def keep(self, x: Tensor) -> Tensor:
        """Return a tensor without its numbers, where it is."""
        return self._mode.from_tensor(x)

    def put(self, thing):
        """Return a module, or a tensor, on the device."""
        if isinstance(thing, torch.nn.Module):
            return thing._apply(self.put)
        return self._mode.from_tensor(thing).to("cuda")


def _no_waiting(device=None) -> None:
    raise AssertionError("the program waits for the device")


@contextlib.contextmanager
def device(monkeypatch, major: int = 9) -> Iterator[Device]:
    """Have a CUDA device of a compute capability."""
    kernels = Kernels(numbers=False).install(monkeypatch)
    properties = types.SimpleNamespace(major=major, minor=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", _no_waiting)
    monkeypatch.setattr(FakeTensorMode, "__deepcopy__", lambda mode, memo: mode, raising=False)  # of a copied model
    for function in ours(torch.autograd.Function):
        monkeypatch.setattr(function, "apply", lambda *args, of=function: forward_and_backward(of, *args))
    with FakeTensorMode() as mode:
        yield Device(kernels, mode)
