"""Reports on files as people have them: cut, foreign, linked, of a full disk; and on plain trainings."""

import csv
import errno
import html
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from matplotlib.figure import Figure

from attention_zoo.cli.report import report
from attention_zoo.errors import InputError
from attention_zoo.evaluation import Benchmark, Cell
from attention_zoo.reports import runs
from attention_zoo.reports.robustness.files import write_result
from attention_zoo.reports.statistics import Difference, extremes
from attention_zoo.reports.sweeps.figures import figures
from attention_zoo.reports.sweeps.files import write_sweep
from attention_zoo.reports.sweeps.report import SweepReport
from attention_zoo.reports.sweeps.tables import settings_table
from attention_zoo.reports.table import Table
from attention_zoo.reports.writing import save
from attention_zoo.results.clicks import ClickCurve, ClickResult
from attention_zoo.results.robustness import CellCount, Column, RobustnessResult, Row
from attention_zoo.runs.results import read_cost, read_metrics, read_run_config
from attention_zoo.scales import old_scale
from attention_zoo.sweeps import Plan
from attention_zoo.sweeps.driver import folder_of


def line(stage, epoch, **metrics):
    return json.dumps({"stage": stage, "epoch": epoch, "checkpoint": None, "metrics": metrics}) + "\n"


def write_run(folder, accuracy=0.5, tested=True, data="ScikitDigits", **cost):
    """A folder as a training leaves it."""
    folder.mkdir(parents=True)
    lines = [line("validate", e, **{"val/loss": 2 - e, "val/accuracy": accuracy - 0.1 * abs(e - 1)}) for e in range(3)]
    lines += [line("test", 2, **{"test/loss": 0.7, "test/accuracy": accuracy, "test/images_per_second": 9.0})] * tested
    (folder / "metrics.jsonl").write_text("".join(lines))
    found = {"parameters": 2_000_000, "flops": 3_000_000_000, "train_seconds": 61.5, "device": "CPU", **cost}
    (folder / "cost.json").write_text(json.dumps(found))
    config = {"seed_everything": 0, "data": {"class_path": f"datamodules.{data}"}}
    (folder / "config.yaml").write_text(json.dumps(config))
    return folder


@pytest.fixture
def sweep(tmp_path):
    """The folder of a finished sweep of two settings and three seeds."""
    (tmp_path / "c.yaml").write_text("{}")
    plan = Plan([str(tmp_path / "c.yaml")], {"mixer": {"A": {"m": 1}, "B": {"m": 2}}}, seeds=[0, 1, 2])
    plan.keep(tmp_path / "sweep")
    for run in plan.all_runs():
        folder = write_run(folder_of(tmp_path / "sweep", run), accuracy=0.98)
        measured = {"test/accuracy": 0.97 + 0.01 * run.seed + 0.001 * (run.values["mixer"] == "B")}
        (folder / "run.json").write_text(
            json.dumps({"status": "done", "parts": {"fit": 1}, "metrics": {"test": measured}})
        )
    return tmp_path / "sweep"


BROKEN = {
    "cut": b'{"stage": "te',
    "empty": b"",
    "a list": b"[1, 2]\n[3]\n",
    "a word": b'"x"\n"y"\n',
    "binary": bytes(range(256)) * 2,
    "wrong types": (
        b'{"stage": 3, "metrics": [1], "status": 5, "parameters": "many", "configs": 3, "format": 4, "curves": 5}\n' * 2
    ),
    "missing keys": b'{"nothing": 1}\n' * 2,
    "nested": b"[" * 2000 + b"\n{}\n",
    "a key twice": b'{"status": "done", "status": "done"}\n' * 2,
}
LEFT_OUT = re.compile(r"^warning: left out: .*", re.MULTILINE)


def put(path, kind):
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link to nothing":
        path.symlink_to(path.with_name("gone"))
    else:
        content = BROKEN[kind]
        path.write_bytes(content if path.suffix == ".jsonl" or kind == "binary" else content.partition(b"\n")[0])


