"""Measure what the trained layers of the study are like: whether queries and keys share a space, and what a gauge does.

    python results/key_adaptation/measure.py OUT SWEEP [SWEEP ...]

In OUT/runs, for every run, spaces.csv has the premise of the reading on 64 objects of each domain, seen with the box
alone: how far the means of queries and keys are apart, their covariances, and what is left of the keys' variance after
one step. gauges.csv has the mean IoU before the first click on 128 objects of the own domain after the weights were
rewritten by random A as `attention_zoo.functional.gauge` says, which changes nothing that the layer computes until its
keys adapt. controls.csv has the mean IoU by clicks on each domain, also of a layer that is not adapted but whose
keys are all at their mean, so that it reads by positions alone, or everything alike.
"""

import csv
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

import attention_zoo as az
from attention_zoo.clicks import Clicks
from attention_zoo.mixers import Probabilistic
from attention_zoo.models.interactive import Fusion
from datamodules import Berkeley, MaskFolder
from tasks import InteractiveSegmentation
from tasks.clicks.protocols import asking, protocol_of
from tasks.clicks.session import click_seeds, iou, simulate

DOMAINS = {
    "camvid": partial(MaskFolder, "data/camvid_cut"),
    "bsds": partial(MaskFolder, "data/bsds_objects"),
    "davis": partial(Berkeley, "data/davis_frames"),
}
WAYS: dict[str, dict[str, Any]] = {
    "no adaptation": {"key_adaptation": 0},
    "as trained": {"key_adaptation": 1},
    "matched": {"key_adaptation": 1, "gauge": "moments", "centre": True},
}
GAUGES = 5
"""The number of random A; the first gauge is that of the training."""
SPREAD = 0.5
"""The standard deviation of the logarithms of A's singular values."""


def main(out: str, *sweeps: str) -> None:
    """Measure what has not been measured yet of the runs that have a checkpoint."""
    batches = {name: list(boxes(make)) for name, make in DOMAINS.items()}
    for folder in sorted(each for sweep in sweeps for each in Path(sweep).glob("runs/*")):
        kept = Path(out) / "runs" / folder.name
        if not (folder / "checkpoints" / "last.ckpt").exists():
            continue
        kept.mkdir(parents=True, exist_ok=True)
        task = loaded(folder)
        if not (kept / "spaces.csv").exists():
            spaces = [[domain, *row] for domain, found in batches.items() for row in space(task, found[:1])]
            write(kept / "spaces.csv", ["domain", "measure", "value"], spaces)
        if not (kept / "controls.csv").exists():
            controls = [[domain, *row] for domain, found in batches.items() for row in control(task, found)]
            write(kept / "controls.csv", ["domain", "way", *(f"iou_{clicks}" for clicks in range(4))], controls)
        if "magnitude" in folder.name and not (kept / "gauges.csv").exists():  # other trainings leave no gauge
            write(kept / "gauges.csv", ["gauge", "way", "mean_iou"], in_gauges(task, batches["camvid"][:2]))


def write(path: Path, head: list[str], rows: Iterable[list[Any]]) -> None:
    """Write a table of rows under a head."""
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([head, *rows])


def boxes(make: Any) -> Iterator[dict[str, Any]]:
    """Yield the batches of a test as the sweep has them, of 64 objects."""
    data = make(image_size=64, batch_size=64, num_workers=0)
    data.setup("test")
    dataset, collate = data.dataset("test"), data.collate("test")
    for start in range(0, len(dataset), 64):
        yield collate([dataset[place] for place in range(start, min(start + 64, len(dataset)))])


