"""A page for each module of Python, from its docstrings."""

from collections.abc import Iterator

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from pages import ROOT, put, section

ROOMS = {
    "attention_zoo": "The library, as `import attention_zoo as az` has it",
    "attention_zoo.mixers": "Mixers, their interfaces and registry",
    "attention_zoo.functional": "The mathematics without parameters",
    "attention_zoo.models": "Backbones, heads and the second pass",
    "attention_zoo.hosts": "Models of timm as hosts",
    "attention_zoo.results": "Results of evaluations",
    "attention_zoo.analysis": "Maps, decoded images, premises and costs",
    "tasks": "LightningModules",
    "datamodules": "LightningDataModules",
}
"""The packages whose modules have pages, with what they hold."""


def modules(room: str) -> list[str]:
    """Return the dotted paths of the modules of a package, those of its subpackages too."""
    folder = ROOT.joinpath(*room.split("."))
    if room == "attention_zoo":
        return [
            room,
            *(f"{room}.{name}" for name in ("attacks", "clicks", "domains", "errors", "evaluation", "scales")),
        ]
    paths = sorted(path.relative_to(ROOT).with_suffix("") for path in folder.rglob("*.py"))
    found = [".".join(path.parts).removesuffix(".__init__") for path in paths]
    return [name for name in found if not any(part.startswith("_") for part in name.split("."))]


def pages() -> Iterator[tuple[str, str]]:
    """Yield the path and the text of each page."""
    links = "\n".join(f"- [`{room}`]({room}.md): {text[0].lower()}{text[1:]}" for room, text in ROOMS.items())
    yield "reference/python/index.md", f"# Python\n\n{links}\n"
    for room, text in ROOMS.items():
        parts = "\n".join(f"## {name}\n\n::: {name}\n    options:\n      heading_level: 3\n" for name in modules(room))
        yield f"reference/python/{room}.md", f"# {room}\n\n{text}.\n\n{parts}"


def on_config(config: MkDocsConfig) -> None:
    """Put the pages into the navigation."""
    places: list[str | dict[str, str]] = ["reference/python/index.md"]
    places += [{room: f"reference/python/{room}.md"} for room in ROOMS]
    section(config, "Reference").append({"Python": places})


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Put the pages among the files of the site."""
    for uri, text in pages():
        put(files, config, uri, text)
