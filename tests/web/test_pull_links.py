"""Where a change has a pull request, its pages and commands name it, at the host that the config names and at no
other."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client

from beads.models import Fact
from refinery.core import pullviews
from refinery.core.pullviews import Pull, PullState
from refinery.models import HostedPull, ReviewEntry
from tests.db.conftest import Place
from tests.web.conftest import Agent


@pytest.fixture
def entry(place: Place) -> ReviewEntry:
    """A change whose pull request says of itself that it is somewhere else."""
    place.town.config["pr"] = {"provider": "github", "credential": "TOKEN", "repository": "acme/proj"}
    place.town.save()
    made = place.entry(source=place.bead("Write it"))
    pull = Pull(7, made.head_sha, "acme/proj", made.branch, "main", "T", "bot", PullState.OPEN, url="javascript:bad()")
    state = pullviews.dump(pull)
    HostedPull.objects.create(rig=place.rig, number=7, entry=made, state=state, wanted_at=place.now)
    return made


def shown(command: str, key: str, capsys: Any) -> tuple[dict[str, Any], str]:
    call_command(command, "show", key, "--json")
    data = json.loads(capsys.readouterr().out)["data"]
    call_command(command, "show", key)
    return data, capsys.readouterr().out


@pytest.mark.parametrize("site", ["https://github.com", "https://ghe.example.org"])
def test_pages_and_commands_lead_to_the_pull_request(
    place: Place, entry: ReviewEntry, operator: Client, capsys: Any, site: str
) -> None:
    if site != "https://github.com":
        place.town.config["pr"]["url"] = site + "/"
        place.town.save()
    url = f"{site}/acme/proj/pull/7"
    assert entry.source_id
    for path in (f"/reviews/{entry.pk}/", f"/beads/{entry.source_id}/"):
        page = operator.get(path).content.decode()
        assert f'href="{url}" rel="noopener">acme/proj#7</a>' in page
        assert "javascript:bad" not in page
    told = {"name": "acme/proj#7", "number": 7, "url": url}
    data, text = shown("mq", entry.pk, capsys)
    assert data["pull_request"] == told
    assert f"pull request acme/proj#7: {url}" in text
    data, text = shown("bead", entry.source_id, capsys)
    assert [e["pull_request"] for e in data["entries"]] == [told]
    assert f"pull request acme/proj#7: {url}" in text


def test_a_change_without_one_says_nothing_of_it(place: Place, operator: Client, capsys: Any) -> None:
    entry = place.entry()
    assert "Pull request" not in operator.get(f"/reviews/{entry.pk}/").content.decode()
    data, text = shown("mq", entry.pk, capsys)
    assert data["pull_request"] is None
    assert "pull request" not in text


def test_an_agent_names_a_pull_request_of_its_rigs_own_repository_or_none(place: Place, polecat: Agent) -> None:
    def done(url: str) -> tuple[int, str]:
        answer = polecat.call("gt_done", summary="painted", pr_url=url)
        return answer.status_code, answer.json().get("error", {}).get("message", "")

    url = "https://github.com/acme/proj/pull/7"
    status, why = done(url)
    assert (status, "reviewed on pages of Gastown" in why) == (400, True)
    place.town.config["pr"] = {"provider": "github", "credential": "TOKEN", "repository": "acme/proj"}
    place.town.save()
    for other in ("https://github.com/acme/other/pull/7", "https://evil.org/acme/proj/pull/7", "javascript:bad()"):
        status, why = done(other)
        assert (status, "such as https://github.com/acme/proj/pull/1" in why) == (400, True)
    assert not Fact.objects.filter(kind="run.done").exists()
    assert done(url)[0] == 200
    assert Fact.objects.get(kind="run.done").payload["pr_url"] == url
