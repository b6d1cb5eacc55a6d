"""The benchmarks that classifiers of ImageNet-1k are tested on."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn
from torchvision.transforms import v2

from attention_zoo.errors import InputError
from datamodules.base import ImageDataset
from datamodules.image_folder import centre_crop, resized_side
from datamodules.imagenet import SYNSET, outputs_of, synsets
from datamodules.images import ImageFiles, Images, list_images, read_files
from datamodules.robustness.base import Clean, Facts, Part, RobustnessDataModule
from datamodules.robustness.folders import read_corruptions
from datamodules.robustness.images import Generated, Labelled, Prepared

CORRUPTIONS_3D = (
    *("near_focus", "far_focus", "xy_motion_blur", "z_motion_blur", "flash", "fog_3d"),
    *("h265_crf", "h265_abr", "bit_error", "iso_noise", "low_light", "color_quant"),
)
"""The corruptions of ImageNet-3DCC."""


class ImageNetRobustness(RobustnessDataModule):
    """ImageNet-1k's validation images, and ImageNet-C, -3DCC, -A, -R and -Sketch: those whose folders are given.

    Images are prepared as in the evaluations of VARS, RVT and AbSViT: the shorter side becomes 256/224 of the size and
    the middle is cut out, but those of ImageNet-C and -3DCC (O. Kar et al., 3D Common Corruptions and Data
    Augmentation, CVPR 2022) are 224 x 224 already, and only cut. On -A (D. Hendrycks et al., Natural
    Adversarial Examples, CVPR 2021) and -R (D. Hendrycks et al., The Many Faces of Robustness, ICCV 2021) the outputs
    of their 200 classes compete; on -Sketch (H. Wang et al., NeurIPS 2019) and the others all 1000.

    Args:
        val: ``<synset>/*.JPEG``, the validation images.
        c: ``<corruption>/<severity>/<synset>/*.JPEG``, or with ``noise``, ``blur``, ``weather``, ``digital`` and
            ``extra`` above the corruptions, as the archives are released.
        c3d: ``<corruption>/<severity>/<synset>/*``, ImageNet-3DCC: all of its 12 corruptions, which ``corruptions``
            does not choose from; there is no reference of AlexNet for them.
        a: ``<synset>/*``, ImageNet-A.
        r: ``<synset>/*``, ImageNet-R.
        sketch: ``<synset>/*``, ImageNet-Sketch.
        ood: images of nothing that the model knows, such as textures, at any depth; they are no column of their own,
            but a model's confidence can be asked to tell them from the clean ones (see `Robustness`).
        iid_subsets: also test on the validation images of -A's classes and on those of -R's, among these classes, which
            says how much of the error on -A and -R is due to their images.
        interpolation: of the resizing; the official scripts of -A and -R have bilinear.
        kwargs: the arguments of RobustnessDataModule and ImageDataModule.

    Raises:
        InputError: an argument is out of range, or there is no benchmark among them.
    """

    IMAGE_SIZE = 224
    MEAN, STD = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    SCALE = "imagenet"
    C = ("imagenet_c", "ImageNet-C")

    def __init__(
        self,
        val: str | None = None,
        c: str | None = None,
        a: str | None = None,
        r: str | None = None,
        sketch: str | None = None,
        *,
        c3d: str | None = None,
        ood: str | None = None,
        iid_subsets: bool = False,
        interpolation: Literal["bicubic", "bilinear"] = "bicubic",
        **kwargs: Any,
    ) -> None:
        super().__init__(val, c, **kwargs)
        further = {"c3d": c3d, "a": a, "r": r, "sketch": sketch, "ood": ood}
        self.roots = {name: Path(root) for name, root in further.items() if root is not None}
        self.iid_subsets = iid_subsets
        self.interpolation = v2.InterpolationMode(interpolation)

    @property
    def class_names(self) -> list[str]:
        """The 1000 synsets of ImageNet-1k, sorted."""
        return list(synsets())

    def default_resize(self) -> nn.Module:
        """The centre of the image: its shorter side becomes 256/224 of the size, then the margin is cut off."""
        return centre_crop(self.image_size, self.interpolation)

    def dataset(self, part: str) -> ImageDataset:
        """Return the samples of a part, as `ImageDataModule` says; each benchmark prepares its own images of a test."""
        if part != "test":
            return super().dataset(part)
        return ImageDataset(self.splits[part], self.image_size, nn.Identity())

    @property
    def clean_facts(self) -> Facts:
        """How images are prepared, as `RobustnessDataModule` says; also those of -A, -R and -Sketch."""
        height, width = self.image_size
        side, how = resized_side(self.image_size), self.interpolation.value
        return {"preprocessing": f"Resize({side}, {how}), CenterCrop({height}, {width})"}

    @property
    def c_facts(self) -> Facts:
        """How corrupted images are prepared, as `RobustnessDataModule` says."""
        height, width = self.image_size
        enlarged = f"Resize({max(self.image_size)}, {self.interpolation.value}), " if self._enlarge_corrupted else ""
        return {"preprocessing": f"{enlarged}CenterCrop({height}, {width})"}

    @property
    def _enlarge_corrupted(self) -> bool:
        """Whether the model wants more pixels than ImageNet-C has; nothing may be made up around its images."""
        return max(self.image_size) > self.IMAGE_SIZE

    def prepared_corrupted(self, images: ImageFiles | Generated) -> Images:
        """Prepare corrupted images, as `RobustnessDataModule` says."""
        cut = v2.CenterCrop(self.image_size)
        if not self._enlarge_corrupted:
            return Prepared(images, cut, least=max(self.image_size))
        resize = v2.Resize(max(self.image_size), interpolation=self.interpolation, antialias=True)
        return Prepared(images, nn.Sequential(resize, cut))

    def read_corrupted(self, root: Path) -> Iterator[tuple[str, int, Labelled]]:
        """Yield the cells of the corrupted images, as `RobustnessDataModule` says."""
        yield from self._corrupted(root, self.corruptions)

    def _corrupted(self, root: Path, corruptions: Sequence[str]) -> Iterator[tuple[str, int, Labelled]]:
        cells = read_corruptions(root, corruptions, self.severities, synsets(), SYNSET)
        for corruption, severity, names, labels in cells:
            yield corruption, severity, Labelled(self.prepared_corrupted(ImageFiles(names)), labels)

    def parts(self) -> Iterator[Part]:
        """Yield all cells, as `RobustnessDataModule` says: clean, its subsets, -C, -3DCC, -A, -R and -Sketch."""
        validation = self.there(self.clean_root, "ImageNet validation images")
        clean = None if validation is None else self._clean(validation)
        yield from self.clean_and_corrupted(clean)
        root = self.there(self.roots.get("c3d"), "ImageNet-3DCC")
        if root is not None:
            benchmark = self.benchmark("imagenet_3dcc", "ImageNet-3DCC", self.c_facts)
            for corruption, severity, corrupted in self._corrupted(root, CORRUPTIONS_3D):
                yield self.part(benchmark, corrupted, corruption, severity)
        for subset in ("a", "r"):
            title = f"ImageNet-{subset.upper()}"
            classes = outputs_of(subset)
            root = self.there(self.roots.get(subset), title)
            if root is not None:
                content = self._read(root, classes, f"synset of {title}")
                yield self.part(self.benchmark(f"imagenet_{subset}", title, self.clean_facts, classes), content)
            if self.iid_subsets and clean is not None:
                yield self._iid(clean.content, subset)
        root = self.there(self.roots.get("sketch"), "ImageNet-Sketch")
        if root is not None:
            content = self._read(root)
            yield self.part(self.benchmark("imagenet_sketch", "ImageNet-Sketch", self.clean_facts), content)
        root = self.there(self.roots.get("ood"), "images out of the distribution")
        if root is not None:
            images = Prepared(ImageFiles(list_images(root)), self.default_resize())
            benchmark = replace(self.benchmark("ood", root.name or "ood", self.clean_facts), labelled=False)
            yield self.part(benchmark, Labelled(images, np.zeros(len(images), dtype=np.int64)))

    def _clean(self, root: Path) -> Clean:
        names, labels = read_files(root, synsets(), kind=SYNSET)
        resize = self.default_resize()
        return Clean.of(ImageFiles(names), labels, names.below(), lambda files: Prepared(files, resize))

    def _read(self, root: Path, classes: tuple[int, ...] | None = None, kind: str = SYNSET) -> Labelled:
        """The images of a folder, whose classes are all or some of the 1000."""
        names = synsets() if classes is None else [synsets()[label] for label in classes]
        files, labels = read_files(root, names, kind=kind)
        if classes is not None:
            labels = np.array(classes)[labels]
        return Labelled(Prepared(ImageFiles(files), self.default_resize()), labels)

    def _iid(self, content: Labelled, subset: Literal["a", "r"]) -> Part:
        """The clean images of the classes of -A or -R."""
        classes = outputs_of(subset)
        chosen = np.flatnonzero(np.isin(content.labels, classes))
        if not len(chosen):
            raise InputError(
                f"iid_subsets: {self.clean_root} has no images of the classes of ImageNet-{subset.upper()}"
            )
        title = f"clean, classes of -{subset.upper()}"
        benchmark = self.benchmark(f"imagenet_val_{subset}", title, self.clean_facts, classes)
        return self.part(benchmark, content.some(chosen))
