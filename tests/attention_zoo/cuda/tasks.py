"""The tasks on a CUDA device that is not there: how each is built, what its batches have, and where its steps wait."""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

import attention_zoo as az
import tasks
from attention_zoo.attacks import FGSM
from attention_zoo.clicks import Clicks
from attention_zoo.evaluation import Benchmark, Cell
from attention_zoo.models.mask_decoder import DecoderSize
from tasks.clicks import session
from tasks.mask_losses import Sampling, matching
from tasks.metrics.control import ControlRecords
from tasks.metrics.saliency import Saliency
from tasks.metrics.stability import Stability

SIDE, BATCH = 32, 4
VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 8}
SIZE = (SIDE, SIDE)
CHECKS = {"_local_scalar_dense", "index"}
"""Waits of an evaluation: whether all numbers are finite, and which samples count."""
COUNTS = {*CHECKS, "bincount"}
"""Those, and a count of labels."""


@dataclass
class Case:
    """A task, and what its steps need.

    Attributes:
        build: makes the task on the CPU.
        batch: what a batch has beside images and places.
        data: what the trainer's data module would be.
        ready: what the trainer would have done before the first step.
        number: the answer to what a step asks of integers.
        waits: the operators by which each step waits for the device or leaves it; a step that is not named is not run.
    """

    build: Callable[[], Any]
    batch: Callable[[], dict[str, Any]]
    waits: dict[str, set[str]]
    data: Any = None
    ready: Callable[[Any], None] = field(default=lambda task: None)
    number: int = 1


def vit(kind, **options):
    """Return a task about a small transformer."""
    return kind(**{"model": "vit_tiny_patch16_224", "image_size": SIZE, "model_args": VIT, **options})


def integers(most, *shape):
    return torch.randint(most, shape, device="cuda")


def boxes():
    return torch.tensor([[4.0, 4.0, 20.0, 20.0]]).expand(BATCH, -1).to("cuda")


class Annotator:
    """Clicks once on every object in every turn; the true one looks at pictures, which are not there."""

    def __init__(self, target: Tensor, ignore: Tensor, strategy: str, seeds: list[int]) -> None:
        self.clicks, self.history = Clicks.empty(len(target), target.device), [[] for _ in seeds]

    def click(self, prediction: Tensor) -> Tensor:
        """Return that all have clicked (B,)."""
        points = prediction.new_zeros(len(prediction), 2, dtype=torch.float32)
        self.clicks = self.clicks.append(points, points[:, 0].long())
        return prediction.new_ones(len(prediction), dtype=torch.bool)


def numbers_for_others(monkeypatch) -> None:
    """Stand in for what looks at numbers outside of torch: SciPy's matching, and the simulated annotators."""
    monkeypatch.setattr(Tensor, "numpy", lambda x: x)
    pairs = lambda costs, maximize: (np.arange(min(costs.shape)),) * 2  # noqa: E731
    monkeypatch.setattr(matching, "linear_sum_assignment", pairs)
    monkeypatch.setattr(session, "Annotators", Annotator)


def start_clicks(task) -> None:
    for stage in ("val", "test"):
        setattr(task, f"{stage}_table", tasks.interactive.ClickTable(1, BATCH, 2))


def start_rows(task) -> None:
    task.setup("test")
    task.networks = {"as trained": lambda pixels: task.model(2 * pixels - 1)}


def start_saliency(task) -> None:
    task.networks, task.saliency = {"as trained": task.model}, Saliency(3, BATCH)
    task.total = torch.ones(tasks.evaluations.saliency.GRID).double()


CLEAN = Cell(Benchmark("clean", "clean", protocol={}), BATCH)
PIXELS = {"mean": (0.5,) * 3, "std": (0.2,) * 3}
NUMBERED = lambda: {"label": integers(5, BATCH), "cell": integers(1, BATCH), "number": torch.arange(BATCH).to("cuda")}  # noqa: E731
DECODER = DecoderSize(
    num_queries=8, dim=32, mask_dim=16, hidden=32, num_heads=4, widths=(16, 8, 8, 8), blocks=(1, 1, 1, 1)
)

