"""The attention page in a real browser: hover, click, switch, corrupt, reload, save."""

from functools import partial
from urllib.parse import parse_qs, urlencode, urlsplit

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the extra `pages` is not installed")
pytest.importorskip("playwright", reason="playwright is not installed")

import timm
import torch
from PIL import Image
from playwright.sync_api import expect

import attention_zoo as az
from attention_zoo.analysis import attention_maps
from attention_zoo.analysis.maps import with_mixers
from attention_zoo.analysis.side_by_side import Subject
from attention_zoo.cli.look import _corrupt, _decode
from attention_zoo.pages.attention import AttentionPage
from attention_zoo.pages.gallery import Gallery
from datamodules.corruptions import CORRUPTIONS
from tests.pages.browser import chromium, served

VIT = {"img_size": 32, "patch_size": 4, "embed_dim": 24, "depth": 3, "num_heads": 2, "num_classes": 3}
MIXERS = ("DotProduct", "VarsD")
CUT_SHORT = """
window.whole = window.fetch;
window.fetch = async (...asked) => {
  const answer = await window.whole(...asked);
  const body = new ReadableStream({ start: (part) => part.error(new TypeError("network error")) });
  return new Response(body, { headers: answer.headers });
};
null // a function would be called
"""
"""A server that ends after the headers of each answer."""
NAME = 'photo<img src="x" onerror="document.title=1">'


def picture(seed):
    return torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def vit(mixer):
    torch.manual_seed(0)
    return az.swap_mixers(timm.create_model("vit_tiny_patch16_224", **VIT), mixer).eval()


@pytest.fixture(scope="module")
def models():
    return [*map(vit, MIXERS)]


@pytest.fixture(scope="module")
def address(models):
    subjects = {
        f"model {place}": Subject(lambda size, model=model: model, lambda image: image, class_names=["a", "b", "c"])
        for place, model in enumerate(models)
    }
    images = {NAME if seed else "noise": partial(picture, seed) for seed in range(2)}
    with served(AttentionPage(Gallery(subjects, images, _corrupt), CORRUPTIONS, _decode)) as address:
        yield address


@pytest.fixture(scope="module")
def unequal():
    """The address of a page of two models whose depths, heads and grids differ."""
    sizes = [VIT, {**VIT, "patch_size": 8, "depth": 2, "num_heads": 4}]
    built = [with_mixers(timm.create_model("vit_tiny_patch16_224", **each).eval()) for each in sizes]
    subjects = {
        f"model {place}": Subject(lambda size, model=model: model, lambda image: image)
        for place, model in enumerate(built)
    }
    with served(AttentionPage(Gallery(subjects, {"noise": partial(picture, 0)}, _corrupt), CORRUPTIONS, _decode)) as at:
        yield at


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "console", lambda line: wrong.append(line.text) if line.type == "error" and "400" not in line.text else None
    )
    yield page
    page.unroute_all(behavior="ignoreErrors")  # some answers may still be on their way
    page.close()
    assert not wrong


def ready(page):
    page.locator("body[data-ready=yes]").wait_for()


def opened(page, address, query=""):
    page.goto(f"{address}?{query}")
    ready(page)
    return page


def said(page, model=0):
    return page.locator(".said").nth(model)


def query(page):
    return {name: value for name, (value,) in parse_qs(urlsplit(page.url).query).items()}


def peak(weights, prefix=1, width=8):
    """The words for the largest of the values of tokens."""
    place = int(weights[prefix:].argmax())
    return f"{place // width},{place % width} ("


def maps(models, model, layer, image=None):
    batch = Subject(lambda size: None, lambda image: image)
    shown = picture(0) if image is None else image
    pixels = (shown.float() / 255 - torch.tensor(batch.mean)[:, None, None]) / torch.tensor(batch.std)[:, None, None]
    return attention_maps(models[model], pixels[None], str(layer))[layer][0]


def test_hovering_a_patch_shows_its_row_until_the_pointer_leaves(page, address, models):
    opened(page, address, "layer=1&token=2,3")
    assert f"Patch 2,3 reads most from {peak(maps(models, 0, 1).mean(0)[1 + 19])}" in said(page).text_content()
    box = page.locator(".view").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 5.5 / 8, box["y"] + box["height"] * 6.5 / 8)
    for model in range(2):  # the same patch in every model
        expected = f"Patch 6,5 reads most from {peak(maps(models, model, 1).mean(0)[1 + 53])}"
        expect(said(page, model)).to_contain_text(expected)
    assert query(page)["token"] == "2,3"
    page.mouse.move(5, 5)
    expect(said(page)).to_contain_text("Patch 2,3 reads")
    page.mouse.click(box["x"] + 3, box["y"] + 3)
    expect(said(page)).to_contain_text("Patch 0,0 reads")
    ready(page)
    assert query(page)["token"] == "0,0"


