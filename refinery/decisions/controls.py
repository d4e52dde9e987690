"""What operators decide about the machine itself: config, facts, effects. One function each.

Each refuses at once what can be refused; what is carried out here leaves a fact with its actor and reason.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

from django.db import transaction
from django.utils import timezone

from agents import access
from agents.runtime import lfs
from agents.runtime.gitcmd import GitFailed
from agents.runtime.names import check_branch
from beads import config as configs
from beads import inbox, ledger, outages, outbox
from beads import owner as reserved
from beads.errors import Conflict, Invalid, Refused
from beads.models import ConfigVersion, Effect, Fact, Rig, Town
from refinery.core import readiness
from refinery.decisions import gatechecks
from refinery.git.mirror import look, repo_of
from refinery.store import entries


def check_config(owner: Town | Rig, text: str, *, by_owner: bool = False) -> dict[str, Any]:
    """TOML → the overrides of a town or rig, checked alone and together with what is above and below them.

    Raises Invalid naming the key. A town's config is refused when it makes that of a rig unusable which was not so
    before; a rig's whenever it is. `by_owner`: the installation's owner sets it (see `beads.owner`); else Forbidden is
    raised for what only the owner may set.
    """
    overrides = configs.validate(configs.parse_toml(text, "config"))
    if overrides.get("git", {}).get("lfs"):
        lfs.check_installed()
    if isinstance(owner, Rig):
        config, found = configs.usable(owner.town.config, overrides)
        if found:
            raise Invalid(found[0], field="config")
        reserved.check(configs.usable(owner.town.config, owner.config)[0], config, by_owner=by_owner)
        return overrides
    reserved.check(configs.usable(owner.config, {})[0], configs.usable(overrides, {})[0], by_owner=by_owner)
    for rig in owner.rigs.order_by("slug"):
        found = configs.usable(overrides, rig.config)[1]
        if found and not configs.usable(owner.config, rig.config)[1]:
            raise Invalid(f"rig {rig.slug} could not be used any more: {found[0]}", field="config")
    return overrides


def set_config(
    owner: Town | Rig, text: str, who: str, reason: str, *, expect: int | None = None, by_owner: bool = False
) -> ConfigVersion:
    """Replace a town's or rig's overrides by TOML; see `beads.ledger.set_config` for `expect`, and `check_config` for
    `by_owner`. Wakes the town."""
    overrides = check_config(owner, text, by_owner=by_owner)
    town = owner.town if isinstance(owner, Rig) else owner
    with transaction.atomic():
        made = ledger.set_config(owner, overrides, who=who, why=reason, text=text, expect=expect)
        inbox.record(town, "config.set", owner.slug, {"version": made.number, "reason": reason}, actor=who)
        outages.look_now([owner] if isinstance(owner, Rig) else owner.rigs.all(), timezone.now())
        gatechecks.config_changed(owner, who)
    return made


def unmanned(rigs: Iterable[Rig]) -> list[str]:
    """What to say to whoever gives work to rigs that have no command for who does it."""
    configured = {rig: configs.usable(rig.town.config, rig.config) for rig in rigs}
    return [
        readiness.unmanned(rig.slug)
        for rig, (config, problems) in configured.items()
        if config.agents.polecat is None and not problems
    ]


def renew_host_key(rig: Rig, who: str) -> None:
    """Pin the host key that the remote shows now in place of the pinned one. Raises Refused when it cannot be asked;
    then the old one stays."""
    name = configs.usable(rig.town.config, rig.config)[0].git.credential
    with access.scratch() as folder:
        opened = access.variables(rig.town, name, rig.remote_url, folder, rig.slug)
        if "GIT_SSH_COMMAND" not in opened:
            raise Conflict(f"rig {rig.slug} has no ssh key of its own (git.credential): nothing is pinned")
        look(rig.remote_url, rig.default_branch, opened)
        access.adopt(folder, rig)
    inbox.record(rig.town, "rig.host_key", rig.slug, {}, actor=who)
    look_again(rig)


def set_default_branch(rig: Rig, branch: str, who: str, reason: str = "") -> int:
    """Let a rig's changes be for another branch, which its remote must have; what is queued for the old one, and not
    being pushed, is for the new one from now on. Returns how many entries that were. Raises Invalid, Refused."""
    branch = check_branch(branch, "branch")
    try:
        if repo_of(rig).ls_remote(rig.remote_url, branch) is None:
            raise Invalid(f"the remote of rig {rig.slug} has no branch {branch}", field="branch")
    except GitFailed as error:
        message = f"the remote of rig {rig.slug} cannot be read: {error.message}"
        raise Refused(message, code=error.kind, details={"field": "remote_url"}) from error
    with transaction.atomic():
        ledger.lock_town(rig.town)
        old = Rig.objects.get(pk=rig.pk).default_branch
        if old == branch:
            return 0
        ledger.set_default_branch(rig, branch)
        moved = entries.retarget(rig, old, branch, who)
        told = {"reason": f"{old} → {branch}{f': {reason}' if reason else ''}"}
        inbox.record(rig.town, "rig.default_branch", rig.slug, told, actor=who)
        outages.look_now([rig], timezone.now())
    return moved


def look_again(rig: Rig) -> None:
    """A person wants to know whether the rig's remote works again: it is looked at now, and not in a minute."""
    outages.look_now([rig], timezone.now())


