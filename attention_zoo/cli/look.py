"""``python -m attention_zoo look``: a page at which attention is looked at, patch by patch."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from attention_zoo.cli.click import Port
from attention_zoo.cli.maps import MODEL
from attention_zoo.errors import InputError
from attention_zoo.mixers.base import MixerFactory
from attention_zoo.terminal import printable, waiting

if TYPE_CHECKING:  # training libraries take seconds to import, which other commands need not wait for
    import torch
    from torch import Tensor

    from attention_zoo.analysis.side_by_side import ImageFunction, Subject
    from datamodules.loading import DataModule

FIRST = 24
"""The number of validation images of a checkpoint's data that the page begins with."""

MOST_PIXELS = 50_000_000
"""Pixels of an image that is dropped on the page."""


def look(
    *,
    ckpt_path: list[str] | None = None,
    mixers: list[MixerFactory] | None = None,
    model: str | None = None,
    pretrained: bool = False,
    images: list[str] | None = None,
    host: str = "127.0.0.1",
    port: Port = 8000,
    device: str = "cpu",
    trust_checkpoint: bool = False,
) -> None:
    """Look at attention in a browser: what a patch reads, who reads it, rollout, norms, steps, atoms, clusters.

    Opens a page on this machine and prints its address. Several models stand side by side; hovering or clicking a patch
    shows its attention in each. After the README's first run: python -m attention_zoo look --ckpt_path last

    Args:
        ckpt_path: checkpoints or runs of any task, one or several; last is the newest run.
        mixers: instead of checkpoints, mixers for the same model, one or several.
        model: timm model for the mixers (default vit_tiny_patch16_224); without mixers it keeps its own attention.
        pretrained: start from timm's released weights; what a mixer has beside those is random.
        images: image files, or folders of them (default: validation images of the first checkpoint's data, or
            photographs that come with scikit-image and scikit-learn). More can be dropped on the page.
        host: the address to listen on; one that other machines reach makes the page ask for a token.
        port: the port to listen on; 0 is any that is free.
        device: where the models run, e.g. cuda.
        trust_checkpoint: whether the configs in the checkpoints may name any class, and run its code.
    """
    try:
        from attention_zoo.pages.attention import AttentionPage
        from attention_zoo.pages.server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn"):
            raise
        raise InputError("pages need further packages: pip install 'attention_zoo[pages]'") from error
    from attention_zoo.analysis.subjects import find_device
    from attention_zoo.pages.gallery import Gallery, Shown
    from datamodules.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS

    if ckpt_path and (mixers or model is not None or pretrained):
        raise InputError("give --ckpt_path, or --mixers and --model; a checkpoint has a model and a mixer")
    if not (ckpt_path or mixers or model is not None):
        raise InputError("nothing to look at: give --ckpt_path (last is the newest run), --mixers or --model")
    files = _files(images) if images else {}
    place = find_device(device)
    note = "" if ckpt_path else f"{model or MODEL}, of timm's released weights."
    if not (ckpt_path or pretrained):
        note = f"{model or MODEL}. The weights are random: see --ckpt_path and --pretrained."
    data: DataModule | None = None
    with waiting("opening the models and the images"):
        if ckpt_path:
            opened = [of_run(wanted, place, trust_checkpoint) for wanted in ckpt_path]
            subjects, data = [subject for subject, _ in opened], opened[0][1]
        else:
            subjects = _built(mixers, model or MODEL, pretrained, place)
        gallery = Gallery(_named(subjects), files or (data and _of_data(data)) or _photographs(), _corrupt)
        first = next(iter(gallery.images))
        for number in range(len(subjects)):  # what cannot be looked at is said here, and the page opens at once
            gallery.view(number, Shown(first))
    serve(AttentionPage(gallery, [*CORRUPTIONS, *EXTRA_CORRUPTIONS], _decode, printable(note)), host, port)


def of_run(wanted: str, device: "torch.device", trust: bool) -> "tuple[Subject, DataModule]":
    """Return the model of a checkpoint of any task, which sees images as in its evaluation, and its data.

    Args:
        wanted: the checkpoint or run, see `find_checkpoint`.
        device: the device it runs on.
        trust: whether its config may name any class.

    Raises:
        InputError: it is no checkpoint of this project.
    """
    from lightning import LightningDataModule

    import tasks
    from attention_zoo.analysis.side_by_side import Subject
    from attention_zoo.analysis.subjects import Unclicked
    from attention_zoo.cli.lightning import load_run
    from attention_zoo.models.interactive import InteractiveModel
    from attention_zoo.runs.folders import find_checkpoint
    from datamodules.base import ImageDataModule
    from datamodules.loading import DataModule

    path = find_checkpoint(wanted, None, trust=trust).path
    checkpoint, task, data = load_run(path, tasks.Task, LightningDataModule, "a task of this project", trust=trust)
    if not isinstance(data, DataModule):
        raise InputError(f"{path} is of {type(task).__name__} on {type(data).__name__}, not on data of this project")
    model = task.model.to(device).eval()
    model = Unclicked(model) if isinstance(model, InteractiveModel) else model
    folder = checkpoint.run_folder
    names = data.class_names if isinstance(task, tasks.Classification) and isinstance(data, ImageDataModule) else None
    subject = Subject(
        model=lambda size: model,
        prepare=_prepare(data),
        mean=data.mean,
        std=data.std,
        class_names=names,
        name=folder.name if folder else path.stem,
    )
    return subject, data


