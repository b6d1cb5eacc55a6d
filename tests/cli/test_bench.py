"""What mixers cost: the numbers mean what they say, and the files are there."""

import csv
from dataclasses import replace

import pytest
import torch
import yaml

from attention_zoo.analysis.costs import TIMM, Setting, growth, measure
from attention_zoo.analysis.timing import interleaved, peak_memory
from attention_zoo.errors import InputError
from attention_zoo.mixers.registry import MIXERS

SMALL = Setting(dim=16, num_heads=2, batch=2, queries=5, repeats=2)


def test_growth_is_the_exponent():
    assert growth([10, 100, 1000], [3 * n**1.7 for n in (10, 100, 1000)]) == pytest.approx(1.7)
    with pytest.raises(InputError, match="two numbers of tokens"):
        growth([10, 10], [1.0, 2.0])


def test_peak_memory_is_what_a_call_holds_at_once():
    def call():
        first = torch.ones(1000, 250)  # 1 MB
        second = first + 1
        del first
        return second + 1

    assert peak_memory(call) == pytest.approx(2e6, rel=0.01)


def test_calls_take_turns():
    seen = []
    times = interleaved([lambda: seen.append("a"), lambda: seen.append("b")], 3)
    assert "".join(seen) == "ab" * 5 and [len(t) for t in times] == [3, 3]


def test_every_mixer_beside_its_baseline():
    costs = list(measure(["VarsD", "DotProduct", "KMeansCross"], 16, SMALL))
    assert [cost.mixer for cost in costs] == [TIMM, "VarsD", "DotProduct", "CrossAttention", "KMeansCross"]
    assert all(cost.forward > 0 and cost.training_memory > 0 and cost.flops > 0 for cost in costs)
    assert [costs[0].forward_ratio, costs[0].training_ratio, costs[3].forward_ratio] == [1, 1, 1]
    assert costs[0].parameters == costs[2].parameters == 4 * 16 * 16 + 16
    assert costs[0].flops == costs[2].flops == 2 * 16 * (4 * 16 * 16) + 2 * 2 * 16 * 16 * 16


def test_both_modes_in_turns(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda layer: compiled.append(type(layer).__name__))
    costs = list(measure(["VarsD"], 16, replace(SMALL, modes=("eager", "compiled"))))
    assert [cost.label for cost in costs] == [TIMM, f"{TIMM}, compiled", "VarsD", "VarsD, compiled"]
    assert compiled == ["Attention", "VarsD"]
    assert costs[0].forward_ratio == 1 and costs[2].flops == costs[3].flops


BAD = {
    "17 tokens are no square grid; 16 are": {"tokens": 17},
    "tokens=0 must be at least 1": {"tokens": 0},
    "tokens=-4 must be at least 1": {"tokens": -4},
    "dim=0 must be at least 1": {"dim": 0},
    "dim=-4 must be at least 1": {"dim": -4},
    "num_heads=2 must divide dim=17": {"dim": 17},
    "num_heads=0 must be at least 1": {"num_heads": 0},
    "batch=0 must be at least 1": {"batch": 0},
    "queries=0 must be at least 1": {"queries": 0},
    "repeats=0 must be at least 1": {"repeats": 0},
    "need \\d+ GiB at least, and cpu has": {"batch": 10**9},
    "dim=1073741824 need \\d+ GiB": {"dim": 2**30},
    "tokens=10{400}, .*need \\d+ GiB": {"tokens": 10**400},
}


@pytest.mark.parametrize("message", BAD)
def test_what_cannot_be_measured_is_refused_before_anything_is(message):
    tokens = BAD[message].get("tokens", 16)
    setting = replace(SMALL, **{name: value for name, value in BAD[message].items() if name != "tokens"})
    with pytest.raises(InputError, match=message):
        next(measure(["VarsD"], tokens, setting))


def test_memory_that_does_not_suffice_after_all(monkeypatch):
    def forward(layer, x):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory:\nyou tried to allocate 9 bytes")

    monkeypatch.setattr(MIXERS["VarsD"], "forward", forward)
    with pytest.raises(InputError, match="16 tokens on cpu in torch.float32: .*can't allocate memory: you tried"):
        list(measure(["VarsD"], 16, SMALL))


def test_on_the_command_line(zoo, tmp_path):
    arguments = ["--tokens", "4", "16", "--dim", "8", "--num_heads", "2", "--repeats", "1", "--out", "costs"]
    ended = zoo("bench", "VarsD", "ClusterCross", *arguments)
    assert ended.code == 0, ended.err
    rows = list(csv.DictReader((tmp_path / "costs" / "costs.csv").open()))
    assert len(rows) == 8 and {row["tokens"] for row in rows} == {"4", "16"}
    assert (tmp_path / "costs" / "costs.png").stat().st_size > 10_000
    assert "VarsD: time ~ N^" in (tmp_path / "costs" / "costs.md").read_text()
    assert "costs is not empty" in zoo("bench", "VarsD", *arguments).err
    assert "did you mean 'VarsD'" in zoo("bench", "VarzD").err
    assert "out is empty; name a path" in zoo("bench", "VarsD", "--out", "").err
    assert "repeats=0 must be at least 1" in zoo("bench", "--repeats", "0").err
    for argv, words in {
        ("os.kill",): "os.kill is no mixer",
        ("VarsD", "--dim", "17"): "num_heads=3 must divide dim=17",
        ("VarsD", "--tokens", "16", "[8, 8]"): "tokens",
        ("VarsD", "--dim", "1e20"): "dim",
        ("VarsD", "--tokens", "1000000000000"): "GiB at least",
    }.items():
        ended = zoo("bench", *argv, "--out", "refused")
        assert ended.code == 2 and words in ended.err and len(ended.err.splitlines()) == 1, ended.err
    assert not (tmp_path / "refused").exists()
    (tmp_path / "file").write_text("mine")
    assert "file is a file; choose a folder" in zoo("bench", "VarsD", "--out", "file", "--overwrite").err
    assert (tmp_path / "file").read_text() == "mine"


def test_mixers_of_ones_own_by_their_path(zoo, tmp_path, monkeypatch):
    (tmp_path / "bench_extras.py").write_text(
        "import attention_zoo as az\n\n\nclass Own(az.SelfMixer):\n    def mix(self, q, k, v):\n        return v + q\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    arguments = ["--tokens", "4", "--dim", "8", "--num_heads", "2", "--repeats", "1", "--out", "costs"]
    ended = zoo("bench", "bench_extras.Own", *arguments)
    assert ended.code == 0, ended.err
    rows = list(csv.DictReader((tmp_path / "costs" / "costs.csv").open()))
    assert "bench_extras.Own" in {value for row in rows for value in row.values()}


@pytest.mark.parametrize(("named", "measured"), [(["VarsD"], ["VarsD"]), ([], ["Performer"])])
def test_mixers_on_the_command_line_beat_the_config(zoo, tmp_path, named, measured):
    (tmp_path / "bench.yaml").write_text("mixers: [Performer]")
    ended = zoo("bench", *named, "--config", tmp_path / "bench.yaml", "--print_config")
    assert yaml.safe_load(ended.out)["mixers"] == measured
