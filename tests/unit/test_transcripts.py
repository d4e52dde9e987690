"""Transcripts: what a preset's stream becomes, and what becomes of one that is too much, broken or hostile."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agents.api.views import HeartbeatBody
from agents.presets import PRESETS, Event, EventKind, Preset
from agents.presets.base import LONGEST
from agents.runtime import transcript
from agents.runtime.orders import Log
from agents.runtime.output import Pump
from agents.runtime.redact import Redactor
from agents.runtime.transcript import MOST_FILE, MOST_TEXT, NAME, Transcript
from refinery.pages import transcripts

STREAMS = Path(__file__).parent / "streams"
TREE = "/home/agent/tree"


class Desk:
    """A run's directory, and what was said in its log."""

    def __init__(self, root: Path) -> None:
        self.path = root / NAME
        self.said: list[str] = []
        self.opened: list[Transcript] = []

    def open(self, preset: str | Preset = "opencode", *secrets: str) -> Transcript:
        known = PRESETS[preset] if isinstance(preset, str) else preset
        self.opened.append(Transcript(self.path, known, Redactor(secrets).text, self.said.append, TREE))
        return self.opened[-1]

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [row for row in self.rows() if row["kind"] == kind]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    for one in made.opened:
        one.end()


def text(words: str) -> bytes:
    """opencode says something."""
    return json.dumps({"type": "text", "part": {"text": words}}).encode() + b"\n"


def step(*tokens: object, cost: object = 0) -> bytes:
    """opencode says what a step has taken: (input, cached, output)."""
    told = {"input": tokens[0], "output": tokens[2], "cache": {"read": tokens[1]}}
    return json.dumps({"type": "step_finish", "part": {"tokens": told, "cost": cost}}).encode() + b"\n"


def call(arguments: Any, tool: str = "bash", output: str = "") -> bytes:
    """opencode calls a tool."""
    state = {"status": "completed", "input": arguments, "output": output}
    return json.dumps({"type": "tool_use", "part": {"tool": tool, "callID": "c1", "state": state}}).encode() + b"\n"


# -- recorded streams -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_transcript(desk: Desk, name: str) -> None:
    made = desk.open(name)
    for chunk in (STREAMS / f"{name}.txt").read_bytes().splitlines(keepends=True):
        made.feed(chunk[:7])
        made.feed(chunk[7:])
    made.end()
    assert [row["n"] for row in desk.rows()] == list(range(1, len(desk.rows()) + 1))
    assert desk.of("text")[-1]["text"] == "The work is done." == made.words()
    calls, results = desk.of("call"), {row["call"]: row for row in desk.of("result")}
    assert "git commit" in str(calls[0]["arguments"])
    assert "Work of b1" in results[calls[0]["call"]]["text"]
    assert results[calls[0]["call"]]["tool"] == calls[0]["tool"]
    told = desk.of("usage")[-1]["sum"]
    assert (told["input"], told["cached"], told["output"]) == (2400, 1500, 120)
    (used,) = made.told()["usage"]
    assert used == told | {"model": used["model"]}
    assert made.told()["session"] or name == "mini"
    HeartbeatBody.model_validate(made.told())
    assert not desk.said


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "mini"])
def test_an_edit_names_its_file_and_what_failed_is_marked(desk: Desk, name: str) -> None:
    made = desk.open(name)
    made.feed((STREAMS / f"{name}-edits.txt").read_bytes())
    made.end()
    first, second = desk.of("call")
    assert first["paths"] == ["notes/new.txt"]
    failed = [row["call"] for row in desk.of("result") if row.get("failed")]
    assert failed == [second["call"]]
    assert made.words() == "Written."


@pytest.mark.parametrize("name", PRESETS)
def test_the_last_words_of_one_that_was_refused_say_so(desk: Desk, name: str) -> None:
    made = desk.open(name)
    made.feed((STREAMS / f"{name}-refused.txt").read_bytes())
    made.end()
    assert "api" in made.words().lower() and "key" in made.words().lower()
    assert made.told()["usage"] == []


def test_claude_tells_before_its_bill_what_its_messages_took_and_the_bill_replaces_that(desk: Desk) -> None:
    made = desk.open("claude")
    lines = (STREAMS / "claude.txt").read_bytes().splitlines(keepends=True)
    for line in lines[:-1]:
        made.feed(line)
    (used,) = made.told()["usage"]
    assert (used["model"], used["input"], used["cached"], used["cost"]) == ("claude-sonnet-5", 2400, 1500, None)
    made.feed(lines[-1].replace(b'"claude-sonnet-5":{', b'"claude-sonnet-5[1m]":{'))
    (used,) = made.told()["usage"]
    assert (used["model"], used["output"], Decimal(used["cost"])) == ("claude-sonnet-5", 120, Decimal("0.00945"))


