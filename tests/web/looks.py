"""How people look at a page, and what is wrong with it then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.sync_api import Page

AXE = Path(__file__).parent / "vendor" / "axe.min.js"
LOOKS: dict[str, Any] = {
    "light, on a phone": {
        "color_scheme": "light",
        "viewport": {"width": 360, "height": 740},
        "is_mobile": True,
        "has_touch": True,
    },
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}},
}


def serious(page: Page) -> list[str]:
    """What axe-core finds on the page, serious or critical."""
    page.evaluate(AXE.read_text())  # through the debugger: the page's policy stays as it is
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']}).then(r => r.violations)")
    return [
        f"{page.url} {v['id']}: {v['help']}: {[n['html'][:200] for n in v['nodes'][:3]]}"
        for v in found
        if v["impact"] in ("serious", "critical")
    ]


def faults(page: Page) -> list[str]:
    """`serious`, and whether the page is wider than its window. Each page has a title of its own and an icon."""
    assert page.title().strip() not in ("", "Gastown"), page.url
    assert page.locator("link[rel~=icon]").count(), page.url
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return [*serious(page), *([f"{page.url} is {wide} px wider than its window"] if wide > 0 else [])]
