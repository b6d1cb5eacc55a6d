"""The kinds of option that mixers share, as annotations; `attention_zoo.domains` refuses every other value by name.

The limits from above are far beyond any sensible use: they refuse in one line what would exhaust memory or time.
"""

from typing import Annotated

from attention_zoo.domains import NOT_NEGATIVE, Domain

Width = Annotated[int, Domain(least=1, most=1 << 16)]
"""Channels of a token, or heads."""
TokenWidth = Annotated[int, Domain(least=0, most=1 << 16)]
"""Channels of a token; that there are some is checked together with the heads that divide them."""
Iterations = Annotated[int, NOT_NEGATIVE, Domain(most=1000)]
"""Steps of an iteration."""
SomeIterations = Annotated[int, Domain(least=1, most=1000)]
"""Steps of an iteration that has one at least."""
Side = Annotated[int, Domain(least=1, most=1 << 15)]
"""Height or width of a grid, in tokens."""
Grid = tuple[Side, Side]
"""Height and width of a grid, in tokens."""
KernelSide = Annotated[int, Domain(least=1, most=255)]
"""Height and width of a kernel, in tokens."""
Number = Annotated[int, Domain(least=1, most=1 << 12)]
"""Kernels, regions and the like: what a layer holds in matrices of as many rows."""
Amount = Annotated[float, NOT_NEGATIVE, Domain(most=1e6)]
"""A precision or a weight."""
Ratio = Annotated[float, Domain(above=0, most=1e6)]
"""Things for each of another thing."""
DropRate = Annotated[float, Domain(least=0, below=1)]
"""A part of what is there that training leaves out."""
