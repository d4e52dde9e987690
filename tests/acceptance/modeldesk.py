"""A desk at the model door: the ASGI app on a socket, a scripted provider, and a town with a run that asks it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from django.db import connections
from django.utils import timezone

from agents import runs, usage
from agents.lifecycle import RunKind
from agents.models import Run, Usage
from beads import config as configs
from beads import ledger, secrets
from beads.budget import Spent
from beads.models import Bead, Rig
from gastown_site.asgi import application
from gastown_site.parts import guard
from tests.acceptance.conftest import Stage
from tests.acceptance.provider import CACHED, INPUT, KEY, OUTPUT, Provider
from tests.ports import free_port

PRICE = {"input": 3.0, "cached": 0.3, "output": 15.0}
COST = (INPUT * Decimal("3") + CACHED * Decimal("0.3") + OUTPUT * Decimal("15")) / 1_000_000
WAYS: dict[str, tuple[str, dict[str, Any]]] = {  # the path, and the body without its model
    "messages": ("/model/anthropic/v1/messages", {"max_tokens": 9, "messages": []}),
    "chat": ("/model/openai/v1/chat/completions", {"messages": []}),
    "responses": ("/model/openai/v1/responses", {"input": "hello"}),
    "google": ("/model/google/v1beta/models/{model}:generateContent", {"contents": []}),
}


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.close()


@pytest.fixture
def site(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The ASGI app behind its guard, as `web` serves it, in a thread of this process; its URL."""
    port = free_port()
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 0)  # threads come and go there
    config = uvicorn.Config(
        guard.bounded(application), host="127.0.0.1", port=port, lifespan="off", ws="none", log_level="critical",
        http=guard.Protocol, timeout_graceful_shutdown=2,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(20)
    connections.close_all()


@pytest.fixture
def door_stage(site: str, stage: Stage, settings: Any) -> Stage:
    """A stage whose runs speak to `site`.

    Ask for this in place of both: the site then closes after the stage. A shim tells how its run ended for as long as
    nobody hears it, so one whose site had closed first would not end within the stage's patience.
    """
    settings.GASTOWN_URL = site
    return stage


def config_for(provider: Provider, **more: Any) -> dict[str, Any]:
    base = {"anthropic": provider.url, "openai": f"{provider.url}/v1", "google": provider.url}
    return {
        "providers": {name: {"base_url": url} for name, url in base.items()},
        "prices": {"good": PRICE, "slow": PRICE},
        **more,
    }


def name_place(tmp_path: Path, settings: Any, provider: Provider) -> None:
    """The owner's word that towns may use this provider, whose address is not public."""
    file = tmp_path / "owner.toml"
    file.write_text(f'[allow]\nnetworks = ["127.0.0.1:{provider.port}"]\n')
    settings.GASTOWN_OWNER_CONFIG = str(file)


class Desk:
    """A town with a key, a run that is at work, and calls with its token."""

    def __init__(self, site: str, provider: Provider, **more: Any) -> None:
        self.site, self.provider = site, provider
        self.town = ledger.create_town("main", configs.validate(config_for(provider, **more)))
        self.rig: Rig = ledger.create_rig(self.town, "proj", "/nowhere.git", "main")
        for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY"):
            secrets.set_secret(self.town, name, KEY, "test")
        self.bead = ledger.create_bead(self.town, self.rig, ledger.Draft("Work"), actor="test")
        self.run, self.token = self.start(self.bead)

    def start(self, bead: Bead) -> tuple[Run, str]:
        task = runs.Assignment(RunKind.POLECAT, "work", target="main", steps=[], brief={})
        run = runs.queue_run(bead, task, agent=None)
        picked = runs.pick("runner", timezone.now())
        assert picked is not None
        return run, runs.claim(run.pk, picked[1], timezone.now()).token

    def ask(self, way: str, model: str = "good", *, stream: bool = False, key: str = "x-api-key", **more: Any) -> Any:
        """One call: (status, headers, body)."""
        with self.opened(way, model, stream=stream, key=key, **more) as answer:
            return answer.status, answer.headers, answer.read()

    def opened(
        self, way: str, model: str = "good", *, stream: bool = False, key: str = "x-api-key", **more: Any
    ) -> Any:
        path, body = WAYS[way]
        if way == "google":
            path = path.format(model=model)
            path = path.replace(":generate", ":streamGenerate") + "?alt=sse" if stream else path
            told: dict[str, Any] = {**body, **more}
        else:
            told = {"model": model, **body, **({"stream": True} if stream else {}), **more}
        value = f"Bearer {self.token}" if key == "authorization" else self.token
        request = urllib.request.Request(self.site + path, json.dumps(told).encode(), {key: value})
        return urllib.request.urlopen(request, timeout=30)

    def refused(self, *words: Any, **more: Any) -> tuple[int, dict[str, Any], Any]:
        with pytest.raises(urllib.error.HTTPError) as caught:
            self.ask(*words, **more)
        body = caught.value.read()
        return caught.value.code, json.loads(body), caught.value.headers

    def settled(self, calls: int) -> Spent:
        """What is booked, once it is so many calls."""
        until(lambda: usage.total(Usage.objects.filter(run=self.run)).calls == calls)
        return usage.total(Usage.objects.filter(run=self.run))


def until(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)
    return found


@pytest.fixture
def desk(site: str, provider: Provider, tmp_path: Path, settings: Any) -> Desk:
    name_place(tmp_path, settings, provider)
    return Desk(site, provider)
