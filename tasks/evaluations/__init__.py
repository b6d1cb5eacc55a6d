"""Evaluations of trained models: one file each, and importing this package imports all of them.

A file holds a task whose ``test`` leaves an `attention_zoo.evaluation.Result` in ``result``, and the class of that
result, unless the library has it. No other code names the evaluation: the command line writes, prints and resumes it,
and ``report`` puts its results side by side.
"""

import importlib
import pkgutil

for _name in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_name}")
