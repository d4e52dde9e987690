"""The only writer of towns, rigs and their config."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from beads import prune
from beads.errors import Conflict
from beads.ledger.texts import check_slug
from beads.models import ConfigVersion, Rig, Town


def lock_town(town: Town) -> Town:
    """Take the town's row lock for the rest of the transaction."""
    return Town.objects.select_for_update().get(pk=town.pk)


def create_town(slug: str, config: Mapping[str, Any] | None = None) -> Town:
    """Make a town. `config` must have passed `beads.config.validate`."""
    check_slug("town", slug)
    try:
        with transaction.atomic():
            return Town.objects.create(slug=slug, config=dict(config or {}))
    except IntegrityError:
        raise Conflict(f"town {slug} exists already", details={"field": "town"}) from None


def create_rig(town: Town, slug: str, url: str, branch: str, config: Mapping[str, Any] | None = None) -> Rig:
    """Make a rig. The remote must have been looked at by the caller."""
    check_slug("rig", slug)
    try:
        with transaction.atomic():
            return Rig.objects.create(
                town=town, slug=slug, remote_url=url, default_branch=branch, config=dict(config or {})
            )
    except IntegrityError:
        raise Conflict(f"rig {slug} exists already", details={"field": "rig"}) from None


def pause_town(town: Town, reason: str) -> None:
    """Stop dispatching and admitting in a town; live runs go on."""
    Town.objects.filter(pk=town.pk, paused_at=None).update(paused_at=timezone.now(), paused_reason=reason[:300])


def resume_town(town: Town) -> None:
    """Undo `pause_town`."""
    Town.objects.filter(pk=town.pk).update(paused_at=None, paused_reason="")


def note_look(town: Town, at: dt.datetime) -> None:
    """A tick began at `at`: whoever heard of news before that need not look again."""
    Town.objects.filter(pk=town.pk).update(looked_at=at)


def park_rig(rig: Rig) -> None:
    """Stop dispatching and admitting in a rig; live runs go on."""
    Rig.objects.filter(pk=rig.pk, parked_at=None).update(parked_at=timezone.now())


def unpark_rig(rig: Rig) -> None:
    """Undo `park_rig`."""
    Rig.objects.filter(pk=rig.pk).update(parked_at=None)


def set_default_branch(rig: Rig, branch: str) -> None:
    """Changes of the rig are for this branch from now on."""
    Rig.objects.filter(pk=rig.pk).update(default_branch=branch)


def set_config(
    owner: Town | Rig,
    config: Mapping[str, Any],
    *,
    who: str = "",
    why: str = "",
    text: str = "",
    expect: int | None = None,
) -> ConfigVersion:
    """Replace the overrides of a town or rig, which must have passed `beads.config.validate`; returns the version.

    `text` is the TOML as it was written. Raises Conflict when `expect`, the number of the version that the writer
    had before their eyes (0: none), is no longer the latest.
    """
    with transaction.atomic():
        locked = type(owner).objects.select_for_update().get(pk=owner.pk)
        latest = latest_config(owner)
        number = 0
        if latest:
            number = latest.number
        if expect is not None and expect != number:
            raise Conflict(f"the config was changed meanwhile: its version is {number}, not {expect}")
        type(owner).objects.filter(pk=owner.pk).update(config=dict(config))
        return ConfigVersion.objects.create(
            town=owner.town if isinstance(owner, Rig) else owner,
            rig=owner if isinstance(owner, Rig) else None,
            number=number + 1,
            who=who[:150],
            why=why,
            old=locked.config,
            new=dict(config),
            text=text,
        )


def latest_config(owner: Town | Rig) -> ConfigVersion | None:
    """The latest change of an owner's config; None when it is as it was made."""
    if isinstance(owner, Rig):
        return ConfigVersion.objects.filter(rig=owner).first()
    return ConfigVersion.objects.filter(town=owner, rig=None).first()


def old_configs(town: Town, before: dt.datetime) -> QuerySet[ConfigVersion]:
    """Changes of configs that are older than that; the latest of each town and rig is not among them."""
    later = ConfigVersion.objects.filter(town=OuterRef("town"), number__gt=OuterRef("number"))
    followed = Exists(later.filter(rig=OuterRef("rig"))) | Q(rig=None) & Exists(later.filter(rig=None))
    return ConfigVersion.objects.filter(followed, town=town, created_at__lt=before).order_by("pk")


def forget_configs(keys: Sequence[int]) -> int:
    """Remove these changes of configs: they have been archived."""
    return prune.some(ConfigVersion.objects.all(), keys)
