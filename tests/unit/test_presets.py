"""Presets: how each is started, and what its recorded output means (`streams/`, from the real programs)."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest

from agents.presets import PRESETS, Event, EventKind, Start, Usage, bill, find
from agents.presets.telling import Trouble, last_words, trouble
from beads import config as configs

STREAMS = Path(__file__).parent / "streams"
PROGRAM = ("/opt/node", "/opt/agent")


def said(name: str, recorded: str) -> list[Event]:
    """What a recording means."""
    lines = (STREAMS / recorded).read_text().splitlines()
    return [event for line in lines for event in PRESETS[name].parse(line)]


def start(name: str, **more: object) -> str:
    """A start, as one line of its command."""
    return " ".join(PRESETS[name].start(Start(PROGRAM, "/home/agent", **more)).argv)  # type: ignore[arg-type]


def test_the_config_knows_exactly_the_presets_that_there_are() -> None:
    assert {str(one) for one in configs.Preset} == set(PRESETS)
    assert all(name == preset.name for name, preset in PRESETS.items())


@pytest.mark.parametrize("name", PRESETS)
def test_three_turns_cost_what_the_model_has_charged(name: str) -> None:
    """The scripted model charges 800 tokens, 500 cached and 40 of output for each of its answers."""
    events = said(name, f"{name}.txt")
    (usage,) = bill(events).values()
    assert (usage.input, usage.cached, usage.output) == (2400, 1500, 120)
    assert not [event for event in events if event.kind is EventKind.ERROR]


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "mini"])
def test_a_stream_is_text_calls_and_results_in_a_session(name: str) -> None:
    events = said(name, f"{name}.txt")
    assert next(event.session for event in events if event.session)
    assert [event.text for event in events if event.kind is EventKind.TEXT][-1] == "The work is done."
    calls = [event for event in events if event.kind is EventKind.CALL]
    assert ["git commit" in str(c.arguments) for c in calls] == [True, False]
    results = {event.call: event.text for event in events if event.kind is EventKind.RESULT}
    assert "Work of b1" in results[calls[0].call] and '"ok":true' in results[calls[1].call]


def test_claude_says_model_and_cost() -> None:
    (usage,) = bill(said("claude", "claude.txt")).values()
    assert usage.model == "claude-sonnet-5" and usage.cost == Decimal("0.00945")


@pytest.mark.parametrize("name", PRESETS)
def test_a_refused_key_is_said_to_be_one(name: str) -> None:
    output = (STREAMS / f"{name}-refused.txt").read_text().splitlines()
    words = last_words(said(name, f"{name}-refused.txt"), output)
    assert trouble(words) is Trouble.KEY, words
    assert "\n" not in words and len(words) <= 300


NONSENSE = [
    "", "plain words", "{", '{"type":', "[]", "null", '"x"', "{}", '{"type":"result"}', '{"type":"result","usage":7}',
    '{"type":"assistant","message":{"content":"x"}}', '{"type":"user","message":[]}',
    '{"type":"step_finish","part":[]}',
    '{"type":"turn.completed","usage":{"input_tokens":5,"cached_input_tokens":9,"output_tokens":1}}',
    '{"type":"turn.completed","usage":{"input_tokens":-5,"output_tokens":1}}',
    '{"type":"turn.completed","usage":{"input_tokens":1e300,"output_tokens":1}}',
    '{"type":"step_finish","part":{"tokens":{"input":true,"output":1,"cache":{"read":0}}}}',
    '{"type":"step_finish","part":{"tokens":{"input":10000000000000,"output":1,"cache":{"read":0}}}}',
    '{"type":"result","modelUsage":{"m":{"inputTokens":"7","outputTokens":1,"cacheReadInputTokens":0}}}',
    '{"type":"result","stats":{"models":{"m":{"input_tokens":-1,"output_tokens":1}}}}',
    '{"type":"mini.ended","usage":{"prompt_tokens":null}}', '{"type":"item.completed","item":null}',
    "{" * 100_000, '{"type":"text","part":{"text":"' + "x" * 2_000_000 + '"}}',
]  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("number", range(len(NONSENSE)))
def test_half_lines_and_absurd_usage_are_no_usage(name: str, number: int) -> None:
    assert not bill(PRESETS[name].parse(NONSENSE[number]))


@pytest.mark.parametrize(
    ("cost", "known"), [(-1, None), ("nan", None), (1e9, None), (True, None), (0.5, Decimal("0.5"))]
)
def test_a_cost_that_cannot_be_is_not_known(cost: object, known: Decimal | None) -> None:
    usage = {"input_tokens": 1, "output_tokens": 1}
    line = json.dumps({"type": "result", "usage": usage, "total_cost_usd": cost})
    assert bill(PRESETS["claude"].parse(line)) == {"": Usage(1, 0, 1, known, total=True)}


def test_pieces_add_up_and_totals_replace() -> None:
    def event(*numbers: int, **more: object) -> Event:
        return Event(EventKind.USAGE, usage=Usage(*numbers, **more))  # type: ignore[arg-type]

    pieces = [event(1, 2, 3, cost=Decimal(1)), event(10, 20, 30)]
    assert bill(pieces) == {"": Usage(11, 22, 33, Decimal(1))}
    assert bill([event(1, 2, 3, total=True), event(5, 6, 7, total=True)])[""].input == 5


@pytest.mark.parametrize("name", PRESETS)
def test_model_and_session_reach_the_command(name: str) -> None:
    assert "openai/big" in start(name, model="openai/big")
    assert "big" not in start(name)
    if PRESETS[name].sessions:
        assert "session-7" in start(name, session="session-7")
        assert PRESETS[name].lost
        assert not any(part.startswith("/") or ".." in part for part in PRESETS[name].sessions)
        assert not [
            word for word in ("auth", "config", "settings", "credential") if word in str(PRESETS[name].sessions)
        ]


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "mini"])
def test_mcp_is_named_without_its_token(name: str) -> None:
    launch = PRESETS[name].start(Start(PROGRAM, "/home/agent", tools="http://127.0.0.1:8000"))
    told = " ".join([*launch.argv, *launch.files.values()])
    assert "http://127.0.0.1:8000/mcp" in told and "GASTOWN_TOKEN" in told
    assert "mcp" not in start(name)


@pytest.mark.parametrize("name", ["codex", "opencode", "kilo"])
def test_another_base_url_is_a_provider_of_the_config(name: str) -> None:
    env = {"OPENAI_BASE_URL": "http://door/v1"}
    launch = PRESETS[name].start(Start(PROGRAM, "/home/agent", "openai/m", env, ("OPENAI_API_KEY",)))
    assert "http://door/v1" in " ".join([*launch.argv, *launch.files.values()])


@pytest.mark.parametrize(
    ("name", "model", "key"),
    [
        ("claude", "", "ANTHROPIC_API_KEY"), ("codex", "", "OPENAI_API_KEY"), ("gemini", "", "GEMINI_API_KEY"),
        ("mini", "anthropic/x", "ANTHROPIC_API_KEY"), ("kilo", "openrouter/x/y", "OPENROUTER_API_KEY"),
    ],
)  # fmt: skip
def test_the_model_says_which_key(name: str, model: str, key: str) -> None:
    api = PRESETS[name].api(model)
    assert api is not None and api.key == key and api.host.endswith(":443") and api.base_url_env.endswith("_BASE_URL")
    assert PRESETS["mini"].api("nobody/knows") is None


def program(path: Path, text: str) -> Path:
    """An executable file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_an_npm_package_is_its_node_modules_and_node(tmp_path: Path) -> None:
    node = program(tmp_path / "node24" / "bin" / "node", "")
    (tmp_path / "node24" / "include" / "node").mkdir(parents=True)
    script = program(tmp_path / "lib" / "node_modules" / "@x" / "cli" / "bin.js", "#!/usr/bin/env node\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "codex").symlink_to(script)
    found = find.find(PRESETS["codex"], f"{tmp_path}/bin:{node.parent}")
    assert found is not None and found.program == (str(node), str(script))
    assert found.shown == (str(tmp_path / "lib" / "node_modules"), str(tmp_path / "node24"))


def test_a_python_program_is_its_environment_and_one_file_is_itself(tmp_path: Path) -> None:
    python = program(tmp_path / "python3" / "bin" / "python3.11", "")
    (tmp_path / "python3" / "lib").mkdir()
    venv = tmp_path / "venv"
    mini = program(venv / "bin" / "mini", f"#!{venv}/bin/python\n")
    (venv / "bin" / "python").symlink_to(python)
    (venv / "pyvenv.cfg").write_text("")
    found = find.find(PRESETS["mini"], f"{venv}/bin")
    assert found is not None and found.program == (str(mini),)
    assert found.shown == (str(venv), str(tmp_path / "python3"))
    alone = program(tmp_path / "alone" / "claude", "\x7fELF")
    found = find.find(PRESETS["claude"], str(alone.parent))
    assert found is not None and found.shown == (str(alone),)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("API Error: 401 invalid x-api-key", Trouble.KEY),
        ("Not logged in · Please run /login", Trouble.LOGIN),
        ("unexpected status 404 Not Found: model: x does not exist", Trouble.MODEL),
        ("The model `gpt-x` does not exist", Trouble.MODEL),
        ("Request failed: 429 Too Many Requests", Trouble.RATE),
        ("prompt is too long: 210000 tokens", Trouble.CONTEXT),
        ("getaddrinfo ENOTFOUND api.example.org", Trouble.NETWORK),
        ("sh: 1: claude: command not found", Trouble.PROGRAM),
        ("I have done it", Trouble.OTHER),
    ],
)
def test_words_tell_what_is_wrong(words: str, kind: Trouble) -> None:
    assert trouble(words) is kind
