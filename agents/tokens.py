"""Which run a token or a shim's secret speaks for. Both are stored as digests only; `agents.runs` gives them out."""

from __future__ import annotations

import hashlib

from django.db.models import Q

from agents.lifecycle import RunState
from agents.models import Run


def digest(token: str) -> str:
    """SHA-256 of a secret, as it is stored."""
    return hashlib.sha256(token.encode()).hexdigest()


def live_run(token: str) -> Run | None:
    """The run that `token` speaks for, or None when it is unknown, fenced or ended."""
    return (
        Run.objects.select_related("town", "rig", "bead", "agent")
        .filter(token_hash=digest(token), state=RunState.RUNNING)
        .first()
    )


def fenced_run(token: str) -> Run | None:
    """The ended run that `token` once spoke for, so that it can be told so."""
    return Run.objects.ended().filter(fenced_hash=digest(token)).first()


def shim_run(secret: str) -> Run | None:
    """The run, in whatever state, whose shim this secret is of; None when it is nobody's."""
    found = Run.objects.select_related("town", "rig", "bead", "agent")
    return found.filter(shim_hash=digest(secret)).first() or (
        found.filter(shim_hash=None).filter(Q(token_hash=digest(secret)) | Q(fenced_hash=digest(secret))).first()
    )
