"""Runs that log elsewhere too: their curves are there, and everything that reads runs finds them as ever."""

import csv
import json
import struct
import sys
from types import SimpleNamespace

import pytest
import yaml
from jsonargparse import Namespace
from PIL import Image

from attention_zoo.runs.loggers import placed, unplaced
from attention_zoo.runs.trackio_logger import TrackioLogger

SMALL = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"]


@pytest.fixture
def fit(zoo, tiny, tmp_path):
    """A run with the logger of a config; its folder, whose metrics and curves are as ever."""

    def run(name, *more):
        ended = zoo("fit", "--config", tiny, "--config", f"loggers/{name}.yaml", *SMALL, *more)
        assert ended.code == 0, ended.err
        (folder,) = (tmp_path / "runs").iterdir()
        assert (folder / "metrics.jsonl").is_file() and len(list(folder.glob("events.out.tfevents*"))) == 1
        return folder

    return run


def test_csv_is_in_the_run_folder_wherever_that_is(fit, zoo, tmp_path):
    folder = fit("csv")
    with open(folder / "csv/version_0/metrics.csv", newline="") as file:
        assert any(row.get("val/loss") for row in csv.DictReader(file))
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert [each["init_args"]["save_dir"] for each in config["trainer"]["logger"]] == ["{run}", "{run}"]
    again = zoo("fit", "--ckpt_path", folder, "--trainer.max_epochs", "2")  # which needs no trust
    assert again.code == 0, again.err
    assert zoo("report", folder).code == 0
    assert not (tmp_path / "{run}").exists()


def test_names_of_run_and_folder(tmp_path):
    loggers = [Namespace(class_path="A", init_args=Namespace(save_dir="{run}", tags={"at": "{run}"}, name="{name}"))]
    folder = tmp_path / "some"
    found = placed(loggers, folder)
    assert vars(found[0].init_args) == {"save_dir": str(folder), "tags": {"at": str(folder)}, "name": "some"}
    assert unplaced(found, folder) == loggers and placed(True, folder) is True


@pytest.mark.parametrize("extra", ["mlflow", "trackio", "wandb"])
def test_a_logger_that_is_not_installed_names_the_extra(zoo, tiny, tmp_path, monkeypatch, extra):
    monkeypatch.setattr("attention_zoo.runs.loggers.find_spec", lambda name: None)
    ended = zoo("fit", "--config", tiny, "--config", f"loggers/{extra}.yaml")
    said = f'error: trainer.logger: {extra} is not installed: pip install "attention_zoo[{extra}]"\n'
    assert (ended.code, ended.err) == (2, said) and not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_mlflow_has_the_run_in_its_local_store(fit, tmp_path):
    pytest.importorskip("mlflow", reason="needs the extra mlflow")
    folder = fit("mlflow", "--config", "callbacks/pictures.yaml")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("attention_zoo")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == folder.name and run.data.tags["run_folder"] == f"runs/{folder.name}"
    pictures = [item.path for item in client.list_artifacts(run.info.run_id, "images") if item.path.endswith(".png")]
    assert len(pictures) == 1 and "val~pictures" in pictures[0]
    with Image.open(client.download_artifacts(run.info.run_id, pictures[0])) as picture:
        assert picture.height > picture.width  # a row for each of four images, two tiles in each
    line = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    assert run.data.metrics["val/loss"] == pytest.approx(line["metrics"]["val/loss"])


@pytest.mark.slow
def test_trackio_has_the_run_in_its_local_store(process, tiny, tmp_path, monkeypatch):
    """In a process of its own, since trackio asks where its folder is only as it is imported."""
    pytest.importorskip("trackio", reason="needs the extra trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "store"))
    ended = process("fit", "--config", tiny, "--config", "loggers/trackio.yaml", *SMALL, cwd=tmp_path)
    assert ended.code == 0, ended.err
    (folder,) = (tmp_path / "runs").iterdir()
    (store,) = (tmp_path / "store").glob("*.db")
    import sqlite3

    with sqlite3.connect(store) as database:
        rows = database.execute("SELECT run_name, metrics FROM metrics").fetchall()
    assert {name for name, _ in rows} == {folder.name}
    line = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    logged = [json.loads(metrics) for _, metrics in rows]
    assert any(each.get("val/loss") == pytest.approx(line["metrics"]["val/loss"]) for each in logged)


def test_a_trackio_run_is_finished_by_trackio_and_once(monkeypatch):
    """Trackio, which finishes its current run as the interpreter ends, is told that there is none any more."""
    calls = []
    run = SimpleNamespace(log=lambda metrics, step: calls.append(step), finish=lambda: calls.append("run"))
    store = SimpleNamespace(init=lambda *args, **options: run, finish=lambda: calls.append("trackio"))
    monkeypatch.setitem(sys.modules, "trackio", store)
    logger = TrackioLogger(name="a")
    logger.finalize("success")  # nothing was logged
    logger.log_metrics({"loss": 1.0}, step=3)
    logger.finalize("success")
    logger.finalize("success")
    assert calls == [3, "trackio"]


def wandb_records(path):
    """The records of an offline store of Weights & Biases: a log in LevelDB's format after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, body = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 2**15 - at % 2**15
        if left < 7:  # no room for a head: the rest of the block is empty
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        body += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(body)
            body = b""


@pytest.mark.slow
def test_wandb_has_the_run_in_its_offline_folder(program, tiny, tmp_path, monkeypatch):
    """As a program: what Weights & Biases has not written yet it writes as the interpreter ends."""
    pytest.importorskip("wandb", reason="needs the extra wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    ended = program("fit", "--config", tiny, "--config", "loggers/wandb.yaml", *SMALL, cwd=tmp_path)
    assert ended.code == 0, ended.err
    (folder,) = (tmp_path / "runs").iterdir()
    assert (folder / "metrics.jsonl").is_file() and len(list(folder.glob("events.out.tfevents*"))) == 1
    (store,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    records = list(wandb_records(store))
    (run,) = (record.run for record in records if record.HasField("run"))
    assert (run.project, run.display_name) == ("attention_zoo", folder.name)
    line = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    logged = {"/".join(item.nested_key) or item.key: item.value_json for r in records for item in r.history.item}
    assert json.loads(logged["val/loss"]) == pytest.approx(line["metrics"]["val/loss"])
