"""The console in Chromium: no page of it breaks the Content-Security-Policy, and an operator mends an entry with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as project
from django.contrib.auth.models import User
from django.db.models import Model
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright

from beads import inbox, ledger, outbox, people
from beads.models import Fact, TownRole
from refinery.models import ReviewEntry
from tests.db.conftest import Place
from tests.web.consoles import CONSOLES, escalation, failed_effect, page, quarantined, started
from tests.web.installation import BROWSER_ARGUMENTS, PASSWORD
from tests.web.installation import chromium as system_chromium
from tests.web.looks import LOOKS, faults

pytestmark = pytest.mark.skipif(system_chromium() is None, reason="no chromium on this machine: apt install chromium")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The system's Chromium. Playwright's loop would make Django refuse this thread's queries."""
    before = os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=system_chromium(), args=BROWSER_ARGUMENTS)
        yield browser
        browser.close()
    if before is None:
        del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def site(transactional_db: None, live_server: Any, settings: Any) -> str:
    """The running site, with a town where much is wrong and an operator `olga` of it."""
    settings.STATICFILES_DIRS = [Path(project.BASE_DIR) / "static"]  # whitenoise's part, for the test server
    place = Place(auto_merge=False)
    User.objects.create_user("olga", password=PASSWORD)
    people.grant(User.objects.get(username="olga"), place.town, TownRole.OPERATOR, "test")
    first = place.bead("First <script>alert(1)</script> ‮")
    place.bead("Second", first)
    started(place)
    quarantined(place)
    escalation(place)
    failed_effect(place)
    outbox.enqueue(place.town, "build", "build:test:2", {}, place.now)
    place.running(kind="polecat", bead=first)
    entry = place.entry()
    place.tick()
    place.built(entry)
    place.gated(1)
    held = place.entry(branch="held")
    place.tick()
    inbox.record(place.town, "entry.reject", held.pk, {"reason": "no"}, actor="test")
    ledger.pause_town(place.town, "lunch")
    place.tick()
    return str(live_server.url)


class Seen:
    """A page, and everything that Chromium complained about on it."""

    def __init__(self, browser: Browser, site: str, *, script: bool = True, **more: Any) -> None:
        self.site = site
        self.complaints: list[str] = []
        context = browser.new_context(java_script_enabled=script, **more)
        self.page: Page = context.new_page()
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("requestfailed", self._failed)
        self.page.on("response", lambda r: self.complaints.append(f"{r.status}: {r.url}") if r.status >= 404 else None)

    def _failed(self, request: Request) -> None:
        """What did not load; what was still loading when the page was left does not count."""
        if "ERR_ABORTED" not in str(request.failure):
            self.complaints.append(f"failed: {request.url} {request.failure}")

    def enter(self) -> Page:
        """Log in at the console's door."""
        self.page.goto(f"{self.site}/admin/")
        self.page.fill("[name=username]", "olga")
        self.page.fill("[name=password]", PASSWORD)
        self.page.get_by_role("button", name="Log in").click()
        expect(self.page.get_by_role("heading", name="Needs a person")).to_be_visible()
        return self.page


def settled(page_: Page) -> None:
    """Its scripts have run."""
    page_.wait_for_function("!document.documentElement.hasAttribute('x-cloak')")


@pytest.mark.long
@pytest.mark.django_db
@pytest.mark.parametrize("look", LOOKS)
def test_no_page_of_the_console_breaks_the_policy_or_has_a_serious_accessibility_issue(
    chromium: Browser, site: str, look: str
) -> None:
    """Lists in one look, rows in the other: each is one template."""
    seen = Seen(chromium, site, **LOOKS[look])
    page_ = seen.enter()
    lists = ["/admin/", "/admin/beads/", "/admin/find/?q=nothing", "/admin/password_change/"]
    lists.append("/admin/beads/fact/?now=quarantined")
    rows = []
    for model, _ in CONSOLES:
        lists.append(page(model))
        row: Model | None = model._default_manager.first()
        if row is not None and model.__name__ != "Membership":
            rows += [f"{page(model)}{row.pk}/change/", f"{page(model)}{row.pk}/history/"]
        if model.__name__ in ("Town", "Rig") and row is not None:
            rows.append(f"{page(model)}{row.pk}/config/")
    problems: list[str] = []
    for path in lists if look == "dark" else rows:
        answer = page_.goto(f"{site}{path}")
        assert answer is not None
        assert answer.ok, path
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy
        settled(page_)
        assert not seen.complaints, (path, seen.complaints)
        problems += faults(page_)
    assert not problems, "\n".join(problems)


