"""Models that take a mixer."""

from attention_zoo.models.build import build_model

__all__ = ["build_model"]
