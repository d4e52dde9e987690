"""What there is to know of a coding agent, as data and small pure functions. Standard library only.

A preset says how its program is called, what it needs, how a run of it is started (`Start` → `Launch`) and what the
lines of its output mean (`parse`: line → events). Nothing here looks at the machine: that is `find`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any

MOST_TOKENS = 10**12  # of one usage: more is nonsense
MOST_COST = Decimal(10**6)
LONGEST = 1 << 20  # characters of a line that is looked into


class EventKind(StrEnum):
    """What a piece of an agent's output is."""

    SESSION = "session"
    TEXT = "text"
    CALL = "call"
    RESULT = "result"
    USAGE = "usage"
    ERROR = "error"


@dataclass(frozen=True)
class Usage:
    """What the model has taken. `input`: tokens that came from no cache (writing into one included); `cached`: those
    that did; `cost`: USD as the agent says it, None where it says none; `model`: empty where it names none.

    `total`: it is what all of the run has taken so far; otherwise one more piece, to be added.
    """

    input: int
    cached: int
    output: int
    cost: Decimal | None = None
    model: str = ""
    total: bool = False


@dataclass(frozen=True)
class Event:
    """One thing that an agent has said or done. `call`: what joins a tool's call and its result; `session`: the name by
    which its session can be resumed."""

    kind: EventKind
    text: str = ""
    tool: str = ""
    call: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    usage: Usage | None = None
    session: str = ""


@dataclass(frozen=True)
class Api:
    """A model's API: the secret that opens it, the variable that moves it elsewhere, where it is otherwise."""

    key: str
    base_url_env: str
    host: str
    also: tuple[str, ...] = ()  # other secrets that open it as well
    door: str = ""  # the server's path that passes its calls on (`agents.model_door`)

    @property
    def keys(self) -> tuple[str, ...]:
        """Every secret that opens it, the usual one first."""
        return (self.key, *self.also)


ANTHROPIC = Api(
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_BASE_URL",
    "api.anthropic.com:443",
    also=("CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_AUTH_TOKEN"),
    door="/model/anthropic",
)
OPENAI = Api("OPENAI_API_KEY", "OPENAI_BASE_URL", "api.openai.com:443", door="/model/openai/v1")
GOOGLE = Api("GEMINI_API_KEY", "GOOGLE_GEMINI_BASE_URL", "generativelanguage.googleapis.com:443", door="/model/google")
PROVIDERS = {  # a model's name begins with its provider: anthropic/…
    "anthropic": ANTHROPIC,
    "openai": OPENAI,
    "google": Api("GOOGLE_GENERATIVE_AI_API_KEY", "GOOGLE_GEMINI_BASE_URL", GOOGLE.host),
    "gemini": GOOGLE,
    "openrouter": Api("OPENROUTER_API_KEY", "OPENROUTER_BASE_URL", "openrouter.ai:443"),
    "kilo": Api("KILO_API_KEY", "KILO_BASE_URL", "api.kilo.ai:443"),
}


@dataclass(frozen=True)
class Start:
    """What a run is to be started with. `program`: the words that start it; `env`: the role's own variables, `secrets`:
    the names of its secrets; `home`: HOME, as the command sees it; `tools`: the server's URL as the command sees it,
    where it serves MCP, else empty; `session`: one that goes on, else empty."""

    program: tuple[str, ...]
    home: str
    model: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    tools: str = ""
    session: str = ""

    def has(self, name: str) -> bool:
        """True when the command has this variable."""
        return name in self.secrets or bool(self.env.get(name))


@dataclass(frozen=True)
class Launch:
    """How it is started: the command, its variables (below the role's own), and files in its HOME, by their paths."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Preset:
    """One coding agent.

    `install`: how a person gets it; `models`: its one API, or None: the model's provider says which; `needs_model`: it
    does not start without one; `version`: what makes it print its version.
    `sessions`: what below HOME holds its sessions, and nothing else: folders or files; none where it has no sessions.
    `lost`: a pattern of what it says when it is to go on with a session that it does not find. `anywhere`: it finds
    them from another working directory, too.
    """

    name: str
    program: str
    install: str
    start: Callable[[Start], Launch]
    parse: Callable[[str], tuple[Event, ...]]
    models: Api | None = None
    sessions: tuple[str, ...] = ()
    lost: str = ""
    anywhere: bool = False
    needs_model: bool = False
    version: str = "--version"

    def api(self, model: str) -> Api | None:
        """The API that this model is asked at; None where that is not known."""
        return self.models or PROVIDERS.get(model.partition("/")[0])


def bill(events: Iterable[Event]) -> dict[str, Usage]:
    """What a run has taken in all, by model (an empty name: the agent names none): totals replace, pieces add up."""
    taken: dict[str, Usage] = {}
    for one in (event.usage for event in events if event.usage):
        before = taken.get(one.model)
        if before is not None and not one.total:
            cost = None if before.cost is None and one.cost is None else (before.cost or 0) + (one.cost or Decimal())
            one = Usage(
                before.input + one.input, before.cached + one.cached, before.output + one.output, cost, one.model
            )
        taken[one.model] = one
    return taken


# -- commands ---------------------------------------------------------------------------------------------------------

_BY_STDIN = 'exec "$@" < "$GASTOWN_PROMPT_FILE"'


def by_stdin(*argv: str) -> tuple[str, ...]:
    """A command that reads the run's prompt from its standard input."""
    return ("sh", "-c", _BY_STDIN, argv[0], *argv)


def mcp_url(start: Start) -> str:
    """Where the server's MCP is, for the command."""
    return f"{start.tools.rstrip('/')}/mcp"


# -- lines ------------------------------------------------------------------------------------------------------------


def record(line: str) -> dict[str, Any]:
    """A line of JSON; an empty table for anything else: text, half a line, too long a one."""
    line = line.strip()
    if not line.startswith("{") or len(line) > LONGEST:
        return {}
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def table(value: object) -> dict[str, Any]:
    """A table; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def rows(value: object) -> list[dict[str, Any]]:
    """The tables in a list; none for anything else."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def words(value: object) -> str:
    """Text, or the texts of a list of blocks."""
    if isinstance(value, str):
        return value
    return "\n".join(str(one.get("text") or "") for one in rows(value))


def tokens(value: object) -> int | None:
    """A number of tokens; None for anything that cannot be one."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and isinstance(value, int) and 0 <= value <= MOST_TOKENS else None


def money(value: object) -> Decimal | None:
    """USD; None for anything that cannot be a cost."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        return None
    return found if found.is_finite() and 0 <= found <= MOST_COST else None


def usage(given: tuple[object, object, object], **more: Any) -> tuple[Event, ...]:
    """The event of (input without cache, cached, output); none when one of these cannot be a number of tokens."""
    fresh, cached, output = (tokens(one) for one in given)
    if fresh is None or cached is None or output is None:
        return ()
    return (Event(EventKind.USAGE, usage=Usage(fresh, cached, output, **more)),)


def both(one: object, other: object) -> object:
    """The sum of two numbers of tokens; None where one is none."""
    found = tokens(one), tokens(other)
    return found[0] + found[1] if found[0] is not None and found[1] is not None else None


def less(whole: object, part: object) -> object:
    """`whole` without `part`; what is no number stays what it is."""
    found = tokens(whole), tokens(part)
    return found[0] - found[1] if found[0] is not None and found[1] is not None else None
