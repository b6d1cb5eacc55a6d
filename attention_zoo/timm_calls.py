"""What a call of timm that is in progress knows and does not hand on, read from its frame.

timm tells attention layers neither the model that they are built for nor its grid, and tells entry points of models no
``checkpoint_path``. Both are arguments or variables of functions of timm that are running at that moment. Reading them
there changes nothing in timm, as replacing its functions would. Where timm is called in another way there is nothing to
read, and these functions return None.
"""

import sys
from collections.abc import Iterator
from types import FrameType

from timm.models import create_model
from timm.models.naflexvit import NaFlexVit
from timm.models.vision_transformer import VisionTransformer


def host_in_construction() -> VisionTransformer | NaFlexVit | None:
    """The innermost vision transformer of timm whose constructor is running."""
    for frame in _frames():
        host = frame.f_locals.get("self")
        if frame.f_code.co_name == "__init__" and isinstance(host, (VisionTransformer, NaFlexVit)):
            return host
    return None


def requested_checkpoint() -> str | None:
    """The ``checkpoint_path`` that the innermost running ``timm.create_model`` was given."""
    for frame in _frames():
        if frame.f_code is create_model.__code__:
            return frame.f_locals["checkpoint_path"] or None
    return None


def _frames() -> Iterator[FrameType]:
    """The calls in progress, innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back
