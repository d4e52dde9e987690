"""Our own OpenAPI schema, fuzzed: no answer is a 5xx, every answer is documented, and a 4xx changes no row.

Each call runs in a savepoint that is rolled back, so every example meets the same town. Derandomised: the same
examples each time.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import pytest
import schemathesis
from django.core.cache import cache
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from agents import roster, runs
from agents.api import tools, views
from agents.lifecycle import Role, RunKind, RunOutcome
from agents.models import Run
from beads import ledger
from beads.models import Fact
from tests.db.conftest import SHA, Place

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "12"))  # for each door and mode; 250 found nothing more
FUZZ = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=EXAMPLES,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
OPERATIONS = [*sorted(tools.REGISTRY), *views.SHIM_DOORS]
# a secret that fits, and a plan that holds together, are not guessed; this mayor was asked nothing
UNLIKELY = {"claim", "gt_convoy_create", "gt_mayor_answer"}
MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)


class Undone(Exception):
    """Rolls an example back."""


class Doors:
    """A town with a live run of each role, all its tables' digest, and the answers of its doors."""

    def __init__(self) -> None:
        self.place = Place(code_review=True, gates=[])
        place = self.place
        bead = place.bead("Paint the fence")
        place.tick()
        self.tokens: dict[str, str] = {}
        self.runs: dict[str, Run] = {}
        entry = place.entry("feature")
        place.tick()
        place.built(entry)
        for kind in ("polecat", "refinery"):
            self.runs[kind], self.tokens[kind] = place.running(kind=kind)
        mayor = place.bead("Plan the week")
        steps = [{"name": "mayor", "argv": ["true"]}]
        run = runs.queue_run(
            mayor,
            runs.Assignment(RunKind.MAYOR, "work", target="main", steps=steps, brief={}),
            agent=roster.mayor_for(place.town),
        )
        self.tokens["mayor"] = place.start(run)
        self.runs["mayor"] = Run.objects.get(pk=run.pk)
        plan = [{"key": "k", "title": "t", "body": "", "priority": 2, "after": [], "rig": place.rig}]
        convoy = ledger.create_convoy(place.rig, "Fair", "review-then-land", plan, actor="test")
        agent = self.runs["polecat"].agent
        assert agent is not None
        self.known = {"bead": bead.pk, "after": [bead.pk], "to": agent.name, "rig": "proj", "convoy": convoy.pk}
        self.client = Client(raise_request_exception=False)

    def post(self, path: str, body: bytes, token: str, headers: Mapping[str, str] | None = None) -> Any:
        shims = path.startswith("/api/runs/")
        secret = self.place.secrets.get(token, token) if shims else token
        sent = {"Authorization": f"Bearer {secret}", **(headers or {})}
        kind = sent.pop("Content-Type", "application/json")
        cache.clear()  # the brake on calls a minute is not what is looked at
        return self.client.generic("POST", path, body, content_type=kind, headers=sent)

    def refuses_cleanly(self, path: str, body: bytes, token: str, headers: Mapping[str, str] | None = None) -> int:
        """Send it, look at the answer and at the rows, undo it; returns the status."""
        status = 0
        before = digest()
        try:
            with transaction.atomic():
                answer = self.post(path, body, token, headers)
                status = answer.status_code
                told = json.loads(answer.content)
                assert status < 500, (path, body[:500], told)
                assert told["ok"] is (status < 300)
                if status >= 300:
                    assert set(told["error"]) == {"code", "message", "details"}
                    assert digest() == before, (path, body[:500], told)
                raise Undone
        except Undone:
            return status


def digest() -> str:
    """One mark over the rows of all tables."""
    names = connection.introspection.table_names()
    parts = [f"select '{n}' as t, md5(coalesce(string_agg(r::text, '|' order by r::text), '')) as m from {n} r"
             for n in sorted(names)]  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute(f"select md5(string_agg(t || m, ',' order by t)) from ({' union all '.join(parts)}) x")
        row = cursor.fetchone()
    assert row is not None
    return str(row[0])


@pytest.fixture
def doors(db: None) -> Doors:
    """Three agents at work."""
    return Doors()


