"""Doors of a box, served out here: each connection carries one HTTP request, which is read strictly and made anew.

Standard library only: the shim imports it. `ToolRelay` passes on what an agent may ask of the server, and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

MOST_CONNECTIONS = 128
HEAD = 64 << 10
HEAD_SECONDS = 30.0
CONNECT_SECONDS = 30.0
IDLE_SECONDS = 900.0
Say = Callable[[str], None]


class Refusal(Exception):
    """A request that is not passed on: the answer's status and one sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


@dataclass
class Head:
    """The head of a request, checked. Header names are as they came."""

    method: str
    target: str
    headers: list[tuple[str, str]]

    def first(self, name: str) -> str:
        """A header's value, or an empty string."""
        return next((value for key, value in self.headers if key.lower() == name), "")

    def length(self) -> int | None:
        """How long the body is; None: in chunks. Raises Refusal for what could be read in two ways."""
        lengths = {value for key, value in self.headers if key.lower() == "content-length"}
        coding = [value.lower() for key, value in self.headers if key.lower() == "transfer-encoding"]
        if coding:
            if coding != ["chunked"] or lengths:
                raise Refusal(400, "the length of the request's body is not clear")
            return None
        if len(lengths) > 1 or not all(re.fullmatch(r"\d{1,15}", value) for value in lengths):
            raise Refusal(400, "the length of the request's body is not clear")
        if lengths:
            return int(lengths.pop())
        return 0


_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TARGET = re.compile(r"[!-~]+")
_FRAMING = {"content-length", "transfer-encoding"}
_HOP = {
    "connection", "keep-alive", "proxy-connection", "proxy-authorization", "proxy-authenticate", "te", "trailer",
    "upgrade", "expect", "host", "http2-settings",
}  # fmt: skip


def read_head(stream: BinaryIO) -> Head:
    """The head of a request. Raises Refusal for one that is malformed or too long, OSError when it does not come."""
    left = HEAD
    lines: list[str] = []
    while True:
        raw = stream.readline(left + 1)
        left -= len(raw)
        if left < 0:
            raise Refusal(431, "the head of the request is too long")
        if not raw.endswith(b"\n"):
            raise ConnectionResetError("the request has no end")
        line = raw.rstrip(b"\r\n").decode("latin-1")
        if not line and lines:
            break
        if line:
            lines.append(line)
    words = lines[0].split(" ")
    if len(words) != 3 or not _TOKEN.fullmatch(words[0]) or not _TARGET.fullmatch(words[1]):
        raise Refusal(400, "this is no HTTP request")
    if words[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise Refusal(505, "only HTTP/1.1 is spoken here")
    headers = []
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name) or any(ord(c) < 32 and c != "\t" for c in value):
            raise Refusal(400, "a header of the request is malformed")
        headers.append((name, value.strip()))
    return Head(words[0], words[1], headers)


class Door:
    """A listening socket, served by threads of ours until it is closed. Each connection carries one request."""

    what = "door"

    def __init__(self, listener: socket.socket, say: Say) -> None:
        self.listener, self._say = listener, say
        self._slots = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._said: set[str] = set()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        listener.settimeout(None)
        threading.Thread(target=self._accept, daemon=True, name=self.what).start()

    def close(self) -> None:
        """Stop listening, and cut the connections that are open."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if not self._slots.acquire(blocking=False):
                with contextlib.suppress(OSError):
                    self._answer(client, 503, f"more than {MOST_CONNECTIONS} connections at once")
                client.close()
                continue
            try:
                threading.Thread(target=self._one, args=(client,), daemon=True).start()
            except RuntimeError:  # no more threads
                self._slots.release()
                client.close()

    def _one(self, client: socket.socket) -> None:
        with self._lock:
            self._open.add(client)
        try:
            client.settimeout(HEAD_SECONDS)
            with client.makefile("rb") as stream:
                head = read_head(stream)
                client.settimeout(IDLE_SECONDS)
                self.serve(head, stream, client)
        except Refusal as refusal:
            self.tell(f"{self.what}: {refusal.sentence}")
            with contextlib.suppress(OSError):
                self._answer(client, refusal.status, refusal.sentence)
        except (OSError, ValueError):
            pass
        finally:
            with self._lock:
                self._open.discard(client)
            client.close()
            self._slots.release()

    def serve(self, head: Head, stream: BinaryIO, client: socket.socket) -> None:
        """Answer one request. Raises Refusal."""
        raise NotImplementedError

    def tell(self, sentence: str) -> None:
        """Write a sentence into the run's log, the same one only once, and at most 100 different ones."""
        with self._lock:
            if sentence in self._said or len(self._said) >= 100:
                return
            self._said.add(sentence)
        self._say(sentence)

    def _answer(self, client: socket.socket, status: int, sentence: str) -> None:
        body, kind = self.body(status, sentence)
        head = f"HTTP/1.1 {status} Refused\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        client.settimeout(5.0)
        client.sendall(head.encode() + b"Connection: close\r\n\r\n" + body)
        with contextlib.suppress(OSError):  # what the client still sends must not reset the answer
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass

    def body(self, status: int, sentence: str) -> tuple[bytes, str]:
        """A refusal as a response's body, and the body's content type."""
        return f"{sentence}\n".encode(), "text/plain; charset=utf-8"


