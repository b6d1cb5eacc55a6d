"""Adversarial attacks on a classifier of pixels, with the settings of the robustness tables as defaults.

    x <- P(x + step sign(∇ loss(f(x), y))),  P onto the ball of radius eps about the image and onto [0, 1]

I. Goodfellow et al., Explaining and Harnessing Adversarial Examples, ICLR 2015 (FGSM); A. Madry et al., Towards Deep
Learning Models Resistant to Adversarial Attacks, ICLR 2018 (PGD); A. Athalye, N. Carlini, D. Wagner, Obfuscated
Gradients Give a False Sense of Security, ICML 2018 (BPDA); M. Andriushchenko et al., Square Attack, ECCV 2020; F.
Croce, M. Hein, Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse Parameter-free Attacks, ICML
2020 (AutoAttack).
"""

from attention_zoo.attacks.auto_attack import AutoAttack
from attention_zoo.attacks.base import Attack, Attacked, OnPixels, Watched, quotient, unheard, without_gradient
from attention_zoo.attacks.gradient import FGSM, PGD
from attention_zoo.attacks.square import Square
from attention_zoo.attacks.transfer import Source, Transfer, Transferring

__all__ = [
    "FGSM",
    "PGD",
    "Attack",
    "Attacked",
    "AutoAttack",
    "OnPixels",
    "Source",
    "Square",
    "Transfer",
    "Transferring",
    "Watched",
    "quotient",
    "unheard",
    "without_gradient",
]