def test_pieces_of_a_text_are_its_last_words_together(desk: Desk) -> None:
    made = desk.open("gemini")
    for piece in ("I can", "not write ", "here."):
        told = {"type": "message", "role": "assistant", "content": piece, "delta": True}
        made.feed(json.dumps(told).encode() + b"\n")
    made.end()
    assert made.words() == "I cannot write here."
    assert [row["more"] for row in desk.rows()] == [True, True, True]


def test_what_a_program_says_of_its_own_death_comes_after_its_agents_words(desk: Desk) -> None:
    made = desk.open()
    made.feed(text("I look.") + b"ready\nFATAL ERROR: Reached heap limit\nbye\n")
    assert made.words() == "I look.\nFATAL ERROR: Reached heap limit"
    made.feed(text("I go on."))
    assert made.words() == "I go on."


# -- too much ---------------------------------------------------------------------------------------------------------


class Kept(Log):
    """A log that keeps nothing."""

    size = 0

    def write(self, data: bytes) -> None:
        self.size += len(data)

    def say(self, text: str) -> None:
        raise AssertionError(text)


def test_of_100_mb_there_are_8_and_the_usage_of_all(desk: Desk) -> None:
    """Through the pump, as the shim does it: the file is bounded, and so is what is kept in memory."""
    made, log = desk.open(), Kept()
    block = b"".join([text("x" * 200_000), step(10, 20, 30), b"plain words\n", b'{"type":"text","part"\n'])
    times = 100 * 1_000_000 // len(block) + 1
    read, write = os.pipe()
    if not (child := os.fork()):
        with os.fdopen(write, "wb") as out:
            for _ in range(times):
                out.write(block)
            out.write(text("the end"))
        os._exit(0)
    os.close(write)
    tracemalloc.start()
    with os.fdopen(read, "rb") as source:
        Pump(source, Redactor(()), log, lambda: None, transcript=made).run()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    os.waitpid(child, 0)
    assert log.size > 100_000_000
    assert desk.path.stat().st_size <= MOST_FILE
    assert most < 16 << 20
    (used,) = made.told()["usage"]
    assert (used["input"], used["cached"], used["output"]) == (10 * times, 20 * times, 30 * times)
    full, last, whole = desk.rows()[-3:]
    assert "the transcript is full" in full["text"]
    assert last["text"] == "the end" == made.words()
    assert whole["sum"]["output"] == 30 * times


def test_long_names_are_not_remembered_as_a_whole(desk: Desk) -> None:
    made = desk.open("claude")
    tracemalloc.start()
    for number in range(100):
        use = {"type": "tool_use", "id": f"{number}" + "i" * 400_000, "name": f"{number}" + "n" * 400_000, "input": {}}
        told = {"id": f"{number}" + "m" * 100_000, "usage": {"input_tokens": 1, "output_tokens": 1}, "content": [use]}
        made.feed(json.dumps({"type": "assistant", "message": told}).encode() + b"\n")
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 20 << 20, f"{most >> 20} MiB"
    assert len(desk.of("call")) == 100


def test_a_line_that_is_too_long_is_never_kept_as_a_whole(desk: Desk) -> None:
    made = desk.open()
    tracemalloc.start()
    made.feed(b'{"type":"text","part":{"text":"')
    for _ in range(1000):
        made.feed(b"x" * 65536)
    made.feed(b'"}}\n' + text("after"))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    made.end()
    assert most < 4 * LONGEST
    assert [row["text"] for row in desk.rows()] == ["a line of more than 1 MiB is left out", "after"]


def test_texts_and_arguments_are_cut_and_say_so(desk: Desk) -> None:
    made = desk.open()
    made.feed(text("a" * (MOST_TEXT + 5)) + call({f"k{n}": "b" * 10_000 for n in range(40)}, output="c" * 100_000))
    made.end()
    said, made_call, result = desk.rows()
    assert said["text"].endswith("a… (5 more characters: see the log)")
    assert len(result["text"]) < MOST_TEXT + 100
    assert len(json.dumps(made_call)) < MOST_TEXT + 5000
    assert made_call["arguments"]["…"] == "10 more arguments: see the log"


# -- broken and hostile -----------------------------------------------------------------------------------------------

