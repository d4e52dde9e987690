"""The people's stories in a real browser on a real running installation: live pages, no JavaScript, accessibility."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.web.installation import BROWSER_ARGUMENTS, PASSWORD, PEOPLE, Installation, chromium, installation, until
from tests.web.looks import serious

pytestmark = pytest.mark.skipif(chromium() is None, reason="no chromium on this machine: apt install chromium")
LONG = "feature/a-branch-with-a-name-that-is-much-longer-than-any-phone-is-wide/and-then-some-more"
MINUTES = 120_000  # milliseconds for what agents, gates and git take
SHIFTS = """window.shifts = 0; new PerformanceObserver(l => l.getEntries().forEach(e => { window.shifts += e.value }))
    .observe({type: 'layout-shift'})"""
MANUAL = '[refinery]\ngates = ["true"]\nauto_merge = false\ncode_review = false\n'


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One installation for all stories, with a rig whose entries wait for a person."""
    with installation(tmp_path_factory.mktemp("browser")) as made:
        made.settle_in(annex=MANUAL)
        made.push(LONG, {"docs/annex.md": "# The annex\n"})
        made.gastown("mq", "submit", "annex", "--branch", LONG)
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium(), args=BROWSER_ARGUMENTS)
        yield made
        made.close()


@contextmanager
def person(browser: Browser, up: Installation, name: str, **options: Any) -> Iterator[Page]:
    """Somebody's logged-in page. Complaints of the browser (policy, scripts) fail the test."""
    context: BrowserContext = browser.new_context(**options)
    complaints: list[str] = []
    page = context.new_page()
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: complaints.append(str(e)))
    page.goto(f"{up.url}/accounts/login/")
    page.fill("input[name=username]", name)
    page.fill("input[name=password]", PASSWORD)
    page.click("main button[type=submit]")
    try:
        yield page
    finally:
        context.close()
    assert [c for c in complaints if not re.search(r"40[34]|ERR_(CONNECTION|INCOMPLETE)", c)] == []


@pytest.mark.long
def test_a_team_member_watches_a_convoy_from_staged_to_landed_without_reloading(
    up: Installation, browser: Browser
) -> None:
    key = up.convoy("main", "square", "Town square", "--staged")
    with person(browser, up, "vera") as vera, person(browser, up, "olga") as olga:
        vera.goto(f"{up.url}/convoys/{key}/")
        expect(vera.locator("h1 .chip")).to_have_text("staged")
        expect(vera.locator("#live-state")).to_have_text("Live")
        expect(vera.get_by_role("button", name="Start it")).to_have_count(0)
        vera.evaluate("window.neverReloaded = true")
        olga.goto(f"{up.url}/convoys/{key}/")
        olga.get_by_role("button", name="Start it").click()
        expect(vera.locator("h1 .chip")).to_have_text("active")
        vera.evaluate(SHIFTS)
        expect(vera.locator(".node.s-working").first).to_be_visible(timeout=MINUTES)
        expect(vera.locator("ul.crew .why").first).to_have_text(re.compile(r"\w"), timeout=MINUTES)
        expect(vera.locator("h1 .chip")).to_have_text("landed", timeout=MINUTES)
        landed = vera.locator("#landed .sha").inner_text()
        assert landed == up.git("rev-parse", up.branch)
        expect(vera.locator(".node.s-closed")).to_have_count(5)
        expect(vera.locator("ol.commits > li")).to_have_count(5)
        assert vera.evaluate("window.neverReloaded") is True
        # agents come and go, and nothing jumps: all of it together is less than Web Vitals call good for five seconds
        # (a row that moves up in its list when the one above it has gone is about 0.005)
        assert vera.evaluate("window.shifts") < 0.1
        assert vera.title().startswith("5/5 Town square")
        vera.reload()
        expect(vera.locator("#landed .sha")).to_have_text(landed)
        problems = serious(vera)
        bead = vera.locator("ul.beads a").first
        bead.click()
        problems += serious(vera)
        vera.locator("ul.crew a").first.click()
        expect(vera.locator("#log")).to_contain_text(re.compile(r"Reading|Building"))
        expect(vera.locator("#calls + ol")).to_contain_text("gt_done")
        assert problems + serious(vera) == []


