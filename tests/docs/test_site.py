"""The site: what its hooks make of the project, its links, and that nothing is loaded from another machine."""

import importlib
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit
from xml.etree import ElementTree

import pytest

import attention_zoo as az
from attention_zoo.cli.main import TOOLS, TRAINING

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
RUNS = [
    path
    for path in CONFIGS
    if path.relative_to(ROOT / "configs").parts[0] in ("classification", "semantic", "interactive", "sweeps")
]
EQUATIONS = [*sorted((ROOT / "docs" / "equations").glob("*.md")), ROOT / "docs" / "readings" / "TopDown.md"]
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src"}
"""The elements that load something, with the attribute that says from where; beside them links to styles and icons."""
FETCHED = ("stylesheet", "icon", "preload", "modulepreload", "preconnect", "dns-prefetch", "manifest")


@pytest.fixture
def hook(monkeypatch):
    """Import a hook of the site, as the site's builder does."""
    pytest.importorskip("mkdocs")
    monkeypatch.syspath_prepend(ROOT / "docs" / "hooks")
    return importlib.import_module


class Page(HTMLParser):
    """A page of the site: what it loads, where it links to, and the places in it that can be linked to."""

    def __init__(self, path):
        super().__init__()
        self.loads, self.links, self.places = [], [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.places.update(found[key] for key in ("id", "name") if found.get(key))
        if tag in LOADED and found.get(LOADED[tag]):
            self.loads.append(found[LOADED[tag]])
        if tag == "link" and set((found.get("rel") or "").split()) & set(FETCHED):
            self.loads.append(found["href"])
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])


def test_links_of_the_readme_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    assert len(links) >= 8
    for link in links:
        assert (ROOT / link.partition("#")[0]).exists(), link


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_configs_that_pages_name_exist():
    named = {
        name
        for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
        for name in re.findall(r"configs/[\w/]+\.yaml", path.read_text())
    }
    assert len(named) > 15
    assert sorted(name for name in named if not (ROOT / name).is_file()) == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.relative_to(ROOT / "configs").as_posix())
def test_every_config_says_what_it_is(path):
    first, *_ = path.read_text().splitlines()
    assert re.match(r"# \S.{15,}", first)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.relative_to(ROOT / "configs").as_posix())
def test_configs_of_runs_say_how_long_they_take(path):
    head = re.match(r"(#.*\n)*", path.read_text())[0]
    assert re.search(r"\bTime: |\btime: |\b(seconds|minutes?|hours?)\b|\bNot run here\b", head)


@pytest.mark.parametrize("name", az.list_mixers())
def test_a_reading_has_its_page(hook, name):
    readings = hook("readings")
    info, page = az.mixer_info(name), readings.page(name)
    parts = re.findall(r"^## (.*)$", page, re.MULTILINE)
    assert parts[:2] == ["Idea", "Equations"] and parts[-3:] == ["Cost", "Evidence", "Use"]
    assert info.paper in page
    assert ("Premise" in parts) == hasattr(az.MIXERS[name], "premise")
    for option in info.options:
        (row,) = re.findall(rf"^\| `{option.name}` \|.*\| (.*) \|$", page, re.MULTILINE)
        assert len(row) > 1, f"{option.name} of {name} is not described"
    for file in re.findall(r"\]\(\.\./evidence/([^)]+)\)", page):
        assert (ROOT / "results" / file).is_file()


@pytest.mark.parametrize("name", [*az.list_mixers(), "TopDown"])
def test_a_reading_has_a_figure_that_loads_at_once(hook, name):
    written = ROOT / "docs" / "readings" / f"{name}.md"
    page = written.read_text() if written.is_file() else hook("readings").page(name)
    figures = re.findall(r"\]\(\.\./evidence/([^)]+\.(?:webp|png))\)", page)
    if not figures:
        pytest.skip("not drawn yet: see results/readings/draw.py")
    assert max((ROOT / "results" / file).stat().st_size for file in figures) < 60_000


def test_bars_in_cells_are_no_borders(hook):
    markdown = pytest.importorskip("markdown").markdown
    made = markdown(hook("pages").table(["a | b", "c"], [["`int | None`", "|x|"]]), extensions=["tables"])
    assert re.findall(r"<t[hd]>(.*?)</t[hd]>", made) == ["a | b", "c", "<code>int | None</code>", "|x|"]


def test_docstrings_are_taken_apart(hook):
    text = "A reading.\n\n    out = softmax(q k) v    (eq. 1)\n\n    q = W x\n\nA. Author, A Paper, 2020."
    assert hook("readings").split_docstring(text) == ("A reading.", "A. Author, A Paper, 2020.")


def test_comments_of_configs_become_text_and_commands(hook):
    text = "# What it is.\n# Else --a.b 3.\n#   python -m attention_zoo fit\n#   more\n# * a point\na: 1\n# inside\n"
    made = hook("configs").header(text)
    assert made == ("What it is.\nElse `--a.b` 3.\n\n```bash\npython -m attention_zoo fit\nmore\n```\n\n\n* a point")
    assert hook("configs").header("a: 1\n") == ""
    assert hook("configs").header("# What.\n# Expected: 0.9. Time: a minute.\n") == (
        "What.\n**Expected:** 0.9. **Time:** a minute."
    )


