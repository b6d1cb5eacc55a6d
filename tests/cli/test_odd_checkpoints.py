"""Checkpoints whose parts are not what they should be end in one line that names the file, and harm nothing."""

import zipfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attention_zoo.errors import InputError
from attention_zoo.models.checkpoints import read_weights
from attention_zoo.runs.checkpoint import Checkpoint, read_checkpoint

ODD = {
    "an epoch in words": ("epoch", "three"),
    "an epoch of a tensor": ("epoch", torch.zeros(2)),
    "a negative step": ("global_step", -1),
    "a step of 400 digits": ("global_step", 10**400),
    "a share of a step": ("global_step", 0.5),
    "weights in a list": ("state_dict", [torch.zeros(1)]),
    "weights without names": ("state_dict", {3: torch.zeros(1)}),
    "sparse weights": ("state_dict", {"a": torch.eye(3).to_sparse()}),
    "weights of nothing": ("state_dict", {"a": torch.zeros(2, device="meta")}),
    "callbacks in a list": ("callbacks", [1]),
}

NO_TRAINING = {
    "empty optimizers": ("optimizer_states", []),
    "no optimizer": ("optimizer_states", None),
    "an optimizer in words": ("optimizer_states", "adam"),
    "no loops": ("loops", None),
    "no schedules": ("lr_schedulers", None),
}

MISFITS = {
    "an odd optimizer": ("optimizer_states", [{"state": 3}]),
    "another optimizer": ("optimizer_states", [{"state": {}, "param_groups": [{"params": [0]}]}]),
    "odd loops": ("loops", {"fit_loop": 3}),
    "a version in words": ("pytorch-lightning_version", "new"),
    "an odd schedule": ("lr_schedulers", [3]),
}


@pytest.fixture(scope="session")
def content(run_folder):
    return torch.load(run_folder / "checkpoints/last.ckpt", weights_only=True)


def one_line(ended, *words):
    assert ended.code == 2, ended.out[-500:]
    assert "Traceback" not in ended.err
    (line,) = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    for word in words:
        assert word in line


def changed(content, path, key, value):
    content = {**content, key: value}
    if value is None:
        del content[key]
    torch.save(content, path)
    return path


@pytest.mark.parametrize("case", ODD)
def test_odd_parts(content, tmp_path, case):
    path = changed(content, tmp_path / "x.ckpt", *ODD[case])
    with pytest.raises(InputError, match="x.ckpt") as error:
        read_checkpoint(path)
    assert len(str(error.value)) < 300 + len(str(path))


def test_by_command(content, zoo, tmp_path):
    for command in ("test", "fit"):
        one_line(zoo(command, "--ckpt_path", changed(content, tmp_path / "x.ckpt", *ODD["an epoch in words"])), "epoch")


@pytest.mark.parametrize("case", NO_TRAINING)
def test_weights_alone_are_no_training(content, zoo, tmp_path, case):
    path = changed(content, tmp_path / "x.ckpt", *NO_TRAINING[case])
    one_line(zoo("fit", "--ckpt_path", path), str(path), NO_TRAINING[case][0], "model.weights")
    if case == "no optimizer":
        assert zoo("test", "--ckpt_path", path).code == 0


@pytest.mark.parametrize("case", MISFITS)
def test_states_that_do_not_fit(content, zoo, tmp_path, case):
    path = changed(content, tmp_path / "x.ckpt", *MISFITS[case])
    argv = ["--trainer.default_root_dir", "run", "--trainer.max_epochs", "3"]
    one_line(zoo("fit", "--ckpt_path", path, *argv), str(path), "cannot be gone on from")
    assert not list(tmp_path.rglob("config.yaml"))


def test_a_task_without_a_schedule_goes_on(zoo, tiny, tmp_path, monkeypatch):
    import tasks

    def configure(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    argv = ["--config", tiny, "--trainer.default_root_dir", "run", "--trainer.max_epochs"]
    with monkeypatch.context() as patched:
        patched.setattr(tasks.Classification, "configure_optimizers", configure)
        assert zoo("fit", *argv, "1").code == 0
        last = tmp_path / "run/checkpoints/last.ckpt"
        assert read_checkpoint(last).schedules == 0 == len(read_checkpoint(last).lacks)
        assert zoo("fit", "--ckpt_path", "last", *argv, "2").code == 0
        assert read_checkpoint(last).epoch == 1
    one_line(zoo("fit", "--ckpt_path", last, "--trainer.max_epochs", "3"), str(last), "schedules: 0 in the file, 1 in")


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64, torch.bool])
@pytest.mark.parametrize("command", ["test", "fit", "maps", "decode"])
def test_weights_of_another_kind_of_number(content, zoo, tmp_path, images, command, dtype):
    weights = dict(content["state_dict"])
    weights["model.cls_token"] = weights["model.cls_token"].to(dtype)
    path = changed(content, tmp_path / "x.ckpt", "state_dict", weights)
    words = [next(images.glob("*.png"))] if command == "maps" else []
    one_line(zoo(command, *words, "--ckpt_path", path), str(path), "model.cls_token", "real in the model")


def test_half_precision_is_the_same_kind(content, zoo, tmp_path):
    weights = {
        key: value.half() if value.is_floating_point() else value for key, value in content["state_dict"].items()
    }
    path = changed(content, tmp_path / "x.ckpt", "state_dict", weights)
    assert zoo("test", "--ckpt_path", path).code == 0


class Program(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_program_is_no_checkpoint_and_nothing_else_is_said(tmp_path, recwarn):
    torch.jit.script(Program()).save(tmp_path / "x.ckpt")
    recwarn.clear()
    with pytest.raises(InputError, match="x.ckpt is not a checkpoint: it is a program"):
        read_checkpoint(tmp_path / "x.ckpt")
    with pytest.raises(InputError, match="x.ckpt is no file of weights"):
        read_weights(tmp_path / "x.ckpt", "a model")
    assert not recwarn.list


def test_an_archive_that_unpacks_to_more(content, tmp_path):
    path = tmp_path / "x.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", b"\0" * 10_000_000)
        archive.writestr("x/version", b"3")
    assert path.stat().st_size < 20_000
    with pytest.raises(InputError, match="x.ckpt is not a checkpoint: it would unpack to 10,000,001 bytes"):
        read_checkpoint(path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=5,
)
KEYS = ("epoch", "global_step", "state_dict", "callbacks", "config", "loops", "optimizer_states", "hyper_parameters")


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6))
def test_any_content_is_read_or_refused(tmp_path_factory, odd):
    path = tmp_path_factory.getbasetemp() / "any.ckpt"
    torch.save({"state_dict": {}, **odd}, path)
    try:
        found = read_checkpoint(path)
        assert isinstance(found, Checkpoint) and found.epoch >= 0
        for command in ("fit", "test"):
            found.config_for(command)
    except InputError as error:
        assert "any.ckpt" in str(error)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1), st.binary(min_size=1, max_size=20))
def test_any_damage_is_read_or_refused(run_folder, tmp_path_factory, where, scrap):
    good = (run_folder / "checkpoints/last.ckpt").read_bytes()
    place = int(where * len(good))
    path = tmp_path_factory.getbasetemp() / "damaged.ckpt"
    for damaged in (good[:place], good[:place] + scrap + good[place + len(scrap) :]):
        path.write_bytes(damaged)
        try:
            read_checkpoint(path)
        except InputError as error:
            assert "damaged.ckpt" in str(error)
