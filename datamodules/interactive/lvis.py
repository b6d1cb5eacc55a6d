"""LVIS, and anything else in the JSON format of COCO."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from attention_zoo.domains import PositiveInt
from attention_zoo.errors import InputError
from attention_zoo.runs.files import read_json
from datamodules.decoding import most_pixels
from datamodules.images import ImageFiles, Split, below
from datamodules.interactive.base import InteractiveDataModule
from datamodules.interactive.coco import Shape, cover, read_shape
from datamodules.interactive.instances import existing
from datamodules.interactive.objects import Instances, object_numbers

MOST_BYTES = 4 << 30
"""Of an annotation file; that of LVIS's training images has 1.1 GB."""

MAX_OVERLAP = 0.5
"""An object is left out where earlier ones of its image cover more than this share of it."""


def paint(objects: Sequence[Shape], size: tuple[int, int]) -> np.ndarray:
    """The map of instances of one image, later objects above earlier ones.

    As in RITM (K. Sofiiuk et al., ICIP 2022): polygons are filled between vertices that are rounded to pixels, and an
    object more than half of which is on earlier ones is left out.

    Args:
        objects: polygons or run lengths of each object.
        size: height and width of the image.

    Returns:
        (H, W) int32: 1 for the first object, and so on; 0 background.
    """
    labels = np.zeros(size, dtype=np.int32)
    for number, shape in enumerate(objects, 1):
        covered = cover(shape, size)
        area = int(covered.sum())
        if area and int((labels[covered] > 0).sum()) <= MAX_OVERLAP * area:
            labels[covered] = number
    return labels


class PolygonObjects:
    """Objects that are painted each time they are asked for.

    Args:
        shapes: for each sample those of all objects of its image.
        sizes: height and width of each sample's image.
        min_area: pixels in sight that an object must have, unless no other has them either.
        numbers: object of each sample; None: a sample is about any of its image.
    """

    def __init__(
        self,
        shapes: Sequence[Sequence[Shape]],
        sizes: Sequence[tuple[int, int]],
        min_area: int,
        numbers: Sequence[int] | None = None,
    ) -> None:
        self.shapes, self.sizes, self.min_area, self.numbers = shapes, sizes, min_area, numbers

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: int) -> Instances:
        """Paint the objects of one sample."""
        labels = torch.from_numpy(paint(self.shapes[index], self.sizes[index]))
        if self.numbers is not None:
            return Instances(labels, (self.numbers[index],))
        # where others hide all but little of every object, what is left is an object
        return Instances(labels, object_numbers(labels, self.min_area) or object_numbers(labels))


class Outline(NamedTuple):
    """One object of an image.

    Attributes:
        shape: its polygons or run lengths.
        area: its pixels, as the file has them.
        category: the id of its category; None if it has none.
    """

    shape: Shape
    area: float
    category: Any


