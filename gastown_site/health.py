"""Is it alive (`/healthz`), is it ready (`/readyz`), and how does it do (`/metrics`, Prometheus)."""

from __future__ import annotations

import datetime as dt
import functools
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError, connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from agents.models import Run
from beads import ops, people
from beads.models import Bead, Effect, Fact
from gastown_site.parts import watch
from refinery.core.states import EntryKind
from refinery.models import GateResult, ReviewEntry, TickRecord, TickTotal, Violation
from refinery.pages import spending
from refinery.pages.live import hub

log = structlog.get_logger(__name__)


def healthz(request: HttpRequest) -> HttpResponse:
    """The process answers."""
    return JsonResponse({"ok": True})


def _allowed(request: HttpRequest) -> bool:
    """Who sends the metrics token, a member of some town or staff; a run's token opens nothing here."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    wanted: str = settings.GASTOWN_METRICS_TOKEN
    if scheme.lower() == "bearer" and wanted and secrets.compare_digest(token.encode(), wanted.encode()):
        return True
    return people.may_anywhere(request.user) or people.enters_console(request.user)


def _refused() -> HttpResponse:
    error = {"code": "unauthenticated", "message": "log in, or send the metrics token", "details": {}}
    answer = JsonResponse({"ok": False, "error": error}, status=401)
    answer["WWW-Authenticate"] = "Bearer"
    return answer


@dataclass(frozen=True)
class Standing:
    """How one part is: nothing is wrong with it, or what is, and since when as far as one knows."""

    part: str
    wrong: str = ""
    since: dt.datetime | None = None


def standings() -> list[Standing]:
    """The database, its tables, and each part that shows by heartbeats that it works."""
    try:
        missing = missing_migrations()
        seen = {}
        if not missing:
            seen = ops.heartbeats()
    except DatabaseError as error:
        return [Standing("database", f"cannot be asked: {' '.join(str(error).split())}")]
    if missing:
        return [Standing("database"), Standing("migrations", f"{len(missing)} are missing")]
    return [Standing("database"), Standing("migrations"), *(_of_part(row, seen) for row in watch.WATCHED if row.beats)]


def _of_part(row: watch.Watched, seen: dict[str, dt.datetime]) -> Standing:
    at = seen.get(row.key)
    if at is None:
        return Standing(row.name, "never seen")
    age = (timezone.now() - at).total_seconds()
    if age > row.limit:
        return Standing(row.name, f"last seen {age:.0f} s ago, at {at.isoformat(timespec='seconds')}", at)
    return Standing(row.name)


@functools.cache
def _known_migrations() -> frozenset[tuple[str, str]]:
    return frozenset(MigrationLoader(None).graph.nodes)


def missing_migrations() -> set[tuple[str, str]]:
    """What this release has and the database has not. Raises DatabaseError."""
    return set(_known_migrations()) - set(MigrationRecorder(connection).applied_migrations())


def readyz(request: HttpRequest) -> HttpResponse:
    """200, or 503 with each part that is not as it should be, and since when."""
    try:
        if not _allowed(request):
            return _refused()
    except DatabaseError:  # nobody can be known; who asks learns no more than that
        return JsonResponse(_told([Standing("database", "cannot be asked")]), status=503)
    told = _told(standings())
    return JsonResponse(told, status=200 if told["ok"] else 503)


def _told(found: list[Standing]) -> dict[str, Any]:
    wrong = [{"part": s.part, "reason": s.wrong, "since": s.since} for s in found if s.wrong]
    return {"ok": not wrong, "data": {s.part: s.wrong or "ok" for s in found}, "reasons": wrong}


class Away:
    """Middleware: a page that cannot be made because the database is away says so, and when to come again (503)."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Pass it on."""
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Of a view."""
        if not isinstance(error, OperationalError | InterfaceError):
            return None
        log.error("page.database", path=request.path, error=" ".join(str(error).split()))
        said = "The database cannot be reached now. It is waited for: load this page again in some seconds.\n"
        return HttpResponse(said, status=503, content_type="text/plain; charset=utf-8", headers={"Retry-After": "5"})


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
        ("gastown_review_entries", "Review entries", ReviewEntry.objects.exclude(kind=EntryKind.CHECK), ("state",)),
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
    _money(registry)
    broken = Violation.objects.filter(cleared_at=None)
    Gauge("gastown_violations_open", "Invariants that are broken now", registry=registry).set(broken.count())
    Gauge("gastown_live_browsers", "Browsers on this server process's event streams", registry=registry).set(
        len(hub.waiters)
    )
    ages = Gauge("gastown_heartbeat_age_seconds", "Since a part was last seen", ["part"], registry=registry)
    now = timezone.now()
    for part, at in ops.heartbeats().items():
        ages.labels(part).set((now - at).total_seconds())


def _money(registry: CollectorRegistry) -> None:
    """What models were used, and what is known of the cost. Gauges: what is past its retention is in them no more."""
    labels = ["town", "rig", "model", "source"]
    cost = Gauge("gastown_model_cost_usd", "Cost of models, where it is known", labels, registry=registry)
    calls = Gauge("gastown_model_calls", "Calls of models", labels, registry=registry)
    tokens = Gauge("gastown_model_tokens", "Tokens", [*labels, "kind"], registry=registry)
    for (town, rig, model, source), spent in spending.by_rig():
        cost.labels(town, rig, model, source).set(float(spent.cost))
        calls.labels(town, rig, model, source).set(spent.calls)
        for kind in ("input", "cached", "written", "output"):
            tokens.labels(town, rig, model, source, kind).set(getattr(spent, kind))
    landed = Gauge("gastown_landed_beads", "Beads whose change has landed", ["town", "rig"], registry=registry)
    for town, rig, count in spending.landed_by_rig():
        landed.labels(town, rig).set(count)


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
