"""The page of all claims: a table a document, how the verdicts are made, and the same numbers for a program."""

import math
from collections import Counter
from collections.abc import Sequence

from attention_zoo.claims.schema import CLAIMS, Claim, Claims
from attention_zoo.claims.verdicts import Outcome, Verdict
from attention_zoo.reports.statistics import LEAST_SEEDS, LEVEL, Estimate
from attention_zoo.reports.table import Table, escaped

UNITS = {"points": "", "percent": " %"}
"""What follows a difference on the page, by its measure."""

HEADER = ("claim", "place", "paper", "here", "seeds", "scale", "verdict", "p, corrected", "again")
"""The headings of the tables of the page."""

METHOD = f"""\
* *here*: the setting minus the baseline, run by run with the same seed; the mean over the seeds and half of its 95 %
  confidence interval (Student's t), in percentage points of what the study measures, or as a percentage of the
  baseline where the sign says so. *paper*: the same difference of the paper's own numbers and metric.
* *p*: of a paired two-sided t-test against no difference; of a claim that nothing changes, against the nearer end of
  its tolerance. *corrected*: by Holm's method over all claims of this page that are tested, so that the chance of a
  single wrong verdict among them is at most {100 * LEVEL:.0f} %. Each further claim makes the tests of all stricter.
* **held**: the corrected p is below {LEVEL}, and the difference lies on the claimed side (within the tolerance).
  **not held**: it is below {LEVEL}, and the difference lies on the other side. Numbers that are counted, such as
  parameters, have no noise and no test: their side decides. Verdicts are about the direction; the figure shows sizes.
* **within noise**: the corrected p is {LEVEL} or more: these runs do not tell. With {LEAST_SEEDS} seeds only a
  difference many times its spread is told from none after the correction; the intervals are not corrected, and one that
  excludes 0 is no verdict.
* **too few seeds**: fewer than {LEAST_SEEDS} seeds in common. Such a difference is shown, and is no evidence.
* **out of reach here**: no runs of it are beside this page. The command is the one that would test the claim."""
"""How verdicts are made, in words."""


def page(claims: Claims, outcomes: Sequence[Outcome], figure: str) -> str:
    """Return the page in markdown.

    Args:
        claims: the content of the file of claims.
        outcomes: the outcome of each claim.
        figure: the name of the file with the figure.
    """
    parts = [
        "# Claims of the papers, and what the runs here say",
        f"*Made by `python -m attention_zoo claims` from [{CLAIMS}]({CLAIMS}) and the runs beside it;* "
        "`python -m attention_zoo claims --check` *fails where a number no longer follows from them.*",
        _summary(outcomes),
        *_decided(outcomes),
        f"![The papers' and our differences, each with its interval]({figure})",
        "*Differences, turned so that those on the right are as claimed: the paper's (diamond) and ours with its 95 % "
        "interval (circle, hollow with too few seeds). The grey bar is the tolerance of a claim that nothing changes.*",
    ]
    for document, title in claims.documents.items():
        own = [outcome for outcome in outcomes if outcome.claim.document == document]
        if own:
            parts += [f"## {escaped(document)}", f"{escaped(title)}.", _table(claims, own)]
    parts += ["## How verdicts are made", METHOD, "## The same at another scale", _scales(claims)]
    return "\n\n".join(parts) + "\n"


def numbers(outcomes: Sequence[Outcome]) -> Table:
    """Return the numbers of the page for a program, with all their digits and a row for each claim."""
    header = ("claim", "paper", "difference", "half_width", "seeds", "p", "verdict", "p_corrected")
    rows = []
    for outcome in outcomes:
        ours = outcome.ours or Estimate(math.nan, math.nan, 0)
        cells = (outcome.claim.paper_difference, ours.mean, ours.half_width)
        chances = (_exact(outcome.chance), str(outcome.verdict), _exact(outcome.corrected))
        rows.append((outcome.name, *map(_exact, cells), str(ours.count), *chances))
    return Table(header, tuple(rows))


def short_table(outcomes: Sequence[Outcome]) -> Table:
    """Return the table for a terminal: the claims, both figures, seeds and verdicts."""
    rows = [(each.name, _paper(each.claim), _ours(each), _seeds(each), str(each.verdict)) for each in outcomes]
    return Table(("claim", "paper", "here", "seeds", "verdict"), tuple(rows), (_summary(outcomes),))