class LVIS(InteractiveDataModule):
    """LVIS (A. Gupta et al., CVPR 2019): COCO's images with outlines of objects of over 1,000 classes.

    A sample of training is an image, of which any object is taken; of evaluation, an object of an image of ``val``.
    Objects may be given as polygons or as run lengths; crowds (``iscrowd`` 1), in either form, are no objects.

    Args:
        root: holds ``{train,val}/images/*.jpg`` and ``{train,val}/lvis_{train,val}.json``. An image's file is called as
            its ``coco_url`` (or ``file_name``) ends; those of ``val`` may lie in ``train``.
        val_images: images of ``val`` that the validation takes, the first of the file.
        min_area: pixels in sight that an object must have.
        kwargs: the arguments of `InteractiveDataModule`.

    Raises:
        InputError: an argument is out of range.
    """

    def __init__(self, root: str, val_images: PositiveInt = 200, min_area: PositiveInt = 80, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root, self.val_images, self.min_area = Path(root), val_images, min_area

    def load(self, parts: Collection[str]) -> dict[str, Split]:
        """Read the asked parts, as `DataModule` says; the test is on all of ``val``."""
        return {part: self._part(part) for part in parts}

    def _part(self, part: str) -> Split:
        folder = "train" if part == "train" else "val"
        records, shapes = self.annotations(self.root / folder / f"lvis_{folder}.json")
        if part == "val":
            records, shapes = records[: self.val_images], shapes[: self.val_images]
        _check_names(records)
        files = existing([self.image_file(folder, record) for record in records])
        sizes = [(record["height"], record["width"]) for record in records]
        objects = PolygonObjects(shapes, sizes, self.min_area)
        chosen: list[tuple[int, int | None]] = [(place, None) for place in range(len(files))]
        if part != "train":
            chosen = [(place, number) for place in range(len(files)) for number in objects[place].numbers]
        return self._split(files, shapes, sizes, chosen)

    def _split(
        self,
        files: list[str],
        shapes: list[list[Shape]],
        sizes: list[tuple[int, int]],
        chosen: list[tuple[int, int | None]],
    ) -> Split:
        """The split of samples, each an image and one of its objects, or any of them."""
        if not chosen:
            raise InputError(f"no object of at least {self.min_area} pixels in {self.root}")
        places = [place for place, _ in chosen]
        numbers = None if chosen[0][1] is None else [number for _, number in chosen if number is not None]
        names = [files[place] if number is None else f"{files[place]}#{number}" for place, number in chosen]
        objects = PolygonObjects(
            [shapes[place] for place in places], [sizes[place] for place in places], self.min_area, numbers
        )
        return Split(ImageFiles([files[place] for place in places]), {"objects": objects, "name": names})

    def annotations(self, file: Path) -> tuple[list[dict[str, Any]], list[list[Shape]]]:
        """The images of a JSON file that have objects, and the shapes of these.

        Raises:
            InputError: there is no such file, or it is none of COCO's format.
        """
        records, outlines, _ = self.outlines(file)
        # an object that is smaller than ``min_area`` is none, whatever is above it
        large = [any(one.area >= self.min_area for one in drawn) for drawn in outlines]
        kept = [place for place, is_large in enumerate(large) if is_large]
        return [records[place] for place in kept], [[one.shape for one in outlines[place]] for place in kept]

    def outlines(self, file: Path) -> tuple[list[dict[str, Any]], list[list["Outline"]], dict[Any, dict[str, Any]]]:
        """The images of a JSON file that have objects, the objects of each, and the categories by their ids.

        Raises:
            InputError: there is no such file, or it is none of COCO's format.
        """
        if not file.is_file():
            raise InputError(f"no file {file}: expected images/ and {file.name} in {file.parent}")
        content = read_json(file, MOST_BYTES)
        try:
            sizes = {record["id"]: _size(record, file) for record in content["images"]}
            by_image = defaultdict(list)
            for place, annotation in enumerate(content["annotations"]):
                if annotation["image_id"] in sizes and not _is_crowd(annotation, file):
                    where = f"{file}: annotation {annotation.get('id', place)}"
                    shape = read_shape(annotation["segmentation"], sizes[annotation["image_id"]], where)
                    if len(shape):
                        area = _area(annotation, self.min_area, where)
                        by_image[annotation["image_id"]].append(Outline(shape, area, annotation.get("category_id")))
            records = [record for record in content["images"] if record["id"] in by_image]
            categories = {category["id"]: category for category in content.get("categories", [])}
            return records, [by_image[record["id"]] for record in records], categories
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{file} is not in the JSON format of COCO: {type(error).__name__} {error}") from error

    def image_file(self, folder: str, record: dict[str, Any]) -> Path:
        """The file of an image of ``train`` or ``val``, which may lie in the other's folder."""
        name = Path(_file_name(record)).name
        path = Path(below(self.root / folder / "images", name, f"{folder} of {self.root}"))
        other = self.root / "train" / "images" / name
        return path if path.is_file() or not other.is_file() else other


def _check_names(records: list[dict[str, Any]]) -> None:
    """Refuse two images that would be one file, of which only the last part of the name counts."""
    named: dict[str, dict[str, Any]] = {}
    for record in records:
        other = named.setdefault(Path(_file_name(record)).name, record)
        if other is not record:
            both = " and ".join(f"{one['id']} ({_file_name(one)})" for one in (other, record))
            raise InputError(f"two images of one file name: {both}")


def _file_name(record: dict[str, Any]) -> str:
    name = record.get("coco_url") or record.get("file_name")
    if not isinstance(name, str):
        raise InputError(f"image {record['id']} has neither coco_url nor file_name")
    return name


def _size(record: dict[str, Any], file: Path) -> tuple[int, int]:
    """Height and width of an image, which masks are made of."""
    size = record["height"], record["width"]
    if not all(type(side) is int and side > 0 for side in size) or size[0] * size[1] > most_pixels():
        raise InputError(
            f"{file}: image {record['id']} is {size[1]} x {size[0]}; expected whole numbers, at most {most_pixels():,} "
            "pixels"
        )
    return size


def _is_crowd(annotation: dict[str, Any], file: Path) -> bool:
    crowd = annotation.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise InputError(f"{file}: annotation {annotation.get('id')} has iscrowd {crowd!r}; expected 0 or 1")
    return bool(crowd)


def _area(annotation: dict[str, Any], default: int, where: str) -> float:
    area = annotation.get("area", default)
    if isinstance(area, bool) or not isinstance(area, (int, float)) or not area >= 0:
        raise InputError(f"{where}: its area is {area!r}; expected a number of pixels")
    return area