KINDS = [*BROKEN, "pipe", "folder", "link to nothing"]
# an empty log is a run that measured nothing yet, a torn last line is skipped; any keys make a config, or a cost
RIGHT = [("metrics.jsonl", "empty"), ("metrics.jsonl", "cut")]
RIGHT += [(name, "missing keys") for name in ("config.yaml", "cost.json")]
RIGHT += [("config.yaml", "wrong types")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["metrics.jsonl", "run.json", "cost.json", "config.yaml"])
def test_a_sweep_is_reported_without_a_broken_file(sweep, name, kind):
    path = sweep / "runs" / "mixer=A,seed=0" / name
    put(path, kind)
    found = SweepReport(sweep)
    told = [problem for problem in found.left_out if str(path) in problem]
    assert bool(told) != ((name, kind) in RIGHT)
    table = settings_table(found)
    assert [row[0] for row in table.rows] == ["A", "B"]
    assert any("left out" in note and name in note for note in table.notes) == bool(told)


def test_nan_is_no_metric(sweep):
    path = sweep / "runs" / "mixer=A,seed=0" / "run.json"
    path.write_text('{"status": "done", "metrics": {"test": {"test/accuracy": NaN, "test/loss": 1e400}}}')
    found = SweepReport(sweep)
    assert found.groups[0].metrics[0] == {"test/accuracy": None, "test/loss": None} and not found.left_out


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_plan_is_named(sweep, kind):
    put(sweep / "sweep.yaml", kind)
    with pytest.raises(InputError, match="sweep.yaml"):
        SweepReport(sweep)


@pytest.fixture
def undrawn(monkeypatch):
    """Drawing takes longer than all the rest, and does not depend on what is read here."""
    monkeypatch.setattr(Figure, "savefig", lambda figure, target, **options: Path(target).touch())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "link to nothing"])
@pytest.mark.parametrize("name", ["metrics.jsonl", "cost.json", "config.yaml"])
def test_runs_are_reported_without_a_broken_file(tmp_path, capsys, undrawn, name, kind):
    for run in "ab":
        write_run(tmp_path / run)
    put(tmp_path / "a" / name, kind)
    report([str(tmp_path / "a"), str(tmp_path / "b")], out=str(tmp_path / "out"))
    captured = capsys.readouterr()
    told = LEFT_OUT.findall(captured.err)
    assert len(told) == (name == "metrics.jsonl" or (name, kind) not in RIGHT)
    assert all(str(tmp_path / "a" / name) in one for one in told)
    rows = list(csv.DictReader((tmp_path / "out" / "runs.csv").open()))
    assert [row["run"] for row in rows] == (["b"] if name == "metrics.jsonl" else ["a", "b"])


