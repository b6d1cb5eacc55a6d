"""The data sets and pipelines of mmsegmentation by their names in its registries."""

import os
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision import tv_tensors

from attention_zoo.errors import InputError, unknown
from attention_zoo.mmseg import build_part, registered, stock_config
from datamodules.images import ImageFiles, Split, below, contents, is_hidden
from datamodules.segmentation.base import SegmentationDataModule
from datamodules.segmentation.masks import IGNORE, IndexMasks, Palette, default_palette, require_files

PARTS = ("train", "val", "test")


class MMSegData(SegmentationDataModule):
    """A data set of mmsegmentation: its files, classes, colours and labels, read by this project's pipeline.

    ``dataset`` is a file of mmsegmentation's ``configs/_base_/datasets``, which says what is read, the size of the
    crops and the box. Among them, with the layouts below ``root``:

    - ``pascal_voc12``: 1,464 / 1,449 images, ``JPEGImages``, ``SegmentationClass``, ``ImageSets/Segmentation/*.txt``;
      ``pascal_voc12_aug``: with the 9,118 further ones of SBD in training, ``SegmentationClassAug`` and ``aug.txt``.
    - ``cityscapes``: ``leftImg8bit/{train,val}/<city>``, ``gtFine/{train,val}/<city>/*_gtFine_labelTrainIds.png``.
    - ``ade20k``: ``images`` and ``annotations``, each with ``training`` and ``validation``; label 0 counts nowhere.

    The test data are mostly those of ``val``, as in the literature.

    Args:
        dataset: the name; None where ``parts`` say all.
        root: folder of the data; None is that of mmsegmentation's config, below ``data``.
        parts: for ``train``, ``val`` and ``test`` a data set of mmsegmentation's registry (``type`` and arguments), in
            place of that of ``dataset``.
        image_size: as in `SegmentationDataModule`; None is the crop size of ``dataset``, else 512.
        box: as in `SegmentationDataModule`; None is the scale in testing of ``dataset``.
        antialias: as in `SegmentationDataModule`; mmsegmentation does not.
        kwargs: the other arguments of `SegmentationDataModule`.

    Raises:
        InputError: mmsegmentation has no such data set, or none is named.
    """

    def __init__(
        self,
        dataset: str | None = None,
        root: str | None = None,
        parts: dict[str, dict[str, Any]] | None = None,
        image_size: int | tuple[int, int] | None = None,
        box: tuple[int, int] | None = None,
        antialias: bool = False,
        **kwargs: Any,
    ) -> None:
        stock = stock_config("_base_/datasets", dataset) if dataset is not None else {}
        self.configs = {part: stock[f"{part}_dataloader"]["dataset"].to_dict() for part in PARTS if stock}
        for part, config in (parts or {}).items():
            if part not in PARTS:
                raise unknown("part", part, PARTS)
            self.configs[part] = config
        if not self.configs:
            raise InputError("name a data set: dataset (such as pascal_voc12, cityscapes or ade20k), or parts")
        resize = [step["scale"] for step in stock.get("test_pipeline", ()) if step["type"] == "Resize"]
        image_size = stock.get("crop_size", 512) if image_size is None else image_size
        box = next(iter(resize), None) if box is None else box
        super().__init__(image_size, box, antialias=antialias, **kwargs)
        if root is not None:
            for leaf in (leaf for config in self.configs.values() for leaf in leaves(config)):
                leaf["data_root"] = root

    @cached_property
    def metainfo(self) -> dict[str, Any]:
        """``classes`` and perhaps ``palette``, as mmsegmentation has them; nothing is read for it."""
        leaf = next(leaf for config in self.configs.values() for leaf in leaves(config))
        return dataset_class(leaf)._load_metainfo(leaf.get("metainfo"))

    @cached_property
    def class_names(self) -> list[str]:
        """The class names of mmsegmentation."""
        if not self.metainfo.get("classes"):
            raise InputError("the data set names no classes: give them in its metainfo")
        return list(self.metainfo["classes"])

    @property
    def palette(self) -> Palette:
        """The colours of mmsegmentation, where it has one for each class."""
        colours = [tuple(colour) for colour in self.metainfo.get("palette", ())]
        return colours if len(colours) == self.num_classes else default_palette(self.num_classes)

    def load(self, parts: Collection[str]) -> dict[str, Split]:
        """Read the asked parts, as `DataModule` says."""
        return {part: self._split(part) for part in parts}

    def _split(self, part: str) -> Split:
        if part not in self.configs:
            raise InputError(f"parts have no {part}; choose from: {', '.join(self.configs)}")
        images: list[str] = []
        masks: list[str] = []
        label_maps = []
        for leaf in leaves(self.configs[part]):
            check_files(leaf)
            infos = list_files(leaf)
            if not infos:
                raise InputError(f"{leaf['type']} finds no images in {leaf.get('data_root')}: {leaf['data_prefix']}")
            images += [info["img_path"] for info in infos]
            masks += [info["seg_map_path"] for info in infos]
            check_places(leaf, infos)
            label_maps.append(self._label_map(leaf, infos[0]))
        if any(one != label_maps[0] for one in label_maps):
            raise InputError(f"the data sets of {part} differ in their labels")
        require_files(images)
        require_files(masks)
        return Split(ImageFiles(images), {"mask": IndexMasks(masks, label_maps[0])})

    def _label_map(self, leaf: dict[str, Any], info: dict[str, Any]) -> dict[int, int]:
        """The class of each label in the files."""
        first = int(info["reduce_zero_label"])
        in_files = len(dataset_class(leaf).METAINFO.get("classes", self.class_names))
        chosen = info["label_map"] or {}
        return dict.fromkeys(range(first), IGNORE) | {
            label + first: chosen.get(label, label) for label in range(in_files)
        }


