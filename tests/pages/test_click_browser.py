"""The page of clicks in a real Chromium: what a person clicks, drags, types, exports and sees."""

import io
import json
import re
import zipfile

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from playwright.sync_api import expect

from tests.commands import call as command
from tests.pages.browser import chromium, served
from tests.pages.conftest import MARKUP

expect.set_options(timeout=12_000)
SIZES = {"wide": (1280, 800, "light"), "narrow": (400, 800, "dark")}


@pytest.fixture(scope="module")
def address(page):
    with served(page) as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


class Tab:
    """A tab with the page, and what a person does in it."""

    def __init__(self, browser, address, size="wide", **options):
        width, height, scheme = SIZES[size]
        viewport = {"width": width, "height": height}
        self.context = browser.new_context(viewport=viewport, color_scheme=scheme, **options)
        self.page = self.context.new_page()
        self.faults = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", lambda dialog: self.faults.append(dialog.message))
        self.page.on("request", lambda request: self.outside(request.url, address))
        self.page.goto(address)
        expect(self.find("model")).to_contain_text("vit_tiny")
        self.canvas = self.page.locator("#after canvas")

    def outside(self, url, address):
        if not url.startswith((address, "blob:")):
            self.faults.append(url)

    def find(self, id):
        return self.page.locator(f"#{id}")

    def open(self, name):
        options = self.find("pictures").locator("option")
        told = re.compile(rf"{re.escape(name)}( · \d+ objects?)?")  # how many are marked on it
        (place,) = (place for place, text in enumerate(options.all_inner_texts()) if told.fullmatch(text))
        self.find("pictures").select_option(index=place)
        expect(self.canvas).to_have_attribute("aria-label", re.compile(re.escape(name)))

    def opened(self):
        """Wait until the picture that was turned to is here: the one before is seen until then, and takes no clicks."""
        expect(self.canvas).to_have_attribute("aria-busy", "false")
        expect(self.canvas).to_be_visible()

    def place(self, y, x):
        """Where a pixel is on the canvas."""
        frame = self.canvas.bounding_box()
        rows, columns = 48, 64  # of a.png
        return {"x": (x + 0.5) * frame["width"] / columns, "y": (y + 0.5) * frame["height"] / rows}

    def click(self, y, x, **options):
        self.canvas.click(position=self.place(y, x), **options)

    def told(self, text):
        expect(self.find("status")).to_contain_text(text)

    def clicks(self, *texts):
        expect(self.page.locator("#clicks li")).to_contain_text(list(texts))

    def count(self, number):
        expect(self.page.locator("#clicks li")).to_have_count(number)

    def export(self, name):
        with self.page.expect_download() as download:
            self.page.locator(f'[data-export="{name}"]').click()
        with open(download.value.path(), "rb") as file:
            return file.read()

    def mask(self, name="a.png"):
        with zipfile.ZipFile(io.BytesIO(self.export("masks.zip"))) as archive:
            return np.asarray(Image.open(archive.open(name)))


@pytest.fixture
def tab(browser, address):
    tab = Tab(browser, address)
    tab.open("a.png")
    yield tab
    tab.context.close()
    assert not tab.faults


def drag(tab, start, end):
    frame = tab.canvas.bounding_box()
    (x, y), (to_x, to_y) = (
        (frame["x"] + place["x"], frame["y"] + place["y"]) for place in (tab.place(*start), tab.place(*end))
    )
    tab.page.mouse.move(x, y)
    tab.page.mouse.down()
    tab.page.mouse.move(to_x, to_y, steps=3)
    tab.page.mouse.up()


def two_objects(tab):
    """Two clicks, and then a box with a click on the background, under settings of its own."""
    tab.find("setting").select_option(label="both")
    tab.click(20, 15)
    tab.clicks(re.compile(r"\+ object at row 20, column 15 · \d+ ms \(model \d+ ms\) · IoU 0\.\d{3}"))
    tab.told("Object 1: 1 click;")
    tab.click(5, 40, button="right")
    tab.clicks("+ object", re.compile(r"− background at row 5, column 40 · \d+ ms"))
    tab.page.keyboard.press("n")
    tab.count(0)
    drag(tab, (8, 6), (31, 33))
    tab.told("Object 2: 0 clicks, a box;")
    tab.page.keyboard.press("b")
    tab.click(45, 60)
    tab.clicks(re.compile(r"− background at row 45, column 60 · \d+ ms"))
    tab.told("1 click, a box")


