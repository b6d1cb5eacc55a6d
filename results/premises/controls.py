"""Ask why premises hold or fail in the trained networks of a study of mixers: the controls of this page.

    python results/premises/controls.py RUNS OUT          # RUNS holds mixer=NAME,seed=0/{config.yaml,checkpoints}

In OUT, untrained.csv has the premises of networks of the same configs before any training; codes.csv how near VARS'
codes come to the best after more steps, from codes of zeros, or without what was learned in the place of the Gram
matrix, and how nearly all atoms of a dictionary are one; features.csv how many random features it takes to read as
softmax does; smoothing.csv how well a token's neighbours on the grid foretell its values; accuracy.csv what the
networks are worth when a layer computes what its reading promises. Files that are there are not made again.
"""

import csv
import sys
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from types import MethodType
from typing import Any

import torch
import yaml
from torch import Tensor, nn

import attention_zoo as az
from attention_zoo.analysis.maps import LayerInput, observe
from attention_zoo.analysis.premises import ANY, examine, findings
from attention_zoo.functional.diagnostics import leave_one_out_error, row_distance
from attention_zoo.functional.dictionaries import Dictionary
from attention_zoo.functional.random_features import orthogonal_directions
from attention_zoo.functional.sparse import Lista
from attention_zoo.mixers import Performer
from attention_zoo.mixers.vars.lista import SparseReconstruction
from attention_zoo.mixers.vars.premise import converged, largest_eigenvalue, sparse_coding
from datamodules import CIFAR10
from tasks import Classification

SPARSE = ("VarsD", "VarsS", "VarsSD")
BEST = "best codes"
PREMISED = ("DotProduct", "DoublyNormalized", "Performer", "Probabilistic", "KMeans", "Cluster", *SPARSE)
IMAGES, CODED, JUDGED, AT_ONCE = 64, 8, 1000, 50
"""The numbers of test images that layers are asked on, that are coded in many steps or redrawn, that accuracies are of,
and that are judged at a time."""
SLOW = 200
"""The number of images that accuracies of networks with convolutions for a dictionary are of."""
STEPS = (0, 1, 3, 10, 30, 100)
FEATURES = (64, 256, 1024)
DRAWS = 3
"""The number of draws of random features whose errors are averaged."""

Problem = tuple[Dictionary, Any]


def main(runs: str, out: str) -> None:
    """Make the tables that are not there yet."""
    images, labels = test_images()
    made: dict[str, tuple[list[str], Callable[[], Iterator[list[Any]]]]] = {
        "features": (["model", "network", "layer", "features", "share read elsewhere"], partial(few, runs, images)),
        "smoothing": (["model", "network", "layer", "read", "error", "holds"], partial(smoothing, runs, images)),
        "untrained": (
            ["model", "measure", "layer", "mean", "compared with", "holds"],
            partial(untrained, runs, images),
        ),
        "codes": (["model", "network", "way", "layer", "measure", "steps", "value"], partial(codes, runs, images)),
        "accuracy": (["model", "way", "accuracy", "images"], partial(accuracies, runs, images, labels)),
    }
    Path(out).mkdir(parents=True, exist_ok=True)
    for name, (head, rows) in made.items():
        if not (path := Path(out) / f"{name}.csv").exists():
            write(path, head, list(rows()))


def write(path: Path, head: list[str], rows: Iterable[list[Any]]) -> None:
    """Write a table of rows under a head, numbers to five digits."""
    said = [[f"{cell:.5g}" if isinstance(cell, float) else cell for cell in row] for row in rows]
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *said])


def test_images() -> tuple[Tensor, Tensor]:
    """Return `JUDGED` normalised images (n, 3, 32, 32), spread evenly over the test data, and their labels (n)."""
    data = CIFAR10("data/cifar10", num_workers=0)
    data.setup("test")
    dataset = data.dataset("test")
    places = torch.linspace(0, len(dataset) - 1, JUDGED).round().long().tolist()
    batch = data.collate("test")([dataset[place] for place in places])
    return batch["image"], batch["label"]


def network(runs: str, name: str, *, trained: bool = True) -> nn.Module:
    """Return the network of a run, with its last weights or as its config draws it."""
    folder = Path(runs) / f"mixer={name},seed=0"
    given = yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]
    options = {key: value for key, value in given["mixer"].get("init_args", {}).items() if value is not None}
    mixer = partial(getattr(az.mixers, name), **options)
    torch.manual_seed(0)
    task = Classification(given["model"], 10, (32, 32), mixer=mixer, model_args=given["model_args"])
    if trained:
        weights = torch.load(folder / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)
        task.load_state_dict(weights["state_dict"])
    return task.model.eval()


