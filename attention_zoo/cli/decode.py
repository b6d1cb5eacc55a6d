"""``python -m attention_zoo decode``: images decoded from what goes up and what comes down in a model."""

import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from attention_zoo.domains import PositiveInt
from attention_zoo.errors import InputError
from attention_zoo.runs.files import replacing, write_json
from attention_zoo.runs.folders import free_folder, named_path
from attention_zoo.terminal import printable, tracked

if TYPE_CHECKING:
    from torch import Tensor

    from attention_zoo.analysis.decoded import Decoded, Mask
    from attention_zoo.analysis.side_by_side import ImageFunction
    from datamodules.base import ImageDataModule

VOID = 255
"""Of masks that have other numbers beside it: the rims of objects, which count nowhere."""


def decode(
    images: list[str],
    *,
    ckpt_path: str,
    prior: list[str] | None = None,
    alpha: float | None = None,
    masks: str | None = None,
    data: str | None = None,
    ridge: float = 1e-4,
    rows: PositiveInt = 6,
    out: str = "decode",
    overwrite: bool = False,
    device: str = "cpu",
    trust_checkpoint: bool = False,
) -> None:
    """Decode images from the bottom-up and the top-down signal of a model's first layer.

    A linear decoder from the input of the first layer to pixels is fitted by least squares, in one pass over the
    training images of the run. It then decodes that input, what is fed back to the first layer under a prior (the
    output of that layer's decoder: the report does not say where it reads it), and their sum. Writes decode.png and
    decode.json, with signal-to-noise ratios in dB; with masks, those on the object, beside it, and the difference.

    Args:
        images: image files; they come before the options. None is the first validation images of the run.
        ckpt_path: checkpoint, or folder of a run, of image classification with a top-down pass.
        prior: what to look for, one or several classes, by name, WordNet number or place from 0; or learned, the
            model's own query (default).
        alpha: scale of what is sent back (default the model's own).
        masks: folder of masks of the images, of the same names: 0 beside the object. Where there are several numbers
            above 0, 255 counts nowhere.
        data: folder of images, searched recursively, to fit on in place of the run's training images.
        ridge: how much long weights cost, relative to the average variance of the tokens.
        rows: most images to draw; all are measured.
        out: folder to write to.
        overwrite: whether ``out`` may hold something already.
        device: where the model runs, e.g. cuda.
        trust_checkpoint: whether the config in the checkpoint may name any class, and run its code.
    """
    from attention_zoo.analysis.decoded import Averages, decode_image, decoded_sheet
    from attention_zoo.analysis.decoder import fit_decoder, require_feedback
    from attention_zoo.analysis.priors import LEARNED, prior_of
    from attention_zoo.analysis.subjects import find_device
    from attention_zoo.cli.maps import trained

    folder = free_folder(named_path("out", out), overwrite)
    subject, module = trained(ckpt_path, find_device(device), trust_checkpoint)
    model = require_feedback(subject.model(module.image_size))
    priors = list(dict.fromkeys(prior or [LEARNED]))
    for word in priors:
        prior_of(model, word, subject.class_names)
    shown = Shown(images, module, masks, rows)
    where = next(model.parameters()).device
    count, batches = training_batches(module, data)
    normalised = (batch.to(where) for batch in tracked(batches, "fitting", total=count))
    decoder = fit_decoder(model, normalised, ridge, mean=module.mean, std=module.std)
    drawn: dict[str, Decoded] = {}
    averages = Averages()
    for name in tracked(shown.names, "decoding"):
        image, mask = shown.read(name)
        decoded = decode_image(subject, decoder, image, priors, alpha, mask)
        averages.add(decoded.ratios)
        drawn |= {name: decoded} if len(drawn) < rows else {}
    with replacing(folder / "decode.png") as file:
        decoded_sheet(drawn).savefig(file, format="png")
    facts = {"checkpoint": ckpt_path, "alpha": model.alpha if alpha is None else alpha}
    fit = {"fitted_on": decoder.images, "fit_psnr": decoder.psnr, "ridge": ridge}
    write_json(folder / "decode.json", {**facts, **fit, "signals": averages.record()})
    for kind, each in averages.record().items():
        figures = ", ".join(f"{name} {entry['psnr']:.2f} dB" for name, entry in each.items())
        sys.stdout.write(f"{printable(kind)}: {figures}\n")
    sys.stdout.write(f"written to {printable(folder)}\n")


