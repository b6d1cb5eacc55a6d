"""A sweep's report: its statistics, what it says of differences, and its files, from folders that look like sweeps."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats

from attention_zoo.errors import InputError
from attention_zoo.reports.statistics import Difference, Estimate, arrow, extremes, holm
from attention_zoo.reports.sweeps.figures import figures
from attention_zoo.reports.sweeps.files import write_sweep
from attention_zoo.reports.sweeps.report import SweepReport
from attention_zoo.reports.sweeps.tables import numbers_table, runs_table, settings_table
from attention_zoo.results.clicks import THRESHOLDS, ClickCurve, ClickResult
from attention_zoo.scales import old_scale
from attention_zoo.sweeps import Plan
from attention_zoo.sweeps.driver import folder_of

RESULTS = Path(__file__).parents[2] / "results"
MIXERS = {"A": {"model.mixer": "A"}, "B": {"model.mixer": "B", "model.mixer.steps": 5}, "C": {"model.mixer": "C"}}
ACCURACIES = {"A": (0.50, 0.53, 0.52), "B": (0.601, 0.629, 0.622), "C": (0.51, 0.52, 0.53)}


@pytest.fixture
def sweep(tmp_path):
    """Write a finished sweep; its report."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("trainer: {}")

    def write(axes=None, measure=None, config=None, cost=None, status=None, **options):
        plan = Plan([str(recipe)], axes or {"mixer": MIXERS}, **{"seeds": [0, 1, 2], **options})
        out = tmp_path / "sweep"
        plan.keep(out)
        for run in plan.all_runs():
            folder = folder_of(out, run)
            folder.mkdir(parents=True, exist_ok=True)
            measured = measure(run) if measure else {"test/accuracy": ACCURACIES[run.values["mixer"]][run.seed]}
            by_evaluation = {}
            for name, value in measured.items():
                evaluation, _, metric = name.partition("/")
                by_evaluation.setdefault(evaluation, {})[f"test/{metric}"] = value
            record = {"status": "done", "reason": None, "parts": {"fit": 1.0}, "metrics": by_evaluation, "kills": 0}
            record |= status(run) if status else {}
            (folder / "run.json").write_text(json.dumps(record))
            name = str(run.values.get("mixer"))
            mixer = {"class_path": f"zoo.{name}", "init_args": {"steps": 5} if name == "B" else {}}
            content = {"seed_everything": run.seed, "model": {"init_args": {"mixer": mixer, "depth": 4}}}
            content["model"]["init_args"] |= config(run) if config else {}
            (folder / "config.yaml").write_text(yaml.safe_dump(content))
            found = {"parameters": 2_000_000 + run.seed, "flops": None, "device": "CPU", "versions": {"torch": "2"}}
            (folder / "cost.json").write_text(json.dumps(found | (cost(run) if cost else {})))
            lines = [
                {"stage": "validate", "epoch": epoch, "metrics": {"val/loss": 2 - epoch, "val/accuracy": 0.1 * epoch}}
                for epoch in range(3)
            ]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return SweepReport(out)

    return write


