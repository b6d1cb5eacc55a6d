"""The server of pages: it serves the files of one page and its answers, to this machine unless told otherwise.

A page::

    class Hello:
        name = "hello"                       # static/hello/index.html is served at /

        def routes(self):
            return [Route("/api/greeting", self.greet)]

        async def greet(self, request):
            content = await read_json(request)
            return json_response({"greeting": f"Hello, {content['name']}"})

    serve(Hello(), host="127.0.0.1", port=8000)
"""

import ipaddress
import json
import secrets
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from attention_zoo.errors import InputError
from attention_zoo.pages.guard import LOOPBACK, Guard
from attention_zoo.pages.turns import GONE
from attention_zoo.runs.files import parse_json

STATIC = Path(__file__).parent / "static"
"""The folder of the files of all pages, one folder a page, and ``common``."""

MOST_BYTES = 8 << 20
"""The most bytes that the body of a request may have, unless its reader says otherwise."""

ENDING = 2
"""Seconds that answers in the making have when the server ends."""


class Page(Protocol):
    """The interface of a page.

    Attributes:
        name: the folder of its files in `STATIC`; ``index.html`` there is served at ``/``.
    """

    name: str

    def routes(self) -> Sequence[BaseRoute]:
        """Return the routes of what the page answers, below ``/api/``."""


def application(page: Page, hosts: frozenset[str] | None = LOOPBACK, token: str | None = None) -> Guard:
    """Return the ASGI application of a page.

    Args:
        page: the page.
        hosts: the names that requests may call this machine by; None is any.
        token: what requests must bring, see `Guard`; None asks for none.
    """
    index = STATIC / page.name / "index.html"

    async def home(request: Request) -> Response:
        return FileResponse(index)

    app = Starlette(
        routes=[Route("/", home), Mount("/static", StaticFiles(directory=STATIC)), *page.routes()],
        exception_handlers={InputError: _bad_input, HTTPException: _http_error, Exception: _failed},
    )
    return Guard(app, hosts=hosts, token=token)


def serve(page: Page, host: str, port: int) -> None:
    """Serve a page until Ctrl-C, after printing its address.

    Args:
        page: the page.
        host: the name or address to listen on; one that other machines can reach has a token in the page's address.
        port: the port; 0 is any that is free.

    Raises:
        InputError: the port is taken or may not be used, or this machine has no such address.
    """
    here = is_loopback(host)
    token = None if here else secrets.token_urlsafe(24)
    with listening(host, port) as sock:
        address = f"http://{f'[{host}]' if ':' in host else host}:{sock.getsockname()[1]}/"
        sys.stdout.write(f"{address}{f'?token={token}' if token else ''} (Ctrl-C ends)\n")
        sys.stdout.flush()
        app = application(page, LOOPBACK | {host} if here else None, token)
        # headers and errors are our own; lines for each request would only be in the way
        config = uvicorn.Config(
            app, log_level="warning", server_header=False, lifespan="off", ws="none", timeout_graceful_shutdown=ENDING
        )
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[sock])


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach what listens on a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in LOOPBACK


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to a port of a host.

    Raises:
        InputError: it cannot be.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, OverflowError) as error:
        reason = str(getattr(error, "strerror", None) or error).partition(" (")[0]  # behind it: the address again
        raise InputError(f"cannot listen on {host}, port {port}: {reason}; choose another --port, 0 is any") from error


async def read_body(request: Request, most: int = MOST_BYTES) -> bytes:
    """Return the body of a request.

    Raises:
        InputError: it has more than ``most`` bytes; it is not read any further.
        HTTPException: the tab was closed.
    """
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > most:
                raise InputError(f"more than the {most:,} bytes that are taken")
    except ClientDisconnect as error:
        raise HTTPException(GONE, "the tab was closed") from error
    return bytes(body)


async def read_json(request: Request, most: int = MOST_BYTES) -> dict[str, Any]:
    """Return the JSON object in the body of a request.

    Raises:
        InputError: it is too large, or no such object.
    """
    try:
        content = parse_json((await read_body(request, most)).decode(), "the request")
    except UnicodeDecodeError as error:
        raise InputError("the request is not text (UTF-8)") from error
    if not isinstance(content, dict):
        raise InputError("the request is no JSON object")
    return content


def json_response(content: Any, status: int = 200) -> Response:
    """Return plain values as a response; names of files that are no UTF-8 stay as they are, and NaN is refused."""
    return Response(json.dumps(content, allow_nan=False), status, media_type="application/json")


async def _bad_input(request: Request, error: Exception) -> Response:
    return json_response({"error": str(error)}, 400)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return json_response({"error": error.detail}, error.status_code)


async def _failed(request: Request, error: Exception) -> Response:
    return json_response({"error": f"the server failed at this: {type(error).__name__}; its terminal says more"}, 500)
