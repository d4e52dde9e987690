"""A scripted provider of models that keeps books of its own: what it told of usage, of which calls, under which key.

It speaks the four ways of asking that the model door passes on. What it does is chosen by the model's name: `good`;
`slow` (sends its events with pauses, until its caller has gone); `status-429` and the like; `elsewhere` (a redirect);
`silent-usage` (a server that refuses `stream_options`).
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-real-key-of-the-town"
INPUT, CACHED, OUTPUT = 600, 500, 40


@dataclass
class Books:
    """What it has told of its usage, and who asked."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    calls: int = 0
    input: int = 0
    cached: int = 0
    output: int = 0
    hung_up: int = 0
    keys: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)

    def use(self, scale: int) -> None:
        with self.lock:
            self.calls += 1
            self.input += INPUT * scale
            self.cached += CACHED * scale
            self.output += OUTPUT * scale


class Provider(ThreadingHTTPServer):
    """The server, on a port of its own; `books` are its books."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.books = Books()
        self.port = self.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.pause = 0.05
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Callers that hang up are expected."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Provider

    def log_message(self, format: str, *args: Any) -> None: ...

    def do_GET(self) -> None:
        self._note(None)
        self._json(200, {"data": [{"id": "good"}], "object": "list"})

    def do_POST(self) -> None:
        told = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self._note(told)
        path = self.path.partition("?")[0]
        model = told.get("model") or path.rpartition("/")[2].partition(":")[0]
        scale = int(told.get("scale") or 1)
        if self._key() != KEY:
            self._json(401, {"error": {"type": "authentication_error", "message": f"invalid key {self._key()}"}})
        elif model.startswith("status-"):
            status = int(model.removeprefix("status-"))
            extra = {"retry-after": "7"} if status == 429 else {}
            error = {"type": "rate_limit_error", "message": f"scripted {status} for {self._key()}"}
            self._json(status, {"type": "error", "error": error}, extra)
        elif model == "elsewhere":
            self._json(307, {}, {"location": "http://127.0.0.1:1/"})
        elif path.endswith("count_tokens"):
            self._json(200, {"input_tokens": INPUT})
        elif model == "silent-usage" and "stream_options" in told:
            self._json(
                400, {"error": {"message": "unknown parameter: stream_options", "type": "invalid_request_error"}}
            )
        elif told.get("stream") or ":stream" in path:
            self._stream(path, model, told, scale)
        else:
            self.server.books.use(scale)
            self._json(200, whole(path, model, scale))

    def _note(self, told: Any) -> None:
        books = self.server.books
        with books.lock:
            books.keys.append(self._key())
            books.headers.append({k.lower(): v for k, v in self.headers.items()})
            books.paths.append(self.path)
            books.bodies.append(told)

    def _key(self) -> str:
        found = self.headers.get("x-api-key") or self.headers.get("x-goog-api-key")
        return found or self.headers.get("authorization", "").removeprefix("Bearer ")

    def _json(self, status: int, told: Any, extra: dict[str, str] | None = None) -> None:
        body = json.dumps(told).encode()
        self.send_response(status)
        more = {"content-type": "application/json", "content-length": str(len(body)), "set-cookie": "a=b"}
        for name, value in {**more, **(extra or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, path: str, model: str, told: Any, scale: int) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        wants = bool((told.get("stream_options") or {}).get("include_usage"))
        try:
            for at, event in enumerate(events(path, model, scale, wants, 10_000 if model == "slow" else 5)):
                self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
                self.wfile.flush()
                if model == "slow" and at:
                    time.sleep(self.server.pause)
            self.server.books.use(scale)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            with self.server.books.lock:
                self.server.books.hung_up += 1
            self.close_connection = True


def whole(path: str, model: str, scale: int) -> dict[str, Any]:
    """An answer that is no stream."""
    a, c, o = INPUT * scale, CACHED * scale, OUTPUT * scale
    usage: dict[str, Any]
    if path.endswith("/messages"):
        usage = {"input_tokens": a, "cache_read_input_tokens": c, "cache_creation_input_tokens": 0, "output_tokens": o}
        return {"type": "message", "role": "assistant", "model": model, "content": [], "usage": usage}
    if path.endswith("/responses"):
        usage = {"input_tokens": a + c, "input_tokens_details": {"cached_tokens": c}, "output_tokens": o}
        return {"object": "response", "model": model, "output": [], "usage": usage}
    if path.endswith("/chat/completions"):
        usage = {"prompt_tokens": a + c, "prompt_tokens_details": {"cached_tokens": c}, "completion_tokens": o}
        return {"object": "chat.completion", "model": model, "choices": [{"message": {}}], "usage": usage}
    usage = {"promptTokenCount": a + c, "cachedContentTokenCount": c, "candidatesTokenCount": o}
    return {"modelVersion": model, "candidates": [{"finishReason": "STOP"}], "usageMetadata": usage}


def events(path: str, model: str, scale: int, wants: bool, words: int) -> Any:
    """The events of an answer that is one; `words`: how many pieces of text."""
    told = whole(path, model, scale)
    if path.endswith("/messages"):
        start = {**told, "usage": {**told["usage"], "output_tokens": 1}}
        yield _event({"type": "message_start", "message": start}, "message_start")
        for n in range(words):
            yield _event({"type": "content_block_delta", "delta": {"text": f"w{n}"}}, "content_block_delta")
        yield _event(
            {"type": "message_delta", "usage": {"output_tokens": told["usage"]["output_tokens"]}}, "message_delta"
        )
        yield _event({"type": "message_stop"}, "message_stop")
    elif path.endswith("/responses"):
        yield _event({"type": "response.created", "response": {**told, "usage": None}})
        for n in range(words):
            yield _event({"type": "response.output_text.delta", "delta": f"w{n}"})
        yield _event({"type": "response.completed", "response": told})
    elif path.endswith("/chat/completions"):
        for n in range(words):
            chunk = {"object": "chat.completion.chunk", "model": model, "choices": [{"delta": {"content": f"w{n}"}}]}
            yield _event({**chunk, "usage": None} if wants else chunk)
        if wants:
            yield _event({"object": "chat.completion.chunk", "model": model, "choices": [], "usage": told["usage"]})
        yield b"data: [DONE]\n\n"
    else:
        for n in range(words):
            yield _event({"modelVersion": model, "candidates": [{"content": {"parts": [{"text": f"w{n}"}]}}]})
        yield _event(told)


def _event(told: Any, name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(told)}\n\n".encode()
