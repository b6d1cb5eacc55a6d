"""The former name of `tasks.evaluations.attention`, kept because saved configs use it."""

from tasks.evaluations.attention import AttentionSaliency, AttentionSegmentation

__all__ = ["AttentionSaliency", "AttentionSegmentation"]
