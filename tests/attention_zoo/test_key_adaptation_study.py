import importlib.util
from pathlib import Path

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
    assert report.table(runs, cells) == (STUDY / "table.md").read_text()
    assert report.controls(STUDY) == (STUDY / "controls.md").read_text()
    assert report.spaces(STUDY) == (STUDY / "spaces.md").read_text()


def test_what_its_page_says_of_twelve_networks_follows_from_its_runs(report):
    runs = report.read(STUDY)
    cells = [cell for cell in report.CELLS if len(runs.get((cell, "camvid", "as trained"), ())) == 3]
    assert len(cells) == 4
    means = {}
    for domain in report.DOMAINS:
        gains = [
            (runs[cell, domain, "as trained"][seed] - runs[cell, domain, report.NONE][seed]).mean(0)
            for cell in cells
            for seed in range(3)
        ]
        assert all(gain[6] < 0 for gain in gains)
        means[domain] = sum(gain[6] for gain in gains) / 12
    assert means == pytest.approx({"camvid": -6.2, "bsds": -4.6, "davis": -5.4}, abs=0.05)
