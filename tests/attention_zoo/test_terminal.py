"""Names are printed as they are."""

from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from attention_zoo.mixers.registry import MIXERS, list_mixers, mixer_info
from attention_zoo.reports.table import Table
from attention_zoo.terminal import print_table, terminal, text_table, tracked

NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30)


def printed(*things):
    screen = terminal(width=400)
    with screen.capture() as capture:
        for thing in things:
            screen.print(thing, soft_wrap=isinstance(thing, str))
    return capture.get()


@settings(max_examples=60, deadline=None)
@given(NAMES)
@example("[/b]")
@example("[red]x")
@example("F^-1[W * F[x]]")
@example(":smile:")
@example("[link=http://x]y[/link]")
@example("back\\[slash]")
def test_names_are_no_markup(name):
    table = text_table((name, "b"), [(name, Text("done", style="green"))], title=name)
    assert printed(name).rstrip("\n") == name
    assert printed(table).count(name) >= 3


def test_the_list_of_mixers_shows_every_equation(capsys):
    from attention_zoo.cli.mixers import mixers

    mixers([])
    shown = "".join(capsys.readouterr().out.split())
    for name in list_mixers():
        equation = "".join(mixer_info(name).equation.split())
        assert equation[:12] in shown or len(equation) > 12
    assert "F⁻¹[W∘F[x]]" in "".join(shown.split("│"))
    assert set(MIXERS) == set(list_mixers())


def test_progress_is_for_terminals_alone(capsys, monkeypatch):
    assert list(tracked(range(3), "work")) == [0, 1, 2]
    assert list(tracked(iter("ab"), "work", total=2)) == ["a", "b"]
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr("attention_zoo.terminal.terminal", lambda **kwargs: Console(force_terminal=True, width=80))
    for item in tracked([1, 3], "[b]work", weight=float):
        assert item in (1, 3)
    assert "[b]work" in capsys.readouterr().out


def test_a_table_that_is_too_wide_is_turned(capsys):
    names = tuple(f"test/a_long_name_of_{place}" for place in range(9))
    wide = Table(("run", *names), (("one", *"123456789"), ("two", *"987654321")), ("a note",))
    assert wide.turned().turned() == wide
    print_table(wide, "wide")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(names) + 6 and all(any(name in line for line in lines) for name in names)
    print_table(Table(wide.header[:3], tuple(row[:3] for row in wide.rows)), "narrow")
    (head,) = (line for line in capsys.readouterr().out.splitlines() if "run" in line)
    assert names[0] in head and names[1] in head
    print_table(wide.turned(), "long")
    assert "one" in next(line for line in capsys.readouterr().out.splitlines() if "run" in line)
