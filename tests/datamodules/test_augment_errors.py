"""What a configured augmentation raises or hands on ends in one line that names the transform and the image."""

import pytest
import torch
from torch import nn
from torchvision.transforms import v2

import datamodules as dm
from attention_zoo.errors import InputError
from datamodules.augmenting import Augment
from datamodules.erasing import PixelErasing
from tests.datamodules import interactive_files
from tests.datamodules.segmentation_files import write_pairs

FLOATS = v2.ToDtype(torch.float32, scale=True)
NORMALISE = v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def images(flat_folder, tmp_path, **kwargs):
    return dm.ImageFolder(str(flat_folder), image_size=16, **kwargs)


def segmentation(flat_folder, tmp_path, **kwargs):
    write_pairs(tmp_path, "train", 6)
    return dm.SegmentationFolder(str(tmp_path), list("abcd"), image_size=(24, 32), val_fraction=0.2, **kwargs)


def objects(flat_folder, tmp_path, **kwargs):
    return dm.MaskFolder(str(interactive_files.write_folder(tmp_path)), image_size=24, val_fraction=0.2, **kwargs)


@pytest.fixture(params=[images, segmentation, objects])
def batches(request, flat_folder, tmp_path):
    """Reads the training images of one kind of data by an augmentation."""

    def read(augment, num_workers=0):
        data = request.param(flat_folder, tmp_path, augment=augment, num_workers=num_workers, batch_size=4)
        data.setup("fit")
        return torch.cat([batch["image"] for batch in data.train_dataloader()])

    read.file = {images: "colours/", segmentation: "images/train/scene", objects: "train/masks/im"}[request.param]
    return read


class Wrong(nn.Module):
    """Raises an error that it was given, of two lines."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, *parts):
        raise self.error("first\nsecond")


@pytest.mark.parametrize(
    ("augment", "found"),
    [
        ([v2.ToDtype(torch.float32)], r"\[ToDtype\] makes float32 from \d+ to \d+"),
        ([FLOATS, NORMALISE], r"\[ToDtype, Normalize\] makes float32 from -[\d.]+ to [\d.]+"),
        ([v2.ToDtype(torch.int16)], r"\[ToDtype\] makes int16"),
        ([PixelErasing(1), NORMALISE], r"\[PixelErasing, Normalize\] makes float32 from -.*"),
    ],
)
def test_images_that_evaluation_would_scale_otherwise_are_refused(batches, augment, found):
    if isinstance(augment[0], PixelErasing) and "colours" not in batches.file:
        pytest.skip("it takes an image alone")
    with pytest.raises(InputError, match=rf"^augment: {found} of .*{batches.file}.*; it must give uint8, or floats in"):
        batches(augment)


def test_floats_are_as_good_as_bytes(batches):
    assert (batches([FLOATS]) - batches([])).abs().mean() < 0.02  # bytes are clipped where they are resized
    sharp = [FLOATS, v2.RandomResizedCrop((24, 32), interpolation=v2.InterpolationMode.BICUBIC, antialias=False)]
    assert batches(sharp).isfinite().all()


def test_noise_may_leave_the_range():
    augment = Augment([PixelErasing(1)])
    noise = [augment(torch.zeros(3, 224, 224, dtype=torch.uint8), name="x")[0] for _ in range(20)]
    assert min(image.min() for image in noise) < -0.3


@pytest.mark.parametrize("given", [torch.full((3, 4, 4), torch.nan), "no image", None])
def test_what_is_no_image_is_refused(given):
    with pytest.raises(InputError, match="^augment: .* of image 7; it must give uint8"):
        Augment([lambda _: given])(torch.zeros(3, 4, 4, dtype=torch.uint8), name="image 7")


@pytest.mark.parametrize("error", [ValueError, TypeError, RuntimeError, KeyError, AssertionError])
def test_an_error_names_transform_and_image(batches, error):
    with pytest.raises(InputError, match=rf"^augment: Wrong fails on .*{batches.file}.*: .*first.*second") as raised:
        batches([v2.RandomHorizontalFlip(), Wrong(error)])
    assert "\n" not in str(raised.value)


def test_an_image_without_a_file_is_named_by_its_number():
    data = dm.Digits(augment=[v2.RandomCrop(64)], num_workers=0)
    data.setup("fit")
    with pytest.raises(InputError, match=r"^augment: RandomCrop fails on image number \d+: Required crop size"):
        next(iter(data.train_dataloader()))


def test_errors_that_name_their_cause_stay_as_they_are(batches):
    with pytest.raises(InputError, match="^first\nsecond$"):
        batches([Wrong(InputError)])


def test_all_parts_are_handed_on():
    parts = torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(1, 4, 4, dtype=torch.uint8)
    with pytest.raises(InputError, match="^augment: function must take and return 2 parts together"):
        Augment([lambda image, mask: image])(*parts, name="x")
