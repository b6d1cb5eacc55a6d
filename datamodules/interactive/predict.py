"""Anybody's own images and clicks, to predict masks from."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate
from torchvision.transforms.v2 import functional

from attention_zoo.clicks import NEGATIVE, PADDING, POSITIVE
from attention_zoo.errors import InputError
from attention_zoo.runs.files import read_json
from datamodules.checks import shown
from datamodules.images import ImageFiles, Split, below
from datamodules.interactive.crops import Region, Viewing, crop, to_view
from datamodules.loading import Batch
from datamodules.sampling import SampleKey

ROUGHNESS = 0.1
"""Share of the image's sides by which the corners of a box may lie outside of it."""

LARGEST_PLACE = 1e6
"""Pixels; float32 tells places apart up to there."""


class Annotation(NamedTuple):
    """What an annotator said about one object.

    Attributes:
        points: (n, 2) float32, row and column of the clicks.
        labels: (n,) int64 of clicks.
        box: (4,) float32, NaN without a box.
    """

    points: Tensor
    labels: Tensor
    box: Tensor


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
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
            raise InputError(f'{file}: entry {place} has no image: expected {{"image": path, "clicks": [...]}}')
        paths.append(below(base, entry["image"], f"{file}: entry {place}, whose images are in predict_dir"))
        annotations.append(_annotation(entry, f"{file}: {entry['image']}"))
    return Split(ImageFiles(paths), {"path": paths, "annotation": annotations})


def _annotation(entry: dict[str, Any], where: str) -> Annotation:
    clicks, box = entry.get("clicks", []), entry.get("box")
    unknown = sorted(entry.keys() - {"image", "clicks", "box"})
    if unknown:
        raise InputError(f"{where}: unknown key {unknown[0]!r}; choose from: box, clicks, image")
    fits = isinstance(clicks, list) and all(isinstance(click, dict) for click in clicks)
    fits = fits and all(_is_number(click.get("y")) and _is_number(click.get("x")) for click in clicks)
    if not (fits and all(isinstance(click.get("positive"), bool) for click in clicks)):
        raise InputError(
            f'{where}: a click is {{"y": row, "x": column, "positive": true or false}} with numbers of pixels'
        )
    if box is not None and not (isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))):
        raise InputError(f"{where}: a box is [row, column, row, column] of two opposite corners, got {shown(box)}")
    if not clicks and box is None:
        raise InputError(f"{where}: neither clicks nor a box, there is nothing to segment")
    points = torch.tensor([[click["y"], click["x"]] for click in clicks], dtype=torch.float32).view(-1, 2)
    labels = torch.tensor([POSITIVE if click["positive"] else NEGATIVE for click in clicks], dtype=torch.int64)
    return Annotation(points, labels, torch.tensor(box or [math.nan] * 4, dtype=torch.float32))


def _is_number(value: Any) -> bool:
    """Whether it is a finite number of pixels; NaN in a box would stand for no box at all."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST_PLACE


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
        check_inside(annotation, size, path)
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
            "box": to_view(annotation.box.view(2, 2), region, seen).flatten(),
            "region": torch.tensor(region),
            "size": torch.tensor(size),
            "path": path,
            "index": index if counted else -1,
        }

    def _region(self, annotation: Annotation, size: tuple[int, int]) -> Region:
        """The view of the box and all clicks; without a box, of the whole image."""
        if annotation.box.isnan().any():
            return self.viewing.around_image(size)
        places = torch.cat([annotation.points, annotation.box.view(2, 2)])
        return self.viewing.region(torch.cat([places.amin(0), places.amax(0)]), size)


def check_inside(annotation: Annotation, size: tuple[int, int], path: str) -> None:
    """Refuse clicks outside of the image, and a box that reaches out of it by more than roughness.

    Raises:
        InputError: there is one.
    """
    margin = torch.tensor(size) * ROUGHNESS + 1
    corners = annotation.box.view(2, 2)
    if ((corners < -margin) | (corners >= torch.tensor(size) + margin)).any():  # never without a box, which is NaN
        box = ", ".join(f"{value:g}" for value in annotation.box.tolist())
        raise InputError(f"{path}: the box [{box}] reaches out of the image of {size[1]} x {size[0]} pixels")
    rounded = annotation.points.round()
    outside = ((rounded < 0) | (rounded >= torch.tensor(size))).any(1)
    if outside.any():
        y, x = annotation.points[int(outside.int().argmax())].tolist()
        raise InputError(f"{path}: the click at y={y:g}, x={x:g} is outside the image of {size[1]} x {size[0]} pixels")


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
