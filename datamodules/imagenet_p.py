"""ImageNet-P: short sequences in which an image is perturbed more and more, or ever anew by noise."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.utils.data import default_collate
from torchvision.transforms import v2

from attention_zoo.domains import PositiveInt
from attention_zoo.errors import InputError, unknown
from datamodules.base import Batch, Collate, EvaluationDataModule
from datamodules.checks import require_different
from datamodules.imagenet import synsets
from datamodules.images import Split, contents, matches

PERTURBATIONS = (
    *("gaussian_noise", "shot_noise", "motion_blur", "zoom_blur", "snow", "brightness"),
    *("translate", "rotate", "tilt", "scale"),
)
"""The perturbations that the benchmark's means are over."""

EXTRA_PERTURBATIONS = ("speckle_noise", "gaussian_blur", "spatter", "shear")

MOST_FRAMES = 1000
"""Of a sequence; those of ImageNet-P have about 30."""


class ImageNetP(EvaluationDataModule):
    """ImageNet-P (D. Hendrycks, T. Dietterich, Benchmarking Neural Network Robustness, ICLR 2019): videos of 224 x 224.

    Batches have ``image`` (F, 3, H, W), the frames of B sequences one after the other, ``frames`` (B,) int64, how many
    each has, and ``perturbation`` (B,) int64, the place in ``perturbations``. Frames are cut, not resized.

    Args:
        root: ``<perturbation>/<synset>/*.mp4``; noises of difficulty 2 and 3 lie in ``<perturbation>_<difficulty>``.
        perturbations: which; None is the ten of the benchmark, beside which there are four extra ones.
        difficulty: 1 to 3: frames that lie so far apart are compared, and noise is stronger. A video must have more
            frames than that.
        kwargs: the arguments of ImageDataModule.

    Raises:
        InputError: an argument is out of range.
    """

    IMAGE_SIZE = 224
    MEAN, STD = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    def __init__(
        self, root: str, perturbations: list[str] | None = None, difficulty: PositiveInt = 1, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.root, self.difficulty = Path(root), difficulty
        self.perturbations = list(PERTURBATIONS if perturbations is None else perturbations)
        require_different("perturbations", self.perturbations)
        for name in self.perturbations:
            if name not in (*PERTURBATIONS, *EXTRA_PERTURBATIONS):
                raise unknown("perturbation", name, (*PERTURBATIONS, *EXTRA_PERTURBATIONS))
        if difficulty > 3:
            raise InputError(f"difficulty={difficulty} must be at most 3")

    @property
    def steps(self) -> list[int | None]:
        """Of each perturbation how far apart the frames lie that are compared; None compares each with the first."""
        return [None if is_noise(name) else self.difficulty for name in self.perturbations]

    @property
    def class_names(self) -> list[str]:
        """The 1000 synsets of ImageNet-1k, sorted."""
        return list(synsets())

    def default_resize(self) -> nn.Module:
        """The middle of each frame; nothing is made up around smaller ones."""
        return v2.CenterCrop(self.image_size)

    def load_test(self) -> Split:
        """Read the test split, as `EvaluationDataModule` says."""
        paths: list[str] = []
        places: list[int] = []
        for place, name in enumerate(self.perturbations):
            folder = self.root / (f"{name}_{self.difficulty}" if is_noise(name) and self.difficulty > 1 else name)
            own = [str(path) for path in matches(folder, "*/*.mp4")]
            if not own:
                raise InputError(f"no sequences in {folder}: expected <synset>/*.mp4; found: {contents(folder)}")
            paths += own
            places += [place] * len(own)
        least_frames = [1 + (self.steps[place] or 1) for place in places]
        return Split(Sequences(paths, min(self.image_size), least_frames), {"perturbation": places})

    def collate(self, part: str) -> "CollateSequences":
        """Return what makes sequences a batch, as `DataModule` says."""
        return CollateSequences(self.mean, self.std)


class CollateSequences(Collate):
    """Sequences to a batch of all their frames; see `ImageNetP`."""

    def __call__(self, samples: list[Batch]) -> Batch:
        """The batch: ``image`` (F, 3, H, W), ``frames`` (B,) and the columns (B,)."""
        images = [sample.pop("image") for sample in samples]
        frames = torch.tensor([len(each) for each in images])
        return {**default_collate(samples), "image": self.normalise(torch.cat(images)), "frames": frames}


class Sequences:
    """Videos, decoded each time they are asked for: (T, 3, H, W) uint8.

    Args:
        paths: the files.
        least: shorter side in pixels that they must have.
        least_frames: of each file how many frames it must have; None is two of each.
    """

    def __init__(self, paths: Sequence[str], least: int = 1, least_frames: Sequence[int] | None = None) -> None:
        self.paths, self.least = paths, least
        self.least_frames = [2] * len(paths) if least_frames is None else least_frames

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        path = self.paths[index]
        capture = cv2.VideoCapture(path)
        try:
            frames: list[np.ndarray] = []
            while (read := capture.read())[0] and len(frames) <= MOST_FRAMES:
                frames.append(read[1][..., ::-1])  # BGR
        except cv2.error as error:
            raise InputError(f"cannot read video {path}: {error.err}") from error
        finally:
            capture.release()
        fewest = self.least_frames[index]
        if not fewest <= len(frames) <= MOST_FRAMES:
            raise InputError(f"{path} has {len(frames)} frames; expected a video of {fewest} to {MOST_FRAMES}")
        height, width = frames[0].shape[:2]
        if min(height, width) < self.least:
            raise InputError(f"{path} has {width} x {height} pixels; expected at least {self.least} on each side")
        return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()


def is_noise(perturbation: str) -> bool:
    """Whether the frames of a perturbation are draws of noise, each of which is compared with the first frame."""
    return perturbation.endswith("noise")
