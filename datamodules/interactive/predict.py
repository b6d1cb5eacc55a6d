"""Anybody's own images and clicks, to predict masks from."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate
from torchvision.transforms.v2 import functional

from attention_zoo.clicks import PADDING, ClickedImage
from attention_zoo.errors import InputError
from attention_zoo.runs.files import read_json
from datamodules.images import ImageFiles, Split, below
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


class ClickedImages(Dataset[Batch]):
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
        return [self.split.images.size(index) for index in range(len(self))]

    def __getitem__(self, key: SampleKey | int | list[SampleKey]) -> Batch | list[Batch]:
        """Samples: see `InteractiveDataModule`."""
        if isinstance(key, list):
            return [self[one] for one in key]
        _, index, counted, _ = key if isinstance(key, SampleKey) else SampleKey(0, key, True)
        image, path = self.split.images[index], self.split.columns["path"][index]
        annotation = self.split.columns["annotation"][index]
        size = tuple(image.shape[-2:])
        try:
            annotation.check_inside(size)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        region = Region(0, 0, *size)
        if self.viewing is not None:
            region, view = self._region(annotation, size), self.viewing
            image = crop(image, region, view.fill)
            image = functional.resize(image, list(view.size), antialias=True) if image.shape[1:] != view.size else image
        seen = tuple(image.shape[-2:])
        return {
            "image": image,
            "points": to_view(annotation.points, region, seen),
            "labels": annotation.labels,
            "box": to_view(annotation.corners.view(2, 2), region, seen).flatten(),
            "region": torch.tensor(region),
            "size": torch.tensor(size),
            "path": path,
            "index": index if counted else -1,
        }

    def _region(self, annotation: ClickedImage, size: tuple[int, int]) -> Region:
        """The view of the box and all clicks; without a box, of the whole image."""
        if annotation.box is None:
            return self.viewing.around_image(size)
        places = torch.cat([annotation.points, annotation.corners.view(2, 2)])
        return self.viewing.region(torch.cat([places.amin(0), places.amax(0)]), size)


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
        batch = default_collate(samples)
        return {**batch, "image": self.normalise(batch["image"])}
