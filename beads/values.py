"""The types of config values: durations, sizes, patterns, places, networks. Pure.

Each refuses what it cannot be with one sentence; `beads.config` adds the key's name.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, StringConstraints

from beads import globs

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:ms|s|m|h|d))+")
_PART = re.compile(r"(\d+)(ms|s|m|h|d)")


def parse_duration(value: object) -> object:
    """`"1h30m"` → timedelta. Raises ValueError for anything that is not a positive duration."""
    if isinstance(value, dt.timedelta):
        return value
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        raise ValueError('expected a duration such as "30s", "10m" or "1h30m"')
    seconds = sum(int(number) * _UNITS[unit] for number, unit in _PART.findall(value))
    if not 0 < seconds <= 366 * 86400:
        raise ValueError("a duration must be more than 0 and at most a year")
    return dt.timedelta(seconds=seconds)


def format_duration(value: dt.timedelta) -> str:
    """The inverse of `parse_duration`, in the largest units that fit."""
    rest = round(value.total_seconds() * 1000)
    parts = []
    for unit, size in (("d", 86400000), ("h", 3600000), ("m", 60000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


MOST_WORDS = 64 * 1024


def _few_words(value: str) -> str:
    if len(value.encode()) > MOST_WORDS:
        raise ValueError(f"is longer than {MOST_WORDS // 1024} KiB")
    return value


def moment(at: dt.datetime, now: dt.datetime) -> str:
    """A moment for people: its time, and its date where that is not today's."""
    if at.date() == now.date():
        return f"{at:%H:%M:%S} UTC"
    return f"{at:%Y-%m-%d %H:%M} UTC"


Words = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$"), AfterValidator(_few_words)]
FOREVER = dt.timedelta(days=36500)


def parse_age(value: object) -> object:
    """As `parse_duration`, up to a hundred years; `"forever"` → `FOREVER`."""
    if value == "forever":
        return FOREVER
    if isinstance(value, str) and (found := re.fullmatch(r"(\d{1,5})d", value)):
        if not 0 < int(found[1]) <= FOREVER.days:
            raise ValueError('an age must be more than 0 and at most "36500d", or "forever"')
        return dt.timedelta(days=int(found[1]))
    return parse_duration(value)


def format_age(value: dt.timedelta) -> str:
    """The inverse of `parse_age`."""
    if value >= FOREVER:
        return "forever"
    return format_duration(value)


Age = Annotated[dt.timedelta, BeforeValidator(parse_age), PlainSerializer(format_age)]
Duration = Annotated[dt.timedelta, BeforeValidator(parse_duration), PlainSerializer(format_duration)]
Line = Annotated[str, StringConstraints(min_length=1, max_length=4000, pattern=r"^[^\x00]*\S[^\x00]*$")]

