"""Two training steps of every model with every mixer in two processes: no parameter is left out, all stay equal."""

from tests import processes
from tests.attention_zoo.test_models import KINDS, SIZE, SMALL
from tests.attention_zoo.two_steps import train_all


def test_every_model_with_every_mixer(tmp_path):
    models = {name: {"num_classes": 5, **SMALL[name]} for name in KINDS}
    ended = processes.run(train_all, models, SIZE, ranks=2, cwd=tmp_path, timeout=300)
    assert ended.code == 0, ended.err
