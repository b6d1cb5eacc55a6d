"""Draw what trained models look at in pictures of two objects when asked for one, and what is decoded of these.

    python results/top_down/pictures.py RUN/checkpoints/last.ckpt ... --classes '[cat, ship]'

Every model gives <mode>.png: bottom-up, how much each token is what is asked for, and top-down for each alpha, as in
Figures 2.4, 2.5, 2.7 and 2.8 of the technical report EECS-2024-49; a model that feeds back also <mode>_decoded.png, as
in Figure 2.9, with how much better the half that is asked for is decoded than the other. Norms are of the layer that
the study's control weighs, the last.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from jsonargparse import auto_cli
from torch import Tensor
from torch.utils.data import DataLoader

from attention_zoo.analysis import Subject
from attention_zoo.analysis.decoded import Decoded, Mask, decode_image, decoded_sheet
from attention_zoo.analysis.decoder import fit_decoder
from attention_zoo.analysis.top_down import Look, Norms, require_top_down, top_down_sheet
from attention_zoo.cli.lightning import load_classification
from attention_zoo.domains import PositiveFloat, PositiveInt
from attention_zoo.mixers.base import SelfMixer
from attention_zoo.models.top_down import DECODED, TopDown
from datamodules import TwoObjects
from datamodules.base import ImageDataModule

FIT = 1000
"""The most pictures of two validation images that a decoder is fitted on."""


def main(
    checkpoints: list[Path],
    classes: tuple[str | int, str | int],
    pictures: PositiveInt = 3,
    alphas: list[PositiveFloat] | None = None,
    norms: Norms = "plain",
    out: Path = Path("results/top_down"),
) -> None:
    """Write the figures.

    Args:
        checkpoints: of image classification with a top-down pass, one of each mode.
        classes: the two classes of every picture, each of which is asked for in turn.
        pictures: number of pictures.
        alphas: scales of what is sent back (default 1, 10 and 30); images are decoded with the model's own.
        norms: draw the norms of tokens as they are, or cut as the released demonstration does.
        out: folder to write to.
    """
    out.mkdir(parents=True, exist_ok=True)
    asked = [str(name) for name in classes]
    look = Look(priors=asked, alphas=alphas or [1, 10, 30], layer="last", norms=norms)
    for checkpoint in checkpoints:
        _, task, data = load_classification(checkpoint)
        model = require_top_down(task.model)
        shown = two_objects(data, asked, 2 * pictures, "test")
        fit_to(model, shown.image_size)
        subject = Subject(lambda _, model=model: model, lambda image: image, data.mean, data.std, data.class_names)
        images = {f"picture {number}": shown.splits["test"].images[2 * number - 2] for number in range(1, pictures + 1)}
        top_down_sheet([subject], images, look).savefig(out / f"{model.mode}.png", dpi=80)
        if model.mode in DECODED:
            decoded = decode(subject, model, images, two_objects(data, None, FIT, "val"), shown, asked)
            decoded_sheet(decoded).savefig(out / f"{model.mode}_decoded.png", dpi=80)


def two_objects(data: ImageDataModule, classes: list[str] | None, pairs: int, part: str) -> TwoObjects:
    """Return pictures of two images each of some data, both orders in turn, ready to be read."""
    pictures = TwoObjects(images=data, pairs=pairs, part=part, classes=classes, batch_size=100)
    pictures.prepare_data()
    pictures.setup("test")
    return pictures


def fit_to(model: TopDown, size: tuple[int, int]) -> None:
    """Make a model take images of another size, with positions resampled."""
    vit = model.model
    vit.set_input_size(size)
    for mixer in vit.modules():
        if isinstance(mixer, SelfMixer):
            mixer.set_grid(vit.patch_embed.grid_size)


def decode(
    subject: Subject,
    model: TopDown,
    images: dict[str, Tensor],
    fitted_on: TwoObjects,
    shown: TwoObjects,
    classes: list[str],
) -> dict[str, Decoded]:
    """Return what is decoded of each image under each prior, by their names."""
    decoder = fit_decoder(model, batches_of(fitted_on), mean=fitted_on.mean, std=fitted_on.std)
    found = {}
    for number, (name, image) in enumerate(images.items()):
        first, second = (shown.class_names[label] for label in shown.splits["test"].columns["labels"][2 * number])
        halves = dict(zip((first, second), shown.splits["test"].columns["masks"][2 * number], strict=True))
        for asked in classes:
            mask = Mask(halves[asked], ~halves[asked])
            decoded = decode_image(subject, decoder, image, [asked], mask=mask)
            found[f"{name}\nprior {asked}"] = _same_titles(decoded)
    return found


def batches_of(pictures: TwoObjects) -> Iterator[Tensor]:
    """Yield normalised batches (B, 3, H, W) of pictures of two objects."""
    loader: DataLoader[dict[str, Tensor]] = pictures.test_dataloader()
    for batch in loader:
        yield batch["image"]


def _same_titles(decoded: Decoded) -> Decoded:
    """Return what was decoded without the prior in the names of the signals, as each row has its own."""
    return replace(
        decoded,
        pictures={name.partition("\n")[0]: picture for name, picture in decoded.pictures.items()},
        ratios={name.partition("\n")[0]: ratios for name, ratios in decoded.ratios.items()},
    )


if __name__ == "__main__":
    auto_cli(main)
