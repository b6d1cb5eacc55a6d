"""Claims of papers: what the runs say of them, what is refused, and the page that is written and checked."""

import csv
import json
import math
import re
import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image
from scipy import stats

from attention_zoo.claims.files import problems, write_claims
from attention_zoo.claims.page import page
from attention_zoo.claims.schema import Paper, read_claims
from attention_zoo.claims.verdicts import Verdict, judge
from attention_zoo.corruption_error import ALEXNET_ERRORS, CATEGORIES
from attention_zoo.errors import InputError
from attention_zoo.reports.statistics import holm
from attention_zoo.reports.sweeps.report import SweepReport
from attention_zoo.reports.sweeps.tables import numbers_table, runs_table
from attention_zoo.results.clicks import ClickCurve
from attention_zoo.sweeps import Plan
from attention_zoo.sweeps.driver import folder_of

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"
VALUES = {"A": (0.50, 0.52, 0.51), "B": (0.60, 0.6202, 0.6101), "C": (0.51, 0.50, 0.53), "D": (0.503, 0.5232, 0.5131)}
"""Accuracies of four settings: B is above A by 10 points in all seeds, C is not, D is above by 0.3 points."""
COMMAND = "python -m attention_zoo sweep --config configs/sweeps/digits_mixers.yaml"


def comparison(setting="B", baseline="A", **more):
    return {"study": "small", "column": "test/accuracy", "setting": setting, "baseline": baseline} | more


def claim(expect="higher", test=None, **more):
    content = {"words": "B is better than A.", "document": "Paper", "place": "Table 1", "expect": expect, **more}
    return content if {"command", "lacks"} & set(more) else content | {"test": test or comparison()}


def study(**more):
    columns = {"test/accuracy": {"name": "top-1, %", "factor": 100}, "c*/*": {"name": "another"}}
    return {"folder": "small", "scale": "tiny", "command": COMMAND, "columns": columns | more}


