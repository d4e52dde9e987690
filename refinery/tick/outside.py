"""Rows → what the rules see of the outside: rigs and their remotes, outside work."""

from __future__ import annotations

from collections.abc import Mapping

from agents.runtime import failures
from beads import config as configs
from beads import outages
from beads.models import Outage, Rig, Town
from refinery.core.outageviews import EffectView, OutageView
from refinery.core.world import RigView
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
    return RigView(
        id=rig.pk,
        slug=rig.slug,
        default_branch=rig.default_branch,
        config=config,
        parked=rig.parked_at is not None,
        problems=tuple(problems),
        outage=_outage(rig, troubles, config.git.credential),
    )
