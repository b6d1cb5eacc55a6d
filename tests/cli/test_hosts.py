"""Which architectures of timm are hosts: the table that the package has is what building them says."""

import contextlib
import json
from pathlib import Path

import pytest
import timm
import torch

import attention_zoo as az
from attention_zoo.cli.hosts import counts, markdown_table
from attention_zoo.hosts.survey import (
    TABLE,
    architectures,
    read_surveys,
    readings,
    share,
    survey,
    survey_architecture,
    write_surveys,
)
from attention_zoo.hosts.table import HOST_LAYERS, OBSTACLES, layer_name

README = Path(__file__).parents[2] / "README.md"
SAMPLES = ("test_vit", "test_vit_relpos", "swin_s3_tiny_224", "crossvit_tiny_240", "xcit_nano_12_p16_224")
SOME = ("DotProduct", "Linear", "Neighborhood", "VarsS")


@pytest.mark.parametrize("name", SAMPLES)
def test_the_table_says_what_building_says(name):
    assert read_surveys(TABLE)[name] == survey_architecture(name)


def test_the_table_has_all_of_the_timm_that_made_it():
    if json.loads(TABLE.read_text())["timm"] == timm.__version__:
        assert set(read_surveys(TABLE)) == set(architectures())


def test_reasons_are_of_layers_that_timm_has():
    assert not {layer_name(kind) for kind in HOST_LAYERS} & set(OBSTACLES)
    used = {layer for layers in read_surveys(TABLE).values() for layer in layers}
    assert used <= {layer_name(kind) for kind in HOST_LAYERS} | set(OBSTACLES)


@pytest.mark.parametrize("name", ["test_vit", "swin_tiny_patch4_window7_224", "pit_ti_224", "xcit_nano_12_p8_224"])
def test_readings_are_those_that_swapping_takes(name):
    taken = []
    for mixer in SOME:
        with torch.device("meta"):
            model = timm.create_model(name)
        with contextlib.suppress(az.InputError):
            az.swap_mixers(model, mixer)
            taken.append(mixer)
    assert taken == [mixer for mixer in readings(read_surveys(TABLE)[name]) if mixer in SOME]


def test_hosts_of_a_filter(zoo):
    ended = zoo("hosts", "--filter", "swinv2_tiny*")
    assert ended.code == 0
    assert "swin_transformer_v2.WindowAttention" in ended.out
    number = len(az.list_mixers("self") + az.list_mixers("wrapper"))
    assert f"of {number}, that take its position biases" in ended.out
    assert "100%" in ended.out.splitlines()[-1]
    ended = zoo("hosts", "--filter", "xcit_nano*")
    assert "mixes channels" in " ".join(ended.out.split())
    assert ended.out.splitlines()[-1].startswith("0 of ")
    assert zoo("hosts", "--filter", "resnet18").out.startswith("0 of 0 architectures with attention are hosts;")


def test_hosts_of_a_mixer(zoo):
    ended = zoo("hosts", "--filter", "*_tiny_patch4_window7_224", "--mixer", "Window")
    assert ended.out.splitlines()[-1] == "0 of them are hosts of Window." and ended.code == 0
    ended = zoo("hosts", "--filter", "swin_tiny_patch4_window7_224")
    named = "".join(ended.out.split("\n")).replace("│", " ").split()
    assert {"Twicing", "Differential,"} <= set(named)
    ended = zoo("hosts", "--filter", "test_vit", "--mixer", "Window")
    assert ended.out.splitlines()[-1] == "1 of them are hosts of Window." and "test_vit" in ended.out
    ended = zoo("hosts", "--mixer", "Windows")
    assert (ended.code, ended.err.count("\n")) == (2, 1) and "did you mean 'Window'" in ended.err


def test_several_patterns_wrappers_and_models_of_ours(zoo):
    ended = zoo("hosts", "--filter", "pit_ti_224,swin_tiny_patch4_window7_224", "--mixer", "MixtureOfHeads")
    assert ended.out.splitlines()[-1] == "1 of them are hosts of MixtureOfHeads." and "pit_ti_224" in ended.out
    ended = zoo("hosts", "--filter", "fan_tiny, rvt_tiny*")
    rows = {line.split()[1]: line for line in ended.out.splitlines() if "yes" in line}
    assert "41 of 41" in rows["fan_tiny"] and "41 of 41" in rows["rvt_tiny"] and "1 of 41" in rows["rvt_tiny_plus"]
    assert ended.out.splitlines()[-1] == "3 of attention_zoo's own match."
    refused = zoo("hosts", "--filter", "xcit_nano_12_p8_224", "--mixer", "CrossCovariance")
    assert "mixes channels" in " ".join(refused.out.split()) and refused.out.splitlines()[-1].startswith("0 of them")


@pytest.mark.parametrize("name", ["fan_tiny", "rvt_tiny", "rvt_tiny_plus", "gfnet_xs", "absvit_tiny_patch16_224"])
def test_models_of_ours_take_what_they_say(name):
    with torch.device("meta"):
        fits = readings(survey_architecture(name))
        for mixer in SOME:
            with contextlib.nullcontext() if mixer in fits else pytest.raises(az.InputError):
                az.swap_mixers(timm.create_model(name), mixer)


def test_bad_filters(zoo):
    ended = zoo("hosts", "--filter", "nothing_of_this_name")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "nothing_of_this_name" in ended.err
    ended = zoo("hosts", "--filter", "swin*", "--refresh", "true")
    assert (ended.code, ended.err.count("\n")) == (2, 1)


def test_markdown_has_every_kind_once():
    every = {name: layers for name, layers in read_surveys(TABLE).items() if layers}
    rows = markdown_table(every).splitlines()[2:]
    assert sum(int(row.split(" | ")[1]) for row in rows) == len(every)
    assert len(rows) < len(every) / 5


def test_readme_has_the_share():
    number, attending, _ = share(read_surveys(TABLE).values())
    sentence = f"{number} of timm's {attending} architectures with attention ({number / attending:.0%})"
    assert sentence in " ".join(README.read_text().split())
    assert counts(read_surveys(TABLE)).startswith(f"{number} of {attending} ")


def test_surveys_are_written_as_they_are_read(tmp_path):
    every = {"a": {"x.Y": ("bias", "grid")}, "b": {"x.Y": None}, "c": {}, "d": {"x.Y": None}}
    write_surveys(tmp_path / "table.json", every)
    assert read_surveys(tmp_path / "table.json") == every


def test_a_model_of_several_layers_has_what_all_of_them_need():
    model = timm.create_model("davit_tiny", embed_dims=(16, 32), depths=(1, 1), num_heads=(2, 2))
    assert survey(model) == {"davit.WindowAttention": ("grid",), "davit.ChannelAttention": None}
