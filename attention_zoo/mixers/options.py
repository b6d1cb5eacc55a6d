"""The kinds of option that mixers share, as annotations; `attention_zoo.domains` refuses every other value by name.

The limits from above are far beyond any sensible use: they refuse in one line what would exhaust memory or time.
"""

from typing import Annotated

from attention_zoo.domains import NOT_NEGATIVE, Domain

Width = Annotated[int, Domain(least=1, most=1 << 16)]
"""A number of channels of a token, or of heads."""
TokenWidth = Annotated[int, Domain(least=0, most=1 << 16)]
"""A number of channels of a token; that it is above 0 is checked together with the heads that divide it."""
Iterations = Annotated[int, NOT_NEGATIVE, Domain(most=1000)]
"""A number of steps of an iteration."""
SomeIterations = Annotated[int, Domain(least=1, most=1000)]
"""A number of steps of an iteration that has at least one."""
Side = Annotated[int, Domain(least=1, most=1 << 15)]
"""The height or width of a grid, in tokens."""
Grid = tuple[Side, Side]
"""The height and width of a grid, in tokens."""
KernelSide = Annotated[int, Domain(least=1, most=255)]
"""The height and width of a kernel, in tokens."""
Number = Annotated[int, Domain(least=1, most=1 << 12)]
"""A number of kernels, regions and the like, which a layer holds in matrices of as many rows."""
Amount = Annotated[float, NOT_NEGATIVE, Domain(most=1e6)]
"""A precision or a weight."""
Ratio = Annotated[float, Domain(above=0, most=1e6)]
"""A ratio of two numbers, such as features per channel."""
DropRate = Annotated[float, Domain(least=0, below=1)]
"""The fraction that training drops at random."""
