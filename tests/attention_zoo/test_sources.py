"""The code that an evaluation depends on is told by its files."""

import importlib
import sys

import pytest
import torch

import attention_zoo as az
from attention_zoo.runs.sources import fingerprint

HELPER = "zoo_sources_helper"
OWN = "zoo_sources_own"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of a person's own with a class, which uses a function of another file; and the folder of both."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"{HELPER}.py").write_text("def number():\n    return 1\n")
    (tmp_path / f"{OWN}.py").write_text(f"from {HELPER} import number\n\n\nclass Own:\n    count = number()\n")
    yield importlib.import_module(OWN), tmp_path
    for name in (HELPER, OWN):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", [OWN, HELPER])
def test_a_changed_file_changes_it(own, name):
    module, folder = own
    before = fingerprint(module.Own())
    assert fingerprint(module.Own()) == before
    with (folder / f"{name}.py").open("a") as file:
        file.write("# changed\n")
    assert fingerprint(module.Own()) != before


def test_it_knows_what_an_object_holds(own):
    module, folder = own
    holder = torch.nn.Sequential(torch.nn.Identity())
    empty = fingerprint(holder)
    holder.parts = {"a": module.Own()}
    assert fingerprint(holder) != empty
    assert fingerprint(torch.nn.Identity()) == empty  # installed packages do not count


def test_mixers_of_other_files_are_other_code():
    torch_alone = fingerprint(torch.nn.Identity())
    wrapped = torch.nn.Sequential(torch.nn.Sequential(az.create_mixer("VarsD", 8, 2)))
    assert fingerprint(wrapped) == fingerprint(wrapped) != torch_alone
