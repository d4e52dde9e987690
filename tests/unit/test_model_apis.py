"""The model door's pure half: which requests, whose key, how errors look, and what answers say of their usage."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from typing import Any

import pytest

from agents.model_door import apis
from agents.model_door.apis import Kind, Refusal
from agents.model_door.meters import MOST, Meter, WithoutUsage
from beads.budget import Spent


def event(told: object, name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(told)}\n\n".encode()


START = {
    "type": "message_start",
    "message": {
        "model": "claude-x-20260101",
        "usage": {
            "input_tokens": 600,
            "cache_read_input_tokens": 500,
            "cache_creation_input_tokens": 7,
            "output_tokens": 1,
        },
    },
}
DELTA = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 40}}
TEXT = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": 'says "usage" and\n\n\u2028 more'}}
ANTHROPIC = (
    event(START, "message_start") + event(TEXT) + event(DELTA, "message_delta") + event({"type": "message_stop"})
)
CHUNK = {"model": "gpt-x", "choices": [{"delta": {"content": "hi"}}], "usage": None}
USED = {"prompt_tokens": 1100, "completion_tokens": 40, "prompt_tokens_details": {"cached_tokens": 500}}
LAST = {"model": "gpt-x", "choices": [], "usage": USED}
CHAT = event(CHUNK) + event(LAST) + b"data: [DONE]\n\n"
RESPONSE = {
    "object": "response",
    "model": "gpt-x",
    "usage": {"input_tokens": 1100, "input_tokens_details": {"cached_tokens": 500}, "output_tokens": 40},
}
RESPONSES = event({"type": "response.created", "response": {"model": "gpt-x", "usage": None}}) + event(
    {"type": "response.completed", "response": RESPONSE}
)
GOOGLE = [
    {"modelVersion": "gemini-x", "candidates": [{"content": {}}], "usageMetadata": {"promptTokenCount": 1100}},
    {
        "modelVersion": "gemini-x",
        "candidates": [{"finishReason": "STOP"}],
        "usageMetadata": {
            "promptTokenCount": 1100,
            "cachedContentTokenCount": 500,
            "candidatesTokenCount": 30,
            "thoughtsTokenCount": 10,
        },
    },
]
KNOWN = Spent(1, 600, 500, 0, 40)


def read(kind: Kind, data: bytes, *, stream: bool = True, step: int = 0, encoding: str = "") -> Any:
    meter = Meter(kind, stream=stream, encoding=encoding)
    for at in range(0, len(data), step or len(data) or 1):
        meter.feed(data[at : at + (step or len(data))])
    return meter.end()


@pytest.mark.parametrize("step", [0, 1, 7, 100])
@pytest.mark.parametrize(
    ("kind", "data", "stream", "model", "spent"),
    [
        (Kind.MESSAGES, ANTHROPIC, True, "claude-x-20260101", Spent(1, 600, 500, 7, 40)),
        (Kind.CHAT, CHAT, True, "gpt-x", KNOWN),
        (Kind.CHAT, CHAT.replace(b"\n\n", b"\r\n\r\n"), True, "gpt-x", KNOWN),
        (Kind.CHAT, json.dumps({**CHUNK, "usage": USED}).encode(), False, "gpt-x", KNOWN),
        (Kind.RESPONSES, RESPONSES, True, "gpt-x", KNOWN),
        (Kind.RESPONSES, json.dumps(RESPONSE).encode(), False, "gpt-x", KNOWN),
        (Kind.GENERATE, b"".join(map(event, GOOGLE)), True, "gemini-x", KNOWN),
        (Kind.GENERATE, json.dumps(GOOGLE).encode(), False, "gemini-x", KNOWN),
        (Kind.GENERATE, json.dumps(GOOGLE[1]).encode(), False, "gemini-x", KNOWN),
    ],
)
def test_an_answer_says_what_it_used(
    kind: Kind, data: bytes, stream: bool, model: str, spent: Spent, step: int
) -> None:
    seen = read(kind, data, stream=stream, step=step)
    assert (seen.model, seen.spent()) == (model, spent)


def test_a_whole_message_is_read_as_well_and_also_when_it_is_packed() -> None:
    whole = json.dumps({"type": "message", "model": "m", "usage": {"input_tokens": 3, "output_tokens": 4}}).encode()
    assert read(Kind.MESSAGES, whole, stream=False).spent() == Spent(1, 3, 0, 0, 4)
    assert read(Kind.MESSAGES, gzip.compress(whole), stream=False, encoding="gzip", step=9).spent() == Spent(
        1, 3, 0, 0, 4
    )
    assert read(Kind.MESSAGES, whole, stream=False, encoding="br").spent() == Spent(1, uncounted=1)
    assert read(Kind.MESSAGES, b"no gzip", stream=False, encoding="gzip").spent() == Spent(1, uncounted=1)


def test_a_stream_that_is_cut_short_is_counted_as_far_as_it_is_known_and_said_not_to_be_whole() -> None:
    assert read(Kind.MESSAGES, event(START)).spent() == Spent(1, 600, 500, 7, 1, uncounted=1)
    assert read(Kind.CHAT, event(CHUNK)).spent() == Spent(1, uncounted=1)
    assert read(Kind.GENERATE, event(GOOGLE[0])).spent() == Spent(1, 1100, 0, 0, 0, uncounted=1)
    assert read(Kind.CHAT, CHAT[:-40]).spent() in (KNOWN, Spent(1, uncounted=1))
    assert read(Kind.RESPONSES, b"").spent() == Spent(1, uncounted=1)


@pytest.mark.parametrize("count", [-1, 1.5, True, "600", MOST + 1, 10**30, [], {}])
def test_what_no_count_can_be_is_not_known(count: object) -> None:
    told = {"model": "m", "choices": [], "usage": {"prompt_tokens": count, "completion_tokens": 4}}
    assert read(Kind.CHAT, event(told)).spent() == Spent(1, uncounted=1)
    message = {"type": "message", "model": "m", "usage": {"input_tokens": count, "output_tokens": 4}}
    assert read(Kind.MESSAGES, json.dumps(message).encode(), stream=False).spent() == Spent(1, uncounted=1)


@pytest.mark.parametrize("data", [b"data: [1]\n\n", b'data: {"usage": 3}\n\n', b'data: {"usage"\n\n', b"\xff\xfe\n\n"])
@pytest.mark.parametrize("kind", [Kind.MESSAGES, Kind.CHAT, Kind.RESPONSES, Kind.GENERATE])
def test_nonsense_is_not_known_and_breaks_nothing(kind: Kind, data: bytes) -> None:
    assert read(kind, data).spent() == Spent(1, uncounted=1)


def test_a_cost_that_a_provider_tells_is_taken() -> None:
    seen = read(Kind.CHAT, event({**LAST, "usage": {**USED, "cost": 0.0031}}))
    assert seen.cost == Decimal("0.0031")
    for absurd in (-1, float("nan"), 1e9):
        seen = read(Kind.CHAT, event({**LAST, "usage": {**USED, "cost": absurd}}))
        assert seen.cost is None and seen.spent().uncounted == 1


# -- requests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "below", "kind"),
    [
        ("POST", "/model/anthropic/v1/messages", "/v1/messages", Kind.MESSAGES),
        ("POST", "/model/anthropic/v1/messages/count_tokens", "/v1/messages/count_tokens", Kind.FREE),
        ("GET", "/model/anthropic/v1/models", "/v1/models", Kind.FREE),
        ("POST", "/model/openai/v1/chat/completions", "/chat/completions", Kind.CHAT),
        ("POST", "/model/openai/chat/completions", "/chat/completions", Kind.CHAT),
        ("POST", "/model/openai/v1/responses", "/responses", Kind.RESPONSES),
        ("GET", "/model/openai/v1/models/gpt-x", "/models/gpt-x", Kind.FREE),
        ("POST", "/model/google/v1beta/models/gemini-x:generateContent", None, Kind.GENERATE),
        ("POST", "/model/google/v1beta/models/gemini-x:streamGenerateContent", None, Kind.GENERATE),
        ("POST", "/model/google/v1/models/gemini-x:countTokens", None, Kind.FREE),
    ],
)
def test_what_is_passed_on(method: str, path: str, below: str | None, kind: Kind) -> None:
    found = apis.route(method, path)
    assert (found.path, found.kind) == (below or path.removeprefix("/model/google"), kind)
    assert found.model == ("gemini-x" if "gemini" in path else "")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/model/anthropic/v1/messages", 405),
        ("POST", "/model/anthropic/v1/messages/batches", 404),
        ("POST", "/model/anthropic/v1/organizations/x", 404),
        ("GET", "/model/openai/v1/files", 404),
        ("POST", "/model/openai/v1/../v1/responses", 404),
        ("POST", "/model/google/v1beta/models/a/b:generateContent", 404),
        ("POST", "/model/google", 404),
        ("GET", "/model/", 404),
        ("GET", "/model/nobody/v1/x", 404),
    ],
)
def test_what_is_not(method: str, path: str, status: int) -> None:
    with pytest.raises(Refusal) as caught:
        apis.route(method, path)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ([("X-Api-Key", "t")], ""),
        ([("Authorization", "Bearer t")], ""),
        ([("authorization", "bearer  t")], ""),
        ([("x-goog-api-key", "t")], ""),
        ([], "alt=sse&key=t"),
    ],
)
def test_the_token_is_taken_from_wherever_a_key_is_carried(headers: list[tuple[str, str]], query: str) -> None:
    assert apis.token_of(headers, query) == "t"
    for api in apis.APIS.values():
        told = apis.headers_up(api, headers, "real")
        assert [v for k, v in told if "t" in v.split() or v == "t"] == []
        assert (api.header, f"{api.scheme}real") in told
    assert apis.query_up(query) in ("", "alt=sse")
    assert apis.token_of([("authorization", "Basic t")], "") == ""


def test_what_is_of_one_connection_goes_no_further() -> None:
    given = [("Connection", "close, X-Mine"), ("X-Mine", "1"), ("Cookie", "a"), ("X-Forwarded-For", "b"), ("Host", "c")]
    told = apis.headers_up(apis.APIS["openai"], [*given, ("anthropic-beta", "x")], "k")
    assert {name.lower() for name, _ in told} == {"anthropic-beta", "accept-encoding", "authorization"}
    down = apis.headers_down([("Transfer-Encoding", "chunked"), ("Set-Cookie", "a"), ("Retry-After", "3")])
    assert down == [("Retry-After", "3")]


def test_a_stream_of_chat_completions_is_asked_for_its_usage_and_the_caller_does_not_see_it() -> None:
    where = apis.route("POST", "/model/openai/v1/chat/completions")
    asked = apis.read_body(where, b'{"model": "gpt-x", "stream": true, "stream_options": {"x": 1}}')
    assert asked.added and json.loads(asked.body)["stream_options"] == {"x": 1, "include_usage": True}
    for step in (1, 5, len(CHAT)):
        cut = WithoutUsage()
        got = b"".join(cut.feed(CHAT[at : at + step]) for at in range(0, len(CHAT), step)) + cut.end()
        assert got == event(CHUNK) + b"data: [DONE]\n\n"
    own = b'{"model": "gpt-x", "stream": true, "stream_options": {"include_usage": true}}'
    assert apis.read_body(where, own) == apis.Asked("gpt-x", own)
    plain = b'{"model":   "gpt-x"}'
    assert apis.read_body(where, plain) == apis.Asked("gpt-x", plain)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_a_body_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(Refusal):
        apis.read_body(apis.route("POST", "/model/openai/v1/responses"), body)


def test_an_answer_that_comes_later_is_refused() -> None:
    with pytest.raises(Refusal):
        apis.read_body(apis.route("POST", "/model/openai/v1/responses"), b'{"model": "m", "background": true}')


def test_an_error_is_said_as_the_api_says_it() -> None:
    for name, at in (
        ("anthropic", ("error", "message")),
        ("openai", ("error", "message")),
        ("google", ("error", "message")),
    ):
        told: Any = json.loads(apis.error_body(apis.APIS[name], 402, "No more."))
        assert told[at[0]][at[1]] == "No more."
        assert apis.message_of(apis.error_body(apis.APIS[name], 402, "No more."))[0] == "No more."


@pytest.mark.parametrize(
    ("status", "message", "code", "fault"),
    [
        (401, "", "", "key"),
        (400, "API key not valid", "INVALID_ARGUMENT", "key"),
        (404, "", "", "model"),
        (400, "", "model_not_found", "model"),
        (429, "", "insufficient_quota", "credit"),
        (400, "Your credit balance is too low", "", "credit"),
        (429, "slow down", "rate_limit_error", ""),
        (500, "", "", ""),
        (400, "prompt is too long", "", ""),
    ],
)
def test_what_only_a_person_can_mend(status: int, message: str, code: str, fault: str) -> None:
    assert apis.fault(status, message, code) == fault
