"""Measure in a browser how long after the pointer moved the attention page has drawn the new patch's row.

PYTHONPATH=. python benchmarks/look_page.py --side 28 --heads 6 --mixers DotProduct VarsD

Beside it: a file of a few kB from the same server, asked for by the same browser, which is the machine's own part.
"""

import argparse
import statistics

import timm
import torch
from playwright.sync_api import Page
from rich.console import Console
from rich.table import Table

import attention_zoo as az
from attention_zoo.analysis.maps import with_mixers
from attention_zoo.analysis.side_by_side import ImageFunction, Subject
from attention_zoo.pages.attention import AttentionPage
from attention_zoo.pages.gallery import Gallery
from tests.pages.browser import chromium, served

FETCHES = """async (path) => {
  const times = [];
  for (let i = 0; i < 30; i++) {
    const begin = performance.now();
    await (await fetch(`${path}?${i}`)).arrayBuffer();
    times.push(performance.now() - begin);
  }
  return times;
}"""


def subject(mixer: str, side: int, heads: int) -> Subject:
    """Return a model of 12 layers on a grid of ``side`` x ``side`` tokens."""
    sizes = {"img_size": 8 * side, "patch_size": 8, "embed_dim": 32 * heads, "depth": 12, "num_heads": heads}
    model = with_mixers(az.swap_mixers(timm.create_model("vit_tiny_patch16_224", **sizes), mixer)).eval()
    return Subject(lambda size: model, lambda image: image)


def hovered(page: Page, query: str, hovers: int) -> list[float]:
    """Return the milliseconds from each of some moves of the pointer until the new row is drawn."""
    page.goto(query)
    page.locator("body[data-ready=yes]").wait_for(timeout=600_000)
    box = page.locator(".view").first.bounding_box()
    assert box is not None
    times: list[float] = []
    for place in range(hovers):
        before = page.locator("body").get_attribute("data-drawn")
        share = (place + 0.5) / hovers
        page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] * (1 - share))
        page.locator(f"body:not([data-drawn='{before}'])").wait_for()
        times.append(float(page.locator("body").get_attribute("data-latency") or "nan"))
    return times


def main() -> None:
    """Serve models of random weights, and hover over them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=28, help="tokens along a side")
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--hovers", type=int, default=20)
    parser.add_argument("--mixers", nargs="+", default=["DotProduct", "Probabilistic", "VarsD"])
    options = parser.parse_args()
    image = torch.randint(0, 256, (3, 8 * options.side, 8 * options.side), dtype=torch.uint8)
    table = Table(title=f"{options.side**2} tokens, 12 x {options.heads} heads, ms after the pointer moved")
    for column in ("mixer", "picture", "median", "95 %", "a file, median"):
        table.add_column(column)
    with chromium() as browser:
        for mixer in options.mixers:
            gallery = Gallery({mixer: subject(mixer, options.side, options.heads)}, {"noise": lambda: image}, _none)
            with served(AttentionPage(gallery, [], lambda name, content: image)) as address:
                page = browser.new_page(viewport={"width": 1280, "height": 900})
                for kind in ("reads", "read_by", "rollout_reads"):
                    times = hovered(page, f"{address}?kind={kind}", options.hovers)
                    file = statistics.median(page.evaluate(FETCHES, "/static/look/look.css"))
                    late = statistics.quantiles(times, n=20)[-1]
                    table.add_row(mixer, kind, *(f"{time:.0f}" for time in (statistics.median(times), late, file)))
                page.close()
    Console().print(table)


def _none(name: str, severity: int) -> ImageFunction:
    raise NotImplementedError("no corruption is measured")


if __name__ == "__main__":
    main()
