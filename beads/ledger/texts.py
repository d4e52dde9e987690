"""What a text or a name must be like to be stored."""

from __future__ import annotations

import re

from beads import values
from beads.errors import Invalid

SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,48}[a-z0-9])?")
MAX_TITLE = 300
MAX_BODY = 256 * 1024


def check_text(field: str, value: str, limit: int, *, required: bool = False) -> str:
    """Return `value` stripped; raises Invalid for NUL bytes, emptiness (when required) or excess length."""
    if "\x00" in value:
        raise Invalid(f"{field} contains a NUL byte", field=field)
    value = value.strip()
    if required and not value:
        raise Invalid(f"{field} is empty", field=field)
    if len(value) > limit:
        raise Invalid(f"{field} is longer than {limit} characters", field=field)
    return value


def check_model(value: str) -> str:
    """Return the name of a model, stripped, or raise Invalid; it may be empty."""
    try:
        return values.model_name(value.strip())
    except ValueError as error:
        raise Invalid(f"model: {error}", field="model") from None


def check_slug(field: str, value: str) -> str:
    """Return a legal slug or raise Invalid."""
    if not SLUG.fullmatch(value):
        raise Invalid(
            f"{field} {value!r} is not a slug: lower-case letters, digits and inner dashes, at most 50",
            field=field,
        )
    return value
