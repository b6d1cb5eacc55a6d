"""Claims of papers from the command line."""

import shutil
from pathlib import Path

import pytest

CLAIMS = """
documents: {Report: a report}
studies:
  mixers:
    folder: mixers
    scale: small
    command: python -m attention_zoo sweep --config configs/sweeps/cifar10_mixers.yaml
    columns: {test/accuracy: {name: "top-1, %", factor: 100}}
claims:
  vars-d:
    words: VARS-D is better
    document: Report
    place: Table 1
    expect: higher
    test: {study: mixers, column: test/accuracy, setting: VarsD, baseline: Performer}
  vars-s:
    words: VARS-S is worse
    document: Report
    place: Table 1
    expect: lower
    test: {study: mixers, column: test/accuracy, setting: VarsS, baseline: Performer}
"""
RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture
def folder(tmp_path):
    """Two claims, with the committed runs of their three settings."""
    (tmp_path / "claims.yaml").write_text(CLAIMS)
    committed, study = RESULTS / "cifar10_mixers", tmp_path / "mixers"
    for setting in ("Performer", "VarsD", "VarsS"):
        for run in committed.glob(f"runs/mixer={setting},*"):
            shutil.copytree(run, study / "runs" / run.name)
    shutil.copy(committed / "sweep.yaml", study)
    return tmp_path


def test_it_writes_then_checks_and_fails_by_name(zoo, folder):
    ended = zoo("claims", "--folder", folder)
    assert ended.code == 0 and "written to" in ended.out and "vars-d" in ended.out
    assert zoo("claims", "--folder", folder, "--check").code == 0
    log = folder / "mixers" / "runs" / "mixer=VarsD,seed=1" / "run.json"
    log.write_text(log.read_text().replace('"test/accuracy": 0.5', '"test/accuracy": 0.6'))
    ended = zoo("claims", "--folder", folder, "--check")
    assert ended.code == 1 and ended.out.startswith("claim vars-d: difference is ")
    assert "claim vars-s: difference" not in ended.out


def test_a_study_without_a_folder_is_named(zoo, folder):
    assert "no folder" not in zoo("claims", "--folder", folder).out
    (folder / "mixers").rename(folder / "mixerz")
    ended = zoo("claims", "--folder", folder)
    assert ended.code == 0 and "and so no runs, of the studies: mixers" in ended.out


def test_without_claims_without_a_page_and_with_somebodys_own(zoo, folder):
    (folder / "README.md").write_text("mine")
    for arguments, words in (
        (["--folder", folder / "none"], "claims.yaml does not exist"),
        (["--folder", ""], "folder is empty"),
        (["--folder", folder, "--check"], "claims.csv does not exist"),
        (["--folder", folder], "not overwritten"),
    ):
        ended = zoo("claims", *arguments)
        assert (ended.code, ended.out) == (2, "")
        assert words in ended.err and len(ended.err.splitlines()) == 1
    assert (folder / "README.md").read_text() == "mine"


def test_help_has_an_example(zoo):
    assert "python -m attention_zoo claims --check" in " ".join(zoo("claims", "--help").out.split())