class TestRuns:
    def test_two_trainings(self, tmp_path, capsys):
        one, other = (
            write_run(tmp_path / "one", 0.8),
            write_run(tmp_path / "other", 0.9, train_seconds=None, flops=None),
        )
        report([str(one), str(other)], out=str(tmp_path / "out"))
        assert {path.name for path in (tmp_path / "out").iterdir()} == {"runs.md", "runs.csv", "training.png"}
        first, second = csv.DictReader((tmp_path / "out" / "runs.csv").open())
        assert first == {
            "run": "one",
            "measured": "test of epoch 3",
            "test/loss": "0.7",
            "test/accuracy": "0.8",
            "train_seconds": "61.5",
            "parameters": "2000000",
            "flops": "3000000000",
        }
        assert (second["test/accuracy"], second["train_seconds"], second["flops"]) == ("0.9", "", "")
        assert "test/accuracy ↑" in capsys.readouterr().out

    @pytest.mark.parametrize(("paths", "out"), [(["run"], ""), (["run", ""], "out")])
    def test_an_empty_path_is_not_the_working_folder(self, tmp_path, monkeypatch, paths, out):
        monkeypatch.chdir(tmp_path)
        write_run(tmp_path / "run")
        with pytest.raises(InputError, match="is empty; name a path"):
            report(paths, out=out)
        assert os.listdir(tmp_path) == ["run"]

    def test_without_a_test_the_best_validation(self, tmp_path):
        found = runs.read_runs([write_run(tmp_path / "a", 0.8, tested=False), write_run(tmp_path / "b", 0.9)], [])
        table = runs.runs_table(found)
        assert table.header[:6] == ("run", "measured", "test/loss ↓", "test/accuracy ↑", "val/loss ↓", "val/accuracy ↑")
        assert table.rows[0][1:6] == ("best validation by val/accuracy, epoch 2", "", "", "1", "0.8")
        assert table.rows[1][1] == "test of epoch 3; best validation by val/accuracy, epoch 2"
        assert table.rows[1][2:6] == ("0.7", "0.9", "1", "0.9")

    def test_tests_of_the_same_weights_are_one_row(self, tmp_path):
        folder = write_run(tmp_path / "a")
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(line("test", 2, **{"test/clean": 0.4}) + line("test", 2, **{"test/accuracy": 0.6}))
        (run,) = runs.read_runs([folder], [])
        assert run.test.metrics == {"test/loss": 0.7, "test/accuracy": 0.6, "test/clean": 0.4}

    def test_of_other_data(self, tmp_path):
        paths = [str(write_run(tmp_path / name, data=name)) for name in ("CIFAR10", "CamVid")]
        with pytest.raises(InputError, match="different data: CIFAR10 in CIFAR10, CamVid in CamVid; --mixed true"):
            report(paths, out=str(tmp_path / "out"))
        assert not (tmp_path / "out").exists()
        report(paths, out=str(tmp_path / "out"), mixed=True)
        assert "differs: data" in (tmp_path / "out" / "runs.md").read_text()

    def test_what_has_a_result_too(self, tmp_path, capsys):
        plain, robust = write_run(tmp_path / "plain"), write_run(tmp_path / "robust")
        write_result(robust / "Robustness-1", robustness())
        report([str(plain), str(robust)], out=str(tmp_path / "out"))
        assert "robust has robustness.json too, not shown" in (tmp_path / "out" / "runs.md").read_text()

    def test_no_run_at_all(self, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError, match="nothing to report on in .*empty: no metrics.jsonl, .*robustness.json or"):
            report([str(tmp_path / "empty")], out=str(tmp_path / "out"))
        (tmp_path / "empty" / "metrics.jsonl").touch()
        with pytest.raises(InputError, match="empty/metrics.jsonl holds no measurement"):
            report([str(tmp_path / "empty")], out=str(tmp_path / "out"))

    def test_the_curves_are_those_of_the_logs(self, tmp_path):
        found = runs.read_runs([write_run(tmp_path / "a", 0.8), write_run(tmp_path / "b", 0.9)], [])
        figure = runs.training_figure(found)
        assert [axes.get_ylabel() for axes in figure.axes] == ["val/accuracy ↑", "val/loss ↓"]
        first, second = figure.axes[0].lines
        assert first.get_xdata().tolist() == [1, 2, 3] and second.get_ydata() == pytest.approx([0.8, 0.9, 0.8])


def robustness():
    cells = [Cell(Benchmark("clean", "clean"), 10)]
    column = Column.of(cells[0].benchmark, cells, 10)
    corrupted = [Cell(Benchmark("x_c", "x-C"), 5, "fog", severity) for severity in (1, 2)]
    other = Column.of(corrupted[0].benchmark, corrupted, 10)
    counts = {"clean": (CellCount(10, 6, 0.1),), "x_c": tuple(CellCount(5, 2, None, "fog", s) for s in (1, 2))}
    return RobustnessResult((column, other), (Row("as trained", counts),), {"mixer": "A"})