def networks(runs: str, names: Iterable[str]) -> Iterator[tuple[str, str, nn.Module]]:
    """Yield each network by its name, trained and untrained."""
    for name in names:
        yield name, "trained", network(runs, name)
        yield name, "untrained", network(runs, name, trained=False)


def spread_evenly(images: Tensor, number: int = IMAGES) -> Tensor:
    """Return so many of the images."""
    return images[torch.linspace(0, len(images) - 1, number).round().long()]


@torch.no_grad()
def layers(
    model: nn.Module, images: Tensor, number: int = IMAGES
) -> Iterator[tuple[int, LayerInput, Tensor, Tensor, Tensor]]:
    """Yield each layer, what it sees, and its queries, keys and values (B, H, N, D)."""
    for seen in observe(model, spread_evenly(images, number), "0-3").layers:
        yield seen.layer, seen, *seen.mixer.project(seen.tokens)


def untrained(runs: str, images: Tensor) -> Iterator[list[Any]]:
    """Yield what `premises` says of each mixer's own reading before training."""
    for name in PREMISED:
        model = network(runs, name, trained=False)
        for found in findings([examine(model, batch) for batch in spread_evenly(images).split(16)]):
            if found.reading != ANY:
                yield [name, found.measure, found.layer, found.mean, found.reference, found.holds]


@dataclass(frozen=True)
class FromZeros(Lista):
    """The iteration of eq. 1.12 from codes of zeros, in the place of Pᵀv."""

    def path(self) -> Iterator[Tensor]:
        """Yield the codes (..., A, D) before the first update and after each."""
        found = torch.zeros_like(self.drive)
        yield found
        for _ in range(self.steps):
            found = self.shrinkage.value(self.contract(found) + self.step_size * self.drive, self.lam * self.step_size)
            yield found


@dataclass(frozen=True)
class Best:
    """The best codes in the place of an iteration."""

    codes: Tensor

    def solve(self) -> Tensor:
        """Return the codes (B, G, A, E)."""
        return self.codes


def from_zeros(mixer: SparseReconstruction, q: Tensor, v: Tensor) -> Problem:
    """Return a layer's problem with the iteration from codes of zeros."""
    dictionary, lista = mixer.form.problem(mixer, q, v)
    return dictionary, FromZeros(**{each.name: getattr(lista, each.name) for each in fields(Lista)})


def solved(mixer: SparseReconstruction, q: Tensor, v: Tensor) -> Problem:
    """Return a layer's problem with its solution."""
    dictionary, lista = mixer.form.problem(mixer, q, v)
    return dictionary, Best(converged(dictionary, v, torch.as_tensor(lista.lam, dtype=v.dtype)))


@torch.no_grad()
def unlearned(mixer: SparseReconstruction) -> None:
    """Give the iteration the Gram matrix itself and the step of ISTA; lambda stays as it was learned."""
    for name in ("gamma", "gamma_static"):
        if (gamma := getattr(mixer, name, None)) is not None:
            gamma.copy_(torch.eye(len(gamma)))
    mixer.w2.fill_(1.0)


@torch.no_grad()
def codes(runs: str, images: Tensor) -> Iterator[list[Any]]:
    """Yield how near codes come to the best, step by step, and the share of the largest eigenvalue in the trace."""
    for name, which, model in networks(runs, SPARSE):
        for layer, seen, q, _, v in layers(model, images, CODED):
            plain = deepcopy(seen.mixer)
            unlearned(plain)
            plain_from_zeros = deepcopy(plain)
            plain_from_zeros.problem = MethodType(from_zeros, plain_from_zeros)
            ways = {"as it is": seen.mixer, "nothing learned": plain, "nothing learned, from zeros": plain_from_zeros}
            for way, mixer in ways.items() if which == "trained" else [("as it is", seen.mixer)]:
                mixer.steps = STEPS[-1]
                dictionary, lista = mixer.problem(q, mixer.split(v))
                for measure, found in sparse_coding(dictionary, lista, mixer.split(v)).items():
                    for steps in STEPS if found.values.dim() == 3 else ():
                        yield [name, which, way, layer, measure, steps, found.values[..., steps].mean().item()]
            drive = dictionary.encode(mixer.split(v))
            share = largest_eigenvalue(dictionary, drive) / drive.shape[2]  # atoms have unit length
            yield [name, which, "as it is", layer, "largest eigenvalue's share of the trace", "", share.mean().item()]


