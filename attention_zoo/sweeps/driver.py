"""Carry out a sweep: hand its jobs to an engine, a few at a time, and show their states."""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from attention_zoo.errors import InputError
from attention_zoo.runs.folders import refuse_links
from attention_zoo.runs.results import read_metrics
from attention_zoo.sweeps.engines import Engine, Handle
from attention_zoo.sweeps.job import Job
from attention_zoo.sweeps.lock import held
from attention_zoo.sweeps.plan import LOCK, Plan, Run
from attention_zoo.sweeps.queue import Queue
from attention_zoo.sweeps.record import Record, known_record
from attention_zoo.terminal import terminal, text_table

PAUSE = 0.5
"""The seconds between two checks of the jobs."""


class Row(NamedTuple):
    """A run of a sweep with what is known of it, as a row of a table shows it.

    Attributes:
        run: the run of the plan.
        record: its state, measurements and times.
        epoch: the last epoch that was measured, from 0; None before any.
        problem: what is wrong with files of the run that cannot be read; None where all can.
    """

    run: Run
    record: Record
    epoch: int | None
    problem: str | None = None


def folder_of(out: Path, run: Run) -> Path:
    """Return the folder of a run, below the sweep's folder ``out``."""
    return out / "runs" / run.name


def rows(plan: Plan, out: Path) -> list[Row]:
    """Return a row for every run of the plan, read from the run's folder."""
    return [_row(run, folder_of(out, run)) for run in plan.all_runs()]


def _row(run: Run, folder: Path) -> Row:
    record, problem = known_record(folder)
    try:
        measured = read_metrics(folder)
    except InputError as error:
        return Row(run, record, None, "; ".join(filter(None, (problem, str(error)))))
    return Row(run, record, measured[-1].epoch if measured else None, problem)


def seconds_left(states: Sequence[Row]) -> dict[str, float]:
    """Return an estimate of the seconds that each unfinished run still needs, by its name; empty if no run is done.

    The estimate is the mean time of the same setting with other seeds, or of all finished runs where there are none,
    less the time that the run has spent already.
    """
    done = [row for row in states if row.record.status == "done"]
    if not done:
        return {}
    left = {}
    for run, record, *_ in states:
        if record.status != "done":
            alike = [row for row in done if row.run.values == run.values] or done
            left[run.name] = max(0.0, statistics.fmean(row.record.seconds for row in alike) - record.seconds)
    return left


def carry_out(
    plan: Plan,
    out: Path,
    engine: Engine,
    *,
    workers: int = 1,
    threads: int = 1,
    hours: float | None = None,
    retry: bool = False,
    console: Console | None = None,
) -> list[Row]:
    """Carry out the runs of a sweep that are not done yet.

    They start seed by seed. Within a seed the run that is known to need longest comes first, so that it does not run
    alone at the end.

    Args:
        plan: the sweep.
        out: the folder of the sweep.
        engine: the engine that runs the jobs.
        workers: how many jobs run at a time.
        threads: the number of threads of each process.
        hours: the hours after which no further run starts; None is no limit.
        retry: whether runs that failed are tried again.
        console: where the table is shown; on a terminal it is kept up to date in place.

    Returns:
        A row for every run, as it is at the end.

    Raises:
        InputError: the folder belongs to another sweep, is in use, or cannot be written.
    """
    plan.check(out)
    refuse_links(out / "runs", *(folder_of(out, run) for run in plan.all_runs()))
    with held(out / LOCK) as lock:
        if lock is None:
            raise InputError(
                f"another sweep is at work in {out}: wait for its end, or choose another folder with --out"
            )
        plan.keep(out)
        jobs = [Job(plan, run, folder_of(out, run), threads, retry, engine.stop) for run in _in_order(plan, out)]
        console = console or terminal()
        failed: dict[str, Record] = {}
        with _shown(plan, out, failed, console) as show:
            _loop(jobs, engine, workers, hours, failed, show)
    return _with_failures(rows(plan, out), failed)


def _with_failures(states: list[Row], failed: dict[str, Record]) -> list[Row]:
    """Return the rows, with records of failures that could not be written to the folders of their runs."""
    return [row._replace(record=failed.get(row.run.name, row.record)) for row in states]


