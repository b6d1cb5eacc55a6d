"""Writes the output of ``predict``: a table of classes, or a folder of masks."""

import csv
import io
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image, ImageDraw

from attention_zoo.clicks import ClickedImage
from attention_zoo.errors import InputError, unknown
from attention_zoo.runs.files import replacing, write_text
from attention_zoo.runs.folders import named_path
from attention_zoo.terminal import counted, printable
from datamodules.growing_table import GrowingTable
from datamodules.images import below, decode


class Predictions(ABC):
    """Base of the writers of predictions, one for each kind of data.

    Attributes:
        FORMAT: the value of ``prediction_format`` of the data whose predictions it writes.
        DEFAULT: the path to write to if the user gives none.
        WRITTEN: what it writes of each sample, and what a sample is: ``classes``, ``image``.

    Args:
        path: the file or folder to write; it must not exist.
        data: the data module whose images are predicted on.
        options: options of `PredictionWriter`, by name.
        rank: number of this process.
    """

    FORMAT: ClassVar[str]
    DEFAULT: ClassVar[str]
    WRITTEN: ClassVar[tuple[str, str]]

    def __init__(self, path: Path, data: Any, options: Mapping[str, Any], rank: int = 0) -> None:
        self.path, self.data, self.options, self.rank = path, data, options, rank

    @property
    def kept(self) -> Path:
        """The file or folder of what was added so far."""
        return self.path

    @abstractmethod
    def add(self, index: int, image: str, prediction: Any) -> None:
        """Take the prediction for one image, in the process that made it.

        Args:
            index: place of the image among all, from 0.
            image: path of the image.
            prediction: the item for the image in the output of the task's ``predict_step``.
        """

    @abstractmethod
    def finish(self, trainer: L.Trainer) -> None:
        """Finish the output; this is called once in every process, after the last image."""


