import pickle
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms import functional as classic

from attention_zoo.cli.corrupt import corrupt as write_corruptions
from attention_zoo.errors import InputError
from attention_zoo.evaluation import Cell
from datamodules import CIFAR10Robustness, ImageNetRobustness, TinyImageNetRobustness, images
from datamodules.cifar10 import CLASSES
from datamodules.corruptions import CORRUPTIONS, GROUPS
from datamodules.imagenet import outputs_of
from datamodules.images import UnreadableImageError, decode
from datamodules.robustness.base import choose
from datamodules.robustness.imagenet import CORRUPTIONS_3D
from tests.datamodules.files import SYNSETS, truncate, write_corrupted, write_images, write_tiny_imagenet

LABELS = (0, 6, 13, 388)
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "num_workers": 0}
TWO = {"corruptions": ["fog", "frost"], "severities": [1, 3]}


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """The five data sets of an ImageNet evaluation, small."""
    root = tmp_path_factory.mktemp("imagenet")
    write_images(root / "val", SYNSETS, 3, (48, 40))
    write_corrupted(root / "c", SYNSETS, 2, (32, 32))
    write_images(root / "a", SYNSETS[1:3], 2, (50, 40))
    write_images(root / "r", SYNSETS[1:], 2, (40, 50))
    write_images(root / "sketch", SYNSETS, 1, (60, 60))
    return {name: str(root / name) for name in ("val", "c", "a", "r", "sketch")}


@pytest.fixture
def own(roots, tmp_path):
    """A copy of ``roots`` to be changed."""
    copies = {name: tmp_path / "own" / name for name in roots}
    for name, folder in copies.items():
        shutil.copytree(roots[name], folder)
    return copies


def imagenet(roots, **kwargs):
    return ImageNetRobustness(**{**{k: str(v) for k, v in roots.items()}, "image_size": 32, **TWO, **PLAIN, **kwargs})


def loaded(data):
    """All of a test as one batch."""
    data.setup("test")
    batches = list(data.test_dataloader())
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def of(batch, cell):
    chosen = batch["cell"] == cell
    return {name: values[chosen] for name, values in batch.items()}


def named(data):
    return [(cell.benchmark.name, cell.corruption, cell.severity, cell.images) for cell in data.cells]


def test_all_benchmarks_in_one_pass(roots):
    data = imagenet(roots, batch_size=7)
    batch = loaded(data)
    assert named(data) == [
        ("clean", None, None, 12),
        ("imagenet_c", "fog", 1, 8),
        ("imagenet_c", "fog", 3, 8),
        ("imagenet_c", "frost", 1, 8),
        ("imagenet_c", "frost", 3, 8),
        ("imagenet_a", None, None, 4),
        ("imagenet_r", None, None, 6),
        ("imagenet_sketch", None, None, 4),
    ]
    assert all(isinstance(cell, Cell) for cell in data.cells) and data.num_classes == 1000
    assert set(batch) == {"image", "label", "cell", "number", "index"}
    assert all(batch[name].dtype == torch.int64 for name in ("label", "cell", "number", "index"))
    assert batch["index"].tolist() == list(range(58)) and batch["image"].shape == (58, 3, 32, 32)
    for place, cell in enumerate(data.cells):
        assert of(batch, place)["number"].tolist() == list(range(cell.images))
    assert of(batch, 0)["label"].tolist() == [label for label in LABELS for _ in range(3)]
    assert of(batch, 3)["label"].tolist() == [label for label in LABELS for _ in range(2)]
    assert of(batch, 5)["label"].tolist() == [6, 6, 13, 13]
    assert of(batch, 6)["label"].tolist() == [6, 6, 13, 13, 388, 388]
    classes = {cell.benchmark.name: cell.benchmark.classes for cell in data.cells}
    assert classes["imagenet_a"] == outputs_of("a") and classes["imagenet_r"] == outputs_of("r")
    assert classes["clean"] is classes["imagenet_c"] is classes["imagenet_sketch"] is None


