"""The ways out of a box: what of the network and of the tool API is reached from inside."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.acceptance.scenes import PYTHON, Scene

pytestmark = pytest.mark.skipif(not os.path.exists(PYTHON), reason="needs a Python in /usr/bin")


# -- the ways out --


class Remembers(BaseHTTPRequestHandler):
    """Answers every request with its path, and remembers it."""

    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        while self.headers.get("Transfer-Encoding") == "chunked" and (size := int(self.rfile.readline(), 16)):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.server.seen.append((self.command, self.path, dict(self.headers), body))  # type: ignore[attr-defined]
        said = f"{self.command} {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_POST = _any

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[Any]:
    """A server on the host's loopback."""
    made = ThreadingHTTPServer(("127.0.0.1", 0), Remembers)
    made.seen = []  # type: ignore[attr-defined]
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


FETCH = """
import http.client, json, os, sys, urllib.request, urllib.error
answers = {}
for url in sys.argv[1:]:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            answers[url] = [answer.status, answer.read().decode()]
    except urllib.error.HTTPError as error:
        answers[url] = [error.code, error.read().decode()]
    except OSError as error:
        answers[url] = [0, str(error)]
print(json.dumps(answers))
"""


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch, server: Any) -> None:
    """`registry.test` and `rebound.test` are this machine, as a hostile name server could say."""
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *words: Any, **more: Any) -> Any:
        return real("127.0.0.1" if str(host).endswith(".test") else host, port, *words, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def test_the_network_is_what_the_gate_says_and_never_a_private_address(alone: Scene, server: Any, names: None) -> None:
    port = server.server_address[1]
    good, other = f"http://registry.test:{port}/simple/", f"http://rebound.test:{port}/"
    private = ["http://127.0.0.2:80/", "http://10.1.2.3/", "http://169.254.169.254/latest/", "http://[::1]:80/",
               "http://0x7f.1/", "http://[::ffff:127.0.0.1]/", "http://100.64.0.1/", "http://0.0.0.0/"]  # fmt: skip
    allow = [f"registry.test:{port}"]

    none = alone.python(FETCH, good, allow=allow)
    assert none[good][0] == 0 and server.seen == []

    listed = alone.python(FETCH, good, other, network=[f"registry.test:{port}"], allow=allow)
    assert listed[good] == [200, "GET /simple/"]
    assert listed[other] == [403, f"rebound.test:{port} is not among what this run may reach\n"]

    opened = alone.python(FETCH, good, other, *private, network=["open"], allow=allow)
    assert opened[good] == [200, "GET /simple/"]
    assert (
        opened[other][0] == 403 and "127.0.0.1, a loopback address: only the owner can allow that" in opened[other][1]
    )
    assert {opened[url][0] for url in private} == {403}
    assert [seen[1] for seen in server.seen] == ["/simple/", "/simple/"]


def test_a_refusal_is_said_once_in_the_log_and_a_tunnel_carries_bytes(alone: Scene, server: Any, names: None) -> None:
    port = server.server_address[1]
    tunnel = (
        "import http.client, sys\n"
        "for host in ('rebound.test', 'rebound.test', 'registry.test'):\n"
        "    one = http.client.HTTPConnection('127.0.0.1', 3128, timeout=20)\n"
        f"    one.set_tunnel(host, {port})\n"
        "    try:\n        one.request('GET', '/wheel'); print(one.getresponse().read().decode())\n"
        "    except OSError as error: print(error)\n"
    )
    step = {"name": "gate", "argv": [PYTHON, "-I", "-S", "-c", tunnel], "network": ["open"]}
    told = alone.run(alone.spec(step, allow=[f"registry.test:{port}"]))
    output = told["results"][0]["output"]
    assert output.count("Tunnel connection failed: 403") == 2 and output.endswith("GET /wheel\n")
    assert len([line for line in told["said"] if "rebound.test" in line]) == 1


RAW = """
import json, os, socket, sys, urllib.parse
port = urllib.parse.urlsplit(os.environ["GASTOWN_URL"]).port
answers = []
for request in json.loads(sys.argv[1]):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as one:
        one.sendall(request.encode("latin-1"))
        data = b""
        while more := one.recv(65536):
            data += more
    answers.append([data.split(b" ")[1].decode(), data.partition(b"\\r\\n\\r\\n")[2].decode()])
print(json.dumps(answers))
"""


def test_the_tool_api_is_the_only_part_of_the_server_that_is_reached(alone: Scene, server: Any) -> None:
    url = f"http://127.0.0.1:{server.server_address[1]}"
    refused = ["/", "/admin/", "/api/runs/run-2/exit", "/api/v1/", "/metrics", "/api/tools/../../admin/", "//admin/",
               "/api/tools/%2e%2e/admin/", "/api/tools/gt_done/../../runs/x/exit", "/mcp/../admin/", "/model/../admin/",
               "/api/tools\\..\\admin", "http://127.0.0.1/admin/", "/accounts/login/?next=/api/tools"]  # fmt: skip
    requests = [f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n" for path in refused]
    twice = "GET /api/tools HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer t\r\nCookie: sessionid=1\r\n"
    twice += "X-Forwarded-For: 1.2.3.4\r\nREMOTE_USER: root\r\n\r\nGET /admin/ HTTP/1.1\r\nHost: x\r\n\r\n"
    chunks = "POST /api/tools/gt_done HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\n{}\r\n0\r\n\r\n"
    chunks += "GET /admin/ HTTP/1.1\r\n\r\n"
    hidden = (
        "POST /api/tools/gt_done HTTP/1.1\r\nConnection: close\r\nConnection: Content-Length, transfer-encoding\r\n"
    )
    hidden += "Content-Length: 43\r\n\r\nGET /admin/hidden HTTP/1.1\r\nHost: x....\r\n\r\n"
    both = "POST /api/tools/x HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"
    odd = "GET /api/tools HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n"
    long = f"GET /api/tools HTTP/1.1\r\nX: {'x' * 100_000}\r\n\r\n"
    fine = ["GET /api/schema/ HTTP/1.1\r\n\r\n", "POST /mcp HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
            "POST /model/v1/messages?beta=true HTTP/1.1\r\n\r\n"]  # fmt: skip
    answers = alone.python(RAW, json.dumps([*requests, twice, chunks, hidden, both, odd, long, *fine]), tools=url)
    assert [status for status, _ in answers[: len(refused)]] == ["403"] * len(refused)
    assert json.loads(answers[0][1])["error"]["code"] == "forbidden"
    assert [status for status, _ in answers[len(refused) :]] == [
        "200",
        "200",
        "200",
        "400",
        "400",
        "431",
        "200",
        "200",
        "200",
    ]
    seen = [(method, path, body) for method, path, _, body in server.seen]
    assert seen == [
        ("GET", "/api/tools", b""), ("POST", "/api/tools/gt_done", b"{}"),
        ("POST", "/api/tools/gt_done", hidden.partition("\r\n\r\n")[2].encode()), ("GET", "/api/schema/", b""),
        ("POST", "/mcp", b"{}"), ("POST", "/model/v1/messages?beta=true", b""),
    ]  # fmt: skip
    headers = server.seen[0][2]
    assert headers == {"Host": url.removeprefix("http://"), "Connection": "close", "Authorization": "Bearer t"}


def test_without_a_network_the_tool_api_is_there_and_nothing_else(alone: Scene, server: Any) -> None:
    url = f"http://127.0.0.1:{server.server_address[1]}"
    script = FETCH.replace("sys.argv[1:]", "[os.environ['GASTOWN_URL'] + '/api/tools', 'http://127.0.0.1:3128/']")
    answers = list(alone.python(script, tools=url).values())
    assert answers[0] == [200, "GET /api/tools"] and answers[1][0] == 0
