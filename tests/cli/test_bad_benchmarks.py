"""Bad robustness data end an evaluation with exit code 2 and one line, the only one on stderr."""

import shutil

import pytest

from tests.datamodules.files import SYNSETS, truncate, write_corrupted, write_images

BENCHMARKS = """
model:
  class_path: Robustness
  init_args: {attacks: {}}
data:
  class_path: ImageNetRobustness
  init_args:
    val: val
    c: c
    image_size: 8
    batch_size: 16
    num_workers: 0
    corruptions: [fog, frost]
    severities: [1, 3]
"""


@pytest.fixture
def evaluate(zoo, tiny, tmp_path):
    """Test a model on two benchmarks, in the folders ``val`` and ``c`` of the working folder."""
    write_images(tmp_path / "val", SYNSETS[:2], 1, (10, 10))
    write_corrupted(tmp_path / "c", SYNSETS[:2], 1, (10, 10))
    (tmp_path / "benchmarks.yaml").write_text(BENCHMARKS)

    def run(*argv):
        return zoo("test", "--config", tiny, "--config", "benchmarks.yaml", *argv)

    return run


def the_line(ended):
    assert ended.code == 2, ended.out
    (line,) = ended.err.splitlines()
    assert line.startswith("error: ")
    return line


def rename(old, new):
    return lambda root: (root / old).rename(root / new)


def one_level_too_high(root):
    (root / "moved").mkdir()
    (root / "c").rename(root / "moved" / "c")
    (root / "moved").rename(root / "c")


def one_level_too_deep(root):
    (root / "c").rename(root / "moved")
    (root / "moved" / "fog").rename(root / "c")


FOLDERS = {
    "one level too high": (one_level_too_high, ["no corruption fog in c", "fog/<severity>/<class>/*", "found: c"]),
    "one level too deep": (
        one_level_too_deep,
        ["no corruption fog in c", "fog/<severity>/<class>/*", "found: 1, 2, 3, 4, 5"],
    ),
    "missing severity": (
        lambda root: shutil.rmtree(root / "c/frost/3"),
        ["no severity 3 in c/frost", "expected folders 1, 3", "found: 1, 2, 4, 5"],
    ),
    "foreign synset": (
        rename(f"c/fog/1/{SYNSETS[1]}", "c/fog/1/n01498040"),
        ["c/fog/1/n01498040", "unknown synset of ImageNet-1k 'n01498040'", "did you mean", "'n01498041'"],
    ),
    "foreign synset among the clean images": (
        rename(f"val/{SYNSETS[0]}", "val/dog"),
        ["val/dog", "unknown synset of ImageNet-1k 'dog'", "for example: n01440764"],
    ),
    "missing benchmark": (lambda root: shutil.rmtree(root / "c"), ["no ImageNet-C at c", "missing: skip"]),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_folders(evaluate, tmp_path, case):
    spoil, words = FOLDERS[case]
    spoil(tmp_path)
    line = the_line(evaluate())
    for word in words:
        assert word in line
    assert not list(tmp_path.rglob("robustness.*"))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--data.corruptions", "[frots]"], ["unknown corruption 'frots'", "did you mean 'frost'?", "gaussian_noise"]),
        (["--data.severities", "[0]"], ["severity=0 must be 1 to 5"]),
        (["--data.severities", "[1,6]"], ["severity=6 must be 1 to 5"]),
    ],
)
def test_arguments(evaluate, argv, words):
    line = the_line(evaluate(*argv))
    for word in words:
        assert word in line


@pytest.mark.parametrize("workers", [0, 1])
def test_truncated_image(evaluate, tmp_path, workers):
    path = f"c/frost/3/{SYNSETS[1]}/000.png"
    truncate(tmp_path / path)
    assert the_line(evaluate("--data.num_workers", workers)).startswith(f"error: cannot read image {path}: ")
    assert not list(tmp_path.rglob("robustness.*"))


def test_a_model_of_other_classes(evaluate, run_folder):
    line = the_line(evaluate("--ckpt_path", run_folder / "checkpoints/last.ckpt", "--model.mixer", "VarsD"))
    assert "head.weight is [10, 32] in the file, [1000, 32] in the model" in line


def test_a_missing_benchmark_may_be_skipped(evaluate, tmp_path):
    shutil.rmtree(tmp_path / "c")
    ended = evaluate("--data.missing", "skip")
    assert ended.code == 0, ended.err
    assert "skipped ImageNet-C: nothing at c" in ended.out
    (table,) = tmp_path.rglob("robustness.csv")
    assert table.read_text().splitlines()[1:] and "ImageNet-C" not in table.read_text()