@torch.no_grad()
def few(runs: str, images: Tensor) -> Iterator[list[Any]]:
    """Yield what share of a row random features of fresh draws read elsewhere than softmax does; "own" are those kept.

    "none" reads all tokens alike.
    """
    for name, which, model in networks(runs, ("Performer", "DotProduct")):
        for layer, seen, q, k, v in layers(model, images, CODED):
            exact = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
            even = torch.full_like(exact, 1 / exact.shape[-1])
            yield [name, which, layer, "none", row_distance(even, exact).mean().item()]
            if isinstance(seen.mixer, Performer):
                own = seen.mixer.map_weights(q, k, v)
                yield [name, which, layer, "own", row_distance(own, exact).mean().item()]
            for number in FEATURES:
                far = [row_distance(redrawn(q, k, v, number, seed), exact).mean().item() for seed in range(DRAWS)]
                yield [name, which, layer, number, sum(far) / DRAWS]


def redrawn(q: Tensor, k: Tensor, v: Tensor, number: int, seed: int) -> Tensor:
    """Return who reads whom (B, H, N, N) by so many random features of a draw of their own."""
    heads, dim = q.shape[1], q.shape[3]
    mixer = Performer(heads * dim, heads)
    torch.manual_seed(1 + seed)
    mixer.rand_matrix = orthogonal_directions(heads, dim, number)
    return mixer.map_weights(q, k, v)


@torch.no_grad()
def smoothing(runs: str, images: Tensor) -> Iterator[list[Any]]:
    """Yield the leave-one-out error of a smoother by the map, by all others alike, and by the eight neighbours."""
    for name, which, model in networks(runs, ("DotProduct", "DoublyNormalized")):
        for layer, seen, q, k, v in layers(model, images):
            patches = v[:, :, seen.mixer.num_prefix_tokens :]
            weights = seen.mixer.map_weights(q, k, v)[:, :, -patches.shape[2] :, -patches.shape[2] :]
            even = torch.ones_like(weights)
            base = leave_one_out_error(even, patches)
            for read, tried in (("its map", weights), ("all alike", even), ("neighbours", near().expand_as(weights))):
                error = leave_one_out_error(tried, patches)
                yield [name, which, layer, read, error.mean().item(), (error < base).double().mean().item()]


def near(side: int = 8) -> Tensor:
    """Return which patches (side², side²) of a grid touch each other, as ones and zeros."""
    place = torch.cartesian_prod(torch.arange(side), torch.arange(side))
    return ((place[:, None] - place[None]).abs().amax(-1) == 1).float()


@torch.no_grad()
def accuracies(runs: str, images: Tensor, labels: Tensor) -> Iterator[list[Any]]:
    """Yield what share of the test images trained networks get right, as they are and computed otherwise."""
    performer = network(runs, "Performer")
    yield ["Performer", "as it is", accuracy(performer, images, labels), len(labels)]
    for number in FEATURES[:2]:
        yield [
            "Performer",
            f"{number} features redrawn",
            accuracy(redraw(performer, number), images, labels),
            len(labels),
        ]
    exact = az.swap_mixers(deepcopy(performer), "DotProduct")
    yield ["Performer", "softmax", accuracy(exact, images, labels), len(labels)]
    for name in SPARSE:
        number = len(images) if name == "VarsD" else SLOW
        some, answers = spread_evenly(images, number), spread_evenly(labels, number)
        for way, change in CHANGES.items():
            if way == BEST and name != "VarsD":
                continue  # some hundred steps of convolutions for each image
            model = network(runs, name)
            for mixer in model.modules():
                if isinstance(mixer, SparseReconstruction):
                    change(mixer)
            yield [name, way, accuracy(model, some, answers), number]


def redraw(model: nn.Module, number: int) -> nn.Module:
    """Return a copy of a model with random features of a new draw."""
    model = deepcopy(model)
    torch.manual_seed(1)
    for mixer in model.modules():
        if isinstance(mixer, Performer):
            mixer.rand_matrix = orthogonal_directions(mixer.num_heads, mixer.head_dim, number)
    return model


def changed(mixer: SparseReconstruction, problem: Callable[..., Problem] | None = None, steps: int = 3) -> None:
    """Have a layer solve its problem in so many steps, or by another iteration."""
    mixer.steps = steps
    if problem is not None:
        mixer.problem = MethodType(problem, mixer)
        mixer.hear = lambda codes: None  # a layer that is heard goes through `problem`


CHANGES: dict[str, Callable[[SparseReconstruction], None]] = {
    "as it is": changed,
    "30 steps": partial(changed, steps=30),
    "3 steps from zeros": partial(changed, problem=from_zeros),
    "nothing learned": unlearned,
    BEST: partial(changed, problem=solved),
}


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return what share of the images a model in evaluation mode gets right."""
    said = torch.cat([model(each).argmax(1) for each in images.split(AT_ONCE)])
    return (said == labels).double().mean().item()


if __name__ == "__main__":
    main(*sys.argv[1:])
