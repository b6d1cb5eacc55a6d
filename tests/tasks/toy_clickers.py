"""Models of the interface that evaluation asks, whose behaviour is known."""

import torch
from torch import nn

from attention_zoo.clicks import PADDING
from attention_zoo.models.interactive import disks


class Toy(nn.Module):
    """Base: features are the arguments of ``encode``; counts the calls."""

    encoder_sees_clicks = True

    def __init__(self):
        super().__init__()
        self.encoded = self.decoded = 0

    def encode(self, image, clicks, box=None, previous=None):
        self.encoded += 1
        return image, box, previous

    def decode(self, features, clicks, **adaptation):
        self.decoded += 1
        return self.logits(*features, clicks, **adaptation)


class Oracle(Toy):
    """Knows the object: the image is 1 there."""

    def logits(self, image, box, previous, clicks, **adaptation):
        return (image[:, :1] - 0.5) * 20


class Constant(Toy):
    """Everything is background."""

    def logits(self, image, box, previous, clicks, **adaptation):
        return torch.full_like(image[:, :1], -5.0)


class Painter(Toy):
    """The object is where positive clicks are, and not where negative ones are; the box is ignored."""

    def __init__(self, radius=4):
        super().__init__()
        self.radius = radius

    def logits(self, image, box, previous, clicks, **adaptation):
        positive, negative = disks(clicks, image.shape[-2:], self.radius).split(1, 1)
        return positive * 8 - negative * 16 - 4


class HeadOnly(Painter):
    """As Painter, whose clicks do not enter the encoder."""

    encoder_sees_clicks = False


class Remembering(Toy):
    """Adds a disk for the last click to the mask before, as models that are given it do."""

    def logits(self, image, box, previous, clicks, **adaptation):
        planes = disks(_last(clicks), image.shape[-2:], 5)
        return torch.where(planes[:, :1] > 0, 6.0, torch.where(planes[:, 1:] > 0, -6.0, torch.logit(previous, 1e-3)))


def _last(clicks):
    count = (clicks.labels != PADDING).sum(1)
    if not clicks.count:
        return clicks
    from attention_zoo.clicks import Clicks

    place = (count - 1).clamp(min=0)[:, None]
    labels = clicks.labels.gather(1, place)
    return Clicks(clicks.points.gather(1, place[..., None].expand(-1, -1, 2)), labels)
