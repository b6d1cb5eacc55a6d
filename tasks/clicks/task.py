"""The base of interactive segmentation: the click-guided model, and the protocol by which it is asked."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from attention_zoo.clicks import Clicks
from attention_zoo.mixers.adaptation import adapted
from attention_zoo.models.backbone import Backbone
from attention_zoo.models.checkpoints import load_checkpoint
from attention_zoo.models.interactive import DecoderFactory, HeadFactory, InteractiveModel
from tasks.clicks.domains import NumberFromOne
from tasks.clicks.protocols import protocol_of
from tasks.clicks.settings import Setting
from tasks.dense import DenseTask


class ClickTask(DenseTask):
    """Base of `InteractiveSegmentation`: a segmenter that takes clicks, and how it is asked in evaluation.

    Args:
        model: a name of ``timm.list_models()``, the backbone.
        image_size: height and width in training; the command line takes it from the data.
        decoder: from the backbone's maps to features; None is `Fusion`.
        head: from features to the mask; None is a 1 x 1 convolution.
        guidance: what the encoder is given beside the image, see `InteractiveModel`.
        clicks_in: ``encoder``, or ``head`` alone, so that a further click costs the head only.
        start: checkpoint of a run with the same model and image size, on other data, to start all of it from.
        protocol: how it is tested: ``paper`` (the box, then clicks at random places of the largest error) or ``ritm``
            (no box, clicks in the middle of the deepest error, threshold 0.49, mirror image, zoom).
        max_clicks: clicks of a test, for each object; None is the protocol's 20.
        zoom_size: longer side of what ``ritm`` zooms into, in pixels; None is its 400, 0 is no zoom.
        val_clicks: clicks of a validation, for each object.
        **dense: see `DenseTask`.

    Raises:
        InputError: an argument does not fit.
    """

    model: InteractiveModel

    def __init__(
        self,
        model: str,
        image_size: tuple[int, int] | None,
        *,
        decoder: DecoderFactory | None = None,
        head: HeadFactory | None = None,
        guidance: Literal["pap", "ritm"] = "pap",
        clicks_in: Literal["encoder", "head"] = "encoder",
        start: str | None = None,
        protocol: Literal["paper", "ritm"] = "paper",
        max_clicks: int | None = None,
        zoom_size: int | None = None,
        val_clicks: NumberFromOne = 3,
        **dense: Any,
    ) -> None:
        asked = protocol_of(protocol, max_clicks, zoom_size)

        def put_on(backbone: Backbone) -> InteractiveModel:
            return InteractiveModel(backbone, decoder=decoder, head=head, guidance=guidance, clicks_in=clicks_in)

        super().__init__(put_on, model, image_size, **dense)
        self.protocol_name, self.protocol = protocol, asked
        self.val_protocol = replace(asked, clicks=val_clicks, flip=False, zoom_in=None)
        if start is not None:
            load_checkpoint(self.model, start)
        self.title = model

    def forward(
        self, image: Tensor, clicks: Clicks, box: Tensor | None = None, previous: Tensor | None = None
    ) -> Tensor:
        """Return the logits (B, 1, H, W) of images (B, 3, H, W) with clicks; see `InteractiveModel`."""
        return self.model(image, clicks, box, previous)

    @property
    def remembers(self) -> bool:
        """Whether an answer depends on that before it: the model is given it, or looks around it."""
        return self.model.guidance == "ritm" or self.protocol.zoom_in is not None

    @contextmanager
    def adaptation(self, setting: Setting) -> Iterator[None]:
        """Let the model adapt its keys as a setting says while the context lasts.

        Values are not adapted here: `Setting.values` are passed to the head when it is called.
        """
        module = {"backbone": self.model.backbone, "head": self.model.head, "both": self.model}[setting.adapt_in]
        with adapted(module, **setting.keys):
            yield

    @torch.no_grad()
    def predicted(self, batch: dict[str, Tensor], clicks: Clicks, previous: Tensor | None = None) -> Tensor:
        """Return the probabilities (B, 1, H, W) of a batch as in evaluation; the mode of the model is restored."""
        training = self.model.training
        self.model.eval()
        probability = self(batch["image"], clicks, batch["box"], previous).float().sigmoid()
        self.model.train(training)
        torch.clear_autocast_cache()  # it holds weights that were cast without gradient
        return probability
