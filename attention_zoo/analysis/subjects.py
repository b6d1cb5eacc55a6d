"""Models to be looked at: timm's with any mixer, built here and not trained, and interactive ones before a click."""

from functools import lru_cache

import torch
from timm.data import ImageNetInfo
from torch import Tensor, nn
from torchvision.transforms import v2

from attention_zoo import MixerFactory
from attention_zoo.analysis.side_by_side import Subject
from attention_zoo.clicks import Clicks
from attention_zoo.errors import InputError
from attention_zoo.models import build_model
from attention_zoo.models.interactive import InteractiveModel
from attention_zoo.seeding import seeded

SHORTER, COARSEST = 224, 32
"""The shorter side of images in pixels, and the step both sides are multiples of, for models that do not say."""

MOST_RATIO = 16
"""Of the sides of an image, for models that are built for the aspect of each: attention costs the square of its tokens,
and those of a strip that is resized by its shorter side have no end."""

CLASSES = 1000
"""The number of classes of ImageNet, which released weights tell apart."""


def find_device(name: str) -> torch.device:
    """Return the device of a name.

    Raises:
        InputError: this machine has no such device, or the device computes nothing (``meta``).
    """
    try:
        device = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # no such device, or none of it here
        raise InputError(f"device {name!r}: {next(iter(str(error).splitlines()), type(error).__name__)}") from error
    if device.type == "meta":
        raise InputError(f"device {name!r} computes nothing; give one such as cpu or cuda")
    return device


def subject_of(name: str, mixer: MixerFactory | None, pretrained: bool, device: torch.device) -> Subject:
    """Return a subject whose model is built for the aspect of each image; the shorter side is the model's own.

    It refuses images whose sides differ by more than `MOST_RATIO`, by an `InputError`.

    Args:
        name: name of a timm model.
        mixer: the mixer that replaces its attention; None keeps the attention.
        pretrained: whether it starts from timm's released weights; a mixer's further weights are random.
        device: the device it runs on.
    """

    @lru_cache(maxsize=4)
    def build(size: tuple[int, int] | None) -> nn.Module:
        with seeded(0):
            built = build_model(name, num_classes=CLASSES, image_size=size, mixer=mixer, pretrained=pretrained)
        return built.to(device)

    facts = getattr(build(None), "pretrained_cfg", {})
    patch = getattr(getattr(build(None), "patch_embed", None), "patch_size", COARSEST)
    patches = patch if isinstance(patch, tuple) else (patch, patch)
    shorter = min(facts.get("input_size", (3, SHORTER, SHORTER))[1:])

    def prepare(image: Tensor) -> Tensor:
        height, width = image.shape[1:]
        if max(height, width) > MOST_RATIO * min(height, width):
            raise InputError(
                f"an image of {width} x {height} pixels: one side is over {MOST_RATIO} times the other, and a model "
                "that is built for its aspect would have too many tokens; crop it"
            )
        scale = shorter / min(image.shape[1:])
        sides = zip(image.shape[1:], patches, strict=True)
        size = [max(1, round(side * scale / patch)) * patch for side, patch in sides]
        return v2.functional.resize(image, size, v2.InterpolationMode.BICUBIC, antialias=True)

    return Subject(
        model=build,
        prepare=prepare,
        class_names=_imagenet() if pretrained and facts.get("num_classes") == CLASSES else None,
        **{key: facts[key] for key in ("mean", "std") if key in facts},
    )


class Unclicked(nn.Module):
    """The encoder of an interactive model on images without a click or a box, for what looks at its attention.

    Its layers are those of the backbone: the head reads clicks, and does not run.

    Args:
        model: the model.
    """

    def __init__(self, model: InteractiveModel) -> None:
        super().__init__()
        self.backbone = model.backbone
        self._encode = model.encode

    def forward(self, images: Tensor) -> Tensor:
        """Return the features (B, C, h, w) of images (B, 3, H, W), normalised."""
        none = Clicks(torch.zeros(len(images), 0, 2), torch.zeros(len(images), 0, dtype=torch.int64))
        return self._encode(images, none.to(images.device)).maps


def _imagenet() -> list[str]:
    """Return the short names of ImageNet's 1000 classes, in the order of the model's outputs."""
    info = ImageNetInfo("imagenet-1k")
    return [info.index_to_description(label).partition(",")[0] for label in range(CLASSES)]
