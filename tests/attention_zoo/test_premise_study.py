"""What the page of the premises says in numbers follows from its tables."""

import csv
import re
from pathlib import Path

import pytest

STUDY = Path(__file__).parents[2] / "results" / "premises"
PAGE = (STUDY / "README.md").read_text()


def rows(name):
    with (STUDY / "cifar10" / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_accuracies():
    found = {(row["model"], row["way"]): 100 * float(row["accuracy"]) for row in rows("controls/accuracy.csv")}
    ways = ("as it is", "nothing learned", "30 steps", "3 steps from zeros", "best codes")
    for name in ("VarsD", "VarsSD", "VarsS"):
        cells = [f"{found[name, way]:.1f}" if (name, way) in found else "-" for way in ways]
        assert f"| `{name}` | {' | '.join(cells)} |" in PAGE
    said = re.search(
        r"it gets ([\d.]+) % right; with\s+64 .* ([\d.]+) %, with 256 .* ([\d.]+) %, with .* ([\d.]+) %", PAGE
    )
    expected = ("as it is", "64 features redrawn", "256 features redrawn", "softmax")
    assert said.groups() == tuple(f"{found['Performer', way]:.1f}" for way in expected)


@pytest.mark.parametrize(
    ("model", "network", "way", "line"),
    [
        ("VarsD", "untrained", "as it is", "untrained"),
        ("VarsD", "trained", "as it is", "trained"),
        ("VarsD", "trained", "nothing learned", "trained, Γ and step set back to ISTA's"),
        ("VarsD", "trained", "nothing learned, from zeros", "the same, from codes of zeros"),
        ("VarsS", "trained", "as it is", "`VarsS`, trained"),
    ],
)
def test_gaps_step_by_step(model, network, way, line):
    (said,) = re.findall(rf"^\| {line} \| (.*) \|$", PAGE, re.MULTILINE)
    for steps, cell in zip((0, 3, 10, 30, 100), said.split(" | "), strict=True):
        found = [
            float(row["value"])
            for row in rows("controls/codes.csv")
            if (row["model"], row["network"], row["way"], row["steps"]) == (model, network, way, str(steps))
            and row["measure"] == "gap to the least objective"
        ]
        ends = [float(end.replace(",", "")) for end in cell.split(" to ")]
        assert ends == pytest.approx([min(found), max(found)][-len(ends) :], rel=0.05, abs=0.005)


@pytest.mark.parametrize(
    ("measure", "models", "line"),
    [
        ("gap to the least objective", ["VarsD"], r"gap ([\d.]+) to ([\d.]+); 1 to 3 %"),
        ("gap to the least objective", ["VarsSD"], r"gap ([\d.]+) to ([\d.]+); 2 to 6 %"),
        (
            "variance of keys within clusters",
            ["KMeans", "Cluster"],
            r"([\d.]+) to ([\d.]+) of the keys' variance is within",
        ),
        ("leave-one-out error of the values", ["DotProduct"], r"those it reads ([\d.]+) to ([\d.]+), by all others"),
    ],
)
def test_ranges_over_layers(measure, models, line):
    found = [float(row["mean"]) for row in rows("premises.csv") if row["measure"] == measure and row["model"] in models]
    low, high = map(float, re.search(line, PAGE).groups())
    assert (low, high) == pytest.approx((min(found), max(found)), rel=0.02)
