"""The four APIs: a request is read into what it comes down to, and an answer is written as its vendor writes it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gastown_site.rehearsal.talk import Asked, Heard, Turn, joined, sse

_numbers = itertools.count(1)


class Dialect(Protocol):
    """One API."""

    @property
    def name(self) -> str:
        """What it is called in the books."""

    @property
    def unknown_model(self) -> int:
        """The status for a model that does not exist."""

    def read(self, body: Mapping[str, Any], path: str) -> Asked:
        """The request."""

    def whole(self, asked: Asked, turn: Turn) -> dict[str, Any]:
        """The answer in one piece."""

    def streamed(self, asked: Asked, turn: Turn) -> Iterator[bytes]:
        """The answer as it comes."""

    def refusal(self, status: int, message: str) -> dict[str, Any]:
        """The body of an error."""


def _schema(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    for key in ("input_schema", "parameters", "parametersJsonSchema"):
        if isinstance(found := tool.get(key), Mapping):
            return found
    return {}


def _next(prefix: str) -> str:
    return f"{prefix}_{next(_numbers):06d}"


@dataclass(frozen=True)
class Anthropic:
    """POST /v1/messages."""

    name: str = "anthropic"
    unknown_model: int = 404

    def read(self, body: Mapping[str, Any], path: str) -> Asked:
        """The request."""
        heard = Heard()
        for message in body.get("messages") or []:
            blocks = message.get("content")
            blocks = [{"type": "text", "text": blocks}] if isinstance(blocks, str) else blocks or []
            for block in blocks:
                if block.get("type") == "tool_result":
                    heard.result(joined(block.get("content")))
                elif message.get("role") == "user":
                    heard.say(joined(block))
        tools = {tool["name"]: _schema(tool) for tool in body.get("tools") or [] if "name" in tool}
        return heard.asked(str(body.get("model")), bool(body.get("stream")), tools)

    def _usage(self, turn: Turn, output: int) -> dict[str, int]:
        return {
            "input_tokens": turn.tokens.fresh,
            "cache_read_input_tokens": turn.tokens.cached,
            "cache_creation_input_tokens": 0,
            "output_tokens": output,
        }

    def _message(self, asked: Asked, turn: Turn, content: list[dict[str, Any]], stop: str | None) -> dict[str, Any]:
        output = turn.tokens.output if stop else 1
        return {
            "id": _next("msg"), "type": "message", "role": "assistant", "model": asked.model, "content": content,
            "stop_reason": stop, "stop_sequence": None, "usage": self._usage(turn, output),
        }  # fmt: skip

    def _content(self, asked: Asked, turn: Turn) -> tuple[list[dict[str, Any]], str]:
        content: list[dict[str, Any]] = [{"type": "text", "text": turn.text}] if turn.text else []
        if call := turn.call(asked):
            content.append({"type": "tool_use", "id": _next("toolu"), "name": call[0], "input": call[1]})
            return content, "tool_use"
        return content, "end_turn"

    def whole(self, asked: Asked, turn: Turn) -> dict[str, Any]:
        """The answer in one piece."""
        return self._message(asked, turn, *self._content(asked, turn))

    def streamed(self, asked: Asked, turn: Turn) -> Iterator[bytes]:
        """The answer as it comes."""
        content, stop = self._content(asked, turn)
        yield sse({"type": "message_start", "message": self._message(asked, turn, [], None)}, "message_start")
        for index, block in enumerate(content):
            at = {"index": index}
            if block["type"] == "text":
                empty: dict[str, Any] = {"type": "text", "text": ""}
                delta = {"type": "text_delta", "text": block["text"]}
            else:
                empty = {**block, "input": {}}
                delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
            yield sse({"type": "content_block_start", **at, "content_block": empty}, "content_block_start")
            yield sse({"type": "content_block_delta", **at, "delta": delta}, "content_block_delta")
            yield sse({"type": "content_block_stop", **at}, "content_block_stop")
        end = {"delta": {"stop_reason": stop, "stop_sequence": None}, "usage": {"output_tokens": turn.tokens.output}}
        yield sse({"type": "message_delta", **end}, "message_delta")
        yield sse({"type": "message_stop"}, "message_stop")

    def refusal(self, status: int, message: str) -> dict[str, Any]:
        """The body of an error."""
        kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
        return {"type": "error", "error": {"type": kinds.get(status, "api_error"), "message": message}}


@dataclass(frozen=True)
class Chat:
    """POST /v1/chat/completions."""

    name: str = "openai-chat"
    unknown_model: int = 404

    def read(self, body: Mapping[str, Any], path: str) -> Asked:
        """The request."""
        heard = Heard()
        for message in body.get("messages") or []:
            if message.get("role") == "tool":
                heard.result(joined(message.get("content")))
            elif message.get("role") == "user":
                heard.say(joined(message.get("content")))
        functions = [tool.get("function") or {} for tool in body.get("tools") or []]
        tools = {tool["name"]: _schema(tool) for tool in functions if "name" in tool}
        return heard.asked(str(body.get("model")), bool(body.get("stream")), tools)

    def _usage(self, turn: Turn) -> dict[str, Any]:
        tokens = turn.tokens
        return {
            "prompt_tokens": tokens.input, "completion_tokens": tokens.output,
            "total_tokens": tokens.input + tokens.output, "prompt_tokens_details": {"cached_tokens": tokens.cached},
        }  # fmt: skip

    def _calls(self, asked: Asked, turn: Turn) -> list[dict[str, Any]]:
        call = turn.call(asked)
        function = {"name": call[0], "arguments": json.dumps(call[1])} if call else {}
        return [{"id": _next("call"), "type": "function", "function": function}] if call else []

    def whole(self, asked: Asked, turn: Turn) -> dict[str, Any]:
        """The answer in one piece."""
        calls = self._calls(asked, turn)
        message = {"role": "assistant", "content": turn.text, **({"tool_calls": calls} if calls else {})}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
        return {
            "id": _next("chatcmpl"), "object": "chat.completion", "created": 1, "model": asked.model,
            "choices": [choice], "usage": self._usage(turn),
        }  # fmt: skip

    def streamed(self, asked: Asked, turn: Turn) -> Iterator[bytes]:
        """The answer as it comes."""
        about = {"id": _next("chatcmpl"), "object": "chat.completion.chunk", "created": 1, "model": asked.model}
        calls = self._calls(asked, turn)
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": turn.text}]
        deltas += [{"tool_calls": [{"index": n, **call}]} for n, call in enumerate(calls)]
        for delta in deltas:
            yield sse({**about, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        end = {"index": 0, "delta": {}, "finish_reason": "tool_calls" if calls else "stop"}
        yield sse({**about, "choices": [end]})
        yield sse({**about, "choices": [], "usage": self._usage(turn)})
        yield sse("[DONE]")

    def refusal(self, status: int, message: str) -> dict[str, Any]:
        """The body of an error."""
        return {"error": {"message": message, "type": "server_error", "code": str(status), "param": None}}


@dataclass(frozen=True)
class Responses(Chat):
    """POST /v1/responses."""

    name: str = "openai-responses"
    unknown_model: int = 400

    def read(self, body: Mapping[str, Any], path: str) -> Asked:
        """The request."""
        heard = Heard()
        given = body.get("input") or []
        for item in [{"role": "user", "content": given}] if isinstance(given, str) else given:
            if str(item.get("type", "")).endswith("_call_output"):
                heard.result(joined(item.get("output")))
            elif item.get("role") == "user":
                heard.say(joined(item.get("content")))
        tools = {tool.get("name") or tool.get("type"): _schema(tool) for tool in body.get("tools") or []}
        return heard.asked(str(body.get("model")), bool(body.get("stream")), tools)

    def _items(self, asked: Asked, turn: Turn) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        if turn.text:
            part = {"type": "output_text", "text": turn.text, "annotations": []}
            items.append(
                {"id": _next("msg"), "type": "message", "role": "assistant", "status": "completed", "content": [part]}
            )
        if call := turn.call(asked):
            told = {"name": call[0], "arguments": json.dumps(call[1]), "call_id": _next("call")}
            items.append({"id": _next("fc"), "type": "function_call", "status": "completed", **told})
        return items

    def _response(self, asked: Asked, turn: Turn, items: list[dict[str, Any]], status: str) -> dict[str, Any]:
        tokens = turn.tokens
        usage = {
            "input_tokens": tokens.input, "input_tokens_details": {"cached_tokens": tokens.cached},
            "output_tokens": tokens.output, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": tokens.input + tokens.output,
        }  # fmt: skip
        return {
            "id": _next("resp"), "object": "response", "created_at": 1, "status": status, "model": asked.model,
            "output": items, "error": None, "incomplete_details": None, "instructions": None, "metadata": {},
            "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
            "usage": usage if status == "completed" else None,
        }  # fmt: skip

    def whole(self, asked: Asked, turn: Turn) -> dict[str, Any]:
        """The answer in one piece."""
        return self._response(asked, turn, self._items(asked, turn), "completed")

    def streamed(self, asked: Asked, turn: Turn) -> Iterator[bytes]:
        """The answer as it comes."""
        items, numbers = self._items(asked, turn), itertools.count()

        def event(kind: str, **data: Any) -> bytes:
            """One event."""
            return sse({"type": kind, "sequence_number": next(numbers), **data}, kind)

        begun = self._response(asked, turn, [], "in_progress")
        yield event("response.created", response=begun)
        for index, item in enumerate(items):
            at = {"output_index": index, "item_id": item["id"]}
            blank: dict[str, Any] = {"content": []} if item["type"] == "message" else {"arguments": ""}
            hollow = {**item, "status": "in_progress", **blank}
            yield event("response.output_item.added", output_index=index, item=hollow)
            if item["type"] == "message":
                part = item["content"][0]
                empty = {**part, "text": ""}
                yield event("response.content_part.added", **at, content_index=0, part=empty)
                yield event("response.output_text.delta", **at, content_index=0, delta=part["text"], logprobs=[])
                yield event("response.output_text.done", **at, content_index=0, text=part["text"], logprobs=[])
                yield event("response.content_part.done", **at, content_index=0, part=part)
            else:
                yield event("response.function_call_arguments.delta", **at, delta=item["arguments"])
                yield event("response.function_call_arguments.done", **at, arguments=item["arguments"])
            yield event("response.output_item.done", output_index=index, item=item)
        yield event(
            "response.completed", response={**self._response(asked, turn, items, "completed"), "id": begun["id"]}
        )


@dataclass(frozen=True)
class Google:
    """POST /v1beta/models/MODEL:generateContent, :streamGenerateContent?alt=sse."""

    name: str = "google"
    unknown_model: int = 404

    def read(self, body: Mapping[str, Any], path: str) -> Asked:
        """The request."""
        heard = Heard()
        for content in body.get("contents") or []:
            for part in content.get("parts") or []:
                if "functionResponse" in part:
                    heard.result(json.dumps(part["functionResponse"].get("response")))
                elif content.get("role", "user") == "user":
                    heard.say(joined(part))
        declared = [one for tool in body.get("tools") or [] for one in tool.get("functionDeclarations") or []]
        tools = {tool["name"]: _lower(_schema(tool)) for tool in declared}
        model = path.rpartition("/")[2].partition(":")[0]
        return heard.asked(model, ":streamGenerateContent" in path, tools)

    def whole(self, asked: Asked, turn: Turn) -> dict[str, Any]:
        """The answer in one piece."""
        parts: list[dict[str, Any]] = [{"text": turn.text}] if turn.text else []
        if call := turn.call(asked):
            parts.append({"functionCall": {"name": call[0], "args": call[1], "id": _next("call")}})
        tokens = turn.tokens
        usage = {
            "promptTokenCount": tokens.input, "cachedContentTokenCount": tokens.cached,
            "candidatesTokenCount": tokens.output, "totalTokenCount": tokens.input + tokens.output,
        }  # fmt: skip
        candidate = {"content": {"role": "model", "parts": parts}, "finishReason": "STOP", "index": 0}
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": asked.model}

    def streamed(self, asked: Asked, turn: Turn) -> Iterator[bytes]:
        """The answer as it comes."""
        yield sse(self.whole(asked, turn))

    def refusal(self, status: int, message: str) -> dict[str, Any]:
        """The body of an error."""
        kinds = {401: "UNAUTHENTICATED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED"}
        return {"error": {"code": status, "message": message, "status": kinds.get(status, "INTERNAL")}}


def _lower(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema whose types are written as elsewhere."""
    known = {k: {**v, "type": str(v.get("type", "")).lower()} for k, v in (schema.get("properties") or {}).items()}
    return {**schema, "properties": known} if known else schema


def dialect_of(path: str) -> Dialect | None:
    """Which API this path belongs to; None: none."""
    path = path.partition("?")[0]
    if path.endswith("/messages"):
        return Anthropic()
    if path.endswith("/chat/completions"):
        return Chat()
    if path.endswith("/responses"):
        return Responses()
    return Google() if path.endswith(("generateContent", "streamGenerateContent")) else None
