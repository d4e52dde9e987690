"""Rows → what the rules see of the outside: rigs and their remotes, outside work."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

from agents.runtime import failures
from beads import config as configs
from beads import outages
from beads.limits import Provider
from beads.models import Outage, Rig, Town
from refinery.core import hosting, pullviews
from refinery.core.outageviews import EffectView, OutageView
from refinery.core.pullviews import HostView, PullView
from refinery.core.states import EntryState
from refinery.core.world import RigView
from refinery.models import HostedPull
from refinery.tick import queries


def effects_of(town: Town) -> dict[str, EffectView]:
    """The outside work that is pending or was given up, by its key."""
    found = queries.EFFECTS(town.pk)
    return {key: EffectView(state, error, tries, since, at) for key, state, error, tries, since, at in found}


def _outage(rig: Rig, troubles: Mapping[str, Outage], secret: str) -> OutageView | None:
    """The rig's own trouble, else its host's."""
    keys = (outages.rig_key(rig.pk), outages.host_key(rig.remote_url))
    found = next((troubles[key] for key in keys if key in troubles), None)
    if found is None:
        return None
    kind = failures.KINDS.get(found.kind, failures.KINDS["other"])
    return OutageView(
        found.key,
        found.kind,
        found.error,
        found.since,
        found.next_look_at,
        found.failures,
        _remedy(kind, rig, found.branch, secret),
        kind.fate == failures.Fate.RIG,
    )


def _remedy(kind: failures.Kind, rig: Rig, branch: str, secret: str) -> str:
    """What mends it, as typed, with the names that are known."""
    told = kind.remedy_for(rig.slug, branch, secret)
    if not secret and kind.remedy == failures.CREDENTIAL:
        told += f', and name it for rig {rig.slug}: [git] credential = "NAME"'
    return told


def rig_view(town: Town, rig: Rig, troubles: Mapping[str, Outage]) -> RigView:
    """A rig with its effective config, and with what does not work of its remote (`troubles`: by their keys)."""
    config, problems = configs.usable(town.config, rig.config)
    host, repository = None, ""
    if hosting.provider(config, rig.remote_url) == Provider.GITHUB:
        host, repository = HostView(rig.pk), hosting.repository(config, rig.remote_url)
        problems = [*problems, *filter(None, [hosting.problem(config, rig.remote_url)])]
    return RigView(
        id=rig.pk,
        slug=rig.slug,
        default_branch=rig.default_branch,
        config=config,
        parked=rig.parked_at is not None,
        problems=tuple(problems),
        outage=_outage(rig, troubles, config.git.credential),
        host=host,
        repository=repository,
    )


def with_hosts(town: Town, rigs: dict[int, RigView]) -> tuple[PullView, ...]:
    """The pull requests that are not over, of the rigs that have a host, which are told what is known of it. Where none
    has one, nothing is asked."""
    if all(rig.host is None for rig in rigs.values()):
        return ()
    for row in queries.HOSTS(town.pk):
        rig = rigs.get(row.rig_id)
        if rig is not None and rig.host is not None:
            known = HostView(row.rig_id, row.polled_at, row.trouble, row.kind, row.since, row.next_try_at, row.failures)
            rigs[row.rig_id] = dataclasses.replace(rig, host=known)
    return tuple(_pull(row) for row in queries.PULLS(town.pk))


def _pull(row: HostedPull) -> PullView:
    beside = cast(Any, row)
    end = {}
    if row.entry_id is not None and beside.entry_state != EntryState.ACTIVE:
        end = {
            "outcome": beside.entry_reason,
            "outcome_text": beside.entry_text,
            "merge_sha": beside.entry_sha or "",
        }
    return PullView(
        id=row.pk,
        rig=row.rig_id,
        number=row.number,
        wanted_at=row.wanted_at,
        offered=row.offered,
        head=row.head,
        read_at=row.read_at,
        pull=pullviews.load(row.state),
        heard=row.heard,
        told=row.told,
        told_at=row.told_at,
        said=row.said,
        answer=row.answer,
        entry=row.entry_id or "",
        **end,
    )