REPLAYABLE = frozenset(
    {
        "run.exited", "run.published", "run.done", "run.request_changes", "escalation.raised", "candidate.built",
        "landing.concluded", "branch.seen", "lane.foreseen", "effect.failed", "effect.struggling",
    }
)  # fmt: skip


def replay_fact(fact: Fact, who: str, reason: str = "") -> None:
    """Record an observation again. A person's decision is not replayed: whoever wants it again decides again."""
    if fact.processed_at is None:
        raise Conflict(f"fact {fact.pk} was not drained yet: release it if it is in quarantine")
    if fact.kind not in REPLAYABLE:
        raise Conflict(f"fact {fact.pk} is a {fact.kind}, a decision: take the decision again instead")
    inbox.replay(fact, who, reason)


def release_fact(fact: Fact, who: str, reason: str = "") -> None:
    """Let the next tick try a quarantined fact again."""
    if fact.quarantined_at is None:
        raise Conflict(f"fact {fact.pk} is not in quarantine")
    with transaction.atomic():
        inbox.release(fact)
        inbox.record(fact.town, "fact.release", str(fact.pk), {"reason": reason}, actor=who)


def run_effect_again(effect: Effect, who: str, reason: str = "") -> None:
    """Run an effect once more that was given up."""
    if effect.state != "failed":
        raise Conflict(f"effect {effect.pk} is {effect.state}: only a failed one is run again")
    with transaction.atomic():
        outbox.again(effect, timezone.now())
        inbox.record(effect.town, "effect.again", str(effect.pk), {"reason": reason}, actor=who)


def freeze(rig: Rig, target: str | None, reason: str, who: str, until: dt.datetime | None = None) -> str:
    """Let nothing be admitted to or land in a lane, until it is thawed or `until` has come; returns its target."""
    target = check_branch(target or rig.default_branch, "target")
    reason = ledger.check_text("reason", reason, 300, required=True)
    if until is not None and until <= timezone.now():
        raise Invalid("until is in the past", field="until")
    with transaction.atomic():
        ledger.lock_town(rig.town)
        entries.freeze(rig, target, reason, who, timezone.now(), until)
        inbox.record(rig.town, "lane.freeze", rig.slug, {"reason": f"{target}: {reason}"}, actor=who)
    return target


def thaw(rig: Rig, target: str | None, who: str, reason: str = "") -> str:
    """Undo `freeze`; returns the lane's target."""
    target = check_branch(target or rig.default_branch, "target")
    with transaction.atomic():
        ledger.lock_town(rig.town)
        entries.thaw(rig, target)
        inbox.record(
            rig.town, "lane.thaw", rig.slug, {"reason": f"{target}: {reason}" if reason else target}, actor=who
        )
    return target
