"""What an operator filters by at three in the morning: questions, not columns."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from agents.lifecycle import RunOutcome, RunState
from beads.lifecycle import FINAL, BeadStatus, EffectState
from refinery.core.states import EntryKind, EntryState

Question = Callable[[dt.datetime], Q]
FAILING = 3  # tries after which an effect is worth a word
_ENDED = Q(status__in=FINAL)
_UNDONE = (RunOutcome.FAILED, RunOutcome.LOST, RunOutcome.START_FAILED)


class Asked(admin.SimpleListFilter):
    """A filter of named questions; subclasses list `questions`: key → (words, condition at a moment)."""

    questions: dict[str, tuple[str, Question]] = {}

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, str]]:
        """The questions."""
        return [(key, words) for key, (words, _) in self.questions.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Model]) -> QuerySet[Model]:
        """The rows that answer the chosen one."""
        chosen = self.questions.get(self.value() or "")
        if chosen is None:
            return queryset
        return queryset.filter(chosen[1](timezone.now()))


class FactFilter(Asked):
    """Where a fact stands."""

    title = "state"
    parameter_name = "now"
    questions = {
        "pending": ("pending", lambda now: Q(processed_at=None, quarantined_at=None)),
        "quarantined": ("in quarantine", lambda now: Q(processed_at=None, quarantined_at__isnull=False)),
        "drained": ("drained", lambda now: Q(processed_at__isnull=False)),
    }


class EffectFilter(Asked):
    """Where an effect stands."""

    title = "state"
    parameter_name = "now"
    questions = {
        "pending": ("pending", lambda now: Q(state=EffectState.PENDING)),
        "failing": ("keeps failing", lambda now: Q(state=EffectState.PENDING, attempts__gte=FAILING)),
        "late": (
            "due for more than a minute",
            lambda now: Q(state=EffectState.PENDING, next_try_at__lt=now - dt.timedelta(minutes=1)),
        ),
        "failed": ("given up", lambda now: Q(state=EffectState.FAILED)),
        "done": ("done", lambda now: Q(state=EffectState.DONE)),
    }


class RunFilter(Asked):
    """Where a run stands."""

    title = "now"
    parameter_name = "now"
    questions = {
        "live": ("live", lambda now: ~Q(state=RunState.ENDED)),
        "waiting": ("waits for a runner", lambda now: Q(state=RunState.QUEUED)),
        "late": ("lease run out", lambda now: Q(state=RunState.RUNNING, lease_until__lt=now)),
        "silent": (
            "no activity for 10 minutes",
            lambda now: Q(state=RunState.RUNNING, activity_at__lt=now - dt.timedelta(minutes=10)),
        ),
        "asked": ("was asked to stop", lambda now: ~Q(state=RunState.ENDED) & Q(stop_requested_at__isnull=False)),
        "bad": (
            "failed within a day",
            lambda now: Q(outcome__in=_UNDONE, ended_at__gt=now - dt.timedelta(days=1)),
        ),
    }


class EntryFilter(Asked):
    """Where an entry stands."""

    title = "now"
    parameter_name = "now"
    questions = {
        "active": ("active", lambda now: Q(state=EntryState.ACTIVE)),
        "held": ("held for a person", lambda now: Q(state=EntryState.ACTIVE) & ~Q(held="")),
        "checks": ("checks of the target itself", lambda now: Q(kind=EntryKind.CHECK, state=EntryState.ACTIVE)),
        "slot": ("in its lane's train", lambda now: Q(state=EntryState.ACTIVE, admitted_at__isnull=False)),
        "old": (
            "active for more than an hour",
            lambda now: Q(state=EntryState.ACTIVE, created_at__lt=now - dt.timedelta(hours=1)),
        ),
        "failed": (
            "failed within a day",
            lambda now: Q(state=EntryState.FAILED, closed_at__gt=now - dt.timedelta(days=1)) & ~Q(reason="superseded"),
        ),
    }


class BeadFilter(Asked):
    """Where a bead stands."""

    title = "now"
    parameter_name = "now"
    questions = {
        "live": ("live", lambda now: ~_ENDED),
        "old": (
            "live and unchanged for an hour",
            lambda now: ~_ENDED & Q(updated_at__lt=now - dt.timedelta(hours=1)),
        ),
        "unreleased": (
            "filed by an agent, waits for a person",
            lambda now: Q(released_at=None) & ~Q(filed_by="") & ~_ENDED,
        ),
        "failed": (
            "failed within a day",
            lambda now: Q(status=BeadStatus.FAILED, closed_at__gt=now - dt.timedelta(days=1)),
        ),
        "cancelling": (
            "cancel was asked for",
            lambda now: Q(cancel_requested_at__isnull=False) & ~_ENDED,
        ),
    }


class ConvoyFilter(Asked):
    """Where a convoy stands."""

    title = "now"
    parameter_name = "now"
    questions = {
        "staged": ("staged", lambda now: Q(started_at=None) & ~Q(bead__status__in=FINAL)),
        "live": ("started, not landed", lambda now: Q(bead__status__in=[BeadStatus.IN_PROGRESS, BeadStatus.IN_REVIEW])),
        "trouble": (
            "has a failed bead",
            lambda now: Q(beads__status=BeadStatus.FAILED) & ~Q(bead__status=BeadStatus.CLOSED),
        ),
    }


class EscalationFilter(Asked):
    """Where an escalation stands."""

    title = "now"
    parameter_name = "now"
    questions = {
        "open": ("open", lambda now: Q(closed_at=None)),
        "unseen": ("nobody has acknowledged it", lambda now: Q(closed_at=None, acknowledged_at=None)),
        "closed": ("closed", lambda now: Q(closed_at__isnull=False)),
    }
