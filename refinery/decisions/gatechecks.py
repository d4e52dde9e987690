"""Asking whether a rig's gates pass on its target's own head, and what came of it: for `rig add|config|check`."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils import timezone

from beads import config as configs
from beads import inbox, ops
from beads.actors import Actor
from beads.channels import look_until
from beads.errors import Invalid
from beads.models import Rig, Town
from refinery.core.states import EntryKind, EntryState
from refinery.models import ReviewEntry
from refinery.store import entries
from refinery.store.results import gate_results

NO_RUNNER = "the gates have not been run, for no runner is up: start `gastown up`"
NO_GATES = "no gates are configured"
FRESH = dt.timedelta(seconds=90)  # a runner that was heard of since is up
MARGIN = 120.0  # seconds for all that is not a gate
LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Asked:
    """A check that somebody waits for: a new one, or one that was there, and was last asked for at `before`."""

    entry: ReviewEntry
    new: bool
    before: dt.datetime | None
    patience: float  # seconds that it may take


def ask(rig: Rig, *, by: Actor) -> Asked | None:
    """Check the gates of a rig on its default branch's own head, now: results from before do not count. None: no gates.

    Raises Invalid when the config is refused.
    """
    config, problems = configs.usable(rig.town.config, rig.config)
    if problems:
        raise Invalid(problems[0], field="config")
    if not config.refinery.gates:
        return None
    with transaction.atomic():
        entry, new = entries.open_check(rig, rig.default_branch, str(by))
        if new:
            inbox.wake(rig.town)
        else:
            _again(entry, by)
    gates = sum(g.timeout.total_seconds() * (g.retries + 1) for g in config.refinery.gates)
    return Asked(entry, new, entry.gates_again_at, gates + MARGIN)


def _rigs(owner: Town | Rig) -> list[Rig]:
    if isinstance(owner, Rig):
        return [owner]
    return list(owner.rigs.all())


def config_changed(owner: Town | Rig, *, by: Actor) -> None:
    """The config of a town or rig was replaced: what its active checks say was said of another one."""
    rigs = _rigs(owner)
    active = ReviewEntry.objects.select_related("rig__town").active().filter(rig__in=rigs, kind=EntryKind.CHECK)
    for entry in active:
        _again(entry, by)


def _again(entry: ReviewEntry, by: Actor) -> None:
    inbox.record(entry.rig.town, "entry.retry", entry.pk, {"reason": "asked for"}, actor=by)


def runner_up() -> bool:
    """True when a runner has reported recently."""
    seen = ops.heartbeats().get("runner")
    return seen is not None and timezone.now() - seen <= FRESH


def wait(asked: Asked, at_most: float | None = None) -> dict[str, Any]:
    """Wait for the answer, as long as it may take or `at_most` so many seconds; `ok` is None when there is none yet."""
    patience = asked.patience
    if at_most is not None:
        patience = min(at_most, patience)
    return look_until(lambda: outcome(asked), lambda told: told["ok"] is not None, at_most=patience, every=LOOK_SECONDS)


def outcome(asked: Asked) -> dict[str, Any]:
    """What is known of a check since it was asked for: `ok`, `reason`, and each gate that has been run."""
    entry = ReviewEntry.objects.select_related("bead", "rig__town").get(pk=asked.entry.pk)
    data: dict[str, Any] = {
        "id": entry.pk,
        "rig": entry.rig.slug,
        "target": entry.target,
        "head": entry.head_sha,
        "ok": None,
        "reason": "it is being checked",
        "remedy": "",
        "gates": [],
    }
    heard = asked.new or entry.gates_again_at != asked.before
    if entry.state == EntryState.ACTIVE and not (heard and entry.held):
        return data
    candidate = entry.candidates.filter(build_no=entry.build_no).first()
    gates = []
    if candidate:
        gates = gate_results(entry, candidate)
    keys = ("gate", "outcome", "say", "remedy", "exit_code", "output")
    bad = [g for g in gates if g["outcome"] != "pass"]
    return data | {
        "ok": entry.state == EntryState.CHECKED,
        "reason": entry.held_text or entry.reason_text,
        "remedy": next((g["remedy"] for g in bad if g["remedy"]), ""),
        "gates": [{key: g[key] for key in keys} for g in gates],
    }


def lines(told: dict[str, Any]) -> list[str]:
    """The outcome for a person: a line for each gate, with the telling line and the remedy."""
    if told["ok"] is None:
        return [f"{told['rig']}: {told['reason']}: {told['id']}"]
    found = []
    for gate in told["gates"]:
        line = f"gate {gate['gate']}: {gate['outcome']} ({gate['say']})"
        if gate["remedy"]:
            line += f"; {gate['remedy']}"
        found.append(line)
    at = f"{told['target']} at {told['head'][:12]}"
    if told["ok"]:
        return [f"{told['rig']}: every gate passes on {at}", *found]
    return [f"{told['rig']}: {told['reason']}", *found]
