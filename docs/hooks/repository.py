"""Pages that are files of the project already: recipes of CONTRIBUTING.md, studies in ``results``, the changelog."""

import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from pages import ROOT, put, put_file, section

RESULTS, CHANGELOG = ROOT / "results", ROOT / "CHANGELOG.md"
SHOWN = (".md", ".png", ".webp", ".csv", ".json", ".yaml")
"""Suffixes of the files of a study that the site has."""
OVERVIEW = """# Evidence

Each study is a folder of `results/`: the commands that made it, the resolved configs, every run with its seed, tables
and figures that the tool wrote, and a sentence on what it shows and what it does not.

"""


def recipes() -> Iterator[tuple[str, str, str]]:
    """Yield title, path and text of a page for each section of CONTRIBUTING.md."""
    start, *sections = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("\n## ")
    for content in sections:
        title, _, text = content.partition("\n")
        uri = f"how_to/{title.lower().replace(' ', '_')}.md"
        heading = f"Add {title[0].lower()}{title[1:]}" if re.match("An? ", title) else title
        yield heading, uri, f"# {heading}\n{text}"


def studies() -> list[Path]:
    """Return the README of each study."""
    return sorted(RESULTS.glob("*/README.md"))


def title_of(readme: Path) -> str:
    """Return the heading of a markdown file, up to a colon."""
    return readme.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ").partition(":")[0]


def on_config(config: MkDocsConfig) -> None:
    """Put the pages into the navigation."""
    if CHANGELOG.is_file():
        section(config, "Reference").append({"Changelog": "reference/changelog.md"})
    section(config, "How to").extend({heading: uri} for heading, uri, _ in recipes())
    places = [{title_of(path): f"evidence/{path.parent.name}/README.md"} for path in studies()]
    section(config, "Evidence").extend(["evidence/index.md", *places])


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Put the pages among the files of the site."""
    for _, uri, text in recipes():
        put(files, config, uri, text)
    if CHANGELOG.is_file():
        put_file(files, config, "reference/changelog.md", CHANGELOG)
    claims = RESULTS / "README.md"
    links = "".join(f"- [{title_of(path)}]({path.parent.name}/README.md)\n" for path in studies())
    text = OVERVIEW
    if claims.is_file():
        text = re.sub(r"\[([^\]]*)\]\(([\w/]+?)/?\)", _study, claims.read_text(encoding="utf-8")) + "\n## Studies\n\n"
    put(files, config, "evidence/index.md", text + links)
    for path in sorted(RESULTS.rglob("*")):
        inner = path.relative_to(RESULTS)
        if path.is_file() and path.suffix in SHOWN and path != claims and "runs" not in inner.parts:
            put_file(files, config, f"evidence/{inner.as_posix()}", path)


def _study(link: re.Match[str]) -> str:
    """Return a link to the folder of a study, or one in it, as one to its page; without a page only its text."""
    study = Path(link[2]).parts[0]
    return f"[{link[1]}]({study}/README.md)" if (RESULTS / study / "README.md").is_file() else link[1]
