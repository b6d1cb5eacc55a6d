"""Claims of papers from the command line."""

import shutil
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[2] / "results"


@pytest.fixture
def folder(tmp_path):
    """The committed claims, with the runs of three settings of one study."""
    shutil.copy(RESULTS / "claims.yaml", tmp_path)
    study = tmp_path / "cifar10_mixers"
    for run in (RESULTS / "cifar10_mixers" / "runs").iterdir():
        if run.name.partition(",")[0] in ("mixer=Performer", "mixer=VarsD", "mixer=VarsS"):
            shutil.copytree(run, study / "runs" / run.name)
    shutil.copy(RESULTS / "cifar10_mixers" / "sweep.yaml", study)
    return tmp_path


def test_it_writes_then_checks_and_fails_by_name(zoo, folder):
    ended = zoo("claims", "--folder", folder)
    assert ended.code == 0 and "written to" in ended.out and "vars-d-clean" in ended.out
    assert zoo("claims", "--folder", folder, "--check").code == 0
    log = folder / "cifar10_mixers" / "runs" / "mixer=VarsD,seed=1" / "run.json"
    log.write_text(log.read_text().replace('"test/accuracy": 0.5', '"test/accuracy": 0.6'))
    ended = zoo("claims", "--folder", folder, "--check")
    assert ended.code == 1 and ended.out.splitlines()[0].startswith("claim ")
    assert "claim vars-d-clean: difference is" in ended.out and "claim vars-s-clean: difference" not in ended.out


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
