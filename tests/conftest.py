"""What all tests share: each process computes in one thread, and garbage is sought only in what tests make."""

import gc
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # programs that tests start inherit it
gc.disable()

import pytest  # noqa: E402 (imports make a heap that stays; no collection looks through it)
import torch  # noqa: E402

torch.set_num_threads(1)  # tensors this small are slower with more, much so where cores are shared


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give each worker one stretch of the tests; one that is done takes over half of what another has left.

    By default (``load``) stretches get shorter to the end, down to two tests, and both workers make what a file shares.
    """
    if config.getvalue("dist") == "load":
        from xdist.scheduler import WorkStealingScheduling

        return WorkStealingScheduling(config, log)
    return None


def pytest_collection_finish():
    """Leave what has been imported out of every collection: a large heap that stays, a tenth of the tests' time."""
    gc.freeze()
    gc.enable()


def pytest_sessionfinish():
    """Give the collector everything back, for what looks after its objects at the end."""
    gc.unfreeze()
