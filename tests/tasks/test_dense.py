"""What the tasks that label pixels share: constructors that can be read, and config keys that are all flat."""

import inspect

import pytest
import torch
from jsonargparse import ArgumentParser
from torch.testing import assert_close

import tasks
from attention_zoo.clicks import Clicks
from tasks.dense import DenseTask

TASK = {"optimizer", "scheduler", "warmup_epochs", "min_lr_ratio", "poly", "no_decay", "layer_decay"}
TASK |= {"compile", "grad_checkpointing"}
BACKBONE = {"model", "image_size", "mixer", "layer_mixers", "out_indices", "pretrained", "weights", "model_args"}
KEYS = {
    "SemanticSegmentation": {
        *("num_classes", "top_down", "decode_head", "auxiliary_head", "neck", "inference"),
    },
    "MaskSegmentation": {
        *("num_classes", "things", "interaction", "dual_path", "coordinates", "decoder", "strides", "auxiliary"),
        *("top_down", "loss_weights", "sampling", "thresholds", "backbone_lr", "pixel_attention", "instance_ap"),
    },
    "InteractiveSegmentation": {
        *("start", "decoder", "head", "guidance", "clicks_in", "curriculum", "losses", "extra_weight", "protocol"),
        *("max_clicks", "zoom_size", "val_clicks", "key_adaptation", "key_prior_precision", "value_propagation"),
        *("value_prior_precision", "adapt_in", "settings", "value_prior_precision_search", "top_down"),
    },
}


@pytest.mark.parametrize("name", KEYS)
def test_config_keys_are_flat_and_those_of_before(name):
    parser = ArgumentParser()
    parser.add_class_arguments(getattr(tasks, name), "model")
    assert set(vars(parser.get_defaults().model)) == KEYS[name] | BACKBONE | TASK


@pytest.mark.parametrize("name", [name for name in tasks.__all__ if name not in ("Curriculum", "Setting")])
def test_no_constructor_names_more_than_a_dozen_arguments(name):
    for kind in getattr(tasks, name).__mro__:
        if kind.__module__.startswith("tasks.") and "__init__" in vars(kind):
            named = inspect.signature(vars(kind)["__init__"]).parameters.values()
            named = [parameter for parameter in named if parameter.kind is not parameter.VAR_KEYWORD]
            assert len(named) - 1 <= 12, kind  # beside self


def test_whatever_labels_pixels_is_a_dense_task():
    assert all(issubclass(getattr(tasks, name), DenseTask) for name in KEYS)


def test_an_interactive_model_may_look_twice():
    args = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    task = tasks.InteractiveSegmentation("vit_tiny_patch16_224", (32, 48), top_down="absvit", model_args=args).eval()
    image, clicks = torch.randn(2, 3, 32, 48), Clicks(torch.tensor([[[3, 4]], [[5, 6]]]), torch.ones(2, 1).long())
    signals = []
    for block in task.model.backbone.model.model.blocks:
        block.attn.register_forward_hook(lambda *call: signals.append("top_down" in call[2]), with_kwargs=True)
    logits = task(image, clicks, torch.tensor([[1, 1, 20, 20]] * 2))
    assert logits.shape == (2, 1, 32, 48) and signals == [False] * 2 + [True] * 2
    assert_close(logits, task(image, clicks, torch.tensor([[1, 1, 20, 20]] * 2)))