def test_clicks_boxes_undo_and_exports(tab):
    two_objects(tab)
    first = tab.mask()
    assert first.shape == (48, 64) and first[20, 15] == 255 and first[5, 40] == 0  # values propagate
    second = tab.mask("a#2.png")
    assert second[45, 60] == 0
    tab.find("undo").click()
    tab.told("0 clicks, a box")
    tab.page.keyboard.press("Control+Shift+z")
    tab.told("1 click, a box")
    np.testing.assert_array_equal(tab.mask("a#2.png"), second)
    entries = json.loads(tab.export("clicks.json"))
    assert [len(each["clicks"]) for each in entries] == [2, 1]
    assert entries[1]["box"] == [8, 6, 31, 33] and entries[0]["setting"]["value_propagation"] == 5
    annotations = json.loads(tab.export("coco.json"))["annotations"]
    assert [each["area"] for each in annotations] == [(mask > 0).sum() for mask in (first, second)]


@pytest.mark.slow
def test_predict_repeats_what_was_exported(tab, checkpoint, folders, tmp_path, monkeypatch):
    two_objects(tab)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clicks.json").write_bytes(tab.export("clicks.json"))
    clicks = ["--data.predict_clicks", "clicks.json", "--data.predict_dir", folders / "images"]
    assert command("predict", "--ckpt_path", checkpoint, *clicks, "--prediction.path", "out") == 0
    for name in ("a.png", "a#2.png"):
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out/masks" / name)), tab.mask(name))


def test_the_status_is_of_the_object_that_is_worked_on(tab):
    tab.click(20, 15)
    tab.told("Object 1: 1 click;")
    tab.find("new").click()
    tab.told("Object 2: nothing is marked.")
    tab.click(40, 50)
    tab.told("Object 2: 1 click;")
    expect(tab.find("pictures").locator("option", has_text="a.png")).to_have_text("a.png · 2 objects")
    tab.page.locator("#objects button").first.click()
    expect(tab.find("status")).to_have_text(re.compile(r"Object 1: 1 click; [\d,]+ pixels?\. IoU 0\.\d{3} with a#\d\."))
    tab.find("undo").click()
    tab.told("Object 1: nothing is marked.")


def test_the_mask_before_is_there_for_whatever_object_is_chosen(tab):
    tab.click(20, 15)
    tab.told("Object 1: 1 click;")
    tab.find("new").click()
    tab.click(40, 50)
    tab.told("Object 2: 1 click;")
    tab.find("compare").check()
    captions = [tab.page.locator(f"#{name} figcaption") for name in ("before", "after")]
    for caption in captions:
        expect(caption).to_contain_text(re.compile(r" · IoU 0\.\d{3}$"))
    with tab.page.expect_response(re.compile("/api/answer")) as answer:
        tab.page.locator("#objects button").first.click()
    given = answer.value.json()
    for caption, name in zip(captions, ("before", "after"), strict=True):
        expect(caption).to_contain_text(f" · IoU {given[name]['truth']['iou']:.3f}")


def test_two_clicks_make_a_box(tab):
    tab.page.keyboard.press("x")
    tab.click(8, 6)
    expect(tab.find("status")).to_have_text("One corner of the box at row 8, column 6: now the opposite one.")
    tab.click(31, 33)
    tab.told("Object 1: 0 clicks, a box;")
    tab.click(1, 1)
    tab.page.keyboard.press("o")  # the corner is forgotten
    tab.click(20, 15)
    tab.told("Object 1: 1 click, a box;")
    (entry,) = json.loads(tab.export("clicks.json"))
    assert entry["box"] == [8, 6, 31, 33]


