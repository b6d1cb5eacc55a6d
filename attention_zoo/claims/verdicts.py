"""What the runs say of each claim.

A claim's figure here is the mean over seeds of the difference of two settings, each pair of runs with the same seed.
Its p-value is that of a paired two-sided t-test against the bound of the claim: no difference, or, of a claim that
nothing changes, the nearer end of its tolerance. So the same p-value tells that a claim holds and that it does not, by
the side of the bound. All p-values of a page are corrected together by Holm's method.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from attention_zoo.claims.evidence import COUNTED, Evidence, read_evidence
from attention_zoo.claims.schema import Claim, Claims, Comparison, compared
from attention_zoo.errors import InputError
from attention_zoo.reports.statistics import LEAST_SEEDS, LEVEL, Difference, Estimate, holm
from attention_zoo.terminal import tracked


class Verdict(StrEnum):
    """What the runs say of a claim."""

    HELD = "held"
    NOT_HELD = "not held"
    WITHIN_NOISE = "within noise"
    TOO_FEW = "too few seeds"
    OUT_OF_REACH = "out of reach here"


@dataclass(frozen=True)
class Outcome:
    """A claim with what the runs say of it.

    Attributes:
        name: the name of the claim.
        claim: the claim.
        ours: the mean over seeds of the difference, with its interval; None where no runs test the claim.
        chance: the p-value of the claim alone; NaN where nothing is tested.
        verdict: the verdict, after the correction over all claims.
        corrected: the p-value corrected for the number of claims; NaN where nothing is tested.
    """

    name: str
    claim: Claim
    ours: Estimate | None = None
    chance: float = math.nan
    verdict: Verdict = Verdict.OUT_OF_REACH
    corrected: float = math.nan

    @property
    def is_counted(self) -> bool:
        """Whether the numbers are counted, as parameters are: there is no noise, and nothing to test."""
        return self.claim.test is not None and self.claim.test.column in COUNTED

    @property
    def is_tested(self) -> bool:
        """Whether enough seeds test the claim."""
        return self.ours is not None and self.ours.count >= LEAST_SEEDS

    @property
    def is_as_claimed(self) -> bool:
        """Whether the mean lies on the claimed side, or within the tolerance."""
        if self.ours is None:
            return False
        if self.claim.tolerance is not None:
            return abs(self.ours.mean) <= self.claim.tolerance
        return self.claim.way * self.ours.mean > 0


def judge(claims: Claims) -> list[Outcome]:
    """Return the outcome of every claim, in the order of the file.

    Raises:
        InputError: a study cannot be read, or has no setting or column that a claim names.
    """
    evidence = {name: read_evidence(claims.study_folder(name)) for name in tracked(claims.studies, "reading runs")}
    outcomes = []
    for name, claim in claims.claims.items():
        try:
            differences = _differences(claim.test, claims, evidence) if claim.test else {}
        except InputError as error:
            raise InputError(f"claim {name}: {error}") from error
        outcomes.append(_tested(name, claim, differences))
    corrected = holm([outcome.chance for outcome in outcomes])
    return [_decided(replace(each, corrected=chance)) for each, chance in zip(outcomes, corrected, strict=True)]


def _differences(test: Comparison, claims: Claims, evidence: Mapping[str, Evidence | None]) -> dict[int, float]:
    """Return the difference of each seed that both sides of a comparison have, in its measure."""
    study, runs = claims.studies[test.study], evidence[test.study]
    if runs is None:
        return {}
    sides = []
    for setting, column in (test.one, test.other):
        factor = study.column(column).factor
        sides.append({seed: factor * value for seed, value in runs.values(setting, column).items()})
    one, other = sides
    if test.measure == "percent" and 0 in other.values():
        raise InputError("a percentage of a baseline that is 0")
    return {seed: compared(one[seed], other[seed], test.measure) for seed in sorted(one.keys() & other.keys())}


def _tested(name: str, claim: Claim, differences: Mapping[int, float]) -> Outcome:
    """Return the outcome of a claim without correction and verdict."""
    outcome = Outcome(name, claim, Estimate.of(list(differences.values())) if differences else None)
    if outcome.ours is None or not outcome.is_tested or outcome.is_counted:
        return outcome
    bound = math.copysign(claim.tolerance or 0.0, outcome.ours.mean)
    return replace(outcome, chance=Difference.of(differences, dict.fromkeys(differences, bound)).chance)


def _decided(outcome: Outcome) -> Outcome:
    """Return an outcome with its verdict."""
    sided = Verdict.HELD if outcome.is_as_claimed else Verdict.NOT_HELD
    if outcome.ours is None:
        verdict = Verdict.OUT_OF_REACH
    elif outcome.is_counted or (outcome.is_tested and outcome.corrected < LEVEL):
        verdict = sided
    else:
        verdict = Verdict.WITHIN_NOISE if outcome.is_tested else Verdict.TOO_FEW
    return replace(outcome, verdict=verdict)
