"""The page of a sweep's report: names in words, one column for a difference and its interval, tables that sort."""

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from attention_zoo.reports.statistics import Difference
from attention_zoo.reports.sweeps.page import page, runs_cells, settings_cells
from attention_zoo.reports.sweeps.report import SweepReport
from attention_zoo.reports.sweeps.tables import runs_table, settings_table
from attention_zoo.reports.words import in_words

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture(scope="module")
def report():
    return SweepReport(RESULTS / "cifar10_mixers")


class Cells(HTMLParser):
    """The tables of a page, each as rows of (text, value to sort by), and what the page loads."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.loads, self._value = [], [], None
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.loads += [found[key] for key in ("src", "href") if key in found]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self._inside = True
            self.tables[-1][-1].append(["", found.get("data-value")])

    def handle_endtag(self, tag):
        self._inside = self._inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self._inside:
            self.tables[-1][-1][-1][0] += data


@pytest.mark.parametrize(
    "metric, words",
    [
        ("test/accuracy", "accuracy"),
        ("test/accuracy_top5", "top-5 accuracy"),
        ("robustness/cifar10_c", "error under corruption, %"),
        ("robustness/imagenet_c", "error under corruption (mCE), %"),
        ("robustness/key adaptation/imagenet_c", "error under corruption (mCE), %, key adaptation"),
        ("robustness/pgd", "accuracy under PGD"),
        ("test/noc_85", "clicks to 85 % IoU"),
        ("test/iou/road", "IoU of road"),
        ("test/panoptic_quality", "panoptic quality"),
        ("mirror/my_own_number", "my own number"),
    ],
)
def test_metrics_in_words(metric, words):
    assert in_words([metric]) == {metric: words}


def test_an_evaluation_is_named_where_it_tells_two_metrics_apart():
    found = in_words(["grabcut/noc_85", "berkeley/noc_85", "grabcut/noc_90"])
    assert list(found.values()) == ["clicks to 85 % IoU, grabcut", "clicks to 85 % IoU, berkeley", "clicks to 90 % IoU"]


def test_names_stay_different():
    metrics = ["a/my_loss", "a/my loss", "a/loss", "b/loss"]
    assert len(set(in_words(metrics).values())) == len(metrics)


def test_the_interval_of_a_difference_is_scipys():
    one, other = {0: 0.5, 1: 0.6, 2: 0.58}, {0: 0.4, 1: 0.56, 2: 0.5}
    values = [one[seed] - other[seed] for seed in one]
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    found = Difference.of(one, other)
    assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high))
    assert math.isnan(Difference.of({0: 1.0}, {0: 2.0}).half_width)
    assert Difference.of({0: 0.5, 1: 0.75}, {0: 0.25, 1: 0.5}).half_width == 0


def test_the_table_of_settings(report):
    headings, rows = settings_cells(report)
    assert headings[:5] == ["mixer", "seeds", "accuracy ↑", "to DotProduct", "accuracy on clean images ↑"]
    assert "error under corruption, % ↓" in headings and not any("/" in name for name in headings[:12])
    by_name = {row[0].text: row for row in rows}
    place = headings.index("error under corruption, % ↓")
    assert by_name["DotProduct"][place + 1].text == ""
    told = by_name["GlobalFilter"][place + 1]
    assert told.text == "+13.7 ± 1.6 *" and told.value == pytest.approx(13.7276, abs=1e-3)
    assert by_name["VarsSD"][place + 1].text == "−0.4 ± 1.2"
    assert len({len(row) for row in rows} | {len(headings)}) == 1


def test_the_page_has_every_number_and_loads_nothing(report):
    text = page(report, settings_table(report), runs_table(report), [])
    found = Cells(text)
    assert found.loads == []
    settings, runs = found.tables
    for shown, (headings, rows) in (
        (settings, settings_cells(report)),
        (runs, runs_cells(report, runs_table(report))),
    ):
        assert [cell.replace("\N{NO-BREAK SPACE}", " ") for cell, _ in shown[0]] == headings
        for row, cells in zip(shown[1:], rows, strict=True):
            assert [cell for cell, _ in row] == [cell.text for cell in cells]
            assert [value and float(value) for _, value in row] == [cell.value for cell in cells]
    assert "prefers-color-scheme: dark" in text and "position: sticky" in text
    assert len(re.findall("<th scope=col><button>", text)) == len(settings[0]) + len(runs[0])


def test_reasons_are_shown_where_a_run_failed(report):
    runs = runs_table(report)
    headings, rows = runs_cells(report, runs)
    assert "reason" not in headings and {len(row) for row in rows} == {len(headings)}
    failed = replace(runs, rows=((*runs.rows[0][:-1], "out of memory"), *runs.rows[1:]))
    headings, rows = runs_cells(report, failed)
    assert headings[-1] == "reason" and rows[0][-1].text == "out of memory"
    assert {len(row) for row in rows} == {len(headings)}