@dataclass(frozen=True)
class Onward:
    """Where a request goes on to. `extra`: more header lines, each with its line end."""

    target: str
    host: str
    extra: str = ""


def pass_on(head: Head, stream: BinaryIO, client: socket.socket, server: socket.socket, onward: Onward) -> None:
    """Send the request as one of ours, and the answer back as it comes; then both connections are at their end."""
    length = head.length()
    lines = [f"{head.method} {onward.target} HTTP/1.1", f"Host: {onward.host}", "Connection: close"]
    told = (value for key, value in head.headers if key.lower() == "connection")
    # what says where the body ends goes on whatever the client calls it: else its body would be read as a request
    named = {word.strip().lower() for value in told for word in value.split(",")} - _FRAMING
    lines += [f"{k}: {v}" for k, v in head.headers if k.lower() not in _HOP and k.lower() not in named]
    server.sendall("\r\n".join(lines).encode("latin-1") + f"\r\n{onward.extra}\r\n".encode("latin-1"))
    if head.first("expect").lower() == "100-continue":
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    up = threading.Thread(target=_send_body, args=(stream, server, length), daemon=True)
    up.start()  # an answer may come before the body is through
    try:
        while data := server.recv(65536):
            client.sendall(data)
    finally:
        for one in (client, server):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        up.join(5.0)


def _send_body(stream: BinaryIO, server: socket.socket, length: int | None) -> None:
    """The body and nothing behind it. Chunks are made anew."""
    try:
        if length is not None:
            _copy(stream, server, length)
            return
        while True:
            told = stream.readline(1024).split(b";")[0].strip()
            if not re.fullmatch(rb"[0-9A-Fa-f]{1,15}", told):  # `int` reads more than a server does: -5, 0x5, 1_0
                raise ValueError("this is no size of a chunk")
            size = int(told, 16)
            server.sendall(f"{size:x}\r\n".encode())
            if size == 0:
                break
            _copy(stream, server, size)
            stream.readline(8)
            server.sendall(b"\r\n")
        server.sendall(b"\r\n")
    except (OSError, ValueError):
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


def _copy(stream: BinaryIO, server: socket.socket, length: int) -> None:
    while length > 0:
        data = stream.read1(min(length, 65536))  # type: ignore[attr-defined]
        if not data:
            raise ConnectionResetError("the body has no end")
        server.sendall(data)
        length -= len(data)


_TOOL_PATH = re.compile(r"/api/tools(/[A-Za-z0-9_.-]*/?)?|/api/schema/?|/mcp/?|/model(/[A-Za-z0-9_.:@/-]*)?")
_NEVER = {"cookie", "forwarded", "x-real-ip", "x-http-method-override", "remote-user"}


def _spoofs(name: str) -> bool:
    """True for a header by which a request would pretend to be somebody or come from somewhere."""
    return name in _NEVER or name.startswith("x-forwarded") or "_" in name


class ToolRelay(Door):
    """Tools, their schema, MCP and the model door of the server at `url`; everything else of it is out of reach."""

    what = "tool API"

    def __init__(self, listener: socket.socket, url: str, say: Say) -> None:
        self.url = urllib.parse.urlsplit(url)
        super().__init__(listener, say)

    def serve(self, head: Head, stream: BinaryIO, client: socket.socket) -> None:
        """Forward a request for tools, MCP or models to the server, and its answer back. Raises Refusal for any other
        path, and when the server cannot be reached."""
        path, _, query = head.target.partition("?")
        dots = {".", ".."} & set(path.split("/"))
        if not _TOOL_PATH.fullmatch(path) or dots or "//" in path:
            raise Refusal(
                403, f"{head.method} {path[:200]} cannot be reached from inside: only /api/tools, /mcp, /model"
            )
        host, port = self.url.hostname or "localhost", self.url.port
        secure = self.url.scheme == "https"
        head.headers = [(k, v) for k, v in head.headers if not _spoofs(k.lower())]
        if port is None:
            port = {"https": 443}.get(self.url.scheme, 80)
        try:
            server = socket.create_connection((host, port), timeout=CONNECT_SECONDS)
        except OSError as error:
            raise Refusal(502, f"the server cannot be reached: {error}") from error
        with server:
            server.settimeout(IDLE_SECONDS)
            wire = server
            if secure:
                wire = ssl.create_default_context().wrap_socket(server, server_hostname=host)
            with wire:
                target = self.url.path.rstrip("/") + path
                if query:
                    target += f"?{query}"
                pass_on(head, stream, client, wire, Onward(target, self.url.netloc.rpartition("@")[2]))

    def body(self, status: int, sentence: str) -> tuple[bytes, str]:
        """The API's envelope."""
        code = {403: "forbidden", 502: "unavailable", 503: "unavailable"}.get(status, "invalid")
        text = json.dumps({"ok": False, "error": {"code": code, "message": sentence, "details": {}}})
        return text.encode(), "application/json"
