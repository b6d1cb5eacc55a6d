"""`tasks.evaluations.attention` by its name of before, which saved configs have."""

from tasks.evaluations.attention import AttentionSaliency, AttentionSegmentation

__all__ = ["AttentionSaliency", "AttentionSegmentation"]
