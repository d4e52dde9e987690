"""What there is to know of a coding agent, as data and small pure functions. Standard library only.

A preset says how its program is called, what it needs, how a run of it is started (`Start` → `Launch`) and what the
lines of its output mean (`parse`: line → events). Nothing here looks at the machine: that is `find`.
"""

from __future__ import annotations

import json
import re
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
    NOTE = "note"  # ours, on what it has printed


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
    """One thing that an agent has said or done. `call`: what joins a tool's call and its result; `paths`: the files
    that a call edits; `failed`: a result that is an error; `more`: text that goes on with the one before it; `session`:
    the name by which its session can be resumed."""

    kind: EventKind
    text: str = ""
    tool: str = ""
    call: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    usage: Usage | None = None
    session: str = ""
    paths: tuple[str, ...] = ()
    failed: bool = False
    more: bool = False


Parse = Callable[[str], tuple[Event, ...]]


@dataclass(frozen=True)
class Api:
    """A model's API, and how a CLI is told of it: by which variables it takes the key and another address.

    `host`: where it is otherwise, `path`: what its base URL has after the host. `provider`: its name where the server's
    model door speaks it, as `[providers.…]` and `/model/…` have it; empty: it does not. `opened_by`: the town's secrets
    of which the door takes the first that is set.
    """

    key: str
    base_url_env: str
    host: str
    also: tuple[str, ...] = ()  # other secrets that open it as well, as variables of the CLI
    path: str = ""
    provider: str = ""
    opened_by: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """Every secret that opens it, the usual one first."""
        return (self.key, *self.also)

    @property
    def url(self) -> str:
        """Its own base URL."""
        return f"https://{self.host.removesuffix(':443')}{self.path}"

    @property
    def door(self) -> str:
        """The server's path that passes its calls on (`agents.model_door`); empty: there is none."""
        return self.provider and f"/model/{self.provider}{self.path}"


ANTHROPIC = Api(
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_BASE_URL",
    "api.anthropic.com:443",
    also=("CLAUDE_CODE_OAUTH_TOKEN", "ANTHROPIC_AUTH_TOKEN"),
    provider="anthropic",
    opened_by=("ANTHROPIC_API_KEY",),
)
OPENAI = Api(
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "api.openai.com:443",
    path="/v1",
    provider="openai",
    opened_by=("OPENAI_API_KEY",),
)
GOOGLE = Api(
    "GEMINI_API_KEY",
    "GOOGLE_GEMINI_BASE_URL",
    "generativelanguage.googleapis.com:443",
    provider="google",
    opened_by=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
)
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
    does not start without one; `version`: what makes it print its version; `reader`: makes what reads one run's output,
    where the meaning of a line depends on those before it.
    `sessions`: what below HOME holds its sessions, and nothing else: folders or files; none where it has no sessions.
    `lost`: a pattern of what it says when it is to go on with a session that it does not find. `anywhere`: it finds
    them from another working directory, too. `adds_up`: where it goes on with a session, its usage is of all of that,
    from its first run on.
    """

    name: str
    program: str
    install: str
    start: Callable[[Start], Launch]
    parse: Parse
    models: Api | None = None
    sessions: tuple[str, ...] = ()
    lost: str = ""
    anywhere: bool = False
    needs_model: bool = False
    version: str = "--version"
    reader: Callable[[], Parse] | None = None
    adds_up: bool = False

    def reading(self) -> Parse:
        """What reads the output of one run, line by line from its first on."""
        if self.reader is None:
            return self.parse
        return self.reader()

    def refuses(self, model: str) -> str:
        """Why it cannot be started with a model of this name; empty: it can. No name at all is its own choice."""
        if self.models is None and model and "/" not in model:
            return f"{self.name} takes provider/model, such as anthropic/{model}, and not {model!r} alone"
        return ""

    def api(self, model: str) -> Api | None:
        """The API that this model is asked at; None where that is not known."""
        return self.models or PROVIDERS.get(model.partition("/")[0])


class Bill:
    """What a run has taken so far, by model (an empty name: the agent names none). Pieces add up; a total is the word
    of one who has counted to here, so it takes the place of every piece before it."""

    def __init__(self) -> None:
        self._totals: dict[str, Usage] = {}
        self._pieces: dict[str, Usage] = {}

    def add(self, one: Usage) -> None:
        """One more word on usage."""
        if one.total:
            self._pieces.clear()
            self._totals[one.model] = one
        else:
            self._pieces[one.model] = _sum(self._pieces.get(one.model), one)

    def sums(self) -> dict[str, Usage]:
        """By model, those that were named first first."""
        found = dict(self._totals)
        for name, one in self._pieces.items():
            found[name] = _sum(found.get(name), one)
        return found


def _sum(before: Usage | None, one: Usage) -> Usage:
    if before is None:
        return one
    cost = before.cost
    if one.cost is not None:
        cost = (cost or Decimal()) + one.cost
    return Usage(before.input + one.input, before.cached + one.cached, before.output + one.output, cost, one.model)


def bill(events: Iterable[Event]) -> dict[str, Usage]:
    """What a run has taken in all: see `Bill`."""
    made = Bill()
    for event in events:
        if event.usage:
            made.add(event.usage)
    return made.sums()


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
    """The event of (input without cache, cached, output). Where one of these is no number of tokens there is none, but
    a note where something was said that cannot be."""
    fresh, cached, output = (tokens(one) for one in given)
    if fresh is not None and cached is not None and output is not None:
        return (Event(EventKind.USAGE, usage=Usage(fresh, cached, output, **more)),)
    if all(one is None or tokens(one) is not None for one in given):
        return ()
    told = ", ".join(_told(one) for one in given)
    return (Event(EventKind.NOTE, f"usage that cannot be is not counted (input, cached, output: {told})"),)


def _told(value: object) -> str:
    if value is None:
        return "nothing"
    try:
        return repr(value)[:30]
    except ValueError:  # a number of thousands of digits
        return "a huge number"


_PATCHED = re.compile(r"^\*\*\* (?:(?:Add|Update|Delete) File|Move to): (.{1,500})$", re.M)


def edits(arguments: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """The files that a call edits: what its argument `key` names, or, where that is a patch in the form that
    `apply_patch` takes, the files in it."""
    told = arguments.get(key)
    if not isinstance(told, str):
        return ()
    if "*** " in told[:200]:
        return tuple(dict.fromkeys(_PATCHED.findall(told)))
    return (told,)


def both(one: object, other: object) -> object:
    """The sum of two numbers of tokens; where one is none, that."""
    found = tokens(one), tokens(other)
    if found[0] is None:
        return one
    if found[1] is None:
        return other
    return found[0] + found[1]


def less(whole: object, part: object) -> object:
    """`whole` without `part`; where one is no number of tokens, that."""
    found = tokens(whole), tokens(part)
    if found[0] is None:
        return whole
    if found[1] is None:
        return part
    return found[0] - found[1]
