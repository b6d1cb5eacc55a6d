"""The pipeline of segmentation data: image and mask together, batches, exactness, bad input."""

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from attention_zoo.errors import InputError
from attention_zoo.runs.place import Place
from attention_zoo.seeding import seeded
from datamodules import CamVid, SegmentationFolder, Shapes
from datamodules.segmentation.transforms import RandomClassCrop, RandomRatioResize, fit
from tests.datamodules.segmentation_files import PALETTE, painted, random_mask, write_pairs

CLASSES = ["floor", "wall", "plant", "chair"]
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "num_workers": 0}


@pytest.fixture
def folder(tmp_path):
    """Train, val and test of four classes; val and test have images of several sizes."""
    write_pairs(tmp_path / "data", "train", 8, ((48, 64),))
    write_pairs(tmp_path / "data", "val", 7, ((24, 32), (32, 24), (24, 32), (40, 40)))
    write_pairs(tmp_path / "data", "test", 5, ((24, 32), (40, 40)))
    return tmp_path / "data"


def build(folder, **kwargs):
    return SegmentationFolder(str(folder), CLASSES, **{"image_size": 32, "batch_size": 2} | PLAIN | kwargs)


def nearest_colour(image):
    """The class whose colour a pixel has nearly, (H, W)."""
    colours = torch.tensor(PALETTE, dtype=torch.float32) / 255
    return (image[:, None] - colours.T[:, :, None, None]).square().sum(0).argmin(0)


def test_augmentation_moves_image_and_mask_alike(folder):
    data = build(folder, box=(64, 48), image_size=(40, 32), batch_size=8)
    data.augment = data.augment[:-1]  # its last step changes colours, which here say the class
    data.setup("fit")
    seen = set()
    for epoch in range(3):
        data.place = Place(epoch)
        batch = next(iter(data.train_dataloader()))
        assert batch["image"].shape == (8, 3, 40, 32)
        assert batch["mask"].shape == (8, 40, 32)
        for image, mask in zip(batch["image"], batch["mask"], strict=True):
            labelled = mask != 255
            agree = (nearest_colour(image) == mask)[labelled].float().mean()
            assert agree > 0.85, agree  # colours blend at borders
            assert (image[:, ~labelled] == 0).all()
            seen.add(labelled.all().item())
    assert seen == {True, False}


def test_the_colours_change_and_the_mask_does_not(folder):
    data = build(folder, augment=[], box=(48, 64), image_size=(48, 64), batch_size=8)
    coloured = build(folder, box=(48, 64), image_size=(48, 64), batch_size=8)
    coloured.augment = coloured.augment[-1:]
    batches = []
    for module in (data, coloured):
        module.setup("fit")
        batches.append(next(iter(module.train_dataloader())))
    assert torch.equal(batches[0]["mask"], batches[1]["mask"])
    changed = (batches[0]["image"] - batches[1]["image"]).abs().flatten(1).amax(1)
    assert 4 <= (changed > 0.02).sum() <= 8


@pytest.mark.parametrize("workers", [1, 2])
def test_samples_do_not_depend_on_workers_or_draws_before(folder, workers):
    def epoch(num_workers):
        data = build(folder, num_workers=num_workers)
        data.setup("fit")
        torch.rand(num_workers)
        return list(data.train_dataloader())

    for one, other in zip(epoch(0), epoch(workers), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in ("image", "mask", "index"))


def test_evaluation_keeps_masks_and_groups_sizes(folder):
    data = build(folder, box=(16, 16), batch_size=3)
    data.setup("fit")
    seen = []
    for batch in data.val_dataloader():
        assert len({tuple(size) for size in batch["size"].tolist()}) == 1
        height, width = batch["size"][0].tolist()
        assert batch["mask"].shape[1:] == (height, width)
        assert batch["image"].shape[2:] == fit((height, width), (16, 16))
        seen += batch["index"].tolist()
        for index, mask in zip(batch["index"], batch["mask"], strict=True):
            found = np.array(Image.open(data.splits["val"].columns["mask"].paths[index]))
            assert torch.equal(mask, torch.from_numpy(found).long())
    assert sorted(seen) == list(range(7))
    assert len(data.val_dataloader()) == 4  # 4 of one size, 2 and 1 of others


