"""Where people looked: MIT1003 and OSIE, to test attention that never learned it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from attention_zoo.domains import PositiveFloat, PositiveInt
from attention_zoo.errors import InputError
from attention_zoo.runs.files import read_json
from datamodules.attention_targets import TargetDataModule, require_size
from datamodules.base import Collate
from datamodules.decoding import image_size
from datamodules.images import ImageFiles, Split, below, contents, decode, is_image, one_a_name

SEEN = 127
"""Fixated pixels of MIT1003 are brighter; the maps are JPEGs, so that no other pixel is quite black."""

Name = TypeVar("Name")

MOST_BYTES = 1 << 26
"""Of a file of fixations; OSIE's has 2 MB."""


class GazeDataModule(TargetDataModule):
    """Base of data on where people looked.

    Batches have lists of B tensors of the stimuli's own sizes: ``fixations`` (h, w) bool, the fixated pixels, and
    ``density`` (h, w) float32, how often people looked at each pixel and around it, which sums to 1.

    Images are squeezed to ``image_size``, so that the whole stimulus is seen.

    Args:
        root: the folder.
        images: test only so many images, evenly spread over all; None or more than there are is all.
        kwargs: the arguments of TargetDataModule.

    Raises:
        InputError: an argument is out of range.
    """

    def __init__(self, root: str, images: PositiveInt | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root, self.images = Path(root), images

    def chosen(self, names: Sequence[Name]) -> list[Name]:
        """Return those of the images that are tested, in their order."""
        count = min(self.images or len(names), len(names))
        return [names[place * len(names) // count] for place in range(count)]

    def collate(self, part: str) -> Collate:
        """Gaze stays a list, since the stimuli have sizes of their own."""
        return Collate(self.mean, self.std, ragged=("fixations", "density"))


class MIT1003(GazeDataModule):
    """Eye fixations of 15 people on 1,003 images (T. Judd et al., Learning to Predict Where Humans Look, ICCV 2009).

    ``ALLSTIMULI/<id>.jpeg``, ``ALLFIXATIONMAPS/<id>_fixPts.jpg`` and ``ALLFIXATIONMAPS/<id>_fixMap.jpg``, which the
    authors blurred. Batches as `GazeDataModule` says. The report EECS-2024-49 (Table 1.5) does not say how images are
    prepared.

    Args:
        root: the folder.
        kwargs: the arguments of GazeDataModule.

    Raises:
        InputError: an argument is out of range.
    """

    def load_test(self) -> Split:
        """Read the test split, as `EvaluationDataModule` says."""
        folder = self.root / "ALLSTIMULI"
        if not folder.is_dir():
            raise InputError(
                f"no folder {folder}: expected ALLSTIMULI and ALLFIXATIONMAPS; found: {contents(self.root)}"
            )
        images = sorted(path for path in folder.iterdir() if is_image(path.name))
        if not images:
            raise InputError(f"no images in {folder}: expected <id>.jpeg; found: {contents(folder)}")
        one_a_name([str(path) for path in images], "stimuli of the same fixations", lambda path: Path(path).stem)
        images = self.chosen(images)
        names = [str(path) for path in images]
        seen = FixationMaps(images, self._maps(images, "fixPts"))
        density = DensityMaps(images, self._maps(images, "fixMap"))
        return Split(ImageFiles(names), {"fixations": seen, "density": density, "path": names})

    def _maps(self, images: Sequence[Path], kind: str) -> list[Path]:
        """Return the maps of one kind, one for each image."""
        maps = [self.root / "ALLFIXATIONMAPS" / f"{path.stem}_{kind}.jpg" for path in images]
        missing = [path for path in maps if not path.is_file()]
        if missing:
            raise InputError(f"no fixations of {images[maps.index(missing[0])]}: expected {missing[0]}")
        return maps


class FixationMaps:
    """Maps of fixated pixels, read each time they are asked for: (h, w) bool.

    Args:
        images: the files of the stimuli.
        paths: the files of the maps.
    """

    def __init__(self, images: Sequence[Path], paths: Sequence[Path]) -> None:
        self.images, self.paths = images, paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        seen = decode(str(self.paths[index]))[0] > SEEN
        require_size(self.paths[index], seen, self.images[index])
        if not seen.any():
            raise InputError(f"{self.paths[index]}: no fixated pixel in it (brighter than {SEEN})")
        return seen


class DensityMaps(FixationMaps):
    """Maps of fixations that were blurred, read each time they are asked for: (h, w) float32, which sum to 1."""

    def __getitem__(self, index: int) -> Tensor:
        density = decode(str(self.paths[index]))[0].double()
        require_size(self.paths[index], density, self.images[index])
        if not density.any():
            raise InputError(f"{self.paths[index]}: all of it is black")
        return (density / density.sum()).float()


class OSIE(GazeDataModule):
    """Eye fixations of 15 people on 700 photographs (J. Xu et al., Predicting human gaze beyond pixels, JoV 2014).

    ``images/<id>.jpg`` and ``fixations.json``, ``{<id>: [[[x, y, milliseconds], ...] for each viewer]}`` in pixels of
    these images. Batches as `GazeDataModule` says. By custom the first fixation of each viewer does not count, since it
    is where the cross was that viewers had to look at before.

    Args:
        root: the folder.
        degree: pixels of a degree of the visual angle, in images of the width 400: the standard deviation of the
            Gaussian that ``density`` is blurred with. The viewers saw 800 pixels under 33.1 degrees.
        first_fixations: whether the first fixation of each viewer counts too.
        kwargs: the arguments of GazeDataModule.

    Raises:
        InputError: an argument is out of range.
    """

    WIDTH = 400

    def __init__(
        self, root: str, *, degree: PositiveFloat = 12.0, first_fixations: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(root, **kwargs)
        self.degree, self.first_fixations = degree, first_fixations

    def load_test(self) -> Split:
        """Read the test split, as `EvaluationDataModule` says."""
        path = self.root / "fixations.json"
        if not path.is_file():
            raise InputError(f"no file {path}: expected images and fixations.json; found: {contents(self.root)}")
        content = read_json(path, MOST_BYTES)
        if not isinstance(content, dict) or not content:
            raise InputError(f"{path} must have the fixations of each image by its name")
        names = self.chosen(sorted(content))
        files = [below(self.root / "images", f"{name}.jpg", str(path)) for name in names]
        missing = [file for file in files if not Path(file).is_file()]
        if missing:
            raise InputError(f"{path}: there is no {missing[0]}")
        points = {name: read_points(content[name], f"{path}: {name}", self.first_fixations) for name in names}
        seen = FixatedPixels(files, [points[name] for name in names], str(path))
        density = BlurredFixations(seen, self.degree / self.WIDTH)
        return Split(ImageFiles(files), {"fixations": seen, "density": density, "path": files})


def read_points(viewers: Any, where: str, first: bool) -> np.ndarray:
    """Return the places of the fixations of one image, float64 (n, 2) as x and y in pixels.

    Args:
        viewers: a list of fixations ``[x, y, milliseconds]`` for each viewer.
        where: what an error calls them.
        first: whether the first fixation of each viewer counts.

    Raises:
        InputError: there are none, or they are something else.
    """
    try:
        read = [np.array(viewer, dtype=np.float64).reshape(-1, 3) for viewer in viewers]
    except (TypeError, ValueError) as error:
        raise InputError(f"{where} must be a list of [x, y, milliseconds] for each viewer") from error
    points = np.concatenate([viewer[0 if first else 1 :, :2] for viewer in read] or [np.empty((0, 2))])
    if not len(points):
        raise InputError(f"{where} has no fixation that counts")
    return points


class FixatedPixels:
    """The pixels at some places: (h, w) bool.

    Args:
        images: the files of the stimuli.
        points: of each, the places that people looked at, (n, 2) as x and y in pixels.
        where: the file that the places are from, for an error.
    """

    def __init__(self, images: Sequence[str], points: Sequence[np.ndarray], where: str) -> None:
        self.images, self.points, self.where = images, points, where

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(self.counts(index) > 0)

    def counts(self, index: int) -> np.ndarray:
        """Return how many fixations each pixel has, float64 (h, w).

        Raises:
            InputError: a place is not in the image.
        """
        height, width = image_size(self.images[index])
        places = self.points[index]
        if not ((places >= 0) & (places < (width, height))).all():  # NaN neither
            raise InputError(f"{self.where}: a fixation is not in {self.images[index]}, {width} x {height} pixels")
        columns, rows = places.astype(np.int64).T
        counts = np.zeros((height, width))
        np.add.at(counts, (rows, columns), 1)
        return counts


class BlurredFixations:
    """Fixations blurred with a Gaussian: (h, w) float32, which sum to 1.

    Args:
        fixations: what is blurred.
        spread: standard deviation of the Gaussian, as a share of an image's width.
    """

    def __init__(self, fixations: FixatedPixels, spread: float) -> None:
        self.fixations, self.spread = fixations, spread

    def __len__(self) -> int:
        return len(self.fixations)

    def __getitem__(self, index: int) -> Tensor:
        counts = self.fixations.counts(index)
        blurred = gaussian_filter(counts, self.spread * counts.shape[1], mode="constant")
        return torch.from_numpy(blurred / blurred.sum()).float()
