"""Where a run that a sentence names can be seen: as addresses below a text, and as links in a page."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from html import escape

from django.conf import settings
from django.urls import reverse
from django.utils.safestring import SafeString

from refinery.core.text import reveal_hidden

_RUN = re.compile(r"\brun-[0-9a-z]{8}\b")
MOST = 3  # addresses below one text


def run_url(run: str) -> str:
    """The address of a run's page, with its log."""
    return f"{settings.GASTOWN_URL}{_path(run)}"


@functools.lru_cache(maxsize=4096)
def _path(run: str) -> str:
    return reverse("run", args=[run])


def many(route: str) -> Callable[[str], str]:
    """Addresses of many rows of one route: `reverse` for each would take longer than the rest of a row."""
    before, _, after = reverse(route, args=["KEY"]).partition("KEY")
    return lambda key: f"{before}{key}{after}"


def addresses(text: str) -> list[str]:
    """`run-7x2k9fq3: http://…/runs/run-7x2k9fq3/` for each run that a text names."""
    return [f"{run}: {run_url(run)}" for run in list(dict.fromkeys(_RUN.findall(text)))[:MOST]]


def with_addresses(text: str) -> str:
    """A text with the addresses of the runs that it names below it; those that are there already are not said again."""
    missing = [line for line in addresses(text) if line.partition(": ")[2] not in text]
    return "\n".join([text, *missing])


def harmless(text: object) -> str:
    """A text of whatever origin for a page: visible, and escaped."""
    return escape(reveal_hidden(str(text).replace("\r\n", "\n")))


def linked(text: object) -> SafeString:
    """A sentence for a page: harmless, escaped, and the runs that it names lead to their pages."""
    shown = harmless(text)
    if "run-" not in shown:
        return SafeString(shown)
    return SafeString(_RUN.sub(lambda found: f'<a href="{_path(found[0])}">{found[0]}</a>', shown))
