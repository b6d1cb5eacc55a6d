"""LightningModules: loss, metrics, optimisation and logging. They know no mixer by name."""

from tasks.base import Task
from tasks.classification import Classification

__all__ = ["Classification", "Task"]
