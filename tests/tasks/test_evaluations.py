"""An evaluation that the project does not have is written in this file alone, and used in every way there is."""

import csv
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from attention_zoo.errors import InputError
from attention_zoo.evaluation import Evaluation, Narrating, Resumable, read_results, result_kinds
from attention_zoo.results.scores import Scores
from attention_zoo.results.top_down_control import ControlScores
from attention_zoo.runs import unfinished
from attention_zoo.runs.results import read_metrics
from attention_zoo.scales import PROPORTION, Scale
from attention_zoo.sweeps import Plan, driver
from attention_zoo.sweeps.engines import Engine
from tasks import Classification, InteractiveSegmentation, Robustness
from tasks.metrics.subset import SubsetAccuracy
from tests.commands import call

NAME = "error_free"  # better where it is higher, which its name does not say
FILE = "shifts_of_these_tests.json"


class ScoresOfTheseTests(Scores):
    """Top-1 accuracy under shifts."""

    file = FILE


class ShiftsOfTheseTests(Classification):
    """Top-1 accuracy on images that are shifted by up to ``pixels`` each way, each by its own draw."""

    result: ScoresOfTheseTests | None = None
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
        self.result = ScoresOfTheseTests(scores, protocol, {NAME: PROPORTION})

    def progress(self):
        return {"seen": torch.tensor(self.seen), "right": self.accuracy.correct, "all": self.accuracy.total}

    def go_on(self, progress):
        self.seen = int(progress["seen"])
        self.accuracy.correct, self.accuracy.total = progress["right"], progress["all"]


