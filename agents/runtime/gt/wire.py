"""How `gt` asks the server."""

from __future__ import annotations

import json
import os
import time

TYPE_CHECKING = False  # the module that has it takes as long to import as all of this
if TYPE_CHECKING:
    from typing import Any

    Tool = dict[str, Any]  # of the table: name, words, roles, reads, doc, args, text

TRY_SECONDS = 20.0  # a server that is being restarted is waited for so long
ANSWER_SECONDS = 120.0


class Failed(Exception):
    """It was refused, or the server cannot be asked: exit code 1. `raw`: the server's answer, if there is one."""

    def __init__(self, sentence: str, raw: str = "") -> None:
        super().__init__(sentence)
        self.raw = raw


def place(url: str) -> tuple[bool, str, int, str, str]:
    """A URL's (secure, host, port, path before ours, what the Host header says)."""
    scheme, _, rest = url.partition("://")
    where, slash, path = rest.partition("/")
    where = where.rpartition("@")[2]
    host, port = where, ""
    if where.startswith("["):
        host, _, port = where[1:].partition("]")
        port = port.lstrip(":")
    elif ":" in where:
        host, _, port = where.partition(":")
    usual = {"https": 443}.get(scheme, 80)
    return scheme == "https", host, int(port or usual), (slash + path).rstrip("/"), where


def post(path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    """One POST; returns (status, answer). Raises OSError when the server cannot be asked."""
    import socket

    url = os.environ.get("GASTOWN_URL", "")
    if not url or not os.environ.get("GASTOWN_TOKEN"):
        raise Failed("GASTOWN_URL and GASTOWN_TOKEN are not set: gt works inside a run of Gastown")
    secure, host, port, before, named = place(url)
    lines = [f"POST {before}{path} HTTP/1.1", f"Host: {named}", "Connection: close", "Content-Type: application/json"]
    lines += [f"Authorization: Bearer {os.environ['GASTOWN_TOKEN']}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    with socket.create_connection((host, port), timeout=ANSWER_SECONDS) as plain:
        wire = plain
        if secure:
            import ssl

            wire = ssl.create_default_context().wrap_socket(plain, server_hostname=host)
        with wire:
            wire.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
            parts = []
            while True:
                data = wire.recv(65536)
                if not data:
                    break
                parts.append(data)
    return answer_of(b"".join(parts))


def answer_of(raw: bytes) -> tuple[int, bytes]:
    """The status and the body of an HTTP answer. Raises OSError for half of one."""
    head, end, body = raw.partition(b"\r\n\r\n")
    words = head.split(b"\r\n")[0].split(b" ")
    if not end or len(words) < 2 or not words[1].isdigit():
        raise OSError("the server's answer has no end")
    fields = {}
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        fields[name.strip().lower()] = value.strip()
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        chunks, rest = [], body
        while True:
            size, _, rest = rest.partition(b"\r\n")
            length = int(size.split(b";")[0] or b"0", 16)
            if not length:
                break
            chunks.append(rest[:length])
            rest = rest[length + 2 :]
        body = b"".join(chunks)
    elif len(body) < int(fields.get(b"content-length") or 0):
        raise OSError("the server's answer has no end")
    return int(words[1]), body


def insisted(path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    """The same, again while the server is away: it may be restarted under us. Raises Failed."""
    end, wait = time.monotonic() + TRY_SECONDS, 0.2
    while True:
        try:
            status, answer = post(path, body, headers)
            if status not in (502, 503):
                return status, answer
            why = f"it answers {status}"
        except OSError as error:
            status, answer, why = 0, b"", str(error)
        if time.monotonic() + wait > end:
            if status:
                return status, answer
            raise Failed(f"the server cannot be reached: {why}")
        time.sleep(wait)
        wait = min(wait * 2, 2.0)


def call(tool: Tool, arguments: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Call a tool; returns (its data, the raw answer). Raises Failed with the server's sentence."""
    headers = {}
    if not tool["reads"]:
        headers["Idempotency-Key"] = os.urandom(12).hex()
    status, body = insisted(f"/api/tools/{tool['name']}", json.dumps(arguments).encode(), headers)
    raw = body.decode("utf-8", "replace")
    try:
        answer = json.loads(raw)
        if answer["ok"]:
            data: dict[str, Any] = answer["data"]
            return data, raw
        sentence = str(answer["error"]["message"])
    except (ValueError, KeyError, TypeError):
        sentence = f"the server answers {status}, and nothing that can be read"
    raise Failed(sentence, raw)