CANNOT_BE = [
    (("rows", 0, "counts", "clean", 0, "correct"), [-1, 11, 0.5, None, "6", True, float("nan"), [6], 10**400]),
    (("rows", 0, "counts", "clean", 0, "total"), [-1, 5, 1.5, None, "x", float("inf"), {}, 10**400]),
    (("rows", 0, "counts", "clean", 0, "calibration"), [-0.1, 1.1, float("nan"), "x", 10**400]),
    (("rows", 0, "counts", "clean", 0, "no_gradient"), [-1, 11, 0.5, "6", True, [6], 10**400]),
    (("rows", 0, "counts", "clean"), [[], 3, None, {}, [1]]),
    (("rows", 0, "counts", "x_c", 0, "severity"), [2, 3, None, "1"]),
    (("rows", 0, "counts", "x_c", 0, "corruption"), ["snow", None, ["fog"]]),
    (("rows", 0, "name"), [3, None]),
    (("rows", 0, "counts"), [{}, [], None]),
    (("columns", 0, "classes"), [0, -1, None, "x", float("nan")]),
    (("columns", 0, "name"), ["x_c", 3, None]),
    (("columns", 0, "protocol"), [None, [], "x"]),
    (("columns", 1, "corruptions"), ["fog", [3], ["fog", "fog"], None]),
    (("columns", 1, "severities"), [3, ["1"], [1], None]),
    (("columns",), [[], None, {}, 3]),
    (("rows",), [[], None, 3, [3]]),
    (("mixer",), [3, {}, []]),
]


@pytest.mark.parametrize("where, value", [(where, value) for where, values in CANNOT_BE for value in values], ids=str)
def test_counts_that_cannot_be(tmp_path, where, value):
    path = tmp_path / "robustness.json"
    robustness().write_json(path)
    assert RobustnessResult.read(path) == robustness()
    content = json.loads(path.read_text())
    inner = content
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="robustness.json is no result") as raised:
        RobustnessResult.read(path)
    assert len(str(raised.value)) < 400 and "\n" not in str(raised.value)


def clicks(name="setting", ious=None):
    curve = ClickCurve.of(name, np.linspace(0, 1, 24).reshape(4, 2, 3), 0.1, {})
    return ClickResult("model", "data", {"name": "paper"}, 4, [curve], ious, list("abcd"))


@pytest.mark.parametrize(
    "key, value",
    [
        *(("mean", value) for value in ([], [0.5], [0.1, 0.2, None], [0.1, 0.2, 2.0], ["a", "b", "c"], 3, None)),
        *(("standard_error", value) for value in ([0.1], [-1, 0, 0], ["x", 0, 0], None)),
        *(("trials", value) for value in ([], [[0.1]], [3], None, "x")),
        *(("noc", value) for value in ({}, [], {"0.80": "x", "0.85": 1, "0.90": 1}, None)),
        *(("seconds_per_click", value) for value in (-1, None, "x", float("nan"))),
        ("name", 3),
    ],
    ids=str,
)
def test_curves_that_cannot_be(tmp_path, undrawn, key, value):
    ious = np.zeros((1, 4, 2, 3))
    clicks(ious=ious).write(tmp_path)
    path = tmp_path / "clicks.json"
    assert ClickResult.read(path).title == "model"
    content = json.loads(path.read_text())
    content["curves"][0][key] = value
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="clicks.json is no result of an evaluation of clicks"):
        ClickResult.read(path)


@pytest.mark.parametrize("name", ["robustness.json", "clicks.json"])
@pytest.mark.parametrize("link", [False, True])
def test_a_result_is_never_overwritten(tmp_path, undrawn, name, link):
    if link:
        (tmp_path / name).symlink_to(tmp_path / "gone")
    else:
        (tmp_path / name).write_text("of another evaluation")
    result = clicks(ious=np.zeros((1, 4, 2, 3))) if name == "clicks.json" else robustness()
    with pytest.raises(InputError, match=f"{name} exists; a result is never overwritten"):
        result.write(tmp_path)
    assert os.listdir(tmp_path) == [name] and (link or (tmp_path / name).read_text() == "of another evaluation")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "link to nothing"])
@pytest.mark.parametrize("name", ["robustness.json", "clicks.json"])
def test_results_are_joined_without_a_broken_one(tmp_path, capsys, undrawn, name, kind):
    for place in ("a", "b", "c"):
        if name == "clicks.json":
            clicks(place, np.zeros((1, 4, 2, 3))).write(tmp_path / place)
        else:
            write_result(tmp_path / place, robustness())
    put(tmp_path / "a" / name, kind)
    report([str(tmp_path / each) for each in "abc"], out=str(tmp_path / "out"))
    (told,) = LEFT_OUT.findall(capsys.readouterr().err)
    assert str(tmp_path / "a" / name) in told
    with pytest.raises(InputError, match=name):
        report([str(tmp_path / "a")], out=str(tmp_path / "out2"))


