"""Square Attack: a random search that needs the logits alone, so that hidden gradients do not stop it.

    x' <- x_best, but x ± eps in a random square, a sign for each channel;    kept where margin(x') < margin(x_best)

M. Andriushchenko, F. Croce, N. Flammarion, M. Hein, Square Attack: a Query-efficient Black-box Adversarial Attack via
Random Search, ECCV 2020 (algorithms 1 and 2, norm Linf), with the first square and the margin of AutoAttack's. The
package that AutoAttack is from has it too, but draws for the whole batch at once, so that what happens to an image
there depends on the others and on how many of them have given in; here every image has draws of its own.
"""

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from attention_zoo.attacks.base import Attack, Norm, Watched, radius
from attention_zoo.attacks.losses import losses_of
from attention_zoo.domains import Domain, PositiveInt, Seed
from attention_zoo.seeding import derive_seed

SQUARE_SALT = 0x54
"""A number that keeps the seeds of squares apart from other seeds of a sample."""

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After so many of 10,000 queries the area of the squares is halved."""

PIECE = 64
"""The number of queries that an image draws for at a time; changing it changes what is drawn."""

Share = Annotated[float, Domain(above=0, most=1)]


class Square(Attack):
    """Square Attack in the norm Linf: needs no gradients.

    Images that the model gets wrong are queried no more. The draws of an image follow from the seed and its number.

    Args:
        eps: radius of the ball, of pixels in 0..1; a number or a quotient such as ``4/255``.
        queries: the most passes of an attacked image through the model; the search starts at stripes, which is one.
        first_square: share of the image that the first squares cover; it falls as queries are used up. 0.8 is
            AutoAttack's.
        seed: seed of the draws.
        images: the most images that a test attacks, evenly spread; None attacks as many as other attacks do.

    Raises:
        InputError: an argument is out of range.
    """

    norm: Norm = "Linf"
    eps: float

    def __init__(
        self,
        eps: float | str = 1 / 255,
        queries: PositiveInt = 5000,
        *,
        first_square: Share = 0.8,
        seed: Seed = 0,
        images: PositiveInt | None = None,
    ) -> None:
        self.eps, self.queries, self.first_square, self.seed = radius(eps, self.norm), queries, first_square, seed
        self.images = images

    def perturb(self, model: Watched, pixels: Tensor, label: Tensor, index: Sequence[int]) -> Tensor:
        """Attack one batch for `Attack.run`."""
        with torch.no_grad():
            return self._search(model, pixels, label, index)

    def _search(self, model: Watched, pixels: Tensor, label: Tensor, index: Sequence[int]) -> Tensor:
        """Return the images after the last query; ``withstands`` are the places of those that go on."""
        model.enter("", self.queries + 1)
        best, margin = pixels.clone(), _margin(model(pixels), label)
        draws = Draws([derive_seed(self.seed, SQUARE_SALT, number) for number in index], pixels)
        candidates = (pixels + self.eps * draws.stripes(pixels.shape[-1])).clamp(0, 1)
        for query in range(self.queries):
            withstands = margin.isfinite().nonzero().flatten()
            if not len(withstands):
                break
            image = pixels[withstands]
            if query:
                places, signs = draws.square(query - 1, withstands)
                chosen = _windows(places, self._side(query, image), image)
                inside = (image + self.eps * signs[:, :, None, None]).clamp(0, 1)
                candidates = torch.where(chosen[:, None], inside, best[withstands])
            else:
                candidates = candidates[withstands]
            found = _margin(model(candidates), label[withstands])
            better = (found > margin[withstands]) | (query == 0)
            best[withstands[better]], margin[withstands[better]] = candidates[better], found[better]
        return best

    def _side(self, query: int, pixels: Tensor) -> int:
        """Return the side of the square of a query, in pixels."""
        height, width = pixels.shape[-2:]
        passed = 10_000 * query / self.queries
        share = self.first_square / 2 ** sum(passed > limit for limit in HALVINGS)
        return min(max(round((share * height * width) ** 0.5), 1), height, width)


class Draws:
    """The random numbers of a batch of images, each image's from a generator of its own.

    They are drawn for `PIECE` queries at a time and for the images that are still attacked, so that memory does not
    grow with the queries; what an image draws for a query depends neither on their number nor on the other images.
    The CPU draws, the same for every device.

    Args:
        seeds: the seed of each image.
        pixels: (B, C, H, W), the images.
    """

    def __init__(self, seeds: Sequence[int], pixels: Tensor) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.channels, self.device = pixels.shape[1], pixels.device
        self._places = torch.empty(len(pixels), PIECE, 2, device=self.device)
        self._signs = torch.empty(len(pixels), PIECE, self.channels, dtype=torch.int8, device=self.device)

    def stripes(self, width: int) -> Tensor:
        """Return the signs of the stripes, (B, C, 1, width) int8; to be drawn first."""
        return torch.stack([_signs((self.channels, 1, width), each) for each in self.generators]).to(self.device)

    def square(self, number: int, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return where a square lies in each of some images, and the signs of its channels.

        Args:
            number: the place of the square among those of an image, from 0; to be asked for one after the other.
            images: (n,) int64, the places of the images in the batch; none that was left out before.

        Returns:
            Places (n, 2) float32 in 0..1 and signs (n, C) int8.
        """
        piece = number % PIECE
        if not piece:
            drawing = [self.generators[image] for image in images.tolist()]
            self._places[images] = torch.stack([torch.rand(PIECE, 2, generator=each) for each in drawing]).to(
                self.device
            )
            self._signs[images] = torch.stack([_signs((PIECE, self.channels), each) for each in drawing]).to(
                self.device
            )
        return self._places[images, piece], self._signs[images, piece]


def _windows(places: Tensor, side: int, pixels: Tensor) -> Tensor:
    """Return which pixels are in squares of a side, (B, H, W) bool; places (B, 2) in 0..1 stand for all of them."""
    inside = []
    for place, size in zip(places.unbind(1), pixels.shape[-2:], strict=True):
        first = (place * (size - side + 1)).long()[:, None]
        line = torch.arange(size, device=pixels.device)
        inside.append((line >= first) & (line < first + side))
    return inside[0][:, :, None] & inside[1][:, None, :]


def _signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Return a tensor of -1 and 1, int8."""
    return torch.randint(2, shape, generator=generator, dtype=torch.int8) * 2 - 1


def _margin(logits: Tensor, label: Tensor) -> Tensor:
    """Return the largest other logit minus the right one, (B,); infinite where the model errs, also by a tie."""
    logits = logits.float()
    return losses_of(logits, label, "margin").masked_fill(logits.argmax(1) != label, torch.inf)
