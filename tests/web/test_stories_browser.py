"""People's stories from beginning to end, in Chromium, on a running town with real agents, gates and a git remote."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.web.installation import BROWSER_ARGUMENTS, ROOT, Installation, chromium, installation, until
from tests.web.looks import LOOKS, faults, serious
from tests.web.test_browser import MINUTES, person

pytestmark = pytest.mark.skipif(chromium() is None, reason="no chromium on this machine: apt install chromium")
POLECAT = [sys.executable, str(ROOT / "tests" / "acceptance" / "agents" / "polecat.py")]
OFFERED = f"""
[refinery]
gates = ["test -e answer.py"]
code_review = false
merge_strategy = "pr"
[agents.polecat]
command = {json.dumps(POLECAT)}
[sandbox]
read_only = {json.dumps([sys.base_prefix, sys.prefix, os.path.dirname(POLECAT[1])])}
"""
STUCK = """
[refinery]
gates = ["test ! -e {0}.txt || no-such-program"]
auto_merge = false
code_review = false
"""
WORK = "echo 'answer = 41' > answer.py\n---rework---\necho 'answer = 42' > answer.py"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One installation: a rig that offers its changes to people, one whose gate cannot be run."""
    with installation(tmp_path_factory.mktemp("stories")) as made:
        made.settle_in(offered=OFFERED, stuck=STUCK.format("look"))
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium(), args=BROWSER_ARGUMENTS)
        yield made
        made.close()


def by_reload(page: Page, seen: Callable[[], bool]) -> None:
    """What somebody without JavaScript does: reload until it is there."""

    def again() -> bool:
        page.reload()
        return seen()

    until(again, 120, lambda: page.locator("main").inner_text())


def press(page: Page, button: str) -> None:
    """Press it and wait for the page that answers: a reload before that would take it back."""
    with page.expect_navigation():
        page.get_by_role("button", name=button).click()


@pytest.mark.long
def test_a_reviewer_comments_asks_for_changes_sees_the_new_head_and_lands_it(
    up: Installation, browser: Browser
) -> None:
    bead = up.run("sling", "offered", "--title", "Write the answer", "--body", WORK).strip()
    with person(browser, up, "rita") as rita:
        rita.goto(f"{up.url}/towns/main/")
        expect(rita.locator("#live-state")).to_have_text("Live")
        rita.get_by_role("link", name="Review it: Write the answer").click(timeout=MINUTES)
        entry = rita.url.rstrip("/").rpartition("/")[2]
        expect(rita.locator("#live-state")).to_have_text("Live")
        expect(rita.locator("#gates + details")).to_contain_text("pass")
        rita.locator("#f0 td.n a").last.click()
        rita.get_by_label("Comment on line 1").fill("42, surely")
        rita.get_by_role("button", name="Comment").click()
        expect(rita.locator("#f0 article")).to_contain_text("42, surely")
        rita.get_by_role("button", name="Request changes").click()
        expect(rita.get_by_role("status").first).to_be_visible()
        # without a reload: sent back, done again by the agent, gated, and back with the reviewer
        expect(rita.locator("#changed")).to_be_visible(timeout=MINUTES)
        until(lambda: [e for e in up.gastown("mq", "list") if e["id"] == entry and e["phase"] == "awaiting_human"], 120)
        rita.get_by_role("link", name="Look again").click()
        expect(rita.locator(".rv-comment")).to_contain_text("outdated")
        rita.get_by_role("link", name="Since last review").click()
        expect(rita.locator("#f0 tr.add")).to_contain_text("answer = 42")
        expect(rita.locator("#f0 tr.del")).to_contain_text("answer = 41")
        assert serious(rita) == []
        rita.get_by_role("button", name="Approve and merge").click()
        expect(rita.locator("h1 .chip")).to_have_text("merged", timeout=MINUTES)
    assert up.git("show", f"{up.branch}:answer.py") == "answer = 42"
    assert up.gastown("bead", "show", bead)["resolution"] == "merged"


