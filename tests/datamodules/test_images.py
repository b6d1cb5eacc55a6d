import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from attention_zoo.errors import InputError
from datamodules import ImageFolder
from datamodules.images import UnreadableImageError, decode, list_images
from tests.datamodules.files import truncate


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_every_kind_of_image_becomes_rgb(tmp_path, mode):
    path = str(tmp_path / ("image.jpg" if mode == "CMYK" else "image.png"))
    Image.fromarray(np.full((4, 6, 3), 255, dtype=np.uint8)).convert(mode).save(path)
    image = decode(path)
    assert image.shape == (3, 4, 6) and image.dtype == torch.uint8
    assert int(image.min()) == 255


@pytest.mark.parametrize("content", [b"", b"no image at all", b"\x89PNG\r\n\x1a\n"])
def test_an_error_names_the_file_and_is_one_line(content):
    with pytest.raises(InputError, match=r"^cannot read image the/file.png: .+") as error:
        decode("the/file.png", content)
    assert "\n" not in str(error.value)


def test_a_missing_file():
    with pytest.raises(InputError, match="^cannot read image /nowhere.png: .*No such file"):
        decode("/nowhere.png")


def test_the_error_survives_the_traceback_a_worker_puts_before_it():
    error = UnreadableImageError(
        "Caught it in worker 0.\nOriginal Traceback ...\nx.E: cannot read image a.png: broken\n"
    )
    assert str(error) == str(pickle.loads(pickle.dumps(error))) == "cannot read image a.png: broken"


# One case with a worker: torch takes five seconds to end a worker that raised.
@pytest.mark.parametrize(("num_workers", "suffix"), [(0, "jpg"), (0, "png"), (1, "jpg")])
def test_a_truncated_image_is_named_from_whichever_process(flat_folder, num_workers, suffix):
    path = flat_folder / "green" / f"broken.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    truncate(path)
    data = ImageFolder(str(flat_folder), image_size=8, batch_size=4, num_workers=num_workers)
    with pytest.raises(InputError) as error:
        for stage, loaders in (("fit", ("train", "val")), ("test", ("test",))):
            data.setup(stage)
            for part in loaders:
                list(getattr(data, f"{part}_dataloader")())
    assert str(error.value).startswith(f"cannot read image {path}: ")
    assert "\n" not in str(error.value)


def test_folders_are_read_in_order_with_links_and_without_other_files(tmp_path, flat_folder):
    root = tmp_path / "root"
    (root / "b" / "deep").mkdir(parents=True)
    (root / "a").symlink_to(flat_folder / "red")
    (root / "b" / "deep" / "x.JPEG").write_bytes(b"")
    (root / "b" / ".hidden.png").write_bytes(b"")
    (root / "b" / "readme.md").write_bytes(b"")
    expected = [f"{root}/a/{i:03}.png" for i in range(10)] + [f"{root}/b/deep/x.JPEG"]
    assert list_images(root) == expected
