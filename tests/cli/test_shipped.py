"""What ships with the project works as it says: every config, the README's table and its commands."""

import re
from pathlib import Path

import pytest
import yaml

import attention_zoo as az
from attention_zoo.runs.configs import parts
from attention_zoo.sweeps import Plan

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
TASKS = sorted(path for kind in ("classification", "semantic") for path in (ROOT / "configs" / kind).glob("*.yaml"))
TRAINING = [path for path in TASKS if re.search("max_(epochs|steps)", path.read_text())]
SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))
OVER = ("callbacks", "loggers", "machines", "mixers")
OVERLAYS = sorted(path for kind in OVER for path in (ROOT / "configs" / kind).glob("*.yaml"))
BRIEF = """
--trainer.max_epochs 1 --trainer.limit_train_batches 2 --trainer.limit_val_batches 1 --trainer.enable_progress_bar false
--trainer.enable_model_summary false --trainer.log_every_n_steps 1 --trainer.accelerator cpu --trainer.devices 1
"""
PARTS = dict.fromkeys(("CIFAR10", "ImageFolder", "PACS"), "--data Digits --data.image_size 32 --data.num_workers 0")
SHAPES = "--data Shapes --data.image_size 32 --data.scenes [8,4,4] --data.augment null --data.num_workers 0"
NARROW_VIT = """
--model.model absvit_tiny_patch16_224 --model.model_args.embed_dim 24 --model.model_args.num_heads 2
--model.decode_head {"channels":8} --model.auxiliary_head {"channels":8} --trainer.val_check_interval 2
"""
NARROW_DECODER = """
--data.panoptic true --model.model test_resnet --model.pretrained false --model.decoder.num_queries 8
--model.decoder.dim 32 --model.decoder.mask_dim 16 --model.decoder.hidden 32 --model.decoder.num_heads 4
--trainer.val_check_interval 2
"""
PARTS["CamVid"] = SHAPES
PARTS["MMSegData"] = SHAPES + NARROW_VIT
PARTS["ADE20KPanoptic"] = PARTS["COCOPanoptic"] = (
    SHAPES + NARROW_DECODER + "--model.decoder.widths [16,8,8,8] --model.decoder.blocks [1,1,1,1]"
)
PARTS["CityscapesPanoptic"] = (
    SHAPES + NARROW_DECODER + "--model.decoder.widths [16,8,8,8,8] --model.decoder.blocks [1,1,1,1,1]"
)
"""Stand-ins for data that are not here, and for models of a hundred million parameters."""
NARROW = {
    "rvt": {"embed_dims": [12, 24], "num_heads": [2, 4]},
    "vit": {"embed_dim": 24, "num_heads": 2},
    "absvit": {"embed_dim": 24, "num_heads": 2},
}
"""What makes a classifier narrow, by the first part of its name; it takes as many layers as the config says."""


def path_id(path):
    return str(path.relative_to(ROOT / "configs"))


def content_of(path):
    """The keys of a config and of those that it builds on, each from the last that has it."""
    content = {}
    for part in parts(str(path)):
        content |= yaml.safe_load(part if "\n" in part else Path(part).read_text())
    return content


ALIKE = ("ade20k_kmax", "ade20k_upernet", "cityscapes_kmax", "cityscapes_upernet", "imagenet_rvt_plus")
"""Those that train by the same code as others here, with other numbers; their training belongs to the slow tests."""


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=path_id(p), marks=[pytest.mark.slow] if p.stem in ALIKE else []) for p in TRAINING]
)
def test_every_task_trains(zoo, tmp_path, path):
    content = content_of(path)
    own = content["model"]["init_args"]
    replaced = PARTS.get(content["data"]["class_path"], "")
    narrow = NARROW.get(own.get("model", "").partition("_")[0], {}) if path.parent.name == "classification" else {}
    narrowed = [f"--model.model_args.{name}={value}".replace(" ", "") for name, value in narrow.items()]
    arguments = [*replaced.split(), *BRIEF.split(), "--data.batch_size", "4", *narrowed]
    ended = zoo("fit", "--config", path, *arguments, "--trainer.default_root_dir", tmp_path)
    assert ended.code == 0, ended.err
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    wanted = (own.get("model_args") or {}) | narrow
    assert wanted.items() <= (saved["model"]["init_args"]["model_args"] or {}).items()
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()


def class_of(part):
    """The class that a config names, as a word or before its options."""
    return part if isinstance(part, str) else part["class_path"]


@pytest.mark.parametrize("path", TASKS, ids=path_id)
def test_every_task_parses_as_it_is(zoo, path):
    ended = zoo("fit" if path in TRAINING else "test", "--config", path, "--print_config")
    assert ended.code == 0, ended.err
    found = yaml.safe_load(ended.out)
    named = {kind: part for kind, part in content_of(path).items() if kind in ("model", "data")}
    assert named  # an evaluation leaves its data to the checkpoint
    for kind, part in named.items():
        assert found[kind]["class_path"].endswith(class_of(part)), kind