def open_schema(doors: Doors) -> Any:
    accept = {"Authorization": f"Bearer {doors.tokens['mayor']}", "Accept": "application/vnd.oai.openapi+json"}
    return schemathesis.openapi.from_dict(doors.client.get("/api/schema/", headers=accept).json())


def caller(name: str) -> str:
    """Who may call it."""
    found = tools.REGISTRY.get(name)
    return "shim" if found is None else "polecat" if Role.POLECAT in found.roles else sorted(found.roles)[-1]


@pytest.mark.long
@pytest.mark.parametrize("mode", MODES, ids=lambda m: m.value)
@pytest.mark.parametrize("role", ["polecat", "refinery", "mayor", "shim"])
def test_what_the_schema_allows_or_forbids_is_answered_and_a_refusal_changes_nothing(
    doors: Doors, role: str, mode: GenerationMode
) -> None:
    schema = open_schema(doors)
    assert {f"/api/tools/{name}" for name in tools.REGISTRY} <= set(schema)
    for name in OPERATIONS:
        if caller(name) == role:
            seen = explore(doors, schema, name, "polecat" if role == "shim" else role, mode)
            # else the fuzz would only knock at closed doors
            assert mode is GenerationMode.NEGATIVE or name in UNLIKELY or seen[200], (name, seen)


def explore(doors: Doors, schema: Any, name: str, role: str, mode: GenerationMode) -> Counter[int]:
    """Send what the schema of one door generates; half of it names things that exist. Returns the statuses.

    Where so few examples were never let in, more are sent that all name things that exist.
    """
    run, token = doors.runs[role], doors.tokens[role]
    is_tool = name in tools.REGISTRY
    operation = schema[f"/api/tools/{name}" if is_tool else f"/api/runs/{{run_id}}/{name}"]["POST"]
    seen: Counter[int] = Counter()

    def send(case: Any, own: bool) -> None:
        sent = case.as_transport_kwargs(base_url="http://testserver")
        path = urlsplit(sent["url"]).path if is_tool or not own else f"/api/runs/{run.pk}/{name}"
        if own and isinstance(sent.get("json"), dict):
            sent["json"] = {k: doors.known.get(k, v) for k, v in sent["json"].items()}
        body = json.dumps(sent["json"]).encode() if "json" in sent else sent.get("data") or b""
        keep = {k: v for k, v in sent["headers"].items() if k in ("Content-Type", "Idempotency-Key")}
        seen[doors.refuses_cleanly(path, body, token, keep)] += 1

    cases = operation.as_strategy(generation_mode=mode)
    FUZZ(given(cases, st.booleans())(send))()
    if mode is GenerationMode.POSITIVE and not seen[200]:
        settings(FUZZ, max_examples=20 * EXAMPLES)(given(cases, st.just(True))(send))()
    assert set(seen) <= {int(code) for code in operation.definition.raw["responses"]}, (name, seen)
    return seen


DEEP = b"[" * 100_000
NASTY: tuple[bytes, ...] = (
    b"", b"{", b"null", b"[]", b'"x"', b"{} {}", b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf{}", b"\x00", b"NaN",
    DEEP, b'{"data": ' + DEEP + b"]" * 100_000 + b"}", b'{"data": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001,
    b'{"data": ' + b"[" * 500 + b"]" * 500 + b"}",
    b'{"data": 1e400}', b'{"data": -1e400}', b'{"data": NaN}', b'{"data": ' + b"9" * 5000 + b"}",
    b'{"data": ' + b"9" * 4000 + b"}", b'{"data": "\\ud800"}', b'{"data": {"\\u0000": 1}}', b'{"\\u0000": 1}',
    b'{"data": "' + b"x" * (1 << 20) + b'"}', b'{"message": "' + b"x" * (1 << 20) + b'"}', b"x" * (3 << 20),
    b'{"message": "a", "message": "b"}', b'{"message": "\\u202e"}', b'{"message": "\\ufdd0\\uffff"}',
    b'{"activity_at": "0001-01-01T00:00:00+14:00"}', b'{"activity_at": "9999-12-31T23:59:59-14:00"}',
    b'{"activity_at": 1e300}', b'{"activity_at": 99999999999999999999}', b'{"activity_at": "2026-02-30T00:00:00Z"}',
    b'{"steps": [{"name": 5}, {}, {"outcome_raw": "x"}], "exit_code": 0}', b'{"steps": [1]}', b'{"exit_code": 1e9}',
    b'{"exit_code": 99999999999}', b'{"published": "yes"}', b'{"head_sha": "main"}', b'{"salvage_ref": "\\u0000"}',
    b'{"error": {"a": 1}}', b'{"pid": 99999999999999999999999}', b'{"host": ["x"]}',
)  # fmt: skip
HEADERS: tuple[dict[str, str], ...] = (
    {"Idempotency-Key": ""}, {"Idempotency-Key": "x" * 201}, {"Idempotency-Key": "a\x00b"},
    {"Idempotency-Key": "schl\xfcssel"}, {"Idempotency-Key": "a\x7f"}, {"Content-Type": "text/plain"},
    {"Content-Type": "application/json; charset=utf-16"}, {"Content-Type": "application/json; charset=nonsense"},
    {"Content-Type": "multipart/form-data; boundary="}, {"Content-Type": ";;;"}, {"Content-Type": "\xff"},
    {"Accept": "text/html"}, {"Accept": "\x00"}, {"Content-Encoding": "gzip"}, {"Transfer-Encoding": "chunked"},
)  # fmt: skip


