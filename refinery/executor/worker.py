"""The executor: runs effects in threads, each rig and each remote host within its share (see `shares`).

Outside work is waiting for git and for the network, so threads are enough. What is decided here is only what is begun
next; who owns an effect is told by its advisory lock, so that a second executor does no harm.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import select
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import structlog
from django.db import close_old_connections, connection
from django.utils import timezone

from beads import ops, outages, outbox, room
from beads.channels import EFFECTS_CHANNEL, keep_on, listen_parameters
from beads.models import Effect, Outage, Rig
from refinery.executor import perform
from refinery.executor.shares import PLACES, Job, Shares, Trouble

log = structlog.get_logger(__name__)
LOOK_SECONDS = 5.0
DUE_AT_ONCE = 500
PAUSE = 0.5  # after an effect that could not even be begun


class Executor:
    """One executor process."""

    def __init__(self) -> None:
        self.shares = Shares()
        self.pool = ThreadPoolExecutor(max_workers=PLACES, thread_name_prefix="effect")
        self.stopping = False
        self._lock = threading.Lock()
        self._heard, self._tell = os.pipe()
        os.set_blocking(self._heard, False)
        self._told = 0.0

    def serve(self) -> None:
        """Loop until `stopping`; a lost database is waited for."""
        keep_on("executor", self._serve, lambda: self.stopping)
        self.pool.shutdown(wait=True)

    def _serve(self) -> None:
        with psycopg.connect(**listen_parameters(), autocommit=True) as listener:
            listener.execute(f"listen {EFFECTS_CHANNEL}")
            log.info("executor.ready", places=PLACES)
            while not self.stopping:
                self._wait(listener, self.look())

    def look(self) -> float:
        """Begin what may be begun now; returns in how many seconds the next look is due."""
        now = timezone.now()
        if time.monotonic() > self._told + 1:
            self._told = time.monotonic()
            ops.beat("executor", f"{len(self.shares.running)} at work")
        if lacking := room.lacking():
            log.warning("executor.room", lacking=lacking)
            return LOOK_SECONDS
        troubles = {o.key: _trouble(o) for o in Outage.objects.select_related("rig")}
        with self._lock:
            running = [job.effect for job in self.shares.running if job.effect]
        jobs = [_job(effect) for effect in outbox.due(now, running, self._waits(troubles, now), DUE_AT_ONCE)]
        with self._lock:
            chosen = self.shares.choose(jobs, troubles, now)
            self.shares.running += chosen
        for job in chosen:
            self.pool.submit(self._run, job)
        moments = [at for at in (outbox.next_due(now), *(t.next_look_at for t in troubles.values())) if at]
        return min([LOOK_SECONDS, *((at - now).total_seconds() for at in moments if at > now)])

    def _waits(self, troubles: dict[str, Trouble], now: dt.datetime) -> list[int]:
        """The rigs whose work waits for the end of an outage: not even read."""
        lasting = {key for key, t in troubles.items() if not (t.at_work and now >= t.next_look_at)}
        if not lasting:
            return []
        rigs = Rig.objects.values_list("pk", "remote_url")
        return [pk for pk, url in rigs if {outages.rig_key(pk), outages.host_key(url)} & lasting]

    def _run(self, job: Job) -> None:
        """In a thread of the pool."""
        try:
            close_old_connections()
            said = perform.run_effect(job.effect) if job.effect else perform.look_at_remote(int(job.share[4:]))
            if said == "done":
                with self._lock:
                    self.shares.good.add(job.share)
            elif said == "retry":
                with self._lock:
                    self.shares.good.discard(job.share)
        except Exception:  # the database, mostly: nothing was lost, and it is begun again
            log.exception("executor.unfinished", effect=job.effect)
            connection.close()
            time.sleep(PAUSE)
        finally:
            with self._lock:
                self.shares.running.remove(job)
            os.write(self._tell, b".")

    def _wait(self, listener: psycopg.Connection[Any], seconds: float) -> None:
        """Until there is news, a place is free, or so many seconds have passed."""
        select.select([listener.fileno(), self._heard], [], [], max(seconds, 0.01))
        list(listener.notifies(timeout=0))
        with contextlib.suppress(BlockingIOError):
            os.read(self._heard, 4096)


def _job(effect: Effect) -> Job:
    if effect.rig is None:
        return Job(effect.pk, f"town:{effect.town_id}")
    return Job(effect.pk, outages.rig_key(effect.rig.pk), outages.host_key(effect.rig.remote_url))


def _trouble(outage: Outage) -> Trouble:
    rig = outage.rig
    look = Job(0, outages.rig_key(rig.pk), outages.host_key(rig.remote_url))
    return Trouble(outage.next_look_at, look, outage.at_work)
