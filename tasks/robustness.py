"""The former name of `tasks.evaluations.robustness`, kept because saved configs use it."""

from tasks.evaluations.robustness import AS_TRAINED, Robustness

__all__ = ["AS_TRAINED", "Robustness"]
