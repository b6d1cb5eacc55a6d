"""Data sets of mmsegmentation in their real layouts, and its transforms."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from attention_zoo.errors import InputError
from attention_zoo.mmseg import build_part, stock_config
from attention_zoo.seeding import seeded
from datamodules import MMSegData
from datamodules.segmentation import MMSegTransforms
from datamodules.segmentation.mmseg_data import leaves, list_files
from datamodules.segmentation.transforms import PhotometricDistortion, RandomRatioResize

PLAIN = {"num_workers": 0, "batch_size": 2}


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def labels(seed, values, size=(20, 28)):
    return np.random.default_rng(seed).choice(np.array(values, dtype=np.uint8), size)


@pytest.fixture
def voc(tmp_path):
    """Three images of train, two of val, four more of aug."""
    root = tmp_path / "VOC2012"
    names = {
        "train": ["2007_1", "2007_3", "2008_2"],
        "val": ["2007_2", "2009_1"],
        "aug": [f"2010_{i}" for i in range(4)],
    }
    for part, listed in names.items():
        (root / "ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
        (root / f"ImageSets/Segmentation/{part}.txt").write_text("\n".join(listed) + "\n")
        for seed, name in enumerate(listed):
            save(root / "JPEGImages" / f"{name}.jpg", np.zeros((20, 28, 3), np.uint8))
            folder = "SegmentationClassAug" if part == "aug" else "SegmentationClass"
            mask = Image.fromarray(labels(seed, [*range(21), 255]), mode="P")
            mask.putpalette([value % 256 for value in range(768)])
            (root / folder).mkdir(exist_ok=True)
            mask.save(root / folder / f"{name}.png")
    return root


@pytest.fixture
def cityscapes(tmp_path):
    root = tmp_path / "cityscapes"
    for part, cities in (("train", ("aachen", "ulm")), ("val", ("munster",))):
        for seed, city in enumerate(cities):
            stem = f"{city}_000000_000019"
            save(root / "leftImg8bit" / part / city / f"{stem}_leftImg8bit.png", np.zeros((20, 28, 3), np.uint8))
            mask = labels(seed, [*range(19), 255])
            save(root / "gtFine" / part / city / f"{stem}_gtFine_labelTrainIds.png", mask)
            save(root / "gtFine" / part / city / f"{stem}_gtFine_labelIds.png", mask)
    return root


@pytest.fixture
def ade20k(tmp_path):
    root = tmp_path / "ADEChallengeData2016"
    for part in ("training", "validation"):
        for seed in range(2):
            name = f"ADE_{part}_{seed:08}"
            save(root / "images" / part / f"{name}.jpg", np.zeros((20, 28, 3), np.uint8))
            save(root / "annotations" / part / f"{name}.png", labels(seed, range(151)))
    return root


@pytest.mark.parametrize(
    ("name", "folder", "train", "val"),
    [
        ("pascal_voc12", "voc", 3, 2),
        ("pascal_voc12_aug", "voc", 7, 2),
        ("cityscapes", "cityscapes", 2, 1),
        ("ade20k", "ade20k", 2, 2),
    ],
)
def test_files_and_labels_are_those_of_mmsegmentation(request, name, folder, train, val):
    root = request.getfixturevalue(folder)
    data = MMSegData(name, str(root), image_size=16, box=(28, 20), **PLAIN)
    data.setup("fit")
    assert {part: len(split.images) for part, split in data.splits.items()} == {"train": train, "val": val}
    load = build_part("TRANSFORMS", "transform", {"type": "LoadAnnotations"})
    for part, split in data.splits.items():
        infos = [info for leaf in leaves(data.configs[part]) for info in list_files(leaf)]
        assert split.images.names == [info["img_path"] for info in infos]
        for index, info in enumerate(infos):
            load.reduce_zero_label = None
            expected = load({**info, "seg_fields": []})["gt_seg_map"]
            assert torch.equal(split.columns["mask"][index].mask, torch.from_numpy(expected))
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (2, 3, 16, 16)
    assert data.num_classes == len(data.palette) == {"voc": 21, "cityscapes": 19, "ade20k": 150}[folder]


def test_sizes_follow_mmsegmentations_configs():
    found = {name: MMSegData(name) for name in ("pascal_voc12", "cityscapes", "ade20k")}
    assert {name: data.image_size for name, data in found.items()} == {
        "pascal_voc12": (512, 512),
        "cityscapes": (512, 1024),
        "ade20k": (512, 512),
    }
    assert [data.box for data in found.values()] == [(2048, 512), (2048, 1024), (2048, 512)]
    assert found["ade20k"].class_names[0] == "wall"
    assert found["pascal_voc12"].palette[1] == (128, 0, 0)


def test_a_data_set_of_the_registry_with_fewer_classes(voc):
    config = {
        "type": "PascalVOCDataset",
        "data_root": str(voc),
        "ann_file": "ImageSets/Segmentation/val.txt",
        "data_prefix": {"img_path": "JPEGImages", "seg_map_path": "SegmentationClass"},
        "metainfo": {"classes": ("cat", "dog")},
    }
    data = MMSegData(parts={"val": config}, image_size=16, **PLAIN)
    data.setup("validate")
    assert data.class_names == ["cat", "dog"]
    found = np.array(Image.open(voc / "SegmentationClass/2007_2.png"))
    expected = np.full_like(found, 255)
    expected[found == 8], expected[found == 12] = 0, 1
    assert np.array_equal(data.splits["val"].columns["mask"][0].mask.numpy(), expected)
    with pytest.raises(InputError, match="parts have no test; choose from: val"):
        data.setup("test")


def missing_split(root):
    (root / "ImageSets/Segmentation/train.txt").unlink()


def missing_mask(root):
    (root / "SegmentationClass/2007_3.png").unlink()


def missing_folder(root):
    (root / "JPEGImages").rename(root / "Images")


def label_21(root):
    save(root / "SegmentationClass/2007_3.png", labels(0, [21]))


BAD = {
    missing_split: "no split file {0}/ImageSets/Segmentation/train.txt; found in {0}/ImageSets/Segmentation: aug.txt",
    missing_mask: "1 of 3 files are missing, the first of them {0}/SegmentationClass/2007_3.png; found in",
    missing_folder: "no folder {0}/JPEGImages; found in {0}: ImageSets, Images, Seg",
    label_21: "mask {0}/SegmentationClass/2007_3.png has the label 21; choose from: 0..20 .classes., 255 .ignored.",
}


@pytest.mark.parametrize("spoil", BAD)
def test_bad_files(voc, spoil):
    spoil(voc)
    with pytest.raises(InputError, match=BAD[spoil].format(voc)):
        data = MMSegData("pascal_voc12", str(voc), image_size=16, **{**PLAIN, "batch_size": 1})
        data.setup("fit")
        list(data.train_dataloader())


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"dataset": "pascal_voc"}, "unknown config .* 'pascal_voc'; did you mean 'pascal_voc12'"),
        ({}, "name a data set: dataset .such as pascal_voc12"),
        ({"parts": {"training": {}}}, "unknown part 'training'; did you mean 'train'"),
        ({"parts": {"val": {"type": "VOC"}}}, "unknown data set 'VOC'"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(InputError, match=message):
        assert MMSegData(**kwargs).num_classes


def test_a_stock_pipeline(ade20k):
    augment = [MMSegTransforms(stock_config("_base_/datasets", "ade20k")["train_pipeline"])]
    data = MMSegData("ade20k", str(ade20k), image_size=(512, 512), augment=augment, **PLAIN)
    data.setup("fit")
    one, again = (next(iter(data.train_dataloader())) for _ in range(2))
    assert one["image"].shape == (2, 3, 512, 512)
    assert torch.equal(one["image"], again["image"])
    assert torch.equal(one["mask"], again["mask"])


def test_transforms_move_image_and_mask_alike():
    mask = torch.arange(12 * 16, dtype=torch.uint8).reshape(1, 12, 16)
    image = torch.cat([mask, mask // 2, 255 - mask])
    steps = [{"type": "RandomCrop", "crop_size": (8, 8)}, {"type": "RandomFlip", "prob": 0.5}]
    transforms = MMSegTransforms(steps)
    seen = set()
    for seed in range(8):
        with seeded(seed):
            cropped, labels_of = transforms(tv_tensors.Image(image), tv_tensors.Mask(mask))
        assert torch.equal(cropped, torch.cat([labels_of, labels_of // 2, 255 - labels_of]))
        seen.add(bytes(labels_of.numpy()))
    assert len(seen) == 8
    with pytest.raises(InputError, match="move no instances"):
        transforms(tv_tensors.Image(image), tv_tensors.Mask(mask.repeat(2, 1, 1)))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"type": "RandomFlop"}, "unknown transform 'RandomFlop'; did you mean 'RandomFlip'"),
        ({"type": "RandomFlip", "prop": 1}, "transform RandomFlip: .*unexpected keyword argument 'prop'"),
    ],
)
def test_bad_transforms(step, message):
    with pytest.raises(InputError, match=message):
        MMSegTransforms([step])


def test_ratios_resize_as_mmcv_does():
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 50, 70), dtype=np.uint8))
    mask = torch.from_numpy(labels(0, range(5), (50, 70)))[None]
    box = (130, 60)
    stock = MMSegTransforms([{"type": "Resize", "scale": box, "keep_ratio": True}])
    ours = RandomRatioResize(box, ratio=(1.0, 1.0), antialias=False)
    sample = tv_tensors.Image(image), tv_tensors.Mask(mask)
    (image_1, mask_1), (image_2, mask_2) = stock(*sample), ours(*sample)
    assert image_1.shape == image_2.shape == (3, 60, 84)
    assert (image_1.int() - image_2.int()).abs().max() <= 2
    assert (mask_1 == mask_2).float().mean() > 0.99


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("chosen", ["brightness", "contrast", "saturation", "hue"])
def test_colours_are_distorted_as_mmsegmentation_does(chosen, last):
    values = {"brightness": -20.0, "contrast": 1.3, "saturation": 0.6, "hue": 24.0}
    params = {name: value if name == chosen else None for name, value in values.items()}
    image = tv_tensors.Image(torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 9, 9), dtype=np.uint8)))
    found = PhotometricDistortion().transform(image, {**params, "contrast_last": last})
    stock = build_part("TRANSFORMS", "transform", {"type": "PhotoMetricDistortion"})
    mmcv = pytest.importorskip("mmcv")
    bgr = np.ascontiguousarray(image.permute(1, 2, 0).numpy()[..., ::-1])
    if chosen in ("brightness", "contrast"):
        expected = stock.convert(bgr, **{"brightness": {"beta": -20.0}, "contrast": {"alpha": 1.3}}[chosen])
    else:
        hsv = mmcv.bgr2hsv(bgr)
        if chosen == "saturation":
            hsv[..., 1] = stock.convert(hsv[..., 1], alpha=0.6)
        else:
            hsv[..., 0] = (hsv[..., 0].astype(int) + 12) % 180
        expected = mmcv.hsv2bgr(hsv)
    # products are of single precision there
    difference = np.abs(found.permute(1, 2, 0).numpy().astype(int) - expected[..., ::-1])
    assert difference.max() <= (1 if chosen == "contrast" else 0)


def test_v2_compose_takes_the_transforms():
    sample = tv_tensors.Image(torch.zeros(3, 8, 8, dtype=torch.uint8)), tv_tensors.Mask(torch.zeros(1, 8, 8).byte())
    composed = v2.Compose([v2.RandomHorizontalFlip(), MMSegTransforms([{"type": "RandomFlip", "prob": 1.0}])])
    assert isinstance(composed(*sample)[1], tv_tensors.Mask)
