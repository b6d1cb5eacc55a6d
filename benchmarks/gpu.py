"""Check and measure on a GPU all that needs one, in at most 8 minutes.

    python benchmarks/gpu.py results/gpu [--data DATA/cifar10] [--minutes 8]
    python benchmarks/gpu.py /tmp/gpu --device cpu --quick true     # the same, small, to see that it runs

Each section has its share of the time, and what it leaves goes to those after it. ``gpu.json`` is written after every
item, so that a run that was cut off goes on where it stopped; ``gpu.md`` has the tables. An item that fails or runs too
long is noted with its error, and the others go on: in a new process where the error has left the GPU unusable, or a
signal has ended the old one.
"""

import gc
import multiprocessing
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from gpu_sections import Item, Row, Sizes, cifar, compiled, correctness, evaluation, kernels, released, tokens, training
from jsonargparse import auto_cli
from rich.console import Console

from attention_zoo.errors import InputError
from attention_zoo.runs.files import read_json, write_json, write_text

SECTIONS: dict[str, tuple[Callable[[Sizes], Iterator[Item]], float]] = {
    "correctness": (correctness, 0.1),
    "kernels": (kernels, 0.05),
    "tokens": (tokens, 0.19),
    "released": (released, 0.03),
    "training": (training, 0.1),
    "evaluation": (evaluation, 0.05),
    "cifar": (cifar, 0.34),
    "compiled": (compiled, 0.06),
}
"""What is measured, and its share of the time; the rest is for the last item, which begins within it."""

LOST = 75
"""The exit code of a process that can use the GPU no more, as after a kernel that read where it may not."""

BEGUN = "begun, and not ended"
"""The error of an item while it is measured."""

Results = dict[str, dict[str, Row]]


def main(
    out: Path,
    device: str = "cuda",
    minutes: float = 8.0,
    quick: bool = False,
    data: Path | None = None,
    sections: list[str] | None = None,
    longest: float = 60.0,
) -> None:
    """Measure every section, and write ``gpu.json`` and ``gpu.md``.

    Args:
        out: the folder of the results; what is there already is not measured again.
        device: where to measure: ``cuda`` or ``cpu``.
        minutes: time for all sections together.
        quick: measure at small sizes.
        data: CIFAR-10 for the last section; by default it trains on the digits inside scikit-learn.
        sections: the sections to measure; by default all.
        longest: the seconds that one item may run.

    Raises:
        InputError: there is no such section or device.
    """
    for name in sections or ():
        if name not in SECTIONS:
            raise InputError(f"no section {name!r}; choose from: {', '.join(SECTIONS)}")
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise InputError(f"no device {device!r} here; --device cpu --quick true runs everything small")
    sizes = Sizes(device, data=data, training_seconds=60 * minutes * SECTIONS["cifar"][1] / 4 * 0.75)
    if quick:
        sizes = Sizes(device, (4, 8), 128, 32, 2, 2, 64, 1, 0.01, 3.0, data)
    path, processes = out / "gpu.json", multiprocessing.get_context("spawn")
    out.mkdir(parents=True, exist_ok=True)
    note_ended(path, None)  # of a run that was stopped as a whole: its last item is measured again
    begun, code = processes.Value("d", 0.0), LOST
    while code == LOST or code < 0:
        measuring = processes.Process(
            target=measure, args=(sizes, sections or list(SECTIONS), 60 * minutes, longest, path, begun)
        )
        measuring.start()
        measuring.join()
        code = measuring.exitcode
        if code < 0 and not note_ended(path, f"ended its process by {signal.Signals(-code).name}"):
            break
    if code:
        sys.exit(f"error: the measurements ended with code {code} between two items; the same command goes on")
    write_text(out / "gpu.md", markdown(read_json(path), device))
    print(f"{path} and {out / 'gpu.md'} are written")


def note_ended(path: Path, why: str | None) -> bool:
    """Note why the item that was measured last did not end, or forget it; return whether there is such an item."""
    found: Results = read_json(path) if path.exists() else {}
    places = [(name, item) for name, rows in found.items() for item in rows if rows[item] == {"error": BEGUN}]
    for name, item in places:
        if why is None:
            del found[name][item]
        else:
            found[name][item] = {"error": why}
    if places:
        write_json(path, found)
    return bool(places)


def measure(sizes: Sizes, names: list[str], seconds: float, longest: float, path: Path, begun: Any) -> None:
    """Measure the items that the file lacks, each section within its time, and write them as they come.

    Args:
        sizes: what is measured, and how large it is.
        names: the sections.
        seconds: the time for all of them.
        longest: the seconds that one item may run.
        path: the file of the results.
        begun: when the first such process was ready to measure, a shared number; 0 is written by that process.

    Raises:
        SystemExit: an item has left the GPU unusable in this process; the code is `LOST`.
    """
    found: Results = read_json(path) if path.exists() else {}
    console = Console()
    whole = sum(SECTIONS[name][1] for name in names) / sum(share for _, share in SECTIONS.values())
    begun.value = deadline = begun.value or time.monotonic()
    for name in names:
        items, share = SECTIONS[name]
        deadline += seconds * share / whole
        rows = found.setdefault(name, {})
        for item, row_of in items(sizes):
            if item in rows:
                continue
            if time.monotonic() > deadline:
                console.print(f"{name}: the time is over before {item!r}")
                break
            rows[item] = {"error": BEGUN}
            write_json(path, found)
            try:
                with at_most(longest):
                    rows[item] = row_of()
            except Exception as error:  # whatever is wrong with one, the others are to be measured
                rows[item] = {"error": f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"}
                lost = isinstance(error, torch.AcceleratorError)
            else:
                lost = False
            console.print(f"{name}: {item}: {rows[item]}")
            write_json(path, found)
            if lost:
                sys.exit(LOST)
            gc.collect()
            if sizes.device == "cuda":
                torch.cuda.empty_cache()


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in what runs longer, once it is back from the kernel that it is in."""

    def over(signum: int, frame: object) -> None:
        raise TimeoutError(f"longer than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def markdown(found: Results, device: str) -> str:
    """Return the results as tables, one for each section."""
    where = torch.cuda.get_device_name() if device == "cuda" else f"{platform.machine()} CPU"
    parts = [f"# {where}, torch {torch.__version__}"]
    for name, rows in found.items():
        rows = {item: row | over_timm(item, rows) for item, row in rows.items()}
        columns = list(dict.fromkeys(column for row in rows.values() for column in row))
        lines = [["item", *columns], ["---"] * (len(columns) + 1)]
        lines += [[item, *(_shown(row.get(column, "")) for column in columns)] for item, row in rows.items()]
        parts.append(f"## {name}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(parts) + "\n"


def over_timm(item: str, rows: dict[str, Row]) -> Row:
    """Return how many times an item is as slow as timm's attention; nothing where that was not measured beside it."""
    beside, _, _ = item.partition(", ")
    timm = rows.get(f"{beside}, timm" if f"{beside}, timm" in rows else "timm", {})
    ratios: Row = {}
    for column, inverse in (("training ms", False), ("images/s", True)):
        own, other = rows[item].get(column), timm.get(column)
        if isinstance(own, float) and isinstance(other, float):
            ratios["time over timm"] = other / own if inverse else own / other
    return ratios


def _shown(value: float | str | bool) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


if __name__ == "__main__":
    try:
        auto_cli(main)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
