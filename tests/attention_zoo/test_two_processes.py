"""Two training steps of models with mixers in two processes: no parameter is left out, all stay equal."""

import pytest

import attention_zoo as az
from tests import processes
from tests.attention_zoo.test_models import KINDS, SIZE, SMALL
from tests.attention_zoo.two_steps import train_all
from tests.mixers import CORE, LIKE_OTHERS

MODELS = {name: {"num_classes": 5, **SMALL[name]} for name in KINDS}
HOST = "deit_conv_tiny_patch16_224"
"""The model that also looks twice."""


def train_in_two_processes(pairs, folder):
    ended = processes.run(train_all, pairs, MODELS, SIZE, ranks=2, cwd=folder, timeout=300)
    assert ended.code == 0, ended.err


def test_every_kind_of_mixer_and_every_model(tmp_path):
    mixers = [(HOST, mixer) for mixer in CORE if mixer not in LIKE_OTHERS]
    train_in_two_processes(mixers + [(name, "Probabilistic") for name in KINDS if name != HOST], tmp_path)


@pytest.mark.slow
def test_every_model_with_every_mixer(tmp_path):
    train_in_two_processes([(name, mixer) for name in KINDS for mixer in az.list_mixers("self")], tmp_path)
