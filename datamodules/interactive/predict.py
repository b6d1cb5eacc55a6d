"""Anybody's own images and clicks, to predict masks from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate
from torchvision.transforms.v2 import functional

from attention_zoo.clicks import PADDING, ClickedImage
from attention_zoo.errors import InputError
from attention_zoo.runs.files import read_json
from datamodules.images import ImageFiles, SizedImages, Split, below
from datamodules.interactive.crops import Region, Viewing, crop, to_view
from datamodules.loading import Batch
from datamodules.sampling import SampleKey


def read_clicks(file: str, folder: str | None = None) -> Split:
    """The images and annotations that a JSON file names (see `InteractiveDataModule`).

    Args:
        file: path of the JSON file.
        folder: where the images are; None is the folder of the file.

    Raises:
        InputError: there is no such file, or it is not as it should be.
    """
    if not Path(file).exists():
        raise InputError(f"predict_clicks: no file {file}")
    content = read_json(file)
    entries = content if isinstance(content, list) else [content]
    if not entries:
        raise InputError(f"{file} names no image")
    base = Path(file).parent if folder is None else Path(folder)
    paths, annotations = [], []
    for place, entry in enumerate(entries):
        name = entry.get("image") if isinstance(entry, dict) else None
        if not isinstance(name, str):
            raise InputError(f'{file}: entry {place} has no image: expected {{"image": path, "clicks": [...]}}')
        try:
            annotations.append(ClickedImage.parse(entry))
        except InputError as error:
            raise InputError(f"{file}: {name}: {error}") from error
        paths.append(below(base, name, f"{file}: entry {place}, whose images are in predict_dir"))
    return Split(ImageFiles(paths), {"path": paths, "annotation": annotations})


class ClickedImages(Dataset[Any]):
    """The images with their clicks, addressed by the keys of a sampler, or by a list of them.

    Args:
        split: as of `read_clicks`.
        viewing: cuts views around the object out, as the model was trained; None leaves images whole.
    """

    def __init__(self, split: Split, viewing: Viewing | None) -> None:
        self.split, self.viewing = split, viewing

    def __len__(self) -> int:
        return len(self.split.images)

    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of every image."""
        return [cast(SizedImages, self.split.images).size(index) for index in range(len(self))]

    def __getitem__(self, key: SampleKey | int | list[SampleKey]) -> Any:
        """Return one sample, or a list of them, as `InteractiveDataModule` describes it."""
        if isinstance(key, list):
            return [self[one] for one in key]
        _, index, counted, _ = key if isinstance(key, SampleKey) else SampleKey(0, key, True)
        image, path = self.split.images[index], self.split.columns["path"][index]
        try:
            sample = clicked(image, self.split.columns["annotation"][index], self.viewing)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        return {**sample, "path": path, "index": index if counted else -1}


def clicked(
    image: Tensor,
    annotation: ClickedImage,
    viewing: Viewing | None,
    cut: Callable[[Tensor, Region, Viewing], Tensor] | None = None,
) -> dict[str, Any]:
    """Return what a model is given of one clicked object, as `InteractiveDataModule` describes it.

    Args:
        image: (3, H, W) uint8.
        annotation: the clicks, in pixels of the image.
        viewing: see `ClickedImages`.
        cut: takes the place of `cut_out`, such as one that remembers.

    Raises:
        InputError: the annotation does not fit the image.
    """
    size = (image.shape[-2], image.shape[-1])
    annotation.check_inside(size)
    region = Region(0, 0, *size)
    if viewing is not None:
        region = _region(viewing, annotation, size)
        image = (cut or cut_out)(image, region, viewing)
    seen = (image.shape[-2], image.shape[-1])
    return {
        "image": image,
        "points": to_view(annotation.points, region, seen),
        "labels": annotation.labels,
        "box": to_view(annotation.corners.view(2, 2), region, seen).flatten(),
        "region": torch.tensor(region),
        "size": torch.tensor(size),
        "annotation": annotation.plain(),
    }


def cut_out(image: Tensor, region: Region, viewing: Viewing) -> Tensor:
    """Return a region of an image (3, H, W) uint8, resized to the size of views."""
    view = crop(image, region, viewing.fill)
    return functional.resize(view, list(viewing.size), antialias=True) if view.shape[1:] != viewing.size else view


def _region(viewing: Viewing, annotation: ClickedImage, size: tuple[int, int]) -> Region:
    """The view of the box and all clicks; without a box, of the whole image."""
    if annotation.box is None:
        return viewing.around_image(size)
    places = torch.cat([annotation.points, annotation.corners.view(2, 2)])
    return viewing.region(torch.cat([places.amin(0), places.amax(0)]), size)


class ClickCollate:
    """Samples of `ClickedImages` to a batch.

    Args:
        normalise: makes uint8 images float32 and normalised.
    """

    def __init__(self, normalise: Callable[[Tensor], Tensor]) -> None:
        self.normalise = normalise

    def __call__(self, samples: list[Batch]) -> Batch:
        """The batch; images with fewer clicks than others are padded."""
        most = max(len(sample["labels"]) for sample in samples)
        for sample in samples:
            missing = most - len(sample["labels"])
            sample["points"] = torch.cat([sample["points"], torch.zeros(missing, 2)])
            sample["labels"] = torch.cat([sample["labels"], torch.full((missing,), PADDING)])
        annotations = [sample.pop("annotation") for sample in samples]
        batch = default_collate(samples)
        return {**batch, "image": self.normalise(batch["image"]), "annotation": annotations}
