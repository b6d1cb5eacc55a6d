"""The authors' pictures of frost, as the package ``imagecorruptions-imaug`` carries them."""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

from attention_zoo.errors import InputError
from datamodules.images import decode

TEXTURES = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
"""The five that the authors draw from; their sixth is never drawn."""


def texture(name: str, scale: float) -> np.ndarray:
    """One of `TEXTURES`, resized by ``scale``.

    Returns:
        uint8 (H, W, 3), shared: not to be written to.

    Raises:
        InputError: the package is not installed.
    """
    return _load(textures_folder() / name, scale)


def textures_folder() -> Path:
    """Where the pictures are; the package itself is not imported, which takes a compiler.

    Raises:
        InputError: the package is not installed.
    """
    spec = find_spec("imagecorruptions")
    for place in spec.submodule_search_locations or () if spec else ():
        if (Path(place) / "frost" / TEXTURES[0]).is_file():
            return Path(place) / "frost"
    raise InputError(
        "frost needs the pictures in the package imagecorruptions-imaug: pip install 'attention_zoo[robustness]'"
    )


@lru_cache(maxsize=3 * len(TEXTURES))
def _load(path: Path, scale: float) -> np.ndarray:
    picture = np.ascontiguousarray(decode(str(path)).permute(1, 2, 0).numpy())
    picture = cv2.resize(picture, (0, 0), fx=scale, fy=scale) if scale != 1 else picture
    picture.setflags(write=False)
    return picture
