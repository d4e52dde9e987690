"""GitHub's answers, taken apart: what lacks something that we need is half an answer, and that is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from agents.runtime.names import OUR_MAIL
from refinery.core.pullviews import Remark
from refinery.core.rules.commands import is_command
from refinery.hosts.base import HostUnknown

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
COMMITS, AUTHORS = 250, 100  # so many commits GitHub tells of a pull request; so many logins of theirs are kept
LINE = 2_000  # characters of what is said of a line


def json_of(response: httpx.Response) -> Any:
    """What an answer holds. Raises HostUnknown."""
    try:
        return response.json()
    except ValueError as error:
        raise HostUnknown("down", "GitHub's answer is no JSON") from error


def rows_of(response: httpx.Response) -> list[Any]:
    """The rows of a list. Raises HostUnknown."""
    rows = json_of(response)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise HostUnknown("down", "GitHub's answer is not the list that was asked for")
    return rows


def text(row: Any, *keys: str) -> str:
    """The text at these keys. Raises HostUnknown where there is none."""
    for key in keys:
        if not isinstance(row, dict):
            break
        row = row.get(key)
    if not isinstance(row, str):
        raise HostUnknown("down", f"GitHub's answer lacks {'.'.join(keys)}")
    return row


def number(row: Any, key: str) -> int:
    """The number there. Raises HostUnknown where there is none."""
    found = row.get(key)
    if not isinstance(found, int):
        raise HostUnknown("down", f"GitHub's answer lacks {key}")
    return found


def remark(row: Mapping[str, Any]) -> Remark:
    """What is said of a line."""
    side = {"LEFT": "old"}.get(row.get("side") or "", "new")
    line = row.get("line") or row.get("original_line") or 0
    return Remark(str(row.get("path") or "")[:1000], int(line), side, str(row.get("body") or "")[:LINE])


def login(row: Mapping[str, Any]) -> str:
    """Who has written something; empty: an account that is no more."""
    return str((row.get("user") or {}).get("login") or "")[:100]


def authors(commits: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, ...], bool]:
    """The logins of those who wrote these commits; False where it is not known of each who wrote it."""
    logins, known = set(), len(commits) < COMMITS
    for row in commits:
        name = (row.get("author") or {}).get("login")
        mail = ((row.get("commit") or {}).get("author") or {}).get("email") or ""
        if name:
            logins.add(name[:100])
        elif not mail.lower().endswith(OUR_MAIL):
            known = False
    return tuple(sorted(logins))[:AUTHORS], known and len(logins) <= AUTHORS


def latest(rows: Sequence[T], lesser: Callable[[T], bool], most: int, few: int) -> tuple[T, ...]:
    """The latest `most`, and the latest `few` of the lesser ones, which take no place from the others."""
    kept = [row for row in rows if not lesser(row)][-most:] + [row for row in rows if lesser(row)][-few:]
    return tuple(row for row in rows if row in kept)


def calls_us(row: Mapping[str, Any]) -> bool:
    """True for a comment that is a command, as its author wrote it: whoever may write to the repository can edit what
    others have said, and it still is theirs by name."""
    return is_command(row.get("body") or "") and text(row, "updated_at") == text(row, "created_at")
