"""Check a sweep before anything runs: the types of its parts, its seeds, number of runs, and the keys that it sets."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from attention_zoo.errors import InputError, unknown
from attention_zoo.sweeps import axes
from attention_zoo.sweeps.axes import is_range, settings

if TYPE_CHECKING:
    from attention_zoo.sweeps.plan import Plan

MOST_RUNS = 10_000
"""The most runs in a sweep; more are taken for a mistake."""

MOST_SEED = 2**32 - 1
"""The largest seed that numpy and Lightning take."""

OWNED = {
    "seed_everything": "seeds set it",
    "trainer.default_root_dir": "every run has a folder of its own",
    "ckpt_path": "every run goes on from its own checkpoint",
}
"""Keys that no axis and no option of a sweep may set, each with the reason."""

FIT = "fit"
"""The name of a run's training among its parts; the other parts are evaluations."""

EXCEPT = "except"
"""The key of an evaluation that is no option: the runs which it does not follow, by axis and label (or a list)."""


def check_plan(plan: "Plan") -> None:
    """Check every part of a sweep that can be checked without reading a file.

    Raises:
        InputError: the parts make no sweep.
    """
    if plan.runs is not None and (plan.axes or plan.draws is not None):
        raise InputError("sweep: give axes or a list of runs, not both")
    _check_types(plan)
    _check_seeds(plan)
    for name, axis in plan.axes.items():
        axes.check_axis(name, axis, drawing=plan.draws is not None)
    if plan.runs is not None:
        axes.check_labels("sweep: runs", list(plan.runs), plan.runs)
        for label, chosen in plan.runs.items():
            axes.check_options(f"sweep: run {label!r}", chosen)
    _check_count(plan)
    _check_evaluations(plan)
    _check_baseline(plan)


def _check_types(plan: "Plan") -> None:
    wanted = {"configs": list, "axes": dict, "options": dict, "evaluations": dict}
    wanted |= {"runs": dict, "baseline": dict, "collect": list}
    for key, kind in wanted.items():
        value = getattr(plan, key)
        if not isinstance(value, kind) and not (value is None and key in ("runs", "baseline", "collect")):
            word = "list" if kind is list else "mapping"
            raise InputError(f"sweep: {key} must be a {word}, got {type(value).__name__} {value!r:.60}")
    for key in ("configs", "collect"):
        for text in getattr(plan, key) or []:
            if not isinstance(text, str) or not text:
                raise InputError(f"sweep: {key} must be a list of words, got {text!r:.60}")
    for key in ("runs", "evaluations"):
        for name, chosen in (getattr(plan, key) or {}).items():
            if not isinstance(chosen, dict):
                raise InputError(
                    f"sweep: {name!r} of {key} must be a mapping of options, got {key}.{name}: {chosen!r:.60}"
                )
    for key in ("options", "runs", "evaluations", "baseline"):
        axes.check_plain(f"sweep: {key}", getattr(plan, key))
    for name in plan.axes:
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise InputError(f"sweep: {name!r} is no name of an axis")


def _check_seeds(plan: "Plan") -> None:
    if not isinstance(plan.seeds, list) or not plan.seeds:
        raise InputError(f"sweep: seeds must be different numbers, at least one; got {plan.seeds!r:.60}")
    for seed in plan.seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MOST_SEED:
            raise InputError(f"sweep: a seed must be a whole number from 0 to {MOST_SEED:,}, got {_short(seed)}")
    if len(set(plan.seeds)) < len(plan.seeds):
        raise InputError(f"sweep: seeds must be different numbers, at least one; got {plan.seeds!r:.60}")


def _check_count(plan: "Plan") -> None:
    if plan.draws is not None and (isinstance(plan.draws, bool) or not isinstance(plan.draws, int)):
        raise InputError(f"sweep: draws must be a whole number, got {plan.draws!r:.60}")
    if plan.draws is not None and plan.draws < 1:
        raise InputError(f"sweep: draws={_short(plan.draws)} must be at least 1")
    count = plan.draws or math.prod(len(plan.labels(name)) for name in plan.names)
    if count * len(plan.seeds) > MOST_RUNS:
        raise InputError(f"sweep: {_short(count * len(plan.seeds))} runs; at most {MOST_RUNS:,} make a sweep")


