"""S16: the web process bears slow, greedy and many clients: real sockets against a real `web`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.test_installation import manage, until
from tests.acceptance.test_private import passable
from tests.ports import free_port
from tests.seed import environment, seed

ROOT = Path(__file__).parents[2]
PEOPLE = """
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from beads import ledger
ledger.create_town("main")
user = User.objects.create_superuser("olga", password="correct-horse-battery")
store = SessionStore()
store[SESSION_KEY], store[BACKEND_SESSION_KEY] = str(user.pk), "django.contrib.auth.backends.ModelBackend"
store[HASH_SESSION_KEY] = user.get_session_auth_hash()
store.create()
print("session", store.session_key)
"""


class Web:
    """A running `web`, and raw connections to it."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, free_port()
        self.opened: list[socket.socket] = []
        made = manage(home, "shell", "--verbosity", "0", "-c", PEOPLE)
        assert made.returncode == 0, made.stderr
        self.cookie = f"gastown_session={made.stdout.split()[-1]}"
        command = [sys.executable, str(ROOT / "manage.py"), "web", "--port", str(self.port)]
        self.log = home.parent / "web.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, env=environment(home), stdout=log, stderr=log)

        def answers() -> bool:
            with contextlib.suppress(OSError):
                return self.ask("GET", "/healthz")[0] == 200
            return False

        until(answers)

    def connect(self, first: bytes = b"") -> socket.socket:
        """A connection that has sent so much."""
        made = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        self.opened.append(made)
        made.sendall(first)
        return made

    def hang_up(self) -> None:
        """Close all that was opened."""
        while self.opened:
            self.opened.pop().close()

    def ask(self, method: str, path: str, body: bytes = b"", *headers: str) -> tuple[int, bytes]:
        """One whole request; status and body."""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        with self.connect("\r\n".join([*lines, "", ""]).encode() + body) as made:
            return answer(made)


