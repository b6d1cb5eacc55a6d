"""Predictions as a table."""

import csv
import shutil

import pytest
import torch

import attention_zoo as az
import tasks
from datamodules import Digits


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def predict(zoo, run_folder, images):
    def run(*argv):
        return zoo("predict", "--ckpt_path", run_folder / "checkpoints/last.ckpt", "--data.predict_dir", images, *argv)

    return run


def test_all_images_with_falling_probabilities(predict, tmp_path, images):
    assert predict("--data.batch_size", "3").code == 0
    table = rows(tmp_path / "predictions.csv")
    assert [row["image"] for row in table] == [str(path) for path in sorted(images.rglob("*.png"))]
    for row in table:
        values = [float(row[f"probability_{k}"]) for k in range(1, 6)]
        assert values == sorted(values, reverse=True)
        assert 0 < sum(values) <= 1
        assert len({row[f"class_{k}"] for k in range(1, 6)}) == 5
    assert "probability_6" not in table[0]


def test_the_probabilities_are_the_models(predict, run_folder, tmp_path, images):
    assert predict("--prediction.top_k", "99", "--prediction.path", "new/all.csv").code == 0

    def mixer(**host):
        return az.create_mixer("VarsD", steps=2, **host)

    args = {"patch_size": 2, "embed_dim": 32, "depth": 2, "num_heads": 2}
    task = tasks.Classification(num_classes=10, image_size=(8, 8), model_args=args, mixer=mixer).eval()
    task.load_state_dict(torch.load(run_folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"])
    data = Digits(predict_dir=str(images))
    data.setup("predict")
    (batch,) = data.predict_dataloader()
    with torch.no_grad():
        expected = task(batch["image"]).softmax(-1)
    table = rows(tmp_path / "new/all.csv")
    assert [row["image"] for row in table] == batch["path"]
    for row, probabilities in zip(table, expected, strict=True):
        assert {row[f"class_{k}"] for k in range(1, 11)} == set(data.class_names)
        for k in range(1, 11):
            wanted = probabilities[data.class_names.index(row[f"class_{k}"])].item()
            assert float(row[f"probability_{k}"]) == pytest.approx(wanted, abs=2e-6)


def test_an_existing_file_is_kept(predict, tmp_path):
    (tmp_path / "predictions.csv").write_text("mine")
    ended = predict()
    assert ended.code == 2
    assert ended.err == "error: predictions.csv exists; choose another with --prediction.path\n"
    assert (tmp_path / "predictions.csv").read_text() == "mine"


@pytest.mark.parametrize("case", ["forgotten", "missing", "empty"])
def test_no_images(zoo, run_folder, tmp_path, case):
    (tmp_path / "empty").mkdir()
    argv = [] if case == "forgotten" else ["--data.predict_dir", case]
    ended = zoo("predict", "--ckpt_path", run_folder / "checkpoints/last.ckpt", *argv)
    assert ended.code == 2
    line = ended.err.splitlines()[-1]
    assert line.startswith("error: ")
    assert ("predict_dir" if case == "forgotten" else case) in line


def test_top_k_must_be_positive(predict):
    assert "prediction.top_k=0" in predict("--prediction.top_k", "0").err


def test_class_names_travel_with_the_checkpoint(zoo, tiny, tmp_path, images):
    root = tmp_path / "root"
    for name in ("ant", "bee"):
        (root / name).mkdir(parents=True)
        for path in images.rglob("*.png"):
            (root / name / path.name).write_bytes(path.read_bytes())
    data = ["--data", "ImageFolder", "--data.root", root, "--data.image_size", "8", "--data.num_workers", "0"]
    split = ["--data.val_fraction", "0.2", "--data.test_fraction", "0.2", "--data.batch_size", "2"]
    ended = zoo("fit", "--config", tiny, *data, *split, "--trainer.default_root_dir", "run")
    assert ended.code == 0, ended.err
    root.rename(tmp_path / "gone")
    ended = zoo("predict", "--ckpt_path", "run/checkpoints/last.ckpt", "--data.predict_dir", images)
    assert ended.code == 0, ended.err
    assert {row["class_1"] for row in rows(tmp_path / "predictions.csv")} <= {"ant", "bee"}


def test_a_part_is_told_as_such(predict, tmp_path):
    ended = predict("--data.batch_size", "3", "--trainer.limit_predict_batches", "2")
    assert ended.code == 0, ended.err
    assert "predictions.csv: classes of 6 of 7 images, as trainer.limit_predict_batches says\n" in ended.out
    assert len(rows(tmp_path / "predictions.csv")) == 6


@pytest.fixture
def broken(images, tmp_path):
    """The images, the last of which is empty."""
    folder = tmp_path / "broken"
    shutil.copytree(images, folder)
    sorted(folder.rglob("*.png"))[-1].write_bytes(b"")
    return folder


@pytest.mark.parametrize("workers", ["0", "2"])
def test_what_was_predicted_before_a_broken_image_is_kept(predict, tmp_path, broken, workers):
    argv = ["--data.predict_dir", broken, "--data.batch_size", "3", "--data.num_workers", workers]
    ended = predict(*argv)
    assert ended.code == 2 and "im5.png" in ended.err
    assert "cut off: predictions.unfinished.csv has classes of 6 of 7 images\n" in ended.out
    assert not (tmp_path / "predictions.csv").exists()
    kept = tmp_path / "predictions.unfinished.csv"
    assert [row["image"] for row in rows(kept)] == [str(path) for path in sorted(broken.rglob("*.png"))[:6]]
    before = kept.read_bytes()
    ended = predict(*argv)  # again would begin the same file
    assert ended.code == 2
    assert ended.err.startswith("error: predictions.unfinished.csv exists, of a prediction that was cut off; ")
    assert kept.read_bytes() == before


def test_nothing_is_left_where_nothing_was_predicted(predict, tmp_path, broken):
    ended = predict("--data.predict_dir", broken)
    assert ended.code == 2 and "cut off" not in ended.out
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_nothing_unfinished_is_left_of_a_whole_table(predict, tmp_path):
    assert predict("--data.batch_size", "3").code == 0
    assert [path.name for path in tmp_path.glob("*.csv")] == ["predictions.csv"]