@pytest.mark.long
def test_the_same_review_without_javascript(up: Installation, browser: Browser) -> None:
    work = WORK.replace("answer.py", "plain.py").replace("echo", "touch answer.py; echo", 1)
    up.run("sling", "offered", "--title", "Write it plainly", "--body", work)
    with person(browser, up, "rita", java_script_enabled=False) as rita:
        rita.goto(f"{up.url}/towns/main/")
        offer = rita.get_by_role("link", name="Review it: Write it plainly")
        by_reload(rita, lambda: offer.count() == 1)
        offer.click()
        line = rita.locator("section.rv-file", has_text="plain.py").locator("td.n a").last
        line.click()
        rita.get_by_label("Comment on line 1").fill("42, surely")
        press(rita, "Comment")
        press(rita, "Request changes")
        by_reload(rita, lambda: rita.locator("h1 .chip").inner_text() == "blocked")
        by_reload(rita, lambda: rita.locator("h1 .chip").inner_text() == "needs you")
        rita.get_by_role("link", name="Since last review").click()
        expect(rita.locator("tr.add")).to_contain_text("answer = 42")
        press(rita, "Approve and merge")
        by_reload(rita, lambda: rita.locator("h1 .chip").inner_text() == "merged")
    assert up.git("show", f"{up.branch}:plain.py") == "answer = 42"


@pytest.mark.long
@pytest.mark.parametrize("script", [True, False], ids=["with script", "without script"])
def test_an_operator_finds_out_why_it_is_stuck_mends_the_config_and_it_goes_on(
    up: Installation, browser: Browser, script: bool
) -> None:
    branch = f"stuck-{script}"
    rig = f"stuck{int(script)}"
    config = up.home.parent / f"{rig}.toml"
    config.write_text(STUCK.format(branch))
    up.gastown("rig", "add", rig, str(up.remote), "--default-branch", up.branch, "--config", str(config))
    up.push(branch, {f"{branch}.txt": "here\n"})
    entry = up.gastown("mq", "submit", rig, "--branch", branch)["id"]
    until(lambda: [e for e in up.gastown("mq", "list") if e["id"] == entry and e["held"]], 120)
    with person(browser, up, "vera", java_script_enabled=script) as vera:
        vera.goto(f"{up.url}/reviews/{entry}/")
        expect(vera.locator(".rv-why")).to_contain_text("no-such-program")
        expect(vera.locator("main button")).to_have_count(0)
        expect(vera.get_by_role("link", name="Ops console")).to_have_count(0)
        vera.goto(f"{up.url}/admin/refinery/reviewentry/{entry}/change/")
        assert "/admin/login/" in vera.url
    with person(browser, up, "olga", java_script_enabled=script) as olga:
        olga.goto(f"{up.url}/towns/main/")
        olga.get_by_role("link", name="Ops console").click()
        olga.get_by_role("searchbox").fill(entry)
        olga.get_by_role("button", name="Find").click()
        why = olga.get_by_role("region", name="Why is this stuck?")
        expect(why).to_contain_text("no-such-program")
        expect(why).to_contain_text("could not be run")
        olga.goto(f"{up.url}/admin/beads/rig/?q={rig}")
        olga.get_by_role("link", name=rig, exact=True).click()
        olga.get_by_role("link", name="Edit its config").click()
        box = olga.get_by_label("Overrides, as TOML")
        box.fill(box.input_value().replace("no-such-program", "true"))
        olga.get_by_label("Why?").fill("the program has another name")
        olga.get_by_role("button", name="Show what changes").click()
        olga.get_by_role("button", name="Save this").click()
        expect(olga.get_by_text("config version 1 is saved")).to_be_visible()
        olga.goto(f"{up.url}/admin/refinery/reviewentry/{entry}/change/")
        retry = olga.get_by_role("button", name="Retry: clear the hold, or bring it back")
        retry.click()
        olga.get_by_label("Why?").fill("the gate can be run now")
        retry.click()
        expect(olga.get_by_text("recorded for 1")).to_be_visible()
        until(lambda: [e for e in up.gastown("mq", "list") if e["id"] == entry and not e["held"]], 60)
        olga.goto(f"{up.url}/reviews/{entry}/")
        approve = olga.get_by_role("button", name="Approve and merge")
        by_reload(olga, lambda: approve.is_visible() and "pass" in olga.locator("main").inner_text())
        press(olga, "Approve and merge")
        by_reload(olga, lambda: olga.locator("h1 .chip").inner_text() == "merged")
    assert up.git("show", f"{up.branch}:{branch}.txt") == "here"


