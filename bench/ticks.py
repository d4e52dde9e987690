"""One tick over 500 live beads, and over the same with 100,000 closed ones: at most 1.2 ×, the same queries."""

from __future__ import annotations

import statistics
import time

from bench.django_town import installation

LIVE, CLOSED, ROUNDS, TARGET = 500, 100_000, 15, 1.2


def main() -> None:
    """Print both, and the ratio."""
    with installation():
        from django.db import connection
        from django.test.utils import CaptureQueriesContext
        from django.utils import timezone

        from beads import ledger
        from beads.models import Bead
        from refinery.tick import reconciler

        town = ledger.create_town("bench", {"agents": {"polecat": {"command": ["x"]}}})
        rig = ledger.create_rig(town, "bench", "/none.git", "main")
        ledger.park_rig(rig)
        for n in range(LIVE):
            ledger.create_bead(town, rig, ledger.Draft(f"live {n}"), actor="bench")

        def measure() -> tuple[float, int]:
            times = []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                reconciler.tick(town)
                times.append((time.perf_counter() - began) * 1000)
            with CaptureQueriesContext(connection) as caught:
                reconciler.tick(town)
            return statistics.median(times), len(caught)

        with connection.cursor() as cursor:
            cursor.execute("vacuum analyze")
        few, few_queries = measure()
        done = {"status": "closed", "resolution": "done", "closed_at": timezone.now()}
        for start in range(0, CLOSED, 10_000):
            rows = [Bead(town=town, rig=rig, title=f"closed {start + n}", **done) for n in range(10_000)]
            Bead.objects.bulk_create(rows)
        with connection.cursor() as cursor:
            cursor.execute("vacuum analyze")
        many, many_queries = measure()
        print(f"{LIVE} live: {few:.1f} ms, {few_queries} queries")
        print(f"{LIVE} live and {CLOSED} closed: {many:.1f} ms, {many_queries} queries")
        print(f"ratio {many / few:.2f} (target ≤ {TARGET})")