def test_what_is_below_a_picture_may_grow_while_a_patch_is_hovered(page, address):
    opened(page, address, "token=2,3")
    page.locator(".view").first.hover(position={"x": 5, "y": 5})
    expect(said(page)).to_contain_text("Patch 0,0 reads")
    page.evaluate("document.querySelector('.how').style.paddingBottom = '60px'")
    page.evaluate("() => new Promise((after) => requestAnimationFrame(() => setTimeout(after, 50)))")
    expect(said(page)).to_contain_text("Patch 0,0 reads")
    page.set_viewport_size({"width": 1000, "height": 900})
    page.evaluate("() => new Promise((after) => requestAnimationFrame(() => setTimeout(after, 50)))")
    assert page.locator(".view").first.get_attribute("width") == str(
        round(page.locator(".screen").first.evaluate("screen => screen.clientWidth"))
    )


def test_another_reading_layer_and_head(page, address, models):
    opened(page, address, "token=4,4")
    page.get_by_label("Picture of").select_option("read_by")
    page.locator("#layer").fill("0")
    page.locator("#head").select_option("1")
    ready(page)
    assert query(page) == {"image": "noise", "token": "4,4", "kind": "read_by", "layer": "0", "head": "1"}
    expect(said(page)).to_contain_text(f"is read most by {peak(maps(models, 0, 0)[1, :, 1 + 36])}")
    expect(page.locator("h2").first).to_contain_text("model 0: DotProduct, layer 0, head 1")
    page.locator("#step").fill("0")
    ready(page)
    assert query(page)["step"] == "0"
    page.locator(".bars button").first.click()
    ready(page)
    assert query(page)["head"] == "0"


def test_pictures_are_at_one_height_and_entropies_are_numbers(page, address):
    opened(page, address)
    screens = [page.locator(".screen").nth(place).bounding_box() for place in range(2)]
    assert screens == [page.locator(".view").nth(place).bounding_box() for place in range(2)]
    page.locator("h2").first.evaluate("title => { title.textContent = 'a long name '.repeat(20); }")
    for part in (".view", ".said", ".bars"):
        first, second = (page.locator(part).nth(place).bounding_box()["y"] for place in range(2))
        assert first == second
    for bar in page.locator(".bars button").all():
        (number, head), label = bar.all_inner_texts()[0].split(), bar.get_attribute("aria-label")
        assert label == f"Head {head}: entropy {float(number):.2f}"


def test_numbers_are_asked_for_once(page, address):
    opened(page, address, "token=4,4")
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "/api/values" in request.url else None)
    for kind in ("norms", "atoms", "reads"):  # their pictures are of other heights
        page.get_by_label("Picture of").select_option(kind)
        ready(page)
        expect(page.locator(".waiting")).to_have_count(0)
    assert len(asked) == len(set(asked))


def test_corruption_changes_picture_and_attention(page, address, models):
    opened(page, address, "token=4,4&layer=2")
    before = page.locator(".view").first.screenshot()
    page.get_by_label("Corruption").select_option("contrast")
    page.get_by_label("Severity").fill("5")
    ready(page)
    assert query(page)["severity"] == "5"
    weights = maps(models, 0, 2, _corrupt("contrast", 5)(picture(0)))
    expect(said(page)).to_contain_text(peak(weights.mean(0)[1 + 36]))
    assert page.locator(".view").first.screenshot() != before


def test_reload_of_an_address_gives_the_same_view(page, address):
    opened(page, address, "kind=rollout_reads&layer=1&token=cls&corruption=fog&severity=2&every=1&strength=40")

    def view():
        pixels = page.locator("#models canvas").evaluate_all("all => all.map(each => each.toDataURL())")
        return pixels, page.locator("#models").text_content(), query(page)

    before = view()
    assert len(before[0]) > 1
    page.reload()
    ready(page)
    assert view() == before
    assert "class token" in said(page).text_content()


@pytest.mark.parametrize(
    ("part", "value"),
    [("layer", "-1"), ("layer", "1.5"), ("head", "every"), ("head", "-1"), ("step", "x"), ("strength", "-5")]
    + [("token", "1e9,0"), ("severity", "9"), ("every", "<b>")],
)
def test_what_no_control_can_say_is_left_out_of_the_address(page, address, part, value):
    opened(page, address, urlencode({"layer": "2", "corruption": "fog", part: value}))
    expect(page.locator("#message")).to_contain_text(f"{part}={value}")
    expect(said(page)).to_contain_text("reads most from")
    assert part not in query(page) and query(page)["corruption"] == "fog"


def test_models_of_other_depths_heads_and_grids_say_what_they_show(page, unequal):
    opened(page, unequal, "layer=2&head=3&token=5,2")
    expect(page.locator("h2").nth(0)).to_contain_text("layer 2, head 1")  # the last that it has
    expect(page.locator("h2").nth(1)).to_contain_text("layer 1, head 3")
    expect(said(page, 1)).to_contain_text("Patch 2,1 reads")
    pressed = page.locator(".bars button[aria-pressed=true] b")
    assert [each.text_content() for each in pressed.all()] == ["1", "3"]
    assert page.locator("#head").input_value() == "3"