class ClassTable(Predictions):
    """Writes a CSV file of the most probable classes of each image, as many as the option ``top_k`` says.

    Until the last image the rows are in an unfinished file, see `GrowingTable`.
    """

    FORMAT, DEFAULT, WRITTEN = "classes", "predictions.csv", ("classes", "image")

    def __init__(self, path: Path, data: Any, options: Mapping[str, Any], rank: int = 0) -> None:
        super().__init__(path, data, options, rank)
        self.top_k = options["top_k"]
        self.table = GrowingTable(path, rank)

    @property
    def kept(self) -> Path:
        """The file of the rows that this process added so far."""
        return self.table.unfinished

    @cached_property
    def names(self) -> list[str]:
        """The names of the classes."""
        return list(self.data.class_names)

    def add(self, index: int, image: str, prediction: torch.Tensor) -> None:
        """Write the ``top_k`` largest of the probabilities (C,) to the unfinished file.

        Raises:
            InputError: a probability is not finite, or the file cannot be written.
        """
        if not prediction.isfinite().all():
            raise InputError(f"{image}: the predicted probabilities are not finite, the model's weights are broken")
        best = prediction.topk(min(self.top_k, len(prediction)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        row = [image, *(cell for label, value in pairs for cell in (self.names[label], f"{value:.6f}"))]
        self.table.add(index, row, class_columns(len(best.values)))

    def finish(self, trainer: L.Trainer) -> None:
        """Make the rows of all processes one table, in the order of the images."""
        if trainer.world_size == 1 and self.table.move():
            return
        self.table.close()
        parts = [list(self.table.rows())]
        if trainer.world_size > 1:
            own, parts = parts[0], [[] for _ in range(trainer.world_size)]
            torch.distributed.all_gather_object(parts, own)
        if trainer.is_global_zero:
            rows = [row for _, row in sorted(chain.from_iterable(parts))]
            columns = class_columns((max(map(len, rows), default=1) - 1) // 2)
            write_csv(self.path, [columns, *rows])
        trainer.strategy.barrier("the table is written")
        self.table.remove()


class MaskFolder(Predictions):
    """Writes a folder of ``masks/``, ``overlays/`` and the legend, ``legend.png`` and ``legend.csv``.

    A mask is a palette PNG of its image's size, at the same place below the folder as the image below its own; its
    numbers are the classes, in their colours. An overlay is the image with the colours laid over it.
    """

    FORMAT, DEFAULT, WRITTEN = "masks", "predictions", ("masks", "image")

    def __init__(self, path: Path, data: Any, options: Mapping[str, Any], rank: int = 0) -> None:
        super().__init__(path, data, options, rank)
        self.opacity = options["opacity"]
        self.colours = np.zeros((256, 3), dtype=np.uint8)
        self.colours[: self.data.num_classes] = self.data.palette
        self.names = png_names(self.data.splits["predict"].columns["path"], Path(self.data.predict_dir))

    def add(self, index: int, image: str, prediction: torch.Tensor) -> None:
        """Write mask and overlay of a label map (H, W) of integers, for an image of that size."""
        photograph = decode(image).permute(1, 2, 0).numpy()
        labels = prediction.cpu().numpy().astype(np.uint8)
        if labels.shape != photograph.shape[:2]:
            raise ValueError(f"the prediction for {image} is {labels.shape}, the image {photograph.shape[:2]}")
        mask = Image.fromarray(labels, mode="P")
        mask.putpalette(self.colours.tobytes())
        save_picture(mask, self.path / "masks" / self.names[image])
        blend = photograph * (1 - self.opacity) + self.colours[labels] * self.opacity
        overlay = Image.fromarray(blend.round().astype(np.uint8))
        save_picture(overlay, self.path / "overlays" / self.names[image])

    def finish(self, trainer: L.Trainer) -> None:
        """Write the legend as picture and table, in the first process only."""
        if not trainer.is_global_zero:
            return
        classes = zip(self.data.class_names, self.data.palette, strict=True)
        rows = [[index, name, *colour] for index, (name, colour) in enumerate(classes)]
        write_csv(self.path / "legend.csv", [["index", "class", "red", "green", "blue"], *rows])
        draw_legend(self.path / "legend.png", self.data.class_names, self.data.palette)


class ObjectMasks(Predictions):
    """Writes a folder of ``masks/`` and ``overlays/`` of the objects that somebody clicked at.

    A mask is a PNG of its image's size, 255 on the object and 0 elsewhere. An overlay is the image with the object
    coloured, its clicks as dots (green on the object, red on the background) and its box. The files are named after
    the image; from its second object on with ``#2``, ``#3`` and so on.
    """

    FORMAT, DEFAULT, WRITTEN = "objects", "predictions", ("masks", "object")
    OBJECT, POSITIVE, NEGATIVE = (255, 160, 0), (0, 200, 0), (230, 0, 0)

    def __init__(self, path: Path, data: Any, options: Mapping[str, Any], rank: int = 0) -> None:
        super().__init__(path, data, options, rank)
        self.opacity = options["opacity"]
        columns = self.data.splits["predict"].columns
        self.annotations = columns["annotation"]
        self.names = mask_names(columns["path"])

    def add(self, index: int, image: str, prediction: torch.Tensor) -> None:
        """Write mask and overlay of a prediction (H, W) that is nonzero on the object."""
        mask = prediction.cpu().numpy().astype(bool)
        save_picture(Image.fromarray(255 * mask.astype(np.uint8)), self.path / "masks" / self.names[index])
        photograph = decode(image).permute(1, 2, 0).numpy()
        share = np.where(mask, self.opacity, 0.0)[..., None]
        blend = photograph * (1 - share) + np.array(self.OBJECT) * share
        overlay = Image.fromarray(blend.round().astype(np.uint8))
        self._mark(ImageDraw.Draw(overlay), self.annotations[index], max(3, max(overlay.size) // 150))
        save_picture(overlay, self.path / "overlays" / self.names[index])

    def _mark(self, draw: ImageDraw.ImageDraw, annotation: ClickedImage, radius: int) -> None:
        if annotation.box is not None:
            rows, columns = sorted(annotation.box[::2]), sorted(annotation.box[1::2])
            draw.rectangle((columns[0], rows[0], columns[1], rows[1]), outline="white", width=max(1, radius // 3))
        for y, x, positive in annotation.clicks:
            colour = self.POSITIVE if positive else self.NEGATIVE
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline="white")

    def finish(self, trainer: L.Trainer) -> None:
        """Do nothing, since all files are written by now."""


class PredictionWriter(Callback):
    """Writes predictions in the format of their data.

    Args:
        path: file or folder to write; it must not exist. None is ``predictions.csv`` for the classes of images and
            ``predictions`` for a folder of masks, overlays and the legend.
        top_k: number of classes of an image in the table, most probable first (all, if there are fewer).
        opacity: opacity of the colours in overlays, 0..1.
    """

    predictions: Predictions

    def __init__(self, path: str | None = None, top_k: int = 5, opacity: float = 0.5) -> None:
        if path is not None:
            named_path("prediction.path", path)
        if top_k < 1:
            raise InputError(f"prediction.top_k={top_k} must be at least 1")
        if not 0 <= opacity <= 1:
            raise InputError(f"prediction.opacity={opacity} must be in [0, 1]")
        self.path, self.options = path, {"top_k": top_k, "opacity": opacity}
        self.added = 0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Choose the format that the data ask for.

        Raises:
            InputError: there is no such format, or the path exists already, or the rest of a prediction to it.
        """
        with_data: Any = trainer
        data = with_data.datamodule
        wanted = getattr(data, "prediction_format", ClassTable.FORMAT)
        formats = {cls.FORMAT: cls for cls in Predictions.__subclasses__()}
        if wanted not in formats:
            raise InputError(f"{type(data).__name__}: {unknown('prediction_format', wanted, formats)}")
        chosen = formats[wanted]
        path = Path(chosen.DEFAULT if self.path is None else self.path)
        if trainer.is_global_zero and path.exists():
            raise InputError(f"{path} exists; choose another with --prediction.path")
        self.predictions, self.added = chosen(path, data, self.options, trainer.global_rank), 0

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Pass each image's prediction to the writer, except those of duplicates that pad a process."""
        for index, image, prediction in zip(batch["index"].tolist(), batch["path"], outputs, strict=True):
            if index >= 0:
                self.predictions.add(index, image, prediction)
                self.added += 1

    def on_predict_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Finish the output in every process, and say what was written."""
        self.predictions.finish(trainer)
        added = torch.tensor(self.added, device=pl_module.device)
        number = int(trainer.strategy.reduce(added, reduce_op="sum"))
        part = "" if number == self._all else ", as trainer.limit_predict_batches says"
        rank_zero_info(f"{printable(self.predictions.path)}: {self._account(number)}{part}")

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Say what was written before the end that came too early."""
        if self.added:
            rank_zero_info(f"cut off: {printable(self.predictions.kept)} has {self._account(self.added)}")

    @property
    def _all(self) -> int:
        """The number of samples to predict on."""
        return len(self.predictions.data.splits["predict"].images)

    def _account(self, number: int) -> str:
        """Return in words what was written of ``number`` of all samples."""
        what, sample = self.predictions.WRITTEN
        part = "" if number == self._all else f"{number:,} of "
        return f"{what} of {part}{counted(self._all, sample)}"


def class_columns(number: int) -> list[str]:
    """Return the header of a table of the ``number`` most probable classes of images."""
    return ["image", *(column for k in range(1, 1 + number) for column in (f"class_{k}", f"probability_{k}"))]


def png_names(images: list[str], folder: Path) -> dict[str, Path]:
    """Return for each image below ``folder`` the path of a PNG relative to it, never out of it, and no two the same.

    The image's suffix is kept in names that differ in nothing else, and in all names if that is not enough.

    Raises:
        InputError: an image is not below ``folder``.
    """
    names = {image: Path(os.path.relpath(below(folder, os.path.abspath(image), image), folder)) for image in images}
    whole = {image: name.with_name(f"{name.name}.png") for image, name in names.items()}
    stems = Counter(name.with_suffix("") for name in names.values())
    short = {
        image: name.with_suffix(".png") if stems[name.with_suffix("")] == 1 else whole[image]
        for image, name in names.items()
    }
    return short if len(set(short.values())) == len(short) else whole


def mask_names(paths: list[str]) -> list[Path]:
    """Return the path of a PNG for each object, by the path of its image, relative to the folder that all are in."""
    folder = Path(os.path.commonpath([str(Path(path).parent) for path in paths]))
    return object_names(paths, png_names(sorted(set(paths)), folder))


def object_names(paths: list[str], png: dict[str, Path]) -> list[Path]:
    """Return the path of a PNG for each object: that of its image, with ``#2``, ``#3`` ... from its second object on.

    Raises:
        InputError: two objects would get the same path, as another image has such a name.
    """
    seen: Counter[str] = Counter()
    names: dict[Path, str] = {}
    for path in paths:
        seen[path] += 1
        name = png[path] if seen[path] == 1 else png[path].with_stem(f"{png[path].stem}#{seen[path]}")
        if name in names:
            raise InputError(f"objects of {names[name]} and of {path} would both become {name}; rename an image")
        names[name] = path
    return list(names)


def write_csv(path: Path, rows: list[list[Any]]) -> None:
    """Write a table as CSV, whole or not at all; names of files keep their bytes, UTF-8 or not."""
    table = io.StringIO()
    csv.writer(table).writerows(rows)
    write_text(path, table.getvalue())


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write an image whole or not at all; a link in its place is not followed."""
    with replacing(path) as temporary:
        picture.save(temporary)


def draw_legend(path: Path, names: list[str], palette: list[tuple[int, int, int]], rows: int = 25) -> None:
    """Write a PNG of the classes' colours and names, in columns of ``rows`` classes."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure()
    patches = [
        Patch(facecolor=(red / 255, green / 255, blue / 255), edgecolor="grey", label=name)
        for name, (red, green, blue) in zip(names, palette, strict=True)
    ]
    figure.legend(handles=patches, ncols=-(-len(names) // rows), loc="center", frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, bbox_inches="tight")
