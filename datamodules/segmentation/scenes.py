"""Generated scenes: textured grounds with textured objects of several shapes on them, and what is where."""

from typing import NamedTuple

import numpy as np
import torch
from matplotlib.colors import hsv_to_rgb
from torch import Tensor

from datamodules.segmentation.masks import LabelMap

SHAPES = ("disk", "triangle", "square", "star", "ring", "cross", "flower", "hexagon")
TEXTURES = ("plain", "striped", "checked", "spotted")
GROUNDS = {"grass": 0.3, "sand": 0.11, "water": 0.57, "heather": 0.83, "soil": 0.04, "moss": 0.42}
"""Their hues; that of an object is its own place on the circle."""

_GOLDEN = 0.618034
"""Multiples of it, modulo 1, are spread evenly: hues of classes."""


class Scene(NamedTuple):
    """One generated image and its labels.

    Attributes:
        image: (3, H, W) uint8.
        label: its classes and segments; each ground is one segment, so is each object.
    """

    image: Tensor
    label: LabelMap


def split_classes(num_classes: int) -> tuple[list[str], list[str]]:
    """Names of the grounds, which come first, and of the objects; a third of the classes are grounds."""
    grounds = (num_classes + 1) // 3
    objects = num_classes - grounds
    return (
        [_numbered(tuple(GROUNDS), place) for place in range(grounds)],
        [f"{TEXTURES[_round(place) % 4]} {_numbered(SHAPES, place, len(TEXTURES))}" for place in range(objects)],
    )


def draw_scene(seed: tuple[int, ...], size: tuple[int, int], num_classes: int) -> Scene:
    """The scene of a seed, always the same.

    One to three grounds lie above each other with wavy borders; two to six objects cover them and each other. The
    class of an object is its shape, texture and (roughly) hue; size, angle, brightness and light are random.

    Args:
        seed: non-negative integers.
        size: height and width in pixels.
        num_classes: 2 to 100.
    """
    generator = np.random.default_rng(seed)
    grounds, objects = (len(names) for names in split_classes(num_classes))
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32) / min(size)  # the shorter side is 1
    segments = np.zeros(size, dtype=np.uint8)
    labels = generator.permutation(grounds)[: generator.integers(1, 4)].tolist()
    layers = [np.ones(size, dtype=bool)]
    for place in range(1, len(labels)):
        layers.append(y > _horizon(generator, x) * y.max() * (0.2 + place / len(labels)))
    for _ in range(generator.integers(2, 7)):
        label = int(generator.integers(objects))
        layers.append(_object(generator, y, x, label))
        labels.append(grounds + label)
    image = np.zeros((*size, 3), dtype=np.float32)
    for number, (layer, label) in enumerate(zip(layers, labels, strict=True)):
        segments[layer] = number
        image[layer] = _surface(generator, y[layer], x[layer], label, num_classes, label < grounds)
    light = 1 + 0.15 * (generator.normal() * (x - x.mean()) + generator.normal() * (y - y.mean()))
    image = image * light[..., None] + generator.normal(0, 0.02, image.shape)
    present, places = np.unique(segments, return_inverse=True)
    label_of = np.asarray(labels)[present]
    in_sight = torch.from_numpy(places.reshape(size).astype(np.uint8))
    mask = torch.from_numpy(label_of.astype(np.uint8))[in_sight.long()]
    things = torch.from_numpy(label_of >= grounds)
    pixels = torch.from_numpy((image.clip(0, 1) * 255).round().astype(np.uint8)).permute(2, 0, 1).contiguous()
    return Scene(pixels, LabelMap(mask, in_sight, torch.from_numpy(label_of).long(), things, torch.zeros_like(things)))


def _round(place: int) -> int:
    """Texture of the object class at a place: all shapes come in one texture before the next one begins."""
    return 1 + place + place // len(SHAPES)


def _numbered(names: tuple[str, ...], place: int, rounds: int = 1) -> str:
    turn = place // (len(names) * rounds)
    return names[place % len(names)] + (f" {turn + 1}" if turn else "")


def _horizon(generator: np.random.Generator, x: np.ndarray) -> np.ndarray:
    """A wavy line, around 1."""
    waves = [
        generator.uniform(0.02, 0.2) * np.sin(generator.uniform(1, 6) * x + generator.uniform(0, 6.3)) for _ in range(3)
    ]
    return 1 + sum(waves[1:], waves[0])


def _object(generator: np.random.Generator, y: np.ndarray, x: np.ndarray, label: int) -> np.ndarray:
    """Where an object of an object class is, (H, W) bool."""
    radius, angle = generator.uniform(0.1, 0.26), generator.uniform(0, 2 * np.pi)
    dy = (y - generator.uniform(0, y.max())) / radius
    dx = (x - generator.uniform(0, x.max())) / (radius * generator.uniform(0.8, 1.25))
    distance, direction = np.hypot(dy, dx), np.arctan2(dy, dx) + angle
    shape = SHAPES[label % len(SHAPES)]
    if shape == "disk":
        return distance < 1
    if shape == "ring":
        return (distance < 1) & (distance > 0.55)
    if shape == "star":
        return distance < 0.42 + 0.58 * np.abs((direction * 5 / (2 * np.pi)) % 1 * 2 - 1) ** 1.3
    if shape == "flower":
        return distance < 0.72 + 0.28 * np.cos(6 * direction)
    if shape == "cross":
        along, across = np.abs(distance * np.cos(direction)), np.abs(distance * np.sin(direction))
        return (np.maximum(along, across) < 0.95) & (np.minimum(along, across) < 0.33)
    half = np.pi / {"triangle": 3, "square": 4, "hexagon": 6}[shape]
    return distance * np.cos(direction % (2 * half) - half) < np.cos(half)


def _surface(
    generator: np.random.Generator, y: np.ndarray, x: np.ndarray, label: int, num_classes: int, ground: bool
) -> np.ndarray:
    """Colours (n, 3) in 0..1 of the pixels of one segment."""
    grounds = len(split_classes(num_classes)[0])
    if ground:
        hue, saturation = list(GROUNDS.values())[label % len(GROUNDS)], generator.uniform(0.25, 0.45)
        texture, frequency = TEXTURES[label % 4], 28.0
    else:
        hue, saturation = (label - grounds) * _GOLDEN, generator.uniform(0.6, 0.9)
        texture, frequency = TEXTURES[_round(label - grounds) % 4], 69.0
    hue = (hue + generator.normal(0, 0.03)) % 1
    value, angle = generator.uniform(0.45, 0.8), generator.uniform(0, np.pi)
    frequency = frequency * generator.uniform(0.8, 1.25)
    along = np.sin(frequency * (np.cos(angle) * x + np.sin(angle) * y))
    across = np.sin(frequency * (np.cos(angle) * y - np.sin(angle) * x))
    pattern = {
        "plain": np.zeros_like(x),
        "striped": np.tanh(3 * along),
        "checked": np.tanh(4 * along * across),
        "spotted": np.where(along + across > 0.9, 1.0, -0.4),
    }[texture]
    brightness = value * (1 + (0.12 if ground else 0.3) * pattern)
    return hsv_to_rgb(np.stack([np.full_like(x, hue), np.full_like(x, saturation), brightness.clip(0, 1)], -1))
