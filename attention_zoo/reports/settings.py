"""Find in what runs differ beside their seed: by the axes of their sweep, and by anything else."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from attention_zoo.errors import InputError
from attention_zoo.sweeps.axes import plain, settings
from attention_zoo.sweeps.plan import Plan

NOT_A_SETTING = ("seed_everything", "trainer.default_root_dir", "ckpt_path")
"""Keys of a config that may differ between runs of the same setting."""


@dataclass(frozen=True)
class Facts:
    """The facts that are known about how a finished run was made.

    Attributes:
        setting: the name that tables give to its values of the axes.
        values: the label of each axis's value, by the axis's name.
        seed: the seed of the run.
        config: the resolved config, with its keys joined by dots.
        machine: device, processes, threads and versions, with their keys joined by dots.
    """

    setting: str
    values: Mapping[str, Any]
    seed: int | None
    config: Mapping[str, Any]
    machine: Mapping[str, Any]


def differences(plan: Plan, runs: Sequence[Facts]) -> Iterator[str]:
    """Yield a line for each axis with the keys that it sets, then one for every other difference between the runs."""
    axes = {name: _keys(plan.choices(name), name) for name in plan.names}
    followed: dict[str, dict[str, list[str]]] = {}
    rest = []
    for key in dict.fromkeys(key for run in runs for key in run.config):
        if key in NOT_A_SETTING or len({_text(run.config.get(key)) for run in runs}) < 2:
            continue
        setters = {name: prefix for name, keys in axes.items() if (prefix := _cover(keys, plain(key)))}
        if setters and _is_function_of(setters, key, runs):
            for name, prefix in setters.items():
                followed.setdefault(name, {}).setdefault(prefix, []).append(plain(key)[len(prefix) + 1 :])
        else:
            rest.append(key)
    for name, keys in followed.items():
        yield f"axis {plan.titles[name]} sets {', '.join(_listed(key, parts) for key, parts in keys.items())}"
    for key in rest:
        yield _told(f"differs, though no axis sets it: {key}", runs, [run.config.get(key) for run in runs])
    yield from _machines(runs)


def changes(runs: Sequence[Facts]) -> Iterator[str]:
    """Yield a line for each key of the config and each fact of the machine in which runs outside a sweep differ."""
    known = [run for run in runs if run.config]
    for key in dict.fromkeys(key for run in known for key in run.config):
        values = [run.config.get(key) for run in known]
        if key not in NOT_A_SETTING[1:] and len(set(map(_text, values))) > 1:
            yield _told(f"differs: {plain(key) or key}", known, values)
    yield from _machines(runs)


def _machines(runs: Sequence[Facts]) -> Iterator[str]:
    known = [run for run in runs if run.machine]
    for key in dict.fromkeys(key for run in known for key in run.machine):
        values = [run.machine.get(key) for run in known]
        if len(set(map(_text, values))) > 1:
            yield _told(f"differs: {key}", known, values)


def shared(runs: Sequence[Facts]) -> Iterator[str]:
    """Yield one line with the machine and versions that all finished runs share; nothing where they share none."""
    runs = [run for run in runs if run.machine]
    keys = list(dict.fromkeys(key for run in runs for key in run.machine))
    values = {key: {_text(run.machine.get(key)) for run in runs} for key in keys}
    same = [f"{key.removeprefix('versions.')} {runs[0].machine[key]}" for key in keys if len(values[key]) == 1]
    if same:
        yield f"all runs: {', '.join(same)}"


def _keys(values: Sequence[Any], axis: str) -> set[str]:
    """Return the keys that the values of an axis set; a config file that cannot be read any more adds none."""
    keys: set[str] = set()
    for value in values:
        with suppress(InputError):
            keys |= settings(axis, value).keys()
    return keys


def _cover(keys: set[str], key: str) -> str | None:
    """Return the shortest of ``keys`` that is ``key`` itself or a parent of it; None where there is none."""
    return min((each for each in keys if key == each or key.startswith(f"{each}.")), key=len, default=None)


def _is_function_of(axes: Mapping[str, Any], key: str, runs: Sequence[Facts]) -> bool:
    """Return whether all runs that agree in the values of the axes also agree in the value of a key."""
    outcomes: dict[str, str] = {}
    for run in runs:
        value = _text(run.config.get(key))
        if outcomes.setdefault(repr([run.values[name] for name in axes]), value) != value:
            return False
    return True


def _told(what: str, runs: Sequence[Facts], values: Sequence[Any]) -> str:
    """Return a line that says which runs have which value; those with the most common value are "all others"."""
    texts = list(map(_text, values))
    ((common, _), *others) = Counter(texts).most_common()
    told = []
    for text, _ in others:
        settings: dict[str, list[int | None]] = {}
        for run, own in zip(runs, texts, strict=True):
            if own == text:
                settings.setdefault(run.setting, []).append(run.seed)
        named = []
        for setting, seeds in settings.items():
            whole = len(seeds) == sum(run.setting == setting for run in runs)
            named.append(setting if whole else f"{setting} (seed {', '.join(map(str, seeds))})")
        told.append(f"{text} in {'; '.join(named)}")
    return f"{what} = {', '.join(told)}, {common} in all others"


def _listed(key: str, parts: Sequence[str]) -> str:
    below = [part for part in dict.fromkeys(parts) if part]
    return f"{key} ({', '.join(below)})" if below else key


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
