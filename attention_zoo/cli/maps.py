"""``python -m attention_zoo maps``: attention maps of several mixers or checkpoints side by side."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from attention_zoo.errors import InputError
from attention_zoo.mixers.base import MixerFactory
from attention_zoo.runs.files import replacing
from attention_zoo.runs.folders import free_file
from attention_zoo.terminal import counted, printable

if TYPE_CHECKING:  # drawing and training libraries take seconds to import, which other commands need not wait for
    import torch
    from torch import Tensor

    from attention_zoo.analysis import LayerInput, Pictures, Subject
    from attention_zoo.analysis.top_down import Look, Norms
    from attention_zoo.models.top_down import Mode
    from datamodules.base import ImageDataModule

SUFFIXES = (".png", ".pdf", ".svg")
"""Suffixes of the files that can be written."""

MODEL = "vit_tiny_patch16_224"
"""The timm model that mixers are put into if no model is named."""


def maps(
    images: list[str],
    *,
    ckpt_path: list[str] | None = None,
    mixers: list[MixerFactory] | None = None,
    model: str | None = None,
    pretrained: bool = False,
    layer: str | None = None,
    query: str = "mean",
    heads: Literal["mean", "each"] = "mean",
    steps: bool = False,
    atoms: int | None = None,
    assignments: bool = False,
    prior: list[str] | None = None,
    alpha: list[float] | None = None,
    modes: list[Literal["absvit", "feedback", "perceiver_io", "mask_att", "qkv"]] | None = None,
    norms: Literal["cut", "plain"] | None = None,
    corruption: list[str] | None = None,
    severity: int = 3,
    out: str = "maps.png",
    overwrite: bool = False,
    device: str = "cpu",
    trust_checkpoint: bool = False,
) -> None:
    """Draw attention maps of several mixers or checkpoints side by side.

    A row for each image and corruption, a column for each model. Every map has a scale of its own: from its least
    entry to its largest, or from zero where entries are negative, and these are blue.

    With --prior, the two passes of a model with top-down attention: the norms of its tokens bottom-up, how much each
    token is what the prior asks for, and the norms top-down; a row for each prior.

    A checkpoint sees images as in its evaluation (so a square one squeezes or crops them), and its prediction is said
    below. A model that is built here keeps the aspect of the image: its shorter side is the model's own.

    Args:
        images: image files; they come before the options.
        ckpt_path: checkpoints of image classification, one or several; or runs, or last or best of the newest.
        mixers: instead of checkpoints, mixers for the same model, one or several.
        model: timm model for the mixers (default vit_tiny_patch16_224); without mixers it keeps its own attention.
        pretrained: start from timm's released weights; what a mixer has beside those is random.
        layer: 3, 0-3, last or last-4, counted in the model's order (default last; with --prior one layer, the one
            before the last three, as in the released demonstration of AbSViT, or the last of six or fewer).
        query: whose reading is drawn: mean over all tokens, cls, or a token of the grid as ROW,COLUMN from 0.
        heads: their mean, or a column for each.
        steps: draw every step of a recurrent reading (VarsD, VarsS, VarsSD).
        atoms: draw so many atoms of the dictionary of those, the ones that the values have most energy along.
        assignments: draw which cluster each token belongs to (KMeans, Cluster).
        prior: what to look for, one or several classes, by name, WordNet number or place from 0; or learned, the
            model's own query. Prototypes of classes share the space of the tokens where these are averaged, not where
            a class token is read.
        alpha: with --prior, scales of what is sent back, one or several (default the model's own).
        modes: with --prior, what the second pass hears, one or several (default the model's own); feedback hears no
            prior, and the weights are those of the mode that the model was trained in.
        norms: with --prior, cut (default) draws what norms have above 0.7 max + 0.3 min, as the demonstration does;
            plain draws the norms themselves.
        corruption: also show images corrupted as in ImageNet-C, with its parameters for their size: gaussian_noise,
            shot_noise, impulse_noise, defocus_blur, glass_blur, motion_blur, zoom_blur, snow, frost, fog, brightness,
            contrast, elastic_transform, pixelate, jpeg_compression; speckle_noise, gaussian_blur, spatter, saturate.
        severity: of the corruptions, 1 to 5.
        out: file to write, .png, .pdf or .svg.
        overwrite: whether ``out`` may exist.
        device: where the models run, e.g. cuda.
        trust_checkpoint: whether the configs in the checkpoints may name any class, and run its code.
    """
    from attention_zoo.analysis import side_by_side
    from attention_zoo.analysis.subjects import find_device
    from attention_zoo.analysis.top_down import top_down_sheet
    from datamodules.corruptions import corruptions_at

    path = Path(out)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{out} must end in one of: {', '.join(SUFFIXES)}")
    free_file(path, overwrite)
    look = _look(prior, alpha, modes, layer, norms)
    if look and (steps or assignments or atoms is not None or query != "mean" or heads != "mean"):
        raise InputError("--prior draws norms of tokens: leave out --steps, --atoms, --assignments, --query, --heads")
    read = _reading(query, heads, steps, atoms, assignments)
    corruptions = corruptions_at(corruption or (), severity)
    shown = _images(images)
    subjects = _subjects(ckpt_path, mixers, model, pretrained, find_device(device), trust_checkpoint)
    if look:
        figure = top_down_sheet(subjects, shown, look, corruptions)
    else:
        figure = side_by_side(subjects, shown, read, layers=layer or "last", corruptions=corruptions)
    with replacing(path) as file:
        figure.savefig(file, format=path.suffix.lower()[1:])
    facts = [f"{counted(len(subjects), 'model')} on {counted(len(shown), 'image')}"]
    facts += [f"norms of tokens{', cut at 0.7 max + 0.3 min' if look.norms == 'cut' else ''}"] if look else []
    facts += [] if ckpt_path or pretrained else ["of random weights; see --ckpt_path and --pretrained"]
    sys.stdout.write(f"{printable(path)}: {'; '.join(facts)}\n")


def _reading(
    query: str, heads: Literal["mean", "each"], steps: bool, atoms: int | None, assignments: bool
) -> "Callable[[LayerInput], Pictures]":
    """Return the function that makes the pictures of a layer.

    Raises:
        InputError: more than one kind of picture is asked for.
    """
    from attention_zoo.analysis import atom_pictures, attention_pictures, cluster_pictures, step_pictures

    if steps + assignments + (atoms is not None) > 1:
        raise InputError("give one of --steps, --atoms and --assignments")
    if atoms is not None:
        return partial(atom_pictures, count=atoms)
    if assignments:
        return cluster_pictures
    return partial(step_pictures if steps else attention_pictures, query=query, heads=heads)


def _look(
    prior: list[str] | None,
    alpha: list[float] | None,
    modes: "list[Mode] | None",
    layer: str | None,
    norms: "Norms | None",
) -> "Look | None":
    """Return what a figure of the two passes shows; None if there is no prior.

    Raises:
        InputError: what belongs to a prior is given without one.
    """
    from attention_zoo.analysis.top_down import Look

    extra = {"--alpha": alpha, "--modes": modes, "--norms": norms}
    if prior is None:
        wrong = [name for name, value in extra.items() if value is not None]
        if wrong:
            raise InputError(f"{wrong[0]} needs --prior, what the second pass looks for: a class, or learned")
        return None
    priors, alphas, chosen = dict.fromkeys(prior), dict.fromkeys(alpha or ()), dict.fromkeys(modes or ())
    return Look(list(priors), list(alphas), list(chosen), layer, norms or "cut")


def _images(paths: list[str]) -> "dict[str, Tensor]":
    """Return the images by names, see `names_of`."""
    from datamodules.images import decode

    if not paths:
        raise InputError("no image given: python -m attention_zoo maps IMAGE [IMAGE ...] [options]")
    return {name: decode(path) for name, path in names_of(paths).items()}


def names_of(paths: list[str]) -> dict[str, str]:
    """Return the paths of files by their names without suffixes, or by the paths where files share a name."""
    stems = [Path(path).stem for path in paths]
    names = [stem if stems.count(stem) == 1 else path for stem, path in zip(stems, paths, strict=True)]
    return {printable(name): path for name, path in zip(names, paths, strict=True)}


def _subjects(
    ckpt_path: list[str] | None,
    mixers: list[MixerFactory] | None,
    model: str | None,
    pretrained: bool,
    device: "torch.device",
    trust: bool,
) -> "list[Subject]":
    """Return the models to look at: those of the checkpoints, or one for each mixer.

    Raises:
        InputError: checkpoints and mixers or a model are given together, or nothing is.
    """
    if ckpt_path and (mixers or model is not None or pretrained):
        raise InputError("give --ckpt_path, or --mixers and --model; a checkpoint has a model and a mixer")
    if not (ckpt_path or mixers or model is not None):
        raise InputError("nothing to look at: give --ckpt_path, --mixers or --model")
    if ckpt_path:
        return [trained(wanted, device, trust)[0] for wanted in ckpt_path]
    from attention_zoo.analysis.subjects import subject_of

    chosen: list[MixerFactory | None] = [*mixers] if mixers else [None]
    return [subject_of(MODEL if model is None else model, mixer, pretrained, device) for mixer in chosen]


def trained(wanted: str, device: "torch.device", trust: bool) -> "tuple[Subject, ImageDataModule]":
    """Return the model of a checkpoint, which sees images as in its evaluation, and its data.

    ``wanted`` is a file, a run, or one of the keywords of `find_checkpoint`.
    """
    from attention_zoo.analysis import Subject
    from attention_zoo.cli.lightning import load_classification
    from attention_zoo.runs.folders import find_checkpoint

    path = find_checkpoint(wanted, None, trust=trust).path
    checkpoint, task, data = load_classification(path, trust=trust)
    model = task.model.to(device)
    folder = checkpoint.run_folder
    subject = Subject(
        model=lambda size: model,
        prepare=data.default_resize(),
        mean=data.mean,
        std=data.std,
        class_names=data.class_names,
        name=folder.name if folder else path.stem,
    )
    return subject, data