def answer(made: socket.socket) -> tuple[int, bytes]:
    """All that comes until the end: status (0: none) and body."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := made.recv(65536):
            data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, body


@pytest.fixture(scope="module")
def served() -> Iterator[Web]:
    with passable() as place:
        home = place / "a home"
        home.mkdir()
        seed(home)
        made = Web(home)
        yield made
        made.process.send_signal(signal.SIGTERM)
        assert made.process.wait(30) in (0, -signal.SIGTERM), made.log.read_text()


@pytest.fixture
def web(served: Web) -> Iterator[Web]:
    """The one web process of these tests, without the connections of the test before."""
    yield served
    served.hang_up()


POST = (
    b"POST /api/tools/gt_prime HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 500\r\n"
)


def trickle(made: socket.socket, piece: bytes) -> None:
    """Send it again and again, until nobody listens any more."""
    with contextlib.suppress(OSError):
        while made.send(piece):
            time.sleep(0.5)  # the pace of the client that is played


@pytest.mark.long
def test_s16_half_sent_requests_are_closed_and_streams_and_the_others_live(web: Web) -> None:
    stream = web.connect(f"GET /events/main/ HTTP/1.1\r\nHost: localhost\r\nCookie: {web.cookie}\r\n\r\n".encode())
    seen = b""
    while b"data: " not in seen:
        seen += stream.recv(65536)
    assert b" 200 " in seen
    kept = web.connect(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b" 200 " in kept.recv(65536)
    slow = {
        "nothing": web.connect(),
        "half a head": web.connect(POST[:40]),
        "an endless head": web.connect(POST),
        "half a body": web.connect(POST + b"\r\n{"),
        "a dripping body": web.connect(POST + b"\r\n{"),
        "a chunk that does not come": web.connect(
            POST.replace(b"Content-Length: 500", b"Transfer-Encoding: chunked") + b"\r\n5\r\nab"
        ),
    }
    began = time.monotonic()
    for name, piece in (("an endless head", b"X-A: b\r\n"), ("a dripping body", b" ")):
        threading.Thread(target=trickle, args=(slow[name], piece), daemon=True).start()
    ends = {}
    for name, made in slow.items():
        ends[name] = answer(made)[0]
        assert 8 < time.monotonic() - began < 25, name
        assert web.ask("GET", "/healthz")[0] == 200  # the others are served meanwhile
    assert ends.pop("nothing") == 0
    assert set(ends.values()) == {408}, ends
    left = b""
    while piece := kept.recv(65536):
        left += piece
    assert b"HTTP" not in left  # kept alive for a while, then closed without a word
    stream.settimeout(30)
    manage(web.home, "town", "create", "other")  # a change of another town says nothing; the keep-alive does
    assert stream.recv(65536)  # still there after all the clocks have run out
    stream.close()


@pytest.mark.long
def test_s16_a_body_at_a_fair_rate_may_take_longer_than_the_grace(web: Web) -> None:
    body = json.dumps({"a": "x" * 60_000}).encode()
    head = POST.replace(b"500", str(len(body)).encode()) + b"\r\n"
    with web.connect(head) as made:
        began = time.monotonic()
        for start in range(0, len(body), 5000):
            made.sendall(body[start : start + 5000])
            time.sleep(1.0)  # 5 kB a second: a slow line
        assert time.monotonic() - began > 10
        made.shutdown(socket.SHUT_WR)
        assert answer(made)[0] == 401


def test_s16_a_large_body_is_refused_before_it_is_read(web: Web) -> None:
    head = POST.replace(b"500", b"999999999999")
    with web.connect(head + b"\r\n" + b"{" * 1000) as made:
        data = b""
        while b"too_large" not in data:
            data += made.recv(65536)
        assert b" 413 " in data
    status, said = web.ask("POST", "/api/tools/gt_prime", b"x" * (5 << 20))
    assert (status, json.loads(said)["error"]["code"]) == (413, "too_large")
    pieces = b"".join(b"100000\r\n" + b"x" * (1 << 20) + b"\r\n" for _ in range(5)) + b"0\r\n\r\n"
    chunked = POST.replace(b"Content-Length: 500", b"Transfer-Encoding: chunked\r\nConnection: close") + b"\r\n"
    with web.connect(chunked + pieces) as made:
        assert answer(made)[0] == 413
    assert web.ask("POST", "/git/run-1/git-receive-pack", b"x" * (5 << 20))[0] == 413  # nobody's, without credentials


def test_s16_metrics_and_readiness_have_a_token_of_their_own(web: Web) -> None:
    file = web.home / "keys" / "metrics_token"
    assert file.stat().st_mode & 0o777 == 0o600
    assert web.ask("GET", "/metrics", b"", f"Authorization: Bearer {file.read_text().strip()}")[0] == 200
    assert web.ask("GET", "/readyz", b"", f"Authorization: Bearer {file.read_text().strip()}")[0] in (200, 503)
    assert web.ask("GET", "/metrics", b"", "Authorization: Bearer wrong")[0] == 401
    assert str(file) in manage(web.home, "doctor").stdout


def login(web: Web, name: str, password: str, **headers: str) -> tuple[int, bytes]:
    """The login form as a browser sends it."""
    with web.connect(b"GET /accounts/login/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n") as made:
        data = b""
        while piece := made.recv(65536):
            data += piece
    token = data.partition(b'name="csrfmiddlewaretoken" value="')[2].partition(b'"')[0].decode()
    cookie = data.partition(b"csrftoken=")[2].partition(b";")[0].decode()
    more = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    body = f"csrfmiddlewaretoken={token}&username={name}&password={password}".encode()
    kind = "Content-Type: application/x-www-form-urlencoded"
    return web.ask("POST", "/accounts/login/", body, kind, f"Cookie: csrftoken={cookie}", *more)


def spent(web: Web) -> float:
    """Processor seconds of the web process so far."""
    words = Path(f"/proc/{web.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.long
def test_s6_sixty_wrong_logins_lock_out_cost_little_and_a_forged_address_does_not_help(web: Web) -> None:
    first = spent(web)
    assert login(web, "olga", "wrong")[0] == 200
    one = spent(web) - first
    found: list[int] = []

    def guess(number: int) -> None:
        forged = {"X_Forwarded_For": f"203.0.113.{number}", "X_Forwarded_Proto": "https"}
        found.append(login(web, "olga", "wrong", **forged)[0])

    began = spent(web)
    threads = [threading.Thread(target=guess, args=(n,)) for n in range(59)]  # all at once
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cost = spent(web) - began
    assert sorted(found) == [200] * 3 + [429] * 56
    assert cost < 59 * one / 2, f"{cost:.1f} s for 59, {one:.2f} s for one"
    status, page = login(web, "olga", "correct-horse-battery")
    assert status == 429 and b"for another 15 minutes" in page and b"gastown person unlock" in page
    (olga,) = json.loads(manage(web.home, "person", "list", "--json").stdout)["data"]
    assert olga["locked_until"]
    assert manage(web.home, "person", "unlock", "olga").returncode == 0
    assert login(web, "olga", "correct-horse-battery")[0] == 302


@pytest.mark.long
def test_s16_too_many_connections_are_turned_away_and_those_that_are_there_go_on(web: Web) -> None:
    command = ["prlimit", "--pid", str(web.process.pid), "--nofile"]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no prlimit here")
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 3400
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip("this machine lets nobody open so many files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    made: list[Any] = []
    try:
        statuses: Any = None
        for _ in range(3200):
            made.append(web.connect())
        until(lambda: answer(web.connect())[0] == 503, 9)  # before the clock frees their places
        statuses = answer(made[-1])[0]
        assert statuses == 503
    finally:
        web.hang_up()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    until(lambda: web.ask("GET", "/healthz")[0] == 200)
