import csv
import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.container import BarContainer
from PIL import Image

from attention_zoo.corruption_error import ALEXNET_ERRORS, EXTRA_ALEXNET_ERRORS
from attention_zoo.errors import InputError
from attention_zoo.evaluation import Benchmark, Cell, read_results
from attention_zoo.reports.robustness.comparison import cell_table, compare, differences, grid
from attention_zoo.reports.robustness.figures import overview
from attention_zoo.reports.robustness.files import write_comparison, write_result
from attention_zoo.results.paired_attacks import accuracy_interval
from attention_zoo.results.robustness import CellCount, Column, RobustnessResult, Row

CLEAN = Benchmark("clean", "clean", protocol={"preprocessing": "resize 256, crop 224"})
CORRUPTED = Benchmark("imagenet_c", "IN-C (generated)", protocol={"seed": 0})
PART = Benchmark("imagenet_a", "IN-A", classes=(3, 5, 9))


def cells(corruptions=tuple(ALEXNET_ERRORS), severities=(1, 2, 3, 4, 5), images=1_000_000):
    return [Cell(CORRUPTED, images, name, severity) for name in corruptions for severity in severities]


def result(rows=("as trained",), clean=600, corrupted=None, protocol=None, **facts):
    corrupted = corrupted or cells()
    benchmark = replace(CLEAN, protocol={**CLEAN.protocol, **(protocol or {})})
    columns = (
        Column.of(benchmark, [Cell(CLEAN, 1000)], 1000),
        Column.of(CORRUPTED, corrupted, 1000),
        Column.of(PART, [Cell(PART, 10)], 1000),
    )
    counts = {
        "clean": (CellCount(1000, clean, 0.125),),
        "imagenet_c": tuple(alexnet(cell) for cell in corrupted),
        "imagenet_a": (CellCount(10, 4, 0.5),),
    }
    return RobustnessResult(columns, tuple(Row(name, counts) for name in rows), {"mixer": "VarsD", **facts})


def alexnet(cell):
    """What AlexNet would have counted, its errors more at higher severities."""
    error = ALEXNET_ERRORS[cell.corruption] + 0.01 * (cell.severity - 3)
    return CellCount(cell.images, round(cell.images * (1 - error)), 0.1, cell.corruption, cell.severity)


def test_alexnet_scores_100():
    found = result()
    assert found.scores["as trained"] == {"clean": 60, "imagenet_c": pytest.approx(100, abs=1e-4), "imagenet_a": 40}
    assert found.columns[1].heading == "IN-C (generated) mCE ↓"
    table = grid(found.columns[1], found, "as trained")
    assert table.header == ("corruption", "1", "2", "3", "4", "5", "mean", "CE")
    assert table.rows[0] == ("gaussian_noise", "86.64", "87.64", "88.64", "89.64", "90.64", "88.64", "100.00")
    assert len(table.rows) == 15


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (cells(severities=(1, 3)), "plain mean of the top-1 error in % (mCE unnormalised), 15 corruptions, severities"),
        (cells(corruptions=("fog", "snow")), "2 corruptions (13 of the 15 missing), each divided by AlexNet's"),
    ],
)
def test_what_is_not_the_whole_benchmark_says_so(part, said):
    column = Column.of(CORRUPTED, part, 1000)
    assert said in column.meaning
    assert column.normalised == ("divided" in said)


def test_the_four_extra_corruptions_do_not_count():
    more = cells(corruptions=(*ALEXNET_ERRORS, *EXTRA_ALEXNET_ERRORS))
    counts = [
        alexnet(cell) if cell.corruption in ALEXNET_ERRORS else CellCount(10, 10, 0.0, cell.corruption, cell.severity)
        for cell in more
    ]
    assert Column.of(CORRUPTED, more, 1000).score(counts) == pytest.approx(100, abs=1e-4)


def test_other_data_than_imagenet_c_have_no_reference():
    column = Column.of(replace(CORRUPTED, name="tiny_imagenet_c"), cells(), 200)
    assert not column.normalised
    assert column.heading == "IN-C (generated) error ↓"
    assert column.score([alexnet(cell) for cell in cells()]) == pytest.approx(
        100 * np.mean(list(ALEXNET_ERRORS.values()))
    )