COLOUR = """([x, y]) => {
  const canvas = document.querySelector("#after canvas");
  const ratio = canvas.width / canvas.clientWidth;
  return [...canvas.getContext("2d").getImageData(x * ratio, y * ratio, 1, 1).data.slice(0, 3)];
}"""


def clicked_at(tab, share):
    """Click at shares of the canvas's height and width; return the pixel that is told, and the colour seen there."""
    frame = tab.canvas.bounding_box()
    x, y = int(share[1] * frame["width"]), int(share[0] * frame["height"])
    colour = tab.page.evaluate(COLOUR, [x, y])
    count = tab.page.locator("#clicks li").count()
    tab.canvas.click(position={"x": x, "y": y}, button="right")
    tab.count(count + 1)
    tab.told(f"{count + 1} click")
    row, column = map(int, re.findall(r"row (\d+), column (\d+)", tab.page.locator("#clicks li").last.inner_text())[0])
    return (row, column), colour


def test_clicks_land_on_the_pixel_that_is_seen_under_zoom(tab, folders):
    picture = np.asarray(Image.open(folders / "images/a.png"))
    tab.find("hide").check()  # masks colour what is clicked
    tab.canvas.hover(position=tab.place(20, 15))
    tab.page.mouse.wheel(0, -600)
    expect(tab.find("whole")).to_have_text("246 %")
    frame = tab.canvas.bounding_box()
    place = tab.place(20, 15)
    seen, colour = clicked_at(tab, (place["y"] / frame["height"], place["x"] / frame["width"]))
    assert seen == (20, 15) and colour == picture[seen].tolist()  # what is under the pointer stays there
    where = []
    for button in (None, "left", "middle"):
        if button == "left":
            tab.page.keyboard.down("Space")
        if button:
            tab.page.mouse.move(frame["x"] + 300, frame["y"] + 300)
            tab.page.mouse.down(button=button)
            tab.page.mouse.move(frame["x"] + 200, frame["y"] + 250, steps=4)
            tab.page.mouse.up(button=button)
            tab.page.keyboard.up("Space")
        seen, colour = clicked_at(tab, (0.9, 0.8))
        assert colour == picture[seen].tolist()
        where.append(seen)
    rows, columns = zip(*where, strict=True)
    assert rows[0] < rows[1] < rows[2] and columns[0] < columns[1] < columns[2]
    assert json.loads(tab.export("clicks.json"))[0].keys() == {"image", "clicks", "setting", "threshold"}  # no box
    tab.page.keyboard.press("0")
    expect(tab.find("whole")).to_be_disabled()
    tab.click(45, 2)
    tab.clicks(*[""] * 4, "row 45, column 2")


def test_a_finger_moves_what_is_seen_and_taps(browser, address):
    tab = Tab(browser, address, "narrow", has_touch=True)
    tab.open("a.png")
    tab.find("larger").tap()
    tab.find("larger").tap()
    frame = tab.canvas.bounding_box()
    x, y = frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2
    fingers = tab.context.new_cdp_session(tab.page)
    for kind, moved in (("touchStart", 0), ("touchMove", 40), ("touchMove", 80), ("touchEnd", None)):
        points = [] if moved is None else [{"x": x - moved, "y": y}]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    tab.count(0)
    tab.page.touchscreen.tap(x, y)
    column = int(32 + 80 * 64 / 2.25 / frame["width"])
    tab.clicks(re.compile(rf"\+ object at row 2[34], column ({column - 1}|{column}|{column + 1}) "))
    tab.context.close()
    assert not tab.faults


def test_what_a_model_cannot_do_is_said(tab):
    expect(tab.find("cannot")).to_be_hidden()
    tab.page.route(
        "**/api/facts", lambda route: route.fulfill(json=route.fetch().json() | {"adapts": [], "propagates": False})
    )
    tab.page.reload()
    said = "This model has no probabilistic attention whose keys could adapt and has no head that propagates values."
    expect(tab.find("cannot")).to_have_text(said)
    for name in ("key_adaptation", "value_propagation"):
        expect(tab.find(name)).to_be_disabled()


