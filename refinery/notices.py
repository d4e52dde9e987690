"""Telling people what they asked to hear: by mail (Django's back-ends) and by a town's signed webhook.

A notice is an effect: written in the tick's transaction, delivered after it, at least once, and tried again when the
mail server or the webhook cannot be asked. A town in which nobody listens makes none.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.mail import EmailMessage

from beads import config as configs
from beads import outbox, people
from beads.errors import Refused, Unavailable
from beads.models import Bead, Town

SIGNATURE = "X-Gastown-Signature"
PATIENCE = 10.0  # seconds


def tell(town: Town, kind: str, about: Bead | None, title: str, body: str, key: str, now: dt.datetime) -> None:
    """Enqueue a notice of a kind (`needs_you`, `landed`, `failed`), once for `key`. Inside the tick's transaction."""
    webhook = configs.usable(town.config, {})[0].notify.webhook
    if not webhook and not people.listeners(town, kind):
        return
    path = f"/beads/{about.pk}/" if about else f"/towns/{town.slug}/"
    told = {"kind": kind, "town": town.slug, "title": title, "body": body[:4000], "url": settings.GASTOWN_URL + path}
    outbox.enqueue(town, "notify", f"notify:{kind}:{key}"[:200], told, now)


def deliver(payload: Mapping[str, Any]) -> None:
    """Send one notice to everybody who listens now. Raises Unavailable to be tried again, Refused for good."""
    town = Town.objects.get(slug=payload["town"])
    webhook = configs.usable(town.config, {})[0].notify.webhook
    if webhook:
        _post(webhook, dict(payload))
    for address in people.listeners(town, payload["kind"]):
        subject = " ".join(f"[{payload['town']}] {payload['title']}".split())[:200]
        mail = EmailMessage(subject, f"{payload['body']}\n\n{payload['url']}\n", to=[address])
        try:
            mail.send()
        except OSError as error:  # smtplib's errors are OSErrors
            raise Unavailable(f"the mail server cannot be asked: {error}") from error


def sign(body: bytes) -> str:
    """What the receiver of a webhook compares: HMAC-SHA256 of the body under `GASTOWN_WEBHOOK_SECRET`."""
    return "sha256=" + hmac.new(settings.GASTOWN_WEBHOOK_SECRET.encode(), body, hashlib.sha256).hexdigest()


def _post(url: str, told: dict[str, Any]) -> None:
    body = json.dumps(told).encode()
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=PATIENCE)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("POST", target, body, {"Content-Type": "application/json", SIGNATURE: sign(body)})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"the webhook cannot be asked: {error}") from error
    finally:
        connection.close()
    if status >= 500 or status == 429:
        raise Unavailable(f"the webhook answered {status}")
    if status >= 300:
        raise Refused(f"the webhook answered {status}")