def test_cells_must_be_a_grid():
    with pytest.raises(InputError, match="each corruption at each severity"):
        Column.of(CORRUPTED, cells()[:-1], 1000)
    with pytest.raises(InputError, match="each corruption at each severity"):
        Column.of(CORRUPTED, cells()[::-1][1:], 1000)


def test_a_result_comes_back_from_its_file(tmp_path):
    found = result(rows=("as trained", "other"), date="today")
    found.write_json(tmp_path / "robustness.json")
    again = RobustnessResult.read(tmp_path / "robustness.json")
    assert again == found
    with pytest.raises(FileExistsError):
        found.write_json(tmp_path / "robustness.json")
    content = json.loads((tmp_path / "robustness.json").read_text())
    assert content["columns"][1]["normalised"] is True
    assert content["scores"]["other"]["clean"] == 60
    assert content["date"] == "today"


def test_a_part_that_an_older_file_takes_for_all_is_told(tmp_path):
    found = result()
    part = (CellCount(7, 3, 0.125),)
    replace(found, rows=(Row("as trained", {**found.rows[0].counts, "clean": part}),)).write_json(
        tmp_path / "part.json"
    )
    again = RobustnessResult.read(tmp_path / "part.json")
    assert (again.protocol["clean"]["images"], again.protocol["clean"]["part_of"]) == (7, 1000)
    assert again.protocol["imagenet_c"] == found.protocol["imagenet_c"]
    told = ["clean: images is 1000 in whole, 7 in part", "clean: part_of is not said in whole, 1000 in part"]
    assert list(differences({"whole": found, "part": again})) == told


def test_empty_cells_are_no_numbers(tmp_path):
    found = result()
    empty = tuple(replace(cell, total=0, correct=0, calibration=None) for cell in found.rows[0].counts["imagenet_c"])
    found = replace(found, rows=(Row("as trained", {**found.rows[0].counts, "imagenet_c": empty}),))
    assert math.isnan(found.scores["as trained"]["imagenet_c"])
    table = write_result(tmp_path, found)
    assert table.rows[0] == ("VarsD", "60.00 [56.9, 63.0]", "-", "40.00 [16.8, 68.7]")
    assert json.loads((tmp_path / "robustness.json").read_text())["scores"]["as trained"]["imagenet_c"] is None
    assert ",imagenet_c,fog,3,0,0,,\n" in (tmp_path / "robustness_cells.csv").read_text()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "attention_zoo robustness 1", "columns": [1]}', "x"])
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "robustness.json"
    path.write_text(text)
    with pytest.raises(InputError, match="is no result of a robustness evaluation"):
        RobustnessResult.read(path)


def test_results_of_another_format_are_refused(tmp_path):
    path = tmp_path / "robustness.json"
    path.write_text('{"format": "attention_zoo robustness 2"}')
    with pytest.raises(InputError, match="another version"):
        RobustnessResult.read(path)


def test_one_table_of_several_results():
    table = compare({"one": result(), "two": result(rows=("as trained", "adapted"), clean=700)})
    assert table.header == ("model", "clean ↑", "IN-C (generated) mCE ↓", "IN-A ↑")
    assert [row[:2] for row in table.rows] == [
        ("one", "60.00 [56.9, 63.0]"),
        ("two, as trained", "70.00 [67.1, 72.8]"),
        ("two, adapted", "70.00 [67.1, 72.8]"),
    ]
    assert not any(note.startswith("not comparable") for note in table.notes)
    assert len(table.notes) == 4
    assert "95 % interval" in table.notes[3]
    assert "seed 0, images 75000000" in table.notes[1]
    rows = list(csv.reader(io.StringIO(table.csv())))
    assert [tuple(row) for row in rows] == [table.header, *table.rows]


