"""Train a small ViT for each reading on the digits, and draw what the last layer of each does.

    python results/readings/draw.py                      # all of them; those that are trained already are only drawn
    python results/readings/draw.py --readings '[Window, Pro]'

The settings of the readings are those of the sweeps over all mixers, whose ViT has as many tokens. The names of the
figures, and what they show, are `FIGURES`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import auto_cli
from torch import Tensor

import attention_zoo as az
from attention_zoo.analysis import (
    LayerInput,
    Pictures,
    Subject,
    attention_pictures,
    cluster_pictures,
    side_by_side,
    step_pictures,
)
from attention_zoo.analysis.top_down import Look, top_down_sheet
from attention_zoo.cli.main import main as run
from attention_zoo.cli.maps import trained
from attention_zoo.mixers.protocols import Assignments, Steps
from attention_zoo.sweeps.axes import options
from datamodules import Digits
from datamodules.corruptions import corruptions_at

Read = Callable[[LayerInput], Pictures]
HERE, CONFIGS = Path(__file__).parent, Path(__file__).parents[2] / "configs"
SWEEPS = ("cifar10_related.yaml", "cifar10_mixers.yaml")
"""The sweeps that have settings of all self-mixers for 8 x 8 tokens; of one that both have, those of the last."""
BASELINE, SIZE, EPOCHS, DIGITS = "DotProduct", 16, 10, (3, 9)
"""What readings are drawn beside; the pixels of a side; the epochs of a training; the digits that are drawn."""
TOP_DOWN = "TopDown"
"""The reading that is no mixer but a second pass: its figure has both passes, asked for one digit and for the other."""
TOKEN = "4,4"
"""The token whose reading is drawn beside that of the average token, by row and column of 8 x 8 from 0."""
OF_CHANNELS = ("ChannelAttention", "CrossCovariance", "ToST")
"""The readings in which a token takes from itself alone, once channels or moments are held: their maps are diagonal."""
FIGURES = {
    "": "who reads whom: the average token and the one of `TOKEN`, the baseline beside the reading",
    "_written": "how much the layer writes into each token, of the readings `OF_CHANNELS`",
    "_steps": "what the average token reads after each step, of recurrent readings",
    "_assignments": "which centre a token belongs to, of clusterings",
}
"""What figures show, by the ends of their names."""


def settings() -> dict[str, Any]:
    """Return the settings of each self-mixer, as an axis of a sweep has them."""
    axes: dict[str, Any] = {}
    for sweep in SWEEPS:
        axes |= yaml.safe_load((CONFIGS / "sweeps" / sweep).read_text(encoding="utf-8"))["axes"]["mixer"]
    return {name: axes[name] for name in az.list_mixers() if az.mixer_info(name).kind == "self"}


def train(name: str, setting: Any, runs: Path) -> Path:
    """Return the checkpoint of a reading, which is trained if it has none."""
    checkpoint = runs / name / "checkpoints" / "last.ckpt"
    if not checkpoint.is_file():
        recipe = {
            "config": "configs/classification/digits.yaml",
            "data.image_size": SIZE,
            "data.num_workers": 0,
            "trainer.max_epochs": EPOCHS,
            "trainer.enable_progress_bar": False,
            "trainer.default_root_dir": runs / name,
        }
        words = [word for key, value in recipe.items() for word in (f"--{key}", str(value))]
        run(["fit", *words, *options("model.mixer", setting)])
    return checkpoint


def digits() -> dict[str, Tensor]:
    """Return the first test image of each of the digits, uint8 (3, size, size), by name."""
    data = Digits(image_size=SIZE)
    data.setup("test")
    split = data.splits["test"]
    labels = list(split.columns["label"])
    return {f"digit {digit}": split.images[labels.index(digit)] for digit in DIGITS}


def by_tokens(seen: LayerInput) -> Pictures:
    """Return what the average token and the one of `TOKEN` read from each token."""
    queries = {"average token": "mean", f"token {TOKEN}": TOKEN}
    return {title: attention_pictures(seen, query)[""] for title, query in queries.items()}


@torch.no_grad()
def written(seen: LayerInput) -> Pictures:
    """Return the length of what the layer writes into each token."""
    return {"length of what is written": seen.on_grid(seen.mixer(seen.tokens, **seen.signal).norm(dim=-1))}


def draw(name: str, end: str, subjects: Sequence[Subject], images: dict[str, Tensor], read: Read) -> None:
    """Write the figure of a reading whose name has this end; that of the baseline has no other one beside it."""
    corruptions = corruptions_at(("gaussian_noise",), 5) if read in (by_tokens, written) else None
    figure = side_by_side(subjects, images, read, corruptions=corruptions)
    figure.savefig(HERE / f"{name}{end}.webp", dpi=80)


def draw_top_down(subject: Subject, images: dict[str, Tensor]) -> None:
    """Write the figure of a model that looks twice."""
    look = Look([str(digit) for digit in DIGITS], (1.0, 10.0), (), "last", "plain")
    top_down_sheet([subject], images, look).savefig(HERE / f"{TOP_DOWN}.webp", dpi=80)


def main(readings: list[str] | None = None, runs: Path = Path("runs/readings")) -> None:
    """Write the figures.

    Args:
        readings: names of self-mixers, or TopDown; None is all of them.
        runs: folder of the trainings.
    """
    known, images = settings(), digits()
    baseline = load(train(BASELINE, known[BASELINE], runs))
    first = {name: images[name] for name in list(images)[:1]}
    for name in readings or [*known, TOP_DOWN]:
        if name == TOP_DOWN:
            draw_top_down(load(train(name, {"model.top_down": "absvit"}, runs)), images)
            continue
        reading = load(train(name, known[name], runs))
        both = [reading] if name == BASELINE else [baseline, reading]
        kind: tuple[str, Read] = ("_written", written) if name in OF_CHANNELS else ("", by_tokens)
        draw(name, kind[0], both, images, kind[1])
        mixer = next(part for part in reading.model((SIZE, SIZE)).modules() if isinstance(part, az.SelfMixer))
        if isinstance(mixer, Steps):
            draw(name, "_steps", [reading], first, step_pictures)
        if isinstance(mixer, Assignments):
            draw(name, "_assignments", [reading], first, cluster_pictures)


def load(checkpoint: Path) -> Subject:
    """Return the model of a checkpoint."""
    return trained(checkpoint, torch.device("cpu"), trust=False)[0]


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