@pytest.mark.parametrize(
    ("size", "box", "expected"),
    [
        ((375, 500), (2048, 512), (512, 683)),
        ((500, 375), (2048, 512), (683, 512)),
        ((100, 1000), (2048, 512), (205, 2048)),
        ((1024, 2048), (2048, 1024), (1024, 2048)),
    ],
)
def test_fit_is_mmcvs(size, box, expected):
    mmcv = pytest.importorskip("mmcv")
    assert fit(size, box) == expected
    assert mmcv.rescale_size(size[::-1], box) == expected[::-1]


def test_crops_avoid_places_of_one_class():
    mask = torch.zeros(1, 60, 60, dtype=torch.uint8)
    mask[..., 40:] = torch.arange(60, dtype=torch.uint8)[:, None] // 20
    mask[..., :20] = 255
    sample = tv_tensors.Image(mask.repeat(3, 1, 1)), tv_tensors.Mask(mask)
    crop, anywhere = RandomClassCrop((20, 20)), RandomClassCrop((20, 20), max_share=2.0)

    def largest_share(transform, seed):
        with seeded(seed):
            image, cropped = transform(*sample)
        assert torch.equal(image[:1], cropped)
        counts = cropped.flatten().bincount(minlength=256)[:255]
        return (counts.max() / counts.sum()).item() if counts.sum() else 1.0

    assert sum(largest_share(crop, seed) < 0.75 for seed in range(60)) >= 50
    assert sum(largest_share(anywhere, seed) < 0.75 for seed in range(60)) <= 40


def test_ratios_cover_their_range():
    image = tv_tensors.Image(torch.zeros(3, 50, 100, dtype=torch.uint8))
    resize = RandomRatioResize((200, 100))
    with seeded(0):
        sizes = [resize(image).shape[-2:] for _ in range(50)]
    assert all(width == pytest.approx(2 * height, abs=2) for height, width in sizes)
    assert min(sizes)[0] in range(50, 60)
    assert max(sizes)[0] in range(180, 201)


