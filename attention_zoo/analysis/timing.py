"""Time and memory of calls that are compared in one run, interleaved, so that a noisy machine hits all alike."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

Call = Callable[[], object]


def interleaved(
    calls: Sequence[Call], repeats: int, device: str = "cpu", clock: Callable[[], float] = time.perf_counter
) -> list[list[float]]:
    """Return the seconds that each call takes, ``repeats`` of them per call, in turns after two rounds of warm-up.

    Args:
        calls: what is timed.
        repeats: how often each.
        device: where they compute; a call ends when the device has ended it.
        clock: returns the time in seconds; `time.process_time`, the CPU time of this process, leaves other work out.
    """
    times: list[list[float]] = [[] for _ in calls]
    for repeat in range(-2, repeats):
        for call, measured in zip(calls, times, strict=True):
            start = clock()
            call()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            if repeat >= 0:
                measured.append(clock() - start)
    return times


def forward(model: nn.Module, *inputs: Tensor) -> Call:
    """Return a function that calls the model in evaluation mode without gradients."""

    def call() -> None:
        with torch.inference_mode():
            model.eval()(*inputs)

    return call


def backward(model: nn.Module, *inputs: Tensor) -> Call:
    """Return a function that calls the model in training mode and computes the gradients of all its parameters."""

    def call() -> None:
        model.train().zero_grad()
        out = model(*inputs)
        out = out[0] if isinstance(out, tuple) else out
        out.square().sum().backward()

    return call


def peak_memory(call: Call, device: str = "cpu") -> int:
    """Return the most bytes that a call allocates and holds at once; run the call once before, to leave out set-up."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with _silent(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    # torch keeps no peak for the CPU; its profiler tells every allocation and release
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


@contextmanager
def _silent() -> Iterator[None]:
    """Silence stderr inside the context, where torch's profiler writes to it from outside Python."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
