"""Fine-tuning of a part of a model."""

import pytest
import torch

import attention_zoo as az
from tasks.freezing import FreezeFirst
from tests.tasks import test_classification
from tests.tasks.test_guards import trainer


def test_the_first_blocks_stay():
    task = test_classification.task(model_args={**test_classification.SMALL, "depth": 3})
    before = {name: weight.clone() for name, weight in task.model.state_dict().items()}
    fit = trainer(max_epochs=1, limit_train_batches=2, limit_val_batches=0, callbacks=[FreezeFirst(2)])
    fit.fit(task, test_classification.loader())
    changed = {name for name, weight in task.model.state_dict().items() if not torch.equal(weight, before[name])}
    first = ("patch_embed", "blocks.0.", "blocks.1.", "cls_token", "pos_embed")
    assert changed == {name for name in before if not name.startswith(first)}


@pytest.mark.parametrize(("blocks", "said"), [(3, "blocks=3 of VisionTransformer .* it has 3"), (0, "blocks=0")])
def test_nothing_would_be_trained(blocks, said):
    task = test_classification.task(model_args={**test_classification.SMALL, "depth": 3})
    with pytest.raises(az.InputError, match=said):
        FreezeFirst(blocks).setup(trainer(), task, "fit")