@pytest.fixture
def stated(tmp_path):
    """Write claims, and read them."""

    def write(claims, **parts):
        content = {"documents": {"Paper": "A paper"}, "studies": {"small": study()}, "claims": claims} | parts
        (tmp_path / "claims.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return read_claims(tmp_path)

    return write


@pytest.fixture
def runs(tmp_path):
    """Write the finished runs of a sweep, with four settings and some seeds."""

    def write(seeds=(0, 1, 2), status="done"):
        (tmp_path / "recipe.yaml").write_text("trainer: {}")
        axis = {name: {"model.mixer": name} for name in VALUES}
        plan = Plan([str(tmp_path / "recipe.yaml")], {"mixer": axis}, seeds=list(seeds))
        plan.keep(tmp_path / "small")
        for run in plan.all_runs():
            folder, name = folder_of(tmp_path / "small", run), run.values["mixer"]
            folder.mkdir(parents=True)
            metrics = {"test": {"test/accuracy": VALUES[name][run.seed]}}
            (folder / "run.json").write_text(json.dumps({"status": status, "metrics": metrics}))
            (folder / "cost.json").write_text(json.dumps({"parameters": 100 if name == "A" else 110, "flops": None}))
            counts = [f"x,bench,{cell},{5},{90 if cell in ('fog', 'snow') else 50},100" for cell in CATEGORIES]
            header = "model,benchmark,corruption,severity,correct,total"
            (folder / "robustness_cells.csv").write_text("\n".join([header, *counts, "x,clean,,,100,100"]) + "\n")
        return tmp_path / "small"

    return write


@pytest.fixture(scope="module")
def committed():
    """The claims of the project and their outcomes."""
    claims = read_claims(RESULTS)
    return claims, judge(claims)


def outcome(claims, name="first"):
    return next(each for each in judge(claims) if each.name == name)


class TestVerdicts:
    @pytest.mark.parametrize(
        ("content", "verdict"),
        [
            (claim(), "held"),
            (claim("lower"), "not held"),
            (claim("higher", comparison("C")), "within noise"),
            (claim("lower", comparison("C")), "within noise"),
            (claim("same", comparison("D"), tolerance=1), "held"),
            (claim("same", comparison("B"), tolerance=1), "not held"),
            (claim("same", comparison("C"), tolerance=1), "within noise"),
            (claim(test=comparison(measure="percent")), "held"),
        ],
    )
    def test_the_side_of_the_bound_decides_where_it_is_more_than_noise(self, stated, runs, content, verdict):
        runs()
        assert outcome(stated({"first": content})).verdict == verdict

    def test_difference_interval_and_chance_are_those_of_a_paired_t_test(self, stated, runs):
        runs()
        found = outcome(stated({"first": claim()}))
        wanted = stats.ttest_rel(VALUES["B"], VALUES["A"])
        low, high = wanted.confidence_interval(0.95)
        assert found.chance == found.corrected == pytest.approx(wanted.pvalue)
        assert found.ours.mean == pytest.approx(50 * (low + high))
        assert found.ours.half_width == pytest.approx(50 * (high - low))

    def test_a_tolerance_is_tested_at_its_nearer_end(self, stated, runs):
        runs()
        differences = [100 * (one - other) for one, other in zip(VALUES["C"], VALUES["A"], strict=True)]
        found = outcome(stated({"first": claim("same", comparison("C"), tolerance=2)}))
        assert found.chance == pytest.approx(stats.ttest_1samp(differences, 2).pvalue)
        lower = outcome(stated({"first": claim("same", comparison("A", "C"), tolerance=2)}))
        assert lower.chance == pytest.approx(found.chance) and lower.ours.mean == pytest.approx(-found.ours.mean)

    def test_all_tests_of_the_page_are_corrected_together(self, stated, runs):
        runs()
        others = [("C", "A"), ("B", "C"), ("B", "D"), ("C", "D")]
        many = {f"other-{place}": claim(test=comparison(*pair)) for place, pair in enumerate(others)}
        alone, *rest = judge(stated({"first": claim(), **many, "not-run": claim(command=COMMAND)}))
        assert [each.corrected for each in (alone, *rest)] == pytest.approx(
            holm([each.chance for each in (alone, *rest)]), nan_ok=True
        )
        assert alone.corrected >= 4 * alone.chance

    def test_two_seeds_are_no_evidence(self, stated, runs):
        runs((0, 1))
        found = outcome(stated({"first": claim()}))
        assert (found.verdict, found.ours.count) == (Verdict.TOO_FEW, 2) and math.isnan(found.corrected)

    def test_a_claim_turns_from_out_of_reach_to_tested_when_its_runs_are_there(self, stated, runs, tmp_path):
        claims = stated({"first": claim()})
        assert outcome(claims).verdict == Verdict.OUT_OF_REACH
        (tmp_path / "small").mkdir()
        (tmp_path / "small" / "README.md").write_text("to come")
        assert outcome(claims).verdict == Verdict.OUT_OF_REACH
        shutil.rmtree(tmp_path / "small")
        runs()
        assert outcome(claims).verdict == Verdict.HELD

    def test_counted_numbers_are_not_tested(self, stated, runs):
        runs()
        test = comparison(column="cost/parameters", measure="percent")
        found = outcome(stated({"first": claim("same", test, tolerance=10.5)}))
        assert (found.verdict, found.ours.mean) == (Verdict.HELD, pytest.approx(10)) and math.isnan(found.chance)
        assert outcome(stated({"first": claim("lower", test)})).verdict == Verdict.NOT_HELD

    def test_papers_difference_is_in_the_measure_of_the_comparison(self):
        assert Paper("PQ", 52.7, 47.5).compared("points") == pytest.approx(5.2)
        assert Paper("GFLOPs", 1.1, 1.0).compared("percent") == pytest.approx(10)
        assert Paper("mCE", difference=-2.4).compared("points") == -2.4
        with pytest.raises(InputError, match="setting and baseline"):
            Paper("PQ", 52.7)

    def test_a_papers_percentage_needs_a_baseline_above_0(self, stated):
        test = comparison(measure="percent")
        with pytest.raises(InputError, match=r"claims\.first: paper: a percentage of a baseline that is 0"):
            stated({"first": claim(test=test, paper={"metric": "GFLOPs", "setting": 1.1, "baseline": 0})})
        points = stated({"first": claim(paper={"metric": "top-1", "setting": 1.1, "baseline": 0})})
        assert points.claims["first"].paper_difference == 1.1


class TestEvidence:
    def test_errors_under_a_category_are_the_mean_of_its_cells(self, stated, runs):
        runs()
        both = {"column": "cells/bench/weather", "baseline": None, "baseline_column": "cells/bench/noise"}
        found = outcome(stated({"first": claim(test=comparison("A", **both))}))
        assert found.ours.mean == pytest.approx(-20)  # two of four corruptions at 10 %, else 50 %

    def test_categories_are_of_the_fifteen_corruptions(self):
        assert list(CATEGORIES) == list(ALEXNET_ERRORS)
        assert [list(CATEGORIES.values()).count(each) for each in ("noise", "blur", "weather", "digital")] == [
            3,
            4,
            4,
            4,
        ]

    def test_a_cell_that_cannot_be_or_is_missing_is_refused(self, stated, runs):
        path = runs() / "runs" / "mixer=B,seed=0" / "robustness_cells.csv"
        test = comparison(column="cells/bench/blur")
        whole = path.read_text()
        for old, new, words in (
            ("glass_blur,5,50", "glass_blur,5,500", "500 of 100"),
            ("x,bench,glass_blur,5,50,100\n", "", "no glass_blur"),
            ("x,bench,glass_blur,5,50", "y,bench,glass_blur,5,50", "2 models"),
            ("glass_blur,5,50,100", "glass_blur,5,50", "number of cells"),
            ("correct,total", "correct,sum", "no column total"),
        ):
            path.write_text(whole.replace(old, new))
            with pytest.raises(InputError, match=words):
                judge(stated({"first": claim(test=test)}))

    def test_runs_of_which_the_table_alone_is_kept(self, stated, runs):
        folder = runs()
        shutil.rmtree(folder / "runs")
        lines = ["mixer,seed,state,test/accuracy,reason"]
        lines += [f"{name},{seed},done,{own[seed]}," for name, own in VALUES.items() for seed in range(3)]
        (folder / "runs.csv").write_text("\n".join([*lines, "B,3,failed,,broke"]) + "\n")
        found = outcome(stated({"first": claim()}))
        assert (found.verdict, found.ours.count) == (Verdict.HELD, 3)
        assert found.ours.mean == pytest.approx(100 * (sum(VALUES["B"]) - sum(VALUES["A"])) / 3)

    def test_records_of_runs_without_a_plan(self, stated, runs):
        folder = runs()
        (folder / "sweep.yaml").unlink()
        test = comparison("mixer=B", "mixer=A")
        assert outcome(stated({"first": claim(test=test)})).verdict == Verdict.HELD
        spaced = comparison("mixer = B", "mixer=A")  # names of folders have no spaces
        assert outcome(stated({"first": claim(test=spaced)})).verdict == Verdict.HELD
        partial = {"status": "running", "metrics": {"later": {"test/accuracy": 0.5}}}
        (folder / "runs" / "mixer=A,seed=2" / "run.json").write_text(json.dumps(partial))
        assert outcome(stated({"first": claim(test=test)})).ours.count == 2
        later = comparison("mixer=B", "mixer=A", column="later/accuracy")
        columns = {"later/accuracy": {"name": "top-1, %"}}
        later = stated({"first": claim(test=later)}, studies={"small": study() | {"columns": columns}})
        assert outcome(later).verdict == Verdict.OUT_OF_REACH
        (folder / "runs" / "mixer=A,seed=0").rename(folder / "runs" / "mixer=A")
        with pytest.raises(InputError, match="mixer=A: seed: .* is no count"):
            judge(stated({"first": claim(test=test)}))

    def test_curves_of_interactive_tests_by_seed(self, stated, tmp_path):
        for seed in range(3):
            folder = tmp_path / "small" / str(seed)
            numbers = {"0.80": 1.0, "0.85": 1.0, "0.90": 1.0}
            curves = [
                ClickCurve(
                    name, [value + seed / 100, 0.9], [0.0, 0.0], [[value + seed / 100, 0.9]], numbers, numbers, 0.1
                )
                for name, value in (("plain", 0.5), ("adapted", 0.5 + 0.1 + seed / 1000))
            ]
            folder.mkdir(parents=True)
            content = {"title": "model", "data": "data", "protocol": {}, "objects": 1, "curves": curves}
            (folder / "clicks.json").write_text(json.dumps(content, default=vars))
            (folder / "config.yaml").write_text(f"seed_everything: {seed}")
        columns = {"*/miou_0": {"name": "mean IoU, %", "factor": 100}}
        test = {"study": "small", "column": "test/adapted/miou_0", "setting": "model"}
        claims = {"first": claim(test=test | {"baseline_column": "test/plain/miou_0"})}
        claims = stated(claims, studies={"small": study() | {"columns": columns}})
        found = outcome(claims)
        assert (found.ours.count, found.verdict) == (3, Verdict.HELD) and found.ours.mean == pytest.approx(10.1)
        (tmp_path / "small" / "2" / "config.yaml").write_text("seed_everything: 0")
        with pytest.raises(InputError, match="another result of model with seed 0"):
            judge(claims)


class TestRefusals:
    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (claim(expects="higher"), "unknown key of .*first.*did you mean 'expect'"),
            (claim("larger"), "claims.first: .*choose from: higher, lower, same"),
            (claim(document="Papers"), "unknown document 'Papers'; did you mean 'Paper'"),
            (claim(test=comparison(study="smal")), "unknown study 'smal'; did you mean 'small'"),
            (claim(test=comparison(column="test/acuracy")), "did you mean 'test/accuracy'"),
            (claim(test=comparison("A")), "another than"),
            (claim("same"), "tolerance"),
            (claim(tolerance=1), "tolerance"),
            (claim() | {"command": COMMAND}, "one of test, command and lacks"),
            (claim(command="rm -r results"), "command must be one of this project"),
            (claim(command=f"{COMMAND}; rm -r results"), "command must be one of this project"),
            (claim(command=f"{COMMAND} `rm`"), "command must be one of this project"),
            (claim(paper={"metric": "PQ", "difference": math.nan}), "first.paper: .*finite"),
            (claim(paper={"metric": "PQ", "baselin": 1}), "did you mean 'baseline'"),
            ({"words": "nothing else"}, "has no document"),
            ("a claim", "keys with values"),
        ],
    )
    def test_one_line_names_the_claim_and_the_choices(self, stated, content, words):
        with pytest.raises(InputError, match=words) as error:
            stated({"first": content})
        assert len(str(error.value).splitlines()) == 1

    def test_the_same_test_counts_once(self, stated):
        with pytest.raises(InputError, match="second: the same comparison tests first"):
            stated({"first": claim(), "second": claim("lower", comparison("A", "B"))})

    @pytest.mark.parametrize("place", ["../elsewhere", "/etc", "small/../..", "a) <b>", "link"])
    def test_a_study_lies_in_the_folder_of_the_claims(self, stated, tmp_path, place):
        (tmp_path / "link").symlink_to(tmp_path.parent)
        with pytest.raises(InputError, match="studies.small.*(is outside of|path of plain names)"):
            stated({"first": claim()}, studies={"small": study() | {"folder": place}})

    def test_a_setting_or_metric_that_no_run_has_names_the_nearest(self, stated, runs):
        runs()
        for test, words in (
            (comparison("BB"), "claim first: unknown setting 'BB'; did you mean 'B'. choose from: A, B, C, D"),
            (comparison(column="cost/parametres"), "did you mean 'cost/parameters'"),
            (comparison(column="cells/bench/noises"), "did you mean 'cells/bench/noise'"),
        ):
            with pytest.raises(InputError, match=words):
                judge(stated({"first": claim(test=test)}))

    def test_runs_that_cannot_be_read_are_not_left_out(self, stated, runs):
        next(runs().rglob("run.json")).write_text("{")
        with pytest.raises(InputError, match="run.json is no JSON"):
            judge(stated({"first": claim()}))

    @pytest.mark.parametrize(
        "text", ["", "[]", "documents: {}", "claims: {a: 1}\nother: 1", "!!python/object:os.system {}"]
    )
    def test_a_file_that_is_none(self, tmp_path, text):
        (tmp_path / "claims.yaml").write_text(text)
        with pytest.raises(InputError, match="claims.yaml"):
            read_claims(tmp_path)


