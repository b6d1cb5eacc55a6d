"""An evaluation that the project does not have is written in this file alone, and used in every way there is."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from attention_zoo.cli.main import main
from attention_zoo.errors import InputError
from attention_zoo.evaluation import Evaluation, Narrating, Resumable, read_results, result_kinds
from attention_zoo.results.scores import Scores
from attention_zoo.runs import unfinished
from attention_zoo.runs.results import read_metrics
from attention_zoo.scales import PROPORTION, Scale
from attention_zoo.sweeps import Plan, driver
from attention_zoo.sweeps.engines import Engine
from tasks import Classification, InteractiveSegmentation, Robustness
from tasks.metrics.subset import SubsetAccuracy

NAME = "error_free"  # better where it is higher, which its name does not say


class ShiftScores(Scores):
    """Top-1 accuracy under shifts."""

    file = "shifts.json"


class Shifts(Classification):
    """Top-1 accuracy on images that are shifted by up to ``pixels`` each way, each by its own draw."""

    result: ShiftScores | None = None
    stops_at: int | None = None

    def __init__(self, *, pixels: int = 1, **classification) -> None:
        super().__init__(**classification)
        self.pixels, self.seen, self.accuracy = pixels, 0, SubsetAccuracy()

    def test_step(self, batch, batch_idx):
        if batch_idx == type(self).stops_at:
            raise KeyboardInterrupt
        self.seen += len(batch["index"])
        counted = batch["index"] >= 0
        draws = [torch.Generator().manual_seed(index) for index in batch["index"][counted].tolist()]
        shifts = [torch.randint(-self.pixels, self.pixels + 1, (2,), generator=draw).tolist() for draw in draws]
        shifted = [image.roll(shift, (1, 2)) for image, shift in zip(batch["image"][counted], shifts, strict=True)]
        self.accuracy.update(self(torch.stack(shifted)), batch["label"][counted])

    def on_test_epoch_end(self):
        self.log(f"test/{NAME}", self.accuracy)
        scores, protocol = {NAME: float(self.accuracy.compute())}, {"pixels": self.pixels}
        self.result = ShiftScores(scores, protocol, {NAME: PROPORTION})

    def progress(self):
        return {"seen": torch.tensor(self.seen), "right": self.accuracy.correct, "all": self.accuracy.total}

    def go_on(self, progress):
        self.seen = int(progress["seen"])
        self.accuracy.correct, self.accuracy.total = progress["right"], progress["all"]


RECIPE = {
    "model": {
        "class_path": f"{__name__}.Shifts",
        "init_args": {
            "model": "vit_tiny_patch16_224",
            "model_args": {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2},
        },
    },
    "data": {"class_path": "Digits", "init_args": {"batch_size": 64}},
    "trainer": {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "limit_train_batches": 1,
        "limit_val_batches": 1,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    },
}


def call(*argv):
    """Run a command in this process; its exit code."""
    before, sys.argv = sys.argv, ["attention_zoo"]
    try:
        main([str(argument) for argument in argv])
    except SystemExit as end:
        return end.code or 0
    finally:
        sys.argv = before
    return 0


@pytest.fixture
def zoo(capfd, tmp_path, monkeypatch):
    """Run a command in a folder of its own; its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(json.dumps(RECIPE))

    def run(*argv):
        capfd.readouterr()
        code = call(*argv)
        return SimpleNamespace(code=code, **capfd.readouterr()._asdict())

    return run


def shifts(run, *argv):
    """The command that evaluates with fresh weights into a folder."""
    return ["test", "--config", "recipe.yaml", "--trainer.default_root_dir", run, *argv]


def test_it_is_written_printed_and_logged(zoo, tmp_path):
    ended = zoo(*shifts("a", "--model.mixer", "VarsD", "--model.mixer.steps", "2"))
    assert ended.code == 0, ended.err
    assert sorted(path.name for path in (tmp_path / "a").glob("shifts.*")) == ["shifts.csv", "shifts.json", "shifts.md"]
    found = ShiftScores.read(tmp_path / "a" / "shifts.json")
    assert found.title == "VarsD steps=2" and found.facts["weights"] == "random"
    assert found.facts["config"]["data"]["init_args"]["batch_size"] == 64
    assert f"{NAME} ↑" in ended.out and f"{found.scores[NAME]:.4g}" in ended.out and "written to a" in ended.out
    (line,) = read_metrics(tmp_path / "a")
    assert line.metrics[f"test/{NAME}"] == pytest.approx(found.scores[NAME], abs=1e-6)
    assert line.scales[f"test/{NAME}"] == Scale("higher", 0.0, 1.0)


def test_it_goes_on_after_an_interruption(zoo, tmp_path, monkeypatch):
    monkeypatch.setattr(unfinished, "EVERY", 1)
    assert zoo(*shifts("whole")).code == 0
    monkeypatch.setattr(Shifts, "stops_at", 3)
    assert zoo(*shifts("parts")).code != 0
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["unfinished"]
    monkeypatch.setattr(Shifts, "stops_at", None)
    ended = zoo(*shifts("parts", "--data.batch_size", "50"))
    assert ended.code == 0, ended.err
    assert f"interrupted after {3 * 64} images" in ended.out and not (tmp_path / "parts" / "unfinished").exists()
    whole, parts = (ShiftScores.read(next((tmp_path / name).rglob("shifts.json"))) for name in ("whole", "parts"))
    assert whole.scores == parts.scores


