"""Compilation of a task's model by ``torch.compile``."""

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import nn

from attention_zoo.compat import allow_kept_in_graphs


class Compile(Callback):
    """Compiles modules in place before their first training or evaluation step.

    Weights keep their names, so that checkpoints are those of a model that is not compiled, and what looks at the model
    when a run starts, such as the count of its FLOPs, sees it as it is.

    Args:
        parts: the modules; each compiles when it is called, and once more for images of another size.
    """

    def __init__(self, parts: list[nn.Module]) -> None:
        self.parts = parts

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compile before training."""
        self._compile()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compile before validation."""
        self._compile()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compile before a test."""
        self._compile()

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compile before a prediction."""
        self._compile()

    def _compile(self) -> None:
        allow_kept_in_graphs()
        while self.parts:
            self.parts.pop().compile()
