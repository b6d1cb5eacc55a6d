"""The former name of `tasks.evaluations.attention`, kept because saved configs use it."""

from tasks.evaluations.attention import AttentionSegmentation
from tasks.evaluations.saliency import AttentionSaliency

__all__ = ["AttentionSaliency", "AttentionSegmentation"]