@pytest.mark.long
def test_everything_works_by_reload_without_javascript(up: Installation, browser: Browser) -> None:
    key = up.convoy("main", "signs", "Road signs", "--staged", "--merge-mode", "review-and-merge")
    with person(browser, up, "olga", java_script_enabled=False) as page:
        for path, word in {"/": "main", "/towns/main/": "Road signs", "/queue/": "annex", "/mail/": "Mail"}.items():
            page.goto(up.url + path)
            expect(page.locator("main")).to_contain_text(word)
        page.goto(f"{up.url}/convoys/{key}/")
        page.get_by_role("button", name="Start it").click()

        def landed() -> bool:
            page.reload()
            return page.locator("h1 .chip").inner_text() == "done"

        until(landed, 120, up.said)
        expect(page.locator("ol.commits > li")).to_have_count(2)


@pytest.mark.long
def test_an_update_keeps_focus_scroll_and_open_details(up: Installation, browser: Browser) -> None:
    key = up.convoy("main", "square", "A square to stand on", "--staged")
    with person(browser, up, "olga") as page:
        page.goto(f"{up.url}/convoys/{key}/")
        expect(page.locator("#live-state")).to_have_text("Live")
        page.set_viewport_size({"width": 600, "height": 400})
        page.locator("details.danger-zone > summary").click()
        page.locator("details.danger-zone button").focus()
        page.evaluate("window.scrollTo(0, 300)")
        before = page.evaluate("[scrollY, document.querySelector('details.danger-zone').open]")
        page.evaluate(SHIFTS)
        up.run("shell", "-c", "from beads import ledger, inbox; from beads.models import Bead; "
               f"b = Bead.objects.get(pk='{key}'); ledger.note(b, 'waved_at', 't'); inbox.changed('main')")  # fmt: skip
        expect(page.locator("ol.timeline")).to_contain_text("waved at")
        assert page.evaluate("[scrollY, document.querySelector('details.danger-zone').open]") == before
        assert page.evaluate("document.activeElement.textContent") == "Close midway"
        assert page.evaluate("window.shifts") < 0.1


@pytest.mark.long
def test_a_runs_log_grows_on_the_page_as_it_is_printed(up: Installation, browser: Browser) -> None:
    release = up.home.parent / "signals" / "release"
    release.parent.mkdir()
    config = up.home.parent / "slow.toml"
    script = (
        f"printf '\\033[31mred <b>hot</b>\\033[0m\\n'; until test -e '{release}'; do sleep 0.1; done; echo released"
    )
    seen = f'[sandbox]\nread_only = ["{release.parent}"]\n[refinery]\n'
    config.write_text(f'{seen}gates = ["true"]\n[agents.polecat]\ncommand = ["sh", "-c", {script!r}]\n'.replace(
        repr(script), '"""' + script.replace("\\", "\\\\") + '"""'))  # fmt: skip
    up.gastown("rig", "add", "slow", str(up.remote), "--default-branch", up.branch, "--config", str(config))
    bead = up.run("sling", "slow", "--title", "Print slowly").strip()
    run = until(lambda: [r for r in up.gastown("runs", "list") if r["bead"] == bead and r["state"] == "running"])[0]
    with person(browser, up, "vera") as page:
        page.goto(f"{up.url}/runs/{run['id']}/")
        expect(page.locator("#log .a-red")).to_have_text("red <b>hot</b>", timeout=MINUTES)
        release.touch()
        expect(page.locator("#log")).to_contain_text("released", timeout=5000)


