"""What of an image the network sees, and the box that an annotator would draw around the object."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional

from datamodules.interactive.objects import IGNORE, OBJECT, bounding_box


class Region(NamedTuple):
    """A rectangle in an image; may reach out of it.

    Attributes:
        top: first row.
        left: first column.
        height: rows.
        width: columns.
    """

    top: int
    left: int
    height: int
    width: int


class View(NamedTuple):
    """What the network is given of a sample.

    Attributes:
        image: (3, H, W) uint8.
        mask: (H, W) uint8: 1 object, 0 background, 255 ignored and all that is outside of the image.
        box: (4,) float32, row and column of two opposite corners, roughly around the object.
    """

    image: Tensor
    mask: Tensor
    box: Tensor


@dataclass(frozen=True)
class Viewing:
    """How samples are cut out of images.

    Gabbur et al. (NeurIPS 2021, appendix C.3) crop the object's box with a finite padding and noise on its corners and
    do not resize the image, but do not say how much padding and noise, nor what becomes of objects that are larger than
    the network's input: those are made smaller here.

    Attributes:
        size: height and width of what the network is given.
        padding: least distance of the box from the border of the view, as a share of the box's sides.
        noise: a corner moves by up to this share of the box's sides, each way.
        fill: red, green and blue outside of the image, 0..255.
    """

    size: tuple[int, int]
    padding: float
    noise: float
    fill: tuple[int, int, int]

    def around(self, image: Tensor, mask: Tensor) -> View:
        """The view around the object, at the image's scale where the object fits."""
        box = self.noisy_box(mask)
        height, width = mask.shape
        return self.cut(image, mask, box, self.region(box, (height, width)))

    def somewhere(self, image: Tensor, mask: Tensor, scale: tuple[float, float]) -> View:
        """A view at a random place and scale with at least a pixel of the object in it (RITM's crops).

        Args:
            image: (3, H, W) uint8.
            mask: (H, W) uint8.
            scale: least and largest factor by which the image is made larger.
        """
        factor = scale[0] + (scale[1] - scale[0]) * torch.rand(()).item()
        height, width = (max(1, round(side / factor)) for side in self.size)
        pixels = (mask == OBJECT).nonzero()
        y, x = pixels[torch.randint(len(pixels), ())].tolist()
        top, left = y - int(torch.randint(height, ())), x - int(torch.randint(width, ()))
        top, left = _within(top, height, mask.shape[0]), _within(left, width, mask.shape[1])
        region = Region(top, left, height, width)
        visible = crop(mask[None], region, (IGNORE,))[0]
        box = self.noisy_box(visible) + torch.tensor([top, left, top, left])
        return self.cut(image, mask, box, region)

    def whole(self, image: Tensor, mask: Tensor) -> View:
        """All of the image as it is."""
        return View(image, mask, self.noisy_box(mask))

    def noisy_box(self, mask: Tensor) -> Tensor:
        """Two opposite corners of a mask's bounding box, each moved at random: top left and bottom right, or others."""
        top, left, bottom, right = bounding_box(mask == OBJECT)
        sides = torch.tensor([bottom - top + 1, right - left + 1] * 2)
        box = torch.tensor([top, left, bottom, right]) + (2 * torch.rand(4) - 1) * self.noise * sides
        return box if torch.rand(()) < 0.5 else box[[2, 1, 0, 3]]

    def region(self, box: Tensor, image: tuple[int, int]) -> Region:
        """Where the view of a box is: the box with its padding in the middle, or nearer to a border of the image.

        Args:
            box: (4,), two opposite corners.
            image: height and width of the image.
        """
        low, high = torch.minimum(box[:2], box[2:]), torch.maximum(box[:2], box[2:])
        needed = (high - low + 1) * (1 + 2 * self.padding)
        factor = max(1.0, *(needed / torch.tensor(self.size)).tolist())
        height, width = (round(side * factor) for side in self.size)
        centre = ((low + high) / 2).tolist()
        top, left = round(centre[0] - (height - 1) / 2), round(centre[1] - (width - 1) / 2)
        return Region(_within(top, height, image[0]), _within(left, width, image[1]), height, width)

    def around_image(self, image: tuple[int, int]) -> Region:
        """The view of a whole image of height and width ``image``, without padding."""
        factor = max(1.0, image[0] / self.size[0], image[1] / self.size[1])
        height, width = (round(side * factor) for side in self.size)
        return Region((image[0] - height) // 2, (image[1] - width) // 2, height, width)

    def cut(self, image: Tensor, mask: Tensor, box: Tensor, region: Region) -> View:
        """The view of a region; the box is given in the image's pixels."""
        fill = (*self.fill, *[0] * (len(image) - len(self.fill)))  # further channels are masks
        image, mask = crop(image, region, fill), crop(mask[None], region, (IGNORE,))
        if (region.height, region.width) != self.size:
            smaller = functional.resize(mask, list(self.size), interpolation=functional.InterpolationMode.NEAREST)
            if not (smaller == OBJECT).any():  # so thin that no pixel's centre is on it
                smaller[F.adaptive_max_pool2d((mask == OBJECT).float(), self.size) > 0] = OBJECT
            image, mask = functional.resize(image, list(self.size), antialias=True), smaller
        return View(image, mask[0], to_view(box.view(2, 2), region, self.size).flatten())


def _within(start: int, length: int, total: int) -> int:
    """Where a stretch begins that shows nothing outside 0..total, if it fits; else all of that is in its middle."""
    return min(max(start, 0), total - length) if length <= total else (total - length) // 2


def to_view(points: Tensor, region: Region, size: tuple[int, int]) -> Tensor:
    """Points (..., 2) of an image as points of a region that was resized to ``size``."""
    origin = torch.tensor([region.top, region.left])
    scale = torch.tensor([size[0] / region.height, size[1] / region.width])
    return (points - origin + 0.5) * scale - 0.5


def crop(image: Tensor, region: Region, fill: tuple[int, ...]) -> Tensor:
    """A region of an image (C, H, W); what is outside has the colour ``fill``, a value for each channel."""
    height, width = image.shape[-2:]
    rows = max(region.top, 0), min(region.top + region.height, height)
    columns = max(region.left, 0), min(region.left + region.width, width)
    if region.height == rows[1] - rows[0] and region.width == columns[1] - columns[0]:
        return image[:, slice(*rows), slice(*columns)]
    view = torch.tensor(fill, dtype=image.dtype)[:, None, None].repeat(1, region.height, region.width)
    if rows[0] < rows[1] and columns[0] < columns[1]:
        inside = image[:, slice(*rows), slice(*columns)]
        top, left = rows[0] - region.top, columns[0] - region.left
        view[:, top : top + inside.shape[1], left : left + inside.shape[2]] = inside
    return view
