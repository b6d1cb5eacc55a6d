import importlib.util
from pathlib import Path

import numpy as np
import pytest

STUDY = Path(__file__).parents[2] / "results" / "key_adaptation"


@pytest.fixture(scope="module")
def report():
    spec = importlib.util.spec_from_file_location("key_adaptation_report", STUDY / "report.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_its_tables_follow_from_its_runs(report):
    runs = report.read(STUDY)
    cells = [cell for cell in report.CELLS if any((cell, domain, report.NONE) in runs for domain in report.DOMAINS)]
    assert report.table(runs, cells, report.WAYS) == (STUDY / "table.md").read_text()
    stronger = ["nopositions,magnitude", "factored,magnitude"]
    assert report.table(runs, stronger, report.STRENGTHS) == (STUDY / "theta.md").read_text()
    assert report.controls(STUDY) == (STUDY / "controls.md").read_text()
    assert report.spaces(STUDY) == (STUDY / "spaces.md").read_text()


def test_what_its_page_says_of_eighteen_networks_follows_from_its_runs(report):
    runs = report.read(STUDY)
    cells = [
        f"{positions},{prior}"
        for positions in ("nopositions", "factored", "full")
        for prior in ("magnitude", "uniform")
    ]
    better, harm, unclicked = {}, {}, {}
    for domain in report.DOMAINS:
        gains = np.array(
            [
                (runs[cell, domain, "as trained"][seed] - runs[cell, domain, report.NONE][seed]).mean(0)
                for cell in cells
                for seed in range(3)
            ]
        )
        assert (gains[:, 6] < 0).all()
        better[domain] = (gains[:, 0] > 0).sum()
        harm[domain], unclicked[domain] = gains[:, 6].mean(), gains[:, 0].mean()
    assert better == {"camvid": 1, "bsds": 16, "davis": 0}
    assert harm == pytest.approx({"camvid": -6.5, "bsds": -4.8, "davis": -5.0}, abs=0.05)
    assert unclicked == pytest.approx({"camvid": -3.2, "bsds": 1.9, "davis": -2.4}, abs=0.05)


@pytest.mark.parametrize(
    ("cell", "way", "domain", "expected"),
    [
        ("factored,shared", "as trained", "camvid", (-2.4, -5.4)),
        ("factored,trainedthrough", "as trained", "camvid", (4.6, 4.2)),
        ("factored,trainedthrough", "as trained", "bsds", (6.8, 4.3)),
        ("factored,trainedthrough", "as trained", "davis", (1.4, -2.5)),
    ],
)
def test_what_its_page_says_of_other_trainings(report, cell, way, domain, expected):
    runs = report.read(STUDY)
    gains = np.array([(runs[cell, domain, way][n] - runs[cell, domain, report.NONE][n]).mean(0) for n in range(3)])
    assert tuple(gains.mean(0)[[0, 6]]) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    ("domain", "without", "adapted"),
    [("camvid", (-3.9, -3.5), (0.7, 0.7)), ("bsds", (-5.3, -2.8), (1.5, 1.5)), ("davis", (-1.6, 1.4), (-0.2, -1.0))],
)
def test_what_its_page_says_of_networks_each_tested_as_it_was_trained(report, domain, without, adapted):
    runs = report.read(STUDY)
    plain = runs["factored,magnitude", domain, report.NONE]
    for way, expected in ((report.NONE, without), ("as trained", adapted)):
        through = runs["factored,trainedthrough", domain, way]
        gains = np.array([(through[n] - plain[n]).mean(0) for n in range(3)])
        assert tuple(gains.mean(0)[[0, 6]]) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    ("way", "gained", "better"),
    [
        ("five steps", (-1.2, -2.3, -4.3, -5.3), (6, 3, 0, 0)),
        ("as trained", (-0.9, -1.7, -3.2, -4.2), (7, 4, 1, 0)),
        ("theta 0.001", (-0.8, -1.5, -3.0, -3.7), (7, 4, 1, 0)),
        ("theta 1", (-1.0, -0.2, 0.7, 1.2), (2, 8, 13, 14)),
        ("theta 10", (-0.2, 0.1, 0.3, 0.5), (4, 10, 13, 14)),
    ],
)
def test_what_its_page_says_of_how_far_keys_go(report, way, gained, better):
    runs = report.read(STUDY)
    cells = [(cell, domain) for cell in ("nopositions,magnitude", "factored,magnitude") for domain in report.DOMAINS]
    gains = np.array([(runs[*cell, way][n] - runs[*cell, report.NONE][n]).mean(0) for cell in cells for n in range(3)])[
        :, report.SHOWN
    ]
    assert tuple(gains.mean(0)) == pytest.approx(gained, abs=0.051)
    assert tuple((gains > 0).sum(0)) == better