def training_batches(module: "ImageDataModule", folder: str | None) -> "tuple[int, Iterator[Tensor]]":
    """Return the number of batches of the training images, or of those in a folder, and the batches, not augmented.

    Raises:
        InputError: there are none.
    """
    from torch.utils.data import DataLoader

    from datamodules.base import ImageDataset
    from datamodules.images import ImageFiles, Split, list_images

    split = Split(ImageFiles(list_images(Path(folder))), {}) if folder else module.load(("train",))["train"]
    dataset = ImageDataset(split, module.image_size, module.default_resize())
    collate = module.collate("test")
    loader = DataLoader(dataset, module.batch_size, num_workers=module.num_workers, collate_fn=collate)
    return len(loader), (batch["image"] for batch in loader)


class Shown:
    """The images that are decoded, as the model sees them, and their masks.

    Args:
        files: image files; none is the first validation images.
        module: the data of the run.
        masks: folder of masks.
        count: how many of the validation images.

    Raises:
        InputError: masks are given without images, or an image has none.
    """

    def __init__(self, files: list[str], module: "ImageDataModule", masks: str | None, count: int) -> None:
        from attention_zoo.cli.maps import names_of
        from datamodules.images import image_size

        self.prepare = module.default_resize()
        self.files = names_of(files)
        self.masks: Mapping[str, Path] = {}
        if files:
            self.names = list(self.files)
            for file in files:  # what cannot be read is known before the decoder is fitted
                image_size(file)
            self.masks = {name: mask_of(file, Path(masks)) for name, file in self.files.items()} if masks else {}
            return
        if masks:
            raise InputError(
                "--masks needs images: python -m attention_zoo decode IMAGE [IMAGE ...] --masks FOLDER ..."
            )
        self.split = module.load(("val",))["val"].images
        self.names = [f"image {place}" for place in islice(range(len(self.split)), count)]

    def read(self, name: str) -> "tuple[Tensor, Mask | None]":
        """Return an image (3, H, W) uint8, and its mask if there are masks."""
        from datamodules.images import decode

        if name not in self.files:
            return self.prepare(self.split[self.names.index(name)]), None
        image = decode(self.files[name])
        mask = self.masks.get(name)
        return self.prepare(image), read_mask(mask, image, self.prepare) if mask else None


def mask_of(image: str, folder: Path) -> Path:
    """Return the file in a folder that has the name of an image, whatever the suffix.

    Raises:
        InputError: there is none, or there are several.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {folder}: --masks is a folder of masks with the names of the images")
    found = sorted(path for path in folder.iterdir() if path.stem == Path(image).stem and path.is_file())
    if len(found) != 1:
        many = f"{found[0]} and {found[1]} both have its name" if found else f"expected {folder / Path(image).stem}.png"
        raise InputError(f"no mask of {image}: {many}")
    return found[0]


def read_mask(path: Path, image: "Tensor", prepare: "ImageFunction") -> "Mask":
    """Return the mask in a file, prepared as its image (3, H, W) is.

    Raises:
        InputError: it cannot be read, or is not as large as the image.
    """
    from attention_zoo.analysis.decoded import Mask
    from datamodules.images import decode_labels

    labels = decode_labels(str(path))
    if labels.shape != image.shape[1:]:
        (height, width), (rows, columns) = labels.shape, image.shape[1:]
        raise InputError(f"{path} has {width} x {height} pixels, its image {columns} x {rows}")
    rims = (labels == VOID) & bool(((labels != 0) & (labels != VOID)).any())

    def prepared(where: "Tensor") -> "Tensor":
        """Return where the pixels are after the same transform; any but of geometry would make no mask."""
        return prepare(255 * where.byte().expand(3, -1, -1))[0] > 127

    return Mask(prepared((labels != 0) & ~rims), prepared(labels == 0))