def assert_contains(found, wanted):
    """The wanted values are there, also in mixers of mixers."""
    for name, value in wanted.items():
        if isinstance(value, dict) and "class_path" in value:
            assert found[name]["class_path"].endswith(value["class_path"])
        elif isinstance(value, dict) and isinstance(found[name], dict):
            assert_contains(found[name], value)
        else:
            assert found[name] == value


@pytest.mark.parametrize("path", OVERLAYS, ids=path_id)
def test_every_overlay_composes(zoo, path):
    task = ROOT / "configs" / "classification" / "digits.yaml"
    ended = zoo("fit", "--config", task, "--config", path, "--print_config")
    assert ended.code == 0, ended.err
    config = yaml.safe_load(ended.out)
    for section, keys in yaml.safe_load(path.read_text()).items():
        for key, value in (keys.get("init_args") or keys).items():
            found = (config[section].get("init_args") or config[section])[key.removesuffix("+")]
            if key == "mixer":
                assert found["class_path"].endswith(class_of(value))
                assert_contains(
                    found.get("init_args", {}), {} if isinstance(value, str) else value.get("init_args", {})
                )
            elif key.endswith("+"):
                assert any(part["class_path"].endswith(value[0]["class_path"]) for part in found)
            elif key == "strategy" and isinstance(value, dict):
                assert_contains({key: found}, {key: value})
                assert found["init_args"].items() >= value.get("init_args", {}).items()
            elif key in ("plugins", "logger"):
                for own, wanted in zip(found, value, strict=True):
                    assert own["class_path"] == wanted["class_path"]
                    assert_contains(own["init_args"], wanted["init_args"])
            else:
                assert found == value


@pytest.mark.parametrize("path", SWEEPS, ids=path_id)
def test_every_sweep_is_one(zoo, monkeypatch, path):
    monkeypatch.chdir(ROOT)
    every = Plan.all_runs
    monkeypatch.setattr(Plan, "all_runs", lambda plan: [every(plan)[0], every(plan)[-1]])
    monkeypatch.setattr("attention_zoo.sweeps.forecast.count_flops", lambda task: None)  # of images of full size
    ended = zoo("sweep", "--config", path, "--dry_run")
    assert ended.code == 0, ended.err
    assert "parameters, M" in ended.out and "fails:" not in ended.out  # the models were built


def test_the_sweeps_of_mixers_have_them_all():
    swept = []
    for name in ("cifar10_mixers", "cifar10_related"):
        axes = yaml.safe_load((ROOT / "configs" / "sweeps" / f"{name}.yaml").read_text())["axes"]
        swept += axes["mixer"]
    assert {az.mixer_info(name).kind for name in swept} == {"self"}
    registered = set(swept) & set(az.list_mixers())  # beside them, wrappers of mixers are swept
    assert sorted(registered) == az.list_mixers("self")


def test_the_readme_lists_the_mixers():
    section = README.partition("## Mixers\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", section, re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted(az.list_mixers() + az.list_mixers("wrapper"))
    for name, row in rows:
        info = az.mixer_info(name)
        told = [cell.strip() for cell in row.split(" | ")]
        assert told == [info.reading, info.equation.replace("|", "\\|"), info.paper, info.complexity]


def test_ci_runs_the_readmes_test_command():
    commands = re.findall(r"```bash\n(python3 -m venv.*?)\n```", README, re.DOTALL)
    assert len(commands) == 2
    assert commands[1] in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_readmes_first_command_is_about_a_config_that_exists():
    assert "--config configs/classification/digits.yaml" in README
    for path in re.findall(r"configs/[\w/]+\.yaml", README):
        assert (ROOT / path).is_file(), path


def test_the_readmes_own_mixer_works():
    import torch

    from attention_zoo.mixers.registry import registering

    code = re.search(r"```python\n(import attention_zoo as az\nfrom torch.*?)```", README, re.DOTALL)[1]
    x = torch.randn(2, 5, 8)
    with registering():
        exec(compile(code, "README", "exec"), {})
        mixer = az.create_mixer("MeanField", 8, 2)
    assert mixer(x).shape == x.shape
    torch.testing.assert_close(mixer.attention_map(x), torch.full((2, 2, 5, 5), 0.2))


def test_figures_of_one_recipe_differ_in_what_they_say(zoo):
    """Figure 7 is figure 2 with other positions, figure 8 is figure 4 with another head and smaller views."""
    folder = ROOT / "configs" / "interactive"
    for name, other, options in (
        ("figure7", "figure2", ["--model.mixer.positions", "full"]),
        ("figure8", "figure4", ["--model.head.attention", "full", "--data.image_size", "64"]),
    ):
        alone = zoo("fit", "--config", folder / f"{name}.yaml", "--print_config")
        again = zoo("fit", "--config", folder / f"{other}.yaml", *options, "--print_config")
        assert yaml.safe_load(alone.out) == yaml.safe_load(again.out)