class TestStatistics:
    @pytest.mark.parametrize("values", [[1.0, 2.0], [0.5, 0.52, 0.47, 0.55], np.random.default_rng(0).normal(size=9)])
    def test_interval_is_scipys(self, values):
        found = Estimate.of(values)
        low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
        assert (found.mean - found.half_width, found.mean + found.half_width) == pytest.approx((low, high))

    def test_one_seed_has_no_interval(self):
        assert math.isnan(Estimate.of([0.5]).half_width) and str(Estimate.of([0.5])) == "0.5"

    @pytest.mark.parametrize(
        "mean, half_width, text",
        [(0.51234, 0.0123, "0.512 ± 0.012"), (51.23, 3.4, "51.2 ± 3.4"), (1234.5, 120, "1234 ± 120"), (2, 0, "2 ± 0")],
    )
    def test_digits_follow_the_interval(self, mean, half_width, text):
        assert str(Estimate(mean, half_width, 3)) == text

    def test_paired_difference_is_scipys(self):
        one, other = {0: 0.5, 1: 0.6, 2: 0.58, 9: 7.0}, {0: 0.4, 1: 0.56, 2: 0.5}
        found = Difference.of(one, other)
        wanted = stats.ttest_rel([0.5, 0.6, 0.58], [0.4, 0.56, 0.5])
        assert (found.mean, found.chance) == pytest.approx((0.22 / 3, wanted.pvalue))

    def test_what_cannot_be_tested(self):
        assert math.isnan(Difference.of({0: 1.0}, {0: 2.0}).chance) and math.isnan(
            Difference.of({0: 1.0}, {1: 1.0}).mean
        )
        assert math.isnan(Difference.of({0: 0.5, 1: 0.75}, {0: 0.25, 1: 0.5}).chance)
        assert Difference.of({0: 0.5, 1: 0.75}, {0: 0.5, 1: 0.75}) == Difference(0, 1)

    def test_holm_by_hand(self):
        found = holm([0.01, 0.04, math.nan, 0.03, 0.005])
        assert found[:2] + found[3:] == pytest.approx([0.03, 0.06, 0.06, 0.02]) and math.isnan(found[2])
        assert holm([0.6, 0.7]) == [1.0, 1.0]

    @pytest.mark.parametrize(
        "metric, way",
        [
            *((f"robustness/{name}_c", -1) for name in ("imagenet", "cifar10", "tiny_imagenet")),
            *((f"robustness/{name}", 1) for name in ("clean", "fgsm", "pgd", "imagenet_a", "imagenet_sketch")),
            ("robustness/no adaptation/imagenet_c", -1),
            *((f"test/{name}", 1) for name in ("accuracy", "accuracy_top5", "mean_iou", "panoptic_quality", "nss")),
            *((f"test/{name}", -1) for name in ("loss", "noc_85", "seconds_per_click", "false_positive")),
            ("test/value_prior_precision", 0),
        ],
    )
    def test_which_way_is_better(self, metric, way):
        assert old_scale(metric).way == way
        assert arrow(metric) == f"{metric} {'↓ ↑'[way + 1]}".rstrip()

    def test_best_and_worst_only_beyond_noise(self):
        values = {name: dict(enumerate(own)) for name, own in ACCURACIES.items()}
        assert extremes(values, "test/accuracy") == {"B": "best"}
        assert extremes(values, "test/loss") == {"B": "worst"}
        assert extremes(values, "test/value_prior_precision") == {}
        one_seed = {name: {0: own[0]} for name, own in values.items()}
        assert extremes(one_seed, "test/accuracy") == {}

    def test_the_best_must_differ_from_every_other(self):
        first = {seed: 0.7 + 0.01 * seed for seed in range(3)}
        next_one = {seed: value - 0.05 - 0.001 * seed for seed, value in first.items()}
        scattered = {0: 0.1, 1: 0.74, 2: 0.3}
        assert extremes({"first": first, "next": next_one}, "x/accuracy") == {"first": "best", "next": "worst"}
        assert extremes({"first": first, "next": next_one, "scattered": scattered}, "x/accuracy") == {}


