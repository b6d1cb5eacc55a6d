"""Measure in a browser how long a click on the click page takes, and how much of that is the model's own time.

PYTHONPATH=. python benchmarks/click_page.py RUN --size 512 --clicks 15
"""

import argparse
import re
import statistics
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import expect
from rich.console import Console

from attention_zoo.cli.segmenter import RunSegmenter
from attention_zoo.pages.click import ClickPage
from tests.pages.browser import chromium, served

TIMES = re.compile(r"(\d+) ms\s*\(model (\d+) ms\)")


def main() -> None:
    """Serve a run on a picture of noise, click on it, and read the times that the page shows of each click."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a checkpoint or run of interactive segmentation")
    parser.add_argument("--size", type=int, default=512, help="pixels along a side of the picture")
    parser.add_argument("--clicks", type=int, default=15)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        pixels = rng.integers(0, 256, (options.size, options.size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(Path(folder) / "noise.png")
        page_of_run = ClickPage(RunSegmenter(options.run, folder, None, device="cpu", trust=False))
        with chromium() as browser, served(page_of_run) as address:
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(address)
            canvas = page.locator("#after canvas")
            expect(canvas).to_have_attribute("aria-label", re.compile("noise"), timeout=60_000)
            box = canvas.bounding_box()
            assert box is not None
            for place in range(options.clicks):
                share = (place + 0.5) / options.clicks
                page.mouse.click(box["x"] + box["width"] * share, box["y"] + box["height"] * (1 - share))
                expect(page.locator("#clicks li")).to_have_count(place + 1, timeout=60_000)
                expect(page.locator("#clicks li").nth(place)).to_contain_text("(model", timeout=60_000)
            found = TIMES.findall(page.locator("#clicks").text_content() or "")
    whole, model = ([int(pair[index]) for pair in found] for index in (0, 1))
    beside = [one - other for one, other in zip(whole, model, strict=True)]
    Console().print(
        f"{len(found)} clicks on {options.size} x {options.size} pixels, median: {statistics.median(whole):.0f} ms, "
        f"of them the model {statistics.median(model):.0f} ms, beside it {statistics.median(beside):.0f} ms"
    )


if __name__ == "__main__":
    main()