def test_an_empty_mask_says_why(tab):
    tab.find("threshold").fill("0.99")
    tab.click(20, 15)
    tab.told("0 pixels. Nothing is above the threshold: lower it, or click again. IoU 0.000")


def test_zoom_by_keys_follows_the_cursor(tab):
    tab.canvas.focus()
    for key in ("ArrowLeft", "+", "+", "="):
        tab.page.keyboard.press(key)
    expect(tab.find("whole")).to_have_text("338 %")
    for _ in range(3):
        tab.page.keyboard.press("Shift+ArrowRight")
    tab.page.keyboard.press("Enter")
    tab.clicks("row 24, column 61")
    seen, _ = clicked_at(tab, (0.5, 0.5))  # the cursor at the right was brought into sight
    assert 45 < seen[1] < 62
    for _ in range(3):
        tab.page.keyboard.press("-")
    expect(tab.find("whole")).to_have_text("100 %")
    tab.find("larger").click()
    tab.open("sub/b.jpg")
    expect(tab.find("whole")).to_have_text("100 %")  # another picture is seen as a whole


def test_everything_by_keyboard(tab):
    tab.canvas.focus()
    for key in ("ArrowLeft", "Shift+ArrowUp", "Enter"):
        tab.page.keyboard.press(key)
    tab.clicks("+ object at row 14, column 31")
    tab.page.keyboard.press("ArrowDown")
    tab.page.keyboard.press("Shift+Enter")
    tab.clicks("+ object", "− background at row 15, column 31")
    tab.told("2 clicks")
    tab.page.keyboard.press("z")
    tab.count(1)
    tab.page.keyboard.press("c")
    tab.count(0)
    tab.page.keyboard.press("z")
    tab.count(1)
    tab.page.keyboard.press("x")
    tab.canvas.focus()
    for key in ("Enter", "Shift+ArrowRight", "Shift+ArrowDown", "Enter"):
        tab.page.keyboard.press(key)
    tab.told("1 click, a box")
    tab.page.keyboard.press("v")
    expect(tab.find("value_propagation")).to_have_value("5")
    tab.page.keyboard.press("k")
    expect(tab.find("key_adaptation")).to_have_value("1")
    expect(tab.find("setting")).to_have_value("own")
    tab.page.keyboard.press("]")
    expect(tab.find("threshold-value")).to_have_text("0.55")
    expect(tab.find("before")).to_be_hidden()
    tab.page.keyboard.press("s")
    expect(tab.find("before")).to_be_visible()
    tab.page.keyboard.press(".")
    expect(tab.find("pictures")).not_to_have_value("1")
    tab.page.keyboard.press("?")
    expect(tab.find("keys")).to_be_visible()
    tab.page.keyboard.press("Escape")
    expect(tab.find("keys")).to_be_hidden()


def test_masks_before_and_after_differ_where_values_propagate(tab):
    tab.find("setting").select_option(label="both")
    tab.find("threshold").fill("0.02")  # all is object to the model, but for what was clicked
    tab.click(20, 15, button="right")
    tab.told("1 click;")
    with tab.page.expect_response(re.compile("/api/answer")) as answer:
        tab.find("compare").check()
    masks = {name: each["mask"] for name, each in answer.value.json().items()}
    assert masks.keys() == {"before", "after"} and masks["before"] != masks["after"]
    tab.told("1 click;")
    for name in masks:
        expect(tab.page.locator(f"#{name} canvas")).to_be_visible()
    wide = [tab.page.locator(f"#{name} canvas").bounding_box() for name in masks]
    assert wide[0]["y"] == wide[1]["y"] and wide[0]["width"] == wide[1]["width"] > 100