def test_a_server_that_ends_in_the_middle_of_an_answer_is_said(page, address):
    opened(page, address, "token=2,3")
    page.evaluate(CUT_SHORT)
    page.locator(".view").first.hover(position={"x": 5, "y": 5})
    expect(page.locator(".model .error").first).to_have_text("The server does not answer: does it still run?")
    page.evaluate("window.fetch = window.whole; null")
    page.mouse.move(5, 5)
    page.locator(".view").first.hover(position={"x": 5, "y": 5})
    expect(said(page)).to_contain_text("Patch 0,0 reads")


def test_another_server_at_the_same_address_is_said(page, address):
    opened(page, address, "token=2,3")

    def other(route):
        answer = route.fetch()
        route.fulfill(response=answer, headers={**answer.headers, "x-server": "another"})

    page.route("**/api/values?*", other)
    page.locator(".view").first.hover(position={"x": 5, "y": 5})
    expect(page.locator(".model .error").first).to_contain_text("started anew: reload this page")


def test_an_image_that_was_gone_is_asked_for_again_once_it_is_back(page, address, tmp_path):
    Image.fromarray(picture(6).permute(1, 2, 0).numpy()).save(tmp_path / "back.png")
    opened(page, address, "token=2,3")
    page.locator("#file").set_input_files(tmp_path / "back.png")
    page.wait_for_url("**image=back.png**")
    ready(page)
    gone = {"status": 400, "body": '{"error": "unknown image"}', "headers": {"x-server": server_of(page, address)}}
    page.route("**/api/values?*", lambda route: route.fulfill(**gone))
    page.locator(".view").first.hover(position={"x": 5, "y": 5})
    expect(page.locator(".model .error").first).to_have_text("unknown image")
    page.unroute("**/api/values?*")
    with page.expect_response("**/api/picture?*"):
        page.locator("#file").set_input_files(tmp_path / "back.png")
    page.mouse.move(5, 5)
    ready(page)
    page.locator(".view").first.hover(position={"x": 5, "y": 5})
    expect(said(page)).to_contain_text("Patch 0,0 reads")


def server_of(page, address):
    return page.request.get(address).headers["x-server"]


@pytest.mark.slow
def test_keys(page, address):
    opened(page, address, "token=4,4&layer=1")
    steps = [("ArrowLeft", "token", "4,3"), ("ArrowDown", "token", "5,3"), ("]", "layer", "2"), (".", "head", "each")]
    steps += [("c", "token", "cls"), ("k", "kind", "read_by"), ("g", "every", "1"), ("n", "image", NAME)]
    for key, name, value in steps:
        page.keyboard.press(key)
        ready(page)
        assert query(page)[name] == value, key
    assert page.locator(".grid").first.is_visible()
    assert page.title() == "Attention, patch by patch"  # a name is text, whatever it holds


@pytest.mark.slow
def test_atoms_and_norms_of_models_that_have_them(page, address):
    opened(page, address, "kind=atoms")
    assert "no dictionary" in page.locator(".model .error").first.text_content()
    assert page.locator(".model .error").nth(1).is_hidden()
    page.get_by_label("Picture of").select_option("norms")
    ready(page)
    expect(said(page)).to_contain_text("Largest at")


WRITTEN = """
window.written = [];
const write = CanvasRenderingContext2D.prototype.fillText;
CanvasRenderingContext2D.prototype.fillText = function (...given) {
  window.written.push(given[0]);
  write.apply(this, given);
};
"""


@pytest.mark.slow
def test_saving_a_view(page, address, tmp_path):
    page.add_init_script(WRITTEN)
    opened(page, address)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as PNG").click()
    assert download.value.suggested_filename == "look-noise-layer2.png"
    with Image.open(download.value.path()) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[1] > 600 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    written = page.evaluate("window.written")
    least, most = (page.locator(end).first.inner_text() for end in (".least", ".most"))
    prediction = page.locator(".prediction").first.inner_text()
    assert f"colours from {least} to {most} · {prediction}" in written and written[-1].endswith(page.url)


def test_images_that_are_dropped(page, address, tmp_path):
    opened(page, address)
    Image.fromarray(picture(5).permute(1, 2, 0).numpy()).save(tmp_path / "mine.png")
    page.locator("#file").set_input_files(tmp_path / "mine.png")
    page.wait_for_url("**image=mine.png**")
    assert query(page)["image"].startswith("mine.png (")
    (tmp_path / "text.png").write_text("no image")
    page.locator("#file").set_input_files(tmp_path / "text.png")
    expect(page.locator("#message")).to_contain_text("cannot read image text.png")
    page.goto(f"{address}?image=gone.png")
    expect(page.locator("#message")).to_contain_text("unknown image 'gone.png'")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_screens_scroll_one_way_and_every_control_has_a_name(browser, address, scheme):
    page = browser.new_page(viewport={"width": 400, "height": 800}, color_scheme=scheme)
    opened(page, address, "every=1&head=each")
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    names = page.locator("button, input, select, canvas[role]").evaluate_all(
        "nodes => nodes.map((node) => node.ariaLabel ?? node.labels?.[0]?.textContent ?? node.textContent)"
    )
    assert len(names) > 20 and all(name.strip() for name in names)
    page.close()
