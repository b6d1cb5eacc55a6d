"""``python -m attention_zoo bench``: speed, memory and operations of the mixers side by side."""

from typing import Literal

from attention_zoo.mixers.registry import list_mixers, mixer_class
from attention_zoo.runs.folders import free_folder, named_path
from attention_zoo.terminal import print_table, tracked


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
        mixers: names or dotted paths, before the options; none is all of them.
        tokens: numbers of tokens, square numbers (default 196, 784 and 3136).
        dim: width of the tokens.
        num_heads: number of heads.
        batch: sequences in a call.
        queries: number of queries of cross-mixers; their tokens are the pixels.
        repeats: interleaved repetitions; times are medians.
        modes: eager (default), compiled by torch.compile, or both; ratios are to the baseline in the first.
        device: where to measure, e.g. cuda.
        dtype: type of parameters and tokens.
        out: folder to write to.
        overwrite: whether ``out`` may hold something already.
    """
    import torch

    from attention_zoo.analysis.costs import Cost, Setting, check_setting, measure
    from attention_zoo.analysis.subjects import find_device
    from attention_zoo.reports.costs import write_costs

    for name in mixers:
        mixer_class(name)
    names = list(dict.fromkeys(mixers)) or list_mixers()
    counts = list(dict.fromkeys(tokens or [196, 784, 3136]))
    folder = free_folder(named_path("out", out), overwrite)
    find_device(device)
    chosen: list[Literal["eager", "compiled"]] = list(dict.fromkeys(modes or ["eager"]))
    setting = Setting(dim, num_heads, batch, queries, repeats, chosen, device, getattr(torch, dtype))
    for count in counts:
        check_setting(names, count, setting)
    costs: list[Cost] = []
    for count in tracked(counts, "measuring", weight=float):  # more tokens take longer
        costs += measure(names, count, setting)
    note = (
        f"{dim} channels, {num_heads} heads, batch {batch}, {dtype}, {' and '.join(chosen)}, {device}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, medians of {repeats} interleaved calls"
    )
    print_table(write_costs(folder, costs, note), f"written to {folder}")