def _prepare(data: "DataModule") -> "ImageFunction":
    """Return the function that brings a whole image to the size that it has in an evaluation on ``data``."""
    from torchvision.transforms import v2

    from datamodules.base import ImageDataModule
    from datamodules.interactive.base import InteractiveDataModule
    from datamodules.segmentation.base import SegmentationDataModule
    from datamodules.segmentation.transforms import fit

    if isinstance(data, ImageDataModule):
        return data.default_resize()
    if isinstance(data, SegmentationDataModule):
        return lambda image: v2.functional.resize(image, list(fit((image.shape[1], image.shape[2]), data.box)))
    if isinstance(data, InteractiveDataModule):
        return v2.Resize(data.image_size, antialias=True)
    raise InputError(f"{type(data).__name__} does not say how an evaluation resizes its images")


def _built(mixers: list[MixerFactory] | None, model: str, pretrained: bool, device: "torch.device") -> "list[Subject]":
    """Return a timm model with each of the mixers, by their names, or as it is."""
    from attention_zoo.analysis.maps import with_mixers
    from attention_zoo.analysis.subjects import subject_of
    from attention_zoo.mixers.registry import as_factory

    chosen: list[tuple[str, MixerFactory | None]] = [(as_factory(mixer).name, mixer) for mixer in mixers or ()]
    chosen = chosen or [(model, None)]
    subjects = [replace(subject_of(model, mixer, pretrained, device), name=name) for name, mixer in chosen]
    # a copy whose attention are mixers is made once for each size of images
    return [
        replace(subject, model=lru_cache(maxsize=4)(lambda size, subject=subject: with_mixers(subject.model(size))))
        for subject in subjects
    ]


def _named(subjects: "Sequence[Subject]") -> "dict[str, Subject]":
    """Return the models by their names, with numbers where several share one."""
    names = [printable(subject.name) for subject in subjects]
    own = [name if names.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(names, 1)]
    return dict(zip(own, subjects, strict=True))


def _files(paths: list[str]) -> "dict[str, Callable[[], Tensor]]":
    """Return functions that read image files, by their paths as they are written, or below their folder.

    Where two folders have files of one name, those of the later one have the path with the folder.
    """
    from attention_zoo.pages.pictures import read_file
    from datamodules.images import decode

    found: dict[str, Callable[[], Tensor]] = {}
    for name, path in _listed(paths):
        shown = printable(path if printable(name) in found else name)
        found[shown] = partial(read_file, decode, path, shown)
    return found


def _listed(paths: list[str]) -> Iterator[tuple[str, str]]:
    from attention_zoo.pages.pictures import inside
    from datamodules.images import image_size, list_images

    for path in paths:
        if Path(path).is_dir():
            yield from (
                (str(Path(file).relative_to(path)), file) for file in inside(Path(path), list_images(Path(path)))
            )
        else:
            image_size(path)  # what cannot be read is known before the page is opened
            yield path, path


def _of_data(data: "DataModule") -> "dict[str, Callable[[], Tensor]] | None":
    """Return functions that read the first validation images of ``data``; None where these are not there."""
    for part in ("val", "test"):
        try:
            found = data.load((part,))[part].images
        except InputError:  # the data are elsewhere, or have no such part
            continue
        return {f"{part} {place}": partial(found.__getitem__, place) for place in range(min(FIRST, len(found)))}
    return None


def _photographs() -> "dict[str, Callable[[], Tensor]]":
    """Return functions that read the photographs that come inside scikit-image and scikit-learn."""
    import numpy as np
    import torch
    from skimage import data
    from sklearn.datasets import load_sample_image

    def read(load: Callable[[], object]) -> torch.Tensor:
        return torch.from_numpy(np.array(load())).permute(2, 0, 1).contiguous()

    loads = {"cat": data.chelsea, "coffee": data.coffee, "astronaut": data.astronaut}
    loads |= {name: partial(load_sample_image, f"{name}.jpg") for name in ("china", "flower")}
    return {name: partial(read, load) for name, load in loads.items()}


def _corrupt(name: str, severity: int) -> "ImageFunction":
    """Return the function that corrupts an image, always alike.

    Raises:
        InputError: there is no such corruption or severity.
    """
    from datamodules.corruptions import corruptions_at

    (found,) = corruptions_at([name], severity).values()
    return found


def _decode(name: str, content: bytes) -> "Tensor":
    """Return an image (3, H, W) uint8 that was dropped on the page.

    Raises:
        InputError: it is none, or has too many pixels.
    """
    from datamodules.images import decode, image_size

    height, width = image_size(name, content)
    if height * width > MOST_PIXELS:
        raise InputError(f"{name} has {width} x {height} pixels, more than the {MOST_PIXELS:,} that are taken here")
    return decode(name, content)
