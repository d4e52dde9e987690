"""`make screenshots`: each page of a real town at work, light, dark and phone-wide, into screenshots/."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import django
from playwright.sync_api import Browser, Page, sync_playwright

DIRECTORY = Path(tempfile.mkdtemp(prefix="gastown-screenshots-"))
os.environ |= {"DJANGO_SETTINGS_MODULE": "gastown_site.settings", "GASTOWN_HOME": str(DIRECTORY / "unused")}
sys.path.insert(0, str(Path(__file__).parents[1]))
django.setup()

from tests.acceptance.sick import SERVED, Ward, landed_in  # noqa: E402
from tests.web.installation import BROWSER_ARGUMENTS, PASSWORD, ROOT, Installation, chromium, installation, until  # noqa: E402

OUT = ROOT / "screenshots"
LOOKS = {
    "light": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "wall": {"viewport": {"width": 2560, "height": 1440}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light", "is_mobile": True, "has_touch": True},
}
ON_THE_WALL = ("town", "convoy", "queue")
LONG = "feature/a-branch-with-a-name-that-is-much-longer-than-any-phone-is-wide/and-then-some-more"
ANNEX = """
[refinery]
gates = ["test ! -e broken || no-such-program"]
auto_merge = false
code_review = false
"""
OFFERED = """
[refinery]
gates = ["git ls-files -z '*.py' | xargs -0 python3 -m py_compile"]
code_review = false
merge_strategy = "pr"
"""
REMARKS = """
from beads.actors import Actor
from refinery.decisions import reviews
from refinery.models import ReviewEntry
e = ReviewEntry.objects.get(pk={entry!r})
rita, olga = Actor("web", "rita"), Actor("web", "olga")
text, words = reviews.Spot("refinery/core/text.py", 9), reviews.Spot("refinery/tick/words.py", 4)
reviews.comment(
    e, by=rita, head=e.head_sha, body="Does a tab count as hidden, too? It moves what follows.", spot=text
)
done = reviews.comment(e, by=olga, head=e.head_sha, body="Name the argument for what it is.", spot=words)[0]
reviews.resolve_comment(e, by=olga, comment=done.pk)
"""


def log_in(page: Page, url: str, user: str) -> None:
    """Log in through the form."""
    page.goto(f"{url}/accounts/login/")
    page.fill("input[name=username]", user)
    page.fill("input[name=password]", PASSWORD)
    page.click("main button[type=submit]")


def shoot(browser: Browser, up: Installation, moment: str, pages: dict[str, str]) -> None:
    """Every page in every look; says where a page is wider than its screen."""
    for look, options in LOOKS.items():
        context = browser.new_context(**options)  # type: ignore[arg-type]
        page = context.new_page()
        log_in(page, up.url, "olga")
        for name, path in pages.items():
            if look == "wall" and name not in ON_THE_WALL:
                continue
            page.goto(up.url + path)
            page.wait_for_load_state("load")
            wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            if wide > 0:
                print(f"{moment}-{name}-{look}: {wide} px wider than the screen")
            page.screenshot(path=OUT / f"{moment}-{name}-{look}.png", full_page=True)
            if look == "light" and name == "convoy":
                page.emulate_media(media="print")
                page.screenshot(path=OUT / f"{moment}-{name}-print.png", full_page=True)
                page.emulate_media(media="screen")
        context.close()


def main() -> int:
    """Take them all."""
    found = chromium()
    if found is None:
        print("no chromium found: apt install chromium", file=sys.stderr)
        return 1
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    try:
        with installation(DIRECTORY, pace="2.5") as up, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=found, args=BROWSER_ARGUMENTS)
            shoot(browser, up, "0-empty", {"login": "/accounts/login/", "queue": "/queue/"})
            up.settle_in("square", annex=ANNEX, offered=OFFERED)
            if "troubles" not in sys.argv[1:]:
                story_of(up, browser)
            troubles_of(up, browser)
            browser.close()
    finally:
        shutil.rmtree(DIRECTORY, ignore_errors=True)
    print(f"{len(list(OUT.glob('*.png')))} pictures in {OUT}")
    return 0


def offer(up: Installation) -> str:
    """A change of a few files, offered to people, with two remarks on it; returns its entry."""
    texts = (ROOT / "refinery" / "core" / "text.py").read_text()
    changed = texts.replace("(but tab and newline)", "(but newline)").replace("def reveal_hidden(", "def shown(")
    new = '"""Words for people."""\n\n\ndef plural(n: int, word: str) -> str:\n    """So many of them."""\n'
    up.push("feature/words", {
        "refinery/core/text.py": changed,
        "refinery/tick/words.py": new + '    return f"{n} {word}" if n == 1 else f"{n} {word}s"\n',
        "docs/words.md": "# Words\n\nOne place for what pages say.\n",
    })  # fmt: skip
    entry = up.run("mq", "submit", "offered", "--branch", "feature/words").strip()
    until(lambda: up.gastown("mq", "show", entry)["phase"] == "awaiting_human", 120, up.said)
    up.run("shell", "-c", REMARKS.format(entry=entry))
    return entry


def story_of(up: Installation, browser: Browser) -> None:
    """A convoy at work, one that is staged, an entry that waits for a person; then all landed."""
    up.push(LONG, {"docs/annex.md": "# The annex\n"})
    up.push("broken-gate", {"broken": "yes\n"})
    entry = up.run("mq", "submit", "annex", "--branch", LONG).strip()
    up.run("mq", "submit", "annex", "--branch", "broken-gate")
    offered = offer(up)
    convoy = up.convoy("square", "square", "Town square")
    signs = up.convoy("square", "signs", "Road signs", "--merge-mode", "review-and-merge")
    staged = up.convoy("square", "square", "A second square, with a long title that has to go somewhere", "--staged")
    pages = {
        "towns": "/",
        "town": "/towns/square/",
        "convoy": f"/convoys/{convoy}/",
        "convoy-signs": f"/convoys/{signs}/",
        "convoy-staged": f"/convoys/{staged}/",
        "queue": "/queue/",
        "mail": "/mail/",
        "review": f"/reviews/{entry}/",
        "review-remarks": f"/reviews/{offered}/?at=1.n5",
        "review-beside": f"/reviews/{offered}/?view=split",
        "account": "/account/",
        "console": "/admin/",
        "console-entry": f"/admin/refinery/reviewentry/{entry}/change/",
        "404": "/convoys/gt-0/",
    }

    page = browser.new_page()
    log_in(page, up.url, "olga")
    page.goto(up.url + pages["convoy"])
    page.locator("ul.beads .chip.gating, ul.beads .chip.reviewing").first.wait_for(timeout=300_000)
    page.context.close()
    runs = [r["id"] for r in up.gastown("runs", "list") if r["state"] == "running"]
    shoot(browser, up, "1-working", pages | ({"run": f"/runs/{runs[0]}/"} if runs else {}))
    until(lambda: up.gastown("convoy", "status", convoy)["status"] in ("closed", "failed"), 300, up.said)
    until(lambda: up.gastown("convoy", "status", signs)["status"] in ("closed", "failed"), 300, up.said)
    done = up.gastown("convoy", "status", convoy)["beads"][0]["id"]
    ended = [r["id"] for r in up.gastown("runs", "list", "--all")]
    shoot(browser, up, "2-landed", pages | {"bead": f"/beads/{done}/", "run": f"/runs/{ended[0]}/"})


def troubles_of(up: Installation, browser: Browser) -> None:
    """Two healthy rigs beside sick ones, each with its one need."""
    root = DIRECTORY / "ward"
    root.mkdir()
    ward = Ward(root, up.gastown)
    sick = ("hole", "keyless", "full", "renamed", "policy", "toolless")
    try:
        for name in ("well1", "well2"):
            ward.rig(name)
        for name in sick:
            ward.rig(name, served=name in SERVED, gate="no-such-tool" if name == "toolless" else "true")
            ward.type("rig", "park", name)
            ward.change(name)
            ward.fall_ill(name)
        for name in sick:
            ward.type("rig", "unpark", name)
        landed_in(ward, [ward.change(name) for name in ("well1", "well2") for _ in range(2)])
        until(lambda: len(ward.type("escalations", "list")) >= len(sick), 180, up.said)
        shoot(browser, up, "3-troubles", {"town": "/towns/main/", "queue": "/queue/?town=main"})
    finally:
        ward.close()


if __name__ == "__main__":
    sys.exit(main())
