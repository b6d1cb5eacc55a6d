"""Models that take a mixer: timm's, and the papers' own, which importing this package registers with timm."""

from attention_zoo.models import absvit, botnet, deit_conv, fan, gfnet, rvt  # noqa: F401  registers their models
from attention_zoo.models.backbone import build_backbone
from attention_zoo.models.build import build_model
from attention_zoo.models.top_down import TopDown

__all__ = ["TopDown", "build_backbone", "build_model"]
