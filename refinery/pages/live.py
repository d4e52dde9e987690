"""Live pages: one PostgreSQL LISTEN for each server process, fanned out to every browser as server-sent events.

What changes a town notifies `gastown_changed` with its slug, at commit; a heartbeat does so with its run. The hub
turns that, at most every `DEBOUNCE_SECONDS`, into a new *version*, and tells it to whoever looks at the town. An event
carries no content: the browser fetches its page again. Pages that were asked for because of the same version are
rendered once, however many browsers ask. Nothing depends on any of it: without an event, a reload shows the same.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import psycopg
import structlog

from beads.channels import CHANGED_CHANNEL, RUN_TOPIC, listen_parameters

log = structlog.get_logger(__name__)
DEBOUNCE_SECONDS = 0.1
KEEPALIVE_SECONDS = 20.0  # finds out browsers that went without a word
FILE_SECONDS = 0.5  # how often a run's files are looked at, while somebody watches it
MAX_BROWSERS = 2000
RETRY_MILLISECONDS = 2000


@dataclass(frozen=True, slots=True)
class Topic:
    """What a page follows: a town (None: all towns), and for a run's page also the run and the growth of its files."""

    town: str | None = None
    run: str | None = None
    files: tuple[Path, ...] = ()  # its log, its transcript

    def hears(self, told: set[str]) -> bool:
        """True when one of the notified payloads is about this."""
        if self.run and RUN_TOPIC + self.run in told:
            return True
        if self.town:
            return self.town in told
        return any(not payload.startswith(RUN_TOPIC) for payload in told)

    def size(self) -> str:
        """The sizes of the files, as a part of the version."""
        return "".join(f"/{_size(file)}" for file in self.files)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


class Hub:
    """Everybody who watches, in one server process. Its own methods run on the server's event loop."""

    def __init__(self) -> None:
        self.closed = False
        self.waiters: dict[asyncio.Event, Topic] = {}
        self._boot = secrets.token_hex(4)
        self._session = 0  # counts connections: what happened between two of them is unknown
        self._listening = False
        self._counts: Counter[str] = Counter()
        self._towns = 0
        self._fresh: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def version(self, topic: Topic) -> str:
        """Names the state of a topic as heard so far; empty while nobody listens.

        Read it before the rows: then what is shown is at least as new as what the version says.
        """
        if not self._listening:
            return ""
        count = self._counts[topic.town] if topic.town else self._towns
        if topic.run:
            count += self._counts[RUN_TOPIC + topic.run]
        return f"{self._boot}.{self._session}.{count}{topic.size()}"

    async def stream(self, topic: Topic) -> AsyncIterator[bytes]:
        """Server-sent events for one browser: the version now, and whenever it changes."""
        self._start()
        news = asyncio.Event()
        self.waiters[news] = topic
        told = ""
        try:
            yield f"retry: {RETRY_MILLISECONDS}\n\n".encode()
            while not self.closed:
                news.clear()
                version = self.version(topic)
                if version not in ("", told):
                    told = version
                    yield f"data: {version}\n\n".encode()
                elif not await self._wait(news, topic, told):
                    yield b":\n\n"
        finally:
            del self.waiters[news]

    async def _wait(self, news: asyncio.Event, topic: Topic, told: str) -> bool:
        """Wait for news or for the log to grow; False when there was neither for long."""
        step = KEEPALIVE_SECONDS
        if topic.files:
            step = FILE_SECONDS
        for _ in range(int(KEEPALIVE_SECONDS / step)):
            try:
                await asyncio.wait_for(news.wait(), step)
                return True
            except TimeoutError:
                if not told.endswith(topic.size()):
                    return True
        return False

    def close(self) -> None:
        """Let every browser go: the server is shutting down. May be called from a signal handler."""
        self.closed = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._wake()

    def _wake(self) -> None:
        for news in self.waiters:
            news.set()

    def _start(self) -> None:
        """Begin to listen, with the first browser; the connection then stays."""
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.done() or self._loop is not loop:
            self._loop = loop
            self._task = loop.create_task(self._listen())

    async def _listen(self) -> None:
        """Listen until cancelled; a lost connection is made again, and everybody looks."""
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(**listen_parameters(), autocommit=True) as connection:
                    await connection.execute(f"listen {CHANGED_CHANNEL}")
                    self._session += 1
                    self._listening = True
                    self._wake()
                    async for notify in connection.notifies():
                        self._hear(notify.payload)
            except psycopg.Error as error:
                log.warning("live.database", error=str(error))
            finally:
                self._listening = False
            await asyncio.sleep(1)

    def _hear(self, payload: str) -> None:
        """Gather what comes in quick succession into one version."""
        assert self._loop is not None
        if not self._fresh:
            self._loop.call_later(DEBOUNCE_SECONDS, self._tell)
        self._fresh.add(payload)

    def _tell(self) -> None:
        fresh, self._fresh = self._fresh, set()
        self._counts.update(fresh)
        self._towns += any(not payload.startswith(RUN_TOPIC) for payload in fresh)
        for news, topic in self.waiters.items():
            if topic.hears(fresh):
                news.set()


hub = Hub()


class Shelf:
    """The latest renderings, each made once: who asks while one is being made waits for it."""

    def __init__(self, size: int = 64) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._made: OrderedDict[tuple[object, ...], Future[bytes]] = OrderedDict()

    def get(self, key: tuple[object, ...], make: Callable[[], bytes]) -> bytes:
        """The rendering under `key`, made by `make` when it is not there. What raises is not kept."""
        with self._lock:
            found = self._made.get(key)
            if found is None:
                mine: Future[bytes] = Future()
                self._made[key] = mine
                while len(self._made) > self._size:
                    self._made.popitem(last=False)
        if found is not None:
            return found.result(timeout=60)
        try:
            mine.set_result(make())
        except BaseException as error:
            with self._lock:
                self._made.pop(key, None)
            mine.set_exception(error)
            raise
        return mine.result()


shelf = Shelf()
