"""Data with instances: the COCO panoptic format, and Cityscapes."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets

from attention_zoo.errors import InputError
from attention_zoo.runs.files import read_json
from datamodules.checks import require_different
from datamodules.decoding import decode_colours, decode_labels
from datamodules.images import ImageFiles, Split, below, contents, matches
from datamodules.segmentation.base import SegmentationDataModule
from datamodules.segmentation.masks import IGNORE, LabelMap, Palette, default_palette, require_files

MOST_BYTES = 4 << 30
"""Of an annotation file."""


class Segment(NamedTuple):
    """One segment of an image.

    Attributes:
        number: of its pixels in the file.
        label: its class.
        is_thing: whether it is one countable object.
        crowd: whether it is a group of objects that nobody told apart.
    """

    number: int
    label: int
    is_thing: bool
    crowd: bool


def to_label_map(path: str, numbers: Tensor, segments: Sequence[Segment], void: Collection[int]) -> LabelMap:
    """The labels of an image from the numbers of its pixels' segments.

    Args:
        path: the file of the numbers, for an error.
        numbers: (H, W) integers.
        segments: those of the image, fewer than 256.
        void: numbers of pixels that belong to no segment.

    Raises:
        InputError: a pixel has another number.
    """
    if len(segments) > IGNORE:
        raise InputError(f"{path} has {len(segments)} segments, at most {IGNORE} can be told apart")
    listed = sorted(segments)
    places = [*range(len(listed)), *(IGNORE for _ in void)]
    known = np.array([*(segment.number for segment in listed), *void])
    order = np.argsort(known)
    wanted = numbers.numpy().astype(known.dtype)
    position = np.searchsorted(known[order], wanted).clip(max=len(known) - 1)
    wrong = known[order][position] != wanted
    if wrong.any():
        raise InputError(f"{path} has pixels of the segment {wanted[wrong][0]}, which its annotation does not list")
    inside = torch.from_numpy(np.array(places, dtype=np.uint8)[order][position])
    table = torch.tensor([segment[1:] for segment in listed], dtype=torch.int64).reshape(-1, 3)
    labels, (is_thing, crowd) = table[:, 0], table[:, 1:].bool().T
    classes = torch.full((IGNORE + 1,), IGNORE, dtype=torch.uint8)
    classes[: len(listed)] = labels.to(torch.uint8)
    return LabelMap(classes[inside.long()], inside, labels, is_thing, crowd)


class PanopticPNGs:
    """Files in which a segment's number is R + 256 G + 65536 B (the COCO panoptic format); 0 is no segment.

    Args:
        paths: the files.
        segments: those of each file.
    """

    def __init__(self, paths: Sequence[str], segments: Sequence[Sequence[Segment]]) -> None:
        self.paths = paths
        # workers share arrays; of objects, their counting of references would make copies
        self.segments = [np.array(listed, dtype=np.int64).reshape(-1, 4) for listed in segments]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> LabelMap:
        """The labels of one image."""
        red, green, blue = decode_colours(self.paths[index]).int()
        segments = [
            Segment(number, label, bool(thing), bool(crowd))
            for number, label, thing, crowd in self.segments[index].tolist()
        ]
        return to_label_map(self.paths[index], red + 256 * green + 65536 * blue, segments, (0,))


class COCOPanoptic(SegmentationDataModule):
    """COCO, or other data in its panoptic format: 80 classes of things and 53 of stuff.

    A. Kirillov et al., Panoptic segmentation, CVPR 2019. ``root`` has the images in ``{train,val}2017``, the files
    ``annotations/panoptic_{train,val}2017.json`` and the PNGs in the folders of the same names beside those. The
    classes are the categories of the file, in the order of their ids. The test data are those of ``val``, as in the
    literature: those of the test server have no labels here.

    Args:
        root: the folder.
        class_names: the names of all classes in the order of their ids; None reads them. With names, ``root`` is not
            needed to predict.
        year: in the names above.
        image_size: as in `SegmentationDataModule`.
        kwargs: the other arguments of `SegmentationDataModule`.
    """

    def __init__(
        self,
        root: str,
        class_names: list[str] | None = None,
        year: str = "2017",
        image_size: int | tuple[int, int] = 640,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_size, **kwargs)
        self.root, self.year, self.given_names = Path(root), year, class_names

    @property
    def class_names(self) -> list[str]:
        """As given, or those of the annotations."""
        return self.given_names or [category["name"] for category in self.categories]

    @property
    def palette(self) -> Palette:
        """The colours of the annotations, where they are there."""
        if not self._file("val").is_file():
            return default_palette(self.num_classes)
        colours = default_palette(self.num_classes)
        return [tuple(one.get("color", colour)) for one, colour in zip(self.categories, colours, strict=True)]

    @property
    def things(self) -> list[int]:
        """The classes that the annotations call things."""
        return [label for label, category in enumerate(self.categories) if category["isthing"]]

    @cached_property
    def categories(self) -> list[dict[str, Any]]:
        """The categories of the annotations, sorted by their ids.

        Raises:
            InputError: the annotations are not there, or not those of ``class_names``.
        """
        with self._reported("val"):
            categories = sorted(self.annotations("val")["categories"], key=lambda category: category["id"])
            names = [category["name"] for category in categories]
            things = {category["isthing"] for category in categories}
        require_different(f"the categories of {self._file('val')}", names, IGNORE, kind="names")
        if things - {0, 1}:
            raise InputError(f"{self._file('val')}: isthing is {max(things - {0, 1}, key=str)!r:.60}; expected 0 or 1")
        if self.given_names not in (None, names):
            raise InputError(f"class_names are not the {len(names)} categories of {self._file('val')}, in their order")
        return categories

    def annotations(self, part: str) -> dict[str, Any]:
        """The content of a part's JSON.

        Raises:
            InputError: it is not there, or not of the format.
        """
        path = self._file(part)
        if not path.is_file():
            raise InputError(f"no annotations {path}; found in {path.parent}: {contents(path.parent)}")
        content = read_json(path, MOST_BYTES)
        wanted = ("images", "annotations", "categories")
        missing = [key for key in wanted if not isinstance(content, dict) or not isinstance(content.get(key), list)]
        if missing:
            raise InputError(f"{path} is not of the COCO panoptic format: it has no {' and no '.join(missing)}")
        return content

    def load(self, parts: Collection[str]) -> dict[str, Split]:
        """Read the asked parts, as `DataModule` says."""
        return {part: self._split("train" if part == "train" else "val") for part in parts}

    def _file(self, part: str) -> Path:
        return self.root / "annotations" / f"panoptic_{part}{self.year}.json"

    def _images(self, part: str) -> Path:
        return self.root / f"{part}{self.year}"

    @contextmanager
    def _reported(self, part: str) -> Iterator[None]:
        """Raise what is not as the format has it as one line that names the file."""
        try:
            yield
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise InputError(
                f"{self._file(part)} is not of the COCO panoptic format: {type(error).__name__} {error}"
            ) from error

    def _split(self, part: str) -> Split:
        content, folder = self.annotations(part), self._file(part).with_suffix("")
        with self._reported(part):
            labels = {category["id"]: label for label, category in enumerate(self.categories)}
            files = {image["id"]: image["file_name"] for image in content["images"]}
            annotations = sorted(content["annotations"], key=lambda annotation: annotation["file_name"])
            things = set(self.things)
            images, masks, segments = [], [], []
            for annotation in annotations:
                name = annotation["file_name"]
                if annotation["image_id"] not in files:
                    raise InputError(f"{self._file(part)} lists no image {annotation['image_id']}, of which {name} is")
                image = files[annotation["image_id"]]
                images.append(below(self._images(part), image, str(self._file(part))))
                masks.append(below(folder, name, str(self._file(part))))
                segments.append([self._segment(part, info, labels, things) for info in annotation["segments_info"]])
            pngs = PanopticPNGs(masks, segments)
        for kind, paths in (("image", images), ("PNG", masks)):
            twice = [path for path, count in Counter(paths).items() if count > 1]
            if twice:
                raise InputError(f"{self._file(part)} has two annotations of the {kind} {twice[0]}")
        require_files(images)
        require_files(masks)
        return Split(ImageFiles(images), {"mask": pngs})

    def _segment(self, part: str, info: dict[str, Any], labels: dict[int, int], things: set[int]) -> Segment:
        if info["category_id"] not in labels:
            raise InputError(f"{self._file(part)}: segment {info['id']} has the unknown category {info['category_id']}")
        label, crowd = labels[info["category_id"]], info.get("iscrowd", 0)
        if type(info["id"]) is not int or not 0 < info["id"] < 256**3 or crowd not in (0, 1):
            raise InputError(
                f"{self._file(part)}: segment {info['id']!r:.60} with iscrowd {crowd!r:.60}; expected a number of 24 "
                "bits, and 0 or 1"
            )
        return Segment(info["id"], label, label in things, bool(crowd))


class ADE20KPanoptic(COCOPanoptic):
    """ADE20K with instances: 100 classes of things and 50 of stuff, in the COCO panoptic format.

    B. Zhou et al., Scene Parsing through ADE20K Dataset, CVPR 2017. ``root`` is ``ADEChallengeData2016`` with the
    images in ``images/{training,validation}`` and the files that Mask2Former's ``prepare_ade20k_pan_seg.py`` writes
    beside them: ``ade20k_panoptic_{train,val}.json`` and the PNGs in the folders of the same names. The arguments are
    those of `COCOPanoptic`; ``year`` is not used in any name.
    """

    def _file(self, part: str) -> Path:
        return self.root / f"ade20k_panoptic_{part}.json"

    def _images(self, part: str) -> Path:
        return self.root / "images" / ("training" if part == "train" else "validation")


class InstanceIds:
    """Cityscapes' ``*_gtFine_instanceIds.png``: the id of the class, times 1000 plus a count where an object is one.

    A class of things without a count is a crowd (cityscapesscripts, ``createPanopticImgs``).

    Args:
        paths: the files.
    """

    CLASSES = {one.id: one for one in datasets.Cityscapes.classes}

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> LabelMap:
        """The labels of one image."""
        path = self.paths[index]
        numbers = decode_labels(path).to(torch.int32)
        segments, void = [], []
        for number in numbers.unique().tolist():
            known = self.CLASSES.get(number if number < 1000 else number // 1000)
            if known is None:
                raise InputError(f"{path} has the instance {number}, which is of no class of Cityscapes")
            if known.ignore_in_eval:
                void.append(number)
            else:
                crowd = known.has_instances and number < 1000
                segments.append(Segment(number, known.train_id, known.has_instances, crowd))
        return to_label_map(path, numbers, segments, void)


class CityscapesPanoptic(SegmentationDataModule):
    """Cityscapes with its instances: 8 classes of things and 11 of stuff, 2,975 / 500 street scenes.

    M. Cordts et al., CVPR 2016. The test data are those of ``val``, as in the literature.

    Args:
        root: holds ``leftImg8bit/{train,val}/<city>/*_leftImg8bit.png`` and
            ``gtFine/{train,val}/<city>/*_gtFine_instanceIds.png``.
        image_size: as in `SegmentationDataModule`.
        box: as in `SegmentationDataModule`; the default is the images' own size.
        kwargs: the other arguments of `SegmentationDataModule`.
    """

    CLASSES = sorted(
        (one for one in datasets.Cityscapes.classes if not one.ignore_in_eval), key=lambda one: one.train_id
    )

    def __init__(
        self,
        root: str,
        image_size: int | tuple[int, int] = (512, 1024),
        box: tuple[int, int] | None = (2048, 1024),
        **kwargs: Any,
    ) -> None:
        super().__init__(image_size, box, **kwargs)
        self.root = Path(root)

    @property
    def class_names(self) -> list[str]:
        """The 19 classes that are evaluated."""
        return [one.name for one in self.CLASSES]

    @property
    def palette(self) -> Palette:
        """The colours of cityscapesscripts."""
        return [one.color for one in self.CLASSES]

    @property
    def things(self) -> list[int]:
        """The labels of persons and vehicles."""
        return [one.train_id for one in self.CLASSES if one.has_instances]

    def load(self, parts: Collection[str]) -> dict[str, Split]:
        """Read the asked parts, as `DataModule` says."""
        return {part: self._split("train" if part == "train" else "val") for part in parts}

    def _split(self, part: str) -> Split:
        images = self.root / "leftImg8bit" / part
        names = matches(images, "*/*_leftImg8bit.png")
        if not names:
            raise InputError(f"no images {images}/<city>/*_leftImg8bit.png; found: {contents(images)}")
        stems = [(path.parent.name, path.name.removesuffix("_leftImg8bit.png")) for path in names]
        masks = [str(self.root / "gtFine" / part / city / f"{stem}_gtFine_instanceIds.png") for city, stem in stems]
        require_files(masks)
        return Split(ImageFiles([str(path) for path in names]), {"mask": InstanceIds(masks)})
