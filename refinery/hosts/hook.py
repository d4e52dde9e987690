"""The door for hooks: `/hooks/<provider>/<rig>/`. A hook is a hint, kept as a fact; what counts is read from the host.

So one that is lost, doubled, replayed, late or made up by somebody who has the secret can do nothing but make us look.
Whatever is wrong with who sends it (no such rig, no secret, a bad signature) is one and the same 401.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from beads import config as configs
from beads import inbox, secrets
from beads.errors import GastownError
from beads.models import Rig
from refinery.core.rules.commands import is_command

SIGNATURE, EVENT, DELIVERY = "X-Hub-Signature-256", "X-GitHub-Event", "X-GitHub-Delivery"


@csrf_exempt
@require_POST
def hook(request: HttpRequest, provider: str, rig: str) -> HttpResponse:
    """Take in one hook."""
    try:
        body = request.body
    except RequestDataTooBig:
        return _said(413, "too_large")
    found = Rig.objects.select_related("town").filter(slug=rig).first()
    if found is None or provider != "github" or not _is_signed(found, body, request.headers.get(SIGNATURE, "")):
        return _said(401, "unauthenticated")
    event, delivery = request.headers.get(EVENT, "")[:60], request.headers.get(DELIVERY, "")[:60]
    if not event or not delivery:
        return _said(400, "invalid")
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return _said(400, "invalid")
    hint = {"event": event, "number": _number(told), "calls": _calls(told)}
    key = f"hook:{found.pk}:{delivery}"
    new = inbox.record(found.town, "host.hint", str(found.pk), hint, actor="host", dedupe_key=key)
    if not new:
        return _said(202, "known")
    return _said(202, "noted")


def _said(status: int, code: str) -> JsonResponse:
    return JsonResponse({"result": code}, status=status)


def _is_signed(rig: Rig, body: bytes, signature: str) -> bool:
    """True when the body was signed with the rig's secret; compared in constant time."""
    name = configs.usable(rig.town.config, rig.config)[0].pr.webhook_secret
    if not name:
        return False
    try:
        key = secrets.values(rig.town, [name])[name].strip()
    except GastownError:
        return False
    due = "sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(due.encode(), signature.encode("utf-8", "replace"))


def _part(told: Any, *keys: str) -> Any:
    for key in keys:
        if not isinstance(told, dict):
            return None
        told = told.get(key)
    return told


def _number(told: Any) -> int:
    """The pull request that it is about; 0 for what is about none."""
    number = _part(told, "pull_request", "number")
    if isinstance(_part(told, "issue", "pull_request"), dict):  # else it is an issue that is none
        number = _part(told, "issue", "number")
    if type(number) is int and 0 < number < 2**31:
        return number
    return 0


def _calls(told: Any) -> bool:
    """True for a new comment that begins with our word."""
    body = _part(told, "comment", "body")
    return _part(told, "action") == "created" and isinstance(body, str) and is_command(body)
