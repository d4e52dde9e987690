"""Why an agent has ended badly: its last words, and the one thing that mends it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum

from agents.presets.base import Event, EventKind


class Trouble(StrEnum):
    """What is wrong, as far as an agent's words tell."""

    KEY = "key"
    LOGIN = "login"
    MODEL = "model"
    RATE = "rate"
    CONTEXT = "context"
    NETWORK = "network"
    PROGRAM = "program"
    OTHER = "other"


# the first that is found counts; each as one of the six has been seen to write it
_SIGNS: dict[Trouble, tuple[str, ...]] = {
    Trouble.LOGIN: (
        r"not logged in", r"/login\b", r"log ?in (?:again|first|required)", r"Invalid auth method"
    ),
    Trouble.KEY: (
        r"invalid (?:x-)?api[ -_]?key", r"\b401\b", r"unauthori[sz]ed", r"authentication[_ ]?error",
        r"API[_ ]key (?:is missing|not valid)", r"missing environment variable", r"api_key client option must be set",
        r"must specify the \w+ environment",
    ),
    Trouble.RATE: (r"\b429\b", r"rate.?limit", r"too many requests", r"RESOURCE_EXHAUSTED", r"quota"),
    Trouble.CONTEXT: (r"context (?:window|length)", r"prompt is too long", r"maximum context", r"too many tokens"),
    Trouble.MODEL: (
        r"model\b[^\n]{0,80}(?:does not exist|not found|not supported)", r"model_not_found", r"ModelNotFound",
        r"(?:issue with the selected|no such|unknown) model", r"LLM Provider NOT provided", r"\b404\b",
    ),
    Trouble.NETWORK: (
        r"ENOTFOUND", r"ECONNREFUSED", r"ECONNRESET", r"EAI_AGAIN", r"ENETUNREACH", r"Connection ?Refused",
        r"connection error", r"unable to connect", r"error sending request", r"fetch failed", r"network",
        r"stream disconnected", r"Cannot connect to API", r"cannot be resolved", r"\b403\b", r"\b502\b",
    ),
    Trouble.PROGRAM: (
        r"command not found", r"No such file or directory", r"Cannot find module", r"cannot execute", r"exec format",
    ),
}  # fmt: skip
_KNOWN = tuple((trouble, re.compile("|".join(signs), re.IGNORECASE)) for trouble, signs in _SIGNS.items())
_LINES = 40


def trouble(text: str) -> Trouble:
    """What these words speak of."""
    return next((one for one, pattern in _KNOWN if pattern.search(text)), Trouble.OTHER)


_CRASH = re.compile(
    r"\b(?:error|fatal|panic(?:ked)?|exception|killed|out of memory|segmentation fault)\b", re.IGNORECASE
)


def speaks_of_trouble(line: str) -> bool:
    """True for a line of plain output that may say why a program has ended."""
    return bool(_CRASH.search(line)) or trouble(line) is not Trouble.OTHER


def last_words(events: Iterable[Event], output: Sequence[str]) -> str:
    """The line in which an agent says why it has ended: its last error, else the last line that speaks of trouble, else
    the last line at all; one line of at most 300 characters."""
    errors = [event.text for event in events if event.kind is EventKind.ERROR and event.text.strip()]
    plain = [line.strip() for line in output[-_LINES:] if line.strip() and not line.lstrip().startswith("{")]
    speaking = [line for line in plain if trouble(line) is not Trouble.OTHER]
    found = errors or speaking or plain
    return " ".join(found[-1].split())[:300] if found else ""
