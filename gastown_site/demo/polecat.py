"""The demo's worker agent: a script where a coding agent would be. It knows six small tasks.

It makes two honest mistakes on its first attempts: the bakery's arithmetic is wrong (a gate finds it) and the clock
tower lacks a docstring (the reviewer finds it). Both are mended from what the rework request says.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from client import call, git, say

TOWN = Path("demo_town")

TASKS: dict[str, dict[str, str]] = {
    "well": {
        "well.py": '"""The town\'s well."""\n\n\ndef draw(buckets: int) -> int:\n'
        '    """Litres of water in `buckets`."""\n'
        "    return buckets * 10\n",
        "test_well.py": "import unittest\n\nfrom demo_town import well\n\n\nclass WellTest(unittest.TestCase):\n"
        "    def test_draw(self):\n        self.assertEqual(well.draw(3), 30)\n",
    },
    "bakery": {
        "bakery.py": '"""The bakery."""\n\n\ndef price(loaves: int) -> int:\n    """Price of `loaves` in coins."""\n'
        "    return loaves + 2\n",
        "test_bakery.py": "import unittest\n\nfrom demo_town import bakery\n\n\nclass BakeryTest(unittest.TestCase):\n"
        "    def test_price(self):\n        self.assertEqual(bakery.price(4), 8)\n",
    },
    "tower": {
        "tower.py": '"""The clock tower."""\n\n\ndef bells(hour: int) -> int:\n    return (hour - 1) % 12 + 1\n',
        "test_tower.py": "import unittest\n\nfrom demo_town import tower\n\n\nclass TowerTest(unittest.TestCase):\n"
        "    def test_bells(self):\n        self.assertEqual(tower.bells(13), 1)\n",
    },
    "market": {
        "market.py": '"""The market: bread and water."""\n\nfrom demo_town import bakery, well\n\n\n'
        'def lunch(people: int) -> tuple[int, int]:\n    """Coins and litres for a lunch of `people`."""\n'
        "    return bakery.price(people), well.draw(people)\n",
        "test_market.py": "import unittest\n\nfrom demo_town import market\n\n\nclass MarketTest(unittest.TestCase):\n"
        "    def test_lunch(self):\n        self.assertEqual(market.lunch(2), (4, 20))\n",
    },
    "festival": {
        "festival.py": '"""The festival: lunch for each stroke of the bell."""\n\n'
        "from demo_town import market, tower\n\n\n"
        'def feast(hour: int) -> tuple[int, int]:\n    """What the feast at `hour` needs."""\n'
        "    return market.lunch(tower.bells(hour))\n",
        "test_festival.py": "import unittest\n\nfrom demo_town import festival\n\n\n"
        "class FestivalTest(unittest.TestCase):\n    def test_feast(self):\n"
        "        self.assertEqual(festival.feast(15), (6, 30))\n",
    },
}
SIGNS = {"north": "Northward lies the mill road.", "south": "Southward lies the river road."}


def work(task: str) -> str:
    """Do a task from scratch; returns the summary."""
    if task in SIGNS:
        say(f"Painting the sign: {task}")
        readme = Path("README.md")
        lines = readme.read_text().splitlines()
        lines[1:1] = ["", SIGNS[task]]
        readme.write_text("\n".join(lines) + "\n")
        return f"Put up the {task} sign."
    say(f"Building the {task}")
    TOWN.mkdir(exist_ok=True)
    (TOWN / "__init__.py").touch()
    for name, text in TASKS[task].items():
        (TOWN / name).write_text(text)
    return f"Built the {task}, with a test."


def rework(items: list[dict[str, Any]]) -> str:
    """Mend what the request names, by file and line."""
    files = sorted({str(item["file"]) for item in items})
    say(f"Mending {', '.join(files)}")
    if any("bakery" in name for name in files):
        path = TOWN / "bakery.py"
        path.write_text(path.read_text().replace("loaves + 2", "loaves * 2"))
        return "The price of bread is two coins a loaf."
    for item in items:
        if "docstring" in item["problem"]:
            path = Path(item["file"])
            lines = path.read_text().splitlines()
            lines.insert(int(item["line"]), '    """Strokes of the bell at `hour`."""')
            path.write_text("\n".join(lines) + "\n")
    return "Added the missing docstring."


def resolve(conflict: dict[str, Any]) -> str:
    """Merge the target and keep both sides of every conflict."""
    say(f"Resolving {', '.join(conflict['files'])}")
    git("merge", "--no-edit", conflict["base_sha"], check=False)
    for name in conflict["files"]:
        path = Path(name)
        kept = [x for x in path.read_text().splitlines() if not x.startswith(("<<<<<<<", "=======", ">>>>>>>"))]
        path.write_text("\n".join(kept) + "\n")
    return "Kept both signs."


def main() -> None:
    """One run."""
    prime = call("gt_prime")
    say("Reading the task")
    if prime["conflict"]:
        summary = resolve(prime["conflict"])
    elif prime["rework"]:
        summary = rework(prime["rework"]["items"])
    else:
        summary = work(prime["bead"]["body"].partition("task:")[2].strip().splitlines()[0])
    git("add", "-A")
    git("commit", "--no-edit", "-m", summary)
    call("gt_mail_check")
    call("gt_done", summary=summary)


main()