class TestTables:
    def test_means_differences_and_costs(self, sweep):
        table = settings_table(sweep(baseline={"mixer": "A"}))
        assert table.header == ("mixer", "seeds", "test/accuracy ↑", "to A", "parameters, M")
        assert table.rows[0] == ("A", "3", "0.517 ± 0.038", "", "2")
        assert table.rows[1] == ("B", "3", "0.617 ± 0.036 (best)", "+0.1007 ± 0.0038 *", "2")
        assert table.rows[2][2:4] == ("0.520 ± 0.025", "+0.003 ± 0.029")
        assert any("paired t-test" in note and "Holm" in note for note in table.notes)

    def test_numbers_in_full(self, sweep):
        report = sweep(baseline={"mixer": "A"})
        rows = list(csv.DictReader(numbers_table(report).csv().splitlines()))
        b = [ACCURACIES["B"][seed] - ACCURACIES["A"][seed] for seed in range(3)]
        c = [ACCURACIES["C"][seed] - ACCURACIES["A"][seed] for seed in range(3)]
        raw = [stats.ttest_1samp(each, 0).pvalue for each in (b, c)]
        assert float(rows[1]["test/accuracy p"]) == pytest.approx(2 * raw[0])
        assert float(rows[2]["test/accuracy p"]) == pytest.approx(raw[1])
        assert float(rows[1]["test/accuracy to baseline"]) == pytest.approx(np.mean(b))
        assert rows[0]["test/accuracy p"] == "" and float(rows[0]["parameters"]) == 2_000_001

    def test_the_runs_have_their_own_numbers(self, sweep):
        rows = list(csv.DictReader(runs_table(sweep()).csv().splitlines()))
        assert {(row["mixer"], int(row["seed"])): float(row["test/accuracy"]) for row in rows} == {
            (mixer, seed): value for mixer, values in ACCURACIES.items() for seed, value in enumerate(values)
        }

    def test_a_baseline_of_one_axis_holds_the_others_fixed(self, sweep):
        axes = {"mixer": {name: MIXERS[name] for name in "AB"}, "model.depth": [1, 2]}
        measured = {("A", 1): 0.1, ("A", 2): 0.2, ("B", 1): 0.4, ("B", 2): 0.6}
        report = sweep(
            axes,
            lambda run: {"test/accuracy": measured[tuple(run.values.values())] + 0.01 * run.seed},
            baseline={"mixer": "A"},
        )
        table = settings_table(report)
        assert table.header[:2] == ("mixer", "depth")
        assert [row[4] for row in table.rows] == ["", "", "+0.3 ± 0", "+0.4 ± 0"]

    def test_one_seed(self, sweep):
        table = settings_table(sweep(seeds=[1], baseline={"mixer": "A"}))
        assert [row[2] for row in table.rows] == ["0.53", "0.629", "0.52"]
        assert table.notes[0].startswith("one seed each") and "*" not in "".join(row[3] for row in table.rows)

    def test_axes_that_end_alike_keep_their_names(self, sweep):
        axes = {"model.a.steps": [1], "model.b.steps": [2], "model.c.lam": [3]}
        table = settings_table(sweep(axes, lambda run: {"test/accuracy": 1.0}))
        assert table.header[:3] == ("model.a.steps", "model.b.steps", "lam")

    def test_failures_are_grouped_by_reason(self, sweep):
        def status(run):
            lost = run.values["mixer"] != "A" and run.seed < 2
            return {"status": "failed", "reason": "no memory", "metrics": {}} if lost else {}

        notes = settings_table(sweep(status=status)).notes
        assert "failed: B (seed 0, 1); C (seed 0, 1): no memory" in notes
        assert "settings have different numbers of finished seeds: 1, 3" in notes

    def test_nothing_done(self, sweep):
        with pytest.raises(InputError, match="no run of the sweep in .* is done yet"):
            sweep(status=lambda run: {"status": "waiting", "metrics": {}})