@pytest.mark.long
@pytest.mark.django_db
def test_the_superusers_pages_keep_to_it_too(chromium: Browser, site: str) -> None:
    user = User.objects.get(username="olga")
    User.objects.filter(pk=user.pk).update(is_superuser=True)
    seen = Seen(chromium, site)
    page_ = seen.enter()
    users = f"{site}/admin/auth/user/"
    paths = [users, f"{users}add/", f"{users}{user.pk}/change/", f"{users}{user.pk}/password/"]
    paths += [f"{site}/admin/django_q/{name}/" for name in ("schedule", "failure", "success", "ormq")]
    paths += [f"{site}/admin/django_q/schedule/add/", f"{site}/admin/admin/logentry/"]
    paths += [f"{site}/admin/password_change/"]
    for path in paths:
        answer = page_.goto(path)
        assert answer is not None
        assert answer.ok, path
        settled(page_)
        assert not seen.complaints, (path, seen.complaints)


@pytest.mark.django_db
def test_what_unfolds_unfolds(chromium: Browser, site: str) -> None:
    seen = Seen(chromium, site)
    page_ = seen.enter()
    page_.goto(f"{site}/admin/refinery/reviewentry/")
    expect(page_.locator("#changelist-filter")).to_be_hidden()
    page_.locator("a", has_text="Filters").click()
    expect(page_.locator("#changelist-filter")).to_be_visible()
    page_.keyboard.press("Escape")
    expect(page_.locator("#changelist-filter")).to_be_hidden()
    page_.keyboard.press("Control+e")
    expect(page_.locator("html")).to_have_class("light")
    page_.keyboard.press("Control+e")
    expect(page_.locator("html")).to_have_class("dark")
    page_.reload()
    expect(page_.locator("html")).to_have_class("dark")
    assert not seen.complaints


@pytest.mark.long
@pytest.mark.django_db
def test_chosen_rows_are_acted_on_with_a_reason(chromium: Browser, site: str) -> None:
    seen = Seen(chromium, site)
    page_ = seen.enter()
    page_.goto(f"{site}/admin/beads/fact/?now=quarantined")
    page_.locator("input.action-select").first.check()
    page_.locator("select[name=action]").select_option("release_fact")
    page_.get_by_role("button", name="Run").click()
    expect(page_.get_by_label("Why?")).to_be_focused()
    page_.get_by_label("Why?").fill("the cause is mended")
    page_.get_by_role("button", name="Release from quarantine").click()
    expect(page_.get_by_text("recorded for 1")).to_be_visible()
    assert Fact.objects.filter(kind="no.such.kind", quarantined_at=None).exists()
    assert not seen.complaints


@pytest.mark.long
@pytest.mark.django_db
@pytest.mark.parametrize("script", [True, False], ids=["with script", "without script"])
def test_an_operator_finds_out_why_an_entry_is_stuck_and_mends_it(chromium: Browser, site: str, script: bool) -> None:
    entry = ReviewEntry.objects.get(state="failed", branch="held")
    seen = Seen(chromium, site, script=script)
    page_ = seen.enter()
    expect(page_.get_by_text("paused: lunch").first).to_be_visible()
    page_.get_by_role("searchbox").fill(entry.pk)
    page_.get_by_role("button", name="Find").click()
    why = page_.get_by_role("region", name="Why is this stuck?")
    expect(why).to_contain_text("rejected")
    expect(why).to_contain_text("paused: lunch")
    page_.get_by_role("button", name="Retry: clear the hold, or bring it back").click()
    page_.get_by_label("Why?").fill("the reviewer changed his mind")
    page_.get_by_role("button", name="Retry: clear the hold, or bring it back").click()
    expect(page_.get_by_text("recorded for 1")).to_be_visible()
    assert page_.url.endswith(f"/admin/refinery/reviewentry/{entry.pk}/change/")
    fact = Fact.objects.get(kind="entry.retry")
    assert (fact.actor, fact.payload["reason"]) == ("admin:olga", "the reviewer changed his mind")
    assert not seen.complaints


@pytest.mark.long
@pytest.mark.django_db
def test_the_config_is_edited_with_its_diff(chromium: Browser, site: str) -> None:
    seen = Seen(chromium, site)
    page_ = seen.enter()
    page_.get_by_role("link", name="Rigs").click()
    page_.get_by_role("link", name="proj").click()
    page_.get_by_role("link", name="Edit its config").click()
    page_.get_by_label("Overrides, as TOML").fill("# quick\n[refinery]\npop_limt = 3\n")
    page_.get_by_label("Why?").fill("slower")
    page_.get_by_role("button", name="Show what changes").click()
    expect(page_.get_by_role("alert")).to_contain_text("refinery.pop_limt; did you mean refinery.pop_limit?")
    seen.complaints.clear()  # Chromium reports the page's own 400
    page_.get_by_label("Overrides, as TOML").fill("# quick\n[refinery]\npop_limit = 3\n")
    page_.get_by_role("button", name="Show what changes").click()
    expect(page_.get_by_label("What changes")).to_contain_text("+pop_limit = 3")
    page_.get_by_role("button", name="Save this").click()
    expect(page_.get_by_text("config version 1 is saved")).to_be_visible()
    expect(page_.get_by_label("Overrides, as TOML")).to_have_value("# quick\n[refinery]\npop_limit = 3\n")
    assert not seen.complaints
