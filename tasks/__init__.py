"""The tasks: LightningModules with loss, metrics, optimisation and logging. None of them names a mixer.

Importing the package imports every module in it, so that the command line finds a task of a new file by its name.
"""

import importlib
import pkgutil

from tasks.base import Task
from tasks.classification import Classification
from tasks.clicks import Curriculum, Setting
from tasks.draw_assignments import DrawAssignments
from tasks.evaluations.attention import AttentionSegmentation
from tasks.evaluations.robustness import Robustness
from tasks.evaluations.saliency import AttentionSaliency
from tasks.evaluations.stability import PerturbationStability
from tasks.evaluations.top_down_control import TopDownControl
from tasks.interactive import InteractiveSegmentation
from tasks.log_pictures import LogPictures
from tasks.mask_segmentation import MaskSegmentation
from tasks.semantic import SemanticSegmentation
from tasks.sync_norm import SyncBatchNorm

__all__ = [
    "AttentionSaliency",
    "AttentionSegmentation",
    "Classification",
    "DrawAssignments",
    "LogPictures",
    "MaskSegmentation",
    "Curriculum",
    "InteractiveSegmentation",
    "Setting",
    "PerturbationStability",
    "Robustness",
    "SemanticSegmentation",
    "SyncBatchNorm",
    "Task",
    "TopDownControl",
]

for _module in sorted(module.name for module in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")
