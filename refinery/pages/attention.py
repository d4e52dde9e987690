"""What waits for a person, with the button for it: entries, what agents filed, convoys, escalations. Statuses come from
the caller."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.urls import reverse

from beads import questions
from beads.models import Convoy, Escalation
from refinery.core.beadviews import BeadView
from refinery.core.stages import ASKS_PERSON
from refinery.core.world import World


@dataclass(frozen=True, slots=True)
class Need:
    """Something that waits for a person. `act`: a URL to post to, with its button's `label`; else `url` is followed.

    `reason`: the label of a field for a reason, which may stay empty; `asks`: of a box for an answer; both are sent.
    `more`: further buttons, as (URL, label).
    `right`: what the person must be allowed to do for the button to be there (review or steer).
    """

    key: str
    kind: str
    title: str
    why: str
    url: str
    act: str = ""
    label: str = ""
    right: str = "steer"
    more: tuple[tuple[str, str], ...] = ()
    asks: str = ""
    reason: str = ""
    since: dt.datetime | str | None = None


def of_entries(rows: Iterable[dict[str, Any]]) -> list[Need]:
    """Review entries that wait for a person. Who waits for a check of the target is not asked about: the check is."""
    needs = []
    for row in rows:
        if row["stage"] not in ASKS_PERSON:
            continue
        url = reverse("review", args=[row["id"]])
        if row["held"]:
            act = reverse("review-act", args=[row["id"], "retry"])
            needs.append(
                Need(
                    row["id"],
                    "held",
                    row["title"],
                    row["detail"],
                    url,
                    act,
                    "Try again",
                    right="review",
                    since=row["created_at"],
                )
            )
        else:
            needs.append(
                Need(row["id"], "review", row["title"], row["detail"], url, label="Review it", since=row["created_at"])
            )
    return needs


def of_checks(world: World, why: Mapping[str, str]) -> list[Need]:
    """Lanes on whose target gates do not pass: one need for each, however many entries wait for it.
    `why`: by check."""
    return [
        Need(
            check.entry.id,
            "held",
            check.entry.title,
            why[check.entry.id],
            reverse("review", args=[check.entry.id]),
            reverse("review-act", args=[check.entry.id, "retry"]),
            "Check again",
            right="review",
            since=check.entry.created_at,
        )
        for check in world.checks
        if check.entry.held
    ]


def of_filed(beads: Iterable[BeadView]) -> list[Need]:
    """Beads that agents have filed, and that a person has to release (or cancel)."""
    return [
        Need(
            b.id,
            "filed",
            b.title,
            b.unreleased,
            reverse("bead", args=[b.id]),
            reverse("bead-act", args=[b.id, "release"]),
            "Release it",
            since=b.created_at,
        )
        for b in beads
    ]


def of_held(beads: Iterable[BeadView]) -> list[Need]:
    """Work that a person has stopped: it goes on when one says so, with a hint on its page or without."""
    return [
        Need(
            b.id,
            "held",
            b.title,
            b.hold,
            reverse("bead", args=[b.id]),
            reverse("bead-act", args=[b.id, "retry"]),
            "Go on",
            reason="Reason, for whoever works on it next",
            since=b.created_at,
        )
        for b in beads
    ]


def of_convoy(convoy: Convoy, phase: str, why: str, *, alone: bool = False) -> list[Need]:
    """What a convoy itself waits for. `alone`: on its own page, which has room to ask for a reason."""
    url = reverse("convoy", args=[convoy.pk])
    title, since = convoy.bead.title, convoy.bead.updated_at
    if phase == "staged":
        act = reverse("convoy-act", args=[convoy.pk, "start"])
        told = why
        if convoy.bead.unreleased:
            told = f"planned by {convoy.bead.created_by} in run {convoy.bead.filed_by}; {told}"
        return [Need(convoy.pk, "staged", title, told, url, act, "Start it", since=since)]
    if phase in ("needs_attention", "failed"):
        act = reverse("convoy-act", args=[convoy.pk, "retry"])
        reason = "Reason, for whoever works on it next" if alone else ""
        return [Need(convoy.pk, "failed", title, why, url, act, "Retry what failed", since=since, reason=reason)]
    return []


def of_questions(rows: Iterable[Escalation]) -> list[Need]:
    """Questions of agents that nobody has answered."""
    return [
        Need(
            e.pk,
            "question",
            e.bead.title,
            e.bead.body if e.bead.body.strip() != e.bead.title else "",
            reverse("bead", args=[e.about_id or e.pk]),
            reverse("escalation-act", args=[e.pk, "answer"]),
            "Answer",
            asks=f"Answer {e.bead.created_by}",
            more=((reverse("escalation-act", args=[e.pk, "close"]), "It needs no answer"),),
            since=e.bead.created_at,
        )
        for e in rows
        if e.closed_at is None
    ]


def of_escalations(rows: Iterable[Escalation], known: set[str]) -> list[Need]:
    """Open escalations that nobody has acknowledged, but for those whose cause is listed anyway. Questions
    come first, whatever else is listed of the same work."""
    rows = list(rows)
    return of_questions(e for e in rows if questions.is_question(e)) + [
        Need(
            e.pk,
            e.severity,
            e.bead.title,
            e.bead.body,
            reverse("bead", args=[e.about_id or e.pk]),
            *_answers(e),
            since=e.bead.created_at,
        )
        for e in rows
        if e.about_id not in known and e.acknowledged_at is None and not questions.is_question(e)
    ]


def _answers(e: Escalation) -> tuple[str, str, str, tuple[tuple[str, str], ...]]:
    """An escalation's buttons: URL, label, who may press them, and further ones; of a bead that has failed, its own."""
    if e.key == f"mayor:{e.about_id}":
        return "", "Answer it", "steer", ()
    seen = (reverse("escalation-act", args=[e.pk, "ack"]), "I have seen it")
    about = e.about_id or ""
    again = seen
    if about:
        again = (reverse("bead-act", args=[about, "retry"]), "Try again")
    if e.key.startswith(("budget:bead:", "budget:run:")):
        stop = (reverse("bead-act", args=[about, "cancel"]), "Stop: cancel the bead")
        return reverse("bead-act", args=[about, "budget"]), "Go on: as much again", "steer", (stop, seen)
    if e.key.startswith("budget:convoy:"):
        stop = (reverse("convoy-act", args=[about, "close"]), "Stop: close the convoy midway")
        return reverse("convoy-act", args=[about, "budget"]), "Go on: as much again", "steer", (stop, seen)
    if e.key.startswith("budget:day:"):
        return reverse("town-act", args=[e.town.slug, "budget"]), "Go on today: as much again", "steer", (seen,)
    if e.key == f"nothing:{about}":
        return reverse("bead-act", args=[about, "confirm"]), "Nothing was needed: close it", "steer", (again,)
    if e.key == f"failed:{about}":
        return *again, "steer", (seen,)
    return *seen, "steer", ()
