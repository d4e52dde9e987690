"""The only writer of convoys and their feature branches."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction

from beads import prune
from beads.errors import LostRace
from beads.ledger.beads import Draft, Filed, Transition, block, create_bead, move, release_convoy
from beads.lifecycle import BeadStatus, BeadType
from beads.models import Bead, Convoy, ConvoyBranch, Rig


def create_convoy(
    rig: Rig,
    title: str,
    merge_mode: str,
    plan: Sequence[Mapping[str, Any]],
    *,
    actor: str,
    filed: Filed | None = None,
) -> Convoy:
    """Make a staged convoy from a checked plan (see `beads.plans`): one bead per item, `after` as blocks.

    Each item: key, title, body, priority, after (keys), model, rig (a Rig); its files and estimate go into the bead's
    context.
    `filed`: see `create_bead`; starting the convoy releases its beads.
    """
    with transaction.atomic():
        bead = create_bead(rig.town, rig, Draft(title, type=BeadType.CONVOY), actor=actor, filed=filed)
        convoy = Convoy.objects.create(bead=bead, rig=rig, merge_mode=merge_mode)
        made: dict[str, Bead] = {}
        for item in plan:
            draft = Draft(
                item["title"],
                item["body"],
                priority=item["priority"],
                convoy=convoy,
                plan_key=item["key"],
                model=item.get("model", ""),
                context={name: item[name] for name in ("files", "estimate") if item.get(name)},
            )
            made[item["key"]] = create_bead(rig.town, item["rig"], draft, actor=actor, filed=filed)
        for item in plan:
            block(made[item["key"]], [made[key] for key in item["after"]], actor)
        if merge_mode == "review-then-land":
            slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40] or "convoy"
            for rig_id in sorted({b.rig_id for b in made.values() if b.rig_id is not None}):
                ConvoyBranch.objects.create(convoy=convoy, rig_id=rig_id, name=f"convoy/{slug}/{bead.pk}/head")
    return convoy


def start_convoy(convoy: Convoy, now: dt.datetime, *, actor: str) -> None:
    """Let a staged convoy's beads be dispatched, also those that an agent has filed. LostRace when it was started
    before."""
    if Convoy.objects.filter(pk=convoy.pk, started_at=None).update(started_at=now) != 1:
        raise LostRace(f"convoy {convoy.pk} was started before")
    release_convoy(convoy, now, actor=actor)
    started = Transition(BeadStatus.IN_PROGRESS, reason="started")
    move(convoy.bead, BeadStatus.OPEN, started, actor=actor, now=now)


def request_close_convoy(convoy: Convoy, now: dt.datetime) -> None:
    """Note that a person wants a convoy closed before all its beads are; the tick decides."""
    Convoy.objects.filter(pk=convoy.pk, close_requested_at=None, landed_at=None).update(close_requested_at=now)


def clear_close_request(convoy: Convoy) -> None:
    """A retried convoy is wanted again."""
    Convoy.objects.filter(pk=convoy.pk).update(close_requested_at=None)


def convoy_landed(convoy: Convoy, sha: str, now: dt.datetime) -> None:
    """Record where a convoy landed; once."""
    if Convoy.objects.filter(pk=convoy.pk, landed_at=None).update(landed_sha=sha, landed_at=now) != 1:
        raise LostRace(f"convoy {convoy.pk} has landed before")


def ask_branch(branch: ConvoyBranch, now: dt.datetime) -> None:
    """Note that the remote's feature branch is to be cut or looked at."""
    ConvoyBranch.objects.filter(pk=branch.pk).update(asked_at=now)


def branch_seen(branch_id: int, sha: str, asked_at: dt.datetime) -> None:
    """Observation: what the remote's feature branch pointed at, in answer to the look asked for at `asked_at`."""
    ConvoyBranch.objects.filter(pk=branch_id).exclude(observed_at__gt=asked_at).update(
        head_sha=sha, observed_at=asked_at
    )
    ConvoyBranch.objects.filter(pk=branch_id, base_sha="").update(base_sha=sha)


def forget_branch(branch: ConvoyBranch) -> None:
    """Look at the remote again before landing is tried again."""
    ConvoyBranch.objects.filter(pk=branch.pk).exclude(base_sha="").update(asked_at=None)
    ConvoyBranch.objects.filter(pk=branch.pk, landed_sha="unchanged").update(landed_sha="")


def branch_landed(branch: ConvoyBranch, sha: str) -> None:
    """Record the commit on the target that holds the feature branch."""
    ConvoyBranch.objects.filter(pk=branch.pk).update(landed_sha=sha)


def remove_convoys(keys: Sequence[str]) -> None:
    """Remove the convoys of these beads, with their feature branches."""
    prune.delete(ConvoyBranch.objects.filter(convoy__any=keys))
    prune.delete(Convoy.objects.filter(bead__any=keys))
