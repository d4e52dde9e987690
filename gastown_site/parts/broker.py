"""django-q2's ORM broker without its polling: a task that is enqueued wakes the cluster at its commit.

The table stays the only truth; the notification is for speed, and without it the broker polls as before.
"""

from __future__ import annotations

import os
import time
from typing import Any

import psycopg
from django.db import OperationalError, close_old_connections, connection
from django.utils import timezone
from django_q.brokers.orm import ORM

from beads.channels import listen_parameters

CHANNEL = "gastown_tasks"
WAIT_SECONDS = 1.0


class NotifyBroker(ORM):
    """LISTEN instead of sleep."""

    _listener: psycopg.Connection[Any] | None = None
    _pid = 0

    def enqueue(self, task: Any) -> Any:
        """Insert the task and notify in the same transaction."""
        made = super().enqueue(task)  # type: ignore[no-untyped-call]
        with connection.cursor() as cursor:
            cursor.execute("select pg_notify(%s, '')", [CHANNEL])
        return made

    def dequeue(self) -> Any:
        """Claimed tasks, or None after at most a second's wait for news. A database that is away is waited for: the
        pusher would die of it, and stay away for longer than the database."""
        try:
            return self._dequeue()
        except OperationalError:
            self._drop()
            close_old_connections()
            time.sleep(WAIT_SECONDS)
            return None

    def _dequeue(self) -> Any:
        listener = self._listen()
        if listener is None:
            return super().dequeue()  # type: ignore[no-untyped-call]
        if not self._due():
            try:
                list(listener.notifies(timeout=WAIT_SECONDS, stop_after=1))
            except psycopg.Error:
                self._drop()
            if not self._due():
                return None
        return super().dequeue()  # type: ignore[no-untyped-call]

    def _due(self) -> bool:
        """True when a task waits that nobody has claimed."""
        waiting = self.get_connection().filter(key=self.list_key, lock__lt=timezone.now())
        return bool(waiting.exists())

    def _listen(self) -> psycopg.Connection[Any] | None:
        """This process's own listening connection; None when the database cannot be reached now."""
        if self._pid != os.getpid():  # after a fork the parent's socket is not ours
            self._listener, self._pid = None, os.getpid()
        if self._listener is None or self._listener.closed:
            try:
                self._listener = psycopg.connect(**listen_parameters(), autocommit=True)
                self._listener.execute(f"listen {CHANNEL}")
            except psycopg.Error:
                self._drop()
        return self._listener

    def _drop(self) -> None:
        if self._listener is not None:
            self._listener.close()
        self._listener = None
