"""An annotation says which values an argument may have, and they alone are taken."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import attention_zoo as az
from attention_zoo.attacks import PGD
from attention_zoo.domains import (
    Checked,
    Domain,
    Fraction,
    PositiveFloat,
    PositiveInt,
    Seed,
    SignedFloat,
    SignedInt,
    checked,
    complaint,
)
from attention_zoo.errors import InputError

FITS = [
    (3, int),
    (np.int64(3), int),
    (np.float32(0.5), float),
    (3, float),
    (-3, SignedInt),
    (-0.5, SignedFloat),
    (0, Seed),
    (2**32 - 1, Seed),
    (1.0, Fraction),
    (None, int | None),
    ("a", int | str),
    ((1, 2), tuple[int, int]),
    ([1, 2], tuple[int, int]),
    ((), tuple[int, ...]),
    ([1, 2, 3], Sequence[PositiveInt]),
    ({"a": 0.5}, dict[str, Fraction]),
    ("v", Literal["v", "qkv"]),
    (torch.float32, torch.dtype | None),
    (nn.LayerNorm, type[nn.Module] | None),
    ("anything", Any),
    ({"a": math.nan}, Any),
]
NOT = [
    (True, int, "an integer"),
    (1.0, int, "an integer"),
    ("1", int, "an integer"),
    (2**63, int, "64 bits"),
    (2**70, int, "64 bits"),
    (1 << 1024, float, "finite"),
    (math.nan, float, "finite"),
    (-math.inf, SignedFloat, "finite"),
    (np.float64("nan"), float | None, "finite"),
    (0, PositiveInt, "at least 1"),
    (0.0, PositiveFloat, "above 0"),
    (1.1, Fraction, "at most 1"),
    (2**32, Seed, "at most 4294967295"),
    (-1, Seed | None, "at least 0"),
    (1.0, Annotated[float, Domain(least=0, below=1)], "at least 0 and below 1"),
    (None, int, "an integer"),
    ((1,), tuple[int, int], "2 values"),
    (7, tuple[int, int], "a list"),
    (torch.tensor(1.0), tuple[int, int], "a list"),
    (np.array(1), list[int], "a list"),
    ("12", tuple[str, str], "a list"),
    ([1, 0], list[PositiveInt], "at least 1"),
    ({"a": 2.0}, dict[str, Fraction], "at most 1"),
    ([1], dict[str, int], "a mapping"),
    ("w", Literal["v", "qkv"], "'v' or 'qkv'"),
    ("yes", bool, "true or false"),
    (3, str | None, "text or None"),
    ("a\0", str, "null character"),
    ("cpu", nn.Module | None, "Module"),
]


@pytest.mark.parametrize(("value", "kind"), FITS)
def test_what_fits(value, kind):
    assert complaint(value, kind) is None


@pytest.mark.parametrize(("value", "kind", "word"), NOT)
def test_what_does_not(value, kind, word):
    assert word in complaint(value, kind)


def test_a_wrong_item_of_what_may_be_none_is_told_as_such():
    assert complaint([-1.0], list[float] | None, Domain(least=0)) == "be a list of which each must not be negative"
    assert (
        complaint({"a": -1}, str | dict[str, float], Domain(least=0)) == "have at a a value that must not be negative"
    )
    assert complaint("x", list[float] | None) == "be a list or None"


@given(number=st.one_of(st.floats(), st.integers()), bounds=st.tuples(st.integers(-9, 9), st.integers(0, 9)))
def test_a_domain_is_its_bounds(number, bounds):
    least, most = bounds[0], bounds[0] + bounds[1]
    kind = Annotated[float, Domain(least=least, most=most)]
    assert (complaint(number, kind) is None) == (least <= number <= most)


class Base(Checked):
    @checked
    def __init__(self, width: PositiveInt = 4, *, rate: float = 0.5):
        self.width, self.rate = width, rate


class Below(Base):
    def __init__(self, shift: float = 0.0, **base: Any):
        self.shift = 1 / base.get("width", 1)  # a bad width must not come so far
        super().__init__(**base)


def test_subclasses_are_checked_with_what_their_bases_take():
    assert Below(2.0, width=3).width == 3
    for arguments, words in (
        ({"width": 0}, "width=0"),
        ({"rate": math.nan}, "rate=nan"),
        ({"shift": True}, "shift=True"),
    ):
        with pytest.raises(InputError, match=f"^Below: {words} must be"):
            Below(**arguments)


class Wider(Base):
    def __init__(self, width: int | None = None, **base: Any):
        super().__init__(4 if width is None else width, **base)


def test_an_argument_is_what_the_class_itself_says_it_is():
    assert Wider(width=None, rate=1.0).width == 4
    with pytest.raises(InputError, match="^Wider: width=0 must be at least 1"):
        Wider(width=0)


def test_other_peoples_numbers_may_be_negative():
    assert Below(shift=-2.0, rate=-1.0).rate == -1.0
    with pytest.raises(InputError, match="steps=-1 must be at least 1"):
        PGD(steps=-1)


def test_errors_about_the_call_itself_are_pythons():
    with pytest.raises(TypeError, match="hight"):
        Below(hight=3)


@checked
@dataclass
class Options:
    prob: Fraction = 0.5


@checked
def tool(options: Options, *, size: PositiveInt = 1, mode: Literal["fast", "exact"] = "fast") -> int:
    return size


def test_data_classes_and_functions():
    assert tool(Options(0.25), size=3) == 3
    for wrong, words in (
        (lambda: Options(prob=2.0), "Options: prob=2.0 must be at least 0 and at most 1"),
        (lambda: tool({"prob": 1}), "options=.* must be Options options"),
        (lambda: tool(Options(), size=10**5000), "size=a number of about 5001 digits must be an integer of at most 64"),
        (lambda: tool(Options(), mode="fats"), "unknown mode 'fats'; did you mean 'fast'"),
    ):
        with pytest.raises(InputError, match=words):
            wrong()


def test_a_mixer_of_somebody_else_is_checked_too():
    class Scaled(az.SelfMixer):
        def __init__(self, dim: int, num_heads: int = 8, *, factor: float = 1.0, **host):
            super().__init__(dim, num_heads, **host)
            self.factor = factor

        def mix(self, q, k, v):
            return v * self.factor

    assert Scaled(8, 2, factor=-1.0).factor == -1.0
    with pytest.raises(InputError, match="Scaled: factor=inf must be a finite number"):
        Scaled(8, 2, factor=math.inf)
    with pytest.raises(InputError, match="Scaled: attn_drop=nan"):
        Scaled(8, 2, attn_drop=math.nan)
