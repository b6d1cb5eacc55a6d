"""The server of pages: what it serves, whom it refuses, and that one bad request ends nothing."""

import asyncio
import os
import signal
import socket
import threading
import time

import pytest

pytest.importorskip("starlette", reason="the extra `pages` is not installed")

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from attention_zoo.errors import InputError
from attention_zoo.pages import server
from attention_zoo.pages.server import application, is_loopback, json_response, listening, read_body, read_json
from attention_zoo.pages.turns import GONE, MOST_WAITING, Turns
from tests.processes import started

LOCAL = "http://127.0.0.1:8000"


class Echo:
    """A page that says what it is told."""

    name = "click"

    def __init__(self):
        self.turns = Turns()
        self.running = self.most = 0

    def routes(self):
        return [
            Route("/api/echo", self.echo, methods=["POST"]),
            Route("/api/size", self.size, methods=["POST"]),
            Route("/api/bad", self.bad),
            Route("/api/bug", self.bug),
            Route("/api/slow", self.slow),
        ]

    async def echo(self, request):
        return json_response(await read_json(request))

    async def size(self, request):
        return json_response({"size": len(await read_body(request, 1000))})

    async def bad(self, request):
        raise InputError("no picture <b>x</b>")

    async def bug(self, request):
        raise ZeroDivisionError

    async def slow(self, request):
        def work():
            self.running += 1
            self.most = max(self.most, self.running)
            time.sleep(0.02)
            self.running -= 1
            return "done"

        return PlainTextResponse(await self.turns.call(request, work))


@pytest.fixture
def client():
    return TestClient(application(Echo()), LOCAL, raise_server_exceptions=False)


