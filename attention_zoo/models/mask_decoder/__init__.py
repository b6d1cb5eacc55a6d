"""The clustering mask decoder, the model around it, and the classes and segments that its predictions mean."""

from attention_zoo.models.mask_decoder.decoder import DecoderSize, MaskDecoder
from attention_zoo.models.mask_decoder.inference import (
    PanopticThresholds,
    instance_masks,
    panoptic_segments,
    semantic_probabilities,
)
from attention_zoo.models.mask_decoder.layer import CrossMixerFactory, MaskDecoderLayer
from attention_zoo.models.mask_decoder.mask_transformer import MaskTransformer
from attention_zoo.models.mask_decoder.outputs import MaskOutputs, MaskPrediction
from attention_zoo.models.mask_decoder.semantic_head import SemanticHeadKind

__all__ = [
    "CrossMixerFactory",
    "DecoderSize",
    "MaskDecoder",
    "MaskDecoderLayer",
    "MaskOutputs",
    "MaskPrediction",
    "MaskTransformer",
    "PanopticThresholds",
    "SemanticHeadKind",
    "instance_masks",
    "panoptic_segments",
    "semantic_probabilities",
]
