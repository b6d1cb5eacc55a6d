"""Fine-tuning of a part of a model: the first layers stay as they are."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from timm.utils import freeze

from attention_zoo.domains import Checked, PositiveInt, checked
from attention_zoo.errors import InputError


class FreezeFirst(Checked, Callback):
    """Leaves the embedding of patches and the first blocks of a vision transformer as they are.

    No gradient is computed in them, which saves most of the backward pass. What comes after the blocks is trained.

    Args:
        blocks: how many of the first blocks stay.

    Raises:
        InputError: the model has no blocks, or no more than these.
    """

    @checked
    def __init__(self, blocks: PositiveInt) -> None:
        super().__init__()
        self.blocks = blocks

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Freeze the layers before the optimizer is built."""
        if stage != "fit":
            return
        model: Any = getattr(pl_module, "model", None)
        depth = len(getattr(model, "blocks", ()))
        if self.blocks >= depth:
            raise InputError(f"blocks={self.blocks} of {type(model).__name__} cannot stay as they are: it has {depth}")
        freeze(model, ["patch_embed", *(f"blocks.{block}" for block in range(self.blocks))])
        for name in ("cls_token", "pos_embed", "reg_token"):
            token = getattr(model, name, None)
            if token is not None:
                token.requires_grad_(False)