def test_the_page_and_its_files(client):
    page = client.get("/?image=3")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    style = client.get("/static/common/base.css")
    assert style.headers["content-type"].startswith("text/css")
    for answer in (page, style, client.get("/nowhere")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["x-server"] == page.headers["x-server"]  # and another where the server is another one
    assert TestClient(application(Echo()), LOCAL).get("/").headers["x-server"] != page.headers["x-server"]
    assert client.get("/nowhere").json() == {"error": "Not Found"}


@pytest.mark.parametrize("path", ["..%2fserver.py", "%2e%2e/server.py", "..%5cserver.py", "%2fetc%2fpasswd", "%00"])
def test_no_path_leads_out_of_the_folder(client, path):
    assert client.get(f"/static/{path}").status_code in (404, 405)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8000", "", "[", "localhost@evil.example"])
def test_another_name_for_this_machine_is_refused(client, host):
    """DNS rebinding: a site of that name leads its visitor's browser here."""
    answer = client.get("/", headers={"host": host})
    assert answer.status_code == 421 and "html" not in answer.headers["content-type"]


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:9", "[::1]:8000", "LOCALHOST"])
def test_its_own_names_are_not(client, host):
    assert client.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:9"},
        {"origin": "http://["},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_other_sites_may_not_ask(client, headers):
    assert client.post("/api/echo", content="{}", headers=headers).status_code == 403
    assert client.post("/api/echo", content="{}", headers={"origin": LOCAL}).json() == {}


def test_another_host_needs_the_token():
    client = TestClient(application(Echo(), None, "secret"), "http://box:8000", follow_redirects=False)
    for path in ("/", "/?token=wrong", "/static/common/base.css", "/api/bad", "/?token=%ff"):
        refused = client.get(path)
        assert refused.status_code == 403 and "token" in refused.text
    wrong = client.get("/", headers={"cookie": f"{'x' * 9}=secret; token=secret"})
    assert wrong.status_code == 403
    entrance = client.get("/?view=2&token=secret")
    assert entrance.status_code == 303 and entrance.headers["location"] == "/?view=2"
    assert "HttpOnly" in entrance.headers["set-cookie"]
    assert client.get("/").status_code == 200
    assert client.post("/api/echo", content='{"a": 1}').json() == {"a": 1}


def test_the_token_never_stays_in_an_address():
    """Pages show their address, and copy it: of the attention page `token` is the patch."""
    client = TestClient(application(Echo(), None, "secret"), "http://box:8000", follow_redirects=False)
    for query in ("layer=1&token=2%2C3&token=secret", "token=secret&layer=1&token=2%2C3"):
        for _ in range(2):  # without the cookie, and with it
            assert client.get(f"/?{query}").headers["location"] == "/?layer=1&token=2%2C3"
        assert client.get("/?layer=1&token=2%2C3").status_code == 200
        client.cookies.clear()
        assert client.get("/?layer=1&token=2%2C3").status_code == 403


def test_cookies_of_other_servers_do_not_hide_the_token():
    guard = application(Echo(), None, "secret")
    client = TestClient(guard, "http://box:8000")
    for foreign in ('prefs={"a": 1}', "a[]=1", "=", "x=\xe9"):
        for cookies in (f"{foreign}; {guard.cookie}=secret", f"{guard.cookie}=secret; {foreign}"):
            assert client.get("/", headers={"cookie": cookies.encode("latin-1")}).status_code == 200, cookies


def test_errors_are_said_and_the_server_goes_on(client):
    assert client.get("/api/bad").json() == {"error": "no picture <b>x</b>"}
    assert client.get("/api/bad").status_code == 400
    assert client.get("/api/bug").status_code == 500
    assert "content-security-policy" in client.get("/api/bug").headers
    assert "ZeroDivisionError" in client.get("/api/bug").json()["error"]
    assert client.post("/api/echo", content='{"a": [1]}').json() == {"a": [1]}


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b'{"a": 1, "a": 2}', b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(client, body):
    answer = client.post("/api/echo", content=body)
    assert answer.status_code == 400 and "request" in answer.json()["error"]


def test_a_body_that_is_too_large_is_refused(client):
    assert client.post("/api/size", content=b"x" * 1000).json() == {"size": 1000}
    assert "1,000 bytes" in client.post("/api/size", content=b"x" * 1001).json()["error"]


def test_names_that_are_no_utf8_survive_the_wire():
    assert json_response({"name": "a\udcff.png"}).body == b'{"name": "a\\udcff.png"}'
    with pytest.raises(ValueError, match="JSON compliant"):
        json_response({"iou": float("nan")})


def test_answers_are_made_one_at_a_time():
    page = Echo()
    with TestClient(application(page), LOCAL) as client:
        threads = [threading.Thread(target=client.get, args=("/api/slow",)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert page.most == 1


class Connection:
    """A request whose tab may be closed."""

    def __init__(self, gone=False):
        self.gone = gone

    async def is_disconnected(self):
        return self.gone


def test_a_closed_tab_is_skipped_and_an_overlong_queue_refused():
    async def ask():
        turns, made = Turns(), []
        first = [turns.call(Connection(gone=place == 1), made.append, place) for place in range(MOST_WAITING)]
        waiting = [asyncio.ensure_future(each) for each in first]
        await asyncio.sleep(0)
        with pytest.raises(server.HTTPException, match="try again"):
            await turns.call(Connection(), made.append, -1)
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(ended[1], server.HTTPException)
        await turns.call(Connection(), made.append, -2)
        return made

    assert asyncio.run(ask()) == [0, *range(2, MOST_WAITING), -2]


class Endless(Echo):
    """A page whose answers take longer than anybody waits."""

    async def slow(self, request):
        return PlainTextResponse(await self.turns.call(request, lambda: os.write(1, b"begun\n") and time.sleep(600)))


def serve_endless():
    server.ENDING = 0
    server.serve(Endless(), "127.0.0.1", 0)


@pytest.mark.slow
def test_the_end_does_not_wait_for_an_answer(tmp_path):
    with started(serve_endless, cwd=tmp_path) as program:
        address = said(program, "http").split()[0]
        with socket.create_connection(("127.0.0.1", int(address.rstrip("/").rpartition(":")[2]))) as tab:
            tab.sendall(b"GET /api/slow HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            said(program, "begun")
            program.signal(signal.SIGINT)
            begin = time.monotonic()
            ended = program.wait(30)
            answer = tab.recv(1 << 16)
    assert time.monotonic() - begin < 15
    assert (ended.code, "Traceback" in ended.err) == (0, False), ended.err
    assert answer.startswith(b"HTTP/1.1 503") and b"the server ends" in answer


def said(program, word):
    """The line of a program's output that has a word, once it is there."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for line in program.printed().splitlines():
            if word in line:
                return line
        time.sleep(0.02)
    raise AssertionError(program.printed())


def test_a_tab_that_is_closed_while_it_sends_is_no_failure():
    async def receive():
        return {"type": "http.disconnect"}

    with pytest.raises(server.HTTPException) as refusal:
        asyncio.run(read_body(Request({"type": "http", "method": "POST"}, receive)))
    assert refusal.value.status_code == GONE


def test_a_port_that_is_taken_is_said():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"cannot listen on 127.0.0.1, port {port}: .*--port"):
            listening("127.0.0.1", port)
    with pytest.raises(InputError, match="cannot listen on nowhere.invalid"):
        listening("nowhere.invalid", 0)


@pytest.mark.parametrize(("host", "refused"), [("127.0.0.1", 200), ("0.0.0.0", 403)])
def test_the_address_that_is_printed_opens_the_page(monkeypatch, capsys, host, refused):
    """And no other, where other machines can reach it."""
    seen = []

    def run(self, sockets):
        seen.append(self.config.app)
        raise KeyboardInterrupt  # as Ctrl-C, which is how it ends

    monkeypatch.setattr(server.uvicorn.Server, "run", run)
    server.serve(Echo(), host, 0)
    address = capsys.readouterr().out.split()[0]
    client = TestClient(seen[0], address.partition("?")[0])
    assert address.startswith(f"http://{host}:") and client.get("/").status_code == refused
    assert client.get(address).status_code == 200


def test_which_hosts_only_this_machine_reaches():
    assert all(map(is_loopback, ("127.0.0.1", "127.8.9.1", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.4", "example.org", "")))
