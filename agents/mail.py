"""The only writer of Mail and Nudge. Mail is kept, and told once; a nudge is shown once and expires.

Names of agents are used again by other beads, so what is for an agent belongs to the work that it is about
(`Mail.bead`) and is told to that work's runs, whoever does them by then. A run that has reported its result has taken
in what it was told; what a run was told that ended otherwise is told again to the next one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Q, QuerySet

from agents.lifecycle import Role, RunState
from agents.models import Agent, Mail, Nudge, Run
from beads import inbox, prune
from beads.errors import Conflict, NotFound
from beads.ledger import check_text
from beads.lifecycle import is_final
from beads.models import Bead, Town

PEOPLE = frozenset({"overseer", "mayor"})
WORKER = "polecat"  # the recipient of what is for whoever works on a bead
ASKED = "CHANGES_REQUESTED"  # a person's request to a run at work: the next run's brief has it
NUDGE_LIFE = dt.timedelta(minutes=30)


@dataclass(frozen=True)
class Letter:
    """What a mail says. `about`: the bead that it speaks of."""

    subject: str
    body: str = ""
    kind: str = "NOTE"
    about: Bead | None = None


def send(
    town: Town, sender: str, recipient: str, letter: Letter, *, bead: Bead | None = None, kin: Sequence[str] = ()
) -> Mail:
    """Send to an agent of the town by name, to whoever works on `bead` (`polecat`), to `mayor`, or to `overseer`.

    `bead`: whose work it belongs to. Without one, that is found out: the sender's (`kin`: all beads of it) where the
    recipient has worked on that, else what it works on now, else what it worked on last. NotFound names the recipient;
    Conflict says that a polecat has no work that anybody could be told of it in.
    """
    agent = None
    if recipient not in PEOPLE and not (recipient == WORKER and bead is not None):
        agent = Agent.objects.filter(town=town, name=recipient).first()
        if agent is None:
            raise NotFound(f"no agent {recipient!r} in town {town.slug}", details={"field": "to"})
    if agent is not None and bead is None:
        bead = _work_of(agent, letter.about, kin)
    sent = Mail.objects.create(
        town=town,
        sender=sender[:100],
        recipient=recipient,
        kind=check_text("kind", letter.kind, 40, required=True),
        subject=check_text("subject", letter.subject, 300, required=True),
        body=check_text("body", letter.body, 256 * 1024),
        about=letter.about,
        bead=bead,
    )
    inbox.changed(town.slug)
    return sent


def _work_of(agent: Agent, about: Bead | None, kin: Sequence[str]) -> Bead | None:
    """The bead in whose runs an agent is told of a letter; None for who is the same from one bead to the next."""
    if agent.role != Role.POLECAT:
        return about
    runs = Run.objects.select_related("bead").filter(agent=agent).order_by("-created_at")
    mine = list(kin)
    if about is not None:
        mine.append(about.pk)
    common = runs.filter(bead__in=mine).first()
    run = common or runs.live().first() or runs.first()
    if run is None or (run.state == RunState.ENDED and is_final(run.bead.status)):
        raise Conflict(f"{agent.name} has no work now, so nobody would read it", details={"field": "to"})
    return run.bead


def for_run(run: Run, limit: int = 50) -> Sequence[Mail]:
    """Unread mail for a run, oldest first: of its bead's work, or of its agent and no work, since the run was made."""
    return list(_unread(run).order_by("id")[:limit])


def count_for(run: Run) -> int:
    """How much unread mail there is for a run."""
    return _unread(run).count()


def _unread(run: Run) -> QuerySet[Mail]:
    beads = run.brief.get("beads") or [run.bead_id]
    name = run.pk
    if run.agent:
        name = run.agent.name
    unread = Mail.objects.filter(town=run.town_id, read_at=None).exclude(recipient="overseer")
    by_name = Q(bead=None, recipient=name)
    if run.kind == Role.POLECAT:
        others = Agent.objects.filter(town=run.town_id).exclude(role=Role.POLECAT).values("name")
        of_work = Q(bead__in=beads) & ~Q(recipient__in=others)
        by_name &= Q(created_at__gte=run.created_at)
    else:
        of_work = Q(bead__in=beads, recipient=name)
    return unread.filter(of_work | by_name)


def note_told(mail: Iterable[Mail], run: Run) -> None:
    """Note that a run is told these: in its prompt, or by `gt_prime`."""
    Mail.objects.filter(pk__in=[m.pk for m in mail], read_at=None).exclude(run=run).update(run=run)


def took_in(run: Run, now: dt.datetime) -> None:
    """A run has reported its result: what it was told is read."""
    Mail.objects.filter(run=run, read_at=None).update(read_at=now)


def briefed(beads: Iterable[str], now: dt.datetime) -> None:
    """A run of this work has just been given all requests in its brief: they are no news in its mail."""
    Mail.objects.filter(bead__in=list(beads), kind=ASKED, read_at=None).update(read_at=now)


def data(m: Mail) -> dict[str, Any]:
    """A mail as tools, commands and prompts show it."""
    return {
        "id": m.pk,
        "from": m.sender,
        "to": m.recipient,
        "kind": m.kind,
        "subject": m.subject,
        "body": m.body,
        "about": m.about_id,
        "bead": m.bead_id,
        "at": m.created_at.isoformat(),
        "read": m.read_at is not None,
    }


def mark_read(mail: Sequence[Mail], now: dt.datetime) -> None:
    """Note that these were read."""
    Mail.objects.filter(pk__in=[m.pk for m in mail], read_at=None).update(read_at=now)


def nudge(run: Run, sender: str, message: str, now: dt.datetime) -> Nudge:
    """Leave a short-lived hint for an agent's run."""
    assert run.agent is not None
    return Nudge.objects.create(
        agent=run.agent,
        run=run,
        sender=sender[:100],
        message=check_text("message", message, 1000, required=True),
        expires_at=now + NUDGE_LIFE,
    )


def take_nudges(run: Run, now: dt.datetime) -> list[str]:
    """A run's undelivered nudges, marked delivered."""
    waiting = list(Nudge.objects.filter(run=run, delivered_at=None, expires_at__gt=now).order_by("id")[:20])
    Nudge.objects.filter(pk__in=[n.pk for n in waiting]).update(delivered_at=now)
    return [f"{n.sender}: {n.message}" for n in waiting]


def past(town: Town, before: dt.datetime) -> QuerySet[Mail]:
    """Mail that was read before then and is about no bead; the rest goes with its bead, or waits to be read."""
    return Mail.objects.filter(town=town, about=None, read_at__lt=before).order_by("pk")


def past_nudges(town: Town, before: dt.datetime) -> QuerySet[Nudge]:
    """Nudges that had expired then."""
    return Nudge.objects.filter(agent__town=town, expires_at__lt=before).order_by("pk")


def forget(keys: Sequence[int]) -> int:
    """Remove this mail: it has been archived."""
    return prune.some(Mail.objects.all(), keys)


def forget_nudges(keys: Sequence[int]) -> int:
    """Remove these nudges: they have been archived."""
    return prune.some(Nudge.objects.all(), keys)
