"""The typed config: defaults, overrides, and one clear line for what is wrong."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beads import config, values
from beads.errors import Invalid


def test_defaults_are_the_contracts() -> None:
    found = config.effective({}, {})
    assert found.refinery.auto_merge and found.refinery.require_clean_merge and found.refinery.code_review
    assert (found.refinery.max_convoy_concurrency, found.refinery.pop_limit) == (3, 10)
    assert found.refinery.max_reviews == 3
    assert (found.refinery.max_rework_cycles, found.refinery.push_retries) == (3, 5)
    assert (str(found.refinery.merge_strategy), str(found.refinery.merge_method)) == ("direct", "squash")
    assert found.convoy.merge_mode == "review-then-land"
    assert (found.dispatch.max_polecats, found.dispatch.max_attempts) == (4, 5)
    assert found.dispatch.lease == dt.timedelta(seconds=60)
    assert found.pr.auto_merge_delay == dt.timedelta(minutes=5)


def test_the_rig_overrides_the_town_key_by_key() -> None:
    town = config.validate(
        {"refinery": {"gates": ["a"], "auto_merge": False}, "agents": {"polecat": {"command": ["x"]}}}
    )
    rig = config.validate({"refinery": {"gates": ["b", {"name": "c", "run": "c", "timeout": "1h30m"}]}})
    found = config.effective(town, rig)
    assert [g.name for g in found.refinery.gates] == ["b", "c"]
    assert found.refinery.gates[1].timeout == dt.timedelta(minutes=90)
    assert found.refinery.auto_merge is False
    assert found.agents.polecat is not None


@pytest.mark.parametrize(
    ("text", "needle"),
    [
        ("[refinery]\nx = = 1", "line 2, column 5"),
        ("[refinery", "not TOML"),
        ("[refinery]\ngate = ['x']", "unknown key refinery.gate; did you mean refinery.gates?"),
        ("[refinary]\n", "unknown key refinary; did you mean refinery?"),
        ("[refinery]\nauto_merge = 'yes'", "refinery.auto_merge"),
        ("[refinery]\npop_limit = 0", "refinery.pop_limit"),
        ("[refinery]\nmax_reviews = 0", "refinery.max_reviews"),
        ("[refinery]\nmax_reviews = 101", "refinery.max_reviews"),
        ("[refinery]\nmerge_method = 'octopus'", "refinery.merge_method: expected one of squash, merge, rebase"),
        ("[refinery]\ngates = ['x', 'x']", "two gates are named 'x'"),
        ("[refinery]\ngates = ['']", "refinery.gates.0"),
        ("[[refinery.gates]]\nname='t'\nrun='t'\nenv={CI='no'}", "CI is set by Gastown"),
        ("[[refinery.gates]]\nname='t'\nrun='t'\nenv={GASTOWN_BASE='x'}", "GASTOWN_BASE is set by Gastown"),
        ("[[refinery.gates]]\nname='t'\nrun='t'\nenv={'a b'='x'}", "'a b' is no name of an environment variable"),
        ("[[refinery.gates]]\nname='t'\nrun='t'\npaths=['../x']", "the pattern '../x' has an empty part, '.' or '..'"),
        ("[[refinery.gates]]\nname='t'\nrun='t'\ncache=['/x']", "'/x' is no path in the worktree"),
        ("[[refinery.gates]]\nname='t'\nrun='t'\ncache=['a/../..']", "'a/../..' is no path in the worktree"),
        ("[[refinery.gates]]\nname='t'\nrun='t'\ncache=['.git/x']", "git's own files cannot be kept"),
        ("[[refinery.gates]]\nname='t'\nrun='t'\njunit='../*.xml'", "refinery.gates.0.junit"),
        (
            "[refinery]\nparallel_gates=true\n[[refinery.gates]]\nname='t'\nrun='t'\ncache=['a/b']\n"
            "[[refinery.gates]]\nname='u'\nrun='u'\ncache=['a']",
            "'t' and 'u' run at once and both cache a",
        ),
        ("[[refinery.gates]]\nname='t'\nrun='t'\nenv={A=1}", "refinery.gates.0.env.A"),
        ("[dispatch]\nlease = '60'", "dispatch.lease"),
        ("[dispatch]\nlease = '10s'\nheartbeat = '9s'", "lease must be at least twice the heartbeat"),
        ("[agents.polecat]\ncommand = 'sh -c x'", "agents.polecat.command"),
        ("[agents.polecat]\ncommand = []", "agents.polecat.command"),
        ("[agents.polecat]\npreset = 'cursor'", "agents.polecat.preset: expected one of claude, codex, kilo"),
        ("[agents.polecat]\npreset = 'claude'\ncommand = ['x']", "agents.polecat.command: preset = 'claude' is there"),
        ("[agents.polecat]\ncommand = ['x']\nmodel = 'big'", "agents.polecat.model: a command takes none"),
        ("[agents.polecat]\ncommand = ['x']\nmodels = {p0 = 'big'}", "agents.polecat.models: a command takes none"),
        ("[agents.polecat]\npreset = 'mini'\nmodel = '--yolo'", "agents.polecat.model: '--yolo' is no name of a model"),
        ("[agents.polecat]\npreset = 'mini'\nmodels = {p5 = 'a'}", "agents.polecat.models.p5: expected one of work"),
        ("[agents.refinery]\npreset = 'mini'\nsessions = 'new'", "agents.refinery.sessions: expected one of resume"),
        ("[agents.mayor]\nmodel = 'a b'", "agents.mayor.model: 'a b' is no name of a model"),
        ("[pr]\nprovider = 'sourcehut'", "pr.provider"),
    ],
)
def test_what_is_wrong_is_refused_by_name(text: str, needle: str) -> None:
    with pytest.raises(Invalid) as refused:
        config.validate(config.parse_toml(text, "town.toml"), "town.toml")
    assert needle in refused.value.message
    assert refused.value.message.startswith("town.toml")
    assert "\n" not in refused.value.message


def test_nothing_that_would_check_a_change_is_refused_unless_it_is_meant() -> None:
    bare: dict[str, Any] = {"refinery": {"code_review": False}}
    assert "refinery.gates" in config.problems(config.effective(bare, {}))[0]
    bare["refinery"]["allow_no_gates"] = True
    assert config.problems(config.effective(bare, {})) == []


@given(st.integers(min_value=1, max_value=30 * 86400 * 1000))
def test_durations_survive_a_round_trip(milliseconds: int) -> None:
    value = dt.timedelta(milliseconds=milliseconds)
    assert values.parse_duration(values.format_duration(value)) == value


def test_overrides_that_are_legal_alone_but_not_together_are_a_problem_and_not_an_exception() -> None:
    town = config.validate({"dispatch": {"lease": "60s"}})
    rig = config.validate({"dispatch": {"heartbeat": "30s"}})
    assert config.usable(town, rig)[1] == []
    found, problems = config.usable(town, config.validate({"dispatch": {"heartbeat": "30s", "lease": "90s"}}))
    assert problems == [] and found.dispatch.lease == dt.timedelta(seconds=90)
    town = config.validate({"dispatch": {"lease": "25s"}})
    assert config.usable(town, {"dispatch": {"heartbeat": "20s"}})[1] == [
        "config: dispatch: lease must be at least twice the heartbeat"
    ]


def test_another_environment_is_another_check() -> None:
    def command(**more: Any) -> str:
        return config.Gate(name="t", run="npm test", **more).command

    assert command() == "npm test"
    assert command(env={"B": "x y", "A": "1"}) == "A=1 B='x y' npm test"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sandbox": {"read_only": "/opt/x"}}, "sandbox.read_only: expected a list"),
        ({"git": {"branch_prefix": "gt"}}, "git.branch_prefix: expected words that each end with a slash"),
        ({"git": {"email": "nobody"}}, "git.email: expected a mail address"),
        ({"agents": {"polecat": {"network": "open"}}}, "agents.polecat.command: is missing"),
        ({"agents": {"polecat": {"command": ["a"], "env": {"GASTOWN_URL": "x"}}}}, "agents.polecat.env.GASTOWN_URL: "),
        (
            {"refinery": {"gates": [{"name": "a", "run": "a", "nested": "yes"}]}},
            "gates.0.nested: expected true or false",
        ),
        ({"limits": {"depth": -1}}, "limits.depth: must be at least 0"),
    ],
)
def test_a_wrong_value_is_refused_in_words_of_the_config(given: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid) as refused:
        config.validate(given)
    assert words in refused.value.message


def test_a_program_of_the_rig_takes_the_place_of_the_towns_and_of_its_models() -> None:
    town = config.validate({"agents": {"polecat": {"preset": "claude", "model": "big", "secrets": ["KEY"]}}})
    found = config.effective(town, config.validate({"agents": {"polecat": {"command": ["x"]}}})).agents.polecat
    assert found and (found.preset, found.command, found.model, found.secrets) == (None, ("x",), "", ("KEY",))
    found = config.effective(town, config.validate({"agents": {"polecat": {"preset": "codex"}}})).agents.polecat
    assert found and (found.preset, found.model) == ("codex", "")
    found = config.effective(town, config.validate({"agents": {"polecat": {"preset": "claude"}}})).agents.polecat
    assert found and (found.preset, found.model) == ("claude", "big")
    found = config.effective(town, config.validate({"agents": {"polecat": {"model": "small"}}})).agents.polecat
    assert found and (found.preset, found.model) == ("claude", "small")
    found = config.effective({"agents": {"polecat": {"command": ["x"]}}}, town).agents.polecat
    assert found and (found.preset, found.command) == ("claude", ())


@pytest.mark.parametrize(
    ("purpose", "priority", "model"),
    [
        ("work", 2, "all"),
        ("work", 0, "urgent"),
        ("review", 0, "eye"),
        ("resolve", 1, "merge"),
        ("conflict", 1, "merge"),
    ],
)
def test_a_model_is_for_the_purpose_then_the_priority_then_all(purpose: str, priority: int, model: str) -> None:
    models = {"p0": "urgent", "review": "eye", "conflict": "merge", "rework": ""}
    given = {"agents": {"polecat": {"preset": "claude", "model": "all", "models": models}}}
    found = config.effective(config.validate(given), {}).agents.polecat
    assert found and found.model_for(purpose, priority) == model
    assert found.model_for("rework", 0) == "urgent"