def test_every_folder_of_configs_has_its_page(hook):
    listed = dict(hook("configs").pages())
    for path in CONFIGS:
        folder = path.relative_to(ROOT / "configs").parts[0]
        assert f"`{path.relative_to(ROOT / 'configs').as_posix()}`" in listed[f"reference/configs/{folder}.md"]


def test_latex_becomes_mathml(hook):
    equations = hook("equations")
    page = r'<p>so <span class="arithmatex">\(a &lt; b\)</span></p><div class="arithmatex">\[\frac{1}{2}\]</div>'
    made = equations.on_page_content(page)
    assert "arithmatex" not in made and made.count("<math") == 2
    parts = equations.on_page_content(r'<div class="arithmatex">\[a = b , \qquad b = c\]</div>')
    assert parts.count('<div class="equation">') == 1 and parts.count("<math") == 2
    assert "<mfrac>" in made and "&lt;" in made or "&#x0003C;" in made


@pytest.mark.parametrize("path", EQUATIONS, ids=lambda path: path.stem)
def test_equations_can_be_converted(hook, path):
    equations = hook("equations")
    found = re.findall(r"\$\$(.*?)\$\$|\\\((.*?)\\\)", path.read_text(), re.DOTALL)
    assert any(block for block, _ in found)
    for block, inline in found:
        for part in block.split(equations.SPACE) if block else [inline]:
            made = ElementTree.fromstring(equations.mathml(part.strip()))
            assert made.tag.endswith("math") and "".join(made.itertext()).strip()


def test_equations_are_those_of_mixers():
    assert {path.stem for path in EQUATIONS} - {"TopDown"} <= set(az.list_mixers())


def test_a_mixer_without_latex_shows_the_equations_of_its_docstring(hook, monkeypatch, tmp_path):
    readings = hook("readings")
    monkeypatch.setattr(readings, "EQUATIONS", tmp_path)
    assert "\n    lambda = exp(lambda_q1.lambda_k1) - exp(lambda_q2.lambda_k2)" in readings.page("Differential")
    assert "\n    out_i = sum_j softmax_j(q_i.k_j / sqrt(d)) v_j\n" in readings.page("DotProduct")


def test_recipes_are_those_of_contributing(hook):
    found = {uri: text for _, uri, text in hook("repository").recipes()}
    assert {f"how_to/{name}.md" for name in ("a_mixer", "a_data_set", "a_task", "an_evaluation")} <= set(found)
    assert "class MeanField(az.SelfMixer)" in found["how_to/a_mixer.md"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; a warning of the builder is an error."""
    config = pytest.importorskip("mkdocs.config")
    build = importlib.import_module("mkdocs.commands.build")
    folder = tmp_path_factory.mktemp("site")
    loaded = config.load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(folder))
    loaded.plugins.on_startup(command="build", dirty=False)
    build.build(loaded)
    return folder


@pytest.mark.slow
def test_the_site_has_a_page_for_everything(site):
    for name in az.list_mixers():
        assert (site / "readings" / f"{name}.html").is_file()
    for name in (*TRAINING, *TOOLS):
        assert "usage: " in (site / "reference" / "commands" / f"{name}.html").read_text()
    for study in (ROOT / "results").glob("*/README.md"):
        assert (site / "evidence" / study.parent.name / "index.html").is_file()


@pytest.mark.slow
def test_nothing_is_loaded_from_another_machine(site):
    for path in site.rglob("*.html"):
        for source in Page(path).loads:
            assert not urlsplit(source).netloc, f"{path.relative_to(site)} loads {source}"
    for path in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", path.read_text()), path.name


@pytest.mark.slow
def test_links_within_the_site_lead_somewhere(site):
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    for path, page in pages.items():
        if path.name == "404.html":  # its links start at the site's root
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            assert target.is_file(), f"{path.relative_to(site)} links to {link}"
            if parts.fragment and target in pages:
                places = pages[target].places
                assert unquote(parts.fragment) in places, f"{path.relative_to(site)} links to {link}"


OPENED = (
    "index.html",
    "readings/Linear.html",
    "readings/TopDown.html",
    "tutorials/first_comparison.html",
    "reference/commands/fit.html",
    "reference/configs/classification.html",
    "reference/python/tasks.html",
    "evidence/index.html",
)


@pytest.fixture(scope="module")
def browser():
    with pytest.importorskip("tests.pages.browser").chromium() as browser:
        yield browser


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 400])
def test_in_a_browser_pages_fit_and_ask_no_other_machine(site, browser, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    asked, wrong = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    for name in OPENED:
        page.goto((site / name).as_uri())
        page.wait_for_load_state()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)"), name
        heights = page.evaluate("[...document.querySelectorAll('math')].map((m) => m.getBoundingClientRect().height)")
        assert all(heights) and (heights or "readings" not in name), name
    assert not wrong
    assert {urlsplit(url).scheme for url in asked} <= {"file", "data", "blob"}
    page.close()


@pytest.mark.slow
def test_in_a_browser_a_search_finds_a_reading(site, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto((site / "index.html").as_uri())
    page.locator("input.md-search__input").fill("Sinkhorn")
    page.wait_for_selector("a.md-search-result__link[href*='readings/Sinkhorn']", state="attached", timeout=20_000)
    page.close()
