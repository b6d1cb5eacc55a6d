"""A page for each reading, from the registry, the mixers' docstrings and the studies' tables."""

import csv
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from docstring_parser import parse
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from pages import ROOT, put, section, table

from attention_zoo.cli.mixers import markdown_table
from attention_zoo.mixers.registry import MixerInfo, list_mixers, mixer_class, mixer_info
from attention_zoo.reports.words import in_words

EQUATIONS = ROOT / "docs" / "equations"
"""The folder with equations in LaTeX, NAME.md for a mixer; its docstring has them as text, which stands in for them."""
DRAWN = (
    "in the last layer of a small ViT, by dot-product attention and by this reading. Two test digits, clean and under "
    "Gaussian noise; below, the class each is taken for. One seed, a scale for each picture."
)
FIGURES = {
    "readings/{name}.webp": "What the average token reads, and the one in row 4, column 4 of 8 x 8 (from 0), "
    f"{DRAWN} Blue is negative.",
    "readings/{name}_written.webp": "How much is written into each token (the length of what is added to it) "
    f"{DRAWN} Who reads whom would be a diagonal here: tokens meet in a statistic of the channels, and not in pairs.",
    "readings/{name}_steps.webp": "The same layer step by step: what the average token reads after each step.",
    "readings/{name}_assignments.webp": "Which centre each token of the layer belongs to, head by head.",
    "camvid/interactions/assignments_{name}.webp": "Which query takes which pixel, layer by layer, in a mask decoder "
    "on street scenes (CamVid).",
}
"""The files in ``results`` that the page of a reading shows, with their captions."""
MIXERS, RELATED, PREMISES = "results/cifar10_mixers", "results/cifar10_related", "results/premises"
METRICS = ("test/accuracy", "robustness/cifar10_c", "robustness/fgsm", "robustness/pgd")
"""The metrics of the comparison on CIFAR-10 that pages show."""


def split_docstring(text: str) -> tuple[str, str]:
    """Return the idea and the sources of a mixer's module docstring, before and after its equations.

    Equations are the indented lines.
    """
    idea, *equations = re.split(r"^ {4}.*\n*", inspect.cleandoc(text), flags=re.MULTILINE)
    return idea.strip(), "".join(equations).strip()


def page(name: str) -> str:
    """Return the text of the page of a mixer."""
    info, cls = mixer_info(name), mixer_class(name)
    idea, sources = split_docstring(sys.modules[cls.__module__].__doc__ or "")
    described = parse(cls.__doc__ or "")
    parts = [
        f"# {name}",
        f"**{info.reading}** · {info.paper} · cost in N tokens: {info.complexity}",
        "## Idea",
        idea,
        re.sub(r"\s*\n(?=\S)", " ", described.short_description or ""),
        described.long_description or "",
        "## Equations",
        equations(name),
        sources,
    ]
    parts += [*figures(name), *premise(name), *cost(info), *evidence(name), "## Use", *use(info)]
    return "\n\n".join(part for part in parts if part) + "\n"


def equations(name: str) -> str:
    """Return the equations of a mixer: in LaTeX, or else the indented lines of its docstring, or what tables say."""
    latex = EQUATIONS / f"{name}.md"
    if latex.is_file():
        return latex.read_text(encoding="utf-8").strip()
    text = inspect.cleandoc(sys.modules[mixer_class(name).__module__].__doc__ or "")
    return "\n".join(re.findall(r"^ {4}.*$", text, re.MULTILINE)) or f"    {mixer_info(name).equation}"


def figures(name: str) -> Iterator[str]:
    """Yield the figures of a reading that the tool has drawn, with their captions."""
    found = [(file.format(name=name), caption) for file, caption in FIGURES.items()]
    shown = [(file, caption) for file, caption in found if (ROOT / "results" / file).is_file()]
    if shown:
        yield "## What it looks like"
    for file, caption in shown:
        yield f"![{caption.partition('.')[0]}](../evidence/{file})\n\n*{caption}*"


def premise(name: str) -> Iterator[str]:
    """Yield what a reading takes for granted, and what trained models said of it."""
    statement = getattr(mixer_class(name), "premise", None)
    if statement is None:
        return
    yield f"## Premise\n\n{statement} `python -m attention_zoo premises --ckpt_path last` asks a trained model."
    found = [row for row in rows(f"{PREMISES}/cifar10/premises.csv") if row["reading"] == name and row["holds"]]
    if found:
        layers = sorted({row["layer"] for row in found})
        cells = {(row["measure"], row["layer"]): premise_cell(row) for row in found}
        lines = [
            [measure, *(cells.get((measure, layer), "") for layer in layers)]
            for measure in dict.fromkeys(row["measure"] for row in found)
        ]
        yield (
            "In the small ViT of the comparison on CIFAR-10, one network: the mean over images and heads, what it is "
            "compared with, and the share of images and heads in which the premise holds "
            "([the study, and why](../evidence/premises/README.md))."
        )
        yield table(["measure", *(f"layer {layer}" for layer in layers)], lines)


def premise_cell(row: dict[str, str]) -> str:
    """Return what was measured in a layer, what it is compared with, and how often the premise holds."""
    return f"{float(row['mean']):.3g} to {float(row['compared with']):.3g}, {float(row['holds']):.0%}"


