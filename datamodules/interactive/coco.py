"""Objects in the JSON format of COCO: polygons and run lengths, checked when a file is read."""

from collections.abc import Collection, Sequence
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as run_lengths

from attention_zoo.errors import InputError
from datamodules.checks import shown

Shape = Sequence[np.ndarray] | dict[str, Any]
"""Polygons, (n, 2) float64 each, x and y of their vertices; or run lengths as pycocotools has them."""

FARTHEST = 1_000_000
"""Pixels that a vertex may lie off the image's corner."""


def read_shape(segmentation: Any, size: tuple[int, int], where: str) -> Shape:
    """The shape of one annotation, checked.

    Args:
        segmentation: a list of polygons x1, y1, x2, y2, ... (those that are empty or outside of the image are left
            out), or a dictionary of ``size`` (height, width) and ``counts``, as a list or compressed to a string.
        size: height and width of the image.
        where: the annotation, for an error.

    Returns:
        The shape; empty where no pixel of the image is in it.

    Raises:
        InputError: it is neither, a vertex is no number or far off the image, or run lengths do not fill the image.
    """
    if isinstance(segmentation, dict):
        return _read_run_lengths(segmentation, size, where)
    if not isinstance(segmentation, list):
        raise InputError(f"{where}: its segmentation is neither a list of polygons nor run lengths")
    filled = [polygon for polygon in segmentation if not (_is_list(polygon) and not len(polygon))]
    polygons = [_read_polygon(polygon, where) for polygon in filled]
    return [polygon for polygon in polygons if _in_sight(polygon, size)]


def cover(shape: Shape, size: tuple[int, int]) -> np.ndarray:
    """The pixels (H, W) bool of an object; polygons are filled between vertices that are rounded to pixels (RITM)."""
    if isinstance(shape, dict):
        return run_lengths.decode(shape).astype(bool)
    mask = np.zeros(size, dtype=np.uint8)
    for polygon in shape:  # one by one: together, where two parts overlap would be a hole
        vertices = np.round(np.asarray(polygon, dtype=np.float64)).astype(np.int32).reshape(-1, 2)
        cv2.fillPoly(mask, [vertices], 1)
    return mask > 0


def _is_list(value: Any) -> bool:
    return isinstance(value, Collection) and not isinstance(value, (str, bytes, dict))


def _read_polygon(polygon: Any, where: str) -> np.ndarray:
    if not _is_list(polygon) or any(type(value) not in (int, float) for value in polygon):
        raise InputError(f"{where}: its segmentation is no list of polygons x1, y1, x2, y2, ...")
    if len(polygon) % 2:
        raise InputError(f"{where}: a polygon has {len(polygon)} coordinates; expected x and y of each vertex")
    for place, value in enumerate(polygon):
        if not abs(value) <= FARTHEST:
            axis = "xy"[place % 2]
            raise InputError(f"{where}: {axis} of vertex {place // 2} is {shown(value)}; expected a place in the image")
    return np.array(polygon, dtype=np.float64).reshape(-1, 2)


def _in_sight(polygon: np.ndarray, size: tuple[int, int]) -> bool:
    low, high = polygon.round().min(0), polygon.round().max(0)
    return bool((high >= 0).all() and low[0] < size[1] and low[1] < size[0])


def _read_run_lengths(segmentation: dict[str, Any], size: tuple[int, int], where: str) -> Shape:
    given, counts = segmentation.get("size"), segmentation.get("counts")
    if given != list(size):
        raise InputError(f"{where}: its run lengths are of size {given}, its image is {list(size)} (height, width)")
    if isinstance(counts, str):
        counts = _expanded(counts, where)
    whole = isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts)
    if not whole or sum(counts) != size[0] * size[1]:
        said = f"sum to {sum(counts)}" if whole else "are no list of whole numbers"
        raise InputError(f"{where}: its run lengths {said}; its image has {size[0] * size[1]} pixels")
    return run_lengths.frPyObjects({"size": list(size), "counts": counts}, *size) if any(counts[1::2]) else []


def _expanded(counts: str, where: str) -> list[int]:
    """The numbers in a compressed string, which pycocotools does not check: too few would leave pixels to chance.

    Five bits a character, the lowest first; from the fourth number on the difference from the last but one (COCO API,
    maskApi.c, ``rleFrString``).
    """
    found: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            raise InputError(f"{where}: its run lengths are no string of COCO's")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            found.append(value + (found[-2] if len(found) > 2 else 0))
            value = shift = 0
    if shift:
        raise InputError(f"{where}: its run lengths end in the middle of a number")
    return found
