"""Whatever an option is given, `fit` takes what is valid and refuses the rest in one line that names the option."""

from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attention_zoo.cli import lightning
from attention_zoo.cli.arguments import FROM_DATA
from attention_zoo.cli.main import TOOLS
from tests.fuzz.command_line import Prepared, ended, spots
from tests.fuzz.values import VALUES, Text

SPOTS = spots()
COUNT = Counter()

CASES = st.tuples(st.sampled_from(SPOTS), st.sampled_from(VALUES), st.booleans())
ABSENT = {f"model.{name}" for name in FROM_DATA}
QUIET = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck), "print_blob": False}


def fault(spot, value, in_config):
    """What is wrong with how a command line ended; None if nothing is."""
    if spot.option.name == "pretrained" and value is True:
        return None  # would reach for a network
    in_config = in_config and "callbacks" not in spot.key  # a list of them has no key of an option
    refuses = spot.refuses(value, in_config)
    if spot.command[0] in TOOLS and not refuses:
        return None  # a tool would begin to work
    if spot.key in ABSENT and value is None:
        refuses = False  # what the data give is left out
    try:
        code, said = ended(spot.argv(value, in_config))
    except Exception as error:
        COUNT["traceback"] += 1
        return f"{type(error).__name__}: {error}"
    COUNT["refused" if code else "accepted"] += 1
    lines = said.splitlines()
    if code == 0:
        return "accepted" if refuses else None
    if code != 2 or len(lines) != 1 or not lines[0].startswith("error: ") or len(lines[0]) > 1000:
        return f"exit {code}: {said[:300]}"
    name = "callbacks" if "callbacks" in spot.key else spot.option.name  # their list is parsed as a whole
    named = name in lines[0] or not refuses or (in_config and isinstance(value, Text))
    return None if named else f"does not name the option: {lines[0][:200]}"


@pytest.fixture
def prepared(monkeypatch, tmp_path):
    monkeypatch.setattr(lightning, "ZooCLI", Prepared)
    monkeypatch.chdir(tmp_path)


@settings(max_examples=80, derandomize=True, **QUIET)
@given(case=CASES)
def test_fit_takes_or_refuses(prepared, case):
    assert fault(*case) is None, f"{case[0]} {case[1]!r:.50}"


@pytest.mark.slow
def test_many_more(prepared):
    COUNT.clear()
    faults = []

    @settings(max_examples=1300, **QUIET)
    @given(case=CASES)
    def try_one(case):
        what = fault(*case)
        if what:
            faults.append(f"{case[0]} = {case[1]!r:.50} ({'config' if case[2] else 'argument'}): {what}")

    try_one()
    print(f"{COUNT.total()} cases: {dict(COUNT)}, {len(faults)} faults")  # noqa: T201
    assert not faults, "\n".join(sorted(set(faults)))
    assert COUNT["refused"] + COUNT["accepted"] > 1000
