"""An augmentation that fails, or hands on other numbers, ends a training with one line and exit code 2."""

import pytest

CROP = "{class_path: torchvision.transforms.v2.RandomCrop, init_args: {size: 64}}"
FLOATS = "{class_path: torchvision.transforms.v2.ToDtype, init_args: {dtype: torch.float32}}"


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("augment", "said"),
    [
        (CROP, "error: augment: RandomCrop fails on image number "),
        (FLOATS, "error: augment: [ToDtype] makes float32 from 0 to 255 of image number "),
    ],
)
def test_one_line(zoo, tiny, tmp_path, augment, said, workers):
    ended = zoo("fit", "--config", tiny, "--data.augment", f"[{augment}]", "--data.num_workers", workers)
    assert ended.code == 2
    assert ended.err.splitlines()[-1].startswith(said)
