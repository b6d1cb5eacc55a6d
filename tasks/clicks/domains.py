"""The numbers that the settings of clicks may have, as annotations of their arguments; see `attention_zoo.domains`."""

from typing import Annotated

from attention_zoo.domains import Domain

MANY = 10_000
"""The largest number of clicks, rounds or iterations that makes sense; each is carried out, or kept, one by one."""

Number = Annotated[int, Domain(least=0, most=MANY)]
"""A number of clicks, rounds or iterations; 0 is none."""

NumberFromOne = Annotated[int, Domain(least=1, most=MANY)]
"""A number of clicks of which there must be one."""
