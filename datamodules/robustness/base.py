"""What the robustness data of ImageNet, CIFAR-10 and Tiny-ImageNet have in common: cells, and how they are chosen."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, cast

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset

from attention_zoo.domains import Domain
from attention_zoo.errors import InputError
from attention_zoo.evaluation import Benchmark, Cell
from datamodules.base import EvaluationDataModule
from datamodules.checks import MOST_SEED, require_different, require_whole
from datamodules.corruptions import CORRUPTIONS, SIZES, Picture, Scale, require_corruption, require_severity
from datamodules.corruptions.generate import JPEG_QUALITY, SEVERITIES, Recipe
from datamodules.corruptions.textures import textures_folder
from datamodules.images import ImageFiles, Images, Split
from datamodules.robustness.folders import made_facts, record
from datamodules.robustness.images import Generated, Labelled, Latest, LatestImages
from datamodules.sampling import EvaluationSampler, GroupedSampler
from datamodules.splits import stratified_split

_CLASSES_SEED = 20_261_121
"""Of the order in which classes give their images to a choice; changing it changes every choice."""

Facts = Mapping[str, str | int | float | bool]
"""A benchmark's protocol."""


class Part(NamedTuple):
    """A cell and its images."""

    cell: Cell
    content: Labelled


class Clean(NamedTuple):
    """The images that the model was made for.

    Attributes:
        content: as they are tested.
        unprepared: as they lie there; corruptions are made from them.
        names: of the images, by which corruptions are seeded.
    """

    content: Labelled
    unprepared: Labelled
    names: Sequence[str]

    @classmethod
    def of(
        cls,
        images: Images,
        labels: np.ndarray,
        names: Sequence[str],
        prepare: Callable[[LatestImages], Images] | None = None,
    ) -> "Clean":
        """Return clean images, each of which is read once for all cells that are made of it.

        Args:
            images: as they lie there.
            labels: of each, int64 (N,).
            names: of each.
            prepare: makes of them those that are tested; None tests them as they are.
        """
        files, sources = LatestImages(images), np.arange(len(labels))
        content = Labelled(files if prepare is None else prepare(files), labels, sources)
        return cls(content, Labelled(files, labels, sources), names)


