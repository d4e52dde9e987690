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


_SIGNS = (  # the first that is found counts; each as one of the six has been seen to write it
    (Trouble.LOGIN, r"not logged in|/login|log ?in (?:again|first|required)|Invalid auth method|set an Auth method"),
    (
        Trouble.KEY,
        r"invalid (?:x-)?api[ -_]?key|\b401\b|unauthori[sz]ed|authentication[_ ]?error"
        r"|API[_ ]key (?:is missing|not valid)|missing environment variable|api_key client option must be set|must specify the \w+ environment",
    ),
    (Trouble.RATE, r"\b429\b|rate.?limit|too many requests|RESOURCE_EXHAUSTED|quota"),
    (Trouble.CONTEXT, r"context (?:window|length)|prompt is too long|maximum context|too many tokens"),
    (
        Trouble.MODEL,
        r"model(?:: | `|\")[^\n]{0,80}(?:does not exist|not found|not supported)|model_not_found|ModelNotFound"
        r"|(?:issue with the selected|no such|unknown) model|LLM Provider NOT provided|\b404\b",
    ),
    (
        Trouble.NETWORK,
        r"ENOTFOUND|ECONNREFUSED|ECONNRESET|EAI_AGAIN|ENETUNREACH|ConnectionRefused|connection error"
        r"|unable to connect|error sending request|fetch failed|network|stream disconnected|Cannot connect to API|\b403\b|\b502\b",
    ),
    (Trouble.PROGRAM, r"command not found|No such file or directory|Cannot find module|cannot execute|exec format"),
)
_KNOWN = tuple((trouble, re.compile(pattern, re.IGNORECASE)) for trouble, pattern in _SIGNS)
_LINES = 40


def trouble(text: str) -> Trouble:
    """What these words speak of."""
    return next((one for one, pattern in _KNOWN if pattern.search(text)), Trouble.OTHER)


def last_words(events: Iterable[Event], output: Sequence[str]) -> str:
    """The line in which an agent says why it has ended: its last error, else the last line that speaks of trouble, else
    the last line at all; one line of at most 300 characters."""
    errors = [event.text for event in events if event.kind is EventKind.ERROR and event.text.strip()]
    plain = [line.strip() for line in output[-_LINES:] if line.strip() and not line.lstrip().startswith("{")]
    speaking = [line for line in plain if trouble(line) is not Trouble.OTHER]
    found = errors or speaking or plain
    return " ".join(found[-1].split())[:300] if found else ""
