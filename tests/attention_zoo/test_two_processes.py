"""Two training steps of every model with every mixer in two processes: no parameter is left out, all stay equal."""

import json
import socket
import subprocess
import sys
from pathlib import Path

from tests.attention_zoo.test_models import KINDS, SIZE, SMALL

SCRIPT = Path(__file__).with_name("two_steps.py")


def test_every_model_with_every_mixer():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    wanted = json.dumps({"size": SIZE, "models": {name: {"num_classes": 5, **SMALL[name]} for name in KINDS}})
    processes = [
        subprocess.Popen([sys.executable, SCRIPT, str(rank), port, wanted], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    ended = [(process.communicate(timeout=300)[1], process.returncode) for process in processes]
    assert all(code == 0 for _, code in ended), "\n".join(err[-2000:] for err, _ in ended)
