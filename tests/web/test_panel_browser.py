"""The review's panel in Chromium, on a running town: it follows clicks, one's own and others'."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.web.installation import BROWSER_ARGUMENTS, Installation, chromium, installation, until
from tests.web.looks import LOOKS, faults, serious
from tests.web.test_browser import MINUTES, person

pytestmark = pytest.mark.skipif(chromium() is None, reason="no chromium on this machine: apt install chromium")
LINE = "unit: test_core.py:11 test_sub: AssertionError: 8 != 2"
TESTS = """\
import unittest


class TestCore(unittest.TestCase):
    def test_add(self):
        self.assertEqual(5 + 3, 8)


    # what is wrong
    def test_sub(self):
        self.assertEqual(5 + 3, 2)
"""
RIG = f"""
[refinery]
gates = [{{ name = "unit", run = "! test -e test_core.py || {sys.executable} -m unittest test_core" }}]
auto_merge = false
code_review = false
max_rework_cycles = 0
[sandbox]
read_only = {json.dumps([sys.base_prefix, sys.prefix])}
"""


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation with a rig whose changes wait for one person."""
    with installation(tmp_path_factory.mktemp("panel")) as made:
        made.settle_in(offered=RIG)
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium(), args=BROWSER_ARGUMENTS)
        yield made
        made.close()


def offered(up: Installation, branch: str) -> str:
    """A change that waits for a person's approval."""
    up.push(branch, {f"{branch}.txt": "here\n"})
    entry: str = up.gastown("mq", "submit", "offered", "--branch", branch)["id"]
    until(lambda: up.gastown("mq", "show", entry)["phase"] == "awaiting_human", 120, up.said)
    return entry


def opened(page: Page, up: Installation, entry: str) -> None:
    """The review's page, kept up to date."""
    page.goto(f"{up.url}/reviews/{entry}/")
    expect(page.locator("#live-state")).to_have_text("Live")
    expect(page.get_by_role("button", name="Approve", exact=True)).to_be_visible()


@pytest.mark.long
def test_p8_two_people_see_what_one_of_them_does(up: Installation, browser: Browser) -> None:
    entry = offered(up, "panel-live")
    up.gastown("mq", "freeze", "offered", "--reason", "to be looked at")  # so that there is something to see before
    with person(browser, up, "rita") as rita, person(browser, up, "olga") as olga:
        for page in (rita, olga):
            opened(page, up, entry)
        olga.get_by_text("Request changes", exact=True).first.click()
        olga.get_by_label("What is wrong").fill("half a thought")
        rita.get_by_role("button", name="Approve", exact=True).dblclick()
        expect(rita.locator("#said")).to_contain_text("You approved this head")
        expect(olga.locator("#said")).to_contain_text("web:rita approved this head", timeout=MINUTES)
        for page in (rita, olga):
            expect(page.locator("#count")).to_contain_text("1 of 1 approval")
            expect(page.get_by_role("button", name="Approve")).to_have_count(0)
            assert serious(page) == []
        expect(olga.get_by_label("What is wrong")).to_have_value("half a thought")
        up.gastown("mq", "thaw", "offered")
        for page, by in ((rita, "you"), (olga, "web:rita")):
            expect(page.locator("h1 .chip")).to_have_text("merged", timeout=MINUTES)
            expect(page.locator("#follows")).to_contain_text(f"approved by {by}.", timeout=MINUTES)
            expect(page.locator("#acts button")).to_have_count(0)
            expect(page.locator("#count")).to_have_count(0)
            expect(page.locator("#changed")).to_be_hidden()
            assert serious(page) == []
    verdicts = up.gastown("mq", "show", entry)["verdicts"]
    assert [v["by"] for v in verdicts] == ["web:rita"]


@pytest.mark.long
def test_p8_it_follows_without_javascript(up: Installation, browser: Browser) -> None:
    entry = offered(up, "panel-plain")
    up.gastown("mq", "freeze", "offered", "--reason", "to be looked at")
    with person(browser, up, "rita", java_script_enabled=False) as rita:
        rita.goto(f"{up.url}/reviews/{entry}/")
        rita.get_by_role("button", name="Approve", exact=True).click()
        expect(rita.locator("#said")).to_contain_text("You approved this head")
        expect(rita.get_by_role("button", name="Approve")).to_have_count(0)
        rita.reload()
        expect(rita.locator("#said")).to_contain_text("You approved this head")
    up.gastown("mq", "thaw", "offered")


@pytest.mark.long
@pytest.mark.parametrize("look", LOOKS)
def test_item4_the_telling_line_leads_to_its_run(up: Installation, browser: Browser, look: str) -> None:
    branch = f"panel-broken-{list(LOOKS).index(look)}"
    up.push(branch, {"test_core.py": TESTS})
    entry = up.gastown("mq", "submit", "offered", "--branch", branch)["id"]
    until(lambda: LINE in up.gastown("mq", "show", entry)["detail"], 120, up.said)
    with person(browser, up, "rita", **LOOKS[look]) as rita:
        rita.goto(f"{up.url}/reviews/{entry}/")
        expect(rita.locator(".rv-why")).to_contain_text(LINE)
        expect(rita.locator("#judged .rv-telling")).to_contain_text(LINE)
        assert faults(rita) == []
        rita.goto(f"{up.url}/queue/")
        expect(rita.get_by_text(LINE).first).to_be_visible()
        assert faults(rita) == []
        rita.goto(f"{up.url}/reviews/{entry}/")
        rita.locator(".rv-why a").first.click()
        expect(rita.locator("#failed-1")).to_have_text(LINE)
        assert faults(rita) == []
