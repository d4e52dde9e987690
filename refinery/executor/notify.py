"""Delivering notices: by mail (Django's back-ends) and by a town's signed webhook, whose host must be public."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import socket
import ssl
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.mail import EmailMessage

from beads import config as configs
from beads import owner, people, secrets
from beads.errors import Refused, Unavailable
from beads.models import Town
from refinery.core import effects
from refinery.executor.registry import Result, does

SIGNATURE = "X-Gastown-Signature"


PATIENCE = 10.0  # seconds


@does(effects.Notify)
def deliver(work: effects.Notify) -> Result | None:
    """Send one notice to everybody who listens now. Raises Unavailable to be tried again, Refused for good."""
    town = Town.objects.get(slug=work.town)
    webhook = configs.usable(town.config, {})[0].notify.webhook
    refused = None
    if webhook:
        try:
            _post(town, webhook, _body(work))
        except Refused as error:
            refused = error  # people hear of it all the same
    for address in people.listeners(town, work.kind):
        subject = " ".join(f"[{work.town}] {work.title}".split())[:200]
        mail = EmailMessage(subject, f"{work.body}\n\n{work.url}\n", to=[address])
        try:
            mail.send()
        except OSError as error:  # smtplib's errors are OSErrors
            raise Unavailable(f"the mail server cannot be asked: {error}") from error
    if refused is not None:
        raise refused
    return None


def _body(work: effects.Notify) -> dict[str, str]:
    """What a webhook is told; its names are in docs/operations.md."""
    return {"kind": work.kind, "town": work.town, "title": work.title, "body": work.body, "url": work.url}


def sign(town: Town, body: bytes) -> str:
    """What the receiver of a webhook compares: HMAC-SHA256 of the body under the town's webhook secret (or under
    `GASTOWN_WEBHOOK_SECRET`, where the server has one). Raises Refused when that cannot be had."""
    key = settings.GASTOWN_WEBHOOK_SECRET or secrets.webhook_key(town)
    return "sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest()


def _post(town: Town, url: str, told: dict[str, Any]) -> None:
    body = json.dumps(told).encode()
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    address = _resolve(url, host, port)
    connection = (_Https if parts.scheme == "https" else _Http)(host, port, timeout=PATIENCE)
    connection.address = address
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("POST", target, body, {"Content-Type": "application/json", SIGNATURE: sign(town, body)})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"the webhook cannot be asked: {error}") from error
    finally:
        connection.close()
    if status >= 500 or status == 429:
        raise Unavailable(f"the webhook answered {status}")
    if status >= 300:  # a redirect is an answer, too: it is not followed
        raise Refused(f"the webhook answered {status}")


def _resolve(url: str, host: str, port: int) -> str:
    """The one address that is connected to. Every address that the name stands for must be public, unless the owner has
    named the webhook: what the name stands for a moment later does not count any more."""
    try:
        found = [str(row[4][0]) for row in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as error:
        raise Unavailable(f"the webhook's host {host} is not known: {error}") from error
    if (why := owner.refused_address(host, found, "webhooks")) and not owner.allowed().webhook(url):
        raise Refused(f"the webhook's host {why}")
    return found[0]


class _Http(http.client.HTTPConnection):
    """Connects to `address`, which was checked: the host's name may resolve to another one by now."""

    address = ""

    def connect(self) -> None:
        """A connection to the address that was looked at."""
        self.sock = socket.create_connection((self.address, self.port), self.timeout)


class _Https(http.client.HTTPSConnection):
    """As `_Http`; the certificate must be the host's."""

    address = ""

    def connect(self) -> None:
        """A connection to the address that was looked at."""
        plain = socket.create_connection((self.address, self.port), self.timeout)
        self.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)
