"""A checkpoint from a stranger runs nothing, writes nowhere else, and names classes of known packages alone."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from torchvision.transforms import v2

import tasks
from attention_zoo.cli.lightning import ZooCLI
from attention_zoo.errors import InputError
from attention_zoo.runs.checkpoint import Checkpoint
from attention_zoo.runs.checkpoint_io import check_remembered
from attention_zoo.runs.records import MetricsLog, SaveConfig
from attention_zoo.runs.result_writer import ResultWriter
from attention_zoo.runs.trust import check_names, is_allowed
from datamodules.predictions import PredictionWriter

EVIL = """
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger

import attention_zoo as az
from attention_zoo.mixers import DotProduct

Path("imported").touch()


class EvilCallback(Callback):
    def __init__(self):
        Path("owned").touch()


class EvilMixer(DotProduct):
    reading = paper = equation = complexity = "none"

    def __init__(self, *args, **options):
        Path("owned").touch()
        super().__init__(*args, **options)


def evil_mixer(dim: int, num_heads: int) -> az.SelfMixer:
    Path("owned").touch()
    return DotProduct(dim, num_heads)
"""

MIXER = ("model", "init_args", "mixer")

NAMED = {
    "a mixer": (MIXER, {"class_path": "evil.EvilMixer"}),
    "a mixer in short": (MIXER, "evil.EvilMixer"),
    "a function for a mixer": (MIXER, "os.kill"),
    "a function of the folder": (MIXER, "evil.evil_mixer"),
    "a function of torch": (MIXER, {"class_path": "torch.hub.load", "init_args": {"repo_or_dir": "x", "model": "y"}}),
    "what torch re-exports": (MIXER, {"class_path": "torch.hub.os.system"}),
    "a mixer of a layer": (("model", "init_args", "layer_mixers"), {"last": {"class_path": "evil.EvilMixer"}}),
    "an optimizer": (("model", "init_args", "optimizer"), {"class_path": "evil.EvilMixer"}),
    "an optimizer in short": (("model", "init_args", "optimizer"), "subprocess.Popen"),
    "an augmentation": (("data", "init_args", "augment"), [{"class_path": "evil.EvilMixer"}]),
    "an augmentation in short": (("data", "init_args", "augment"), ["evil.EvilMixer"]),
    "deep in options": (("model", "init_args", "model_args", "deep"), [{"a": {"class_path": "evil.EvilMixer"}}]),
    "the task": (("model", "class_path"), "evil.EvilTask"),
    "the data": (("data", "class_path"), "evil.EvilData"),
    "a file that names it": (MIXER, "named.yaml"),
}

OF_A_FIT = {
    "a callback": (("trainer", "callbacks"), [{"class_path": "evil.EvilCallback"}]),
    "a callback alone": (("trainer", "callbacks"), "evil.EvilCallback"),
    "a function as a callback": (
        ("trainer", "callbacks"),
        [{"class_path": "lightning.pytorch.callbacks.LambdaCallback", "init_args": {"setup": "evil.evil_mixer"}}],
    ),
    "a plugin": (("trainer", "plugins"), [{"class_path": "evil.EvilCallback"}]),
    "a profiler": (("trainer", "profiler"), {"class_path": "evil.EvilCallback"}),
    "a logger": (("trainer", "logger"), [{"class_path": "evil.EvilCallback"}]),
    "a logger by address": (("trainer", "logger"), {"class_path": "lightning.pytorch.loggers.WandbLogger"}),
    "a strategy": (("trainer", "strategy"), {"class_path": "evil.EvilCallback"}),
}

PLACES = {
    "checkpoints elsewhere": (
        ("trainer", "callbacks"),
        [{"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"dirpath": "elsewhere"}}],
    ),
    "checkpoints above": (
        ("trainer", "callbacks"),
        [{"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"filename": "../../x"}}],
    ),
    "curves elsewhere": (
        ("trainer", "logger"),
        {"class_path": "lightning.pytorch.loggers.TensorBoardLogger", "init_args": {"save_dir": "elsewhere"}},
    ),
}


@pytest.fixture
def stranger(run_folder, tmp_path, monkeypatch):
    """A checkpoint whose config has another value at a key, in a folder that holds evil code."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "evil.py").write_text(EVIL)
    (tmp_path / "named.yaml").write_text("class_path: evil.EvilMixer")
    sys.modules.pop("evil", None)

    def make(keys, value):
        content = torch.load(run_folder / "checkpoints/last.ckpt", weights_only=True)
        config = yaml.safe_load(content["config"])
        inner = config
        for key in keys[:-1]:
            inner = inner.setdefault(key, {})
        inner[keys[-1]] = value
        content["config"] = yaml.safe_dump(config)
        folder = tmp_path / "stranger" / "checkpoints"
        folder.mkdir(parents=True)
        torch.save(content, folder / "last.ckpt")
        (folder.parent / "config.yaml").write_text(content["config"])
        return folder / "last.ckpt"

    yield make
    sys.modules.pop("evil", None)


