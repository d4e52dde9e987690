"""What the web process bears of its clients: time for a head, a rate for a body, a size, a number of connections.

uvicorn waits for ever for the rest of a request, and reads bodies of any size. Here:
- a head has to be there `HEAD_SECONDS` after the connection or its first byte; a body has to come at `BODY_RATE` after
  a first grace; an answer that nobody reads for `WRITE_SECONDS` is given up. What is half-sent is closed with 408;
- a body larger than `body_limit` is refused with 413 before a byte of it is kept (one of unknown length: at that byte);
- over `most_connections` in all, or `per_address` from one place, the newcomer gets 503 and no memory of ours.
A stream of server-sent events has sent its request and keeps no clock here: it may last for hours.
"""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 15.0
BODY_GRACE = 10.0
BODY_RATE = 2000.0  # bytes a second, on average
WRITE_SECONDS = 60.0
BODY_LIMIT = 4 << 20  # what the tools take at most is smaller, and said by them; see settings
PACK_LIMIT = 1 << 30  # a run's commits, with credentials only
MODEL_LIMIT = 33 << 20  # what is asked of a model; the door itself refuses more, in the API's own words
DISCARDED = 8 << 20  # of a refused body we read so much, so that its sender reads the answer
MOST = 4096
SPARE_FILES = 256  # for logs, git and the database
PER_ADDRESS = 256

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]


def make_room() -> int:
    """Let this process open as many files as it may; returns how many connections it bears."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return MOST
    return max(min(MOST, soft - SPARE_FILES), 64)


def body_limit(path: str, headers: list[tuple[bytes, bytes]]) -> int:
    """How large a body may be. Packs are large; who shows no credentials sends none."""
    if path.startswith("/git/") and any(name == b"authorization" for name, _ in headers):
        return PACK_LIMIT
    if path.startswith("/model/"):  # it is read only from who has shown a live run's token
        return MODEL_LIMIT
    return BODY_LIMIT


class Protocol(H11Protocol):
    """uvicorn's HTTP/1.1, with clocks. `most_connections` and `per_address` are set once, by `web.serve`."""

    most_connections = MOST
    per_address: int | None = PER_ADDRESS  # None: a proxy is in front, whose matter it is
    _from: Counter[str] = Counter()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._clock: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._phase = ""
        self._since = 0.0
        self._received = 0
        self._address: str | None = None

    # -- connections --

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count it, and start the clock; or turn it away."""
        super().connection_made(transport)
        self._address = self.client[0] if self.client else ""
        Protocol._from[self._address] += 1
        if len(self.connections) > self.most_connections or self._from[self._address] > self._bearable():
            self._refuse(503, "Service Unavailable")
            return
        self._begin("head", HEAD_SECONDS)

    def _bearable(self) -> int:
        """How many connections of one address there may be. This machine's own: shims, browsers, a proxy."""
        local = self._address is not None and (self._address.startswith("127.") or self._address in ("::1", ""))
        if local or self.per_address is None:
            return self.most_connections * 3 // 4
        return self.per_address

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        for timer in (self._clock, self._stalled):
            if timer is not None:
                timer.cancel()
        self._clock = self._stalled = None
        if self._address is not None:
            Protocol._from[self._address] -= 1
            if Protocol._from[self._address] <= 0:
                del Protocol._from[self._address]
            self._address = None
        super().connection_lost(exc)

    # -- what comes in --

    def data_received(self, data: bytes) -> None:
        """Pass it on, then look at what is still to come."""
        if self.transport.is_closing():
            return
        if self._phase == "idle":
            self._begin("head", HEAD_SECONDS)
        self._received += len(data)
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """The next request may begin."""
        super().on_response_complete()
        if not self.transport.is_closing():
            self._look()

    def _look(self) -> None:
        """Which clock runs follows from what the client has to send next."""
        state = self.conn.their_state
        if state is h11.SEND_BODY:
            if self._phase != "body":
                self._received = 0
                self._begin("body", BODY_GRACE)
            over = self.conn.our_state is h11.DONE and self._received > BODY_LIMIT + DISCARDED
            if over:  # answered (413), and still it comes
                self.transport.abort()
        elif state is h11.IDLE:
            begun = bool(self.conn.trailing_data[0])
            if self._phase not in ("head", "idle") or (begun and self._phase == "idle"):
                self._begin("head" if begun else "idle", HEAD_SECONDS if begun else KEEP_ALIVE_SECONDS)
        else:
            self._stop()  # all has come: what takes time now is ours

    def _begin(self, phase: str, seconds: float) -> None:
        self._stop()
        self._phase, self._since = phase, time.monotonic()
        self._clock = self.loop.call_later(seconds, self._late)

    def _stop(self) -> None:
        self._phase = ""
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _late(self) -> None:
        """The clock has run out: more time for a body that has come at the rate, else the end."""
        self._clock = None
        if self._phase == "body":
            due = self._since + BODY_GRACE + self._received / BODY_RATE - time.monotonic()
            if self.flow.read_paused:  # it is we who do not read
                due = max(due, BODY_GRACE)
            if due > 0:
                self._clock = self.loop.call_later(max(due, 0.1), self._late)
                return
        if self._phase == "idle" or not self._heard():
            self.transport.close()
        else:
            self._refuse(408, "Request Timeout")

    def _heard(self) -> bool:
        """True when the client has sent anything of the request that is awaited."""
        return self._phase == "body" or bool(self.conn.trailing_data[0])

    def _refuse(self, status: int, phrase: str) -> None:
        """A last word, where nothing has been said to this request, and the end."""
        answered = self._phase == "body" and self.cycle.response_started
        self._stop()
        if not answered:
            more = ""
            if status == 503:
                more = "retry-after: 5\r\n"
            head = f"HTTP/1.1 {status} {phrase}\r\nconnection: close\r\ncontent-length: 0\r\n{more}\r\n"
            self.transport.write(head.encode())
        self.transport.close()

    # -- what goes out --

    def pause_writing(self) -> None:
        """The client does not read."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


class TooLarge(Exception):
    """A body of unknown length has passed its limit."""


def bounded(app: App) -> App:
    """The application behind the limit of a body's size."""

    async def guarded(scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        limit = body_limit(scope["path"], scope["headers"])
        told = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if int(told) > limit:  # h11 lets only digits through
            await _too_large(receive, send, limit)
            return
        seen, started = 0, False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise TooLarge
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await app(scope, counted, noted)
        except TooLarge:
            if not started:
                await _too_large(receive, send, limit)

    return guarded


async def _too_large(receive: Receive, send: Send, limit: int) -> None:
    """Answer at once; then let what is under way run out for a while, or its sender would never read the answer."""
    error = {"code": "too_large", "message": f"the body is larger than {limit} bytes", "details": {}}
    body = json.dumps({"ok": False, "error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    gone = 0
    while gone <= DISCARDED:
        message = await receive()
        gone += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            break
    await send({"type": "http.response.body", "body": b""})
