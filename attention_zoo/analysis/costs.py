"""The costs of mixers at several numbers of tokens: time, memory, operations and parameters, and how they grow."""

import itertools
import math
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from timm.layers import Attention
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from attention_zoo.analysis.timing import Call, backward, forward, interleaved, peak_memory
from attention_zoo.compat import compiling_all
from attention_zoo.errors import InputError
from attention_zoo.mixers.registry import create_mixer, mixer_kind

Mode = Literal["eager", "compiled"]

TIMM = "timm Attention"
"""The name of the baseline that all self-mixers are compared with, in the same run."""


NUMBERS = ("dim", "num_heads", "batch", "queries", "repeats")
"""The whole numbers of a setting; each must be at least 1."""

TENSORS, WEIGHTS = 6, 8
"""The least copies of the tokens that training holds (q, k, v, their mix, the output, a gradient); and the numbers that
a layer holds, in squares of its width (four projections and their gradients)."""


@dataclass(frozen=True)
class Setting:
    """The sizes, modes and device that costs are measured for.

    Attributes:
        dim: width of the tokens.
        num_heads: number of heads.
        batch: number of sequences in a call.
        queries: number of queries of cross-mixers; the tokens are their pixels.
        repeats: number of interleaved repetitions; times are their medians.
        modes: ``eager``, ``compiled`` (by ``torch.compile``) or both; ratios are to the baseline in the first mode.
        device: name of the device, such as ``cpu``.
        dtype: type of parameters and tokens.
    """

    dim: int = 192
    num_heads: int = 3
    batch: int = 4
    queries: int = 128
    repeats: int = 10
    modes: Sequence[Mode] = ("eager",)
    device: str = "cpu"
    dtype: torch.dtype = torch.float32


@dataclass(frozen=True)
class Cost:
    """The costs of one layer at one number of tokens.

    Attributes:
        mixer: name of the mixer, or `TIMM`.
        mode: how the layer ran.
        tokens: number of tokens.
        forward: seconds of a call without gradients, the median.
        training: seconds of a call and all gradients, the median.
        forward_ratio: the median ratio of ``forward`` to the baseline's, call by call.
        training_ratio: the same ratio for ``training``.
        forward_memory: the most bytes that a call without gradients allocates and holds at once.
        training_memory: the same for a call and all gradients.
        flops: operations for one sequence, without those that torch's counter misses, such as Fourier transforms.
        parameters: number of parameters of the layer.
    """

    mixer: str
    mode: Mode
    tokens: int
    forward: float
    training: float
    forward_ratio: float
    training_ratio: float
    forward_memory: int
    training_memory: int
    flops: int
    parameters: int

    @property
    def label(self) -> str:
        """The name of the layer in tables and figures."""
        return self.mixer if self.mode == "eager" else f"{self.mixer}, {self.mode}"


def check_setting(names: Sequence[str], tokens: int, setting: Setting) -> None:
    """Refuse a setting that cannot be measured, before anything is measured.

    Args:
        names: names of the mixers.
        tokens: number of tokens.
        setting: the sizes, modes and device to measure.

    Raises:
        InputError: a number is too small, the heads do not divide the width, the tokens are no square grid, or need
            more memory than the machine has.
    """
    numbers = {"tokens": tokens, **{name: getattr(setting, name) for name in NUMBERS}}
    for name, value in numbers.items():
        if value < 1:
            raise InputError(f"{name}={value} must be at least 1")
    if setting.dim % setting.num_heads:
        raise InputError(f"num_heads={setting.num_heads} must divide dim={setting.dim}")
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise InputError(f"{tokens} tokens are no square grid; {side * side} are")
    sequences = setting.batch * (tokens + setting.queries) * setting.dim
    needed = (TENSORS * sequences + (len(names) + 1) * WEIGHTS * setting.dim**2) * setting.dtype.itemsize
    if needed > _memory(setting.device):
        raise InputError(
            f"batch={setting.batch}, tokens={tokens}, queries={setting.queries}, dim={setting.dim} need {needed >> 30} "
            f"GiB at least, and {setting.device} has {_memory(setting.device) >> 30}"
        )


