"""The demo's reviewer: a script where a reviewing agent would be. It asks for a docstring in every new function, and
passes on where a red gate has failed."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from client import call, git, say


def missing_docstrings(base: str) -> list[dict[str, object]]:
    """Functions without a docstring in the Python files that the change touches."""
    items: list[dict[str, object]] = []
    for name in git("diff", "--name-only", "--diff-filter=AM", f"{base}..HEAD").splitlines():
        path = Path(name)
        if not name.startswith("demo_town/") or path.suffix != ".py" or path.name.startswith("test_"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is None:
                items.append(
                    {
                        "file": name,
                        "line": node.lineno,
                        "problem": f"{node.name} has no docstring",
                        "suggestion": "say what goes in and what comes out, with units",
                    }
                )
    return items


def look(results: list[dict[str, Any]]) -> None:
    """A look at red gates: the request names where they have failed."""
    places = [place for result in results for place in result["failures"]]
    items = [
        {"file": place["file"], "line": place["line"], "problem": place["text"] or "it fails here"} for place in places
    ]
    if items:
        call("gt_request_changes", feedback="A test of yours fails: mend what it tests, not the test.", items=items)
    else:
        call("gt_done", summary="The output says it all.")


def main() -> None:
    """One review, or one look at red gates."""
    prime = call("gt_prime")
    if prime["purpose"] == "triage":
        say(f"Looking at the red gates of {prime['task']['title']}")
        look(prime["gate_results"])
        return
    say(f"Reviewing {prime['task']['title']}")
    results = call("gt_run_gates")["gates"]
    items = missing_docstrings(prime["candidate"]["base"])
    if items:
        call("gt_request_changes", feedback="Every function of the town needs a docstring.", items=items)
    else:
        call("gt_done", summary=f"Looks right; {len(results)} gates are green.")


main()
