"""``python -m attention_zoo claims``: the papers' claims beside what the committed runs say of them."""

from attention_zoo.runs.folders import named_path
from attention_zoo.terminal import console, print_table


def claims(*, folder: str = "results", check: bool = False) -> int:
    """Put the papers' claims beside what the runs here say of them: which held, which did not, which are noise.

    Reads claims.yaml and the runs that it names in the same folder; writes README.md there (a table a document, with
    our difference and its interval, seeds, scale, verdict, and the command that repeats it), claims.csv and claims.png.

    Args:
        folder: folder of results with a claims.yaml.
        check: write nothing; fail where a number that was written no longer follows from its runs. For example
            python -m attention_zoo claims --check

    Returns:
        the exit code: 1 if a check fails, else 0.
    """
    from attention_zoo.claims.files import problems, write_claims
    from attention_zoo.claims.page import short_table
    from attention_zoo.claims.schema import read_claims
    from attention_zoo.claims.verdicts import judge

    stated = read_claims(named_path("folder", folder))
    outcomes = judge(stated)
    if check:
        wrong = list(problems(stated, outcomes))
        for problem in wrong or [f"{len(outcomes)} claims in {folder} follow from their runs"]:
            console().print(problem, soft_wrap=True)
        return 1 if wrong else 0
    write_claims(stated, outcomes)
    print_table(short_table(outcomes), f"written to {folder}")
    absent = [name for name in stated.studies if not stated.study_folder(name).is_dir()]
    if absent:
        console().print(f"no folder in {folder}, and so no runs, of the studies: {', '.join(absent)}", soft_wrap=True)
    return 0