class TestFiles:
    def test_written_files_follow_from_the_runs(self, stated, runs, tmp_path):
        runs()
        paper = {"metric": "top-1", "setting": 76.5, "baseline": 74.0}
        claims = stated({"first": claim(paper=paper), "second": claim(command=COMMAND), "third": claim(lacks="a host")})
        write_claims(claims, judge(claims))
        assert list(problems(claims, judge(claims))) == []
        text = (tmp_path / "README.md").read_text()
        assert "+2.5 top-1 (76.5 − 74.0)" in text and "+10.0" in text and "**held**" in text
        assert f"`{COMMAND}`" in text and "a host" in text and "out of reach here" in text
        rows = {row["claim"]: row for row in csv.DictReader((tmp_path / "claims.csv").read_text().splitlines())}
        assert float(rows["first"]["difference"]) == pytest.approx(10.01, abs=0.005)
        assert (rows["second"]["difference"], rows["second"]["seeds"]) == ("", "0")
        with Image.open(tmp_path / "claims.png") as image:
            assert image.format == "PNG" and image.width > 1000
        write_claims(claims, judge(claims))  # again at any time

    def test_a_number_that_no_longer_follows_is_named(self, stated, runs, tmp_path):
        folder = runs()
        claims = stated({"first": claim(), "second": claim(test=comparison("C"))})
        write_claims(claims, judge(claims))
        path = folder / "runs" / "mixer=B,seed=1" / "run.json"
        path.write_text(path.read_text().replace("0.6202", "0.62"))
        found = list(problems(claims, judge(claims)))
        assert re.match(r"claim first: difference is 10\.0(1|09).*claims.csv, 10\.003.* by its runs$", found[0])
        assert not any("second: difference" in line for line in found)

    @pytest.mark.parametrize(
        ("name", "change", "words"),
        [
            ("claims.csv", lambda text: text.replace("first,", "gone,"), "claim first does not stand in"),
            ("claims.csv", lambda text: text.replace("held", "not held"), "claim first: verdict is not held"),
            ("claims.csv", lambda text: text.replace("seeds", "runs"), "has the columns"),
            ("README.md", lambda text: text.replace("**held**", "**not held**"), "README.md: line"),
        ],
    )
    def test_a_changed_page_is_found(self, stated, runs, tmp_path, name, change, words):
        runs()
        claims = stated({"first": claim()})
        write_claims(claims, judge(claims))
        path = tmp_path / name
        path.write_text(change(path.read_text()))
        assert any(words in line for line in problems(claims, judge(claims)))

    def test_tables_beside_the_runs_are_checked_too(self, stated, runs):
        folder = runs()
        claims = stated({"first": claim()})
        write_claims(claims, judge(claims))
        report = SweepReport(folder)
        for name, made in (("runs.csv", runs_table), ("table.csv", numbers_table)):
            (folder / name).write_text(made(report).csv())
        assert list(problems(claims, judge(claims))) == []
        runs_csv, table_csv = folder / "runs.csv", folder / "table.csv"
        whole = runs_csv.read_text()
        runs_csv.write_text(whole.replace("0.6202", "0.7202"))
        (found,) = problems(claims, judge(claims))
        assert found == f"{runs_csv}: row 6: test/accuracy is 0.7202, 0.6202 by its runs"
        runs_csv.write_text(whole.partition("\n")[0] + "\n")
        table_csv.write_text(table_csv.read_text().replace("test/accuracy mean", "test/acuracy mean"))
        wrong = list(problems(claims, judge(claims)))
        assert wrong == [f"{path} has other columns or rows than its runs" for path in (runs_csv, table_csv)]

    def test_a_figure_of_other_numbers_is_found(self, stated, runs, tmp_path):
        runs()
        claims = stated({"first": claim("lower")})
        write_claims(claims, judge(claims))
        figure = (tmp_path / "claims.png").read_bytes()
        claims = stated({"first": claim()})
        write_claims(claims, judge(claims))
        (tmp_path / "claims.png").write_bytes(figure)
        assert [line for line in problems(claims, judge(claims)) if "does not show the numbers" in line]
        (tmp_path / "claims.png").write_text("no image")
        with pytest.raises(InputError, match="no image"):
            list(problems(claims, judge(claims)))

    def test_somebodys_own_page_is_kept(self, stated, tmp_path):
        (tmp_path / "README.md").write_text("mine")
        claims = stated({"first": claim()})
        with pytest.raises(InputError, match="not overwritten"):
            write_claims(claims, judge(claims))
        assert (tmp_path / "README.md").read_text() == "mine" and not (tmp_path / "claims.csv").exists()

    def test_words_of_a_stranger_are_shown_as_they_are(self, stated):
        words = "<script>x</script> | [link](http://x) `code`\n# title"
        claims = stated({"first": claim(words=words, place=words)}, documents={"Paper": words})
        text = page(claims, judge(claims), "claims.png")
        assert "<script>" not in text and "\n# title" not in text and "](http" not in text


