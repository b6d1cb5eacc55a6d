"""No constructor and no tool takes a value that its annotation does not: all of them, with every malformed value."""

import pytest

from attention_zoo.domains import checked
from attention_zoo.errors import InputError
from tests.fuzz.options import groups, options_of
from tests.fuzz.values import VALUES, Text, example, malformed

GROUPS = groups()


def refused(call, option, value):
    """What came of a call with ``value``: None if it was refused by name."""
    arguments = {other.name: example(other.kind) for other in options_of(option.owner) if other.required}
    try:
        call(**{**arguments, option.name: value})
    except InputError as error:
        line = str(error)
        return None if option.name in line and "\n" not in line and len(line) < 500 else f"says {line!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "accepted"


@pytest.mark.parametrize("owner", [pytest.param(o, id=f"{g}-{o.__name__}") for g in GROUPS for o in GROUPS[g]])
def test_every_option_refuses_what_is_none(owner):
    call = checked(owner) if not isinstance(owner, type) else owner
    tried, wrong = 0, []
    for option in options_of(owner):
        for value in VALUES:
            if not isinstance(value, Text) and malformed(value, option.kind, option.least):
                tried += 1
                what = refused(call, option, value)
                wrong += [f"{option}={str(value)[:30]!r}: {what}"] if what else []
    assert not wrong, f"{len(wrong)} of {tried}:\n" + "\n".join(wrong[:40])


def test_there_is_something_to_fuzz():
    assert {name: len(owners) > 4 for name, owners in GROUPS.items() if name != "attack"}
    assert sum(len(options_of(owner)) for owners in GROUPS.values() for owner in owners) > 300