def test_corruptions_in_three_dimensions(roots, tmp_path):
    write_corrupted(tmp_path, SYNSETS, 1, (32, 32), CORRUPTIONS_3D, (1, 3))
    data = imagenet({"val": roots["val"], "c3d": tmp_path})
    batch = loaded(data)
    assert len(set(CORRUPTIONS_3D)) == 12
    cells = [("imagenet_3dcc", name, severity, 4) for name in CORRUPTIONS_3D for severity in (1, 3)]
    assert named(data) == [("clean", None, None, 12), *cells]
    assert of(batch, 4)["label"].tolist() == list(LABELS)
    path = tmp_path / CORRUPTIONS_3D[1] / "3" / SYNSETS[1] / "000.png"
    torch.testing.assert_close(of(batch, 4)["image"][1], decode(str(path)) / 255)
    shutil.rmtree(tmp_path / "flash")
    with pytest.raises(InputError, match=r"no corruption flash in .*expected flash/<severity>/<class>/\*; found"):
        loaded(imagenet({"c3d": tmp_path}))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_preprocessing(roots, interpolation):
    data = imagenet(roots, interpolation=interpolation)
    batch = loaded(data)
    for cell, name in ((0, "val"), (5, "a"), (6, "r"), (7, "sketch")):
        path = f"{roots[name]}/{SYNSETS[1]}/000.png"
        shorter = v2.functional.resize(decode(path), [36], InterpolationMode(interpolation), antialias=True)
        expected = v2.functional.center_crop(shorter, [32, 32]) / 255
        first = of(batch, cell)["label"].tolist().index(6)
        torch.testing.assert_close(of(batch, cell)["image"][first], expected)
        assert (
            data.cells[cell].benchmark.protocol["preprocessing"] == f"Resize(36, {interpolation}), CenterCrop(32, 32)"
        )
    torch.testing.assert_close(of(batch, 3)["image"][2], decode(f"{roots['c']}/frost/1/{SYNSETS[1]}/000.png") / 255)
    assert data.cells[3].benchmark.protocol == {
        "source": "released",
        "preprocessing": "CenterCrop(32, 32)",
        "images_per_cell": "all",
    }


def test_at_224_pixels_it_is_the_published_preprocessing():
    data = ImageNetRobustness(val="anywhere")
    image = torch.randint(0, 256, (3, 300, 400), dtype=torch.uint8)
    shown = data.default_resize()(image)
    pil = classic.resize(classic.to_pil_image(image), 256, InterpolationMode.BICUBIC)
    published = classic.pil_to_tensor(classic.center_crop(pil, 224))
    assert shown.shape == (3, 224, 224)
    assert (shown.int() - published.int()).abs().max() <= 2  # rounding differs
    assert data.clean_facts == {"preprocessing": "Resize(256, bicubic), CenterCrop(224, 224)"}
    assert data.c_facts == {"preprocessing": "CenterCrop(224, 224)"}


def test_images_of_imagenet_c_are_cut_and_never_padded(roots):
    smaller = imagenet(roots, image_size=24)
    image = of(loaded(smaller), 1)["image"][0]
    whole = decode(f"{roots['c']}/fog/1/{SYNSETS[0]}/000.png") / 255
    torch.testing.assert_close(image, whole[:, 4:28, 4:28])
    with pytest.raises(InputError, match=r"fog/1/n01440764/000.png has 32 x 32 pixels; expected at least 40 on each"):
        loaded(imagenet(roots, image_size=40))
    larger = imagenet({"c": roots["c"]}, image_size=256, **{**TWO, "severities": [1]}, images_per_cell=1)
    assert loaded(larger)["image"][:, :, 0].mean() > 0.2  # no black border
    assert larger.cells[0].benchmark.protocol["preprocessing"] == "Resize(256, bicubic), CenterCrop(256, 256)"


