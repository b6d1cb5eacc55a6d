"""Interactive segmentation models: they take an image and clicks and give a mask."""

from attention_zoo.models.interactive.corrective import CorrectiveAttention
from attention_zoo.models.interactive.fusion import Decoder, DecoderFactory, Fusion
from attention_zoo.models.interactive.guidance import box_disks, disks
from attention_zoo.models.interactive.head import ConvHead, HeadFactory, InteractiveHead
from attention_zoo.models.interactive.mmseg_decoder import MMSegDecoder
from attention_zoo.models.interactive.model import ClicksIn, Features, Guidance, InteractiveModel

__all__ = [
    "ClicksIn",
    "ConvHead",
    "CorrectiveAttention",
    "Decoder",
    "DecoderFactory",
    "Features",
    "Fusion",
    "Guidance",
    "HeadFactory",
    "InteractiveHead",
    "InteractiveModel",
    "MMSegDecoder",
    "box_disks",
    "disks",
]
