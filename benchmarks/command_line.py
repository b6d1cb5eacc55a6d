"""Measure how soon the command line answers, beside the imports of torch, timm and Lightning.

    python benchmarks/command_line.py [--repeats 5]

Times are CPU seconds of programs of their own, medians of calls in turns, so that other work on the machine counts
little. Goals: `mixers` and `--help` in under half of the imports, `fit --help` in under 1.5 times of them.
"""

import os
import subprocess
import sys
from statistics import median

from jsonargparse import auto_cli

IMPORTS = ["-c", "import torch, timm, lightning"]
ZOO = ["-m", "attention_zoo"]
CALLS = {
    "import torch, timm, lightning": IMPORTS,
    "attention_zoo --help": [*ZOO, "--help"],
    "attention_zoo mixers": [*ZOO, "mixers"],
    "attention_zoo fit --help": [*ZOO, "fit", "--help"],
    "attention_zoo fit --help all": [*ZOO, "fit", "--help", "all"],
}


def seconds(words: list[str]) -> float:
    """Return the CPU seconds, of user and system, that a program takes."""
    before = os.times()
    subprocess.run([sys.executable, *words], stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main(repeats: int = 5) -> None:
    """Print the median of each call, and its ratio to the imports.

    Args:
        repeats: interleaved calls of each.
    """
    times: dict[str, list[float]] = {name: [] for name in CALLS}
    for _ in range(repeats):
        for name, words in CALLS.items():
            times[name].append(seconds(words))
    baseline = median(next(iter(times.values())))
    for name, taken in times.items():
        print(f"{name:32} {median(taken):6.2f} s {median(taken) / baseline:6.2f}")


if __name__ == "__main__":
    auto_cli(main)