CASES = {
    "Classification": Case(
        lambda: vit(tasks.Classification, num_classes=5, mixer=az.MIXERS["VarsD"]),
        lambda: {"label": integers(5, BATCH)},
        {"training_step": set(), "validation_step": CHECKS, "test_step": CHECKS},
    ),
    "SemanticSegmentation": Case(
        lambda: vit(tasks.SemanticSegmentation, num_classes=3, mixer=az.MIXERS["Window"]),
        lambda: {"mask": integers(3, BATCH, *SIZE)},
        {"training_step": set(), "validation_step": COUNTS, "test_step": COUNTS},
    ),
    "InteractiveSegmentation": Case(
        lambda: vit(tasks.InteractiveSegmentation, mixer=az.MIXERS["Probabilistic"], max_clicks=2),
        lambda: {"mask": integers(2, BATCH, *SIZE).to(torch.uint8), "box": boxes()},
        {"training_step": set(), "validation_step": CHECKS, "test_step": CHECKS},
        ready=start_clicks,
    ),
    "MaskSegmentation": Case(
        lambda: tasks.MaskSegmentation(
            "test_resnet", 3, (64, 64), decoder=DECODER, sampling=Sampling(contrastive_samples=16, semantic_samples=0)
        ),
        lambda: {"mask": integers(3, BATCH, 64, 64)},
        {
            "training_step": {"_to_copy", "_unique2", "index"},
            "validation_step": {*COUNTS, "nonzero"},
            "test_step": {*COUNTS, "nonzero"},
        },
    ),
    "Robustness": Case(
        lambda: vit(tasks.Robustness, num_classes=5, attacks={"fgsm": FGSM()}),
        NUMBERED,
        {"test_step": COUNTS},
        SimpleNamespace(cells=[CLEAN], num_classes=5, class_names=list("abcde"), image_size=SIZE, **PIXELS),
        start_rows,
    ),
    "PerturbationStability": Case(
        lambda: vit(tasks.PerturbationStability, num_classes=6),
        lambda: {"frames": integers(2, 1), "perturbation": integers(2, 1), "index": integers(2, 1)},
        {"test_step": {"_local_scalar_dense", "arange", "repeat_interleave"}},
        SimpleNamespace(steps=[1] * 4),
        lambda task: setattr(task, "stability", Stability(4)),
        number=3,  # of frames
    ),
    "TopDownControl": Case(
        lambda: vit(
            tasks.TopDownControl,
            model="absvit_tiny_patch16_224",
            num_classes=5,
            modes=["absvit", "qkv", "mask_att", "feedback"],
            alphas=[1.0],
            model_args={**VIT, "class_token": False, "global_pool": "avg", "top_down": {"mode": "absvit"}},
        ),
        lambda: {
            "labels": integers(5, BATCH, 2),
            "group": integers(5, BATCH),
            "masks": integers(2, BATCH, 2, *SIZE).bool(),
        },
        {"test_step": CHECKS},
        ready=lambda task: setattr(task, "records", ControlRecords(BATCH, len(task.settings))),
    ),
    "AttentionSegmentation": Case(
        lambda: vit(tasks.AttentionSegmentation, num_classes=5, layer="last"),
        lambda: {"mask": integers(2, BATCH, *SIZE)},
        {"test_step": CHECKS},
    ),
    "AttentionSaliency": Case(
        lambda: vit(tasks.AttentionSaliency, num_classes=5, layer="last"),
        lambda: {
            "fixations": [integers(2, *SIZE).bool()] * BATCH,
            "density": [torch.rand(SIZE, device="cuda")] * BATCH,
        },
        {"test_step": {*CHECKS, "_to_copy", "arange"}},
        ready=start_saliency,
    ),
}
"""Every task by its name. Steps of training that others have from `Classification` are not run again."""
