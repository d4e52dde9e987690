"""What doors read in a request's headers."""

from __future__ import annotations

import re

KEY = re.compile(r"[!-~]{1,200}")  # an Idempotency-Key


def bearer_of(authorization: bytes) -> str | None:
    """The bearer token of an Authorization header, or None."""
    parts = authorization.split()
    if len(parts) != 2 or parts[0].lower() != b"bearer":
        return None
    return parts[1].decode("ascii", "replace")
