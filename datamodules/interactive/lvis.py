"""LVIS, and anything else in the JSON format of COCO with polygons."""

import json
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from attention_zoo.errors import InputError
from datamodules.images import ImageFiles, Split
from datamodules.interactive.base import InteractiveDataModule
from datamodules.interactive.instances import existing
from datamodules.interactive.objects import Instances, object_numbers
from datamodules.loading import require_at_least

Polygon = Sequence[float]
"""x and y of its vertices in turns."""

MAX_OVERLAP = 0.5
"""An object is left out where earlier ones of its image cover more than this share of it."""


def paint(objects: Sequence[Sequence[Polygon]], size: tuple[int, int]) -> np.ndarray:
    """The map of instances of one image, later objects above earlier ones.

    As in RITM (K. Sofiiuk et al., ICIP 2022): polygons are filled between vertices that are rounded to pixels, and an
    object more than half of which is on earlier ones is left out.

    Args:
        objects: polygons of each object.
        size: height and width of the image.

    Returns:
        (H, W) int32: 1 for the first object, and so on; 0 background.
    """
    labels = np.zeros(size, dtype=np.int32)
    for number, polygons in enumerate(objects, 1):
        mask = np.zeros(size, dtype=np.uint8)
        rounded = [
            np.round(np.asarray(polygon, dtype=np.float64)).astype(np.int32).reshape(-1, 2) for polygon in polygons
        ]
        # one by one: together, where two parts overlap would be a hole
        for vertices in rounded:
            cv2.fillPoly(mask, [vertices], 1)
        covered = mask > 0
        area = int(covered.sum())
        if area and int((labels[covered] > 0).sum()) <= MAX_OVERLAP * area:
            labels[covered] = number
    return labels


class PolygonObjects:
    """Objects that are painted each time they are asked for.

    Args:
        polygons: for each sample those of all objects of its image.
        sizes: height and width of each sample's image.
        min_area: pixels in sight that an object must have, unless no other has them either.
        numbers: object of each sample; None: a sample is about any of its image.
        names: of the samples, for errors.
    """

    def __init__(
        self,
        polygons: Sequence[Sequence[Sequence[Polygon]]],
        sizes: Sequence[tuple[int, int]],
        min_area: int,
        names: Sequence[str],
        numbers: Sequence[int] | None = None,
    ) -> None:
        self.polygons, self.sizes, self.min_area, self.names, self.numbers = polygons, sizes, min_area, names, numbers

    def __len__(self) -> int:
        return len(self.polygons)

    def __getitem__(self, index: int) -> Instances:
        """The objects.

        Raises:
            InputError: the polygons are none.
        """
        try:
            labels = torch.from_numpy(paint(self.polygons[index], self.sizes[index]))
        except (ValueError, TypeError, cv2.error) as error:
            raise InputError(
                f"{self.names[index]}: its segmentation is no list of polygons x1, y1, x2, y2, ..."
            ) from error
        if self.numbers is not None:
            return Instances(labels, (self.numbers[index],))
        # where others hide all but little of every object, what is left is an object
        return Instances(labels, object_numbers(labels, self.min_area) or object_numbers(labels))


class LVIS(InteractiveDataModule):
    """LVIS (A. Gupta et al., CVPR 2019): COCO's images with polygons of objects of over 1,000 classes.

    A sample of training is an image, of which any object is taken; of evaluation, an object of an image of ``val``.

    Args:
        root: holds ``{train,val}/images/*.jpg`` and ``{train,val}/lvis_{train,val}.json``. An image's file is called as
            its ``coco_url`` (or ``file_name``) ends; those of ``val`` may lie in ``train``.
        val_images: images of ``val`` that the validation takes, the first of the file.
        min_area: pixels in sight that an object must have.
        kwargs: the arguments of `InteractiveDataModule`.

    Raises:
        InputError: an argument is out of range.
    """

    def __init__(self, root: str, val_images: int = 200, min_area: int = 80, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require_at_least("val_images", val_images, 1)
        require_at_least("min_area", min_area, 1)
        self.root, self.val_images, self.min_area = Path(root), val_images, min_area

    def load(self, parts: Collection[str]) -> dict[str, Split]:
        """See `DataModule`; the test is on all of ``val``."""
        return {part: self._part(part) for part in parts}

    def _part(self, part: str) -> Split:
        folder = "train" if part == "train" else "val"
        records, polygons = self.annotations(self.root / folder / f"lvis_{folder}.json")
        if part == "val":
            records, polygons = records[: self.val_images], polygons[: self.val_images]
        files = existing([self._file(folder, record) for record in records])
        sizes = [(record["height"], record["width"]) for record in records]
        objects = PolygonObjects(polygons, sizes, self.min_area, files)
        chosen = [(place, None) for place in range(len(files))]
        if part != "train":
            chosen = [(place, number) for place in range(len(files)) for number in objects[place].numbers]
        return self._split(files, polygons, sizes, chosen)

    def _split(
        self,
        files: list[str],
        polygons: list[list[list[Polygon]]],
        sizes: list[tuple[int, int]],
        chosen: list[tuple[int, int | None]],
    ) -> Split:
        """The split of samples, each an image and one of its objects, or any of them."""
        if not chosen:
            raise InputError(f"no object of at least {self.min_area} pixels in {self.root}")
        places = [place for place, _ in chosen]
        numbers = None if chosen[0][1] is None else [number for _, number in chosen]
        names = [files[place] if number is None else f"{files[place]}#{number}" for place, number in chosen]
        objects = PolygonObjects(
            [polygons[place] for place in places], [sizes[place] for place in places], self.min_area, names, numbers
        )
        return Split(ImageFiles([files[place] for place in places]), {"objects": objects, "name": names})

    def annotations(self, file: Path) -> tuple[list[dict[str, Any]], list[list[list[Polygon]]]]:
        """The images of a JSON file that have objects, and the polygons of these.

        Raises:
            InputError: there is no such file, or it is none of COCO's format.
        """
        if not file.is_file():
            raise InputError(f"no file {file}: expected images/ and {file.name} in {file.parent}")
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            by_image = defaultdict(list)
            for annotation in content["annotations"]:
                if isinstance(annotation["segmentation"], list):  # crowds have run lengths instead
                    by_image[annotation["image_id"]].append(annotation)
            # an object that is smaller than ``min_area`` is none, whatever is above it
            kept = {
                image: [one["segmentation"] for one in found]
                for image, found in by_image.items()
                if any(one.get("area", self.min_area) >= self.min_area for one in found)
            }
            records = [record for record in content["images"] if record["id"] in kept]
            return records, [kept[record["id"]] for record in records]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{file} is not in the JSON format of COCO: {type(error).__name__} {error}") from error

    def _file(self, folder: str, record: dict[str, Any]) -> Path:
        name = Path(record.get("coco_url") or record["file_name"]).name
        path = self.root / folder / "images" / name
        other = self.root / "train" / "images" / name
        return path if path.is_file() or not other.is_file() else other