class TestDifferences:
    def test_what_follows_from_an_axis_is_said_once(self, sweep):
        notes = settings_table(sweep()).notes
        assert [note for note in notes if "axis" in note] == ["axis mixer sets model.mixer (steps)"]

    def test_what_no_axis_sets_is_told(self, sweep):
        report = sweep(config=lambda run: {"depth": 3 if run.values["mixer"] == "B" else 4})
        assert "differs, though no axis sets it: model.init_args.depth = 3 in B, 4 in all others" in (
            settings_table(report).notes
        )

    def test_what_an_axis_sets_but_does_not_decide_is_told(self, sweep):
        def config(run):
            steps = 7 if run.seed == 1 else 5
            return (
                {"mixer": {"class_path": "zoo.B", "init_args": {"steps": steps}}} if run.values["mixer"] == "B" else {}
            )

        told = [note for note in settings_table(sweep(config=config)).notes if "no axis sets it" in note]
        (note,) = told
        assert "model.init_args.mixer.init_args.steps" in note and "7 in B (seed 1)" in note

    def test_two_axes_of_one_option(self, sweep):
        axes = {"mixer": MIXERS, "model.mixer.steps": [1, 2]}

        def config(run):
            return {
                "mixer": {"class_path": run.values["mixer"], "init_args": {"steps": run.values["model.mixer.steps"]}}
            }

        notes = settings_table(sweep(axes, lambda run: {"test/accuracy": 1.0}, config)).notes
        assert "axis mixer sets model.mixer (steps)" in notes and "axis steps sets model.mixer.steps" in notes
        assert not any("differs" in note for note in notes)

    def test_axes_of_config_files(self, sweep, tmp_path):
        file = tmp_path / "wide.yaml"
        file.write_text(yaml.safe_dump({"model": {"init_args": {"dim": 8}}}))
        axes = {"width": [str(file), {"model.dim": 4}]}

        def config(run):
            return {"dim": 8 if run.values["width"] == "wide" else 4}

        report = sweep(axes, lambda run: {"test/accuracy": 1.0}, config)
        assert "axis width sets model.dim" in settings_table(report).notes
        file.unlink()
        assert any("dim" in note for note in settings_table(report).notes)

    def test_machines(self, sweep):
        report = sweep(cost=lambda run: {"versions": {"torch": "2" if run.seed else "3"}})
        told = 'differs: versions.torch = "3" in A (seed 0); B (seed 0); C (seed 0), "2" in all others'
        assert told in settings_table(report).notes


