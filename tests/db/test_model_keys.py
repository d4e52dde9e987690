"""Which secret opens an API: the model door, a preset's start and whoever says what is missing have one answer."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.utils import timezone

from agents import keys, launches, runs
from agents.lifecycle import RunKind
from agents.model_door import apis, desk
from agents.presets import PRESETS
from beads import config as configs
from beads import ledger, secrets
from beads.config import AgentCommand, Config
from beads.models import Town

pytestmark = pytest.mark.django_db
PATHS = {
    "anthropic": "/model/anthropic/v1/messages",
    "openai": "/model/openai/v1/responses",
    "google": "/model/google/v1beta/models/m:generateContent",
}
LLM = {"providers": {"openai": {"secret": "LLM_KEY"}}}
LACKS = {  # preset → model, API
    "claude": ("", "anthropic"), "codex": ("", "openai"), "gemini": ("", "google"), "kilo": ("openai/x", "openai"),
    "opencode": ("anthropic/x", "anthropic"), "mini": ("gemini/x", "google"),
}  # fmt: skip


def pass_of(town: Town, api: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the secret with which the door would make a call now; empty: it refuses for want of a key."""
    monkeypatch.setattr("agents.model_door.desk.connections", type("Kept", (), {"close_all": staticmethod(bool)}))
    rig = ledger.create_rig(town, "proj", "/nowhere.git", "main")
    bead = ledger.create_bead(town, rig, ledger.Draft("Work"), actor="test")
    runs.queue_run(bead, runs.Assignment(RunKind.POLECAT, "work", target="main", steps=[], brief={}), agent=None)
    picked = runs.pick("runner", timezone.now())
    assert picked is not None
    token = runs.claim(picked[0].pk, picked[1], timezone.now()).token
    try:
        return desk.admit(token, apis.route("POST", PATHS[api])).secret
    except apis.Refusal as refusal:
        assert refusal.status == 401 and f"has no key for {api}: gastown secret set" in refusal.sentence
        return ""


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    ("config", "have"),
    [
        ({}, []), ({}, ["ANTHROPIC_API_KEY"]), ({}, ["OPENAI_API_KEY"]), ({}, ["GOOGLE_API_KEY"]),
        ({}, ["GEMINI_API_KEY", "GOOGLE_API_KEY"]), ({}, ["CODEX_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN"]),
        (LLM, ["LLM_KEY"]), (LLM, ["OPENAI_API_KEY"]),
    ],
)  # fmt: skip
def test_the_door_serves_exactly_those_presets_that_go_by_it(
    preset: str, config: dict[str, Any], have: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    town = ledger.create_town("main", configs.validate(config))
    for name in have:
        secrets.set_secret(town, name, "sk-1", "test")
    model, api = LACKS[preset]
    told, agent = configs.effective(config, {}), AgentCommand(preset=configs.Preset(preset), model=model)
    goes = launches.by_the_door(told, agent, model, town)
    assert goes == bool(pass_of(town, api, monkeypatch))
    lacks = [str(lack) for lack in launches.lacking(told, agent, "polecat", town) if ".preset" not in lack.field]
    assert lacks == [] if goes else len(lacks) == 1 and "has no key for its model" in lacks[0]


def test_what_is_said_to_be_missing_is_what_opens_it() -> None:
    """Who types the line that is told has what was missing."""
    town = ledger.create_town("main", {})
    for config in (Config(), configs.effective(LLM, {})):
        agent = AgentCommand(preset=configs.Preset.CODEX)
        lack = next(lack for lack in launches.lacking(config, agent, "polecat", town) if lack.field.endswith("secrets"))
        found = re.search(r"gastown secret set (\w+) --town main", lack.line)
        assert found is not None
        secrets.set_secret(town, found[1], "sk-1", "test")
        assert launches.by_the_door(config, agent, "", town)


def test_an_own_key_address_or_program_goes_past_the_door() -> None:
    town = ledger.create_town("main", {})
    secrets.set_secret(town, "ANTHROPIC_API_KEY", "sk-1", "test")
    claude = configs.Preset.CLAUDE
    assert launches.by_the_door(Config(), AgentCommand(preset=claude), "", town)
    for own in (
        AgentCommand(preset=claude, secrets=("CLAUDE_CODE_OAUTH_TOKEN",)),
        AgentCommand(preset=claude, env={"ANTHROPIC_BASE_URL": "https://other.example"}),
        AgentCommand(command=("claude",)),
        AgentCommand(preset=configs.Preset.KILO, model="openrouter/x/y"),
    ):
        assert not launches.by_the_door(Config(), own, own.model, town)


def test_the_first_of_the_names_is_taken_and_the_address_is_the_configs() -> None:
    api = PRESETS["gemini"].models
    assert api is not None
    assert keys.secret_of(Config(), api, ["GOOGLE_API_KEY", "GEMINI_API_KEY"]) == "GEMINI_API_KEY"
    assert keys.base_url(Config(), api) == "https://generativelanguage.googleapis.com"
    elsewhere = configs.effective({"providers": {"google": {"base_url": "https://llm.example.org/"}}}, {})
    assert keys.base_url(elsewhere, api) == "https://llm.example.org"