class RobustnessDataModule(EvaluationDataModule):
    """Base of data that test a trained model on several benchmarks in one pass.

    After ``setup("test")`` there is ``cells``. Batches have ``cell`` (B,) int64, the position in it, and ``number``
    (B,) int64, that of the image in its cell; ``index`` is the position among all images. A batch may have images of
    several cells. ``label`` is an output of the model in every benchmark. What is made of one clean image comes in a
    row, in one process, so that no process decodes an image twice; a worker does where a batch ends amid such a row.

    Corruptions that are made here depend on ``corruption_seed``, corruption, severity and the image's name only. With
    ``jpeg``, those of images in class folders (ImageNet, Tiny-ImageNet) are the ones that ``python -m attention_zoo
    corrupt`` writes from the same folder with the same scale and seed. CIFAR-10's images have no files of their own as
    released; each is named by its position in the test data, so that its noise is another than the command's.

    Args:
        clean: where the clean images are.
        c: where the corrupted images are.
        c_generated: make the corrupted images from the clean ones instead. Tables call them generated.
        corruptions: default is the 15 of the benchmark; beside them there are the 4 extra ones.
        severities: 1 to 5.
        images_per_cell: test only so many of each cell, or all if it has fewer: a fixed choice in which the classes
            keep their shares, the same in all cells with the same images. Smaller choices are part of larger ones.
        missing: what to do if the folder or file of a benchmark does not exist, or the pictures that frost is made
            from: ``error``, or ``skip`` it and say so.
        corruption_seed: of the corruptions that are made here.
        jpeg: put corrupted images that are made here through a JPEG file of quality 85, like ImageNet-C's.
        kwargs: the arguments of ImageDataModule.

    Raises:
        InputError: an argument is out of range, or there is no benchmark among them.
    """

    SCALE: ClassVar[Scale]
    C: ClassVar[tuple[str, str]]
    """Name and title of the benchmark of corruptions."""

    def __init__(
        self,
        clean: str | None,
        c: str | None,
        *,
        c_generated: bool = False,
        corruptions: list[str] | None = None,
        severities: list[int] | None = None,
        images_per_cell: int | None = None,
        missing: Literal["error", "skip"] = "error",
        corruption_seed: Annotated[int, Domain(most=2**32 - 1)] = 0,
        jpeg: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.clean_root, self.c_root = _path(clean), _path(c)
        self.c_generated, self.missing = c_generated, missing
        self.corruptions = list(CORRUPTIONS if corruptions is None else corruptions)
        self.severities = list(SEVERITIES if severities is None else severities)
        self.images_per_cell = images_per_cell
        self.corruption_seed, self.jpeg_quality = corruption_seed, JPEG_QUALITY if jpeg else None
        self.cells: list[Cell] = []
        self.order = ""
        self._check()
        self.severities.sort()

    def _check(self) -> None:
        for corruption in self.corruptions:
            require_corruption(corruption)
        for severity in self.severities:
            require_severity(severity)
        require_different("corruptions", self.corruptions)
        require_different("severities", self.severities)
        if self.images_per_cell is not None:
            require_whole("images_per_cell", self.images_per_cell, 1)
        require_whole("corruption_seed", self.corruption_seed, 0, MOST_SEED)
        if self.c_generated and self.c_root is not None:
            raise InputError("c_generated makes the corrupted images that c has; give one of them")
        if self.c_generated and self.clean_root is None:
            raise InputError(f"c_generated makes {self.C[1]} from the clean images; give them too")
        if self.jpeg_quality and not self.c_generated:
            raise InputError("jpeg is for corrupted images that are made here; give c_generated too")

    @abstractmethod
    def parts(self) -> Iterator[Part]:
        """All cells, those of a benchmark together.

        Raises:
            InputError: the data are not there, or not as they should be.
        """

    @property
    def clean_facts(self) -> Facts:
        """How clean images are prepared."""
        own = self.image_size == (self.IMAGE_SIZE, self.IMAGE_SIZE)
        return {"preprocessing": "none" if own else f"Resize({self.image_size[0]}, {self.image_size[1]})"}

    @property
    def c_facts(self) -> Facts:
        """How corrupted images are prepared after they were corrupted."""
        return self.clean_facts

    @abstractmethod
    def read_corrupted(self, root: Path) -> Iterator[tuple[str, int, Labelled]]:
        """Corruption, severity and images of each cell of the corrupted images on the disk.

        Raises:
            InputError: they are not as they should be.
        """

    def prepared_corrupted(self, images: ImageFiles | Generated) -> Images:
        """Corrupted images that are prepared as `c_facts` says, if not by `default_resize`."""
        return images

    def load_test(self) -> Split:
        """Read the test split, as `EvaluationDataModule` says; all cells, one after the other."""
        parts = list(self.parts())
        if self.c_generated:  # after all folders were looked for: those that are not there matter more
            parts = self._with_frost_or_without(parts)
        if not parts:
            raise InputError(f"{type(self).__name__} has no benchmark to test on: give it the folder of one")
        self.cells = [part.cell for part in parts]
        columns: dict[str, list[Any]] = {
            "label": [part.content.labels for part in parts],
            "cell": [torch.tensor(place).expand(cell.images) for place, cell in enumerate(self.cells)],
            "number": [range(cell.images) for cell in self.cells],
        }
        images: ConcatDataset[Tensor] = ConcatDataset([cast(Dataset[Tensor], part.content.images) for part in parts])
        split = Split(images, {name: ConcatDataset(values) for name, values in columns.items()})
        if sum(part.content.sources is not None for part in parts) < 2:
            return split
        self.order = "by image"
        order = _by_image([part.content for part in parts])
        ordered = {name: Subset(cast(Dataset[Any], values), order) for name, values in split.columns.items()}
        return Split(LatestImages(Subset(images, order)), ordered)  # a process may be padded by its last image

    def evaluation_sampler(self, dataset: Any) -> EvaluationSampler | GroupedSampler:
        """Return the order of evaluation and prediction, as `DataModule` says."""
        in_rows = bool(self.order) and dataset.split is self.splits.get("test")
        return EvaluationSampler(dataset, *self.processes(), first=self.tested, blocks=in_rows)

    def _with_frost_or_without(self, parts: list[Part]) -> list[Part]:
        """Look for the pictures of frost before anything is tested; without them, leave it out if that is asked for.

        Raises:
            InputError: they are not there, and may not be skipped.
        """
        if "frost" not in self.corruptions:
            return parts
        try:
            textures_folder()
        except InputError as error:
            others = [name for name in self.corruptions if name != "frost"]
            if self.missing == "error" or not others:
                raise InputError(
                    f"{error}; to go on without frost, give missing: skip, or corruptions without it"
                ) from error
            rank_zero_info(f"skipped frost: {error}")
            self.corruptions = others
        return [part for part in parts if part.cell.corruption != "frost" or "frost" in self.corruptions]

    def there(self, root: Path | None, title: str) -> Path | None:
        """The folder or file of a benchmark to test on; None where nobody asked for it, or it is missing and skipped.

        Raises:
            InputError: it is not there, and may not be skipped.
        """
        if root is None or root.exists():
            return root
        if self.missing == "error":
            raise InputError(f"no {title} at {root}; to go on without, give missing: skip")
        rank_zero_info(f"skipped {title}: nothing at {root}")
        return None

    def part(
        self, benchmark: Benchmark, content: Labelled, corruption: str | None = None, severity: int | None = None
    ) -> Part:
        """A cell with all its images or the chosen ones."""
        wanted = self.images_per_cell
        if wanted is not None and wanted < len(content.labels):
            chosen = choose(content.labels, wanted)
            content = content.some(chosen)
        return Part(Cell(benchmark, len(content.labels), corruption, severity), content)

    def benchmark(
        self, name: str, title: str, facts: Facts, classes: tuple[int, ...] | None = None, source: str = "released"
    ) -> Benchmark:
        """A benchmark and its protocol."""
        if source == "generated":
            title = f"{title} (generated)"
        chosen = self.images_per_cell or "all"
        return Benchmark(name, title, classes, {"source": source, **facts, "images_per_cell": chosen})

    def clean_and_corrupted(self, clean: Clean | None) -> Iterator[Part]:
        """The cells of the clean images, and of the corrupted ones: from the disk, or made here."""
        if clean is not None:
            yield self.part(self.benchmark("clean", "clean", self.clean_facts), clean.content)
        if self.c_generated and clean is not None:
            yield from self._generated(clean)
        elif self.c_generated:
            rank_zero_info(f"skipped {self.C[1]} (generated): no clean images to make it from")
        elif (root := self.there(self.c_root, self.C[1])) is not None:
            recorded = record(root)
            source = "generated" if recorded else "released"
            benchmark = self.benchmark(*self.C, {**self.c_facts, **recorded}, source=source)
            for corruption, severity, content in self.read_corrupted(root):
                yield self.part(benchmark, content, corruption, severity)

    def _generated(self, clean: Clean) -> Iterator[Part]:
        recipe = Recipe(self.SCALE, SIZES[self.SCALE], self.corruption_seed)
        facts = {**self.c_facts, **made_facts(recipe, self.jpeg_quality)}
        benchmark = self.benchmark(*self.C, facts, source="generated")
        images, labels, sources = clean.unprepared
        pictures = Latest(images, partial(_picture, recipe))
        for corruption in self.corruptions:
            for severity in self.severities:
                corrupted = Generated(pictures, clean.names, recipe, corruption, severity, self.jpeg_quality)
                content = Labelled(self.prepared_corrupted(corrupted), labels, sources)
                yield self.part(benchmark, content, corruption, severity)


def _picture(recipe: Recipe, image: Tensor) -> Picture:
    return Picture(recipe.prepared(image))


def _by_image(contents: Sequence[Labelled]) -> Sequence[int]:
    """The places of all samples in an order in which those of one clean image come together, and first."""
    apart = np.iinfo(np.int64).max
    sources = [np.full(len(one.labels), apart) if one.sources is None else one.sources for one in contents]
    return np.concatenate(sources).argsort(kind="stable").tolist()


def choose(labels: np.ndarray, count: int) -> np.ndarray:
    """Positions of a fixed choice of ``count`` images in which the classes keep their shares, ascending.

    Where there are fewer images than classes, these are of classes from all over the list.
    """
    order = np.random.default_rng(_CLASSES_SEED).permutation(int(labels.max()) + 1)
    return np.array(stratified_split(order[labels], count)[0])


def _path(value: str | None) -> Path | None:
    return None if value is None else Path(value)
