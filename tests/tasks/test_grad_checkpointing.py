"""Gradient checkpointing by the option of every task: the same training from fewer kept activations."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from attention_zoo.errors import InputError
from attention_zoo.models.interactive.model import InteractiveModel
from attention_zoo.models.mask_decoder.mask_transformer import MaskTransformer
from attention_zoo.models.segmentor import Segmentor
from tests.tasks.test_classification import fit, task


@pytest.mark.parametrize("mixer", [{}, {"drop_path_rate": 0.5}])
def test_training_is_the_same(mixer, monkeypatch):
    kept, trained = [], []
    for enabled in (False, True):
        module = task(grad_checkpointing=enabled, model_args={"patch_size": 4, "embed_dim": 16, "depth": 2,
                                                              "num_heads": 2, **mixer})  # fmt: skip
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, saved=saved: saved.append(x.numel()) or x, lambda x: x):
            fit(module, epochs=1)
        kept.append(sum(saved))
        trained.append([p.detach().clone() for p in module.parameters()])
    assert_close(*trained, rtol=0, atol=1e-6)
    assert kept[1] < 0.8 * kept[0]


def test_a_model_without_blocks_says_so():
    module = task(grad_checkpointing=True)
    module.model = nn.Linear(4, 4)
    with pytest.raises(InputError, match="grad_checkpointing: Linear has no blocks"):
        module.on_fit_start()


class Switch(nn.Module):
    """A backbone that keeps what it is told."""

    told = None

    def set_grad_checkpointing(self, enable=True):
        self.told = enable


@pytest.mark.parametrize("kind", [Segmentor, MaskTransformer, InteractiveModel])
def test_models_on_a_backbone_tell_it(kind):
    model = kind.__new__(kind)
    nn.Module.__init__(model)
    model.backbone = Switch()
    for enable in (True, False):
        model.set_grad_checkpointing(enable)
        assert model.backbone.told is enable
