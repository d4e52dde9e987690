"""A stage whose remote is a repository of the tests' GitHub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from beads import secrets
from refinery.models import HostedPull, ReviewEntry
from tests.acceptance.conftest import Stage
from tests.acceptance.conftest import stage as stage
from tests.hosts.github import GitHub, Pull
from tests.hosts.server import Server, serving

HOOK = "a secret of hooks"


class Hosted:
    """The stage, its GitHub, and what people do there."""

    def __init__(self, stage: Stage, server: Server, url: str) -> None:
        self.stage, self.server, self.github = stage, server, server.github
        self.hooks = f"{url}/hooks/github/proj/"
        self.github.people |= {"rita": "write", "sam": "write", "eve": "read", "ann": "read"}

    def open(self, *, agents: bool = False, pr: dict[str, Any] | None = None, **refinery: Any) -> None:
        told = {"credential": "GITHUB_TOKEN", "webhook_secret": "HOOKS", "url": self.server.url}
        told |= {"repository": "acme/proj", "poll_interval": "1s", "auto_merge_delay": "1ms", **(pr or {})}
        self.stage.open(agents=agents, pr=told, **refinery)
        secrets.set_secret(self.stage.town, "GITHUB_TOKEN", self.github.token, "test")
        secrets.set_secret(self.stage.town, "HOOKS", HOOK, "test")

    def deliver(self, times: int = 1) -> list[int]:
        """GitHub's hooks arrive."""
        return self.server.deliver(self.hooks, HOOK, times=times)

    def pull(self, number: int = 1) -> Pull:
        return self.github.pulls[number]

    def row(self, number: int = 1) -> HostedPull | None:
        return HostedPull.objects.select_related("entry").filter(number=number).first()

    def entry(self, number: int = 1) -> ReviewEntry | None:
        row = self.row(number)
        return row.entry if row is not None else None

    def said(self, number: int = 1) -> str:
        """Our one comment there."""
        with self.server.lock:
            ours = [c["body"] for c in self.pull(number).comments if c["user"] == "bot"]
        assert len(ours) <= 1, ours
        return ours[0] if ours else ""


@pytest.fixture
def server(stage: Stage) -> Iterator[Server]:
    with serving(stage.remote) as made:
        yield made


@pytest.fixture
def hosted(stage: Stage, server: Server, settings: Any, tmp_path: Path, live_server: Any) -> Hosted:
    """A GitHub on this machine, which the installation's owner has allowed."""
    owner = tmp_path / "owner.toml"
    owner.write_text(f'[allow]\nnetworks = ["127.0.0.1:{server.url.rpartition(":")[2]}"]\n')
    settings.GASTOWN_OWNER_CONFIG = str(owner)
    return Hosted(stage, server, live_server.url)


__all__ = ["GitHub", "Hosted"]