RECIPE = {
    "model": {
        "class_path": f"{__name__}.ShiftsOfTheseTests",
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
    written = [f"shifts_of_these_tests.{ending}" for ending in ("csv", "json", "md")]
    assert sorted(path.name for path in (tmp_path / "a").glob("shifts_of_these_tests.*")) == written
    found = ScoresOfTheseTests.read(tmp_path / "a" / FILE)
    assert found.title == "VarsD steps=2" and found.facts["weights"] == "random"
    assert found.facts["config"]["data"]["init_args"]["batch_size"] == 64
    assert f"{NAME} ↑" in ended.out and f"{found.scores[NAME]:.4g}" in ended.out and "written to a" in ended.out
    (line,) = read_metrics(tmp_path / "a")
    assert line.metrics[f"test/{NAME}"] == pytest.approx(found.scores[NAME], abs=1e-6)
    assert line.scales[f"test/{NAME}"] == Scale("higher", 0.0, 1.0)


def test_it_goes_on_after_an_interruption(zoo, tmp_path, monkeypatch):
    """Also one of a few batches, of which many would be lost if the counts were written every so many."""
    assert zoo(*shifts("whole")).code == 0
    monkeypatch.setattr(ShiftsOfTheseTests, "stops_at", 3)
    assert zoo(*shifts("parts")).code == 130
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["unfinished"]
    monkeypatch.setattr(ShiftsOfTheseTests, "stops_at", None)
    ended = zoo(*shifts("parts", "--data.batch_size", "50"))
    assert ended.code == 0, ended.err
    assert f"interrupted after {3 * 64} images" in ended.out and not (tmp_path / "parts" / "unfinished").exists()
    whole, parts = (ScoresOfTheseTests.read(next((tmp_path / name).rglob(FILE))) for name in ("whole", "parts"))
    assert whole.scores == parts.scores


def test_it_starts_anew_where_its_code_is_another_by_now(zoo, tmp_path, monkeypatch):
    monkeypatch.setattr(ShiftsOfTheseTests, "stops_at", 2)
    assert zoo(*shifts("parts")).code == 130
    monkeypatch.setattr(ShiftsOfTheseTests, "stops_at", 0)
    assert "interrupted after 128 images" in zoo(*shifts("parts")).out
    monkeypatch.setattr(unfinished, "fingerprint", lambda task, data: f"{type(task)} {type(data)}, edited")
    assert "interrupted after" not in zoo(*shifts("parts")).out


def test_counts_that_do_not_say_what_they_are_of_are_refused_at_once(zoo, monkeypatch):
    monkeypatch.setattr(ShiftsOfTheseTests, "progress", lambda task: {"right": task.accuracy.correct})
    ended = zoo(*shifts("parts"))
    assert ended.code == 2 and "ShiftsOfTheseTests.progress() must have 'seen'" in ended.err


def test_results_are_reported_side_by_side(zoo, tmp_path):
    for name, pixels in (("a", 1), ("b", 1), ("c", 2)):
        assert zoo(*shifts(name, "--model.pixels", pixels, "--seed_everything", len(name))).code == 0
    named = read_results(ScoresOfTheseTests, [tmp_path / "a", tmp_path / "b"])
    assert list(named) == ["a", "b"]
    assert named["a"].comparable_with(named["b"])
    ended = zoo("report", "a", "b", "--out", "both")
    assert ended.code == 0, ended.err
    with (tmp_path / "both" / "shifts_of_these_tests.csv").open() as file:
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
    told = ended.err.partition("no metrics.jsonl, ")[2]
    assert all(kind.file in told for kind in result_kinds())  # of which a person's own may be one


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
        measured = ScoresOfTheseTests.read(next(driver.folder_of(tmp_path / "sweep", row.run).rglob(FILE)))
        assert measured.scores[NAME] == pytest.approx(row.record.metrics["shifts"][f"test/{NAME}"], abs=1e-6)
        assert measured.protocol == {"pixels": 2}


@pytest.mark.parametrize("score", [float("nan"), float("inf"), None, "1", True])
def test_what_is_no_number_is_no_score(tmp_path, score):
    with pytest.raises(InputError, match=f"the score {NAME} must be a finite number"):
        ScoresOfTheseTests({NAME: score}, {})
    ScoresOfTheseTests({NAME: 0.5}, {}).write(tmp_path)
    content = json.loads((tmp_path / FILE).read_text()) | {"scores": {NAME: score}}
    (tmp_path / FILE).write_text(json.dumps(content))
    with pytest.raises(InputError, match="shifts_of_these_tests.json"):
        ScoresOfTheseTests.read(tmp_path / FILE)


@pytest.mark.parametrize(
    ("score", "scale", "told"),
    [
        (2.0, PROPORTION, "at least 0 and at most 1, got 2.0"),
        (-0.1, Scale("lower", 0.0), "at least 0, got -0.1"),
        (3, Scale("higher", None, 2.0), "at most 2, got 3"),
    ],
)
def test_what_its_scale_does_not_reach_is_no_score(tmp_path, score, scale, told):
    with pytest.raises(InputError, match=f"the score {NAME} must by its scale be {told}"):
        ScoresOfTheseTests({NAME: score}, {}, {NAME: scale})
    assert ScoresOfTheseTests({NAME: 1 + 1e-7}, {}, {NAME: PROPORTION}).scores
    named = {f"absvit/10/class/{NAME}": score}
    with pytest.raises(InputError, match=told):
        ControlScores(named, {}, {NAME: scale}, intervals={name: (0.0, 1.0) for name in named})


def test_a_tensor_is_no_score_and_none_at_all_are_no_result():
    with pytest.raises(
        InputError, match=r"must be a finite number, got tensor\(1.\) of type Tensor; float\(\) makes it one"
    ):
        ScoresOfTheseTests({NAME: torch.tensor(1.0)}, {})
    with pytest.raises(InputError, match="ScoresOfTheseTests holds no score"):
        ScoresOfTheseTests({}, {}, {})


def of_data(name, **options):
    config = {"data": {"class_path": name, "init_args": options}}
    return ScoresOfTheseTests({NAME: 0.5}, {"pixels": 1}, facts={"config": config})


@pytest.mark.parametrize(
    ("one", "other", "differing"),
    [
        (of_data("Digits", image_size=8), of_data("Digits", image_size=16), ["data.image_size is 8 in a, 16 in b"]),
        (of_data("Digits", image_size=8), of_data("Stripes"), ["data is Digits in a, Stripes in b"]),
        (of_data("Digits", root="x"), of_data("Digits"), ["data.root is x in a, not said in b"]),
        (of_data("Digits", batch_size=8, num_workers=1, augment=[]), of_data("Digits", batch_size=1), []),
        (of_data("Digits"), ScoresOfTheseTests({NAME: 0.5}, {"pixels": 1}), []),
    ],
)
def test_scores_of_other_data_are_not_comparable(one, other, differing):
    results = {"a": one, "b": other}
    assert ScoresOfTheseTests.differences(results) == differing
    if differing:
        with pytest.raises(InputError, match=differing[0]):
            ScoresOfTheseTests.compare(results)
    notes = ScoresOfTheseTests.compare(results, mixed=True).notes
    assert [note for note in notes if "not comparable" in note] == [f"not comparable: {line}" for line in differing]


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (None, "ShiftsOfTheseTests is an evaluation without a result: set self.result"),
        ({NAME: 1.0}, "the result of ShiftsOfTheseTests must be a Result, such as Scores, got one of dict"),
    ],
)
def test_an_evaluation_without_a_result_ends_in_a_line_and_leaves_no_folder(zoo, tmp_path, monkeypatch, result, told):
    def end(task):
        task.log("test/nothing_known", 1.0)
        task.result = result

    monkeypatch.setattr(ShiftsOfTheseTests, "on_test_epoch_end", end)
    with pytest.warns(UserWarning, match="nothing_known does not say which way is better; .*METRICS can state it"):
        ended = zoo(*shifts("a", "--trainer.limit_test_batches", "1"))
    assert ended.code == 2 and told in ended.err
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", "x", '{"format": "attention_zoo scores 2"}'])
def test_other_files_are_no_scores(tmp_path, text):
    path = tmp_path / FILE
    path.write_text(text)
    with pytest.raises(InputError, match="shifts_of_these_tests.json is no shifts_of_these_tests.json of this program"):
        ScoresOfTheseTests.read(path)


def test_a_result_comes_back_and_is_not_overwritten(tmp_path):
    found = ScoresOfTheseTests({NAME: 0.5}, {"pixels": 1}, {NAME: PROPORTION}, "a", {"epoch": None})
    found.write(tmp_path)
    assert ScoresOfTheseTests.read(tmp_path / FILE) == found
    with pytest.raises(InputError, match="shifts_of_these_tests.json exists"):
        found.write(tmp_path)


def test_a_file_is_of_one_kind():
    before = [kind.file for kind in result_kinds()]
    assert {"clicks.json", "robustness.json", FILE} <= set(before) and before == sorted(set(before))
    with pytest.raises(InputError, match=r"Other: .*ClickResult writes clicks.json too"):
        type("Other", (Scores,), {"file": "clicks.json"})
    assert [kind.file for kind in result_kinds()] == before


@pytest.mark.parametrize(
    ("task", "protocols"),
    [
        (ShiftsOfTheseTests, {Evaluation, Resumable}),
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
