"""A checkpoint is tested on classes that have the labels that it was trained with."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attention_zoo.errors import InputError
from attention_zoo.runs.checkpoint import CLASSES, Checkpoint, check_classes, read_checkpoint

SMALL = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1", "--trainer.limit_val_batches", "1"]


def checkpoint(*names):
    return Checkpoint(Path("some.ckpt"), None, 0, 0, None, class_names=names or None)


@pytest.mark.parametrize(
    ("known", "names"),
    [(("a", "b"), ("a", "b")), ((), ("a", "b")), (("a", "b"), ()), (("a", "b"), ("b", "a", "c"))],
    ids=["the same", "unknown", "data without classes", "of another number, which the weights tell"],
)
def test_nothing_is_said_where_there_is_nothing_to_compare(known, names):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_classes(checkpoint(*known), names)


@pytest.mark.parametrize("names", [("b", "a", "c"), ("d", "c", "b"), ("b", "x", "y")])
def test_a_class_with_another_label_is_refused(names):
    with pytest.raises(InputError, match=r"some.ckpt was trained with class \w as label \d, which is \d .*\[a, b, c\]"):
        check_classes(checkpoint("a", "b", "c"), names)


@pytest.mark.parametrize("names", [("x", "y", "z"), ("a", "y", "c")])
def test_new_names_are_told(names):
    with pytest.warns(UserWarning, match=r"by their place: class [ab] of .* for class [xy] of the data"):
        check_classes(checkpoint("a", "b", "c"), names)


@pytest.mark.parametrize("kept", [1, "ab", [1, 2], {"a": 1}, [["a"]]])
def test_what_is_no_list_of_names_tells_none(kept, tmp_path):
    path = tmp_path / "strange.ckpt"
    torch.save({"state_dict": {}, CLASSES: kept}, path)
    assert read_checkpoint(path).class_names is None


def test_a_test_on_permuted_classes_is_refused(zoo, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        folder = tmp_path / "data" / ("train", "val", "test")[number % 3] / "ab"[number // 6]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number}.png")
    options = ["--data.root", "data", "--data.image_size", "32", "--data.num_workers", "0"]
    done = zoo("fit", "--config", "classification/image_folder.yaml", *options, *SMALL, "--data.batch_size", "4")
    assert done.code == 0, done.err
    assert zoo("test", "--ckpt_path", "last").code == 0
    done = zoo("test", "--ckpt_path", "last", "--data.class_names", "[b, a]")
    assert done.code == 2 and "was trained with class b as label 1, which is 0 in these data" in done.err

    (weights,) = Path("runs").glob("*/checkpoints/last.ckpt")
    start = ["--config", "classification/image_folder.yaml", *options, "--data.batch_size", "4"]
    start += ["--model.weights", weights, "--data.class_names", "[b, a]"]
    with pytest.warns(UserWarning, match="model.weights: checkpoint .* was trained with class b as label 1"):
        assert zoo("fit", *start, *SMALL).code == 0
    done = zoo("test", *start)
    assert done.code == 2 and "was trained with class b as label 1, which is 0 in these data" in done.err


def test_data_of_fixed_classes_are_kept_too(zoo, tiny, tmp_path):
    assert zoo("fit", "--config", tiny, *SMALL, "--trainer.default_root_dir", "run").code == 0
    kept = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert kept.class_names == tuple("0123456789")
