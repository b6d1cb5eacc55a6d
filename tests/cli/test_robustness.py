"""Robustness evaluations and their reports on the command line."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

TASKS = Path(__file__).parents[1] / "tasks"
EVALUATION = """
model:
  class_path: Robustness
  init_args:
    attacked_images: 15
    attacks:
      fgsm: FGSM
      pgd: {class_path: PGD, init_args: {eps: 8/255, step: 2/255}}
    variants:
      Probabilistic: Probabilistic
      Probabilistic key_adaptation=1: {class_path: Probabilistic, init_args: {key_adaptation: 1}}
data:
  class_path: cells.DigitBenchmarks
  init_args: {images: 25}
"""
ONE = ["--trainer.accelerator", "cpu", "--trainer.devices", "1"]
TWO = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("evaluation") / "robustness.yaml"
    path.write_text(EVALUATION)
    return str(path)


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """The data module of the tests, here and in further processes."""
    monkeypatch.syspath_prepend(TASKS)


@pytest.fixture(scope="module")
def run(run_folder, tmp_path_factory):
    """A copy of a finished run."""
    folder = tmp_path_factory.mktemp("copy") / "digits_run"
    shutil.copytree(run_folder, folder)
    return folder


def evaluations(run):
    return sorted(path.parent for path in run.glob("*/robustness.json"))


def read(folder):
    return json.loads((folder / "robustness.json").read_text())


def counted(content):
    return [
        (row["name"], name, cell["corruption"], cell["severity"], cell["correct"], cell["total"])
        for row in content["rows"]
        for name, cells in row["counts"].items()
        for cell in cells
    ]


@pytest.fixture(scope="module")
def evaluated(call, run, config):
    import sys

    before = evaluations(run)  # of tests that came first
    sys.path.insert(0, str(TASKS))
    try:
        assert call("test", "--ckpt_path", run / "checkpoints/last.ckpt", "--config", config, *ONE) == 0
    finally:
        sys.path.remove(str(TASKS))
    (folder,) = (each for each in evaluations(run) if each not in before)
    return folder


def test_a_test_leaves_table_counts_and_figure(evaluated, run):
    assert evaluated.name.startswith("DigitBenchmarks-")
    assert sorted(path.name for path in evaluated.iterdir()) == [
        "robustness.csv",
        "robustness.json",
        "robustness.md",
        "robustness.png",
        "robustness_cells.csv",
    ]
    content = read(evaluated)
    assert content["mixer"] == "VarsD steps=2"  # the options that are not as by default
    assert content["model"] == "vit_tiny_patch16_224"
    assert content["weights"].endswith("last.ckpt")
    assert [column["name"] for column in content["columns"]] == ["clean", "fgsm", "pgd", "digits_c", "some"]
    assert [row["name"] for row in content["rows"]] == ["as trained", "Probabilistic", "Probabilistic key_adaptation=1"]
    assert content["columns"][2]["protocol"]["eps"] == "8/255"
    assert content["config"]["data"]["init_args"]["images"] == 25
    counts = content["rows"][0]["counts"]
    assert [cell["total"] for cell in counts["digits_c"]] == [25] * 4
    assert counts["fgsm"][0]["total"] == 15
    assert (run / "config.yaml").read_text().count("Robustness") == 0  # the run's own is left alone


def test_it_prints_the_table_and_logs_its_numbers(zoo, run, config, log):
    before = len(evaluations(run))
    ended = zoo("test", "--ckpt_path", run / "checkpoints/last.ckpt", "--config", config, *ONE)
    assert ended.code == 0, ended.err
    for word in ("Digits-C (generated) error ↓", "PGD ↑", "eps 8/255", "source scikit-learn", "last.ckpt", "darkness"):
        assert word in ended.out
    assert "Test metric" not in ended.out
    assert len(evaluations(run)) == before + 1  # nothing is overwritten
    scores = read(evaluations(run)[-1])["scores"]["as trained"]
    logged = log(run)[-1]["metrics"]
    assert logged["test/digits_c"] == pytest.approx(scores["digits_c"], abs=1e-4)
    assert 100 * logged["test/some"] == pytest.approx(scores["some"], abs=1e-4)


def test_the_progress_bar_says_where_it_is(zoo, run, config, monkeypatch):
    from rich.progress import Progress

    said, update = [], Progress.update
    monkeypatch.setattr(
        Progress, "update", lambda *args, **now: (said.append(now.get("description")), update(*args, **now))
    )
    argv = ["--ckpt_path", run / "checkpoints/last.ckpt", "--config", config, *ONE, "--model.variants", "null"]
    ended = zoo("test", *argv, "--data.batch_size", "25", "--trainer.enable_progress_bar", "true")
    assert ended.code == 0, ended.err
    shown = list(dict.fromkeys(filter(None, said)))
    cells = [f"Digits-C (generated) {name} {severity}" for name in ("noise", "darkness") for severity in (1, 2)]
    assert shown == ["clean", *cells, "some digits"]


def test_images_of_another_model_are_evaluated(zoo, run, config):
    last = run / "checkpoints/last.ckpt"
    attacks = ["--model.attacks.square", "Square", "--model.attacks.square.queries", "3"]
    attacks += ["--model.attacks.square.images", "5", "--model.attacks.pgd.bpda", "true"]
    attacks += ["--model.attacks.transfer", "Transfer", "--model.attacks.transfer.checkpoint", str(run)]
    ended = zoo("test", "--ckpt_path", last, "--config", config, *ONE, *attacks, "--model.variants", "null")
    assert ended.code == 0, ended.err
    columns = {column["name"]: column["protocol"] for column in read(evaluations(run)[-1])["columns"]}
    assert columns["transfer"]["transferred_from"].startswith("vit_tiny_patch16_224 VarsD steps=2 (")
    assert columns["square"]["images"] == 5
    assert columns["pgd"]["bpda"] is True


class Code:
    """What a file may hold to run code where it is unpickled."""

    def __reduce__(self):
        return print, ("code of the file ran",)


def test_another_model_runs_no_code(zoo, run, config, tmp_path):
    torch.save({"state_dict": {}, "code": Code()}, tmp_path / "evil.ckpt")
    source = ["--model.attacks.t", "Transfer", "--model.attacks.t.checkpoint", tmp_path / "evil.ckpt"]
    ended = zoo("test", "--ckpt_path", run / "checkpoints/last.ckpt", "--config", config, *ONE, *source)
    assert ended.code == 2
    assert "evil.ckpt refused: it holds more than tensors and plain values" in ended.err
    assert "code of the file ran" not in ended.out + ended.err


def test_two_processes_count_the_same(process, run, config, evaluated):
    argv = ["--ckpt_path", run / "checkpoints/last.ckpt", "--config", config, *TWO]
    found = set(evaluations(run))
    ended = process("test", *argv, "--data.batch_size", "16", ranks=2, cwd=run, path=[TASKS])
    assert ended.code == 0, ended.err
    (new,) = set(evaluations(run)) - found
    one, two = read(evaluated), read(new)
    assert (one["processes"], two["processes"]) == (1, 2)
    assert one["columns"] == two["columns"]

    assert counted(one) == counted(two)


@pytest.fixture
def interrupt(zoo, monkeypatch):
    """Run a command until so many batches are tested."""
    from attention_zoo.runs import unfinished
    from tasks import Robustness

    monkeypatch.setattr(unfinished, "EVERY", 2)
    monkeypatch.setattr(unfinished, "PARTS", 1)
    step = Robustness.test_step

    def run(batches, *argv):
        def interrupted(self, batch, batch_idx):
            if batch_idx == batches:
                raise KeyboardInterrupt
            step(self, batch, batch_idx)

        with monkeypatch.context() as patch:
            patch.setattr(Robustness, "test_step", interrupted)
            assert zoo(*argv).code == 130

    return run


@pytest.mark.parametrize("batches", [3, 7])
def test_an_interrupted_evaluation_goes_on(zoo, interrupt, run, config, evaluated, monkeypatch, batches):
    from tasks import Robustness

    argv = ["test", "--ckpt_path", run / "checkpoints/last.ckpt", "--config", config, *ONE, "--data.batch_size"]
    before = set(run.iterdir())
    interrupt(batches, *argv, "20")
    assert set(run.iterdir()) - before == {run / "unfinished"}
    step, seen = Robustness.test_step, []
    monkeypatch.setattr(Robustness, "test_step", lambda *args: (seen.append(len(args[1]["index"])), step(*args))[1])
    ended = zoo(*argv, "30")
    assert ended.code == 0, ended.err
    kept = 20 * (batches - batches % 2)
    assert f"interrupted after {kept} images" in ended.out
    one = read(evaluated)
    counts = one["rows"][0]["counts"]
    assert sum(seen) == sum(cell["total"] for name in ("clean", "digits_c", "some") for cell in counts[name]) - kept
    (new,) = set(run.iterdir()) - before
    assert counted(one) == counted(read(new))


def test_another_evaluation_does_not_go_on(zoo, interrupt, run, config):
    argv = ["test", "--ckpt_path", run / "checkpoints/last.ckpt", "--config", config, *ONE, "--data.batch_size", "20"]
    interrupt(5, *argv)
    assert len(list((run / "unfinished").iterdir())) == 1
    ended = zoo(*argv, "--model.attacked_images", "3")
    assert ended.code == 0, ended.err
    assert "interrupted after" not in ended.out
    assert read(evaluations(run)[-1])["columns"][1]["protocol"]["images"] == 3
    shutil.rmtree(run / "unfinished")


def test_a_model_without_checkpoint_is_said_to_be_random(zoo, tiny, config, tmp_path):
    ended = zoo("test", "--config", tiny, "--config", config, "--model.attacks", "{}", "--model.variants", "null")
    assert ended.code == 0, ended.err
    assert "weights: random" in ended.out
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("vit_tiny_patch16_224-DigitBenchmarks-")
    assert (folder / "robustness.json").is_file()


@pytest.mark.parametrize("value", ["PGD", '{"class_path": "PGD", "init_args": {"eps": 0.2}}'])
def test_an_attack_is_added_to_a_config_with_an_empty_mapping_of_them(zoo, tiny, config, tmp_path, value):
    (tmp_path / "none.yaml").write_text("model: {class_path: Robustness, init_args: {attacks: {}}}\n")
    given = ["--config", tiny, "--config", config, "--config", "none.yaml"]
    more = ["--model.attacks.pgd", value, "--model.attacks.pgd.steps", "3", "--model.attacks.square", "Square"]
    ended = zoo("test", *given, *more, "--print_config")
    assert ended.code == 0, ended.err
    attacks = yaml.safe_load(ended.out)["model"]["init_args"]["attacks"]
    assert list(attacks) == ["pgd", "square"] and attacks["pgd"]["init_args"]["steps"] == 3


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--data", "Digits"], ["Robustness needs data with benchmarks, which Digits has not"]),
        (["--model.attacks.pgd.eps", "x"], ["eps=x must be a positive number or a quotient such as 4/255"]),
        (["--model.attacks.pgd.steps", "x"], ["error: model.attacks: PGD: steps: expected int"]),
        (["--model.attacks.pgd.eps", "-1/255"], ["begins with a minus is given as --KEY=VALUE"]),
        (["--model.attacks.pgd.eps=-1/255"], ["eps=-1/255 must be a positive number"]),
        (["--model.attacks.pgd.norm", "L7"], ["norm", "Linf", "L2"]),
        (["--model.attacks.pgd", "Pgd"], ["unknown attack 'Pgd'", "PGD", "AutoAttack"]),
        (
            ["--model.attacks.t", "Transfer", "--model.attacks.t.checkpoint", "none.ckpt"],
            ["checkpoint none.ckpt does not exist"],
        ),
        (["--model.attacks.t", "Transfer"], ["checkpoint"]),
        (["--model.variants.x", "VarsX"], ["unknown mixer 'VarsX'"]),
        (["--model.attacked_images", "0"], ["attacked_images=0"]),
        (["--data.clean", "false"], ["attacks need the clean images"]),
    ],
)
def test_bad_input(zoo, run, config, argv, words):
    before = evaluations(run)
    ended = zoo("test", "--ckpt_path", run / "checkpoints/last.ckpt", "--config", config, *ONE, *argv)
    assert ended.code == 2, ended.out
    assert len(ended.err.splitlines()) == 1
    for word in words:
        assert word in ended.err
    assert evaluations(run) == before


def test_a_model_of_other_classes_is_one_line(zoo, run, config, monkeypatch):
    import cells

    monkeypatch.setattr(cells.DigitBenchmarks, "num_classes", 7)
    ended = zoo("test", "--ckpt_path", run / "checkpoints/last.ckpt", "--config", config, *ONE)
    assert ended.code == 2
    assert "head.weight is [10, 32] in the file, [7, 32] in the model" in ended.err
    assert len(ended.err.splitlines()) == 1


class TestReport:
    @pytest.fixture(scope="class")
    def other(self, evaluated, tmp_path_factory):
        """The same evaluation, as if of another mixer."""
        folder = tmp_path_factory.mktemp("other") / "evaluation"
        shutil.copytree(evaluated, folder)
        content = read(folder)
        content["mixer"] = "DotProduct"
        (folder / "robustness.json").write_text(json.dumps(content))
        return folder

    def test_joins_results(self, zoo, evaluated, other, tmp_path):
        ended = zoo("report", evaluated, other, "--out", "both")
        assert ended.code == 0, ended.err
        assert "DotProduct, Probabilistic" in ended.out
        rows = (tmp_path / "both" / "robustness.csv").read_text().splitlines()
        assert len(rows) == 1 + 6
        assert (tmp_path / "both" / "robustness.png").is_file()

    def test_overwrites_nothing_unasked(self, zoo, other, tmp_path):
        assert zoo("report", other).code == 0
        before = (tmp_path / "report" / "robustness.csv").stat().st_mtime_ns
        ended = zoo("report", other)
        assert ended.code == 2
        assert "report is not empty; choose another folder with --out" in ended.err
        assert (tmp_path / "report" / "robustness.csv").stat().st_mtime_ns == before
        assert zoo("report", other, "--overwrite").code == 0

    def test_different_protocols(self, zoo, evaluated, other, tmp_path):
        content = read(other)
        content["columns"][0]["protocol"]["preprocessing"] = "crop"
        changed = tmp_path / "changed"
        changed.mkdir()
        (changed / "robustness.json").write_text(json.dumps(content))
        ended = zoo("report", evaluated, changed)
        assert ended.code == 2
        assert "different protocols: clean: preprocessing is none in VarsD" in ended.err
        assert len(ended.err.splitlines()) == 1
        assert not (tmp_path / "report").exists()
        ended = zoo("report", evaluated, changed, "--mixed")
        assert ended.code == 0, ended.err
        assert "not comparable: clean: preprocessing is none" in ended.out
        assert "not comparable" in (tmp_path / "report" / "robustness.md").read_text()

    @pytest.mark.parametrize(
        ("argv", "said"),
        [([], "nothing to report on: python"), (["."], "nothing to report on in ."), (["x"], "x does")],
    )
    def test_nothing_there(self, zoo, argv, said):
        ended = zoo("report", *argv)
        assert ended.code == 2
        assert said in ended.err