class Counter(L.LightningModule):
    """Notes which samples it saw in evaluation."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def validation_step(self, batch):
        self.seen.append(batch["index"].tolist())

    def test_step(self, batch):
        self.seen.append(batch["index"].tolist())

    def predict_step(self, batch):
        return list(zip(batch["path"], batch["size"].tolist(), strict=True))


def test_a_trainer_keeps_the_batches_and_paths(folder, tmp_path):
    data = build(folder, predict_dir=str(folder / "images" / "val"), batch_size=3)
    model = Counter()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = L.Trainer(default_root_dir=tmp_path, **quiet)
    trainer.validate(model, data, verbose=False)
    assert model.seen == [[0, 2, 4], [6], [1, 5], [3]]
    found = [pair for batch in trainer.predict(model, data) for pair in batch]
    assert sorted(found) == [
        (path, list(Image.open(path).size[::-1])) for path in sorted(map(str, (folder / "images" / "val").iterdir()))
    ]


def spoil_label(root):
    Image.fromarray(np.full((48, 64), 7, np.uint8)).save(root / "annotations/train/scene03.png")


def spoil_colour(root):
    Image.fromarray(painted(random_mask(0, (48, 64)))).save(root / "annotations/train/scene03.png")


def spoil_size(root):
    Image.fromarray(np.zeros((48, 60), np.uint8)).save(root / "annotations/train/scene03.png")


def spoil_pair(root):
    (root / "annotations/train/scene03.png").unlink()


def spoil_image(root):
    (root / "images/train/scene03.png").unlink()


def spoil_folder(root):
    (root / "annotations/train").rename(root / "annotations/training")


def spoil_empty(root):
    for path in (root / "images/train").iterdir():
        path.unlink()


def spoil_file(root):
    (root / "annotations/train/scene03.png").write_bytes(b"no image")


BAD = {
    spoil_label: "mask {1}.png has the label 7; choose from: 0..3 .classes., 255 .ignored.",
    spoil_colour: "cannot read image {1}.png: a mask of indices has one channel of numbers .L or P., not RGB",
    spoil_size: "image {0}.png has 64 x 48 pixels, its mask {1}.png has 60 x 48: they must be equal",
    spoil_pair: "1 of 8 files have no mask, the first of them {0}.png: expected {1}.*; found in ",
    spoil_image: "1 of 8 files have no image, the first of them {1}.png: expected {0}.*; found in ",
    spoil_folder: "no folder .*/annotations/train: expected a folder of images",
    spoil_empty: "no images in .*/images/train: expected files ending in",
    spoil_file: "cannot read image {1}.png: not an image of a known format",
}


@pytest.mark.parametrize("spoil", BAD)
def test_bad_files(folder, spoil):
    spoil(folder)
    stems = [folder / kind / "train" / "scene03" for kind in ("images", "annotations")]
    with pytest.raises(InputError, match=BAD[spoil].format(*stems)):
        data = build(folder)
        data.setup("fit")
        list(data.train_dataloader())


def test_the_indices_of_a_palette_count(folder):
    path = folder / "annotations/train/scene03.png"
    mask = np.array(Image.open(path))
    image = Image.fromarray(mask, mode="P")
    image.putpalette([value for colour in PALETTE[::-1] for value in colour])
    image.save(path)
    data = build(folder)
    data.setup("fit")
    assert torch.equal(data.splits["train"].columns["mask"][3].mask, torch.from_numpy(mask))


def test_camvid_ignores_what_is_unlabelled(tmp_path):
    for part in ("train", "val", "test"):
        write_pairs(tmp_path, part, 2)
    path = tmp_path / "annotations/train/scene00.png"
    mask = np.array(Image.open(path))
    mask[:5] = 11
    mask[5:8] = 10
    Image.fromarray(mask).save(path)
    data = CamVid(str(tmp_path))
    data.setup("fit")
    found = data.splits["train"].columns["mask"][0].mask
    assert (found[:5] == 255).all()
    assert (found[5:8] == 10).all()
    assert data.num_classes == len(data.palette) == 11


def test_fractions_split_all_pairs_once(tmp_path):
    write_pairs(tmp_path, ".", 20)
    data = SegmentationFolder(str(tmp_path), CLASSES, image_size=16, val_fraction=0.2, test_fraction=0.1)
    data.setup("fit")
    data.setup("test")
    names = {part: split.images.names for part, split in data.splits.items()}
    assert {part: len(found) for part, found in names.items()} == {"train": 14, "val": 4, "test": 2}
    assert len({name for found in names.values() for name in found}) == 20


@pytest.mark.parametrize("panoptic", [False, True])
def test_shapes_are_the_same_each_time(panoptic):
    def first(part, **kwargs):
        data = Shapes(image_size=(48, 64), batch_size=4, panoptic=panoptic, **PLAIN, **kwargs)
        data.setup({"val": "validate"}.get(part, part))
        return next(iter(getattr(data, f"{part}_dataloader")()))

    one, again, other = first("val"), first("val"), first("test")
    assert torch.equal(one["image"], again["image"])
    assert torch.equal(one["mask"], again["mask"])
    assert not torch.equal(one["image"], other["image"])
    assert ("segments" in one) == panoptic
    assert first("val", classes=40)["mask"].max() > 8


def test_segments_partition_the_mask():
    data = Shapes(image_size=(48, 64), batch_size=8, panoptic=True, **PLAIN)
    data.setup("fit")
    for batch in (next(iter(data.train_dataloader())), next(iter(data.val_dataloader()))):
        for mask, segments in zip(batch["mask"], batch["segments"], strict=True):
            masks, labels = segments["masks"], segments["labels"]
            assert masks.flatten(1).any(1).all()
            assert torch.equal(masks.sum(0), (mask != 255).long())
            painted_back = (masks * (labels + 1)[:, None, None]).sum(0) - 1
            assert torch.equal(painted_back[mask != 255], mask[mask != 255])
            assert torch.equal(segments["is_thing"], torch.isin(labels, torch.tensor(data.things)))
            assert not segments["crowd"].any()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"image_size": 0}, "image_size must be at least 1, got 0"),
        ({"box": (0, 5)}, "box must be at least 1, got 0"),
        ({"classes": 1}, "classes must be 2 to 100, got 1"),
        ({"scenes": (1, 0, 1)}, "scenes must be at least 1, got 0"),
    ],
)
def test_arguments_out_of_range(kwargs, message):
    with pytest.raises(InputError, match=message):
        Shapes(**kwargs)
