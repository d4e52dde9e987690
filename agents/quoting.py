"""How a prompt shows what others wrote: as material, never in our voice. Pure."""

from __future__ import annotations


def line(text: object) -> str:
    """One line of material."""
    return " ".join(str(text).split())


def quote(text: str) -> str:
    """Material from elsewhere, marked as such."""
    return "\n".join(f"> {line}" for line in text.strip().splitlines())
