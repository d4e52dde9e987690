"""Telling people what they asked to hear: by mail (Django's back-ends) and by a town's signed webhook.

A notice is an effect: written in the tick's transaction, delivered after it, at least once, and tried again when the
mail server or the webhook cannot be asked. A town in which nobody listens makes none.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from django.conf import settings

from beads import config as configs
from beads import outbox, people
from beads.models import Bead, Town
from refinery.core.effects import Notify


@dataclass(frozen=True)
class Notice:
    """What is told, once for its `key`. `kind`: `needs_you`, `landed` or `failed`; `about`: None for the town."""

    kind: str
    about: Bead | None
    title: str
    body: str
    key: str


def tell(town: Town, notice: Notice, now: dt.datetime) -> None:
    """Enqueue a notice. Inside the tick's transaction."""
    webhook = configs.usable(town.config, {})[0].notify.webhook
    if not webhook and not people.listeners(town, notice.kind):
        return
    path = f"/beads/{notice.about.pk}/" if notice.about else f"/towns/{town.slug}/"
    url = settings.GASTOWN_URL + path
    work = Notify(notice.kind, town.slug, notice.title, notice.body[:4000], url, notice.key)
    outbox.enqueue(town, work.name, work.key, work.payload(), now)