def refused(ended, folder, *words):
    assert ended.code == 2, ended.out
    (line,) = ended.err.splitlines()
    assert line.startswith("error: ") and "Traceback" not in ended.err
    assert not (folder / "imported").exists() and not (folder / "owned").exists()
    for word in words:
        assert word in line


@pytest.mark.parametrize("case", NAMED)
def test_test_refuses_classes_of_strangers(stranger, zoo, tmp_path, case):
    path = stranger(*NAMED[case])
    refused(zoo("test", "--ckpt_path", path), tmp_path, "--trust_checkpoint true", str(path))


def test_not_every_class_of_a_known_package_will_do(stranger, zoo, tmp_path):
    loader = {"class_path": "torch.utils.data.DataLoader", "init_args": {"dataset": []}}
    path = stranger(("model", "init_args", "model_args", "deep"), loader)
    refused(zoo("test", "--ckpt_path", path), tmp_path, "DataLoader")
    assert not is_allowed(torch.utils.data.DataLoader) and not is_allowed(torch.jit.ScriptModule)
    assert not is_allowed(torch.load) and not is_allowed(Checkpoint)
    assert not any(map(is_allowed, (PredictionWriter, ResultWriter, MetricsLog, SaveConfig, ZooCLI)))
    assert is_allowed(torch.optim.AdamW) and is_allowed(tasks.Classification) and is_allowed(v2.RandomHorizontalFlip)


@pytest.mark.parametrize("command", ["fit", "validate", "predict", "maps", "decode"])
@pytest.mark.parametrize("case", ["a mixer", "a function for a mixer"])
def test_every_command_refuses_them(stranger, zoo, tmp_path, images, command, case):
    path = stranger(*NAMED[case])
    words = [next(images.glob("*.png"))] if command == "maps" else []
    ended = zoo(command, *words, "--ckpt_path", path)
    refused(ended, tmp_path, "--trust_checkpoint true", NAMED[case][1] if isinstance(NAMED[case][1], str) else "evil")


@pytest.mark.parametrize("case", [*OF_A_FIT, *PLACES])
def test_a_fit_does_not_go_on_with_them(stranger, zoo, tmp_path, case):
    path = stranger(*{**OF_A_FIT, **PLACES}[case])
    refused(zoo("fit", "--ckpt_path", path), tmp_path, "--trust_checkpoint true")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("case", ["a callback", "a plugin", "a profiler", "a logger", "a strategy"])
def test_an_evaluation_takes_nothing_of_the_trainer(stranger, zoo, tmp_path, case):
    ended = zoo("test", "--ckpt_path", stranger(*OF_A_FIT[case]), "--trainer.logger", "false")
    assert ended.code == 0, ended.err
    assert not (tmp_path / "imported").exists()


def test_an_evaluation_writes_where_it_is_told(stranger, zoo, tmp_path, images):
    path = stranger(("prediction",), {"path": str(tmp_path / "elsewhere.csv")})
    argv = ["--ckpt_path", path, "--data.predict_dir", images, "--prediction.path", "here.csv"]
    assert zoo("predict", *argv).code == 0
    path = shutil.move(path.parents[1], tmp_path / "other") / "checkpoints/last.ckpt"
    path = stranger(("trainer", "default_root_dir"), str(tmp_path / "elsewhere"))
    assert zoo("test", "--ckpt_path", path).code == 0
    assert not list(tmp_path.glob("elsewhere*")) and (tmp_path / "here.csv").is_file()


@pytest.mark.parametrize("way", ["flag", "folder"])
def test_trust_is_given(stranger, zoo, tmp_path, monkeypatch, way):
    path = stranger(MIXER, {"class_path": "evil.EvilMixer"})
    if way == "folder":
        monkeypatch.setenv("ATTENTION_ZOO_TRUSTED", str(tmp_path / "stranger"))
    trust = ["--trust_checkpoint", "true"] if way == "flag" else []
    ended = zoo("test", "--ckpt_path", path, *trust)
    assert "of another model" in ended.err  # the weights are of VarsD
    assert (tmp_path / "owned").exists()


@pytest.mark.parametrize("value", [["--weights_only", "false"], ["--weights_only=false"]])
def test_pickles_need_trust(zoo, run_folder, tmp_path, value):
    content = torch.load(run_folder / "checkpoints/last.ckpt", weights_only=True)
    Pickled.loaded = False
    content["more"] = Pickled()
    torch.save(content, tmp_path / "x.ckpt")
    refused(zoo("test", "--ckpt_path", "x.ckpt", *value), tmp_path, "weights_only", "--trust_checkpoint true")
    assert not Pickled.loaded
    ended = zoo("test", "--ckpt_path", "x.ckpt", *value, "--trust_checkpoint", "true", "--trainer.logger", "false")
    assert ended.code == 0, ended.err
    assert Pickled.loaded


