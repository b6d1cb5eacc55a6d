"""Which attention layers of timm can have a mixer, and why the others cannot."""

from timm.layers import Attention
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import nn

from attention_zoo.hosts.base import HostLayer
from attention_zoo.hosts.beit import BeitLayer
from attention_zoo.hosts.eva import EvaLayer, RopeLayer
from attention_zoo.hosts.gcvit import GcvitLayer
from attention_zoo.hosts.gemma import GemmaLayer
from attention_zoo.hosts.hiera import HieraLayer, Sam2Layer
from attention_zoo.hosts.maxvit import Attention2dLayer, AttentionClLayer
from attention_zoo.hosts.plain import (
    ConvitLayer,
    DavitLayer,
    FastVitLayer,
    MetaFormerLayer,
    NestLayer,
    TntLayer,
    VisformerLayer,
    VoloLayer,
)
from attention_zoo.hosts.relpos import RelPosLayer
from attention_zoo.hosts.sam import SamLayer
from attention_zoo.hosts.swin import SwinLayer
from attention_zoo.hosts.swin_v2 import SwinV2CrLayer, SwinV2Layer
from attention_zoo.hosts.tiny_vit import TinyVitLayer
from attention_zoo.hosts.twins import TwinsLayer
from attention_zoo.hosts.vit import VitLayer
from attention_zoo.mixers.base import SelfMixer

GRID_HOSTS = (VisionTransformer, Eva, Beit, VisionTransformerRelPos)
"""Models whose patch embedding says rows and columns of the tokens of all layers."""

HOST_LAYERS: dict[type[nn.Module], type[HostLayer]] = {
    kind: layer
    for layer in (
        Attention2dLayer,
        AttentionClLayer,
        BeitLayer,
        ConvitLayer,
        DavitLayer,
        EvaLayer,
        FastVitLayer,
        GcvitLayer,
        GemmaLayer,
        HieraLayer,
        MetaFormerLayer,
        NestLayer,
        RelPosLayer,
        RopeLayer,
        Sam2Layer,
        SamLayer,
        SwinLayer,
        SwinV2CrLayer,
        SwinV2Layer,
        TinyVitLayer,
        TntLayer,
        TwinsLayer,
        VisformerLayer,
        VitLayer,
        VoloLayer,
    )
    for kind in layer.__bases__[1:]
}
"""The layer with a mixer that takes the place of each class of timm's attention layers."""

FEWER_KEYS = "reads fewer keys and values than it has queries, and readings mix one set of tokens"
ONE_QUERY = "reads for one token alone, and readings mix all of them"
CHANNELS = "mixes channels, not tokens"
CONVOLUTIONS = "makes or mixes its heads with convolutions between projections and softmax"
UNEQUAL = "has values of another width than its queries, and readings have heads of one width"
NO_SOFTMAX = "is no softmax attention of queries, keys and values"

