"""The queue in front of a model: one answer at a time, in the order in which they were asked for."""

import asyncio
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request

MOST_WAITING = 64
"""The most requests that wait for their turn; further ones are told to come again."""

GONE = 499
"""The status for a request whose sender has gone, which nobody reads (as nginx has it)."""

Answer = TypeVar("Answer")


Work = SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]


class Turns:
    """Calls functions one at a time, in a thread of their own, so that the server goes on with everything else.

    The end of the program does not wait for a function, which may take minutes.
    """

    def __init__(self) -> None:
        self._work: Work = SimpleQueue()
        # an executor's threads are waited for at the end of the program
        threading.Thread(target=_answer, args=(self._work,), name="model", daemon=True).start()
        weakref.finalize(self, self._work.put, None)
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def call(self, request: Request, function: Callable[..., Answer], *arguments: object) -> Answer:
        """Return what a function returns, once it is its turn; a request whose tab was closed meanwhile is skipped.

        Args:
            request: the request that asks, whose body has been read.
            function: the function.
            *arguments: its arguments.

        Raises:
            HTTPException: too many wait already, the tab was closed, or the server ends.
        """
        if self._waiting >= MOST_WAITING:
            raise HTTPException(503, "too many answers are being waited for; try again")
        self._waiting += 1
        try:
            async with self._turn:
                if await request.is_disconnected():
                    raise HTTPException(GONE, "the tab was closed")
                answer: Future[Answer] = Future()
                self._work.put((answer, partial(function, *arguments)))
                return await asyncio.wrap_future(answer)
        except asyncio.CancelledError as error:
            raise HTTPException(503, "the server ends") from error
        finally:
            self._waiting -= 1


def _answer(work: Work) -> None:
    """Call one function after another, until there is None."""
    while (asked := work.get()) is not None:
        future, function = asked
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(function())
            except BaseException as error:  # is raised where the answer is waited for
                future.set_exception(error)
        del asked, future, function  # what they hold is not kept until there is another
