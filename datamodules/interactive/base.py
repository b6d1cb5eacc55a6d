"""What all interactive segmentation data have in common: views of objects, trials, clicks to predict from."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, cast

import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate
from torchvision import tv_tensors
from torchvision.transforms import v2

from attention_zoo.domains import Domain
from attention_zoo.errors import InputError
from attention_zoo.seeding import run_seed, seeded
from datamodules.augmenting import Augment
from datamodules.checks import two_sides
from datamodules.images import SizedImages, Split
from datamodules.interactive.crops import View, Viewing
from datamodules.interactive.objects import OBJECT, Instances
from datamodules.interactive.predict import ClickCollate, ClickedImages, read_clicks
from datamodules.loading import AUGMENTATION, Batch, DataModule
from datamodules.sampling import EvaluationSampler, GroupedSampler, SampleKey
from datamodules.segmentation.transforms import PhotometricDistortion

MOST_TRIALS = 10_000
"""Of one object."""

LARGEST_FACTOR = 100.0
"""Of the padding around objects and the scale of crops; more would be an image of one colour."""

Scale = Annotated[float, Domain(above=0, most=LARGEST_FACTOR)]
"""A factor by which a crop is resized."""


class ObjectDataset(Dataset[Any]):
    """Objects of a split, addressed by the keys of a sampler, or by a list of them.

    Args:
        split: the images, with columns ``objects`` of `Instances` and ``name``.
        viewing: how they are cut out.
        crop: see `InteractiveDataModule`; None gives whole images.
        augment: of image, mask and corners together; None in evaluation, where every epoch is the same.
        scale: of ``random`` crops.
        trials: times that each object is there, each with its own noise.
    """

    def __init__(
        self,
        split: Split,
        viewing: Viewing,
        crop: Literal["box", "random"] | None,
        augment: Sequence[nn.Module] | None = None,
        scale: tuple[float, float] = (1.0, 1.0),
        trials: int = 1,
    ) -> None:
        self.split, self.viewing, self.crop, self.scale, self.trials = split, viewing, crop, scale, trials
        self.augment = None if augment is None else Augment(augment)
        self.seed = run_seed()

    def __len__(self) -> int:
        return len(self.split.images) * self.trials

    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of every sample, where images are whole."""
        return [cast(SizedImages, self.split.images).size(index // self.trials) for index in range(len(self))]

    def __getitem__(self, key: SampleKey | int | list[SampleKey]) -> Any:
        """Samples: a `View` with ``index`` (-1: not counted) and ``name``."""
        if isinstance(key, list):
            return [self[one] for one in key]
        epoch, index, counted, repeat = key if isinstance(key, SampleKey) else SampleKey(0, key, True)
        epoch = 0 if self.augment is None else epoch
        place = index // self.trials
        image, name = self.split.images[place], self.split.columns["name"][place]
        objects = checked(image, self.split.columns["objects"][place], name)
        with seeded(self.seed, epoch, index, AUGMENTATION + repeat):
            parts = self._parts(image, objects, name)
        return {**parts, "index": index if counted else -1, "name": name}

    def _parts(self, image: Tensor, objects: Instances, name: str) -> dict[str, Tensor]:
        """Return the parts of a `View`, and the mask that clicks correct, cut out as a channel of the image."""
        if objects.initial is None:
            return self._view(image, objects, name)._asdict()
        initial = 255 * objects.initial[None].to(image.dtype)
        view = self._view(torch.cat((image, initial)), objects, name)
        return {**view._replace(image=view.image[:-1])._asdict(), "initial": (view.image[-1] > 127).to(torch.uint8)}

    def _view(self, image: Tensor, objects: Instances, name: str) -> View:
        number = objects.numbers[int(torch.randint(len(objects.numbers), ()))]
        mask = objects.mask(number)
        if not (mask == OBJECT).any():
            raise InputError(f"{name}: the mask is empty, there is no object to segment")
        if self.crop is None:
            view = self.viewing.whole(image, mask)
        elif self.crop == "box":
            view = self.viewing.around(image, mask)
        else:
            view = self.viewing.somewhere(image, mask, self.scale)
        return view if self.augment is None else _augmented(view, self.augment, name)


def _augmented(view: View, augment: Augment, name: str) -> View:
    corners = view.box.view(2, 2).flip(1)  # torchvision's points are x, y
    points = tv_tensors.KeyPoints(corners, canvas_size=view.image.shape[-2:])
    parts = tv_tensors.Image(view.image), tv_tensors.Mask(view.mask[None]), points
    image, mask, points = (part.as_subclass(Tensor) for part in augment(*parts, name=f"the object {name}"))
    return View(image, mask[0], points.flip(1).flatten())


def checked(image: Tensor, objects: Instances, name: str) -> Instances:
    """The objects, if they are of the image's size and there is one.

    Raises:
        InputError: they are not, or there is none.
    """
    if objects.labels.shape != image.shape[-2:]:
        height, width = objects.labels.shape
        raise InputError(
            f"{name}: the image has {image.shape[-1]} x {image.shape[-2]} pixels, its mask {width} x {height}: "
            "they must be equal"
        )
    if objects.initial is not None and objects.initial.shape != objects.labels.shape:
        raise InputError(f"{name}: the mask to start from has another size than the mask")
    if not objects.numbers:
        raise InputError(f"{name}: no object that is large enough")
    return objects


class ObjectCollate:
    """Samples to a batch whose images are float32 and normalised.

    Args:
        mean: of each channel, for images in 0..1.
        std: of each channel, for images in 0..1.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.normalise = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])

    def __call__(self, samples: list[Batch]) -> Batch:
        """The batch: ``image`` (B, 3, H, W), ``mask`` (B, H, W), ``box`` (B, 4), ``index`` (B,), names as a list."""
        batch = default_collate(samples)
        return {**batch, "image": self.normalise(batch["image"])}


class InteractiveDataModule(DataModule):
    """Base of the interactive segmentation data: one object a sample.

    Batches are dictionaries: ``image`` (B, 3, H, W) float32, normalised; ``mask`` (B, H, W) uint8, 1 on the object, 0
    on the background, 255 where nothing counts; ``box`` (B, 4) float32, row and column of one corner of a box roughly
    around the object and of the opposite corner; ``index`` (B,) int64 as `DataModule` has it; ``name`` (B strings);
    where clicks correct a mask, ``initial`` (B, H, W) uint8, 1 in it.

    With ``crop="box"`` (Gabbur et al., NeurIPS 2021, appendix C.3) training and evaluation see views of ``image_size``
    around the object, at the image's own scale where it fits. With ``crop="random"`` (RITM, Sofiiuk et al., ICIP 2022)
    training sees ``image_size`` from random places and scales, and evaluation whole images as they are; a batch then
    has images of one size.

    In prediction a batch has ``image``, ``box`` (B, 4; NaN where none was given), ``points`` (B, n, 2) and ``labels``
    (B, n) as `attention_zoo.clicks.Clicks`, ``path``, how to put the mask back, ``region`` and ``size``, and
    ``annotation``, the entries of the file as plain values.

    Args:
        image_size: side, or height and width, of what the network is given, in pixels.
        crop: ``box`` or ``random``.
        padding: least distance of the box from the border of a ``box`` view, as a share of the box's sides.
        corner_noise: a corner of the box moves by up to this share of the box's sides, each way.
        trials: times that the test has each object, each with its own noise.
        scale: least and largest scale of ``random`` crops.
        augment: transforms of image, mask and corners of the box together, in training, such as those of
            torchvision.transforms.v2; None is reflection and colour, an empty list is none.
        predict_clicks: JSON file for ``predict``: a list of objects, each ``{"image": path, "clicks": [{"y": row, "x":
            column, "positive": true}, ...], "box": [row, column, row, column]}``, of which ``clicks`` or ``box`` may
            be left out; paths are relative to ``predict_dir``, by default the file's folder. It may also have the
            ``mask`` that the clicks correct, as run lengths, and the ``setting`` and ``threshold`` of the task: see
            `attention_zoo.clicks.ClickedImage`.
        batch_size: as in `DataModule`.
        loading: the other arguments of `DataModule`.

    Raises:
        InputError: an argument is out of range.
    """

    prediction_format = "objects"
    MEAN = IMAGENET_DEFAULT_MEAN
    STD = IMAGENET_DEFAULT_STD

    def __init__(
        self,
        image_size: int | tuple[int, int] = 256,
        crop: Literal["box", "random"] = "box",
        padding: Annotated[float, Domain(least=0, most=LARGEST_FACTOR)] = 0.25,
        corner_noise: Annotated[float, Domain(least=0, below=0.5)] = 0.05,
        trials: Annotated[int, Domain(least=1, most=MOST_TRIALS)] = 1,
        scale: tuple[Scale, Scale] = (0.75, 1.25),
        augment: list[nn.Module] | None = None,
        predict_clicks: str | None = None,
        batch_size: int = 16,
        **loading: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, **loading)
        self.image_size = two_sides("image_size", image_size)
        self.crop, self.padding, self.corner_noise, self.trials, self.scale = crop, padding, corner_noise, trials, scale
        if scale[0] > scale[1]:
            raise InputError(f"scale must be two numbers, the least first; got {scale}")
        self.augment = [v2.RandomHorizontalFlip(), PhotometricDistortion()] if augment is None else augment
        self.predict_clicks = predict_clicks

    @property
    def viewing(self) -> Viewing:
        """How samples are cut out of images."""
        red, green, blue = (round(255 * value) for value in self.mean)
        return Viewing(self.image_size, self.padding, self.corner_noise, (red, green, blue))

    def setup(self, stage: str) -> None:
        """Read what a stage needs, as `DataModule` says; prediction reads the clicks."""
        if stage != "predict":
            super().setup(stage)
        elif "predict" not in self.splits:
            if self.predict_clicks is None:
                raise InputError("predict needs predict_clicks, a JSON file of images and clicks")
            self.splits["predict"] = read_clicks(self.predict_clicks, self.predict_dir)

    def dataset(self, part: str) -> ObjectDataset | ClickedImages:
        """Return the samples of a part, as `DataModule` says."""
        if part == "predict":
            return ClickedImages(self.splits[part], self.viewing if self.crop == "box" else None)
        if part == "train":
            return ObjectDataset(self.splits[part], self.viewing, self.crop, self.augment, self.scale)
        trials = self.trials if part == "test" else 1
        return ObjectDataset(self.splits[part], self.viewing, "box" if self.crop == "box" else None, trials=trials)

    def collate(self, part: str) -> ObjectCollate | ClickCollate:
        """Return what makes samples a batch, as `DataModule` says."""
        collate = ObjectCollate(self.mean, self.std)
        return ClickCollate(collate.normalise) if part == "predict" else collate

    def evaluation_sampler(self, dataset: ObjectDataset | ClickedImages) -> EvaluationSampler | GroupedSampler:
        """Views are all of one size; whole images share a batch with those of their size."""
        if self.crop == "box":
            return super().evaluation_sampler(dataset)
        groups = dataset.sizes() if self.batch_size > 1 else range(len(dataset))
        return GroupedSampler(groups, self.batch_size, *self.processes())