@pytest.mark.parametrize("script", [True, False], ids=["with script", "without script"])
def test_each_chooses_what_to_hear(up: Installation, browser: Browser, script: bool) -> None:
    with person(browser, up, "vera", java_script_enabled=script) as vera:
        vera.goto(up.url)
        vera.get_by_role("link", name="vera").click()
        expect(vera.get_by_role("heading", level=1)).to_have_text("Your account")
        expect(vera.get_by_role("group", name="main")).to_contain_text("viewer")
        box = vera.get_by_label("A convoy has landed")
        before = box.is_checked()
        box.set_checked(not before)
        vera.get_by_role("button", name="Save").click()
        expect(vera.get_by_role("status")).to_have_text("Saved.")
        assert vera.get_by_label("A convoy has landed").is_checked() is not before


@pytest.mark.long
def test_a_viewer_is_told_what_it_may_not_do(up: Installation, browser: Browser) -> None:
    key = up.convoy("main", "signs", "Signs that nobody starts", "--staged")
    with person(browser, up, "vera") as vera:
        vera.goto(f"{up.url}/convoys/{key}/")
        expect(vera.locator("main button")).to_have_count(0)
        with vera.expect_navigation():
            vera.evaluate(
                """key => {
                    const form = document.querySelector("form.out").cloneNode(true);
                    form.action = `/convoys/${key}/start/`;
                    document.body.append(form);
                    form.submit();
                }""",
                key,
            )
        expect(vera.get_by_role("heading", level=1)).to_have_text("Not allowed")
        assert serious(vera) == []
        vera.get_by_role("link", name="Back to the towns").click()
        assert urlpath(vera) == "/"
    assert up.gastown("convoy", "status", key)["phase"] == "staged"


def urlpath(page: Page) -> str:
    """The path of a page's address."""
    return "/" + re.sub(r"^\w+://[^/]*/?", "", page.url)


ERRORS = """
import json
from django.template.loader import get_template
names = ("403.html", "404.html", "500.html", "registration/first_run.html")
print(json.dumps({name: get_template(name).render() for name in names}))
"""


@pytest.fixture(scope="module")
def paths(up: Installation) -> list[str]:
    """Every kind of page of a town, with things on it that are long, hostile or in trouble."""
    title = "A convoy <b>&amp;</b> \u202edegats\u202c with a title much longer than a phone is wide"
    staged = up.convoy("main", "square", title, "--staged")
    up.push("look", {"look.txt": "look\n"})
    entry = up.gastown("mq", "submit", "stuck", "--branch", "look")["id"]
    until(lambda: [e for e in up.gastown("mq", "list") if e["id"] == entry and e["held"]], 120)
    run = up.gastown("runs", "list", "--all")[0]["id"]
    up.gastown("mail", "send", "overseer", "--subject", "A word", "--body", "of advice")
    bead = up.gastown("convoy", "status", staged)["beads"][0]["id"]
    return [
        "/", "/towns/main/", f"/convoys/{staged}/", f"/beads/{bead}/", "/queue/", "/mail/", "/account/",
        f"/runs/{run}/", f"/reviews/{entry}/", f"/reviews/{entry}/?view=split", f"/reviews/{entry}/?at=0.n1",
        "/nowhere/",
    ]  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("look", LOOKS)
def test_no_page_has_a_serious_accessibility_issue_or_is_wider_than_its_window(
    up: Installation, browser: Browser, paths: list[str], look: str
) -> None:
    problems: list[str] = []
    with person(browser, up, "olga", **LOOKS[look]) as page:
        for path in paths:
            page.goto(up.url + path)
            problems += faults(page)
        for name, html in json.loads(up.run("shell", "-v", "0", "-c", ERRORS)).items():
            page.goto(f"{up.url}/account/")
            page.set_content(html[html.index("<!doctype") :])
            problems += [f"{name}: {told}" for told in faults(page)]
        page.context.clear_cookies()
        page.goto(f"{up.url}/accounts/login/")
        problems += faults(page)
    assert not problems, "\n".join(problems)
