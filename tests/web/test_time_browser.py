"""A page that is left open: its ranges go on with the clock, in the words that the server would use."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from refinery.core.pace import due
from tests.web.installation import BROWSER_ARGUMENTS, chromium

pytestmark = pytest.mark.skipif(chromium() is None, reason="no chromium on this machine: apt install chromium")
LIVE = Path(__file__).parents[2] / "static/gastown/live.js"
NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
RANGES = [
    (0.0, 3.0), (7, 12), (34, 44), (40, 280), (3, 280), (121, 290), (300, 301), (1800, 7300), (7300, 90_000),
    (100_000, 200_000), (7300, 200_000), (5, 89), (5, 91),
]  # fmt: skip


def test_p10_a_page_that_is_left_open_says_nothing_that_has_passed() -> None:
    spans = "".join(
        f'<span data-from="{(NOW + dt.timedelta(seconds=low)).isoformat()}"'
        f' data-to="{(NOW + dt.timedelta(seconds=high)).isoformat()}"></span>'
        for low, high in RANGES
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=BROWSER_ARGUMENTS)
        page = browser.new_page()
        page.clock.install(time=NOW - dt.timedelta(minutes=1))
        page.set_content(f"<p>{spans}</p>")
        page.add_script_tag(path=LIVE)
        for passed in (0, 2, 40, 90, 5000):
            page.clock.pause_at(NOW + dt.timedelta(seconds=passed + 1))  # it is looked at once a second
            told = page.locator("span").all_text_contents()
            left = [(max(low - passed - 1, 0), high - passed - 1) for low, high in RANGES]
            assert told == [due(low, high) if high > 0 else "later than usual" for low, high in left]
        browser.close()
