"""``python -m attention_zoo sweep``: one recipe over mixers, seeds and any other axis."""

import contextlib
import io
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

from attention_zoo.cli.report import report_on
from attention_zoo.domains import Domain, Seed
from attention_zoo.runs.configs import with_bases
from attention_zoo.runs.folders import named_path
from attention_zoo.terminal import console, counted

if TYPE_CHECKING:
    from tasks import Task

Number = Annotated[int, Domain(least=1, most=1024)]
"""A number of runs at a time, or of threads of each."""


def sweep(
    *,
    out: str,
    configs: list[str],
    axes: dict[str, Any] | None = None,
    seeds: list[Seed] | None = None,
    options: dict[str, Any] | None = None,
    draws: int | None = None,
    runs: dict[str, Any] | None = None,
    evaluations: dict[str, Any] | None = None,
    baseline: dict[str, Any] | None = None,
    collect: list[str] | None = None,
    workers: Number = 1,
    threads: Number | None = None,
    hours: float | None = None,
    retry_failed: bool = False,
    dry_run: bool = False,
    engine: Literal["local", "submitit"] = "local",
    cluster: str | None = None,
    engine_args: dict[str, Any] | None = None,
) -> int:
    """Train and evaluate one recipe over mixers, seeds and any other axis.

    Every run is an ordinary fit and its evaluations, in a process and a folder of its own. Start the same command
    again after any interruption: finished runs are kept, broken ones go on from their last checkpoint. A run that
    fails is recorded with its reason and stops no other. It ends with what `report` makes of it, in OUT/report.

    Args:
        out: folder of the sweep, new or to be gone on with.
        configs: configs of every run, in order.
        axes: by name: labels with values, a list of values, or a range to draw from (uniform, log_uniform or integers,
            with least and largest). A value is a config file, a mapping of options, or what the option gets that the
            axis is named after. All combinations run.
        seeds: each combination runs with each (default 0).
        options: further options of every run, by key.
        draws: run so many combinations, drawn at random, instead of all.
        runs: instead of axes, a list of runs by name, each a mapping of options.
        evaluations: what follows a training: by name, options of test (default: one test), and in except the labels of
            runs that it cannot stand for, as {AXIS: [LABELS]}.
        baseline: values of axes that a report compares with.
        collect: metrics that tables show, <evaluation>/<metric>; default all.
        workers: runs at a time.
        threads: threads of each process (default: cores / workers).
        hours: no run starts later than this many hours after the start.
        retry_failed: try those again that failed.
        dry_run: only list the runs, and what is known of their cost.
        engine: how to start runs: as processes of this machine (local), or by submitit.
        cluster: cluster of submitit: slurm, or local to try it.
        engine_args: arguments of submitit, such as slurm_partition, timeout_min, gpus_per_node.

    Returns:
        the exit code: 1 if a run has failed, or is left though the time of hours is not over, else 0.
    """
    from attention_zoo.sweeps import driver
    from attention_zoo.sweeps.engines import Local, Submitit
    from attention_zoo.sweeps.forecast import show_plan
    from attention_zoo.sweeps.gpus import check_accelerators
    from attention_zoo.sweeps.plan import ENGINE, Plan
    from attention_zoo.sweeps.record import ENDED

    arguments = locals()
    plan = Plan(**{part.name: arguments[part.name] for part in fields(Plan) if arguments[part.name] is not None})
    folder, screen = named_path("out", out), console()
    if dry_run:
        show_plan(plan, folder, workers, screen, build)
        return 0
    if engine == "local":
        left = [row.run for row in driver.rows(plan, folder) if retry_failed or row.record.status not in ENDED]
        check_accelerators(plan.recipe(), left)
    runner = Local(workers) if engine == "local" else Submitit(folder / ENGINE, cluster, engine_args or {})
    threads = threads or max(1, (os.cpu_count() or 1) // workers)
    started = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM ends the sweep as Ctrl-C does
    try:
        states = driver.carry_out(
            plan, folder, runner, workers=workers, threads=threads, hours=hours, retry=retry_failed, console=screen
        )
    except KeyboardInterrupt:
        screen.print(f"stopped; the same command goes on with {folder}", markup=False)
        raise
    screen.print(driver.table(plan, states))
    unfinished = sum(row.record.status not in ENDED for row in states)
    cut_short = unfinished > 0 and (hours is None or time.monotonic() - started < 3600 * hours)
    if unfinished:
        why = ", though nothing stopped the sweep" if cut_short else ""
        text = f"{counted(unfinished, 'run is', 'runs are')} left{why}; the same command goes on with {folder}"
        screen.print(text, markup=False, soft_wrap=True)
    if any(row.record.status == "done" for row in states):
        report_on(folder)
    failed = [row for row in states if row.record.status == "failed"]
    for row in failed:
        screen.print(f"failed: {row.run.name}: {row.record.reason}", markup=False, soft_wrap=True)
    if failed:
        screen.print("--retry_failed true tries them again", markup=False)
    return 1 if failed or cut_short else 0


def build(arguments: Sequence[str]) -> "Task":
    """Return the task that ``fit`` would train.

    Raises:
        InputError: fit would refuse the arguments.
    """
    from jsonargparse import Namespace

    from attention_zoo.cli.lightning import ZooCLI

    class Built(ZooCLI):
        """A command line that stops where the training would begin, and makes no folder for it."""

        def claim(self, trainer: Namespace) -> None:
            pass

        def run_command(self, subcommand: str) -> None:
            pass

    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        return Built(["fit", *with_bases(arguments)], None).model