OBSTACLES: dict[str, str] = {
    "_efficientnet_blocks.MobileAttention": FEWER_KEYS,
    "cait.ClassAttn": ONE_QUERY,
    "cait.TalkingHeadAttn": "mixes the scores of its heads before and after its softmax, so that no head is by itself",
    "coat.FactorAttnConvRelPosEnc": NO_SOFTMAX,
    "convit.GPSA": "adds a softmax of positions to that of its scores by a gate",
    "cpubone.ConvAttention": CONVOLUTIONS,
    "crossvit.CrossAttention": ONE_QUERY,
    "csatv2.SpatialTransformerBlock": "is a whole block that projects for itself",
    "davit.ChannelAttention": CHANNELS,
    "davit.ChannelAttentionV2": CHANNELS,
    "edgenext.CrossCovarianceAttn": CHANNELS,
    "efficientformer.Attention": UNEQUAL,
    "efficientformer_v2.Attention2d": "mixes the scores of its heads before and after its softmax",
    "efficientformer_v2.Attention2dDownsample": FEWER_KEYS,
    "efficientvit_msra.CascadedGroupAttention": "feeds each head with the output of the one before",
    "iformer.SHMA": UNEQUAL,
    "layers.attention2d.MultiQueryAttention2d": FEWER_KEYS,
    "layers.attention2d.MultiQueryAttentionV2": FEWER_KEYS,
    "layers.attention_pool.AttentionPoolLatent": ONE_QUERY,
    "layers.attention_pool.AttentionPoolPrr": ONE_QUERY,
    "layers.attention_pool2d.AttentionPool2d": ONE_QUERY,
    "layers.attention_pool2d.RotAttentionPool2d": ONE_QUERY,
    "layers.bottleneck_attn.BottleneckAttn": "adds products of queries and positions to its scores, as no layer here",
    "layers.diff_attention.DiffAttention": "subtracts two maps of heads of half the width; the mixer Differential does",
    "layers.halo_attn.HaloAttn": "reads more keys, those around a block, than it has queries",
    "layers.lambda_layer.LambdaLayer": NO_SOFTMAX,
    "layers.non_local_attn.BatNonLocalAttn": NO_SOFTMAX,
    "levit.Attention": UNEQUAL,
    "levit.AttentionDownsample": FEWER_KEYS,
    "lowformer.ConvAttention": CONVOLUTIONS,
    "mobilevit.LinearSelfAttention": NO_SOFTMAX,
    "mvitv2.MultiScaleAttention": FEWER_KEYS,
    "mvitv2.MultiScaleAttentionPoolFirst": FEWER_KEYS,
    "nextvit.ConvAttention": NO_SOFTMAX,
    "nextvit.EfficientAttention": FEWER_KEYS,
    "pvt_v2.Attention": FEWER_KEYS,
    "shvit.SHSA": UNEQUAL,
    "swiftformer.EfficientAdditiveAttention": NO_SOFTMAX,
    "twins.GlobalSubSampleAttn": FEWER_KEYS,
    "vision_transformer.DiffParallelScalingBlock": "projects for attention and its MLP by one layer",
    "vision_transformer.ParallelScalingBlock": "projects for attention and its MLP by one layer",
    "volo.ClassAttention": ONE_QUERY,
    "volo.OutlookAttention": NO_SOFTMAX,
    "xcit.XCA": CHANNELS,
}
"""Why the attention layers of timm that have no layer of ours cannot have a mixer, by `layer_name`."""


def layer_name(kind: type) -> str:
    """Return the name of a class of timm as here and in tables: its module inside ``timm.models``, and its own name."""
    module = kind.__module__.removeprefix("timm.").removeprefix("models.")
    return f"{module}.{kind.__name__}"


def host_layer_for(layer: nn.Module) -> type[HostLayer] | None:
    """Return the class with a mixer that can take the place of a layer of timm, or of one with a mixer; else None."""
    return type(layer) if isinstance(layer, HostLayer) else HOST_LAYERS.get(type(layer))


def is_plain(layer: nn.Module) -> bool:
    """Return whether a mixer itself can take the whole layer's place: it has a mixer's parameters, and no more."""
    if isinstance(layer, SelfMixer):
        return True
    if type(layer) is HOST_LAYERS[Attention] or not isinstance(layer, Attention):
        return False
    square = layer.qkv.in_features == layer.num_heads * layer.head_dim == layer.proj.out_features
    return square and getattr(layer, "gate", None) is None


def swappable(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the layers of ``model`` that can have a mixer, with their names; none that is inside another one."""
    found: list[tuple[str, nn.Module]] = []
    for name, module in model.named_modules():
        inside = found and name.startswith(found[-1][0] + ".")
        if not inside and (isinstance(module, Attention | SelfMixer) or _has_place(module)):
            found.append((name, module))
    return found


def _has_place(layer: nn.Module) -> bool:
    """Return whether a layer of ours can take this very layer's place."""
    kind = host_layer_for(layer)
    return kind is not None and kind.obstacle(layer) is None


def unswappable(model: nn.Module) -> dict[str, str]:
    """Return why attention layers of ``model`` can have no mixer, by `layer_name`."""
    reasons = {}
    for layer in model.modules():
        name, kind = layer_name(type(layer)), host_layer_for(layer)
        obstacle = None if kind is None else kind.obstacle(layer)
        if name in OBSTACLES:
            reasons[name] = OBSTACLES[name]
        elif obstacle is not None:
            reasons[name] = f"can have no mixer: {obstacle}"
    return dict(sorted(reasons.items()))
