"""The review page in a browser: keys, comments in place, one click one thing, and all of it without JavaScript."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.test import Client
from playwright.sync_api import Browser, Page, expect, sync_playwright

from refinery.models import ReviewComment, ReviewEntry
from tests.web.ground import Ground, person

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium. Its loop runs in this thread, which Django would take for an async context."""
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as play:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        chromium = play.chromium.launch(executable_path="/usr/bin/chromium", args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def ground(browser: Browser, transactional_db: None, tmp_path: Path, settings: Any) -> Ground:
    """Fresh ground, seen by the web server's thread."""
    settings.GASTOWN_HOME = str(tmp_path)
    settings.STATICFILES_DIRS = [settings.STATIC_ROOT]  # the test server asks the finders only
    return Ground(tmp_path)


@pytest.fixture
def entry(ground: Ground) -> ReviewEntry:
    """A change of three files."""
    files = {f"{name}.py": "".join(f"{name} = {n}\n" for n in range(60)) for name in ("one", "two")}
    ground.push("feature", {"a.py": "def f():\n    return 2\n", **files})
    return ground.submit()


def opened(browser: Browser, live_server: Any, client: Client, entry: ReviewEntry, *, script: bool = True) -> Page:
    """The review page as `client`'s user sees it; errors of the page fail the test at its end."""
    context = browser.new_context(viewport={"width": 1200, "height": 600}, java_script_enabled=script)
    cookie = client.cookies[django_settings.SESSION_COOKIE_NAME].value
    context.add_cookies([{"name": django_settings.SESSION_COOKIE_NAME, "value": cookie, "url": live_server.url}])
    page = context.new_page()
    page.goto(f"{live_server.url}/reviews/{entry.pk}/")
    return page


def focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement.id"))


def test_keys_walk_files_and_comments_and_approve(browser: Browser, live_server: Any, entry: ReviewEntry) -> None:
    rita = person("rita")
    form = {"head": entry.head_sha, "file": "two.py", "side": "new", "line": 50, "body": "why fifty?"}
    rita.post(f"/reviews/{entry.pk}/comment/", form)
    page = opened(browser, live_server, rita, entry)
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.reload()
    seen = []
    for key in ("j", "j", "j", "k"):
        page.keyboard.press(key)
        seen.append(focused(page))
    assert seen == ["f0", "f1", "f2", "f1"]
    page.keyboard.press("n")
    assert focused(page) == f"c{ReviewComment.objects.get().pk}"
    page.keyboard.press("a")
    assert page.evaluate("document.activeElement.textContent") == "Approve"
    assert not entry.verdicts.exists()
    page.keyboard.press("a")
    expect(page.get_by_role("status")).to_contain_text("You approved this head")
    assert problems == []
    page.context.close()


def test_a_comment_is_written_in_place(browser: Browser, live_server: Any, entry: ReviewEntry) -> None:
    page = opened(browser, live_server, person("rita"), entry)
    page.locator("#f0 td.n a", has_text="2").last.click()
    box = page.get_by_label("Comment on line 2")
    expect(box).to_be_focused()
    assert "at=" not in page.url
    box.fill("j is no key here")
    page.get_by_role("button", name="Comment").dblclick()
    expect(page.locator("#f0 article")).to_contain_text("j is no key here")
    assert ReviewComment.objects.get().line == 2
    page.get_by_role("button", name="Resolve").click()
    expect(page.locator("#f0 article")).to_contain_text("resolved")
    page.context.close()


def test_two_clicks_approve_once(browser: Browser, live_server: Any, ground: Ground, entry: ReviewEntry) -> None:
    page = opened(browser, live_server, person("rita"), entry)
    page.get_by_role("button", name="Approve", exact=True).dblclick()
    expect(page.get_by_role("status")).to_be_visible()
    ground.settle()
    assert entry.verdicts.count() == 1
    page.context.close()


@pytest.mark.long
def test_the_story_without_javascript(browser: Browser, live_server: Any, ground: Ground, entry: ReviewEntry) -> None:
    """Comment on a line, request changes, see the new head, approve it; it lands on the remote."""
    rita = person("rita")
    page = opened(browser, live_server, rita, entry, script=False)
    page.locator("#f0 td.n a", has_text="2").last.click()
    page.get_by_label("Comment on line 2").fill("three, please")
    page.get_by_role("button", name="Comment").click()
    expect(page.locator("#f0 article")).to_contain_text("three, please")
    page.get_by_role("button", name="Request changes").click()
    ground.settle()
    assert entry.verdicts.get().items[0]["problem"] == "three, please"
    ground.push("feature", {"a.py": "def f():\n    return 3\n"})
    newer = ground.submit()
    page.goto(f"{live_server.url}/reviews/{entry.pk}/")
    page.get_by_role("link", name=newer.pk).click()
    expect(page.locator(".rv-comment")).to_contain_text("outdated")
    page.get_by_role("link", name="Since last review").click()
    expect(page.locator("#f0")).to_contain_text("return 3")
    page.get_by_role("button", name="Approve and merge").click()
    ground.settle()
    newer.refresh_from_db()
    assert newer.state == "merged"
    assert "return 3" in ground.git("show", "main:a.py", cwd=ground.remote)
    page.context.close()


@pytest.mark.parametrize("width", [390, 1400])
def test_the_page_fits_its_window(browser: Browser, live_server: Any, entry: ReviewEntry, width: int) -> None:
    page = opened(browser, live_server, person("rita"), entry)
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.context.close()