class Pickled:
    loaded = False

    def __setstate__(self, state):
        Pickled.loaded = True

    def __getstate__(self):
        return {"a": 1}


@pytest.mark.parametrize("name", ["os.kill", "evil.evil_mixer", "subprocess.run", "torch.hub.load"])
def test_a_function_is_no_mixer_for_anybody(zoo, tiny, tmp_path, monkeypatch, name):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "evil.py").write_text(EVIL)
    sys.modules.pop("evil", None)
    ended = zoo("fit", "--config", tiny, "--model.mixer", name)
    sys.modules.pop("evil", None)
    assert ended.code == 2 and len(ended.err.splitlines()) == 1 and name in ended.err
    assert not (tmp_path / "owned").exists()
    assert not (tmp_path / "runs").exists()


def test_a_head_of_a_checkpoint_is_a_registered_one(zoo, tmp_path):
    from datamodules import Shapes

    head = {"type": "FCNHead", "channels": 4, "loss_decode": {"type": "subprocess.Popen", "args": ["touch", "owned"]}}
    model = {"class_path": "SemanticSegmentation", "init_args": {"decode_head": head}}
    config = {"model": model, "data": {"class_path": Shapes.__name__}}
    state = {"state_dict": {}, "config": yaml.safe_dump(config), "epoch": 0, "global_step": 0}
    torch.save(state, tmp_path / "x.ckpt")
    refused(zoo("test", "--ckpt_path", "x.ckpt"), tmp_path, "subprocess.Popen")


@pytest.fixture
def remembering(run_folder, tmp_path, monkeypatch):
    """A run whose checkpoint says that some file is one of its own, in place of the best one; and a folder to lose."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "precious" / "inner").mkdir(parents=True)
    (tmp_path / "precious" / "inner" / "photo.txt").write_text("precious")
    shutil.copytree(run_folder, "run")
    path = Path("run/checkpoints/last.ckpt")

    def make(**changes):
        content = torch.load(path, weights_only=True)
        for name, state in content["callbacks"].items():
            if name.startswith("ModelCheckpoint"):
                state.pop("dirpath")  # what has none is taken for this folder's
                state.update(changes)
        torch.save(content, path)
        return path

    return make


@pytest.mark.parametrize("key", ["best_model_path", "kth_best_model_path", "best_k_models", "last_model_path"])
def test_a_checkpoint_does_not_say_what_to_remove(remembering, zoo, tmp_path, key):
    victim = "run/checkpoints/../../precious"
    path = remembering(**{key: {victim: torch.tensor(1e9)} if key == "best_k_models" else victim})
    ended = zoo("fit", "--ckpt_path", path, "--trainer.max_epochs", 4)
    refused(ended, tmp_path, "precious", "outside of")
    assert (tmp_path / "precious/inner/photo.txt").read_text() == "precious"


@pytest.mark.parametrize(
    "name",
    ["{f}/../x", "{f}/a/../../x", "{f}/link/x", "{f}/link", "s3://bucket/x", "simplecache::{f}/x", "local://{f}/x", 3],
)
def test_what_is_not_in_the_folder_is_not_remembered(tmp_path, name):
    (tmp_path / "link").symlink_to(tmp_path.parent)
    callback = ModelCheckpoint(dirpath=tmp_path)
    callback.best_model_path = name.format(f=tmp_path) if isinstance(name, str) else name
    with pytest.raises(InputError, match="remembers"):
        check_remembered(callback, Path("x.ckpt"))


@pytest.mark.parametrize(
    "name", ["", "{f}/last.ckpt", "{f}/deep/best.ckpt", "/of/before/it/moved/best.ckpt", "best.ckpt"]
)
def test_what_lightning_remembers_is(tmp_path, name):
    callback = ModelCheckpoint(dirpath=tmp_path)
    callback.best_model_path = name.format(f=tmp_path)
    callback.best_k_models = {name.format(f=tmp_path): torch.tensor(0.5)}
    check_remembered(callback, Path("x.ckpt"))


@pytest.mark.parametrize("place", ["pieces/evil.py", "pieces/deep/evil.py", "pieces/evil/__init__.py"])
def test_code_in_folders_that_hold_none_themselves_is_found(tmp_path, monkeypatch, place):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text("raise AssertionError('imported')")
    path = place.replace("/__init__", "").removesuffix(".py").replace("/", ".") + ".Mixer"
    with pytest.raises(InputError, match=path):
        check_names({"neck": {"type": "ZooBackbone", "mixer": {"type": path}}}, Path("x.ckpt"))
    check_names({"root": "pieces.tar", "name": "pieces.v2.notes"}, Path("x.ckpt"))  # folders, but no code