class TestFolders:
    def test_links_are_not_followed(self, sweep, tmp_path):
        precious = tmp_path / "precious"
        precious.mkdir()
        (precious / "thesis.tex").write_text("all of it")
        out = sweep / "report"
        out.mkdir()
        (out / "table.md").symlink_to(precious / "thesis.tex")
        (out / "cost.png").symlink_to(precious / "new.png")
        write_sweep(out, SweepReport(sweep))
        assert (precious / "thesis.tex").read_text() == "all of it" and not (precious / "new.png").exists()
        assert (out / "table.md").read_text().startswith("| mixer") and not (out / "table.md").is_symlink()

    @pytest.mark.parametrize("name", ["configs", "hparams", "hparams/mixer=A,seed=0"])
    def test_folders_that_are_links_are_refused(self, sweep, tmp_path, name):
        precious = tmp_path / "precious"
        precious.mkdir()
        (precious / "events.out.tfevents.1").touch()
        place = sweep / "report" / name
        place.parent.mkdir(parents=True)
        place.symlink_to(precious)
        with pytest.raises(InputError, match=f"cannot write .*: .*{name} is a link or a file; move it away"):
            write_sweep(sweep / "report", SweepReport(sweep))
        assert [path.name for path in precious.iterdir()] == ["events.out.tfevents.1"]
        assert not (sweep / "report" / "table.md").exists()

    def test_the_reports_own_folder_as_a_link(self, sweep, tmp_path):
        (tmp_path / "elsewhere").mkdir()
        (sweep / "report").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(InputError, match="report is a link, which is not followed"):
            report([str(sweep)])
        assert not any((tmp_path / "elsewhere").iterdir())

    def test_what_is_not_of_the_report_stays(self, sweep, tmp_path):
        out = tmp_path / "out"
        for path in ("configs/mine.yaml", "hparams/notes/read.me", "hparams/old/events.out.tfevents.1", "thesis.tex"):
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            (out / path).write_text("mine")
        report([str(sweep)], out=str(out), overwrite=True)
        assert all(
            (out / p).read_text() == "mine" for p in ("configs/mine.yaml", "hparams/notes/read.me", "thesis.tex")
        )
        assert not (out / "hparams/old").exists()

    @pytest.mark.parametrize("name", ["table.csv", "index.html", "training.png"])
    @pytest.mark.parametrize("before", [False, True])
    def test_a_full_disk_leaves_no_half_report(self, sweep, monkeypatch, name, before):
        out, content = sweep / "report", SweepReport(sweep)
        if before:
            write_sweep(out, content)
        was = {path: path.stat().st_ino for path in out.rglob("*")} if before else None

        def full(path, *args, **kwargs):
            if name in str(path):
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            return save(path, *args) if hasattr(path, "savefig") else Path.write_bytes(path, args[0].encode())

        def full_figure(figure, target):
            full(target) if name in str(target) else save(figure, target)

        monkeypatch.setattr(Path, "write_text", full)
        monkeypatch.setattr("attention_zoo.reports.sweeps.files.save", full_figure)
        with pytest.raises(InputError, match=f"^cannot write {re.escape(str(out / name))}: No space left on device$"):
            write_sweep(out, content)
        assert ({path: path.stat().st_ino for path in out.rglob("*")} if before else None) == was
        assert before or not out.exists()


