"""Shows a sweep before it runs: its runs, what their models cost, and the time that is left."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import lightning as L
from rich.console import Console

from attention_zoo.errors import InputError
from attention_zoo.reports.table import Table
from attention_zoo.runs.cost_log import count_flops, count_parameters
from attention_zoo.sweeps import driver
from attention_zoo.sweeps.plan import Plan
from attention_zoo.terminal import print_table

Build = Callable[[Sequence[str]], L.LightningModule]
"""A function that returns the task which ``fit`` would train, from the arguments of the command line."""


def show_plan(plan: Plan, out: Path, workers: int, screen: Console, build: Build) -> None:
    """Print the runs, the costs of the models, and an estimate of the time left from the runs that are done.

    Args:
        plan: the sweep.
        out: the folder of the sweep; what is done there is not done again.
        workers: how many runs would run at a time.
        screen: where the runs and the time are printed; the costs go to stdout.
        build: a function that builds the task of a run, and raises InputError where ``fit`` would refuse it.
    """
    states = driver.rows(plan, out)
    screen.print(driver.table(plan, states))
    header = (*plan.titles.values(), "parameters, M", "GFLOPs an image")
    print_table(Table(header, tuple(_costs(plan, build))), "models")
    done = sum(row.record.status == "done" for row in states)
    estimate = "how long they take is known after the first"
    if done:
        hours = sum(driver.seconds_left(states).values()) / workers / 3600
        estimate = f"about {hours:.1f} h at {workers} a time, by the {done} that are done"
    screen.print(f"{len(states) - done} to run; {estimate}")


def _costs(plan: Plan, build: Build) -> Iterator[tuple[str, ...]]:
    """Yield the values of each setting, and parameters and operations of its model, or what is wrong with it."""
    for run in plan.all_runs():
        if run.seed != plan.seeds[0]:
            continue
        values = tuple(map(str, run.values.values()))
        try:
            task = build([*plan.recipe(), *run.arguments])
            flops = count_flops(task)
        except InputError as error:
            yield (*values, f"fails: {error}", "")
            continue
        yield (*values, f"{count_parameters(task) / 1e6:.3g}", "" if flops is None else f"{flops / 1e9:.3g}")
