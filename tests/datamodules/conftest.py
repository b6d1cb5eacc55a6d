import tarfile

import pytest

from datamodules import CIFAR10, PACS, Digits, ImageFolder
from datamodules.cifar10 import CLASSES
from datamodules.pacs import CLASSES as PACS_CLASSES
from datamodules.pacs import DOMAINS
from tests.datamodules.files import COLOURS, TRAINED_ON, write_images


@pytest.fixture
def cifar_folder(tmp_path):
    """Eight training and three test images for each class of CIFAR-10."""
    root = tmp_path / "cifar"
    write_images(root / "train", CLASSES, 8, (32, 32))
    write_images(root / "test", CLASSES, 3, (32, 32))
    return root


@pytest.fixture
def flat_folder(tmp_path):
    """Ten images in each of three class folders, all 20 x 30."""
    write_images(tmp_path / "colours", COLOURS, 10, (20, 30))
    return tmp_path / "colours"


@pytest.fixture
def parts_folder(tmp_path):
    """train, val and test, each with three classes."""
    for part, count in (("train", 6), ("val", 2), ("test", 3)):
        write_images(tmp_path / "parts" / part, COLOURS, count, (20, 30))
    return tmp_path / "parts"


@pytest.fixture
def pacs_folder(tmp_path):
    """Five images of each class in each domain of PACS."""
    for domain in DOMAINS:
        write_images(tmp_path / "PACS" / domain, PACS_CLASSES, 5, (12, 10))
    return tmp_path / "PACS"


@pytest.fixture
def archive(cifar_folder, tmp_path):
    """Packs ``cifar_folder`` in an order that is not the sorted one, below ``prefix``."""

    def pack(name, prefix="cifar10"):
        mode = "w:" + {"tar": "", "gz": "gz", "xz": "xz", "bz2": "bz2"}[name.rpartition(".")[2]]
        with tarfile.open(tmp_path / name, mode) as tar:
            for path in sorted(cifar_folder.rglob("*"), reverse=True):
                tar.add(path, f"{prefix}/{path.relative_to(cifar_folder)}", recursive=False)
        return tmp_path / name

    return pack


@pytest.fixture(params=TRAINED_ON)
def make(request, cifar_folder, flat_folder, pacs_folder):
    """Builds each of the datamodules to train on, with tiny data."""
    return {
        "CIFAR10": lambda **kwargs: CIFAR10(str(cifar_folder), val_size=20, **kwargs),
        "Digits": lambda **kwargs: Digits(**kwargs),
        "ImageFolder": lambda **kwargs: ImageFolder(str(flat_folder), **{"image_size": 16} | kwargs),
        "PACS": lambda **kwargs: PACS(str(pacs_folder), "sketch", **{"image_size": 16} | kwargs),
    }[request.param]