class TestNames:
    @pytest.mark.parametrize(
        "text",
        [
            "a|b",
            "a\\|b",
            "two\nlines",
            "<script>alert(1)</script>",
            "<!-- x",
            "&lt;b&gt; &#60;",
            "[x](javascript:alert)",
            "![x](http://a/b.png)",
            "**b** _i_ `c` ~~s~~",
            "[/b] [red]x",
            "p < 0.05 and a & b > c, 2 * 3",
            "trailing \\",
            "`<b>`",
        ],
    )
    def test_markdown_shows_them_as_they_are(self, text):
        assert shown(Table(("x", "y"), ((text, "1"), ("z", text)), (text,)))[1:] == [
            [" ".join(text.split()), "1"],
            ["z", " ".join(text.split())],
        ]

    @settings(max_examples=200, deadline=None)
    @given(st.text(alphabet="ab1|\\`*_~<>&;#!/[](): \n\r\t\"'$=.-", max_size=14).filter(lambda text: text.strip()))
    def test_any_name_stays_in_its_cell(self, text):
        (_, row) = shown(Table(("x", "y"), (("a" + text + "a", "1"),)))
        assert row == [" ".join(f"a{text}a".split()), "1"]

    def test_csv_gives_them_back(self):
        rows = (('a"b', "c,d"), ("two\nlines", "'"))
        assert [tuple(row) for row in csv.reader(Table(("x", "y"), rows).csv().splitlines(keepends=True))][1:] == [
            *rows
        ]

    def test_in_a_sweeps_page_and_figures(self, tmp_path):
        (tmp_path / "c.yaml").write_text("{}")
        labels = ["<script>", "a|b", "[/b]", "$x$ $\\frac$", "$", "_hidden"]
        plan = Plan([str(tmp_path / "c.yaml")], {"m": {label: {"x": n} for n, label in enumerate(labels)}})
        plan.keep(tmp_path / "out")
        for run in plan.all_runs():
            folder = write_run(folder_of(tmp_path / "out", run))
            (folder / "run.json").write_text(
                json.dumps({"status": "done", "metrics": {"test": {"test/accuracy": 0.5}}})
            )
        report([str(tmp_path / "out")])
        page = (tmp_path / "out" / "report" / "index.html").read_text()
        assert "<script>" not in page and html.escape("<script>") in page
        (legend,) = next(figures(SweepReport(tmp_path / "out")))[2].legends
        assert [text.get_text() for text in legend.get_texts()] == [*labels[:-1], " _hidden"]


def shown(table):
    """The cells of a markdown table as a reader sees them."""
    page = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(table.markdown())
    rows = re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    assert not re.search(r"<(?!/?(table|thead|tbody|tr|th|td|ul|li|p)\b)", page)
    return [[" ".join(html.unescape(cell).split()) for cell in row] for row in cells]


class TestMarks:
    def test_two_seeds_are_never_marked(self):
        one, other = {0: 0.9, 1: 0.91}, {0: 0.5, 1: 0.51000001}
        found = Difference.of(one, other)
        assert found.chance < 0.001 and not found.is_told
        assert extremes({"one": one, "other": other}, "test/accuracy") == {}
        one, other = one | {2: 0.93}, other | {2: 0.5}
        assert extremes({"one": one, "other": other}, "test/accuracy") == {"one": "best", "other": "worst"}
        assert extremes({"one": one, "other": {**other, 2: 0.52, 3: 1.0}, "few": {5: 0.1}}, "test/accuracy") == {}

    def test_the_report_says_by_which_test(self, sweep):
        notes = settings_table(SweepReport(sweep)).notes
        assert any("paired t-tests over 3 or more seeds" in note for note in notes)


class TestFigures:
    @pytest.mark.parametrize(
        "metric, values, wanted",
        [
            ("test/accuracy", [0.9, 1.0], (0, 1)),
            ("robustness/clean", [48.0, 50.0], (0, np.inf)),
            ("robustness/cifar10_c", [58.0], (0, np.inf)),
            ("test/seconds_per_click", [0.1], (0, np.inf)),
            ("test/calibration_error", [0.1], (0, 1)),
            ("test/loss", [0.5], (-np.inf, np.inf)),
            ("test/nss", [0.5], (-np.inf, np.inf)),
            ("test/anything", [], (-np.inf, np.inf)),
        ],
    )
    def test_what_no_value_leaves(self, metric, values, wanted):
        assert old_scale(metric, values).limits == wanted

    def test_intervals_end_at_1_and_axes_have_no_offset(self, sweep):
        found = {name: figure for name, _, figure in figures(SweepReport(sweep))}
        figure = found["cost"]
        figure.canvas.draw()
        assert {axes.get_xlabel() for axes in figure.axes} == {"parameters, M", "GFLOPs an image"}
        for axes in figure.axes:
            ends = [y for each in axes.collections for path in each.get_paths() for y in path.vertices[:, 1]]
            assert ends and max(ends) <= 1 and min(ends) < 0.97
            for axis in (axes.xaxis, axes.yaxis):
                assert axis.get_offset_text().get_text() == ""
            low, high = axes.get_xlim()
            assert high - low >= 0.019 * high  # one cost in all settings: no digits beyond what is known


