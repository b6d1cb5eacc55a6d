"""Evaluations of trained models: one file each, and importing this package imports all of them.

A file holds a task whose ``test`` leaves an `attention_zoo.evaluation.Result` in ``result``, and that result, unless
the library has it. Nothing else has to know of it: the command line writes, prints and resumes it, ``report`` joins it.
"""

import importlib
import pkgutil

for _name in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_name}")