_SIZE = re.compile(r"(\d+)([KMGT])?")
_FACTORS = {None: 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?:(\d{1,5})")
OPEN, NONE = "open", "none"


def parse_size(value: object) -> object:
    """`"4G"` → bytes (powers of 1024). Raises ValueError for anything that is not a positive size."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None or not 0 < int(found[1]) * _FACTORS[found[2]] <= 1 << 50:
        raise ValueError('expected a size such as "512M" or "4G"')
    return int(found[1]) * _FACTORS[found[2]]


def format_size(value: int) -> str:
    """The inverse of `parse_size`, in the largest unit that fits."""
    for unit in ("T", "G", "M", "K"):
        if value % _FACTORS[unit] == 0:
            return f"{value // _FACTORS[unit]}{unit}"
    return str(value)


def parse_network(value: object) -> object:
    """`"none"`, `"open"`, or a list of `host:port`; true is "open", false is "none". Raises ValueError."""
    if isinstance(value, bool):
        if value:
            return (OPEN,)
        return (NONE,)
    if value in (OPEN, NONE):
        return (str(value),)
    if isinstance(value, list | tuple) and value and all(isinstance(v, str) for v in value):
        if tuple(value) in ((OPEN,), (NONE,)):
            return tuple(value)
        for word in value:
            found = _HOST.fullmatch(word)
            if found is None or not 0 < int(found[3]) < 65536:
                raise ValueError(f'{word[:100]!r} is not host:port, as in "registry.example.org:443"')
        return tuple(word.lower() for word in value)
    raise ValueError('expected "none", "open", or a list of "host:port"')


def format_network(value: tuple[str, ...]) -> str | list[str]:
    """The inverse of `parse_network`."""
    if value in ((OPEN,), (NONE,)):
        return value[0]
    return list(value)


Size = Annotated[int, BeforeValidator(parse_size), PlainSerializer(format_size)]
Network = Annotated[tuple[str, ...], BeforeValidator(parse_network), PlainSerializer(format_network)]


def _secret_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", name):
        raise ValueError(f"{name[:60]!r} is no name of a secret: letters, digits and _")
    return name


SecretName = Annotated[str, AfterValidator(_secret_name)]
OptionalSecret = Annotated[str, AfterValidator(lambda name: _secret_name(name) if name else name)]
PersonName = Annotated[str, StringConstraints(max_length=100, pattern=r"^[^\x00-\x1f<>]*[^\s<>][^\x00-\x1f<>]*$")]
MailAddress = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\s<>@]+@[^\s<>@]+$")]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


def model_name(name: str) -> str:
    """The name of a model, one word as an agent's own `--model` takes it; empty: none. Raises ValueError."""
    if len(name) > 200:
        raise ValueError("the name of a model has at most 200 characters")
    if name.startswith("-") or any(letter.isspace() or not letter.isprintable() for letter in name):
        raise ValueError(f"{name[:60]!r} is no name of a model: one word, as the agent's own --model takes it")
    return name


ModelName = Annotated[str, AfterValidator(model_name)]


def _absolute(path: str) -> str:
    if not path.startswith(("/", "~/")) or "\x00" in path or ".." in path.split("/"):
        raise ValueError(f"{path[:100]!r} is no absolute path (~/ is the server's own home)")
    return path.rstrip("/") or "/"


AbsolutePath = Annotated[str, StringConstraints(max_length=1000), AfterValidator(_absolute)]


class Section(BaseModel):
    """Base of a section: frozen, unknown keys refused, nothing coerced."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def enum_of(kind: type[StrEnum]) -> BeforeValidator:
    """Takes a value of the enum by its name."""

    def convert(value: object) -> object:
        if isinstance(value, str) and value in list(kind):
            return kind(value)
        raise ValueError(f"expected one of {', '.join(kind)}")

    return BeforeValidator(convert)


def _variable(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,99}", name):
        raise ValueError(f"{name[:60]!r} is no name of an environment variable")
    if name.startswith("GASTOWN_") or name == "CI":
        raise ValueError(f"{name} is set by Gastown and cannot be overridden")
    return name


def _pattern(text: str) -> str:
    if wrong := globs.problem(text):
        raise ValueError(f"the pattern {text[:60]!r} {wrong}")
    return text


def report_pattern(text: str) -> str:
    """A pattern of report files, or an empty string."""
    if text.startswith("!"):
        raise ValueError("the pattern of reports cannot take paths out")
    if text:
        return _pattern(text)
    return text


def _place(text: str) -> str:
    parts = text.rstrip("/").split("/")
    if any(part in ("", ".", "..") for part in parts) or any(ord(c) < 32 for c in text):
        raise ValueError(f"{text[:60]!r} is no path in the worktree")
    if parts[0] == ".git":
        raise ValueError("git's own files cannot be kept")
    return "/".join(parts)


Place = Annotated[str, StringConstraints(max_length=500), AfterValidator(_place)]
Pattern = Annotated[str, StringConstraints(max_length=500), AfterValidator(_pattern)]
Variable = Annotated[str, AfterValidator(_variable)]
Value = Annotated[str, StringConstraints(max_length=4000, pattern=r"^[^\x00]*$")]


_LOOKS = {  # what a value is to look like, where only a pattern says it
    "git.branch_prefix": 'expected words that each end with a slash, such as "gt/"',
    "git.email": 'expected a mail address, such as "refinery@example.org"',
    "pr.url": 'expected the URL of a GitHub Enterprise without a path, such as "https://github.example.org"',
    "pr.repository": 'expected "owner/name"',
    "notify.webhook": 'expected an http or https URL without user and password, such as "https://hooks.example.org/x"',
    **{
        f"providers.{name}.base_url": "expected an http or https URL without user, password and query"
        for name in ("anthropic", "openai", "google")
    },
}


def words_of(error: Mapping[str, Any]) -> str:
    """What is wrong with a value, for who wrote it; the library's own words speak of Python."""
    match error["type"]:
        case "tuple_type" | "list_type":
            return 'expected a list, such as ["one", "two"]'
        case "dict_type" | "model_type":
            return "expected a table"
        case "bool_type" | "bool_parsing":
            return "expected true or false, without quotes"
        case "int_type" | "int_parsing":
            return "expected a whole number, without quotes"
        case "string_type":
            return "expected text in quotes"
        case "missing":
            return "is missing: set it"
        case "greater_than_equal":
            return f"must be at least {error['ctx']['ge']}"
        case "less_than_equal":
            return f"must be at most {error['ctx']['le']}"
        case "string_pattern_mismatch" if words := _LOOKS.get(".".join(map(str, error["loc"]))):
            return words
        case _:
            return str(error["msg"]).removeprefix("Value error, ")