class MMSegTransforms(nn.Module):
    """Transforms of mmsegmentation and mmcv by name, for ``augment`` of any segmentation data.

    Loading and packing are not theirs here: steps named ``Load...`` and ``Pack...`` are left out, so that a
    ``train_pipeline`` can be given as it is.

    Args:
        pipeline: the steps, each a ``type`` and its arguments.

    Raises:
        InputError: a step is not known, or refuses its arguments.
    """

    def __init__(self, pipeline: list[dict[str, Any]]) -> None:
        super().__init__()
        steps = [step for step in pipeline if not str(step.get("type")).startswith(("Load", "Pack"))]
        self.steps = [build_part("TRANSFORMS", "transform", step) for step in steps]

    def forward(self, image: tv_tensors.Image, maps: tv_tensors.Mask) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
        """A uint8 image (3, H, W) and its class map (1, H, W), transformed together.

        Raises:
            InputError: there is a map of segments as well; most of these transforms would leave it as it is.
        """
        if len(maps) > 1:
            raise InputError("transforms of mmsegmentation move no instances; use those of torchvision.transforms.v2")
        results = {
            "img": np.ascontiguousarray(image.permute(1, 2, 0).numpy()[..., ::-1]),  # BGR, as mmcv reads files
            "img_shape": image.shape[-2:],
            "ori_shape": image.shape[-2:],
            "gt_seg_map": maps[0].as_subclass(Tensor).numpy(),
            "seg_fields": ["gt_seg_map"],
        }
        for step in self.steps:
            results = step(results)
        rgb = np.ascontiguousarray(results["img"][..., ::-1].transpose(2, 0, 1))
        if rgb.dtype != np.uint8:  # a colour transform may leave floats of the same scale
            rgb = rgb.round().clip(0, 255).astype(np.uint8)
        labels = np.ascontiguousarray(results["gt_seg_map"])[None]
        return tv_tensors.Image(torch.from_numpy(rgb)), tv_tensors.Mask(torch.from_numpy(labels))


def leaves(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The data sets in a data set of data sets (``ConcatDataset``, ``RepeatDataset``), each once."""
    inner = config.get("datasets") or ([config["dataset"]] if "dataset" in config else [])
    if not inner:
        yield config
    for one in inner:
        yield from leaves(one)


def dataset_class(leaf: dict[str, Any]) -> Any:
    """The class of a data set of mmsegmentation's registry.

    Raises:
        InputError: there is none of this name, or it is no list of images and masks: others unpickle their files.
    """
    cls = registered("DATASETS", "data set", leaf)
    from mmseg.datasets import BaseSegDataset  # can be imported once `registered` has prepared mmcv

    if not issubclass(cls, BaseSegDataset):
        raise InputError(f"data set {cls.__name__} of mmsegmentation is no list of images and masks")
    return cls


def list_files(leaf: dict[str, Any]) -> list[dict[str, Any]]:
    """List what mmsegmentation's own class says of each image of a data set, without those in hidden folders."""
    dataset_class(leaf)
    read_at_once = {"pipeline": [], "serialize_data": False, "lazy_init": False}
    dataset = build_part("DATASETS", "data set", {**leaf, **read_at_once})
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    folder = Path(leaf.get("data_root") or ".", leaf.get("data_prefix", {}).get("img_path") or ".")
    return [info for info in infos if not is_hidden(os.path.relpath(info["img_path"], folder))]


def check_places(leaf: dict[str, Any], infos: list[dict[str, Any]]) -> None:
    """Check that a split file names nothing outside of the folders of its data set.

    Raises:
        InputError: it does.
    """
    prefixes, root = leaf.get("data_prefix", {}), leaf.get("data_root") or "."
    for key in ("img_path", "seg_map_path"):
        folder = Path(root) / (prefixes.get(key) or ".")
        for info in infos:
            below(folder, os.path.abspath(info[key]), f"{leaf['type']} of {root}")


def check_files(leaf: dict[str, Any]) -> None:
    """Check what a data set is listed from; mmsegmentation's own errors do not name it.

    Raises:
        InputError: there is no split file, or no folder of images.
    """
    root = Path(leaf.get("data_root") or ".")
    split = root / leaf["ann_file"] if leaf.get("ann_file") else None
    if split is not None and not split.exists():
        raise InputError(f"no split file {split}; found in {split.parent}: {contents(split.parent)}")
    for folder in (root / place for place in leaf.get("data_prefix", {}).values() if place is not None):
        if not folder.is_dir():
            raise InputError(f"no folder {folder}; found in {folder.parent}: {contents(folder.parent)}")
