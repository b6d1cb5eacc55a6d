"""``python -m attention_zoo sweep``: one recipe over mixers, seeds and any other axis."""

import os
import signal
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from attention_zoo.cli.console import console
from attention_zoo.cli.report import report_on
from attention_zoo.domains import Seed
from attention_zoo.errors import InputError

MOST_WORKERS = 1024
"""Runs at a time, and threads of each, of the largest machines."""


def sweep(
    *,
    out: str,
    configs: list[str],
    axes: dict[str, Any] | None = None,
    seeds: list[Seed] | None = None,
    options: dict[str, Any] | None = None,
    draws: int | None = None,
    runs: dict[str, dict[str, Any]] | None = None,
    evaluations: dict[str, dict[str, Any]] | None = None,
    baseline: dict[str, Any] | None = None,
    collect: list[str] | None = None,
    workers: int = 1,
    threads: int | None = None,
    hours: float | None = None,
    retry_failed: bool = False,
    dry_run: bool = False,
    engine: Literal["local", "submitit"] = "local",
    cluster: str | None = None,
    engine_args: dict[str, Any] | None = None,
) -> None:
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
        evaluations: what follows a training: by name, options of test (default: one test).
        baseline: values of axes that a report compares with.
        collect: metrics that tables show, <evaluation>/<metric>; default all.
        workers: runs at a time.
        threads: of each process (default: cores / workers).
        hours: no run starts later than this.
        retry_failed: try those again that failed.
        dry_run: only list the runs, and what is known of their cost.
        engine: what runs them: processes of this machine, or submitit.
        cluster: of submitit: slurm, or local to try it.
        engine_args: of submitit, such as slurm_partition, timeout_min, gpus_per_node.
    """
    from attention_zoo.cli.dry_run import show_plan
    from attention_zoo.sweeps import driver
    from attention_zoo.sweeps.engines import Local, Submitit
    from attention_zoo.sweeps.plan import ENGINE, Plan

    given = locals()
    plan = Plan(**{part.name: given[part.name] for part in fields(Plan) if given[part.name] is not None})
    _check_limits(workers, threads, hours)
    folder, screen = Path(out), console()
    if dry_run:
        show_plan(plan, folder, workers)
        return
    runner = Local(workers) if engine == "local" else Submitit(folder / ENGINE, cluster, engine_args or {})
    threads = threads or max(1, (os.cpu_count() or 1) // workers)
    limits = {"workers": workers, "threads": threads, "hours": hours, "retry": retry_failed}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # asked to end, end as after Ctrl-C
    try:
        found = driver.carry_out(plan, folder, runner, console=screen, **limits)
    except KeyboardInterrupt:
        screen.print(f"stopped; the same command goes on with {folder}", markup=False)
        raise
    screen.print(driver.table(plan, found))
    unfinished = sum(row.record.status in ("waiting", "running") for row in found)
    if unfinished:
        screen.print(f"{unfinished} runs are left; the same command goes on with {folder}", markup=False)
    if any(row.record.status == "done" for row in found):
        report_on(folder)
    failed = [row for row in found if row.record.status == "failed"]
    for row in failed:
        screen.print(f"failed: {row.run.name}: {row.record.reason}", markup=False, soft_wrap=True)
    if failed:
        screen.print("--retry_failed true tries them again", markup=False)
        sys.exit(1)


def _check_limits(workers: int, threads: int | None, hours: float | None) -> None:
    for name, value in (("workers", workers), ("threads", 1 if threads is None else threads)):
        if value < 1:
            raise InputError(f"{name}={value} must be at least 1")
        if isinstance(value, bool) or value > MOST_WORKERS:
            raise InputError(f"{name} must be a number from 1 to {MOST_WORKERS}")
    if hours is not None and not hours >= 0:
        raise InputError(f"hours={hours} must be a number from 0")
