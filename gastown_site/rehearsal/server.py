"""The HTTP server around a play: answers, streams, refuses on demand, and keeps books of every request."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from gastown_site.rehearsal.dialects import Dialect, dialect_of
from gastown_site.rehearsal.plays import PLAYS, Play
from gastown_site.rehearsal.talk import Asked, Tokens


@dataclass(frozen=True)
class Booked:
    """One request in the books. `status` 200: answered, and charged with `tokens`. `key`: what the caller showed."""

    dialect: str
    model: str
    status: int
    tokens: Tokens
    stream: bool
    key: str
    tools: tuple[str, ...]
    earlier: int = 0  # prompts of runs before this one, in a session that goes on


class ModelServer:
    """`with ModelServer("work", host=…) as model: model.url`.

    `trace`: a folder that gets every request and answer; `name`: what its answers call the model, else as it was asked.
    """

    def __init__(
        self,
        play: Play | str = "work",
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        trace: Path | None = None,
        name: str = "",
    ) -> None:
        self.name = name
        self.play: Play = PLAYS[play] if isinstance(play, str) else play
        self.books: list[Booked] = []
        self.strays: list[str] = []  # requests for what is not there
        self.keys: set[str] = set()  # keys that are good; empty: all are
        self.models: set[str] = set()  # models that exist; empty: all do
        self.trace = trace
        self._refusals: deque[int] = deque()
        self._lock = threading.Lock()
        outer = self

        class Handler(_Handler):
            """Knows its server."""

            model = outer

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Its address, without a path."""
        return f"http://{self._server.server_address[0]!s}:{self.port}"

    def __enter__(self) -> ModelServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """No more answers."""
        self._server.shutdown()
        self._server.server_close()

    def refuse(self, *statuses: int) -> None:
        """The next requests get these statuses, one each."""
        with self._lock:
            self._refusals.extend(statuses)

    def refusal(self) -> int:
        """The status that the next request is refused with; 0: it is answered."""
        with self._lock:
            return self._refusals.popleft() if self._refusals else 0

    def book(self, entry: Booked) -> None:
        """Write one down."""
        with self._lock:
            self.books.append(entry)

    def total(self) -> Tokens:
        """What has been charged."""
        with self._lock:
            paid = [one.tokens for one in self.books if one.status == 200]
        return Tokens(sum(t.fresh for t in paid), sum(t.cached for t in paid), sum(t.output for t in paid))


class _Handler(BaseHTTPRequestHandler):
    model: ModelServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing: the books say it."""

    def _path(self) -> str:
        """The request's path; through a proxy it comes as a whole URL."""
        return "/" + self.path.partition("://")[2].partition("/")[2] if "://" in self.path else self.path

    def do_GET(self) -> None:
        """Lists of models."""
        path = self._path().partition("?")[0]
        if path.endswith("/models"):
            names = sorted(self.model.models or {"scripted"})
            rows = [{"id": name, "object": "model", "type": "model", "display_name": name} for name in names]
            return self._json(200, {"object": "list", "data": rows, "has_more": False})
        self.model.strays.append(f"GET {path}")
        return self._json(404, {"error": {"message": f"no {path}"}})

    def do_HEAD(self) -> None:
        """Is anybody there?"""
        self._json(200, {})

    def do_POST(self) -> None:
        """An answer of the model."""
        size = int(self.headers.get("Content-Length") or 0)
        raw = self._chunked() if self.headers.get("Transfer-Encoding") == "chunked" else self.rfile.read(size)
        path = self._path()
        dialect = dialect_of(path)
        try:
            body: Any = json.loads(raw or b"{}")
        except ValueError:
            body = {}
        if dialect is None:
            if "count" in path.lower() and "token" in path.lower():
                return self._json(200, {"input_tokens": 1300, "totalTokens": 1300})
            self.model.strays.append(f"POST {path}")
            return self._json(404, {"error": {"message": f"no {path}"}})
        asked = dialect.read(body, path)
        status, why = self._judged(asked, dialect)
        key = self._key()
        if status:
            self.model.book(Booked(dialect.name, asked.model, status, Tokens(0, 0, 0), asked.stream, key, ()))
            return self._json(status, dialect.refusal(status, why))
        turn = self.model.play(asked)
        self._note(path, body, asked)
        self.model.book(
            Booked(
                dialect.name,
                asked.model,
                200,
                turn.tokens,
                asked.stream,
                key,
                tuple(sorted(asked.tools)),
                asked.earlier,
            )
        )
        asked = replace(asked, model=self.model.name or asked.model)
        if asked.stream:
            return self._stream(dialect.streamed(asked, turn))
        return self._json(200, dialect.whole(asked, turn))

    def _judged(self, asked: Asked, dialect: Dialect) -> tuple[int, str]:
        """(status, why) of a refusal; 0: it is answered."""
        if self.model.keys and self._key() not in self.model.keys:
            return 401, "invalid x-api-key"
        if self.model.models and asked.model not in self.model.models:
            return dialect.unknown_model, f"The model `{asked.model}` does not exist"
        status = self.model.refusal()
        return status, {429: "rate limited: try again", 500: "internal error"}.get(status, "refused")

    def _key(self) -> str:
        bearer = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        return self.headers.get("x-api-key") or self.headers.get("x-goog-api-key") or bearer

    def _note(self, path: str, body: Any, asked: Asked) -> None:
        if self.model.trace is not None:
            number = len(self.model.books)
            text = json.dumps({"path": path, "body": body, "results": list(asked.results)}, indent=1)
            (self.model.trace / f"{number:03d}.json").write_text(text)

    def _chunked(self) -> bytes:
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _json(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status >= 400:  # as the vendors say it; without it clients go by rules of their own
            self.send_header("x-should-retry", "true" if status in (429, 500, 529) else "false")
        if status == 429:
            self.send_header("Retry-After", "1")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _stream(self, parts: Iterable[bytes]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in parts:
            self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")