def _check_evaluations(plan: "Plan") -> None:
    for name, chosen in plan.evaluations.items():
        if not isinstance(name, str) or not name.strip() or not name.isprintable() or "/" in name:
            raise InputError(f"sweep: {name!r} is no name of an evaluation; use words, without /")
        if name == FIT:
            raise InputError(f"sweep: {FIT!r} is the training; call the evaluation something else")
        here = f"evaluation {name!r}"
        axes.check_options(f"sweep: {here}", chosen)
        if EXCEPT not in chosen:
            continue
        left_out = chosen[EXCEPT]
        if not isinstance(left_out, dict) or [] in left_out.values():
            raise InputError(f"sweep: {here}: {EXCEPT} must be AXIS: LABEL or AXIS: [LABELS], got {left_out!r:.60}")
        for axis in left_out:
            if plan.runs is None and is_range(plan.axes.get(axis, ())):
                raise InputError(f"sweep: {here}: {EXCEPT} cannot name values of {axis}, which are drawn at random")
        _check_labels(plan, {axis: several(labels) for axis, labels in left_out.items()}, f"{EXCEPT} of {here}")
        if not any(plan.follows(name, run) for run in plan.all_runs()):
            raise InputError(f"sweep: {here} follows no run: {EXCEPT} names them all")


def several(labels: Any) -> list[Any]:
    """Return the labels that a value of `EXCEPT` lists; what is no list is one label."""
    return labels if isinstance(labels, list) else [labels]


def _check_baseline(plan: "Plan") -> None:
    if plan.baseline is not None:
        _check_labels(plan, {axis: [value] for axis, value in plan.baseline.items()}, "the baseline")


def _check_labels(plan: "Plan", chosen: dict[str, list[Any]], here: str) -> None:
    if not chosen:
        raise InputError(f"sweep: {here} names no axis; leave it out, or give AXIS: LABEL")
    for name, values in chosen.items():
        if name not in plan.names:
            raise unknown(f"axis of {here}", str(name), plan.names)
        labels = [] if plan.runs is None and is_range(plan.axes[name]) else plan.labels(name)
        for value in values:
            if labels and axes.label_of(value) not in labels:
                raise unknown(f"{name} of {here}", str(value), map(str, labels))


def check_keys(plan: "Plan") -> None:
    """Check that no axis or option sets a key that belongs to the sweep, or one that another sets too.

    Of two that set the same key, one would be lost silently.

    Raises:
        InputError: a key belongs to the sweep or is set twice, an evaluation's ``ckpt_path`` is neither ``last`` nor
            ``best``, or a config cannot be read.
    """
    shared = settings("", plan.options)
    _refuse_owned("options", shared, OWNED)
    for name, chosen in plan.evaluations.items():
        _refuse_owned(f"evaluation {name!r}", settings("", chosen), ["trainer.default_root_dir"])
        if chosen.get("ckpt_path") not in (None, "last", "best"):
            raise InputError(f"sweep: evaluation {name!r}: ckpt_path is last or best, of the run's own checkpoints")
    earlier: list[tuple[str, Any, dict[str, Any]]] = [("options", "", shared)]
    for name in plan.names:
        values = [(label, settings(name, value)) for label, value in plan.labels_and_values(name)]
        for label, later in values:
            here = f"run {label!r}" if plan.runs is not None else f"axis {name!r}"
            _refuse_owned(here, later, OWNED)
            for other, its_label, before in earlier:
                for key, old in axes.overrules(later, before):
                    if key == old == axes.plain(name) and other != "options":
                        continue  # the axis is named after the option: its column shows the value
                    of = f"{other} ({its_label})" if other != "options" else other
                    raise InputError(
                        f"sweep: {here} ({label}) and {of} both set {old}; one of them would be lost"
                        if key == old
                        else f"sweep: {here} ({label}) sets {key} anew, and {old} of {of} would be lost"
                    )
        earlier += [(f"axis {name!r}", label, before) for label, before in values]


def _refuse_owned(here: str, chosen: dict[str, Any], owned: Iterable[str]) -> None:
    for key in owned:
        if chosen.get(key) is not None:
            raise InputError(f"sweep: {here} sets {key}, which is not its to set: {OWNED[key]}")


def _short(number: Any) -> str:
    """Return a number as text for a message; of a huge integer, which Python may not write, the number of bits."""
    big = isinstance(number, int) and abs(number) >= axes.LARGEST
    return f"a number of {number.bit_length()} bits" if big else f"{number!r:.60}"
