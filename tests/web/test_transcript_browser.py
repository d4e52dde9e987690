"""A run's transcript in a real browser: it grows without a reload and is followed, on a phone and in the dark."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.web.installation import Installation, chromium, installation, until
from tests.web.looks import LOOKS, faults
from tests.web.test_browser import MINUTES, person
from tests.web.test_browser import browser as browser

pytestmark = [
    pytest.mark.skipif(chromium() is None, reason="no chromium on this machine: apt install chromium"),
    pytest.mark.long,
]
SCRIPT = """#!/bin/sh
cat > /dev/null
cat {place}/first
while [ ! -e {place}/second ]; do sleep 0.1; done
cat {place}/second
while [ ! -e {place}/third ]; do sleep 0.1; done
"""
CONFIG = """[agents.polecat]
preset = "opencode"
model = "openai/scripted"
network = "none"
[sandbox]
path = ["{place}"]
read_only = ["{place}"]
"""


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "part": {"text": words}}


def call(number: int, tool: str, given: dict[str, Any], output: str, status: str = "completed") -> dict[str, Any]:
    state = {"status": status, "input": given, "output": output, "error": output}
    return {"type": "tool_use", "part": {"tool": tool, "callID": f"c{number}", "state": state}}


STEP = {"type": "step_finish", "part": {"tokens": {"input": 800, "output": 40, "cache": {"read": 500}}, "cost": 0.01}}
FIRST = [
    {"type": "step_start", "sessionID": "ses_abc"},
    text("I look at the tests first, then at the code that they are about. " * 3),
    call(1, "bash", {"command": "make test", "description": "Run the tests"}, "\x1b[31m2 failed\x1b[0m, 40 passed"),
    STEP,
    call(2, "edit", {"filePath": "src/fence.py", "oldString": "red", "newString": "green" * 30}, "Edited."),
    call(3, "edit", {"filePath": "src/" + "very_long_name_" * 12 + ".py"}, "Could not find oldString", "error"),
    {"type": "error", "error": {"name": "APIError", "data": {"message": "Too many requests: I try again"}}},
    *(text(f"Line {n} of a long story, which goes on for a while.") for n in range(60)),
    {"type": "step_finish", "part": {"tokens": {"input": -1, "output": 40, "cache": {"read": 500}}}},
    STEP,
]


class Told:
    """An installation with a run whose program is ours."""

    def __init__(self, up: Installation, place: Path) -> None:
        self.up, self.place = up, place
        self.path = ""

    def says(self, name: str, *rows: dict[str, Any]) -> None:
        part = self.place / f"{name}.part"
        part.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        part.rename(self.place / name)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    root = tmp_path_factory.mktemp("told")
    place = root / "place"
    place.mkdir()
    program = place / "opencode"
    program.write_text(SCRIPT.format(place=place))
    program.chmod(0o755)
    with installation(root) as up:
        made = Told(up, place)
        made.says("first", *FIRST)
        up.settle_in(offered=CONFIG.format(place=place))
        up.run("sling", "offered", "--title", "Paint the fence")
        run = until(lambda: next((r["id"] for r in up.gastown("runs", "list") if r["state"] == "running"), None))
        made.path = f"{up.url}/runs/{run}/"
        yield made
        made.says("third")


def test_a_transcript_is_read_and_followed(told: Told, browser: Browser) -> None:
    shots = os.environ.get("SHOTS")
    with person(browser, told.up, "vera") as page:
        page.goto(told.path)
        expect(page.locator("#transcript")).to_contain_text("Line 59 of a long story", timeout=MINUTES)
        expect(page.locator("#live-state")).to_have_text("Live")
        expect(page.locator("#transcript")).to_contain_text("usage that cannot be is not counted")
        expect(page.locator("#transcript")).to_contain_text("In all 1600 in, 1000 from the cache, 80 out, 0.02 USD")
    for name, look in LOOKS.items():
        with person(browser, told.up, "vera", **look) as page:
            page.goto(told.path)
            at_end = "t => t.scrollHeight - t.scrollTop - t.clientHeight < 24"
            assert page.locator("#transcript").evaluate(at_end)
            page.locator("summary", has_text="make test").click()
            expect(page.locator("details[open] .a-red")).to_have_text("2 failed")
            assert faults(page) == []
            if shots:
                page.screenshot(path=f"{shots}/{name.split()[-1]}.png", full_page=True)
                page.locator("#transcript").evaluate("t => { t.scrollTop = 0 }")
                page.locator("#transcript").screenshot(path=f"{shots}/{name.split()[-1]}-top.png")
            page.fill("input[name=q]", "FENCE.PY")
            page.press("input[name=q]", "Enter")
            expect(page.locator("#transcript > li")).to_have_count(1)
            page.get_by_text("See it in its place").click()
            expect(page.locator("#transcript > li:target")).to_contain_text("src/fence.py")
            page.get_by_role("link", name="Log", exact=True).click()
            expect(page.locator("#log")).to_contain_text('"sessionID": "ses_abc"')
            assert faults(page) == []
    with person(browser, told.up, "vera") as page, person(browser, told.up, "rita") as reader:
        for one in (page, reader):
            one.goto(told.path)
            expect(one.locator("#live-state")).to_have_text("Live")
            one.evaluate("window.neverReloaded = true")
        page.locator("summary", has_text="src/fence.py").click()
        page.locator("#transcript").evaluate("t => { t.scrollTop = t.scrollHeight }")
        reader.locator("#transcript").evaluate("t => { t.scrollTop = 40 }")
        told.says("second", call(9, "bash", {"command": "git commit"}, "done"), *(text(f"New {n}") for n in range(30)))
        for one in (page, reader):
            expect(one.locator("#transcript")).to_contain_text("New 29")
            assert one.evaluate("window.neverReloaded") is True
        assert page.locator("#transcript").evaluate("t => t.scrollHeight - t.scrollTop - t.clientHeight < 24")
        assert page.locator("#transcript details[open]").count() == 1
        assert reader.locator("#transcript").evaluate("t => t.scrollHeight - t.scrollTop - t.clientHeight > 200")
    with person(browser, told.up, "vera", java_script_enabled=False) as page:
        page.goto(f"{told.path}?q=New+29")
        expect(page.locator("#transcript > li")).to_have_count(1)
        page.get_by_role("link", name="All of it").click()
        page.get_by_role("link", name="Earlier").click()
        expect(page.locator("#transcript")).to_contain_text("I look at the tests first")
        with page.expect_download() as download:
            page.get_by_role("link", name="transcript", exact=True).click()
        assert '"text": "New 29"' in download.value.path().read_text()
