"""Who plays in the demo is settled before anything is made, and said in plain words."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from agents import launches
from agents.presets import PRESETS, find
from agents.runtime import sandbox
from beads import config as configs
from beads.errors import GastownError
from gastown_site.demo import cast, story


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every program is on this machine, and a sandbox can be had."""
    place = find.Found("/opt/x", ("/opt/x",), ())
    monkeypatch.setattr(launches, "found", lambda config, preset: place)
    monkeypatch.setattr(sandbox, "available", lambda: "bubblewrap")


def test_a_key_in_the_environment_makes_real_calls_with_a_budget(here: None) -> None:
    made = cast.choose("claude", "", {"ANTHROPIC_API_KEY": "sk-1"})
    assert made.real and made.secret == "ANTHROPIC_API_KEY" and made.model == ""
    assert "real calls, which are charged, up to 5M tokens a day" in made.lines()[0]
    told = tomllib.loads(story.config(made))
    configs.validate(told)
    assert told["budget"] == {"day": "5M tokens"} and "providers" not in told and told["sandbox"]["mode"] == "required"
    assert "sk-1" not in str(made) + story.config(made)


@pytest.mark.parametrize("preset", PRESETS)
def test_without_a_key_its_model_is_scripted_and_that_is_said(preset: str, here: None) -> None:
    made = cast.choose(preset, "", {"HOME": "/root"})
    assert made.scripted and made.model
    assert "their model is scripted: no call leaves this machine, and nothing is charged" in made.lines()[0]
    with cast.on_stage(made, "0.1") as staged:
        told = tomllib.loads(story.config(staged))
    configs.validate(told)
    assert told["providers"][made.provider]["scripted"] is True
    assert configs.effective(told, {}).providers.scripted == [made.provider]
    assert not any(agent.get("secrets") for agent in told["agents"].values())


@pytest.mark.parametrize(
    ("preset", "model", "env", "why"),
    [
        ("cloude", "", {}, "'cloude' is no preset: claude"),
        ("", "opus", {}, "--model is for --agents PRESET"),
        ("kilo", "opus", {}, "--model: kilo takes provider/model, such as anthropic/opus"),
        ("kilo", "", {"OPENAI_API_KEY": "k"}, "OPENAI_API_KEY is set, and kilo needs to know whose model: --model"),
        ("mini", "nobody/x", {}, "--model: nobody/x is of no provider that is known: anthropic, openai"),
        ("kilo", "openrouter/x/y", {}, "OPENROUTER_API_KEY is not set, and the scripted model does not speak"),
    ],
)
def test_what_cannot_be_is_one_sentence(preset: str, model: str, env: dict[str, str], why: str, here: None) -> None:
    with pytest.raises(GastownError) as refused:
        cast.choose(preset, model, env)
    assert why in refused.value.message and "\n" not in refused.value.message


def test_a_program_that_is_not_here_is_named_with_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(launches, "search_path", lambda config: str(tmp_path))
    with pytest.raises(GastownError, match=r"there is no codex on this machine: npm install -g @openai/codex"):
        cast.choose("codex", "", {})


def test_a_real_model_is_not_let_out_of_a_sandbox(here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "available", lambda: sandbox.UNSANDBOXED)
    with pytest.raises(GastownError, match="runs in a sandbox, or not at all"):
        cast.choose("claude", "", {"ANTHROPIC_API_KEY": "sk-1"})
    assert "they run without one" in cast.choose("claude", "", {}).lines()[1]