class TestFiles:
    def test_every_figure_there_are_data_for(self, sweep):
        axes = {"mixer": MIXERS, "steps": [1, 3, 5]}

        def measure(run):
            quality = ACCURACIES[run.values["mixer"]][run.seed] + 0.01 * run.values["steps"]
            robust = {f"robustness/{name}": 100 * quality for name in ("clean", "fgsm", "cifar10_c")}
            clicks = {f"test/miou_{count}": quality * count / 20 for count in (1, 5, 20)}
            return {"test/accuracy": quality, **robust, **clicks}

        found = {name: figure for name, _, figure in figures(sweep(axes, measure))}
        assert list(found) == ["cost", "robust", "over_steps", "clicks_test", "training"]
        labels = [axes.get_ylabel() for axes in found["robust"].axes]
        assert labels == ["accuracy under FGSM ↑", "error under corruption, % ↓"]
        assert {axes.get_xlabel() for axes in found["robust"].axes} == {"accuracy on clean images ↑"}
        (curve, *_) = found["over_steps"].axes[0].lines
        assert curve.get_xdata().tolist() == [1, 3, 5]
        assert curve.get_ydata() == pytest.approx(np.mean(ACCURACIES["A"]) + np.array([0.01, 0.03, 0.05]))
        (curve, *_) = found["training"].axes[0].lines
        assert curve.get_ydata() == pytest.approx([0, 0.1, 0.2])

    def test_clicks_of_every_run_setting_and_data_set_are_one_figure(self, sweep):
        def curve(name, height):
            numbers = {f"{iou:.2f}": 5.0 for iou in THRESHOLDS}
            return ClickCurve(name, [0.1, height], [0.0, 0.0], [[0.1, height]], numbers, numbers, 0.1)

        report = sweep(seeds=[0])
        for place, run in enumerate(report.plan.all_runs()[:2]):
            for data in ("GrabCut", "Berkeley"):
                curves = [curve("none", 0.5), curve("BP1", 0.6 + 0.1 * place)]
                result = ClickResult("title", data, {"name": "paper"}, 7, curves)
                result.write(folder_of(report.out, run) / f"{data}-20260101-000000")
                again = ClickResult("title", data, {"name": "paper"}, 7, curves[::-1])
                again.write(folder_of(report.out, run) / f"{data}-20260102-000000")
        (folder_of(report.out, run) / "broken").mkdir()
        (folder_of(report.out, run) / "broken" / "clicks.json").write_text("{")
        report = SweepReport(report.out)
        assert any("clicks.json" in problem for problem in report.left_out)
        figure = {name: figure for name, _, figure in figures(report)}["clicks"]
        assert [axes.get_title().partition(",")[0] for axes in figure.axes] == ["Berkeley", "GrabCut"]
        for axes in figure.axes:
            assert [line.get_label() for line in axes.lines] == ["A: BP1", "A: none", "B: BP1", "B: none"]

    def test_files_and_page(self, sweep, tmp_path):
        report = sweep(measure=lambda run: {"test/accuracy": 0.5, "test/loss": math.nan if run.seed else 1.0})
        write_sweep(tmp_path / "report", report)
        names = {path.name for path in (tmp_path / "report").iterdir()}
        files = {"table.md", "table.csv", "runs.csv", "index.html", "cost.png", "training.png", "sweep.yaml"}
        assert names == files | {"hparams", "configs"}
        page = (tmp_path / "report" / "index.html").read_text()
        assert page.count("<img") == 2 and "3 of 3" not in page and "9 of 9 runs done" in page and "seeds:" in page
        assert (tmp_path / "report" / "sweep.yaml").read_text() == (report.out / "sweep.yaml").read_text()
        config = yaml.safe_load((tmp_path / "report" / "configs" / "mixer=B,seed=2.yaml").read_text())
        assert config["seed_everything"] == 2 and len(list((tmp_path / "report" / "configs").iterdir())) == 9
        write_sweep(tmp_path / "report", report)  # again at any time

    def test_it_says_what_all_runs_ran_on(self, sweep):
        notes = settings_table(sweep()).notes
        assert "all runs: device CPU, torch 2" in notes
        notes = settings_table(sweep(cost=lambda run: {"device": f"GPU {run.seed}"})).notes
        assert "all runs: torch 2" in notes

    def test_tensorboard_reads_the_same_runs(self, sweep, tmp_path):
        from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
        from tensorboard.plugins.hparams import metadata, plugin_data_pb2
        from tensorboard.util.tensor_util import make_ndarray

        report = sweep()
        for _ in range(2):  # what was there is replaced
            write_sweep(tmp_path / "report", report)
        read = EventMultiplexer().AddRunsFromDirectory(str(tmp_path / "report" / "hparams")).Reload()
        assert len(read.Runs()) == 9
        for row in report.found:
            (event,) = read.Tensors(row.run.name, "test/accuracy")
            wanted = ACCURACIES[row.run.values["mixer"]][row.run.seed]
            assert make_ndarray(event.tensor_proto).item() == pytest.approx(wanted)
            content = read.SummaryMetadata(row.run.name, metadata.SESSION_START_INFO_TAG).plugin_data.content
            start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
            assert start.hparams["mixer"].string_value == row.run.values["mixer"]
            assert start.hparams["seed"].number_value == row.run.seed


@pytest.mark.parametrize("study", sorted(RESULTS.glob("*/sweep.yaml")), ids=lambda plan: plan.parent.name)
def test_tables_of_a_study_follow_from_its_runs(study):
    report = SweepReport(study.parent)
    for name, table in (("table", numbers_table(report)), ("runs", runs_table(report))):
        committed = list(csv.reader((study.parent / f"{name}.csv").read_text().splitlines()))
        found = list(csv.reader(table.csv().splitlines()))
        assert len(found) == len(committed) > 1
        for line, other in zip(found, committed, strict=True):
            assert [_number(cell) for cell in line] == pytest.approx([_number(cell) for cell in other], nan_ok=True)


def _number(cell):
    try:
        return float(cell)
    except ValueError:
        return cell
