"""The guard in front of a page: who may ask, and what a browser may do with the answers."""

import hashlib
import secrets
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
"""The names by which a machine calls itself."""

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
"""The headers of every answer: scripts, styles and pictures come from this server alone, and nothing is kept."""


class Guard:
    """ASGI middleware that refuses requests that other sites or machines have made, and adds `HEADERS`.

    A site whose name was made to point to this machine (DNS rebinding) is known by the ``Host`` that its requests
    name; a request that another site's page makes, by its ``Origin`` and ``Sec-Fetch-Site``. A token comes in the
    query of the first address, is put into a cookie and leaves the address. Every answer has the header
    ``x-server``, by which a page knows that another server, of other models and pictures, has taken its own's place.

    Args:
        app: the application behind it.
        hosts: the names that requests may call this machine by; None is any.
        token: what requests must bring; None asks for none.
    """

    def __init__(self, app: ASGIApp, *, hosts: frozenset[str] | None, token: str | None) -> None:
        self.app, self.hosts, self.token = app, hosts, token
        self._headers = {**HEADERS, "x-server": secrets.token_hex(8)}
        # ports share cookies: two servers on one machine must not have one of the same name
        self.cookie = f"token_{hashlib.sha256((token or '').encode()).hexdigest()[:8]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on; nothing but HTTP is served."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            raise ValueError(f"pages are served by HTTP alone, not {scope['type']}")

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        answer = self._refusal(scope) or self._entrance(scope) or self.app
        await answer(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        """Return the answer to a request of another site; None if it is none."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self.hosts is not None and _name(host) not in self.hosts:
            return PlainTextResponse("This server does not go by that name.\n", 421)
        origin = headers.get("origin")
        foreign = origin is not None and origin.partition("://")[2] != host
        # a link from elsewhere may lead to the page itself, but to nothing else; other ports are of the same site
        elsewhere = headers.get("sec-fetch-site") in ("cross-site", "same-site") and scope["path"] != "/"
        if foreign or elsewhere:
            return PlainTextResponse("Other sites may not ask this server.\n", 403)
        return None

    def _entrance(self, scope: Scope) -> ASGIApp | None:
        """Return the answer to a request that brings no token, or brings it in its address; None if it may pass.

        The token leaves the address of a browser that has the cookie too: addresses are copied and shown.
        """
        if self.token is None:
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        rest = [pair for pair in query if pair[0] != "token" or not self._is_token(pair[1])]  # a page may have its own
        if scope["path"] == "/" and len(rest) < len(query):
            answer = RedirectResponse(f"/{f'?{urlencode(rest)}' if rest else ''}", 303)
            answer.set_cookie(self.cookie, self.token, httponly=True, samesite="lax")
            return answer
        # of the cookies of other servers on this machine, which may hold anything, none is parsed strictly
        if self._is_token(cookie_parser(Headers(scope=scope).get("cookie", "")).get(self.cookie)):
            return None
        return PlainTextResponse("Open the address that the terminal shows: it has a token.\n", 403)

    def _is_token(self, given: str | None) -> bool:
        return given is not None and secrets.compare_digest(given.encode(), (self.token or "").encode())


def _name(host: str) -> str | None:
    """Return the name in a ``Host``, without its port."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None
