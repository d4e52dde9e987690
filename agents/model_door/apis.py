"""The APIs of models that the door speaks: what it passes on, how a key is carried, how an error looks. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qsl, urlencode

from agents.presets import base as presets


class Kind(StrEnum):
    """What is asked, and so how its usage is told. `FREE` costs nothing: lists of models, counts of tokens."""

    MESSAGES = "messages"
    CHAT = "chat"
    RESPONSES = "responses"
    GENERATE = "generate"
    FREE = "free"


@dataclass(frozen=True)
class Api:
    """One API: whose it is (its address, the town's secrets that open it), and what of it is passed on. `header`,
    `scheme`: how it takes its key. A path of it is appended to the base URL, without what stands in that already."""

    of: presets.Api
    header: str
    routes: tuple[tuple[str, re.Pattern[str], Kind], ...]
    scheme: str = ""

    @property
    def name(self) -> str:
        """As `/model/…` and `[providers.…]` call it."""
        return self.of.provider


_ID = r"[A-Za-z0-9_.:@-]{1,200}"


def _routes(*told: tuple[str, str, Kind]) -> tuple[tuple[str, re.Pattern[str], Kind], ...]:
    return tuple((method, re.compile(pattern), kind) for method, pattern, kind in told)


APIS = {
    api.name: api
    for api in (
        Api(
            presets.ANTHROPIC,
            "x-api-key",
            _routes(
                ("POST", r"/v1/messages", Kind.MESSAGES),
                ("POST", r"/v1/messages/count_tokens", Kind.FREE),
                ("GET", rf"/v1/models(/{_ID})?", Kind.FREE),
            ),
        ),
        Api(
            presets.OPENAI,
            "authorization",
            _routes(
                ("POST", r"/chat/completions", Kind.CHAT),
                ("POST", r"/responses", Kind.RESPONSES),
                ("GET", rf"/models(/{_ID})?", Kind.FREE),
            ),
            scheme="Bearer ",
        ),
        Api(
            presets.GOOGLE,
            "x-goog-api-key",
            _routes(
                ("POST", rf"/v1(alpha|beta)?/models/(?P<model>{_ID}):(stream)?[gG]enerateContent", Kind.GENERATE),
                ("POST", rf"/v1(alpha|beta)?/models/(?P<model>{_ID}):countTokens", Kind.FREE),
                ("GET", rf"/v1(alpha|beta)?/models(/{_ID})?", Kind.FREE),
            ),
        ),
    )
}


class Refusal(Exception):
    """A request that is not passed on, or could not be: the answer's status and one sentence.

    `again`: it may go better in a moment. `fault`: what only a person can mend, as `fault` names it.
    """

    def __init__(self, status: int, sentence: str, *, again: bool = False, fault: str = "") -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.again, self.fault = status, sentence, again, fault


@dataclass(frozen=True)
class Route:
    """A request that the door knows. `path`: below the base; `model`: where the path names it."""

    api: Api
    kind: Kind
    path: str
    model: str = ""


def route(method: str, path: str) -> Route:
    """What `/model/<api>/…` asks for. Raises Refusal for what is not passed on."""
    _, _, name, *rest = path.split("/", 3)
    if name not in APIS:
        raise Refusal(404, f"the model door speaks {', '.join(f'/model/{name}' for name in APIS)}")
    api = APIS[name]
    below = "/" + (rest[0] if rest else "").rstrip("/")
    below = below.removeprefix(api.of.path)
    known = False
    for verb, pattern, kind in api.routes:
        if found := pattern.fullmatch(below):
            known = True
            if verb == method:
                return Route(api, kind, below, found.groupdict().get("model") or "")
    if known:
        raise Refusal(405, f"{method} {path[:200]}: the model door does not pass this method on")
    raise Refusal(404, f"{method} {path[:200]}: the model door does not pass this on")


# -- the caller's key -----------------------------------------------------------------------------------------------

_KEYS = ("x-api-key", "x-goog-api-key", "api-key")


def token_of(headers: Iterable[tuple[str, str]], query: str) -> str:
    """The caller's token, wherever an API carries a key; empty when there is none."""
    found = {name.lower(): value.strip() for name, value in headers}
    for name in _KEYS:
        if found.get(name):
            return found[name]
    scheme, _, rest = found.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and rest.strip():
        return rest.strip()
    return next((value for name, value in parse_qsl(query) if name == "key"), "")


_HOP = frozenset(
    (
        *("connection", "keep-alive", "proxy-connection", "proxy-authorization", "proxy-authenticate", "te"),
        *("trailer", "transfer-encoding", "upgrade", "expect", "host", "http2-settings"),
    )
)
_OURS = frozenset(
    (*_KEYS, "authorization", "cookie", "content-length", "accept-encoding", "forwarded", "via", "origin")
)
_THEIRS = frozenset(("set-cookie", "alt-svc", "server", "date", "strict-transport-security"))


def _dropped(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> frozenset[str]:
    """Headers that are of one connection only."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    named = (word.strip().lower() for name, value in pairs if name.lower() == "connection" for word in value.split(","))
    return _HOP | frozenset(named)


def headers_up(api: Api, headers: list[tuple[str, str]], key: str) -> list[tuple[str, str]]:
    """A request's headers as the provider gets them: the key in place of the caller's token, and answers unpacked."""
    drop = _dropped(headers) | _OURS
    kept = [(k, v) for k, v in headers if k.lower() not in drop and not k.lower().startswith(("x-forwarded", "x-real"))]
    return [*kept, ("accept-encoding", "identity"), (api.header, f"{api.scheme}{key}")]


def headers_down(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """An answer's headers as the caller gets them."""
    pairs = list(headers)
    drop = _dropped(pairs) | _THEIRS
    return [(k, v) for k, v in pairs if k.lower() not in drop]


def query_up(query: str) -> str:
    """A request's query without the caller's token."""
    return urlencode([(k, v) for k, v in parse_qsl(query, keep_blank_values=True) if k != "key"])


# -- bodies ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """What a request's body asks for. `body`: as it goes on; `added`: we have asked for the usage of a stream, which
    the caller did not, and take its event out again."""

    model: str
    body: bytes
    added: bool = False


def read_body(where: Route, body: bytes) -> Asked:
    """Read what must be known of a request. Raises Refusal for what is no JSON object, and for answers that come later,
    elsewhere: nobody could count them."""
    if where.kind is Kind.FREE:
        return Asked(where.model, body)
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is no JSON") from None
    if not isinstance(told, dict):
        raise Refusal(400, "the body is no JSON object")
    model = where.model or str(told.get("model") or "")[:200]
    if where.kind is Kind.RESPONSES and told.get("background"):
        raise Refusal(400, "background: the model door passes on no answers that come later: leave it out")
    if where.kind is Kind.CHAT and told.get("stream") is True:
        options = told.get("stream_options")
        options = options if isinstance(options, dict) else {}
        if not options.get("include_usage"):
            told["stream_options"] = {**options, "include_usage": True}
            return Asked(model, json.dumps(told, ensure_ascii=False).encode("utf-8", "surrogatepass"), added=True)
    return Asked(model, body)


def without_usage(body: bytes) -> bytes:
    """A body of `read_body` without what it added: some servers refuse it."""
    told = json.loads(body)
    options = {k: v for k, v in told.pop("stream_options").items() if k != "include_usage"}
    return json.dumps(told | ({"stream_options": options} if options else {}), ensure_ascii=False).encode()


# -- errors ---------------------------------------------------------------------------------------------------------

_ANTHROPIC = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
    404: "not_found_error", 405: "invalid_request_error", 413: "request_too_large", 429: "rate_limit_error",
}  # fmt: skip
_GOOGLE = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 402: "FAILED_PRECONDITION", 403: "PERMISSION_DENIED",
    404: "NOT_FOUND", 405: "INVALID_ARGUMENT", 413: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip
_OPENAI = {401: "authentication_error", 402: "insufficient_quota", 403: "permission_error", 404: "not_found_error"}


def error_body(api: Api, status: int, sentence: str) -> bytes:
    """An error of ours as this API says errors, so that the CLI shows it."""
    told: dict[str, Any]
    if api.name == "anthropic":
        told = {"type": "error", "error": {"type": _ANTHROPIC.get(status, "api_error"), "message": sentence}}
    elif api.name == "google":
        told = {"error": {"code": status, "message": sentence, "status": _GOOGLE.get(status, "INTERNAL")}}
    else:
        kind = _OPENAI.get(status, "invalid_request_error" if status < 500 else "server_error")
        told = {"error": {"message": sentence, "type": kind, "param": None, "code": f"gastown_{status}"}}
    return json.dumps(told).encode()


def message_of(body: bytes) -> tuple[str, str]:
    """(message, code or type) of a provider's error; empty where it says none."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    if isinstance(told, list) and told:
        told = told[0]
    error = told.get("error") if isinstance(told, dict) else None
    if isinstance(error, str):
        return error[:500], ""
    if not isinstance(error, dict):
        return "", ""
    code = error.get("code") if isinstance(error.get("code"), str) else error.get("type") or error.get("status")
    return str(error.get("message") or "")[:500], str(code or "")[:100]


def fault(status: int, message: str, code: str) -> str:
    """What only a person can mend of a provider's refusal: `key`, `model`, `credit` (or `place`: the provider cannot be
    reached as it is named); empty for all else."""
    if status in (401, 403) or (status == 400 and "API key" in message):
        return "key"
    if status == 402 or code == "insufficient_quota" or "credit balance" in message:
        return "credit"
    if status == 404 or code == "model_not_found":
        return "model"
    return ""
