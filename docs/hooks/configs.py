"""A page for each folder of configs, from the comments at their heads: what each reproduces, and what to expect."""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from pages import ROOT, put, section

CONFIGS = ROOT / "configs"

OPTION = re.compile(r"(?<![`\w-])(--[a-z][\w.+]*)")
"""Pattern of an option in the text of a comment."""

PROMISE = re.compile(r"\b(Expected|Time|Expected and time):")
"""Pattern of the words before what a run should reach and how long it takes."""

FOLDERS = {
    "classification": "Classification and its evaluations",
    "semantic": "Semantic and panoptic segmentation",
    "interactive": "Interactive segmentation",
    "sweeps": "Sweeps",
    "mixers": "Mixers",
    "callbacks": "Callbacks",
    "machines": "Machines",
}
"""The folders of configs that a person names on the command line, with the titles of their pages; others follow."""


def folders() -> dict[str, str]:
    """Return the folders of configs with the titles of their pages; ``base`` is what others build on."""
    found = sorted(path.name for path in CONFIGS.iterdir() if path.is_dir() and path.name not in (*FOLDERS, "base"))
    return {**FOLDERS, **{name: name.capitalize() for name in [*found, "base"]}}


def header(text: str) -> str:
    """Return the comment at the head of a config in markdown: commands, which are indented, as code."""
    comment = re.match(r"(#.*\n)*", text)
    lines = [line[1:].rstrip() for line in (comment[0] if comment else "").splitlines()]
    parts: list[str] = []
    code = False
    for line in lines:
        indented = line.startswith("   ")
        if indented != code:
            parts.append("\n```bash" if indented else "```\n")
            code = indented
        parts.append(line[3:] if indented else PROMISE.sub(r"**\1:**", OPTION.sub(r"`\1`", line.strip())))
    if code:
        parts.append("```")
    return re.sub(r"^\* ", "\n* ", "\n".join(parts), flags=re.MULTILINE).strip()


def entry(path: Path) -> str:
    """Return what a page says about one config."""
    name, text = path.relative_to(CONFIGS).as_posix(), path.read_text(encoding="utf-8")
    content = text[len(re.match(r"(#.*\n)*", text)[0]) :]  # type: ignore[index]  # it matches nothing, too
    folded = textwrap.indent(f"```yaml\n{content.strip()}\n```", "    ")
    return f'## {path.stem}\n\n`{name}`\n\n{header(text)}\n\n??? "{path.name}"\n\n{folded}\n'


def pages() -> Iterator[tuple[str, str]]:
    """Yield the path and the text of each page."""
    links = "\n".join(f"- [{title}]({name}.md)" for name, title in folders().items())
    yield (
        "reference/configs/index.md",
        "# Configs\n\nConfigs compose from left to right, and the command line wins; `--print_config` shows the "
        "result. `base: other.yaml` (or a list) at the top of a config is the same as giving that file before it; "
        f"paths are relative to the folder of the config.\n\n{links}\n",
    )
    for name, title in folders().items():
        entries = "\n".join(entry(path) for path in sorted((CONFIGS / name).rglob("*.yaml")))
        yield f"reference/configs/{name}.md", f"# {title}\n\n{entries}"


def on_config(config: MkDocsConfig) -> None:
    """Put the pages into the navigation."""
    places = ["reference/configs/index.md", *(f"reference/configs/{name}.md" for name in folders())]
    section(config, "Reference").append({"Configs": places})


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Put the pages among the files of the site."""
    for uri, text in pages():
        put(files, config, uri, text)
