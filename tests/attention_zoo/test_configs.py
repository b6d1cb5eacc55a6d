"""Configs that build on others, and that those of the project do."""

import itertools
from pathlib import Path

import pytest
import yaml

import attention_zoo as az
from attention_zoo.runs.configs import parts, with_bases
from attention_zoo.runs.shipped import find_config, no_config
from attention_zoo.sweeps.plan import Plan

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "configs").rglob("*.yaml"))


@pytest.fixture
def write(tmp_path):
    def one(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    return one


def test_bases_come_before_what_names_them(write):
    first, second = write("base/a.yaml", "x: 1"), write("base/b.yaml", "base: a.yaml\ny: 2")
    other = write("c.yaml", "z: 3")
    top = write("top.yaml", "base: [base/b.yaml, c.yaml]\nx: 4")
    found = parts(top)
    assert [found[0], found[2]] == [first, other]
    assert [yaml.safe_load(found[1]), yaml.safe_load(found[3])] == [{"y": 2}, {"x": 4}]
    words = with_bases(["fit", "--config", top, f"--config={second}", "-c", other, "--x", "5"])
    options = ["--config"] * 6 + ["-c"]
    assert words == ["fit", *itertools.chain(*zip(options, [*found, first, found[1], other], strict=True)), "--x", "5"]


def test_a_config_that_only_names_bases(write):
    first = write("a.yaml", "x: 1")
    assert parts(write("top.yaml", "base: a.yaml")) == [first]


def test_yaml_on_the_command_line_may_have_bases(write, tmp_path, monkeypatch):
    write("a.yaml", "x: 1")
    monkeypatch.chdir(tmp_path)
    assert parts("base: a.yaml\ny: 2") == ["a.yaml", "y: 2\n"]


@pytest.mark.parametrize("value", ["nowhere.yaml", ".", "x: [", "hello", "x: 1", "--config"])
def test_what_has_no_base_or_cannot_be_read_stays(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert with_bases(["fit", "--config", value]) == ["fit", "--config", value]
    assert with_bases(["fit", "--config"]) == ["fit", "--config"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base: top.yaml", "config top.yaml: its base .*top.yaml leads back"),
        ("base: circle.yaml", "config circle.yaml: its base .*top.yaml leads back"),
        ("base: nowhere.yaml", "config top.yaml: its base .*nowhere.yaml does not exist"),
        ('base: "a\\0b"', "does not exist"),
        ("base: .", "does not exist"),
        ("base: word.yaml", "holds no keys"),
        ("base: broken.yaml", "its base .*broken.yaml is no YAML"),
        ("base: 3", "must be a file or a list of files, got 3"),
        ("base: []", "must be a file or a list of files"),
        ("base: [a.yaml, 3]", "must be a file or a list of files"),
        ("base: {a: b}", "must be a file or a list of files"),
        ("base: null", "must be a file or a list of files"),
    ],
)
def test_bad_bases_end_in_one_line(write, text, said):
    write("circle.yaml", "base: top.yaml")
    write("word.yaml", "hello")
    write("broken.yaml", "x: [")
    top = write("top.yaml", text)
    with pytest.raises(az.InputError, match=said) as refusal:
        with_bases(["fit", "--config", top])
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT / "configs")))
def test_the_bases_of_shipped_configs_are_there(path):
    found = parts(str(path))
    assert found
    for part in found:
        assert "base" not in yaml.safe_load(part if "\n" in part else Path(part).read_text())


def leaves(content, above=()):
    """All values of nested mappings, each with its keys."""
    if isinstance(content, dict):
        return {leaf for key, value in content.items() for leaf in leaves(value, (*above, key))}
    return {(above, str(content))}


def test_no_two_shipped_configs_differ_in_a_line_or_two():
    contents = {path: leaves(yaml.safe_load(path.read_text())) for path in SHIPPED}
    alike = [
        (first.name, second.name)
        for (first, one), (second, other) in itertools.combinations(contents.items(), 2)
        if len(one & other) >= 8 and len(one & other) > 0.75 * min(len(one), len(other))
    ]
    assert alike == []


class TestConfigsOfTheProject:
    """They go by their names, from any folder."""

    @pytest.mark.parametrize("name", ["classification/digits.yaml", "configs/classification/digits.yaml"])
    def test_a_name_is_found_anywhere(self, name, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert with_bases(["fit", "--config", name])[2] == str(ROOT / "configs/classification/digits.yaml")

    def test_a_file_of_that_path_wins(self, write, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        write("mixers/vars_d.yaml", "x: 1")
        assert with_bases(["fit", "--config=mixers/vars_d.yaml"]) == ["fit", "--config", "mixers/vars_d.yaml"]

    def test_bases_of_a_named_config_are_found(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        found = parts("semantic/ade20k_kmax.yaml")
        assert len(found) == len(parts(str(ROOT / "configs/semantic/ade20k_kmax.yaml"))) > 1

    def test_a_base_may_be_a_name(self, write):
        top = write("top.yaml", "base: [mixers/vars_d.yaml]\nx: 1")
        assert parts(top) == [str(ROOT / "configs/mixers/vars_d.yaml"), "x: 1\n"]

    def test_a_sweep_may_name_them(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        axes = {"mixer": {"D": "mixers/vars_d.yaml", "S": "mixers/vars_s.yaml"}}
        plan = Plan(["classification/digits.yaml"], axes)
        assert plan.recipe() == ["--config", "classification/digits.yaml"]
        with pytest.raises(az.InputError, match="both set model.mixer"):  # so the files are read
            Plan(["classification/digits.yaml"], axes, options={"model.mixer": "VarsD"})
        with pytest.raises(az.InputError, match="digit.yaml does not exist; did you mean classification/digits.yaml"):
            Plan(["digit.yaml"], axes)

    @pytest.mark.parametrize(
        "name", ["../configs/mixers/vars_d.yaml", "mixers/../mixers/vars_d.yaml", "/mixers/vars_d"]
    )
    def test_a_name_leads_nowhere_else(self, name, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert find_config(name) == name

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("clasification/digits.yml", "did you mean classification/digits.yaml"),
            ("vars_d", "did you mean mixers/vars_d.yaml"),
            ("zzzzqq", "brings configs of base, callbacks, classification"),
        ],
    )
    def test_an_unknown_name_lists_the_nearest(self, name, said):
        assert said in str(no_config(name))