def _memory(device: str) -> int:
    """Return the memory in bytes: free memory of a GPU, all memory of the machine for the CPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def measure(names: Sequence[str], tokens: int, setting: Setting) -> Iterator[Cost]:
    """Measure mixers and their baseline at a number of tokens, taking turns, and yield the cost of each.

    Self-mixers are compared with timm's attention, cross-mixers with `CrossAttention`.

    Raises:
        InputError: a mixer does not exist, `check_setting` refuses the setting, or the layers failed to run, for
            instance for lack of memory.
    """
    check_setting(names, tokens, setting)
    for kind in ("self", "cross"):
        chosen = [name for name in names if mixer_kind(name) == kind]
        if not chosen:
            continue
        base = TIMM if kind == "self" else "CrossAttention"
        try:
            yield from _measure([base, *(name for name in chosen if name != base)], kind, tokens, setting)
        except (RuntimeError, MemoryError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"{tokens} tokens on {setting.device} in {setting.dtype}: {reason}") from error


def _measure(names: Sequence[str], kind: str, tokens: int, setting: Setting) -> Iterator[Cost]:
    """Yield the costs of layers of one kind ("self" or "cross"); the first is the baseline."""
    torch.manual_seed(0)
    random = partial(torch.randn, device=setting.device, dtype=setting.dtype)
    inputs: tuple[torch.Tensor, ...] = (random(setting.batch, tokens, setting.dim),)
    if kind == "cross":
        inputs = (random(setting.batch, setting.queries, setting.dim), *inputs)
    variants = list(itertools.product(names, setting.modes))
    layers = [_layer(name, tokens, setting) for name, _ in variants]
    flops = [_flops(layer, inputs) // setting.batch for layer in layers]
    for (_, mode), layer in zip(variants, layers, strict=True):
        if mode == "compiled":
            layer.compile()
    with compiling_all(len(layers)) if "compiled" in setting.modes else nullcontext():
        times, memory = _taking_turns(layers, inputs, setting)
    for place, (variant, layer) in enumerate(zip(variants, layers, strict=True)):
        seconds = [statistics.median(times[direction][place]) for direction in (forward, backward)]
        ratios = [
            statistics.median(a / b for a, b in zip(times[direction][place], times[direction][0], strict=True))
            for direction in (forward, backward)
        ]
        held = [memory[direction][place] for direction in (forward, backward)]
        parameters = sum(parameter.numel() for parameter in layer.parameters())
        measured: tuple[Any, ...] = (*seconds, *ratios, *held, flops[place], parameters)
        yield Cost(*variant, tokens, *measured)


def _taking_turns(
    layers: Sequence[nn.Module], inputs: tuple[Tensor, ...], setting: Setting
) -> tuple[dict[Callable[..., Call], list[list[float]]], dict[Callable[..., Call], list[int]]]:
    """Return the seconds of every call, and the bytes that are held at most, of each layer, forward and in training."""
    times, memory = {}, {}
    for direction in (forward, backward):
        calls = [direction(layer, *inputs) for layer in layers]
        times[direction] = interleaved(calls, setting.repeats, setting.device)
        memory[direction] = [peak_memory(call, setting.device) for call in calls]
    return times, memory


def _layer(name: str, tokens: int, setting: Setting) -> nn.Module:
    side = math.isqrt(tokens)
    if name == TIMM:
        layer: nn.Module = Attention(setting.dim, setting.num_heads)
    elif mixer_kind(name) == "self":
        layer = create_mixer(name, setting.dim, setting.num_heads, grid=(side, side))
    else:
        layer = create_mixer(name, setting.dim, setting.num_heads)
    return layer.to(setting.device, setting.dtype)


def _flops(layer: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer.eval()(*inputs)
    return counter.get_total_flops()


def growth(tokens: Sequence[int], seconds: Sequence[float]) -> float:
    """Return the exponent e of time ~ N^e: the slope of a straight line through the logarithms.

    Raises:
        InputError: there are fewer than two different numbers of tokens.
    """
    if len(set(tokens)) < 2:
        raise InputError("how cost grows needs two numbers of tokens at least")
    return float(np.polyfit(np.log(tokens), np.log(seconds), 1)[0])