class Stream(threading.Thread):
    """One browser's event stream, read with the standard library."""

    def __init__(self, up: Installation, cookie: str, path: str) -> None:
        super().__init__(daemon=True)
        self.connection = http.client.HTTPConnection(urlsplit(up.url).netloc, timeout=60)
        self.connection.request("GET", path, headers={"Cookie": cookie})
        self.answer = self.connection.getresponse()
        self.heard: list[float] = []

    def run(self) -> None:
        try:
            while line := self.answer.readline():
                if line.startswith(b"data:"):
                    self.heard.append(time.monotonic())
        except (OSError, http.client.HTTPException, ValueError, AttributeError):
            pass

    def leave(self) -> None:
        """Go away without a word."""
        if self.connection.sock:
            with contextlib.suppress(OSError):
                self.connection.sock.shutdown(socket.SHUT_RDWR)
        if self.is_alive():
            self.join(10)
        self.answer.close()
        self.connection.close()


def cookie_of(page: Page) -> str:
    """The session as a header."""
    return "; ".join(f"{c['name']}={c['value']}" for c in page.context.cookies())


def watching(page: Page, up: Installation) -> int:
    """How many event streams the server says it serves."""
    text = page.request.get(f"{up.url}/metrics").text()
    found = re.search(r"^gastown_live_browsers (\d+)", text, re.M)
    assert found, text
    return int(found[1])


@pytest.mark.long
def test_one_change_reaches_every_browser_over_one_listener_and_gone_browsers_free_their_slot(
    up: Installation, browser: Browser
) -> None:
    up.gastown("town", "create", "quiet")
    with person(browser, up, "olga") as page:
        page.goto(f"{up.url}/towns/main/")
        expect(page.locator("#live-state")).to_have_text("Live")
        before = watching(page, up)
        streams = [Stream(up, cookie_of(page), "/events/quiet/") for _ in range(40)]
        assert {s.answer.status for s in streams} == {200}
        assert streams[0].answer.headers["Content-Type"] == "text/event-stream"
        for stream in streams:
            stream.start()
        until(lambda: all(len(s.heard) == 1 for s in streams))
        sql = "select count(*) from pg_stat_activity where query = 'listen gastown_changed'"
        code = f"from django.db import connection as c; k = c.cursor(); k.execute({sql!r}); print(k.fetchone()[0])"
        assert up.run("shell", "-c", code).split()[-1] == "1"
        code = (
            "import time; from beads import inbox; from beads.models import Town; "
            "t = Town.objects.get(slug='quiet'); [inbox.changed(t.slug) for _ in range(20)]; print(time.monotonic())"
        )
        told = float(up.run("shell", "-c", code).split()[-1])
        until(lambda: all(len(s.heard) >= 2 for s in streams))
        assert max(s.heard[1] for s in streams) - told < 1
        assert watching(page, up) >= 40
        for stream in streams:
            stream.leave()
        until(lambda: watching(page, up) <= before, 90)
        assert all(len(s.heard) == 2 for s in streams)


def test_the_stream_is_for_people_who_are_logged_in_and_towns_that_are(up: Installation, browser: Browser) -> None:
    stranger = Stream(up, "", "/events/main/")
    assert stranger.answer.status == 302
    stranger.leave()
    with person(browser, up, "vera") as page:
        lost = Stream(up, cookie_of(page), "/events/nowhere/")
        assert lost.answer.status == 404
        lost.leave()


@pytest.mark.long
def test_the_installation_stops_promptly_while_browsers_watch(tmp_path: Path, browser: Browser) -> None:
    with installation(tmp_path) as made:
        made.run("shell", "-c", PEOPLE)
        with person(browser, made, "vera") as page:
            page.goto(f"{made.url}/queue/")
            expect(page.locator("#live-state")).to_have_text("Live")
            stream = Stream(made, cookie_of(page), "/events/")
            stream.start()
            lines = made.said()
            took = made.stop()
            assert "Cancel" not in made.said().removeprefix(lines)
            assert took < 8
            expect(page.locator("#live-state")).to_have_text("Reconnecting")
            stream.leave()
