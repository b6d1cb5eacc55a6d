"""Every attack on a CUDA device that is not there: see `fake`."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from attention_zoo import attacks
from tests.attention_zoo.cuda.answers import Answers
from tests.attention_zoo.cuda.fake import Watch, device
from tests.attention_zoo.test_models import SIZE, build

CLASSES = 5
READS = {"_local_scalar_dense", "index", "nonzero"}
"""Waits of a search: which images withstand."""


def transferred():
    attack = attacks.Transfer("elsewhere", attacks.FGSM())
    attack.take(
        attacks.Source(
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, CLASSES)), "a line", list("abcde"), SIZE
        )
    )
    return attack


class Ensemble:
    """AutoAttack but for what its authors' package does, which sorts images by numbers that are not there."""

    def __init__(self, model, *, device, **settings) -> None:
        self.model, self.device = model, device
        part = SimpleNamespace(n_target_classes=9, perturb=lambda pixels, label: pixels)
        self.apgd = self.apgd_targeted = self.fab = self.square = part

    def run_standard_evaluation(self, pixels, label, batch_size):
        assert pixels.device == label.device == self.device
        return self.apgd.perturb(pixels, label) + 0 * self.model(pixels).sum(), label


CASES = {
    "FGSM": (attacks.FGSM, set()),
    "PGD": (partial(attacks.PGD, steps=2, norm="L2", random_start=False), set()),
    "PGD, random": (partial(attacks.PGD, steps=1, restarts=2), {"rand"}),
    "BPDA": (partial(attacks.PGD, steps=1, random_start=False, bpda=True), set()),
    "Square": (partial(attacks.Square, queries=2), {*READS, "rand", "randint"}),
    "AutoAttack": (attacks.AutoAttack, set()),
    "Transfer": (transferred, {"lift_fresh", "_local_scalar_dense"}),
}
"""What makes each attack, and the operators by which it waits for the device or leaves it, beside the checks that name
an image whose numbers are not finite."""


def below(base):
    return {cls for one in base.__subclasses__() for cls in (one, *below(one))}


def test_every_attack_is_run():
    run = {type(build_attack()) for build_attack, _ in CASES.values()}
    ours = {cls for cls in below(attacks.Attack) if cls.__module__.startswith("attention_zoo.")}
    assert ours == run


@pytest.mark.parametrize("name", CASES)
def test_attacks(monkeypatch, name):
    build_attack, waits = CASES[name]
    for module in (attacks.base, attacks.gradient):  # it waits, to name an image
        monkeypatch.setattr(module, "check_finite", lambda name, values, index=None: values)
    monkeypatch.setattr(attacks.auto_attack, "_autoattack", lambda: Ensemble)
    monkeypatch.setattr(attacks.gradient, "_gradient", lambda loss, pixels: torch.randn_like(pixels) * loss.sum())
    attack = build_attack()
    model = build("rvt_tiny", mixer="VarsS" if name == "BPDA" else "Probabilistic")
    with device(monkeypatch) as gpu:
        classifier = gpu.put(attacks.OnPixels(model, (0.5, 0.5, 0.5), (0.2, 0.3, 0.4)))
        if isinstance(attack, attacks.Transfer):
            gpu.put(attack.source.model).to = lambda place: attack.source.model  # where it is
        pixels, label = torch.rand(2, 3, *SIZE, device="cuda"), torch.randint(CLASSES, (2,), device="cuda")
        with Answers(), Watch(waits) as watch:
            attacked = attack.run(classifier, pixels, label)
        assert attacked.pixels.device.type == "cuda" and attacked.pixels.shape == pixels.shape
        assert attacked.no_gradient is None or attacked.no_gradient.device.type == "cuda"
    assert watch.waits == waits
