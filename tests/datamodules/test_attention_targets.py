import pytest
import torch
from PIL import Image

from attention_zoo.errors import InputError
from datamodules import VOCForeground
from tests.datamodules.files import lay_down, write_voc


@pytest.fixture
def voc(tmp_path):
    return write_voc(tmp_path)


@pytest.mark.parametrize("preparation", ["centre_crop", "resize"])
def test_masks_lie_on_their_objects(voc, preparation):
    data = VOCForeground(str(voc), preparation=preparation, image_size=32, num_workers=0, mean=[0] * 3, std=[1] * 3)
    data.setup("test")
    (batch,) = data.test_dataloader()
    image, mask = batch["image"], batch["mask"]
    assert image.shape == (2, 3, 32, 32) and mask.shape == (2, 32, 32) and mask.dtype == torch.uint8
    assert set(mask.unique().tolist()) == {0, 1, 255}
    assert image.mean(1)[mask == 1].mean() > 0.9 and image.mean(1)[mask == 0].mean() < 0.1
    assert batch["index"].tolist() == [0, 1]


def test_bad_voc(voc):
    with pytest.raises(InputError, match=r"no list .*trainval.txt: .*has: val.txt"):
        VOCForeground(str(voc), split="trainval").setup("test")
    with pytest.raises(InputError, match="has no train split"):
        VOCForeground(str(voc)).load(["train"])
    Image.new("RGB", (60, 40)).save(voc / "SegmentationClass" / "a.png")
    data = VOCForeground(str(voc), num_workers=0)
    data.setup("test")
    with pytest.raises(InputError, match=r"cannot read image .*a.png: a mask of indices .*not RGB"):
        next(iter(data.test_dataloader()))
    (voc / "SegmentationClass" / "b.png").unlink()
    with pytest.raises(InputError, match=r"val.txt: there is no .*b.png"):
        VOCForeground(str(voc)).setup("test")


def test_masks_of_turned_images_are_as_they_are_seen(voc):
    straight, turned = (VOCForeground(str(voc), image_size=32, num_workers=0) for _ in range(2))
    straight.setup("test")
    (before,) = straight.test_dataloader()
    lay_down(voc / "JPEGImages" / "a.jpg")
    turned.setup("test")
    (batch,) = turned.test_dataloader()
    assert (batch["image"] - before["image"]).abs().mean() < 0.1
    assert torch.equal(batch["mask"], before["mask"])


def test_masks_of_another_size_are_refused(voc):
    with Image.open(voc / "SegmentationClass" / "a.png") as mask:
        mask.transpose(Image.Transpose.ROTATE_90).save(voc / "SegmentationClass" / "a.png")
    data = VOCForeground(str(voc), num_workers=0)
    data.setup("test")
    with pytest.raises(InputError, match=r"a.png has \d+ x \d+ pixels, its image .*a.jpg has \d+ x \d+, upright"):
        next(iter(data.test_dataloader()))
