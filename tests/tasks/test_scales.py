"""Every task says of each metric that it logs which way is better, so that reports can mark the best."""

import inspect

import lightning as L
import pytest
import torch

import tasks
from attention_zoo.models.mask_decoder import DecoderSize
from datamodules import Digits, ImageNetP, ObjectScenes, Shapes, TwoObjects
from datamodules.attention_targets import VOCForeground
from datamodules.gaze import MIT1003
from tasks.base import Task
from tests.datamodules.files import write_mit, write_videos, write_voc
from tests.tasks.cells import DigitBenchmarks

VIT = {"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}
POOLED = {**VIT, "class_token": False, "global_pool": "avg"}
DENSE = {"model": "vit_tiny_patch16_224", "image_size": (32, 32), "model_args": {**VIT, "patch_size": 8}}
LOADING = {"batch_size": 2, "num_workers": 0}
SHAPES = {"scenes": (2, 2, 2), "classes": 5, "image_size": 32, **LOADING}
SIZE = DecoderSize(num_queries=8, dim=32, mask_dim=16, hidden=32, num_heads=4, widths=(16, 8, 8, 8), blocks=(1,) * 4)
HEADS = {"decode_head": {"channels": 8}, "auxiliary_head": {"channels": 8}}


def classifier(name, data, side=8, num_classes=10, **options):
    options = {"model": "vit_tiny_patch16_224", "model_args": VIT, **options}
    size = side if isinstance(side, tuple) else (side, side)
    return getattr(tasks, name)(num_classes=num_classes, image_size=size, **options), data


def masks():
    shapes = Shapes(**SHAPES, panoptic=True)
    task = tasks.MaskSegmentation(
        "test_resnet", 5, (32, 32), shapes.things, interaction="KMeansCross", decoder=SIZE, instance_ap=True
    )
    return task, shapes


TASKS = {
    "Classification": lambda path: classifier("Classification", Digits(batch_size=64, num_workers=0)),
    "Robustness": lambda path: classifier("Robustness", DigitBenchmarks(images=4, num_workers=0)),
    "PerturbationStability": lambda path: classifier(
        "PerturbationStability",
        ImageNetP(str(write_videos(path, ["tilt"])), ["tilt"], image_size=24, **LOADING),
        side=24,
        num_classes=1000,
    ),
    "AttentionSegmentation": lambda path: classifier(
        "AttentionSegmentation", VOCForeground(str(write_voc(path)), image_size=8, num_classes=10, **LOADING)
    ),
    "AttentionSaliency": lambda path: classifier(
        "AttentionSaliency", MIT1003(str(write_mit(path)), image_size=8, num_classes=10, **LOADING)
    ),
    "TopDownControl": lambda path: classifier(
        "TopDownControl",
        TwoObjects(pairs=4, **LOADING),
        side=(8, 16),
        model="absvit_tiny_patch16_224",
        model_args={**POOLED, "top_down": {"mode": "absvit"}},
    ),
    "SemanticSegmentation": lambda path: (
        tasks.SemanticSegmentation(num_classes=5, **DENSE, **HEADS),
        Shapes(**SHAPES),
    ),
    "MaskSegmentation": lambda path: masks(),
    "InteractiveSegmentation": lambda path: (
        tasks.InteractiveSegmentation(**DENSE, max_clicks=3),
        ObjectScenes(scenes=(2, 1, 2), image_size=32, scene_size=(48, 48), **LOADING),
    ),
}
"""A small task of each class, and data for it."""


def test_no_task_is_left_out():
    ours = {getattr(tasks, name) for name in tasks.__all__}
    ours = {kind for kind in ours if inspect.isclass(kind) and issubclass(kind, Task) and not inspect.isabstract(kind)}
    assert {kind.__name__ for kind in ours} - {"Task"} == set(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_every_metric_of_a_test_has_a_scale(tmp_path, name):
    torch.manual_seed(0)
    task, data = TASKS[name](tmp_path)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = L.Trainer(**quiet, enable_checkpointing=False, devices=1)
    trainer.test(task, data, verbose=False)
    logged = {metric for metric in trainer.callback_metrics if metric.startswith("test/")}
    assert logged and logged <= set(task.scales)
