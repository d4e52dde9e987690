"""The model door: `/model/<api>/…`, beside Django in the ASGI app (ADR 28).

A run's agent calls it with its own token in place of a key. The key is the server's: it never enters the sandbox. What
comes back is passed on byte by byte as it comes, at the pace at which the caller reads; nothing of the content is kept.
A caller that hangs up ends the provider's call. What the answer says of its usage is written down: see `meters`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

import structlog

from agents.model_door import apis, desk, upstream
from agents.model_door.apis import Asked, Kind, Refusal, Route
from agents.model_door.desk import Pass
from agents.model_door.meters import Meter, WithoutUsage
from agents.usage import Reading

if TYPE_CHECKING:
    import httpx

log = structlog.get_logger(__name__)
LIMIT = 32 << 20  # of a request's body: what the providers take at most
ERROR_LIMIT = 1 << 20  # of an error's body

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class _Gone(Exception):
    """The caller has hung up."""


async def serve(scope: Any, receive: Receive, send: Send) -> None:
    """Answer one request to the door."""
    try:
        where = apis.route(scope["method"], scope["path"])
    except Refusal as refusal:
        api = apis.APIS.get(scope["path"].split("/", 3)[2], apis.APIS["openai"])
        said = refusal
        try:
            await asyncio.to_thread(desk.whose, apis.token_of(*_head(scope)))
        except Refusal as stranger:  # who is told nothing of what is here
            said = stranger
        await _refuse(api, said, send)
        return
    call = _Call(where, scope, receive, send)
    work = asyncio.ensure_future(call.make())
    try:
        await call.watch(work)
    except _Gone:
        pass
    except Refusal as refusal:
        if not call.begun:
            await _refuse(where.api, refusal, send)


def _head(scope: Any) -> tuple[list[tuple[str, str]], str]:
    """The headers and the query of a request."""
    headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in scope["headers"]]
    return headers, scope["query_string"].decode("latin-1")


class _Call:
    """One call, from its head to what it used."""

    def __init__(self, where: Route, scope: Any, receive: Receive, send: Send) -> None:
        self.where, self.scope, self._receive, self._send = where, scope, receive, send
        self.headers, self.query = _head(scope)
        self.begun = False
        self._read = asyncio.Event()
        self._meter: Meter | None = None

    async def watch(self, work: asyncio.Future[None]) -> None:
        """Wait for the call's end; a caller who hangs up cancels it, and with it the provider's call."""
        gone = asyncio.ensure_future(self._hung_up())
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            if not work.done():
                work.cancel()
        try:
            await work
        except asyncio.CancelledError:
            raise _Gone from None

    async def _hung_up(self) -> None:
        """Returns when the caller has gone; its body is read by `make` before that is asked for."""
        await self._read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def make(self) -> None:
        """Ask whether it may be made, make it, pass the answer on. Raises Refusal."""
        token = apis.token_of(self.headers, self.query)
        may = await asyncio.to_thread(desk.admit, token, self.where)
        asked = apis.read_body(self.where, await self._body())
        self._read.set()
        try:
            if not await self._pass_on(may, asked):
                log.info("model_door.without_usage", run=may.run.pk, base=may.base)
                plain = Asked(asked.model, apis.without_usage(asked.body))
                await self._pass_on(may, plain)
        except Refusal as refusal:
            if refusal.fault:
                self._tell(may, refusal.fault, asked.model, refusal.sentence)
            raise

    async def _body(self) -> bytes:
        """The request's body. Raises Refusal for one that is too large, _Gone when its sender hangs up."""
        parts: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise _Gone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > LIMIT:
                raise Refusal(413, f"the body is larger than {LIMIT} bytes")
            if not message.get("more_body"):
                return b"".join(parts)

    async def _pass_on(self, may: Pass, asked: Asked) -> bool:
        """One question and its answer; False when the provider refuses only what we have added."""
        headers = apis.headers_up(self.where.api, self.headers, may.key)
        method, query = self.scope["method"], apis.query_up(self.query)
        try:
            async with upstream.ask(may, method, self.where.path, query, headers, asked.body) as answer:
                if answer.status_code >= 300:
                    return await self._pass_error(may, asked, answer)
                await self._pass_answer(may, asked, answer)
        except (asyncio.CancelledError, Refusal) as error:
            asked_for = self.where.kind is not Kind.FREE and self._meter is None
            if asked_for and (not isinstance(error, Refusal) or error.status == 504):
                self._meter = Meter(self.where.kind, stream=True)  # it was asked, and what it used is not known
            raise
        finally:
            if self._meter is not None:
                await self._book(may, asked, self._meter)
        return True

    async def _pass_answer(self, may: Pass, asked: Asked, answer: httpx.Response) -> None:
        """The answer as it comes. It is read for what it used, however it ends."""
        import httpx

        streamed = answer.headers.get("content-type", "").startswith("text/event-stream")
        meter = None
        if self.where.kind is not Kind.FREE:
            meter = self._meter = Meter(
                self.where.kind, stream=streamed, encoding=answer.headers.get("content-encoding", "")
            )
        cut = WithoutUsage() if asked.added and streamed else None
        head = apis.headers_down(answer.headers.multi_items())
        if cut is not None:
            head = [(k, v) for k, v in head if k.lower() != "content-length"]
        await self._begin(answer.status_code, head)
        try:
            async for data in answer.aiter_raw():
                if meter is not None:
                    meter.feed(data)
                if told := data if cut is None else cut.feed(data):
                    await self._send({"type": "http.response.body", "body": told, "more_body": True})
        except httpx.HTTPError as error:
            # without its last message the answer has no end: uvicorn closes the connection, and the caller sees it
            log.info("model_door.broke_off", run=may.run.pk, error=str(error))
            return
        last = cut.end() if cut is not None else b""
        await self._send({"type": "http.response.body", "body": last, "more_body": False})

    async def _book(self, may: Pass, asked: Asked, meter: Meter) -> None:
        """Write down what was used; whatever happens to this call meanwhile."""
        seen = meter.end()
        reading = Reading(seen.model, seen.spent(), asked.model, seen.cost)
        await asyncio.shield(asyncio.ensure_future(asyncio.to_thread(desk.book, may, reading)))

    async def _pass_error(self, may: Pass, asked: Asked, answer: httpx.Response) -> bool:
        """An error in the provider's own words, but for those on the key, which nobody inside shall read."""
        body = b""
        async for data in answer.aiter_raw():
            body += data
            if len(body) > ERROR_LIMIT:
                raise Refusal(502, f"the provider answered {answer.status_code}, at a length that no error has")
        message, code = apis.message_of(body)
        status = answer.status_code
        if asked.added and status == 400 and "stream_options" in message:
            return False
        if status < 400:
            place = answer.headers.get("location", "")[:200]
            raise Refusal(502, f"the provider wants to be asked elsewhere ({status} {place})", fault="place")
        api, town = self.where.api, may.run.town.slug
        fault = apis.fault(status, message, code)
        if fault == "key":
            sentence = (
                f"{api.name} refuses the key {may.secret} of town {town} ({status}): "
                f"gastown secret set {may.secret} --town {town}"
            )
            raise Refusal(status, sentence, fault=fault)
        if fault:
            self._tell(may, fault, asked.model, f"{api.name} refuses {asked.model or 'the call'} ({status}): {message}")
        head = apis.headers_down(answer.headers.multi_items())
        head = [(k, v) for k, v in head if k.lower() != "content-length"]
        await self._begin(status, head)
        clean = body.replace(may.key.encode(), b"***")
        await self._send({"type": "http.response.body", "body": clean, "more_body": False})
        return True

    def _tell(self, may: Pass, fault: str, model: str, sentence: str) -> None:
        """A person hears of it; nobody here waits for that."""
        _later(desk.tell_later, may.run, self.where.api, fault, model, sentence)

    async def _begin(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.begun = True
        raw = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})


_tasks: set[asyncio.Future[None]] = set()


def _later(function: Callable[..., None], *arguments: Any) -> None:
    """Run it in a thread, and hold on to it until it is done."""
    task = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


async def _refuse(api: apis.Api, refusal: Refusal, send: Send) -> None:
    """Say it as the API says errors. What is of no use to try again says so, as the providers' libraries read it."""
    more = [("retry-after", "5")] if refusal.again else [("x-should-retry", "false")]
    await _answer(send, refusal.status, apis.error_body(api, refusal.status, f"Gastown: {refusal.sentence}"), more)


async def _answer(send: Send, status: int, body: bytes, more: list[tuple[str, str]]) -> None:
    headers = [("content-type", "application/json"), ("content-length", str(len(body))), *more]
    raw = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": False})