DEEP = (
    b'{"type":"tool_use","part":{"callID":"c","tool":"t","state":{"input":{"a":' + b"[" * 900 + b"]" * 900 + b"}}}}\n"
)
HOSTILE = {
    "half a line": b'{"type":"text","part":{"te',
    "no line": b"\n\n   \n",
    "no JSON": b"{]}\n\xff\xfe\x00\n",
    "deep": b'{"a":' * 5000 + b"\n",
    "deep and whole": DEEP,
    "a huge number": b'{"type":"step_finish","part":{"tokens":{"input":' + b"9" * 5000 + b"}}}\n",
    "a long number": b'{"type":"step_finish","part":{"tokens":{"input":' + b"9" * 4000 + b',"output":1}}}\n',
    "no numbers": b'{"type":"step_finish","part":{"tokens":{"input":NaN,"output":Infinity}}}\n',
    "halves of characters": b'{"type":"text","part":{"text":"\\ud800\\u0000\\u202e"}}\n',
    "a table for a name": b'{"type":"tool_use","part":{"callID":{"a":1},"tool":[1],"state":{"input":{"a":{}}}}}\n',
    "a session that is an option": b'{"type":"step_start","sessionID":"--dangerous"}\n',
}


@pytest.mark.parametrize("what", HOSTILE)
def test_whatever_a_line_is_those_after_it_count(desk: Desk, what: str) -> None:
    made = desk.open()
    made.feed(HOSTILE[what])
    if not HOSTILE[what].endswith(b"\n"):
        made.feed(b"\n")
    made.feed(text("after") + step(1, 2, 3))
    made.end()
    HeartbeatBody.model_validate(made.told())
    assert made.told()["session"] == ""
    assert desk.of("text")[-1]["text"] == "after"
    assert desk.of("usage")[-1]["sum"]["output"] == 3
    assert len(list(transcripts.rows(desk.path))) == len(desk.rows())


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ((-5, 0, 1), "(input, cached, output: -5, 0, 1)"),
        ((10**13, 0, 1), "(input, cached, output: 10000000000000, 0, 1)"),
        (("7", 0, 1), "'7'"),
        ((10**11, 0, 1), "usage that cannot be one run's is not counted"),
    ],
)
def test_usage_that_cannot_be_is_one_sentence_and_no_usage(desk: Desk, said: tuple[object, ...], words: str) -> None:
    made = desk.open()
    made.feed(step(1, 2, 3) + step(*said) + step(1, 2, 3))
    (note,) = desk.of("note")
    assert words in note["text"]
    (used,) = made.told()["usage"]
    assert (used["input"], used["cached"], used["output"]) == (2, 4, 6)


def test_no_number_of_pieces_or_models_goes_beyond_what_the_server_takes(desk: Desk) -> None:
    """A heartbeat that the server refuses would cost the run its lease."""
    made = desk.open()
    for _ in range(300):
        made.feed(step(10**9, 10**9, 10**9, cost=900_000))
    HeartbeatBody.model_validate(made.told())
    assert made.told()["usage"] == []  # a price that one run cannot have: nothing of it is believed
    for _ in range(300):
        made.feed(step(10**9, 10**9, 10**9))
    assert made.told()["usage"][0]["input"] == transcript.MOST_TOKENS
    many = desk.open("gemini")
    stats = {"models": {f"model-{n}" + "é" * 250: {"input_tokens": 1, "output_tokens": 1} for n in range(500)}}
    many.feed(json.dumps({"type": "result", "stats": stats}).encode() + b"\n")
    told = many.told()
    assert len(told["usage"]) == transcript.MOST_MODELS
    HeartbeatBody.model_validate(told)
    assert len(desk.of("note")) <= 2 * transcript.MOST_NOTES


def test_a_parser_that_fails_is_said_once_and_ends_nothing(desk: Desk) -> None:
    def fails(line: str) -> tuple[Event, ...]:
        if "bad" in line:
            raise KeyError("no such key")
        return (Event(EventKind.TEXT, line),)

    made = desk.open(replace(PRESETS["opencode"], parse=fails))
    made.feed(b"good\nbad\nbad\ngood\n")
    made.end()
    assert [row["text"] for row in desk.of("text")] == ["good", "good"]
    assert len(desk.said) == 1 and "KeyError: 'no such key'" in desk.said[0]
    assert len(desk.of("note")) == 1


def test_a_secret_that_json_had_escaped_is_taken_out(desk: Desk) -> None:
    made = desk.open("opencode", "s3cret-value")
    made.feed(b'{"type":"text","part":{"text":"it is \\u00733cret-value"}}\n')
    made.feed(call({"command": "echo s3cret-value"}) + b"error: s3cret-value\n")
    made.end()
    assert "s3cret-value" not in desk.path.read_text() + made.words()
    assert "it is [secret]" in desk.path.read_text()


def test_a_directory_that_is_not_there_loses_the_transcript_and_not_the_run(tmp_path: Path) -> None:
    made = Desk(tmp_path / "gone").open()
    made.feed(text("words") + step(1, 2, 3))
    made.end()
    assert made.words() == "words" and made.told()["usage"][0]["output"] == 3