def _summary(outcomes: Sequence[Outcome]) -> str:
    """Return sentences that count the claims, and the verdicts on them."""
    tested = [outcome for outcome in outcomes if outcome.is_tested and not outcome.is_counted]
    counted = [outcome for outcome in outcomes if outcome.is_counted and outcome.ours]
    rest = [outcome for outcome in outcomes if outcome not in tested and outcome not in counted]
    groups = (
        (tested, f"{len(tested)} are tested with {LEAST_SEEDS} seeds or more"),
        (counted, f"{len(counted)} are counted"),
        (rest, "of the rest"),
    )
    told = [f"{words}: {_verdicts(group)}" for group, words in groups if group]
    return f"Of {len(outcomes)} claims {'; '.join(told)}."


def _verdicts(outcomes: Sequence[Outcome]) -> str:
    counts = Counter(outcome.verdict for outcome in outcomes)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])


def _decided(outcomes: Sequence[Outcome]) -> list[str]:
    """Return a list of the claims that held and of those that did not; no list where there are none."""
    lines = []
    for verdict in (Verdict.HELD, Verdict.NOT_HELD):
        for outcome in outcomes:
            if outcome.verdict is verdict:
                figures = escaped(f"{_ours(outcome)}, the paper {_paper(outcome.claim)}")
                note = f"; {escaped(outcome.claim.note)}" if outcome.claim.note else ""
                lines.append(f"* {verdict}: {escaped(outcome.claim.words)}: {figures}{note}")
    return ["\n".join(lines)] if lines else []


def _table(claims: Claims, outcomes: Sequence[Outcome]) -> str:
    rows: list[tuple[str, ...]] = [HEADER, ("---", "---", "---:", "---:", "---:", "---", "---", "---:", "---")]
    rows += [_row(claims, outcome) for outcome in outcomes]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(claims: Claims, outcome: Outcome) -> tuple[str, ...]:
    claim, study = outcome.claim, claims.studies[outcome.claim.test.study] if outcome.claim.test else None
    words = f"{escaped(claim.words)} (`{outcome.name}`)"
    scale = ""
    if study is not None and claim.test is not None:
        measured = escaped(study.column(claim.test.column).name)
        where = f"[{escaped(study.scale)}]({study.folder})" if outcome.ours else escaped(study.scale)
        scale = f"{where}: {measured}"
    command = study.command if study else claim.command
    again = f"`{command}`" if command else escaped(claim.lacks or "")
    verdict = f"**{outcome.verdict}**" if outcome.verdict in (Verdict.HELD, Verdict.NOT_HELD) else str(outcome.verdict)
    verdict += f": {escaped(claim.note)}" if claim.note and outcome.ours else ""
    chance = "" if math.isnan(outcome.chance) else f"{outcome.chance:.2g}, {outcome.corrected:.2g}"
    cells = (_paper(claim), _ours(outcome), _seeds(outcome))
    return words, escaped(claim.place), *map(escaped, cells), scale, verdict, chance, again


def _paper(claim: Claim) -> str:
    """Return the paper's difference with its numbers; a word where it gives only a direction."""
    paper, difference = claim.paper, claim.paper_difference
    if paper is None or difference is None:
        return claim.expect
    between = "−" if claim.measure == "points" else "/"
    numbers = "" if paper.setting is None else f" ({paper.setting} {between} {paper.baseline})"
    return f"{_signed(f'{difference:.3g}')}{UNITS[claim.measure]} {paper.metric}{numbers}"


def _ours(outcome: Outcome) -> str:
    if outcome.ours is None:
        return ""
    text = f"{outcome.ours.mean:.3g}" if outcome.is_counted or outcome.ours.count == 1 else str(outcome.ours)
    return _signed(text) + UNITS[outcome.claim.measure]


def _seeds(outcome: Outcome) -> str:
    if outcome.ours is None:
        return ""
    return "counted" if outcome.is_counted else str(outcome.ours.count)


def _scales(claims: Claims) -> str:
    """Return the words on how a study is repeated at another scale, with a command that does so."""
    sweep = next((study for study in claims.studies.values() if " sweep " in study.command), None)
    words = (
        "A study's config is where its scale stands, and every key of it can be set on the command line: more seeds, "
        "epochs, or another model and data. A study in a folder of these names is read at any scale"
    )
    if sweep is None:
        return f"{words}."
    example = f"{sweep.command.partition(' --workers')[0]} --seeds [0,1,2,3,4] --options.trainer.max_epochs 100"
    return f"{words}:\n\n```bash\n{example}\n```"


def _signed(number: str) -> str:
    return number if number.startswith("-") else f"+{number}"


def _exact(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else repr(value)