def _in_order(plan: Plan, out: Path) -> list[Run]:
    states = rows(plan, out)
    left = seconds_left(states)
    return sorted((row.run for row in states), key=lambda run: (plan.seeds.index(run.seed), -left.get(run.name, 0)))


def _loop(
    jobs: Sequence[Job],
    engine: Engine,
    workers: int,
    hours: float | None,
    failed: dict[str, Record],
    show: Callable[[], None],
) -> None:
    """Run the jobs; the records of those that fail are added to ``failed``, since not every folder can be written."""
    waiting, running = Queue(jobs, engine.pauses), dict[str, tuple[Job, Handle]]()
    deadline = time.monotonic() + 3600 * hours if hours is not None else float("inf")
    show()  # warns of broken files before a run renames them
    try:
        while running or (waiting and time.monotonic() < deadline):
            for name, (job, handle) in list(running.items()):
                if handle.done():
                    del running[name]
                    record = handle.result()
                    if record.status == "failed":
                        failed[name] = record
                    elif record.status != "done":  # a process of an earlier sweep still has it, or its machine is gone
                        waiting.put_back(job)
            while len(running) < workers and time.monotonic() < deadline and (next_job := waiting.take()):
                running[next_job.run.name] = (next_job, engine.submit(next_job))
            show()
            time.sleep(PAUSE)
    finally:
        engine.close()
        show()


class _shown:
    """A context that shows a sweep: a live table on a terminal, else a line whenever a run changes its state."""

    def __init__(self, plan: Plan, out: Path, failed: dict[str, Record], console: Console) -> None:
        self.plan, self.out, self.failed, self.console = plan, out, failed, console
        self.live = Live(console=console, refresh_per_second=2, transient=True) if console.is_terminal else None
        self.known: dict[str, str] = {}
        self.told: set[str] = set()

    def __enter__(self) -> Callable[[], None]:
        (self.live or nullcontext()).__enter__()
        return self.show

    def __exit__(self, *error: Any) -> None:
        (self.live or nullcontext()).__exit__(*error)

    def show(self) -> None:
        """Read the state of every run and bring the display up to date."""
        states = _with_failures(rows(self.plan, self.out), self.failed)
        for problem in dict.fromkeys(row.problem for row in states if row.problem):
            if problem not in self.told:
                self.told.add(problem)
                sys.stderr.write(f"warning: left out: {problem}\n")
        if self.live:
            self.live.update(table(self.plan, states))
            return
        for row in states:
            status = row.record.status
            if self.known.get(row.run.name, "waiting") != status:
                reason = f": {row.record.reason}" if row.record.reason else ""
                self.console.print(f"{row.run.name}: {status}{reason}", markup=False, highlight=False, soft_wrap=True)
            self.known[row.run.name] = status


COLOURS = {"done": "green", "running": "yellow", "failed": "red", "waiting": "dim"}


def table(plan: Plan, states: Sequence[Row]) -> Table:
    """Return a table with a row for each run: its axes, seed, state, last epoch (from 1) and metrics."""
    metrics = collected(plan, states)
    done = sum(row.record.status == "done" for row in states)
    header = (*plan.titles.values(), "seed", "state", "epoch", *metrics)
    lines: list[tuple[str | Text, ...]] = []
    for run, record, epoch, _ in states:
        state = Text(record.status, style=COLOURS[record.status])
        flat = flat_metrics(record)
        numbers = ["" if flat.get(name) is None else f"{flat[name]:.4g}" for name in metrics]
        values = [str(run.values[name]) for name in plan.names]
        lines.append((*values, str(run.seed), state, "" if epoch is None else str(epoch + 1), *numbers))
    return text_table(header, lines, title=f"{done} of {len(states)} runs done")


def flat_metrics(record: Record) -> dict[str, float | None]:
    """Return the metrics of a run by ``<evaluation>/<metric>``.

    A metric whose name begins with that of its evaluation keeps it; else a leading ``test/`` is dropped first.
    """
    return {
        metric if metric.startswith(f"{name}/") else f"{name}/{metric.removeprefix('test/')}": value
        for name, measured in record.metrics.items()
        for metric, value in measured.items()
    }


def collected(plan: Plan, states: Sequence[Row]) -> list[str]:
    """Return the names of the metrics to show: those of the plan, or all that were measured."""
    if plan.collect is not None:
        return plan.collect
    return list(dict.fromkeys(name for row in states for name in flat_metrics(row.record)))
