"""One exception base. Every error carries a code for machines, one line for people, and a disposition.

The disposition says what the catcher should do, so that nobody matches on message texts:
`permanent` (do not try again), `retry` (the outside world was in the way: try later), `wait` (a lost race
or a state that will change by itself: look again at the next tick).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class Disposition(StrEnum):
    """What to do about an error."""

    PERMANENT = "permanent"
    RETRY = "retry"
    WAIT = "wait"


class GastownError(Exception):
    """Base of every error that Gastown raises on purpose.

    `message` is one clear line for a person; `code` is stable and for machines; `details` is JSON-able.
    """

    code = "failed"
    disposition = Disposition.PERMANENT

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
        disposition: Disposition | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.details: dict[str, Any] = dict(details or {})
        self.disposition = disposition or type(self).disposition

    def __str__(self) -> str:
        return self.message


class Invalid(GastownError):
    """Bad input; `details["field"]` names what is wrong."""

    code = "invalid"

    def __init__(self, message: str, *, field: str | None = None, **kwargs: Any) -> None:
        details = dict(kwargs.pop("details", None) or {})
        if field is not None:
            details.setdefault("field", field)
        super().__init__(message, details=details, **kwargs)


class NotFound(GastownError):
    """The named thing does not exist (in this town)."""

    code = "not_found"


class Forbidden(GastownError):
    """The caller is known but may not do this."""

    code = "forbidden"


class Conflict(GastownError):
    """The request contradicts the present state."""

    code = "conflict"


class Superseded(Conflict):
    """The caller's run is fenced, finished or replaced: its word no longer counts."""

    code = "run_superseded"


class LostRace(GastownError):
    """A compare-and-swap found another source state. Nothing was changed; the next tick looks again."""

    code = "lost_race"
    disposition = Disposition.WAIT


class Refused(GastownError):
    """The outside world said no, and will say no again."""

    code = "refused"


class Unavailable(GastownError):
    """The outside world could not be asked. The answer is unknown, which never means fine."""

    code = "unavailable"
    disposition = Disposition.RETRY