def test_results_are_reported_side_by_side(zoo, tmp_path):
    for name, pixels in (("a", 1), ("b", 1), ("c", 2)):
        assert zoo(*shifts(name, "--model.pixels", pixels, "--seed_everything", len(name))).code == 0
    named = read_results(ShiftScores, [tmp_path / "a", tmp_path / "b"])
    assert list(named) == ["a", "b"]
    assert named["a"].comparable_with(named["b"])
    ended = zoo("report", "a", "b", "--out", "both")
    assert ended.code == 0, ended.err
    with (tmp_path / "both" / "shifts.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header == ["model", f"{NAME} ↑"]
    assert rows == [[name, f"{result.scores[NAME]:.4g}"] for name, result in named.items()]
    ended = zoo("report", "a", "c", "--out", "mixed")
    assert ended.code == 2
    assert "different protocols: pixels is 1 in a, 2 in c" in ended.err and len(ended.err.splitlines()) == 1
    ended = zoo("report", "a", "c", "--out", "mixed", "--mixed")
    assert ended.code == 0 and "not comparable: pixels is 1 in a, 2 in c" in ended.out
    (tmp_path / "empty").mkdir()
    ended = zoo("report", "empty")
    assert "no metrics.jsonl, shifts.json, robustness.json or clicks.json" in ended.err


class InProcess(Engine):
    """Runs every job at once."""

    def submit(self, job):
        record = job()
        return SimpleNamespace(done=lambda: True, result=lambda: record)

    def close(self):
        pass


class Command:
    """In place of a process that runs a command."""

    def __init__(self, command, *, env, **_):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ATTENTION_ZOO_TRUSTED", env["ATTENTION_ZOO_TRUSTED"])
            self.code = call(*command[3:])

    def poll(self):
        return self.code

    wait = poll

    def terminate(self):
        pass


def test_a_sweep_of_it_over_mixers(zoo, tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", Command)
    mixers = {"VarsD": {"model.mixer": "VarsD"}, "Cluster": {"model.mixer": "Cluster"}}
    plan = Plan(["recipe.yaml"], {"mixer": mixers}, evaluations={"shifts": {"model.pixels": 2}})
    found = driver.carry_out(plan, tmp_path / "sweep", InProcess())
    assert [row.record.status for row in found] == ["done", "done"], [row.record.reason for row in found]
    ended = zoo("report", "sweep")
    assert ended.code == 0, ended.err
    assert f"shifts/{NAME} ↑" in (tmp_path / "sweep" / "report" / "table.md").read_text()
    for row in found:
        measured = ShiftScores.read(next(driver.folder_of(tmp_path / "sweep", row.run).rglob("shifts.json")))
        assert measured.scores[NAME] == pytest.approx(row.record.metrics["shifts"][f"test/{NAME}"], abs=1e-6)
        assert measured.protocol == {"pixels": 2}


@pytest.mark.parametrize("score", [float("nan"), float("inf"), None, "1", True])
def test_what_is_no_number_is_no_score(tmp_path, score):
    with pytest.raises(InputError, match=f"the score {NAME} must be a finite number"):
        ShiftScores({NAME: score}, {})
    ShiftScores({NAME: 0.5}, {}).write(tmp_path)
    content = json.loads((tmp_path / "shifts.json").read_text()) | {"scores": {NAME: score}}
    (tmp_path / "shifts.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="shifts.json"):
        ShiftScores.read(tmp_path / "shifts.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", "x", '{"format": "attention_zoo scores 2"}'])
def test_other_files_are_no_scores(tmp_path, text):
    path = tmp_path / "shifts.json"
    path.write_text(text)
    with pytest.raises(InputError, match="shifts.json is no shifts.json of this program"):
        ShiftScores.read(path)


def test_a_result_comes_back_and_is_not_overwritten(tmp_path):
    found = ShiftScores({NAME: 0.5}, {"pixels": 1}, {NAME: PROPORTION}, "a", {"epoch": None})
    found.write(tmp_path)
    assert ShiftScores.read(tmp_path / "shifts.json") == found
    with pytest.raises(InputError, match="shifts.json exists"):
        found.write(tmp_path)


def test_a_file_is_of_one_kind():
    assert [kind.file for kind in result_kinds()] == ["clicks.json", "robustness.json", "shifts.json"]
    with pytest.raises(InputError, match=r"Other: .*ClickResult writes clicks.json too"):
        type("Other", (Scores,), {"file": "clicks.json"})
    assert [kind.file for kind in result_kinds()] == ["clicks.json", "robustness.json", "shifts.json"]


@pytest.mark.parametrize(
    ("task", "protocols"),
    [
        (Shifts, {Evaluation, Resumable}),
        (Robustness, {Evaluation, Resumable, Narrating}),
        (InteractiveSegmentation, {Evaluation}),
        (Classification, set()),
    ],
)
def test_what_a_task_can_is_seen_from_its_face(task, protocols):
    options = {} if issubclass(task, InteractiveSegmentation) else {"num_classes": 10}
    small = {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
    name = "resnet10t" if issubclass(task, InteractiveSegmentation) else "vit_tiny_patch16_224"
    built = task(model=name, image_size=(32, 32), model_args=None if options == {} else small, **options)
    assert {each for each in (Evaluation, Resumable, Narrating) if isinstance(built, each)} == protocols


def test_class_paths_of_before_resolve():
    from tasks.attention import AttentionSaliency, AttentionSegmentation
    from tasks.evaluations import attention, robustness
    from tasks.robustness import Robustness as before

    assert before is robustness.Robustness is Robustness
    assert (AttentionSaliency, AttentionSegmentation) == (attention.AttentionSaliency, attention.AttentionSegmentation)
    assert Path(robustness.__file__).parent.name == "evaluations"