def test_a_mask_that_exists_a_dropped_picture_and_bad_files(tab, folders, tmp_path):
    tab.find("mask-file").set_input_files(folders / "masks/a#0.png")
    tab.told("0 clicks, a box, from a mask; 440 pixels. IoU 1.000 with a#0.")
    (tmp_path / "note.png").write_text("no picture")
    tab.find("file").set_input_files([tmp_path / "note.png", folders / "secret.png"])
    expect(tab.find("error")).to_contain_text("cannot read image note.png")
    tab.told("secret.png, 64 × 48 pixels.")
    tab.click(20, 15)
    tab.told("1 click")
    assert tab.mask("secret.png").shape == (48, 64)
    tab.find("file").set_input_files(folders / "secret.png")
    expect(tab.find("error")).to_contain_text("A picture with the name secret.png is open already")
    tab.page.reload()
    tab.told("1 click; ")
    expect(tab.canvas).to_have_attribute("aria-label", "secret.png, 64 by 48 pixels")
    tab.count(1)
    tab.open("a.png")
    tab.told("from a mask; 440 pixels")


def test_an_answer_that_was_cut_short_is_asked_for_again(tab):
    asked = []

    def late(route):
        asked.append(route)
        if len(asked) > 1:  # the first answer never comes
            route.continue_()

    tab.page.route("**/api/answer", late)
    tab.click(20, 15)
    tab.page.keyboard.press("n")
    tab.count(0)
    tab.click(40, 50)
    tab.told("Object 1: 1 click;")
    tab.page.locator("#objects button").first.click()
    tab.clicks("+ object at row 20, column 15")


def test_a_click_is_never_on_the_picture_before(tab):
    """While the next one is opened, which is to be seen, and after it could not be."""
    held = []
    tab.page.route("**/api/pictures/*", lambda route: held.append(route))
    tab.page.keyboard.press(".")
    expect(tab.find("status")).to_have_text("Opening the picture…")
    expect(tab.canvas).to_have_css("opacity", "0.4")
    tab.click(20, 15)
    tab.told("The picture is still opening")
    tab.count(0)
    held[0].fulfill(status=400, json={"error": "cannot read image"})
    expect(tab.find("error")).to_have_text("cannot read image")
    expect(tab.canvas).to_be_hidden()
    tab.page.unroute("**/api/pictures/*")
    tab.page.keyboard.press(",")
    tab.opened()
    tab.page.keyboard.press(".")  # the server has it again, and so has an export
    tab.opened()
    tab.canvas.click()
    tab.told("1 click;")
    assert len(json.loads(tab.export("clicks.json"))) == 1


def test_what_begins_on_one_picture_does_not_end_on_another(tab):
    tab.canvas.hover(position=tab.place(20, 15))
    tab.page.mouse.down()
    tab.page.keyboard.press(".")
    tab.opened()
    tab.page.mouse.up()
    tab.count(0)
    tab.canvas.click()
    tab.told("1 click;")
    tab.count(1)


def test_control_and_click_is_a_right_click(tab):
    tab.click(20, 15, modifiers=["Control"])
    tab.clicks("− background at row 20, column 15")


def test_a_name_with_markup_is_text(tab):
    tab.open(MARKUP)
    assert tab.page.locator("main img").count() == 0
    assert tab.page.evaluate("document.title").startswith("Clicks")


@pytest.mark.parametrize("size", SIZES)
def test_nothing_overflows_and_every_control_has_a_name(browser, address, size):
    tab = Tab(browser, address, size)
    tab.open("a.png")
    tab.find("compare").check()
    inner, width = tab.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert inner <= width
    snapshot = tab.page.locator("body").aria_snapshot()
    controls = re.findall(r"- (?:button|combobox|spinbutton|slider|checkbox|application)(.*)", snapshot)
    assert len(controls) > 20
    assert all(re.match(r' "[^"]+"', rest) for rest in controls), controls
    colours = "(() => { const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]; })()"
    text, ground = (sum(map(int, re.findall(r"\d+", each)[:3])) for each in tab.page.evaluate(colours))
    assert (text < ground) == (size == "wide") and abs(text - ground) > 500
    tab.context.close()
    assert not tab.faults


def test_tabs_do_not_mix(browser, address):
    tabs = [Tab(browser, address), Tab(browser, address)]
    for tab, place in zip(tabs, ((20, 15), (5, 40)), strict=True):
        tab.open("a.png")
        tab.click(*place)
    for tab, text in zip(tabs, ("row 20, column 15", "row 5, column 40"), strict=True):
        tab.clicks(text)
        tab.count(1)
        tab.context.close()