class TestCommitted:
    def test_every_number_follows_from_its_runs(self, committed):
        assert list(problems(*committed)) == []

    def test_there_are_enough(self, committed):
        _, outcomes = committed
        assert len(outcomes) >= 25
        assert sum(each.is_tested and not each.is_counted for each in outcomes) >= 14
        assert not any(each.verdict == Verdict.HELD and each.ours.count < 3 for each in outcomes)

    def test_commands_name_configs_that_there_are(self, committed):
        claims, _ = committed
        commands = [study.command for study in claims.studies.values()]
        commands += [each.command for each in claims.claims.values() if each.command]
        named = {name for command in commands for name in re.findall(r"--config (\S+)", command)}
        assert len(named) > 10 and not {name for name in named if not (ROOT / name).is_file()}

    def test_the_recipe_of_contributing_adds_a_claim(self, committed, tmp_path):
        section = (ROOT / "CONTRIBUTING.md").read_text().split("\n## Claims of papers\n")[1].split("\n## ")[0]
        (entry,) = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
        names = yaml.safe_load(entry).keys()
        (tmp_path / "claims.yaml").write_text((RESULTS / "claims.yaml").read_text() + entry)
        shutil.copytree(RESULTS / "cifar10_mixers", tmp_path / "cifar10_mixers")
        found = {each.name: each for each in judge(read_claims(tmp_path))}
        assert len(found) == len(committed[1]) + 1
        assert [found[name].verdict for name in names] == [Verdict.NOT_HELD]
