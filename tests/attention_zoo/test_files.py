"""The one reader and writer of small files."""

import json
import os

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from attention_zoo.errors import InputError
from attention_zoo.runs import files

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(PLAIN)
def test_json_comes_back(content):
    assert files.parse_json(json.dumps(content), "x") == content


@given(PLAIN)
def test_yaml_comes_back(content):
    text = yaml.safe_dump(content)
    assert files.parse_yaml(text, "x") == yaml.safe_load(text)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(content)
    for read in (files.read_json, files.read_yaml, files.read_json_lines):
        try:
            read(path)
        except InputError as error:
            assert str(path) in str(error)


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\na: 2\n", "'a' twice"),
        ("x: {lr: 1, lr: 2}\n", "'lr' twice"),
        (BOMB, "aliases repeat"),
        ("a: &a [*a]\n", "inside what it names"),
        ("[" * 5000, "nests"),
        ("[" * 300 + "]" * 300, "nests"),
        ("a: [", "no YAML"),
        ("a: 2020-13-45", "no YAML"),
        ("a: !!python/object/apply:os.system [id]", "no YAML"),
    ],
)
def test_yaml_that_is_refused(text, says):
    with pytest.raises(InputError, match=says):
        files.parse_yaml(text, "c.yaml")


def test_a_merge_key_may_stand_twice_with_other_keys():
    assert files.parse_yaml("b: &b {x: 1}\na: {<<: *b, y: 2}\n", "c")["a"] == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1, "a": 2}', "'a' twice"),
        ("[" * 100_000, "nests|no JSON"),
        ("[" * 300 + "]" * 300, "nests"),
        ("1" * 5000, "no JSON"),
        ("{", "no JSON"),
        ("", "no JSON"),
    ],
)
def test_json_that_is_refused(text, says):
    with pytest.raises(InputError, match=says):
        files.parse_json(text, "c.json")


def test_a_fifo_a_folder_and_a_large_file_are_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InputError, match="no regular file"):
        files.read_text(tmp_path / "fifo")
    with pytest.raises(InputError, match="is a folder"):
        files.read_text(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        files.read_text(tmp_path / "none")
    (tmp_path / "large").write_text("12345")
    with pytest.raises(InputError, match="at most 4"):
        files.read_text(tmp_path / "large", most_bytes=4)


def test_a_link_is_replaced_and_not_followed(tmp_path):
    target = tmp_path / "target"
    target.write_text("mine")
    link = tmp_path / "link"
    link.symlink_to(target)
    files.write_text(link, "new")
    assert target.read_text() == "mine"
    assert not link.is_symlink() and link.read_text() == "new"


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(RuntimeError), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match="cannot write .*a.json"):
        files.write_text(path / "below", "x")


def test_files_have_the_rights_that_others_have(tmp_path):
    files.write_text(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_torn_last_line_is_left_out_and_the_next_one_starts_anew(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"a": 1}\n{"a": 2')
    assert files.read_json_lines(path) == [{"a": 1}]
    files.append_json_line(path, {"a": 3})
    assert files.read_json_lines(path) == [{"a": 1}, {"a": 3}]
    path.write_text('{"a": 1}')
    files.append_json_line(path, {"a": 2})
    assert files.read_json_lines(path) == [{"a": 1}, {"a": 2}]
    path.write_text('{"a": \n{"a": 2}\n')
    with pytest.raises(InputError, match="line 1 of"):
        files.read_json_lines(path)
