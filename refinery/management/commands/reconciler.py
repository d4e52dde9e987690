"""The reconciler process: ticks within milliseconds of a fact, and looks around every few seconds anyway."""

from __future__ import annotations

import gc
import signal
import time
from typing import Any

import psycopg
import structlog
from django.core.management.base import BaseCommand
from django.utils import timezone

from beads import ops
from beads.channels import WAKE_CHANNEL, keep_on, listen_parameters
from beads.models import Town
from refinery.tasks import ensure_schedule
from refinery.tick import reconciler

log = structlog.get_logger(__name__)
LEADER = 0x6A57001  # advisory lock of the reconciler that ticks
STANDBY_SECONDS = 0.5
LOOK_SECONDS = 5.0  # leases, deadlines and back-offs come due without a fact


class Command(BaseCommand):
    help = "Listen for facts and run the reconcile tick (one of the processes of `up`)."

    def handle(self, *args: Any, **options: Any) -> None:
        """Loop until SIGTERM."""
        self.stopping = False
        gc.freeze()  # what was loaded stays: looking through it for garbage held up a tick for 0.2 s, now and then
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        keep_on("reconciler", self._serve, lambda: self.stopping)

    def _stop(self, *args: Any) -> None:
        self.stopping = True

    def _lead(self, listener: psycopg.Connection[Any]) -> bool:
        """Wait until no other reconciler leads; False when asked to stop. Several on one database stand by for one
        another: all would decide the same, one after the other. The lock goes with the leader's connection."""
        told = False
        while not self.stopping:
            row = listener.execute("select pg_try_advisory_lock(%s)", [LEADER]).fetchone()
            if row and row[0]:
                return True
            if not told:
                log.info("reconciler.standby")
                told = True
            time.sleep(STANDBY_SECONDS)
        return False

    def _serve(self) -> None:
        """One database session's worth: listen on a connection of its own, tick on Django's."""
        ensure_schedule()
        with psycopg.connect(**listen_parameters(), autocommit=True) as listener:
            if not self._lead(listener):
                return
            listener.execute(f"listen {WAKE_CHANNEL}")
            log.info("reconciler.ready")
            due, pulse = 0.0, ops.Pulse("reconciler")
            while not self.stopping:
                if time.monotonic() >= due:
                    due = time.monotonic() + LOOK_SECONDS
                    pulse()
                    reconciler.settle_all(pulse)
                woken = {
                    n.payload for n in listener.notifies(timeout=min(max(due - time.monotonic(), 0), 1), stop_after=1)
                }
                woken |= {n.payload for n in listener.notifies(timeout=0)}
                heard = timezone.now()
                for town in Town.objects.filter(slug__in=woken):
                    reconciler.settle(town, heard=heard, pulse=pulse)