def cost(info: MixerInfo) -> Iterator[str]:
    """Yield what one layer costs beside timm's attention."""
    measured = [row for row in rows("results/bench/costs.csv") if row["mixer"] == info.name]
    yield f"## Cost\n\n{info.complexity} in the number of tokens N" + (
        " (L queries, M pixels)." if info.kind == "cross" else "."
    )
    if measured:
        base = "timm's attention" if info.kind == "self" else "`CrossAttention`"
        lines = [
            [row["tokens"], row["forward / baseline"], row["training / baseline"], row["training MB"], row["MFLOPs"]]
            for row in measured
        ]
        yield f"On two CPU cores, as a multiple of {base} ([the study](../evidence/bench/README.md)):"
        yield table(["tokens", "forward", "training", "training, MB", "MFLOPs"], lines)
    else:
        yield f"`python -m attention_zoo bench {info.name} --tokens 196 784` measures it on your machine."


def evidence(name: str) -> Iterator[str]:
    """Yield what the comparisons on CIFAR-10 say of a reading: that of three seeds, or that of one."""
    yield "## Evidence"
    row, study, seeds = next(
        (
            (row, folder, seeds)
            for folder, seeds in (
                (MIXERS, "mean of three seeds and half of its 95 % confidence interval"),
                (RELATED, "one seed"),
            )
            for row in rows(f"{folder}/table.csv")
            if row["mixer"] == name and row[f"{METRICS[0]} mean"]
        ),
        ({}, "", ""),
    )
    if not row:
        yield "No study of this project has trained it yet; `configs/sweeps/cifar10_related.yaml` does."
        return
    lines = [[words, interval(row, metric), difference(row, metric)] for metric, words in in_words(METRICS).items()]
    page = f"../evidence/{study.removeprefix('results/')}/README.md"
    yield (
        f"The same small ViT on 10,000 images of CIFAR-10, {seeds} ([the study, and what it does not show]({page})):"
    )
    yield table(["", name, "to `DotProduct`"], lines)


def interval(row: dict[str, str], metric: str) -> str:
    """Return the mean of a metric with half of its interval, which one seed does not have."""
    mean, half_width = f"{float(row[f'{metric} mean']):.3g}", row[f"{metric} half width"]
    return f"{mean} ± {float(half_width):.2g}" if half_width else mean


def difference(row: dict[str, str], metric: str) -> str:
    """Return the difference of a mixer to the baseline, and whether it is more than noise."""
    number, chance = row[f"{metric} to baseline"], row[f"{metric} p"]
    if not number:
        return ""
    if not chance:  # one seed
        return f"{float(number):+.3g}"
    return f"{float(number):+.3g}, {'more than noise' if float(chance) < 0.05 else 'not told from none'}"


def use(info: MixerInfo) -> Iterator[str]:
    """Yield how a mixer is chosen, and its options."""
    if info.kind == "self":
        command = f"fit --config configs/classification/digits.yaml --model.mixer {info.name}"
    else:
        command = (
            f"fit --config configs/semantic/camvid_kmax_small.yaml --model.interaction {info.name} --data.root DATA"
        )
    yield f"```bash\npython -m attention_zoo {command}\n```"
    if info.options:
        meanings = descriptions(mixer_class(info.name))
        lines = [
            [f"`{option.name}`", f"`{option.type}`", f"`{option.default!r}`", meanings.get(option.name, "")]
            for option in info.options
        ]
        yield table(["option", "values", "default", "meaning"], lines)
    module = mixer_class(info.name).__module__
    yield f"Python: [`{module}.{info.name}`](../reference/python/attention_zoo.mixers.md#{module}.{info.name})."


def descriptions(cls: type) -> dict[str, str]:
    """Return what the docstrings of a class and its bases say of each argument."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        for argument in parse(vars(base).get("__doc__") or "").params:
            found[argument.arg_name] = " ".join((argument.description or "").split())
    return found


def rows(file: str) -> list[dict[str, str]]:
    """Return the rows of a table of the studies; none where the table is not there."""
    path: Path = ROOT / file
    return list(csv.DictReader(path.open(encoding="utf-8"))) if path.is_file() else []


def overview() -> str:
    """Return the page with the table of all readings, whose names are links to the pages of those that have one."""
    linked = re.sub(rf"^\| `({'|'.join(list_mixers())})`", r"| [`\1`](\1.md)", markdown_table(), flags=re.MULTILINE)
    return (ROOT / "docs" / "readings" / "index.md").read_text(encoding="utf-8").replace("{{ mixers }}", linked)


def on_config(config: MkDocsConfig) -> None:
    """Put the pages into the navigation, those of one kind of reading beside each other."""
    infos = sorted(map(mixer_info, list_mixers()), key=lambda info: (info.reading.casefold(), info.name))
    kinds: dict[str, list[str]] = {}
    for info in infos:
        kind = re.split(",| with | in | by | from | towards | on ", info.reading)[0]
        kinds.setdefault(kind[0].upper() + kind[1:], []).append(f"readings/{info.name}.md")
    kinds["Analysis by synthesis"] = ["readings/TopDown.md"]  # a wrapper around a model, which no registry has
    section(config, "Readings").extend({kind: kinds[kind]} for kind in sorted(kinds))


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Put the pages among the files of the site."""
    put(files, config, "readings/index.md", overview())
    for name in list_mixers():
        put(files, config, f"readings/{name}.md", page(name))
