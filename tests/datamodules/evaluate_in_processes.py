"""Evaluates and predicts in two processes, and writes down which samples counted."""

import json
from pathlib import Path

import lightning as L
import torch
from torch import distributed

from datamodules import SegmentationFolder


class Counted(L.LightningModule):
    """Notes what is counted, and makes the processes wait for each other in each batch."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def validation_step(self, batch):
        pixels = batch["mask"].double().mean((1, 2))
        distributed.all_reduce(torch.zeros(1))
        numbers = zip(batch["index"].tolist(), pixels.tolist(), strict=True)
        self.seen += [(index, value) for index, value in numbers if index >= 0]

    def predict_step(self, batch):
        distributed.all_reduce(torch.zeros(1))
        numbers = zip(batch["index"].tolist(), batch["path"], strict=True)
        self.seen += [(index, path) for index, path in numbers if index >= 0]


def evaluate(folder, out):
    """Run as one of the processes, on the data in ``folder``; write to ``out``."""
    data = SegmentationFolder(
        str(folder), list("abcd"), image_size=24, batch_size=2, num_workers=1, predict_dir=f"{folder}/images/val"
    )
    model = Counted()
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(accelerator="cpu", devices=2, default_root_dir=out, **quiet)
    trainer.validate(model, data, verbose=False)
    validated, model.seen = model.seen, []
    trainer.predict(model, data, return_predictions=False)
    Path(out, f"{trainer.global_rank}.json").write_text(json.dumps([validated, model.seen]))
