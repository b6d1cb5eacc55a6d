"""`tasks.evaluations.robustness` by its name of before, which saved configs have."""

from tasks.evaluations.robustness import AS_TRAINED, Robustness

__all__ = ["AS_TRAINED", "Robustness"]
