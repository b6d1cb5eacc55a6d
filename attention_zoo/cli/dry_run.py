"""What a sweep would do and cost, as far as that can be known without doing it."""

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_zoo.cli.console import console, print_table
from attention_zoo.errors import InputError
from attention_zoo.runs.configs import with_bases
from attention_zoo.sweeps import Plan, driver

if TYPE_CHECKING:
    from tasks import Task


def show_plan(plan: Plan, out: Path, workers: int) -> None:
    """List the runs, the models of the settings, and how long it should take by the runs that are done."""
    from attention_zoo.reports.table import Table

    found = driver.rows(plan, out)
    console().print(driver.table(plan, found))
    header = (*plan.titles.values(), "parameters, M", "GFLOPs an image")
    print_table(Table(header, tuple(_costs(plan))), "models")
    done = sum(row.record.status == "done" for row in found)
    if done:
        hours = sum(driver.seconds_left(found).values()) / workers / 3600
        said = f"about {hours:.1f} h at {workers} a time, by the {done} that are done"
    else:
        said = "how long they take is known after the first"
    console().print(f"{len(found) - done} to run; {said}")


def _costs(plan: Plan) -> Iterator[tuple[str, ...]]:
    """Parameters and operations of the model of each setting, or what is wrong with it."""
    from attention_zoo.cli.cost_log import count_flops, count_parameters

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


def build(arguments: list[str]) -> "Task":
    """The task that ``fit`` would train.

    Raises:
        InputError: fit would refuse the arguments.
    """
    from jsonargparse import Namespace

    from attention_zoo.cli.lightning import ZooCLI

    class Built(ZooCLI):
        """Stops where a command would begin, and makes no folder for it."""

        def _claim(self, trainer: Namespace) -> None:
            pass

        def _run_subcommand(self, subcommand: str) -> None:
            pass

    before, said = sys.argv, io.StringIO()
    sys.argv = [sys.argv[0], "fit", *with_bases(arguments)]
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            built: Any = Built(None)
    except SystemExit as end:
        raise InputError(said.getvalue().strip().removeprefix("error: ")) from end
    finally:
        sys.argv = before
    return built.model
