"""The model door where the server itself has a proxy: what goes through it, what does not, and what is refused."""

from __future__ import annotations

import select
import shutil
import socket
import ssl
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agents.model_door import upstream
from beads import config as configs
from beads import ledger
from tests.acceptance import modeldesk
from tests.acceptance.modeldesk import Desk
from tests.acceptance.provider import KEY, Provider

desk, provider, site = modeldesk.desk, modeldesk.provider, modeldesk.site
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


class Proxy(ThreadingHTTPServer):
    """A proxy that knows one name, `models.test`, and refuses all else. `asked`: for which places, with whose word."""

    daemon_threads = True

    def __init__(self, to: int) -> None:
        super().__init__(("127.0.0.1", 0), Tunnel)
        self.to = to
        self.asked: list[tuple[str, str]] = []
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class Tunnel(BaseHTTPRequestHandler):
    server: Proxy

    def log_message(self, format: str, *args: Any) -> None: ...

    def do_CONNECT(self) -> None:
        self.server.asked.append((self.path, self.headers.get("proxy-authorization", "")))
        if not self.path.startswith("models.test:"):
            self.send_error(403, "Not from here")
            return
        with socket.create_connection(("127.0.0.1", self.server.to)) as there:
            self.send_response(200)
            self.end_headers()
            pairs = {self.connection: there, there: self.connection}
            while True:
                for one in select.select(list(pairs), [], [])[0]:
                    data = one.recv(65536)
                    if not data:
                        self.close_connection = True
                        return
                    pairs[one].sendall(data)


@pytest.fixture
def proxy(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The server's proxy, for https and http alike."""
    made = Proxy(provider.port)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # for the agent's own calls
    monkeypatch.setattr(urllib.request, "_opener", direct)
    monkeypatch.setenv("HTTPS_PROXY", f"http://ann:pass-word@{made.place}")
    monkeypatch.setenv("HTTP_PROXY", f"http://{made.place}")
    yield made
    made.shutdown()
    made.server_close()


def served_by_https(provider: Provider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider speaks TLS from now on, as `models.test`, and the server trusts it."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl here, which makes the certificate")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=models.test"]
    command += ["-addext", "subjectAltName=DNS:models.test", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    provider.socket = context.wrap_socket(provider.socket, server_side=True)
    monkeypatch.setattr(upstream, "_trust", lambda: ssl.create_default_context(cafile=str(cert)))


def move(desk: Desk, base_url: str) -> None:
    """The town names this address for Anthropic's API; empty: none."""
    told = desk.town.config | configs.validate({"providers": {"anthropic": {"base_url": base_url}}})
    ledger.set_config(desk.town, told)


def test_a_name_goes_to_the_proxy_and_the_certificate_is_the_hosts(
    desk: Desk, provider: Provider, proxy: Proxy, tmp_path: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server cannot resolve `models.test`; the owner has named it, and the proxy knows it."""
    served_by_https(provider, tmp_path, monkeypatch)
    Path(settings.GASTOWN_OWNER_CONFIG).write_text('[allow]\nnetworks = ["models.test"]\n')
    move(desk, "https://models.test")
    status, _, body = desk.ask("messages")
    assert status == 200 and b"usage" in body
    assert [place for place, _ in proxy.asked] == ["models.test:443"] and proxy.asked[0][1].startswith("Basic ")
    assert provider.books.keys == [KEY]
    assert desk.settled(1).input == provider.books.input

    monkeypatch.setenv("NO_PROXY", "example.org,models.test")
    status, told, _ = desk.refused("messages")
    assert status == 502 and "models.test is not known" in told["error"]["message"]
    assert len(proxy.asked) == 1


def test_a_neighbours_address_is_reached_without_the_proxy(desk: Desk, provider: Provider, proxy: Proxy) -> None:
    assert desk.ask("messages")[0] == 200
    assert proxy.asked == [] and provider.books.calls == 1


def test_a_host_that_only_a_town_names_must_be_seen_to_be_public_from_here(desk: Desk, proxy: Proxy) -> None:
    """What the proxy would make of the name is unknown, which is never fine: the key is not sent."""
    move(desk, "https://models.test")
    status, told, _ = desk.refused("messages")
    assert status == 502 and "models.test is not known" in told["error"]["message"]
    assert proxy.asked == []


def test_a_proxy_that_refuses_is_named_without_its_password(desk: Desk, proxy: Proxy) -> None:
    """The provider's own address is the proxy's to resolve."""
    move(desk, "")
    status, told, _ = desk.refused("messages")
    said = told["error"]["message"]
    assert proxy.asked and proxy.asked[0][0] == "api.anthropic.com:443"
    assert status == 502 and f"through the server's proxy http://{proxy.place} cannot be reached: 403" in said
    assert "pass-word" not in said


def test_a_proxy_of_another_kind_is_refused_in_words(desk: Desk, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1080")
    move(desk, "")
    status, told, _ = desk.refused("messages")
    assert status == 502 and "the server's proxy socks5://127.0.0.1:1080 is none for HTTP" in told["error"]["message"]