def test_folders_below_groups(roots, own):
    flat = loaded(imagenet({"c": roots["c"]}))
    for corruption in ("fog", "frost"):
        (own["c"] / GROUPS[corruption]).mkdir(exist_ok=True)
        (own["c"] / corruption).rename(own["c"] / GROUPS[corruption] / corruption)
    torch.testing.assert_close(loaded(imagenet({"c": own["c"]})), flat, rtol=0, atol=0)


def test_any_of_the_benchmarks(roots):
    assert {name for name, *_ in named_after_setup(imagenet({"r": roots["r"]}))} == {"imagenet_r"}
    assert {name for name, *_ in named_after_setup(imagenet({"val": roots["val"], "sketch": roots["sketch"]}))} == {
        "clean",
        "imagenet_sketch",
    }
    with pytest.raises(InputError, match="ImageNetRobustness has no benchmark to test on"):
        imagenet({}).setup("test")


def named_after_setup(data):
    data.setup("test")
    return named(data)


def test_missing_benchmarks_are_skipped_only_when_asked(roots, caplog):
    gone = {**roots, "a": "/nowhere/a"}
    with pytest.raises(InputError, match="no ImageNet-A at /nowhere/a; to go on without, give missing: skip"):
        imagenet(gone).setup("test")
    found = {name for name, *_ in named_after_setup(imagenet(gone, missing="skip"))}
    assert found == {"clean", "imagenet_c", "imagenet_r", "imagenet_sketch"}
    assert "skipped ImageNet-A: nothing at /nowhere/a" in caplog.text
    data = imagenet({"val": "/nowhere/val", "r": roots["r"]}, c_generated=True, missing="skip")
    assert {name for name, *_ in named_after_setup(data)} == {"imagenet_r"}
    assert "skipped ImageNet-C (generated)" in caplog.text


def test_iid_subsets(roots):
    data = imagenet({"val": roots["val"]}, iid_subsets=True)
    batch = loaded(data)
    assert named(data)[1:] == [("imagenet_val_a", None, None, 6), ("imagenet_val_r", None, None, 9)]
    assert data.cells[1].benchmark.classes == outputs_of("a")
    assert of(batch, 1)["label"].tolist() == [6] * 3 + [13] * 3
    torch.testing.assert_close(of(batch, 1)["image"], of(batch, 0)["image"][3:9], rtol=0, atol=0)


def test_images_per_cell_are_balanced_nested_and_recorded(roots):
    data = imagenet(roots, images_per_cell=4)
    batch = loaded(data)
    assert {cell.images for cell in data.cells} == {4}
    assert all(cell.benchmark.protocol["images_per_cell"] == 4 for cell in data.cells)
    assert sorted(of(batch, 0)["label"].tolist()) == sorted(of(batch, 1)["label"].tolist()) == list(LABELS)
    assert of(batch, 1)["label"].tolist() == of(batch, 4)["label"].tolist()
    again = of(loaded(imagenet(roots, images_per_cell=2)), 1)["image"]
    assert all(any(torch.equal(image, other) for other in of(batch, 1)["image"]) for image in again)


