"""``python -m attention_zoo bench``: speed, memory and operations of the mixers side by side."""

from pathlib import Path
from typing import Literal

from attention_zoo.cli.console import print_table
from attention_zoo.errors import InputError, unknown
from attention_zoo.registry import list_mixers


def bench(
    mixers: list[str],
    *,
    tokens: list[int] | None = None,
    dim: int = 192,
    num_heads: int = 3,
    batch: int = 4,
    queries: int = 128,
    repeats: int = 10,
    modes: list[Literal["eager", "compiled"]] | None = None,
    device: str = "cpu",
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32",
    out: str = "bench",
    overwrite: bool = False,
) -> None:
    """Measure what mixers cost: time forward and in training, memory, operations, parameters, growth in the tokens.

    Every mixer is measured in turns with timm's attention (cross-mixers: with CrossAttention), so that a ratio to it
    means something on a noisy machine. Writes costs.csv, costs.md and costs.png.

    Args:
        mixers: names, before the options; none is all of them.
        tokens: numbers of tokens, square numbers (default 196, 784 and 3136).
        dim: width of the tokens.
        num_heads: heads.
        batch: sequences a call.
        queries: of cross-mixers; their tokens are the pixels.
        repeats: interleaved repetitions; times are medians.
        modes: eager (default), compiled by torch.compile, or both; ratios are to the baseline in the first.
        device: where, e.g. cuda.
        dtype: of parameters and tokens.
        out: folder to write to.
        overwrite: whether ``out`` may hold something already.
    """
    import torch
    from rich.progress import track

    from attention_zoo.analysis.costs import Cost, Setting, measure
    from attention_zoo.cli.maps import find_device
    from attention_zoo.reports.costs import cost_figure, cost_table

    for name in mixers:
        if name not in list_mixers():
            raise unknown("mixer", name, list_mixers())
    counts = tokens or [196, 784, 3136]
    for option, value in {"repeats": repeats, "batch": batch, "queries": queries, "tokens": min(counts)}.items():
        if value < 1:
            raise InputError(f"{option}={value} must be at least 1")
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not overwrite:
        raise InputError(f"{out} is not empty; choose another folder with --out, or give --overwrite true")
    find_device(device)
    chosen = list(dict.fromkeys(modes or ["eager"]))
    setting = Setting(dim, num_heads, batch, queries, repeats, chosen, device, getattr(torch, dtype))
    costs: list[Cost] = []
    for count in track(counts, description="tokens"):
        costs += measure(mixers or list_mixers(), count, setting)
    note = (
        f"{dim} channels, {num_heads} heads, batch {batch}, {dtype}, {' and '.join(chosen)}, {device}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, medians of {repeats} interleaved calls"
    )
    table = cost_table(sorted(costs, key=lambda cost: cost.label), [note])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "costs.csv").write_text(table.csv())
    (folder / "costs.md").write_text(table.markdown())
    cost_figure(costs).savefig(folder / "costs.png", dpi=150)
    print_table(table, f"written to {folder}")
