"""Is it alive (`/healthz`), is it ready (`/readyz`), and how does it do (`/metrics`, Prometheus)."""

from __future__ import annotations

import datetime as dt
import secrets
from typing import Any

from django.conf import settings
from django.db import DatabaseError, connection
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from agents.models import Run
from beads import ops, people
from beads.models import Bead, Effect, Fact
from refinery.live import hub
from refinery.models import GateResult, ReviewEntry, TickRecord, TickTotal, Violation

FRESH = dt.timedelta(seconds=90)
PARTS = ("reconciler", "executor", "cluster", "runner")


def healthz(request: HttpRequest) -> HttpResponse:
    """The process answers."""
    return JsonResponse({"ok": True})


def _allowed(request: HttpRequest) -> bool:
    """A member of some town or staff, or the metrics token; a run's token opens nothing here."""
    if people.may_anywhere(request.user) or people.enters_console(request.user):
        return True
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        return False
    wanted: str = settings.GASTOWN_METRICS_TOKEN
    return bool(wanted) and secrets.compare_digest(token.encode(), wanted.encode())


def _refused() -> HttpResponse:
    error = {"code": "unauthenticated", "message": "log in, or send the metrics token", "details": {}}
    answer = JsonResponse({"ok": False, "error": error}, status=401)
    answer["WWW-Authenticate"] = "Bearer"
    return answer


def readiness() -> dict[str, str]:
    """Each part: `ok`, or what is wrong with it."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("select 1")
        seen = ops.heartbeats()
    except DatabaseError as error:
        return {"database": f"cannot be asked: {error}"}
    now = timezone.now()
    told = {"database": "ok"}
    for part in PARTS:
        at = seen.get(part)
        if at is None:
            told[part] = "never seen"
        elif now - at > FRESH:
            told[part] = f"last seen {at.isoformat(timespec='seconds')}"
        else:
            told[part] = "ok"
    return told


def readyz(request: HttpRequest) -> HttpResponse:
    """The database and the heartbeats of the other processes."""
    if not _allowed(request):
        return _refused()
    parts = readiness()
    ready = all(word == "ok" for word in parts.values())
    return JsonResponse({"ok": ready, "data": parts}, status=200 if ready else 503)


def metrics(request: HttpRequest) -> HttpResponse:
    """Computed from the database at each scrape."""
    if not _allowed(request):
        return _refused()
    registry = CollectorRegistry()
    _fill(registry)
    return HttpResponse(generate_latest(registry), content_type="text/plain; version=0.0.4; charset=utf-8")


def _fill(registry: CollectorRegistry) -> None:
    counted: tuple[tuple[str, str, QuerySet[Any], tuple[str, ...]], ...] = (
        ("gastown_beads", "Beads", Bead.objects.all(), ("type", "status")),
        ("gastown_runs", "Runs", Run.objects.all(), ("kind", "state", "outcome")),
        ("gastown_review_entries", "Review entries", ReviewEntry.objects.all(), ("state",)),
        ("gastown_effects", "Effects", Effect.objects.all(), ("kind", "state")),
    )
    for name, text, rows, labels in counted:
        gauge = Gauge(name, text, labels, registry=registry)
        for row in rows.order_by().values_list(*labels).annotate(n=Count("pk")):
            gauge.labels(*row[:-1]).set(row[-1])
    facts = Fact.objects.filter(processed_at=None)
    Gauge("gastown_facts_pending", "Facts to be drained", registry=registry).set(
        facts.filter(quarantined_at=None).count()
    )
    Gauge("gastown_facts_quarantined", "Facts in quarantine", registry=registry).set(
        facts.filter(quarantined_at__isnull=False).count()
    )
    _flakes(registry)
    _ticks(registry)
    broken = Violation.objects.filter(cleared_at=None)
    Gauge("gastown_violations_open", "Invariants that are broken now", registry=registry).set(broken.count())
    Gauge("gastown_live_browsers", "Browsers on this server process's event streams", registry=registry).set(
        len(hub.waiters)
    )
    ages = Gauge("gastown_heartbeat_age_seconds", "Since a part was last seen", ["part"], registry=registry)
    now = timezone.now()
    for part, at in ops.heartbeats().items():
        ages.labels(part).set((now - at).total_seconds())


def _flakes(registry: CollectorRegistry) -> None:
    """Results that contradict another of the same tree, ever."""
    text = "Gate results that contradict another one of the same tree"
    counter = Counter("gastown_gate_flakes", text, ["town", "rig", "gate"], registry=registry)
    rows = (
        GateResult.objects.filter(flaky=True)
        .order_by()
        .values_list("entry__rig__town__slug", "entry__rig__slug", "gate")
    )
    for town, rig, gate, count in rows.annotate(n=Count("pk")):
        counter.labels(town, rig, gate).inc(count)


_SUMS = {
    "ticks": "Ticks that changed something",
    "facts": "Facts drained",
    "lost_races": "Decisions that lost a race",
    "failed": "Decisions that could not be carried out",
    "violations": "Broken invariants seen by ticks",
    "effects_done": "Effects that succeeded",
    "effects_failed": "Effects that gave up",
    "milliseconds": "Wall milliseconds spent in ticks",
}


def _ticks(registry: CollectorRegistry) -> None:
    """The sums of all ticks, and the latest one."""
    counters = {
        name: Counter(f"gastown_tick_{name}", text, ["town"], registry=registry) for name, text in _SUMS.items()
    }
    actions = Counter("gastown_tick_actions", "Actions carried out", ["town", "action"], registry=registry)
    for total in TickTotal.objects.select_related("town"):
        for name, counter in counters.items():
            counter.labels(total.town.slug).inc(total.sums.get(name, 0))
        for name, count in total.sums.get("actions", {}).items():
            actions.labels(total.town.slug, name).inc(count)
    latest = Gauge(
        "gastown_last_tick_milliseconds", "Wall milliseconds of the latest tick", ["town"], registry=registry
    )
    newest = TickRecord.objects.order_by("town_id", "-at").distinct("town_id").select_related("town")
    for record in newest:
        latest.labels(record.town.slug).set(record.milliseconds)
