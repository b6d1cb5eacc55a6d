"""``compile``: each task's model as one graph, and checkpoints that do not know of it."""

import lightning as L
import pytest
import timm
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.testing import assert_close

import attention_zoo as az
from attention_zoo.mixers.losses import auxiliary_loss
from tasks import InteractiveSegmentation
from tasks.compiling import Compile
from tests.attention_zoo.test_models import KINDS, build, images
from tests.mixers import LEAST, costly
from tests.tasks.test_classification import fit, loader, task
from tests.tasks.test_semantic import batch
from tests.tasks.test_semantic import task as semantic_task


@pytest.fixture
def graphs(monkeypatch, request):
    """The modules that are compiled: without a code generator, but as one graph or not at all."""
    compiled, backend = [], getattr(request, "param", "eager")
    compiling = nn.Module.compile

    def as_one_graph(module):
        compiled.append(module)
        compiling(module, backend=backend, fullgraph=True)

    monkeypatch.setattr(nn.Module, "compile", as_one_graph)
    torch.compiler.reset()
    with torch._dynamo.config.patch(skip_fwd_side_effects_in_bwd_under_checkpoint=False):  # which compiling changes
        yield compiled


@pytest.mark.parametrize("name", costly(core=LEAST))  # others are compiled by themselves in test_mixers
def test_a_vision_transformer_of_every_mixer_is_one_graph(graphs, name):
    torch.manual_seed(0)
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2, "num_classes": 5}
    model = az.swap_mixers(timm.create_model("vit_tiny_patch16_224", **small), name).train()
    x = torch.randn(2, 3, 32, 32)
    expected = model(x)
    model.compile()
    assert_close(model(x), expected)


KEEPERS = ("Reversed", "Routing", "Elliptical", *az.list_mixers("wrapper"))
"""Mixers that keep something of a pass: for the next layer, or for the next step and the task's loss."""
OTHERS = [name for name in az.list_mixers("self") if name not in KEEPERS]
# a backend without operations in place, which the code generator has not either: kept numbers are moved in place
AGAIN = [pytest.param("aot_eager", *of.values, marks=of.marks) for of in costly(KEEPERS, core=KEEPERS[:2])]
AGAIN += [pytest.param("eager", *of.values, marks=of.marks) for of in costly(OTHERS, core=())]


@pytest.mark.parametrize(("graphs", "name"), AGAIN, indirect=["graphs"])
def test_layers_that_are_computed_again_are_one_graph(graphs, name):
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 5}
    found, x = [], torch.randn(2, 3, 32, 32)
    for compiles in (False, True):
        torch.manual_seed(0)
        model = az.swap_mixers(timm.create_model("vit_tiny_patch16_224", **small), name).train()
        model.set_grad_checkpointing(True)
        if compiles:
            Compile([model]).on_train_start(None, None)
        torch.manual_seed(1)
        out = model(x)
        loss = auxiliary_loss(model)
        (out.sin().sum() + loss).backward()
        gradients = {key: one.grad for key, one in model.named_parameters() if one.grad is not None}
        found.append((out, loss, gradients, dict(model.named_buffers())))
    assert_close(*found, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*KINDS, "TopDown"])
def test_every_model_is_one_graph(graphs, name):
    model = az.TopDown(build("deit_conv_tiny_patch16_224")) if name == "TopDown" else build(name)
    expected = model(images())
    model.compile()
    assert_close(model(images()), expected)
    model.train()(images())


class TestTraining:
    def test_same_checkpoint_and_same_numbers(self, graphs, tmp_path):
        states = []
        for compile in (False, True):
            module = task(compile=compile)
            run = fit(module, 1, callbacks=[ModelCheckpoint(tmp_path / str(compile), save_last=True)])
            states.append(torch.load(tmp_path / str(compile) / "last.ckpt", weights_only=True)["state_dict"])
            assert graphs == ([module.model] if compile else [])
        assert_close(states[1], states[0])
        assert [name for name in states[1] if "orig_mod" in name] == []
        fresh = task(seed=1)
        fresh.load_state_dict(states[1])
        run.validate(module, loader(), verbose=False)

    @pytest.mark.parametrize("stage", ["validate", "test", "predict"])
    def test_evaluation_compiles_too(self, graphs, stage):
        module = task(compile=True)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
        getattr(L.Trainer(accelerator="cpu", **quiet), stage)(module, loader())
        assert graphs == [module.model]

    def test_by_default_nothing_is_compiled(self, graphs):
        fit(task(), 1)
        assert graphs == []


@pytest.mark.parametrize("top_down", [None, "absvit"])
def test_the_backbone_of_a_segmenter_is_one_graph(graphs, top_down):
    module = semantic_task(compile=True, mixer=az.MIXERS["DotProduct"], top_down=top_down)
    assert module.compiled_parts() == [module.model.backbone]
    example = batch(number=2)
    torch.manual_seed(0)
    expected = module.model.losses(example["image"], example["mask"])
    module.model.backbone.compile()
    torch.manual_seed(0)
    assert_close(module.model.losses(example["image"], example["mask"]), expected)


def test_the_clicked_segmenter_compiles_its_backbone():
    small = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    module = InteractiveSegmentation("vit_tiny_patch16_224", (32, 32), model_args=small, max_clicks=3, compile=True)
    assert module.compiled_parts() == [module.model.backbone]
