"""Pictures on a token grid drawn over their image, and a sheet of them.

tile = overlay(image, picture)        # (3, H, W) in 0..1 and (height, width) -> (H, W, 3)
sheet([[Cell(image), Cell(image, picture, "cat (93 %)")]], titles=["image", "VarsD"]).savefig("maps.png")
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:  # tasks ask who reads whom too, and draw nothing
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TILE, GAP, LINE, LEGEND = 1.7, 0.06, 0.17, 0.36
"""Lengths in inches: a square tile, the gap between two, a line of text, the bar of colours with its labels."""

FONT, LETTERS = 9, 14
"""The size of the text in points, and how many letters of it always fit into an inch."""

FINE = 256
"""The approximate least number of pixels on the shorter side of a tile."""

FLAT = 1e-5
"""Entries that differ by no more than this part of the largest are equal: rounding must not look like attention."""

BLUE = (0.3, 0.75, 1.0)
"""The colour (red, green, blue in 0..1) of the most negative entries."""


@dataclass(frozen=True)
class Cell:
    """A tile of a sheet.

    Attributes:
        image: (3, H, W) uint8, the image.
        picture: the picture to draw over it, (height, width) on the token grid; None shows the image alone.
        caption: the text below the tile.
    """

    image: Tensor
    picture: Tensor | None = None
    caption: str = ""


def overlay(image: Tensor, picture: Tensor) -> Tensor:
    """Return a picture (height, width) on the token grid drawn over its image (3, H, W) in 0..1, as (H, W, 3).

    The image is in grey and the colour is in the picture, scaled as `scaled` says: from dark to bright yellow for what
    is read, blue for negative entries, stronger the further from zero. Integers are labels, a colour each; where
    they are negative the image stays grey.
    """
    size = image.shape[-2:]
    grey = (image * image.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)[..., None]  # (H, W, 1)
    if not picture.is_floating_point():
        large = F.interpolate(picture[None, None].float(), size, mode="nearest-exact")[0, 0].long()
        import matplotlib

        tab20: Any = matplotlib.colormaps["tab20"]
        coloured = 0.45 * grey + 0.55 * torch.tensor(tab20.colors)[large % 20]
        return torch.where(large[..., None] < 0, grey, coloured)
    values = F.interpolate(scaled(picture)[None, None], size, mode="bilinear")[0, 0]
    return 0.4 * grey + 0.6 * _shades(values)


def scaled(picture: Tensor) -> Tensor:
    """Return a picture scaled to -1..1: its least entry becomes 0 (or 0 stays 0 if there are negative entries)."""
    picture = picture.float()
    least, largest = picture.min().clamp(min=0), picture.abs().max()
    if largest - least <= FLAT * largest:
        return torch.zeros_like(picture)
    return (picture - least) / (largest - least)


def sheet(rows: Sequence[Sequence[Cell]], titles: Sequence[str], names: Sequence[str] = ()) -> "Figure":
    """Return a figure of tiles, with a title above each column, a name before each row and the bar of colours below.

    Every picture has a scale of its own, so the bar of colours bears no numbers. Nothing of matplotlib's global
    state is used.

    Args:
        rows: the tiles, as many in each row as there are titles.
        titles: one for each column.
        names: one for each row, or none at all.
    """
    from matplotlib.figure import Figure

    aspects = [max(cell.image.shape[1] / cell.image.shape[2] for cell in row) for row in rows]
    width = TILE * min(max(1 / min(aspects), 1), 2)  # images that are wide only would be low
    heights = [width * aspect for aspect in aspects]
    above = [_wrapped(title, width) for title in titles]
    before = [_wrapped(name, height) for name, height in zip(names or [""] * len(rows), heights, strict=True)]
    below = [LINE * any(cell.caption for cell in row) for row in rows]
    left, top = (LINE * max(text.count("\n") + 1 for text in texts) + GAP for texts in (before, above))
    pictures = [cell.picture for row in rows for cell in row if cell.picture is not None]
    read = [picture for picture in pictures if picture.is_floating_point()]
    bottom = GAP * len(rows) + (LEGEND if read else 0)
    size = left + len(titles) * (width + GAP), top + sum(heights) + sum(below) + bottom
    figure = Figure(size, dpi=150)
    edge = size[1] - top
    for row, name, height, caption in zip(rows, before, heights, below, strict=True):
        edge -= height
        for column, cell in enumerate(row):
            _tile(_axes(figure, left + column * (width + GAP), edge, width, height), cell)
        _write(figure, left - GAP, edge + height / 2, name, rotation=90, ha="right", va="center")
        edge -= caption + GAP
    for column, title in enumerate(above):
        _write(figure, left + column * (width + GAP) + width / 2, size[1] - top + GAP, title, ha="center", va="bottom")
    if read:
        _legend(figure, negative=any(bool((picture < 0).any()) for picture in read))
    return figure


def _wrapped(text: str, inches: float) -> str:
    """Return ``text`` broken into lines that fit into a length in inches."""
    return "\n".join(part for line in text.split("\n") for part in textwrap.wrap(line, max(8, int(inches * LETTERS))))


def _axes(figure: "Figure", left: float, bottom: float, width: float, height: float) -> "Axes":
    """Add axes at a place given in inches and return them."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def _write(figure: "Figure", left: float, bottom: float, text: str, **style: Any) -> None:
    """Write text at a place given in inches."""
    across, up = figure.get_size_inches()
    figure.text(left / across, bottom / up, text, fontsize=FONT, linespacing=1.1, parse_math=False, **style)


def _tile(axes: "Axes", cell: Cell) -> None:
    times = max(1, FINE // min(cell.image.shape[1:]))  # small images keep their pixels, what is over them is smooth
    image = cell.image.repeat_interleave(times, 1).repeat_interleave(times, 2).float() / 255
    shown = image.permute(1, 2, 0) if cell.picture is None else overlay(image, cell.picture)
    axes.imshow(shown.clamp(0, 1).numpy(), interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_xlabel(cell.caption, fontsize=FONT, labelpad=2, parse_math=False)


def _legend(figure: "Figure", negative: bool) -> None:
    """Draw the bar of colours at the bottom of the figure."""
    across = figure.get_size_inches()[0]
    axes = _axes(figure, 0.3 * across, LEGEND - 2 * GAP, 0.4 * across, GAP)
    places = torch.linspace(-1 if negative else 0, 1, 256)
    axes.imshow(_shades(places)[None].numpy(), aspect="auto", extent=(float(places[0]), 1, 0, 1))
    labels = {-1: "negative", 0: "none", 1: "most"} if negative else {0: "least", 1: "most"}
    axes.set_xticks(list(labels), labels=list(labels.values()), fontsize=FONT)
    axes.set_yticks([])
    axes.tick_params(length=0, pad=2)
    axes.spines[:].set_visible(False)


def _shades(values: Tensor) -> Tensor:
    """Return the colours (..., 3) of values in -1..1: black at zero, bright yellow at 1, blue at -1."""
    import matplotlib

    read = torch.from_numpy(matplotlib.colormaps["inferno"](values.clamp(0, 1).numpy())[..., :3]).float()
    return torch.where(values[..., None] < 0, values.new_tensor(BLUE) * -values[..., None], read)