def test_a_benchmark_that_only_one_has():
    less = result()
    less = replace(less, columns=less.columns[:1])
    table = compare({"less": less, "all": result()})
    assert table.rows[0] == ("less", "60.00 [56.9, 63.0]", "", "")
    assert table.rows[1][3] == "40.00 [16.8, 68.7]"


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            {"protocol": {"preprocessing": "resize 224"}},
            "preprocessing is resize 256, crop 224 in one, resize 224 in two",
        ),
        ({"protocol": {"source": "a"}}, "clean: source is not said in one, a in two"),
        ({"corrupted": cells(images=10)}, "images is 75000000 in one, 750 in two"),
        ({"corrupted": cells(severities=(1,))}, "severities is 1, 2, 3, 4, 5 in one, 1 in two"),
    ],
)
def test_rows_of_different_protocols_are_refused_or_told(other, said):
    results = {"one": result(), "two": result(**other)}
    assert any(said in line for line in differences(results))
    with pytest.raises(InputError, match="different protocols: .*--mixed true"):
        compare(results)
    table = compare(results, mixed=True)
    assert any(note.startswith("not comparable") and said in note for note in table.notes)
    assert said in table.markdown()
    assert len(table.rows) == 2


def test_mixed_columns_name_both_titles():
    other = result()
    generated, released = other.columns[1], replace(other.columns[1], title="IN-C")
    other = replace(other, columns=(other.columns[0], released, other.columns[2]))
    table = compare({"one": result(), "two": other}, mixed=True)
    assert table.header[2] == f"{generated.heading} / {released.heading}"


def test_every_count_is_in_the_long_table():
    found = result(rows=("as trained", "adapted"))
    rows = list(csv.DictReader(io.StringIO(cell_table({"run": found}).csv())))
    assert len(rows) == 2 * (1 + 75 + 1)
    fog = next(
        row for row in rows if row["corruption"] == "fog" and row["severity"] == "3" and row["model"] == "adapted"
    )
    assert (int(fog["total"]), int(fog["correct"])) == (1_000_000, round(1_000_000 * (1 - ALEXNET_ERRORS["fog"])))
    assert float(fog["accuracy"]) == pytest.approx(1 - ALEXNET_ERRORS["fog"], abs=1e-6)


def test_results_are_found_and_named(tmp_path):
    for run, mixer in (("a", "VarsD"), ("b", "DotProduct")):
        folder = tmp_path / run / "ImageNetRobustness-1"
        folder.mkdir(parents=True)
        (tmp_path / run / "config.yaml").touch()
        write_result(folder, result(mixer=mixer))
    assert list(read_results(RobustnessResult, [tmp_path / "a", tmp_path / "b"])) == ["VarsD", "DotProduct"]
    assert list(
        read_results(RobustnessResult, [tmp_path, tmp_path / "a" / "ImageNetRobustness-1" / "robustness.json"])
    ) == [
        "VarsD",
        "DotProduct",
    ]
    (tmp_path / "b" / "ImageNetRobustness-1" / "robustness.json").unlink()
    result(mixer="VarsD").write_json(tmp_path / "b" / "ImageNetRobustness-1" / "robustness.json")
    assert list(read_results(RobustnessResult, [tmp_path])) == ["a", "b"]


def test_nothing_to_read(tmp_path):
    with pytest.raises(InputError, match="nothing to report on in .*robustness.json"):
        read_results(RobustnessResult, [tmp_path])
    with pytest.raises(InputError, match="does not exist"):
        read_results(RobustnessResult, [tmp_path / "none"])


def test_bars_have_the_intervals_of_the_table():
    found = result(clean=600)
    found = replace(
        found, rows=tuple(replace(row, counts={**row.counts, "imagenet_a": (CellCount(0, 0),)}) for row in found.rows)
    )
    (bars,) = (each for each in overview(found).subfigs[0].axes[0].containers if isinstance(each, BarContainer))
    clean, empty = bars.errorbar.lines[2][0].get_segments()
    assert clean[:, 1] == pytest.approx(accuracy_interval(600, 1000))
    assert empty[:, 1] == pytest.approx([0, 0])


@pytest.mark.parametrize("rows", [("as trained",), tuple("abc")])
def test_figures_are_drawn(tmp_path, rows):
    found = result(rows=rows)
    write_result(tmp_path, found)
    with Image.open(tmp_path / "robustness.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 30  # bars, shades of a map, text
    text = (tmp_path / "robustness.md").read_text()
    assert text.count("| gaussian_noise |") == len(rows)
    (tmp_path / "both").mkdir()
    results = {"one": found, "two": result(clean=100)}
    write_comparison(tmp_path / "both", results, compare(results))
    assert {path.name for path in (tmp_path / "both").iterdir()} == {
        "robustness.csv",
        "robustness.md",
        "robustness.png",
        "robustness_cells.csv",
    }
