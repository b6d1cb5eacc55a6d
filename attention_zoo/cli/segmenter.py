"""A trained run of interactive segmentation behind the page of clicks."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor

import tasks
from attention_zoo.analysis.subjects import find_device
from attention_zoo.cli.lightning import load_run
from attention_zoo.clicks import ClickedImage
from attention_zoo.errors import InputError
from attention_zoo.mixers.probabilistic import Probabilistic
from attention_zoo.pages.click import Score
from attention_zoo.pages.pictures import Picture, Pictures, inside
from attention_zoo.runs.folders import find_checkpoint
from attention_zoo.terminal import printable
from datamodules.decoding import decode, decode_greys, image_size
from datamodules.images import list_images
from datamodules.interactive.base import InteractiveDataModule
from datamodules.interactive.crops import Region, Viewing
from datamodules.interactive.objects import read_trimap
from datamodules.interactive.predict import ClickCollate, clicked, cut_out
from datamodules.predictions import mask_names
from tasks.clicks.answers import ClickAnswers
from tasks.clicks.session import iou

MOST_PIXELS, MOST_WHOLE = 1 << 25, 1 << 22
"""The most pixels of a picture: for models that see a view of it, and for those that see all of it as it is."""

MOST_VIEW = 1 << 26
"""The most pixels of the view of a whole picture, which is filled up to the model's shape: a strip's is far larger."""

MOST_ITERATIONS = 100
"""The most iterations of an adaptation, so that no answer holds up the others for long."""

MOST_OPEN = 4
"""The most pictures whose answers are kept."""


class Opened:
    """A picture with what was answered about it.

    Args:
        pixels: (3, H, W) uint8.
        answers: what is asked about it.
    """

    def __init__(self, pixels: Tensor, answers: ClickAnswers) -> None:
        self.pixels, self.answers = pixels, answers
        self.cut = lru_cache(maxsize=8)(partial(self._cut))

    def _cut(self, region: Region, viewing: Viewing) -> Tensor:
        return cut_out(self.pixels, region, viewing)


class RunSegmenter:
    """The model of a run and the pictures to mark, as `attention_zoo.pages.click.Segmenter`.

    Args:
        ckpt_path: checkpoint, or folder of a run.
        images: folder of pictures; None is none.
        masks: folder of their true masks; None is none.
        device: name of the device that the model runs on.
        trust: whether the config in the checkpoint may name any class.

    Raises:
        InputError: the checkpoint is of another task, or there is no such file, folder or device.
    """

    def __init__(self, ckpt_path: str, images: str | None, masks: str | None, *, device: str, trust: bool) -> None:
        if masks is not None and images is None:
            raise InputError("--masks needs --images, the folder of the pictures that they belong to")
        folder = None if images is None else Path(images)
        self.pictures = Pictures(folder, [] if folder is None else inside(folder, list_images(folder)), self.read)
        self.truths = {} if masks is None else self._truths(Path(masks))
        self._opened: OrderedDict[str, Opened] = OrderedDict()
        path = find_checkpoint(ckpt_path, None, trust=trust).path
        where = find_device(device)
        data_class: Any = InteractiveDataModule  # abstract, which mypy takes for a mistake
        named = "interactive segmentation"
        checkpoint, self.task, data = load_run(path, tasks.InteractiveSegmentation, data_class, named, trust=trust)
        self.data: InteractiveDataModule = data
        taken = checkpoint.taken("predict") or {}
        # numbers are computed as predict computes them
        precision: Any = taken.get("trainer", {}).get("precision") or "32-true"
        self.precision = Fabric(accelerator=where.type, devices=1, precision=precision).strategy.precision
        self.precision.convert_module(self.task).to(where).eval()
        self.title = checkpoint.run_folder.name if checkpoint.run_folder else path.stem
        self.viewing = self.data.viewing if self.data.crop == "box" else None
        self.collate = ClickCollate(self.data.collate("test").normalise)
        self._facts = self._described()  # once: while an answer is made, layers have its setting

    def read(self, name: str, content: bytes | None) -> Tensor:
        """Return the pixels (3, H, W) uint8 of a picture.

        Raises:
            InputError: it cannot be read, or has too many pixels for the model.
        """
        height, width = image_size(name, content)
        most = MOST_WHOLE if self.viewing is None else MOST_PIXELS
        if height * width > most:
            raise InputError(f"{printable(name)} has {width} x {height} pixels; at most {most:,} are taken")
        if self.viewing is not None:
            view = self.viewing.around_image((height, width))
            if view.height * view.width > MOST_VIEW:
                said = f"{printable(name)} of {width} x {height} pixels is too long for its width"
                raise InputError(f"{said}: filled up to {view.width} x {view.height}, more than {MOST_VIEW:,} pixels")
        return decode(name, content)

    def facts(self) -> dict[str, Any]:
        """Return what the model can do, as plain values; see `attention_zoo.pages.click.Segmenter.facts`."""
        return self._facts

    def _described(self) -> dict[str, Any]:
        """Return the facts of the model; see `facts`."""
        model = self.task.model
        layers = {place: list(_layers(part)) for place, part in (("backbone", model.backbone), ("head", model.head))}
        built = {
            name: getattr(each[0], name)
            for place, names in (("backbone", KEYS), ("head", (*KEYS, *VALUES)))
            if (each := layers[place])
            for name in names
        }
        return {
            "title": printable(self.title),
            "model": self.task.title,
            "adapts": [place for place, each in layers.items() if each],
            "propagates": any(layer.beta > 0 and layer.components is None for layer in layers["head"]),
            "built": built,
            "settings": [
                {"name": name or "as trained", "setting": one.plain()} for name, one in self.task.settings.items()
            ],
            "threshold": self.task.protocol.threshold,
            "box": self.viewing is not None or model.guidance == "pap",
            "encoder_once": not model.encoder_sees_clicks,
            "truth": bool(self.truths),
        }

    def mask(self, picture: Picture, annotation: ClickedImage) -> Tensor:
        """Return the mask (H, W) bool of one object; see `InteractiveSegmentation.clicked`.

        Raises:
            InputError: the annotation does not fit the picture or the model.
        """
        asked = annotation.setting or {}
        for name in ("key_adaptation", "value_propagation"):
            if isinstance(asked.get(name), int) and asked[name] > MOST_ITERATIONS:
                raise InputError(f"{name}={asked[name]} must be at most {MOST_ITERATIONS} on this page")
        opened = self._open(picture)
        view = self.collate([clicked(opened.pixels, annotation, self.viewing, lambda _, *cut: opened.cut(*cut))])
        view = self.precision.convert_input(self._moved(view))
        with torch.no_grad(), self.precision.forward_context():
            return self.task.clicked(view, opened.answers)

    def score(self, picture: Picture, mask: Tensor) -> Score | None:
        """Return the IoU of a mask with the true one that it covers best; None where the picture has none."""
        scores = []
        for path in self.truths.get(Path(picture.name).stem, ()) if isinstance(picture.source, Path) else ():
            labels = self._labels(path)
            if labels.shape != mask.shape:
                (height, width), (rows, columns) = labels.shape, mask.shape
                raise InputError(
                    f"{printable(Path(path).name)} has {width} x {height} pixels, its picture {columns} x {rows}"
                )
            value = iou(mask[None], (labels == 1)[None], (labels < 0)[None])
            scores.append(Score(float(value), Path(path).stem))
        return max(scores, default=None)

    def read_mask(self, picture: Picture, content: bytes) -> Tensor:
        """Return the mask (H, W) bool in the bytes of a file: brighter than grey, or 1 where 1 is the brightest.

        Raises:
            InputError: it cannot be read, has colours, or is not as large as the picture.
        """
        name = "this mask"
        rows, columns = self.pictures.pixels(picture).shape[1:]
        height, width = image_size(name, content)
        if (height, width) != (rows, columns):
            raise InputError(f"this mask has {width} x {height} pixels, the picture {columns} x {rows}")
        greys = decode_greys(name, content)
        return greys == 1 if greys.max() == 1 else greys > 127

    def files(self, names: Sequence[str]) -> list[Path]:
        """Return the file of each object's mask; see `attention_zoo.pages.click.Segmenter.files`."""
        return mask_names([str(Path.cwd() / name) for name in names])

    def _moved(self, view: dict[str, Any]) -> dict[str, Any]:
        device = self.task.device
        return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in view.items()}

    def _open(self, picture: Picture) -> Opened:
        if picture.id not in self._opened:
            self._opened[picture.id] = Opened(self.pictures.pixels(picture), ClickAnswers(self.task))
        self._opened.move_to_end(picture.id)
        while len(self._opened) > MOST_OPEN:
            self._opened.popitem(last=False)
        return self._opened[picture.id]

    def _truths(self, folder: Path) -> dict[str, list[str]]:
        """Return the files of the masks of each picture, by the stem of its name.

        Raises:
            InputError: there is none.
        """
        pictures = {Path(picture.name).stem for picture in self.pictures.listed()}
        found: dict[str, list[str]] = {}
        for path in inside(folder, list_images(folder)):
            stem = Path(path).stem
            stem = stem if stem in pictures else stem.rpartition("#")[0]
            found.setdefault(stem, []).append(path)
        if not pictures & found.keys():
            raise InputError(f"no mask in {folder} has the name of a picture, such as {sorted(pictures)[0]}.png")
        return found

    @lru_cache(maxsize=16)  # noqa: B019  # there is one segmenter, which lasts as long as its program
    def _labels(self, path: str) -> Tensor:
        return read_trimap(path)


KEYS = ("key_adaptation", "key_prior_precision")
VALUES = ("value_propagation", "value_prior_precision")


def _layers(module: torch.nn.Module) -> Iterator[Probabilistic]:
    return (layer for layer in module.modules() if isinstance(layer, Probabilistic))
