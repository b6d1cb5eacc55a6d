import shutil
from pathlib import Path

import pytest
import torch

from attention_zoo.errors import InputError
from datamodules import PACS, PACSRobustness
from datamodules.pacs import CLASSES, DOMAINS


@pytest.fixture
def root(pacs_folder):
    return pacs_folder


def domains(split):
    return {Path(name).parts[-3] for name in split.images.names}


@pytest.mark.parametrize("target", DOMAINS)
def test_one_domain_is_tested_and_the_others_train(root, target):
    data = PACS(str(root), target)
    data.setup("fit")
    data.setup("test")
    assert domains(data.splits["test"]) == {target}
    assert domains(data.splits["train"]) == domains(data.splits["val"]) == set(DOMAINS) - {target}
    assert [len(data.splits[part].images) for part in ("train", "val", "test")] == [84, 21, 35]
    assert not set(data.splits["train"].images.names) & set(data.splits["val"].images.names)


def test_every_class_is_held_out_in_every_domain(root):
    data = PACS(str(root), "photo")
    data.setup("fit")
    held_out = [Path(name).parts[-3:-1] for name in data.splits["val"].images.names]
    assert len(held_out) == len(set(held_out)) == 21


def test_labels_are_those_of_the_folders(root):
    data = PACS(str(root), "cartoon")
    data.setup("fit")
    split = data.splits["train"]
    assert [CLASSES.index(Path(name).parent.name) for name in split.images.names] == split.columns["label"]


@pytest.fixture
def lists(root, tmp_path):
    folder = tmp_path / "lists"
    folder.mkdir()
    for domain in DOMAINS:
        names = [f"{domain}/{name}/{i:03}.png {label}" for label, name in enumerate(CLASSES, 1) for i in range(5)]
        for part, chosen in (("train", names[1:]), ("crossval", names[:1]), ("test", names)):
            (folder / f"{domain}_{part}_kfold.txt").write_text("\n".join(chosen) + "\n")
    return folder


def test_the_authors_lists(root, lists):
    data = PACS(str(root), "sketch", lists=str(lists))
    data.setup("fit")
    data.setup("test")
    assert [len(data.splits[part].images) for part in ("train", "val", "test")] == [102, 3, 35]
    assert data.splits["val"].columns["label"] == [0, 0, 0]
    assert data.splits["test"].columns["label"] == [label for label in range(7) for _ in range(5)]


def test_bad_input(root, lists):
    with pytest.raises(InputError, match="domain 'sketches'; did you mean 'sketch'"):
        PACS(str(root), "sketches")
    with pytest.raises(InputError, match="holdout=1.5"):
        PACS(str(root), "sketch", holdout=1.5)
    (lists / "photo_train_kfold.txt").write_text("photo/dog/000.png 2\n")
    with pytest.raises(InputError, match=r"photo_train_kfold.txt, line 1: expected .* got 'photo/dog/000.png 2'"):
        PACS(str(root), "sketch", lists=str(lists)).setup("fit")
    (lists / "photo_train_kfold.txt").write_text("photo/dog/999.png 1\n")
    with pytest.raises(InputError, match="line 1: no image .*999.png"):
        PACS(str(root), "sketch", lists=str(lists)).setup("fit")
    with pytest.raises(InputError, match=f"no list {root}/art_painting_train_kfold.txt"):
        PACS(str(root), "sketch", lists=str(root)).setup("fit")
    shutil.rmtree(root / "photo")
    with pytest.raises(InputError, match=f"no folder {root}/photo: expected .*found: art_painting, cartoon, sketch"):
        PACS(str(root), "sketch").setup("test")


def test_domains_side_by_side(root):
    data = PACSRobustness(str(root), "sketch", image_size=16, num_workers=0, batch_size=7)
    data.setup("test")
    assert [(cell.benchmark.name, cell.benchmark.title, cell.images) for cell in data.cells] == [
        ("clean", "own domains", 21),
        ("pacs_sketch", "sketch", 35),
    ]
    assert data.cells[0].benchmark.protocol["left_out"] == "sketch"
    validating = PACS(str(root), "sketch", image_size=16, num_workers=0, batch_size=7)
    validating.setup("fit")
    expected = [batch["label"] for batch in validating.val_dataloader()]
    batches = list(data.test_dataloader())
    found = torch.cat([batch["label"][batch["cell"] == 0] for batch in batches])
    assert torch.equal(found, torch.cat(expected))
    images = torch.cat([batch["image"][batch["cell"] == 0] for batch in batches])
    assert torch.equal(images, torch.cat([batch["image"] for batch in validating.val_dataloader()]))
    assert data.class_names == list(CLASSES)
    fewer = PACSRobustness(str(root), "sketch", images_per_cell=7, num_workers=0)
    fewer.setup("test")
    assert [cell.images for cell in fewer.cells] == [7, 7]
    with pytest.raises(InputError, match="unknown domain 'painting'"):
        PACSRobustness(str(root), "painting")
    with pytest.raises(InputError, match="c_generated"):
        PACSRobustness(str(root), "sketch", c_generated=True)
