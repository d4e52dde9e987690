"""Telling people what they asked to hear: by mail (Django's back-ends) and by a town's signed webhook.

A notice is an effect: written in the tick's transaction, delivered after it, at least once, and tried again when the
mail server or the webhook cannot be asked. A town in which nobody listens makes none.
"""

from __future__ import annotations

import datetime as dt

from django.conf import settings

from beads import config as configs
from beads import outbox, people
from beads.models import Bead, Town
from refinery.core.effects import Notify


def tell(town: Town, kind: str, about: Bead | None, title: str, body: str, key: str, now: dt.datetime) -> None:
    """Enqueue a notice of a kind (`needs_you`, `landed`, `failed`), once for `key`. Inside the tick's transaction."""
    webhook = configs.usable(town.config, {})[0].notify.webhook
    if not webhook and not people.listeners(town, kind):
        return
    path = f"/beads/{about.pk}/" if about else f"/towns/{town.slug}/"
    work = Notify(kind, town.slug, title, body[:4000], settings.GASTOWN_URL + path, key)
    outbox.enqueue(town, work.name, work.key, work.payload(), now)
