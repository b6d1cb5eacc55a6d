"""A page in a real Chromium: where it is found, and a server that pages are opened from."""

import contextlib
import shutil
import threading

import pytest

pytest.importorskip("starlette", reason="the extra `pages` is not installed")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

import uvicorn
from playwright.sync_api import sync_playwright

from attention_zoo.pages.server import application, listening

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextlib.contextmanager
def served(page):
    """The address of a page that is served by a thread of this process while the block runs."""
    with listening("127.0.0.1", 0) as sock:
        server = uvicorn.Server(uvicorn.Config(application(page), log_level="error", lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{sock.getsockname()[1]}/"
        server.should_exit = True
        thread.join(10)


@contextlib.contextmanager
def chromium():
    """A browser without a window; skips where this machine has no Chromium."""
    if CHROMIUM is None:
        pytest.skip("this machine has no Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()