@pytest.mark.parametrize("name", ["gt_checkpoint", "gt_status", "gt_prime", *views.SHIM_DOORS])
def test_bodies_that_are_no_sane_json_are_refused_and_change_nothing(doors: Doors, name: str) -> None:
    run, token = doors.runs["polecat"], doors.tokens["polecat"]
    path = f"/api/tools/{name}" if name in tools.REGISTRY else f"/api/runs/{run.pk}/{name}"
    for body in NASTY:
        status = doors.refuses_cleanly(path, body, token)
        assert status in (200, 400, 409, 413), (body[:80], status)


@pytest.mark.parametrize("name", ["gt_status", *views.SHIM_DOORS])
def test_headers_that_make_no_sense_are_refused_and_change_nothing(doors: Doors, name: str) -> None:
    run, token = doors.runs["polecat"], doors.tokens["polecat"]
    path = f"/api/tools/{name}" if name in tools.REGISTRY else f"/api/runs/{run.pk}/{name}"
    for headers in HEADERS:
        status = doors.refuses_cleanly(path, b'{"message": "at work"}', token, headers)
        assert status in (200, 400, 406, 409, 415), (headers, status)


@pytest.mark.parametrize("token", ["", "x", "x" * 5000, "a b", "\xfcmlaut", "\x00", "Bearer"])
def test_tokens_that_are_none_are_refused_at_every_door(doors: Doors, token: str) -> None:
    for name in OPERATIONS:
        path = f"/api/tools/{name}" if name in tools.REGISTRY else f"/api/runs/{doors.runs['polecat'].pk}/{name}"
        unclaimable = name == "claim" and len(token.split()) == 1  # a secret, but not this run's
        assert doors.refuses_cleanly(path, b"{}", token) == (409 if unclaimable else 401), name


def test_the_word_of_a_fenced_run_is_noted_on_that_run_only_and_refused(doors: Doors) -> None:
    run = doors.runs["polecat"]
    runs.end(run.pk, "running", RunOutcome.LOST, "fenced", timezone.now())
    facts = Fact.objects.count()
    told = {"exit_code": 0, "head_sha": SHA["a"], "salvage_ref": "refs/gastown/salvage/x"}
    answer = doors.post(f"/api/runs/{run.pk}/exit", json.dumps(told).encode(), doors.tokens["polecat"])
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "run_superseded")
    run.refresh_from_db()
    saved = "refs/gastown/salvage/x"  # and no head: nothing has arrived
    assert (run.head_sha, run.salvage_ref, run.state, run.outcome) == ("", saved, "ended", "lost")
    assert Fact.objects.count() == facts
    before = digest()
    for name in OPERATIONS:
        path = f"/api/tools/{name}" if name in tools.REGISTRY else f"/api/runs/{run.pk}/{name}"
        assert doors.post(path, b"{}", doors.tokens["polecat"]).status_code in (200, 409)
    assert digest() == before
