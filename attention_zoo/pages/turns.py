"""The queue in front of a model: one answer at a time, in the order in which they were asked for."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request

MOST_WAITING = 64
"""The most requests that wait for their turn; further ones are told to come again."""

GONE = 499
"""The status for a request whose sender has gone, which nobody reads (as nginx has it)."""

Answer = TypeVar("Answer")


class Turns:
    """Calls functions one at a time, in a thread of their own, so that the server goes on with everything else."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "model")
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def call(self, request: Request, function: Callable[..., Answer], *arguments: object) -> Answer:
        """Return what a function returns, once it is its turn; a request whose tab was closed meanwhile is skipped.

        Args:
            request: the request that asks, whose body has been read.
            function: the function.
            *arguments: its arguments.

        Raises:
            HTTPException: too many wait already, or the tab was closed.
        """
        if self._waiting >= MOST_WAITING:
            raise HTTPException(503, "too many answers are being waited for; try again")
        self._waiting += 1
        try:
            async with self._turn:
                if await request.is_disconnected():
                    raise HTTPException(GONE, "the tab was closed")
                return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)
        finally:
            self._waiting -= 1