class TestReaders:
    def test_what_is_not_there_says_nothing(self, tmp_path):
        assert (read_metrics(tmp_path), read_cost(tmp_path), read_run_config(tmp_path)) == ([], {}, {})

    def test_a_torn_last_line_is_skipped(self, tmp_path):
        (tmp_path / "metrics.jsonl").write_text(line("validate", 0, a=1.0) + '{"stage": "val')
        assert [found.metrics for found in read_metrics(tmp_path)] == [{"a": 1.0}]

    @pytest.mark.parametrize("key", ["parameters", "flops", "peak_memory", "train_images_per_second", "train_seconds"])
    @pytest.mark.parametrize("value", ["NaN", "-1", "1e400", '"x"', "true", "[1]", "1" + "0" * 400])
    def test_costs_that_cannot_be(self, tmp_path, key, value):
        (tmp_path / "cost.json").write_text(f'{{"{key}": {value}}}')
        with pytest.raises(InputError, match=f"cost.json: {key} must be a number"):
            read_cost(tmp_path)


class TestScales:
    """Which way of a metric is better is what its run says; names count for runs alone that say nothing."""

    STATED = {"val/error_free": {"better": "higher", "least": 0, "most": 1}, "val/zoc_c": {"better": "neither"}}

    def written(self, folder, **scales):
        folder.mkdir(parents=True)
        lines = [
            {"stage": "validate", "epoch": epoch, "metrics": {"val/error_free": 0.1 * epoch, "val/zoc_c": 1.0}} | scales
            for epoch in range(3)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
        return folder

    def test_what_a_run_says_counts(self, tmp_path):
        paths = [self.written(tmp_path / "stated", scales=self.STATED), self.written(tmp_path / "old")]
        (stated,), (old,) = (runs.read_runs([path], []) for path in paths)
        assert runs.runs_table([stated]).header[2:] == ("val/error_free ↑", "val/zoc_c")
        assert runs.runs_table([old]).header[2:] == ("val/error_free ↓", "val/zoc_c ↓")
        assert runs.runs_table([old, stated]).header[2:] == ("val/error_free ↑", "val/zoc_c")
        assert (stated.best[0].epoch, old.best[0].epoch) == (2, 0)

    def test_without_a_direction_there_is_no_best_validation(self, tmp_path):
        neither = {name: {"better": "neither"} for name in self.STATED}
        (run,) = runs.read_runs([self.written(tmp_path / "run", scales=neither)], [])
        assert (run.best[0].epoch, run.best[1]) == (2, "")
        assert runs.runs_table([run]).rows[0][:2] == ("run", "last validation, epoch 3")

    def test_what_two_runs_say_differently_is_neither(self, tmp_path):
        other = {**self.STATED, "val/error_free": {"better": "lower"}}
        paths = [self.written(tmp_path / "a", scales=self.STATED), self.written(tmp_path / "b", scales=other)]
        assert runs.runs_table(runs.read_runs(paths, [])).header[2] == "val/error_free"

    @pytest.mark.parametrize("scales", [[], 3, {"val/error_free": "higher"}, {"x": {"better": "up"}}, {"x": {}}])
    def test_scales_that_cannot_be(self, tmp_path, scales):
        with pytest.raises(InputError, match="record 1 of .*metrics.jsonl: scales"):
            read_metrics(self.written(tmp_path / "a", scales=scales))
