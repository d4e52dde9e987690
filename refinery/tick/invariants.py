"""What must always hold and no constraint can say: each with a number, a sentence, a query, and what to do about it.

Checked at the end of each tick on what it touched, over everything by `doctor` and the hourly housekeeping; always in
one round trip. This module is the only writer of Violation: a broken promise is a row, a log line and a metric until
it is seen to hold again. Waiting is no violation: people's holds, pull requests and paused towns are legal for ever.

A query gives the ids of what breaks the promise. It may use `%(town)s`, `%(old)s` (before this, what should be under
way is overdue) and `{scope:column}`, which is true for the ids that are looked at.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from django.db import connection
from django.db.models import QuerySet

from beads import prune
from beads.models import Town
from refinery.models import Violation

log = structlog.get_logger(__name__)
GRACE = dt.timedelta(minutes=5)
AT_MOST = 1000
_LIVE_RUN = "r.state in ('queued', 'starting', 'running')"
_ENDED = "status in ('closed', 'failed')"
_ENTRIES = "refinery_reviewentry e join beads_bead eb on eb.id = e.bead_id and eb.town_id = %(town)s"


@dataclass(frozen=True)
class Invariant:
    """One promise."""

    number: int
    sentence: str
    remedy: str
    query: str


@dataclass(frozen=True)
class Broken:
    """A promise that does not hold for a subject."""

    invariant: Invariant
    subject: str


INVARIANTS = (
    Invariant(
        1,
        "A merged entry has a landing that git confirmed, of exactly its candidate",
        "compare the target with the entry's page; revert by hand what should not be there",
        f"""select e.bead_id from {_ENTRIES} where e.state = 'merged' and e.reason = 'merged' and {{scope:e.bead_id}}
            and not exists (select 1 from refinery_landing l join refinery_candidate c on c.id = l.candidate_id
            where l.entry_id = e.bead_id and l.state = 'landed' and c.sha = e.merge_sha)""",
    ),
    Invariant(
        2,
        "What landed had passed every gate that it needs, by itself or as its batch, or a person had waived them",
        "look at the gate results of the landed tree; revert by hand what should not be there",
        """select l.entry_id from refinery_landing l join refinery_candidate c on c.id = l.candidate_id
            join beads_bead b on b.id = l.entry_id and b.town_id = %(town)s,
            jsonb_array_elements(l.evidence) as seen
            where l.state = 'landed' and {scope:l.entry_id}
            and not exists (select 1 from refinery_candidate sc
            where sc.id = coalesce((seen->>'batch')::bigint, c.id) and sc.tree_sha = seen->>'tree'
            and (sc.id = c.id or sc.seal_sha <> '' and exists
            (select 1 from refinery_landing s where s.candidate_id = sc.id and s.state = 'landed'))
            and (seen->>'outcome' = 'pass' or seen->>'outcome' = 'not_needed'
            and exists (select 1 from jsonb_array_elements(sc.untouched) u where u = seen->'paths')
            or seen->>'outcome' = 'skipped' and sc.id = c.id and exists (select 1 from refinery_waiver w
            where w.id::text = seen->>'waiver' and w.entry_id = l.entry_id and w.head_sha = c.head_sha
            and w.by = seen->>'by' and w.reason = seen->>'because')))""",
    ),
    Invariant(
        3,
        "A bead is closed as merged only by a merged entry",
        "look at the bead's history; sling the work again if it is missing",
        """select b.id from beads_bead b where b.town_id = %(town)s and b.type = 'issue' and b.purpose = 'work'
            and b.resolution = 'merged' and {scope:b.id} and not exists
            (select 1 from refinery_reviewentry e where e.source_id = b.id and e.state = 'merged')""",
    ),
    Invariant(
        4,
        "An active entry's own bead is live, an ended entry's has ended",
        "run a tick; if it stays: mq reject, then submit the branch again",
        f"select e.bead_id from {_ENTRIES} where {{scope:e.bead_id}} and (e.state = 'active') = (eb.{_ENDED})",
    ),
    Invariant(
        5,
        "A merged entry's source is closed",
        "run a tick; then bead cancel",
        f"""select e.bead_id from {_ENTRIES} join beads_bead s on s.id = e.source_id
            where e.state = 'merged' and s.status <> 'closed' and {{scope:e.bead_id}}""",
    ),
    Invariant(
        6,
        "A convoy landed with all its beads closed and a merged landing entry",
        "convoy show, and compare the target with its feature branch",
        """select v.bead_id from beads_convoy v join beads_bead b on b.id = v.bead_id and b.town_id = %(town)s
            where b.resolution = 'merged' and {scope:v.bead_id} and (v.landed_sha = ''
            or exists (select 1 from beads_bead x where x.convoy_id = v.bead_id and x.status <> 'closed')
            or not exists (select 1 from refinery_reviewentry e
            where e.convoy_id = v.bead_id and e.kind = 'landing' and e.state = 'merged'))""",
    ),
    Invariant(
        7,
        "No bead works for a convoy that has ended",
        "bead cancel",
        f"""select b.id from beads_bead b join beads_bead v on v.id = b.convoy_id and v.{_ENDED}
            where b.town_id = %(town)s and b.type = 'issue' and not b.{_ENDED} and {{scope:b.id}}""",
    ),
    Invariant(
        8,
        "Work in progress has a run",
        "run a tick; then bead cancel and sling again",
        f"""select b.id from beads_bead b where b.town_id = %(town)s and b.type = 'issue' and b.status = 'in_progress'
            and b.updated_at < %(old)s and {{scope:b.id}} and not exists (select 1 from agents_run r
            where r.bead_id = b.id and ({_LIVE_RUN} or r.ended_at >= %(old)s
            or (not r.on_remote and r.publish_requested_at is not null)))""",
    ),
    Invariant(
        9,
        "Work in review has an entry",
        "run a tick; then bead cancel and sling again",
        """select b.id from beads_bead b where b.town_id = %(town)s and b.type = 'issue' and b.status = 'in_review'
            and b.updated_at < %(old)s and {scope:b.id} and not exists (select 1 from refinery_reviewentry e
            where e.source_id = b.id and (e.state = 'active' or e.closed_at >= %(old)s))""",
    ),
    Invariant(
        10,
        "A live run works for a live bead",
        "runs stop",
        f"""select r.id from agents_run r join beads_bead b on b.id = r.bead_id where r.town_id = %(town)s
            and {_LIVE_RUN} and b.{_ENDED} and b.closed_at < %(old)s and r.stop_requested_at is null
            and ({{scope:r.id}} or {{scope:b.id}})""",
    ),
    Invariant(
        11,
        "A running run has a lease, or is fenced",
        "is the reconciler running? see doctor",
        """select r.id from agents_run r where r.town_id = %(town)s and r.state = 'running'
            and (r.lease_until is null or r.lease_until < %(old)s) and {scope:r.id}""",
    ),
    Invariant(
        12,
        "What has a place in a lane waits for nobody",
        "mq retry",
        f"""select e.bead_id from {_ENTRIES} where e.state = 'active' and e.admitted_at is not null and e.held <> ''
            and {{scope:e.bead_id}}""",
    ),
    Invariant(
        13,
        "A rework or conflict task belongs to an active entry",
        "bead cancel",
        f"""select b.id from beads_bead b where b.town_id = %(town)s and b.type = 'issue' and b.purpose <> 'work'
            and not b.{_ENDED} and b.updated_at < %(old)s and {{scope:b.id}} and not exists
            (select 1 from refinery_reviewentry e where e.bead_id = b.parent_id and e.state = 'active')""",
    ),
    Invariant(
        14,
        "What failed or is held says why",
        "look at its history",
        f"""select b.id from beads_bead b where b.town_id = %(town)s and b.type = 'issue' and b.status = 'failed'
            and b.reason = '' and {{scope:b.id}} union all
            select e.bead_id from {_ENTRIES} where e.state = 'active' and e.held <> '' and e.held_text = ''
            and {{scope:e.bead_id}}""",
    ),
    Invariant(
        15,
        "Outside work that is due is tried",
        "is the cluster running? see doctor",
        """select 'effect ' || f.key from beads_effect f where f.town_id = %(town)s and f.state = 'pending'
            and f.next_try_at < %(old)s and %(all)s""",
    ),
    Invariant(
        16,
        "Facts are drained",
        "is the reconciler running? see doctor",
        """select 'fact ' || f.id from beads_fact f where f.town_id = %(town)s and f.processed_at is null
            and f.quarantined_at is null and f.recorded_at < %(old)s and %(all)s""",
    ),
    Invariant(
        17,
        "What landed is the head that the entry names",
        "compare the target with the entry",
        f"""select e.bead_id from {_ENTRIES} join refinery_landing l on l.entry_id = e.bead_id and l.state = 'landed'
            join refinery_candidate c on c.id = l.candidate_id
            where c.head_sha <> e.head_sha and {{scope:e.bead_id}}""",
    ),
    Invariant(
        18,
        "No agent works on what waits for a person's release",
        "runs stop; then bead release or bead cancel",
        f"""select b.id from beads_bead b where b.town_id = %(town)s and b.filed_by <> '' and b.released_at is null
            and {{scope:b.id}} and exists (select 1 from agents_run r where r.bead_id = b.id and {_LIVE_RUN})""",
    ),
)


def _statement(all_: bool) -> str:
    """All queries as one statement: (number, subject) of everything that is broken."""
    scope = "true" if all_ else r"\1 = any(%(ids)s)"
    parts = (f"select {i.number} as number, subject from ({i.query}) as broken(subject)" for i in INVARIANTS)
    return re.sub(r"\{scope:([a-z.]+_?[a-z]*)\}", scope, " union ".join(parts)) + f" limit {AT_MOST}"


_EVERYTHING, _SOME = _statement(True), _statement(False)
_BY_NUMBER = {i.number: i for i in INVARIANTS}


def look(town: Town, now: dt.datetime, ids: Iterable[str] | None = None) -> list[Broken]:
    """Everything that breaks a promise; with `ids`, among these beads and runs. Reads only."""
    told: dict[str, Any] = {
        "town": town.pk,
        "old": now - GRACE,
        "all": ids is None,
        "ids": None,
    }
    statement = _EVERYTHING
    if ids is not None:
        statement, told["ids"] = _SOME, sorted(ids)
    with connection.cursor() as cursor:
        cursor.execute(statement, told)
        return [Broken(_BY_NUMBER[number], str(subject)) for number, subject in cursor.fetchall()]


def check(town: Town, now: dt.datetime, ids: Iterable[str] | None = None) -> list[Broken]:
    """`look`, and keep the table of open violations in step with it; returns what is broken."""
    known = {(v.number, v.subject): v for v in Violation.objects.filter(town=town, cleared_at=None)}
    if ids is not None:
        ids = frozenset(ids) | {subject for _, subject in known}
    found = look(town, now, ids)
    for broken in found:
        invariant, subject = broken.invariant, broken.subject[:200]
        if (invariant.number, subject) not in known:
            Violation.objects.create(
                town=town,
                number=invariant.number,
                subject=subject,
                sentence=invariant.sentence,
                remedy=invariant.remedy,
                first_seen=now,
            )
            log.error("invariant.violated", number=invariant.number, subject=subject, sentence=invariant.sentence)
    seen = {(b.invariant.number, b.subject[:200]) for b in found}
    gone = [v.pk for key, v in known.items() if key not in seen and (ids is None or v.subject in ids)]
    if gone:
        Violation.objects.filter(pk__in=gone).update(cleared_at=now)
    return found


def past(town: Town, before: dt.datetime) -> QuerySet[Violation]:
    """What was seen broken, and seen to hold again before then."""
    return Violation.objects.filter(town=town, cleared_at__lt=before).order_by("pk")


def forget(keys: Sequence[int]) -> int:
    """Remove these: they have been archived."""
    return prune.some(Violation.objects.all(), keys)
