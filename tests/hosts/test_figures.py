"""How fast hooks are answered and become entries, and what a thousand open pull requests cost in requests: printed."""

from __future__ import annotations

import datetime as dt
import functools
import json
import statistics
import time
from dataclasses import replace
from typing import get_args

import httpx
import pytest
from django.db.models import F
from django.utils import timezone

from refinery.core import effects, pullviews
from refinery.hosts.opening import host_of
from refinery.models import HostedPull, RigHost
from tests.hosts.conftest import HOOK, Hosted
from tests.hosts.github import Pull
from tests.hosts.server import signed

CALL = {"action": "created", "issue": {"number": 7, "pull_request": {}}, "comment": {"body": "a comment"}}
GRANTED = 5000  # requests in an hour, to a token
OPEN, CHANGED, LOOKS = 1000, 20, 3


@pytest.mark.long
def test_a_hook_is_answered_at_once(hosted: Hosted) -> None:
    hosted.open()
    body, took = json.dumps(CALL).encode(), []
    with httpx.Client() as client:
        for number in range(200):
            began = time.perf_counter()
            answer = client.post(hosted.hooks, content=body, headers=signed(body, HOOK, "issue_comment", f"d-{number}"))
            took.append((time.perf_counter() - began) * 1000)
            assert answer.status_code == 202
    took.sort()
    print(
        f"hook answered: median {statistics.median(took):.1f} ms, 95 % in {took[189]:.1f} ms, slowest {took[-1]:.1f} ms"
    )
    assert statistics.median(took) < 100


@pytest.mark.long
def test_a_comment_becomes_an_entry_soon(hosted: Hosted) -> None:
    hosted.open()
    hosted.stage.hold = set(effects.KINDS) - {kind.name for kind in get_args(effects.OfHost)}  # that are done beside it
    took = []
    for number in range(1, 8):
        hosted.stage.commit(f"feature-{number}", {f"{number}.txt": "x\n"})
        pull = hosted.github.open("ann", f"feature-{number}")
        hosted.github.say(pull, "sam", "/gastown queue")
        began = time.perf_counter()
        hosted.deliver()
        hosted.stage.until(functools.partial(hosted.entry, number))
        took.append(time.perf_counter() - began)
    print(f"hook to entry: median {statistics.median(took):.2f} s, slowest {max(took):.2f} s")
    assert statistics.median(took) < 5


@pytest.mark.long
def test_a_thousand_open_pull_requests_are_within_githubs_limit(
    hosted: Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosted.open(pr={"poll_interval": "1h"})
    head = hosted.stage.commit("feature", {"a.txt": "a\n"})
    github, stage = hosted.github, hosted.stage
    monkeypatch.setattr(github, "refresh", lambda: None)  # git stands still
    monkeypatch.setattr(github, "git", functools.cache(github.git))
    opened = github.now()
    github.pulls |= {
        n: Pull(n, "A", "", "ann", "feature", "main", head=head, updated=opened) for n in range(1, OPEN + 1)
    }
    known = host_of(stage.rig).read(1)
    at = timezone.now()
    HostedPull.objects.bulk_create(
        HostedPull(
            rig=stage.rig,
            number=n,
            state=pullviews.dump(replace(known, number=n)),
            heard={"changed": f"{pull.updated:%Y-%m-%dT%H:%M:%SZ} {head[:12]}"},
            wanted_at=at,
            read_at=at,
        )
        for n, pull in github.pulls.items()
    )
    _look(hosted)
    costs = []
    for look in range(LOOKS):
        for n in range(1, CHANGED + 1, 2):
            github.say(github.pulls[look * CHANGED + n], "sam", "looks good")
            github.review(github.pulls[look * CHANGED + n + 1], "rita", "COMMENTED", "why?")
        costs.append(_look(hosted))
    an_hour = statistics.mean(costs) * 60
    print(f"a look with {CHANGED} of {OPEN} changed: {costs} requests; {an_hour:.0f} an hour of {GRANTED}")
    assert an_hour < GRANTED
    assert min(costs) > CHANGED
    assert _look(hosted) <= 2


def _look(hosted: Hosted) -> int:
    """One look, and all that it makes us read; how many requests GitHub counts: 304 is none."""
    hosted.server.answered.clear()
    began = timezone.now()
    RigHost.objects.update(polled_at=began - dt.timedelta(hours=2))
    hosted.stage.until(lambda: RigHost.objects.filter(polled_at__gte=began).exists())
    hosted.stage.until(lambda: not HostedPull.objects.filter(read_at__lt=F("wanted_at")).exists())
    return len([status for status in hosted.server.answered if status != 304])