def loaded(folder: Path) -> InteractiveSegmentation:
    """Return the model of a run, from its config and its last checkpoint."""
    given = yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]
    chosen = {name: value for name, value in given["mixer"]["init_args"].items() if value is not None}
    chosen |= {"kernel": az.mixers.switches.Kernel(**chosen["kernel"])} if "kernel" in chosen else {}
    chosen.pop("adapt", None)  # as it is by default: a run is told otherwise in its test
    task = InteractiveSegmentation(
        given["model"],
        (64, 64),
        mixer=partial(Probabilistic, **chosen),
        decoder=partial(Fusion, width=given["decoder"]["init_args"]["width"]),
        model_args=given["model_args"],
    )
    weights = torch.load(folder / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    task.load_state_dict(weights)
    return task.eval()


def layer(task: nn.Module) -> Probabilistic:
    """Return the one layer of attention of a model."""
    (found,) = (module for module in task.modules() if isinstance(module, Probabilistic))
    return found


@torch.no_grad()
def predicted(task: InteractiveSegmentation, batch: dict[str, Any]) -> Tensor:
    """Return the masks (B, H, W) before any click."""
    return task(batch["image"], Clicks.empty(len(batch["mask"])), batch["box"])[:, 0].sigmoid() > 0.5


def space(task: InteractiveSegmentation, batches: list[dict[str, Any]]) -> list[list[Any]]:
    """Return each measure of the layer's premise with its mean over images and heads; of paths, after one step."""
    mixer, seen = layer(task), []
    handle = mixer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    for batch in batches:
        predicted(task, batch)
    handle.remove()
    values: dict[str, list[Tensor]] = defaultdict(list)
    with torch.no_grad(), az.adapted(mixer, key_adaptation=1):
        for tokens in seen:
            q, k, v = mixer.project(tokens)
            for name, measure in mixer.premise_measures(q, k, v).items():
                values[name] += [measure.last if measure.values.dim() == 2 else measure.values[..., 1]]
            kept = mixer.adapted_keys(q, k, v).var(2).sum(-1) / k.var(2).sum(-1)
            values["variance of the keys after one step with positions, of what it was"] += [kept]
    return [[name, f"{torch.cat(each).mean().item():.5g}"] for name, each in values.items()]


@torch.no_grad()
def control(task: InteractiveSegmentation, batches: list[dict[str, Any]]) -> Iterator[list[Any]]:
    """Yield the mean IoU before and after each of three clicks by ways to adapt, and with all keys at their mean."""
    mixer, protocol = layer(task), protocol_of("paper", 3)
    for way in (*WAYS, "keys at their mean"):
        found = []
        with az.adapted(mixer, **WAYS.get(way, WAYS["no adaptation"])), keys_at_their_mean(mixer, way not in WAYS):
            for batch in batches:
                ask = asking(task.model, batch["image"], batch["box"], protocol, {})
                found.append(simulate(ask, batch["mask"], protocol, click_seeds(0, batch["index"].tolist())).ious)
        yield [way, *(f"{value:.6f}" for value in torch.cat(found).mean(0).tolist())]


@contextmanager
def keys_at_their_mean(mixer: Probabilistic, on: bool) -> Iterator[None]:
    """Have a layer see the mean of all its keys in the place of each while the context lasts, if ``on``."""
    if not on:
        yield
        return
    mix = mixer.mix
    mixer.mix = lambda q, k, v: mix(q, k.mean(2, keepdim=True).expand_as(k), v)
    try:
        yield
    finally:
        del mixer.mix


def in_gauges(task: InteractiveSegmentation, batches: list[dict[str, Any]]) -> Iterator[list[Any]]:
    """Yield the mean IoU before the first click in the gauge of the training and in random ones, adapted or not."""
    mixer, generator = layer(task), torch.Generator().manual_seed(0)
    weights = {name: value.clone() for name, value in mixer.state_dict().items()}
    for number in range(GAUGES + 1):
        a = torch.eye(mixer.head_dim) if number == 0 else random_gauge(mixer.head_dim, generator)
        mixer.load_state_dict(weights)
        rewrite(mixer, a)
        for way, options in WAYS.items():
            with az.adapted(mixer, **options):
                found = [iou(predicted(task, each), each["mask"] == 1, each["mask"] == 255) for each in batches]
            yield [number, way, f"{torch.cat(found).mean().item():.6f}"]
    mixer.load_state_dict(weights)


def random_gauge(dim: int, generator: torch.Generator) -> Tensor:
    """Return a random A (D, D), directions by lot and singular values log-normal."""
    u, _, v = torch.linalg.svd(torch.randn(dim, dim, generator=generator))
    return u * (SPREAD * torch.randn(dim, generator=generator)).exp() @ v


@torch.no_grad()
def rewrite(mixer: Probabilistic, a: Tensor) -> None:
    """Rewrite a layer's weights so that q -> A^T q, k -> A^-1 k, r_q -> A^-1 r_q and r_k -> A^T r_k in every head."""
    blocks = dict(zip(mixer.projections, mixer.qkv.weight.chunk(len(mixer.projections)), strict=True))
    inverse = torch.linalg.inv(a)
    blocks["q"].unflatten(0, (mixer.num_heads, -1)).copy_(a.mT @ blocks["q"].unflatten(0, (mixer.num_heads, -1)))
    blocks["k"].unflatten(0, (mixer.num_heads, -1)).copy_(inverse @ blocks["k"].unflatten(0, (mixer.num_heads, -1)))
    for name, way in (("q", inverse.mT), ("k", a)):
        for table in mixer.positions[name].parameters() if mixer.positions else ():
            table.copy_(table @ way)


if __name__ == "__main__":
    main(*sys.argv[1:])