def test_choice():
    labels = np.repeat(np.arange(1000), 50)
    for count in (100, 1000, 5000):
        chosen = choose(labels, count)
        each = np.bincount(labels[chosen], minlength=1000)
        assert len(set(chosen)) == count and each.max() - each.min() <= 1
        assert set(choose(labels, count // 2)) < set(chosen)
    assert 350 < labels[choose(labels, 100)].mean() < 650


@pytest.mark.parametrize("world", [2, 3])
def test_processes_count_every_image_once(roots, world):
    data = imagenet(roots, batch_size=4)
    whole = loaded(data)
    counted = {}
    for rank in range(world):
        data.trainer = SimpleNamespace(world_size=world, global_rank=rank)
        for batch in data.test_dataloader():
            for place, index in enumerate(batch["index"].tolist()):
                if index >= 0:
                    assert index not in counted
                    counted[index] = {name: values[place] for name, values in batch.items()}
    assert sorted(counted) == whole["index"].tolist()
    for index, sample in counted.items():
        for name, value in sample.items():
            assert torch.equal(value, whole[name][index])


@pytest.mark.parametrize("jpeg", [False, True])
def test_generated_corruptions_are_those_of_the_command(roots, tmp_path, jpeg):
    settings = {"corruptions": ["gaussian_noise", "pixelate"], "severities": [5], "image_size": 224}
    data = imagenet({"val": roots["val"]}, c_generated=True, corruption_seed=3, jpeg=jpeg, **settings)
    made = loaded(data)
    assert named(data)[1:] == [("imagenet_c", "gaussian_noise", 5, 12), ("imagenet_c", "pixelate", 5, 12)]
    write_corruptions(roots["val"], str(tmp_path / "c"), corruptions=["gaussian_noise", "pixelate"],
                      severities=[5], seed=3, workers=0)  # fmt: skip
    written = imagenet({"c": tmp_path / "c"}, **settings)
    there = loaded(written)
    for benchmark in (data.cells[1].benchmark, written.cells[0].benchmark):
        assert benchmark.title == "ImageNet-C (generated)"
        assert benchmark.protocol["source"] == "generated" and benchmark.protocol["seed"] == 3
    same = dict(data.cells[1].benchmark.protocol) == dict(written.cells[0].benchmark.protocol)
    assert same == jpeg
    for cell in (1, 2):
        assert torch.equal(of(made, cell)["image"], of(there, cell - 1)["image"]) == jpeg


def test_generated_corruptions_depend_on_seed_and_image_only(roots):
    def noise(**kwargs):
        settings = {"corruptions": ["gaussian_noise"], "severities": [1], "image_size": 224, **kwargs}
        return of(loaded(imagenet({"val": roots["val"]}, c_generated=True, **settings)), 1)

    whole, workers, other, few = noise(), noise(num_workers=2), noise(corruption_seed=1), noise(images_per_cell=2)
    assert torch.equal(whole["image"], workers["image"])
    assert not torch.equal(whole["image"], other["image"])
    assert all(any(torch.equal(image, known) for known in whole["image"]) for image in few["image"])


ALL_OF_ONE = {"c_generated": True, "iid_subsets": True, "image_size": 224, "corruptions": ["contrast", "fog"]}


def test_no_image_is_decoded_twice(roots, monkeypatch):
    decoded = []
    monkeypatch.setattr(images, "decode", lambda path, data=None: decoded.append(path) or decode(path, data))
    chosen = {name: roots[name] for name in ("val", "a", "r")}
    data = imagenet(chosen, batch_size=5, **ALL_OF_ONE)
    batch = loaded(data)
    assert len(batch["index"]) == sum(cell.images for cell in data.cells) > 5 * 12  # clean, subsets and -C
    assert len(decoded) == len(set(decoded)) == 12 + 4 + 6
    for world in (2, 3):
        for rank in range(world):
            decoded.clear()
            data.trainer = SimpleNamespace(world_size=world, global_rank=rank)
            list(data.test_dataloader())
            assert len(decoded) == len(set(decoded)), (world, rank)


def test_every_cell_has_its_own_images_however_they_are_ordered(roots):
    mixed, twin = (loaded(imagenet({"val": roots["val"]}, num_workers=workers, **ALL_OF_ONE)) for workers in (0, 2))
    assert all(torch.equal(mixed[name], twin[name]) for name in mixed)
    assert mixed["index"].tolist() == list(range(len(mixed["index"])))
    clean = of(mixed, 0)
    assert clean["number"].tolist() == list(range(12))
    for corruption in ALL_OF_ONE["corruptions"]:
        single = imagenet({"val": roots["val"]}, **{**ALL_OF_ONE, "corruptions": [corruption], "severities": [3]})
        alone = of(loaded(single), 1)
        data = imagenet({"val": roots["val"]}, **ALL_OF_ONE)
        data.setup("test")
        place = next(n for n, cell in enumerate(data.cells) if (cell.corruption, cell.severity) == (corruption, 3))
        together = of(mixed, place)
        for name in ("image", "label", "number"):
            assert torch.equal(alone[name], together[name])


def test_a_test_goes_on_in_the_middle_of_an_images_cells(roots):
    data = imagenet({"val": roots["val"]}, batch_size=4, **ALL_OF_ONE)
    whole = loaded(data)
    data.tested = 7
    assert loaded(data)["index"].tolist() == whole["index"][7:].tolist()


# CIFAR-10


@pytest.fixture
def cifar(tmp_path):
    """Twenty test images, and CIFAR-10-C of as many."""
    write_images(tmp_path / "cifar" / "test", CLASSES, 2, (32, 32))
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for corruption in ("fog", "frost"):
        np.save(folder / f"{corruption}.npy", generator.integers(0, 256, (100, 32, 32, 3), dtype=np.uint8))
    np.save(folder / "labels.npy", np.tile(np.repeat(np.arange(10), 2), 5).astype(np.uint8))
    return {"test": str(tmp_path / "cifar"), "c": str(folder)}


def test_cifar10_c(cifar):
    data = CIFAR10Robustness(**cifar, **TWO, **PLAIN)
    batch = loaded(data)
    assert named(data) == [
        ("clean", None, None, 20),
        *(("cifar10_c", corruption, severity, 20) for corruption in ("fog", "frost") for severity in (1, 3)),
    ]
    assert {cell.benchmark.protocol["preprocessing"] for cell in data.cells} == {"none"}
    rows = np.load(f"{cifar['c']}/frost.npy")[40:60]
    torch.testing.assert_close(of(batch, 4)["image"], torch.from_numpy(rows).permute(0, 3, 1, 2) / 255)
    for cell in range(5):
        assert of(batch, cell)["label"].tolist() == [label for label in range(10) for _ in range(2)]
    some = loaded(CIFAR10Robustness(**cifar, **TWO, **{**PLAIN, "num_workers": 2}, images_per_cell=10, image_size=40))
    assert some["image"].shape == (50, 3, 40, 40) and of(some, 3)["label"].tolist() == list(range(10))


def test_rows_are_not_carried_to_other_processes(cifar):
    data = CIFAR10Robustness(c=cifar["c"], **TWO, **PLAIN)
    batch = loaded(data)  # the array is open now
    images = data.splits["test"].images
    copy = pickle.loads(pickle.dumps(images))
    assert len(pickle.dumps(images.datasets[0])) < 1000
    torch.testing.assert_close(copy[3] / 255, batch["image"][3])


def test_cifar10_generated(cifar):
    data = CIFAR10Robustness(test=cifar["test"], c_generated=True, severities=[3], **PLAIN)
    batch = loaded(data)
    assert [cell.corruption for cell in data.cells[1:]] == list(CORRUPTIONS)
    assert data.cells[1].benchmark.title == "CIFAR-10-C (generated)"
    assert data.cells[1].benchmark.protocol["scale"] == "cifar" and batch["image"].shape == (320, 3, 32, 32)
    for cell in range(1, 16):
        assert not torch.equal(of(batch, cell)["image"], of(batch, 0)["image"])


def saved(array):
    return lambda path: np.save(path, array)


BAD_ARRAYS = {
    "wrong shape": (
        "fog",
        saved(np.zeros((100, 3, 32, 32), np.uint8)),
        r"fog.npy is uint8 \(100, 3, 32, 32\); expected",
    ),
    "wrong length": (
        "fog",
        saved(np.zeros((90, 32, 32, 3), np.uint8)),
        r"expected uint8 \(100, 32, 32, 3\), as many as",
    ),
    "wrong type": ("fog", saved(np.zeros((100, 32, 32, 3), np.float32)), "fog.npy is float32"),
    "truncated": ("fog", truncate, "cannot read array .*fog.npy: mmap length is greater"),
    "no array": ("frost", lambda path: path.write_text("text"), "cannot read array .*frost.npy: "),
    "missing": ("frost", lambda path: path.unlink(), "cannot read array .*frost.npy: no such file"),
    "no labels": ("labels", lambda path: path.unlink(), "cannot read array .*labels.npy: no such file"),
    "labels of one severity": (
        "labels",
        saved(np.repeat(np.arange(10), 2)),
        "the same ones for each of five severities",
    ),
    "too few labels": ("labels", saved(np.arange(3)), r"labels.npy is int64 \(3,\); expected 50000 whole numbers"),
    "other labels": ("labels", saved(np.full(100, 10)), "expected labels 0 to 9"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_broken_cifar10_c(cifar, tmp_path, case):
    name, spoil, message = BAD_ARRAYS[case]
    spoil(tmp_path / "CIFAR-10-C" / f"{name}.npy")
    with pytest.raises(InputError, match=message) as error:
        CIFAR10Robustness(c=cifar["c"], **TWO, **PLAIN).setup("test")
    assert "\n" not in str(error.value)


# Tiny-ImageNet


def test_tiny_imagenet_c(tmp_path):
    root = write_tiny_imagenet(tmp_path / "tiny")
    c = write_corrupted(tmp_path / "c", SYNSETS[:3], 2, (64, 64))
    data = TinyImageNetRobustness(str(root / "val"), str(c), **TWO, **PLAIN)
    assert data.num_classes == 3
    batch = loaded(data)
    assert named(data)[:2] == [("clean", None, None, 6), ("tiny_imagenet_c", "fog", 1, 6)]
    assert of(batch, 0)["label"].tolist() == of(batch, 1)["label"].tolist() == [0, 0, 1, 1, 2, 2]
    torch.testing.assert_close(of(batch, 4)["image"][5], decode(str(c / "frost" / "3" / SYNSETS[2] / "001.png")) / 255)
    assert TinyImageNetRobustness(c=str(c)).class_names == list(SYNSETS[:3])
    with pytest.raises(InputError, match="TinyImageNetRobustness needs val or c"):
        _ = TinyImageNetRobustness().class_names
    made = TinyImageNetRobustness(str(root / "val"), c_generated=True, corruptions=["fog"], severities=[1], **PLAIN)
    assert loaded(made)["image"].shape == (12, 3, 64, 64)
    assert made.cells[1].benchmark.protocol["scale"] == "tiny"


def test_tiny_imagenet_generated_is_that_of_the_command(tmp_path):
    write_images(tmp_path / "val", SYNSETS[:3], 1, (64, 64))
    settings = {"corruptions": ["gaussian_noise"], "severities": [5]}
    options = {"c_generated": True, "jpeg": True, "corruption_seed": 3}
    made = loaded(TinyImageNetRobustness(str(tmp_path / "val"), **options, **settings, **PLAIN))
    write_corruptions(str(tmp_path / "val"), str(tmp_path / "c"), scale="tiny", seed=3, workers=0, **settings)
    there = loaded(TinyImageNetRobustness(c=str(tmp_path / "c"), **settings, **PLAIN))
    assert torch.equal(of(made, 1)["image"], there["image"])


# Bad input


BAD_ARGUMENTS = {
    "severity 0": ({"severities": [0]}, "severity=0 must be 1 to 5"),
    "severity 6": ({"severities": [1, 6]}, "severity=6 must be 1 to 5"),
    "unknown corruption": ({"corruptions": ["frogs"]}, "unknown corruption 'frogs'; did you mean 'frost'"),
    "twice": ({"corruptions": ["fog", "fog"]}, "corruptions must be different ones"),
    "none": ({"severities": []}, "severities must be different ones, at least one"),
    "no images": ({"images_per_cell": 0}, "images_per_cell must be at least 1"),
    "negative seed": ({"corruption_seed": -1}, "corruption_seed must be at least 0"),
    "both": ({"c_generated": True}, "c_generated makes the corrupted images that c has"),
    "from nothing": ({"c_generated": True, "c": None, "val": None}, "c_generated makes ImageNet-C from the clean"),
    "jpeg of files": ({"jpeg": True}, "jpeg is for corrupted images that are made here"),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments(case):
    arguments, message = BAD_ARGUMENTS[case]
    with pytest.raises(InputError, match=message):
        ImageNetRobustness(**{"val": "v", "c": "c", **arguments})


def rename(name, other):
    return lambda root: (root / name).rename(root / other)


def remove(pattern):
    def do(root):
        for path in root.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return do


def one_deeper(root):
    (root.parent / "moved").mkdir()
    root.rename(root.parent / "moved" / "inner")
    (root.parent / "moved").rename(root)


BAD_FOLDERS = {
    "deeper than c": ("c", one_deeper, "no corruption fog in .*/c: expected fog/<severity>/<class>/.*found: inner"),
    "missing corruption": ("c", remove("frost"), "no corruption frost in .*weather/frost/.*found: fog"),
    "missing severity": ("c", remove("fog/3"), r"no severity 3 in .*c/fog: expected folders 1, 3; found: 1, 2, 4, 5"),
    "images at the level of classes": ("c", remove("fog/3/n*"), "no class folders in .*c/fog/3: .*found: nothing"),
    "one image less": ("c", remove(f"frost/3/{SYNSETS[3]}/001.png"), f"frost/3 has 7 .* has {SYNSETS[3]}/001.png"),
    "foreign synset": ("val", rename(SYNSETS[0], "n00000001"), "unknown synset of ImageNet-1k 'n00000001'"),
    "foreign synset in c": ("c", rename(f"fog/1/{SYNSETS[0]}", "fog/1/dog"), "unknown synset of ImageNet-1k 'dog'"),
    "deeper than val": ("val", one_deeper, "/val/inner: unknown synset of ImageNet-1k 'inner'"),
    "not of A": ("a", rename(SYNSETS[1], SYNSETS[0]), f"unknown synset of ImageNet-A '{SYNSETS[0]}'"),
    "not of R": ("r", rename(SYNSETS[1], SYNSETS[0]), f"unknown synset of ImageNet-R '{SYNSETS[0]}'"),
    "no images": ("sketch", remove(f"{SYNSETS[2]}/*"), f"no images in .*sketch/{SYNSETS[2]}"),
    "broken record": ("c", lambda root: (root / "generated.json").write_text("{}"), "generated.json does not say how"),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_bad_folders(own, case):
    name, spoil, message = BAD_FOLDERS[case]
    spoil(own[name])
    with pytest.raises(InputError, match=message) as error:
        imagenet(own).setup("test")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_truncated_images(own, num_workers):
    path = own["c"] / "frost" / "3" / SYNSETS[2] / "001.png"
    truncate(path)
    with pytest.raises(UnreadableImageError, match=f"^cannot read image {path}: "):
        loaded(imagenet(own, num_workers=num_workers))


def test_other_stages_have_no_images(roots):
    with pytest.raises(InputError, match="ImageNetRobustness has no (train|val) split; it is there for test"):
        imagenet(roots).setup("fit")


def test_predict_shows_the_centre(roots, tmp_path):
    Image.new("RGB", (400, 300)).save(tmp_path / "one.png")
    data = imagenet(roots, predict_dir=str(tmp_path), image_size=224)
    data.setup("predict")
    assert next(iter(data.predict_dataloader()))["image"].shape == (1, 3, 224, 224)
