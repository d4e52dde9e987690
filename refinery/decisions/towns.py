"""What people decide about towns and rigs: pause, park, add, config, where a rig's remote is and its branch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from agents import access
from agents.runtime import lfs
from agents.runtime.gitcmd import check_remote_url
from agents.runtime.names import check_branch
from beads import config as configs
from beads import inbox, ledger, outages
from beads import owner as reserved
from beads.actors import Actor
from beads.errors import Conflict, Invalid, NotFound
from beads.models import ConfigVersion, Rig, Town
from refinery.core import readiness
from refinery.decisions import gatechecks
from refinery.decisions.guards import reading_remote
from refinery.decisions.verbs import Offer, Shell, verb
from refinery.git.mirror import fetched_first, look, repo_of
from refinery.store import entries


@verb(
    Town,
    "pause",
    offer=Offer(
        "Pause", "Nothing new is dispatched or admitted; what runs goes on.", lambda town: town.paused_at is None
    ),
    shell=Shell("stop dispatching; live runs go on", "town {slug} is paused", lambda outcome: {"paused": True}),
)
def pause(town: Town, *, by: Actor, reason: str = "") -> None:
    """Stop dispatching in a town. Carried out at the door; the fact is its history and the wake-up."""
    with transaction.atomic():
        ledger.pause_town(town, reason or f"paused by {by}")
        inbox.record(town, "town.pause", town.slug, {"reason": reason}, actor=by)


@verb(
    Town,
    "resume",
    offer=Offer("Resume", when=lambda town: town.paused_at is not None),
    shell=Shell("dispatch again", "town {slug} goes on", lambda outcome: {"paused": False}),
)
def resume(town: Town, *, by: Actor, reason: str = "") -> None:
    """Undo `pause`."""
    with transaction.atomic():
        ledger.resume_town(town)
        inbox.record(town, "town.resume", town.slug, {"reason": reason}, actor=by)


@verb(
    Rig,
    "park",
    offer=Offer(
        "Park", "Nothing new is dispatched or admitted in it; what runs goes on.", lambda rig: rig.parked_at is None
    ),
    shell=Shell("stop dispatching in a rig", "rig {slug} is parked", lambda outcome: {"parked": True}),
)
def park(rig: Rig, *, by: Actor, reason: str = "") -> None:
    """Stop dispatching in a rig."""
    with transaction.atomic():
        ledger.park_rig(rig)
        inbox.record(rig.town, "rig.park", rig.slug, {"reason": reason}, actor=by)


@verb(
    Rig,
    "unpark",
    offer=Offer("Unpark", when=lambda rig: rig.parked_at is not None),
    shell=Shell("dispatch again", "rig {slug} is back", lambda outcome: {"parked": False}),
)
def unpark(rig: Rig, *, by: Actor, reason: str = "") -> None:
    """Undo `park`."""
    with transaction.atomic():
        ledger.unpark_rig(rig)
        inbox.record(rig.town, "rig.unpark", rig.slug, {"reason": reason}, actor=by)


def add_rig(
    town_slug: str | None,
    slug: str,
    url: str,
    branch: str | None,
    overrides: Mapping[str, Any],
    *,
    by_owner: bool = False,
) -> Rig:
    """Look at the remote, then make the rig (and the default town `main` when it is missing). Nothing half-done.

    With an ssh key of its own (`git.credential`) the host key that the remote shows is pinned. `by_owner`: see
    `check_config`.
    """
    ledger.check_slug("rig", slug)
    check_remote_url(url)
    if branch is not None:
        check_branch(branch, "default_branch")
    town = Town.objects.filter(slug=town_slug or "main").first()
    if town is None and town_slug not in (None, "main"):
        raise NotFound(f"no town {town_slug}", details={"field": "town"})
    config, found = configs.usable(town.config if town else {}, overrides)
    if found:
        raise Invalid(found[0], field="config")
    if config.git.lfs:
        lfs.check_installed()
    if Rig.objects.filter(slug=slug).exists():
        raise Conflict(f"rig {slug} exists already", details={"field": "rig"})
    _not_our_own(url)
    reserved.check(configs.usable(town.config if town else {}, {})[0], config, by_owner=by_owner)
    with access.scratch() as folder:
        opened = access.variables(town, config.git.credential, url, folder, slug)
        branch = look(url, branch, opened)
        with fetched_first(url, branch, opened, slug) as make_mirror, transaction.atomic():
            town = town or ledger.create_town("main")
            rig = ledger.create_rig(town, slug, url, branch, overrides)
            access.adopt(folder, rig)
            make_mirror(rig)
    return rig


def _not_our_own(url: str) -> None:
    """Raises Invalid for a remote among Gastown's own repositories: mirrors and workspaces are nobody's remotes."""
    path = os.path.realpath(url.removeprefix("file://"))
    home = os.path.realpath(settings.GASTOWN_HOME)
    ours = (os.path.join(home, name) for name in ("repos", "workspaces", "gates", "worktrees", "runs", "trash"))
    if url.startswith(("/", "file://")) and any(path == one or path.startswith(f"{one}/") for one in ours):
        raise Invalid("remote_url: that is a repository of Gastown's own, in GASTOWN_HOME", field="remote_url")


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
    owner: Town | Rig, *, by: Actor, text: str, reason: str = "", expect: int | None = None, by_owner: bool = False
) -> ConfigVersion:
    """Replace a town's or rig's overrides by TOML; see `beads.ledger.set_config` for `expect`, and `check_config` for
    `by_owner`. Wakes the town."""
    overrides = check_config(owner, text, by_owner=by_owner)
    if isinstance(owner, Rig):
        town, rigs = owner.town, [owner]
    else:
        town, rigs = owner, list(owner.rigs.all())
    with transaction.atomic():
        made = ledger.set_config(owner, overrides, who=str(by), why=reason, text=text, expect=expect)
        inbox.record(town, "config.set", owner.slug, {"version": made.number, "reason": reason}, actor=by)
        outages.look_now(rigs, timezone.now())
        gatechecks.config_changed(owner, by=by)
    return made


def unmanned(rigs: Iterable[Rig]) -> list[str]:
    """What to say to whoever gives work to rigs that have no command for who does it."""
    configured = {rig: configs.usable(rig.town.config, rig.config) for rig in rigs}
    return [
        readiness.unmanned(rig.slug)
        for rig, (config, problems) in configured.items()
        if config.agents.polecat is None and not problems
    ]


def renew_host_key(rig: Rig, *, by: Actor) -> None:
    """Pin the host key that the remote shows now in place of the pinned one. Raises Refused when it cannot be asked;
    then the old one stays."""
    name = configs.usable(rig.town.config, rig.config)[0].git.credential
    with access.scratch() as folder:
        opened = access.variables(rig.town, name, rig.remote_url, folder, rig.slug)
        if "GIT_SSH_COMMAND" not in opened:
            raise Conflict(f"rig {rig.slug} has no ssh key of its own (git.credential): nothing is pinned")
        look(rig.remote_url, rig.default_branch, opened)
        access.adopt(folder, rig)
    inbox.record(rig.town, "rig.host_key", rig.slug, {}, actor=by)
    outages.look_now([rig], timezone.now())


def set_default_branch(rig: Rig, *, by: Actor, branch: str, reason: str = "") -> int:
    """Let a rig's changes be for another branch, which its remote must have; what is queued for the old one, and not
    being pushed, is for the new one from now on. Returns how many entries that were. Raises Invalid, Refused."""
    branch = check_branch(branch, "branch")
    with reading_remote(rig):
        if repo_of(rig).ls_remote(rig.remote_url, branch) is None:
            raise Invalid(f"the remote of rig {rig.slug} has no branch {branch}", field="branch")
    with transaction.atomic():
        ledger.lock_town(rig.town)
        old = Rig.objects.get(pk=rig.pk).default_branch
        if old == branch:
            return 0
        ledger.set_default_branch(rig, branch)
        moved = entries.retarget(rig, old, branch, str(by))
        told = f"{old} → {branch}"
        if reason:
            told += f": {reason}"
        inbox.record(rig.town, "rig.default_branch", rig.slug, {"reason": told}, actor=by)
        outages.look_now([rig], timezone.now())
    return moved
