"""What is known of a candidate's gates, in words and as rules see it: the latest results, and those that are past."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from beads import config as configs
from beads.prepared import Prepared
from refinery.core.entryviews import GateView
from refinery.core.states import EntryKind, EntryState, GateOutcome, LandingState
from refinery.models import Candidate, GateResult, ReviewEntry

_RESULTS = Prepared(lambda rig, tree: GateResult.objects.filter(entry__rig=rig, tree_sha=tree).order_by("id"))


def gate_results(entry: ReviewEntry, candidate: Candidate, *, past: bool = False) -> list[dict[str, Any]]:
    """The latest result of each gate on the candidate's tree, whoever's run gave it, and the gates that need none.

    `past`: those of gates that the config has replaced since, too (other command, or no longer there), at the end and
    marked, until the gate has a result that counts. Nobody is told of them as of a reason.
    """
    skipped = not_needed(entry, candidate)
    latest: dict[tuple[str, str], GateResult] = {}
    tree = candidate.tree_sha or "none"
    for result in _RESULTS(entry.rig_id, tree):
        latest[result.gate, result.command] = result
    known = _counted(entry, candidate)
    counts = [r for key, r in latest.items() if (known is None or key in known) and r.gate not in skipped]
    replaced = []
    if past:
        replaced = [r for key, r in latest.items() if known is not None and key not in known]
    replaced = [r for r in replaced if r.gate not in {one.gate for one in counts}]  # gone once there is a newer one
    return [
        {
            "gate": name,
            "outcome": "not_needed",
            "past": False,
            "say": f"not needed: touches nothing under {', '.join(paths)}",
            "how": "",
            "telling": "",
            "output": "",
            "failures": [],
            "paths": list(paths),
        }
        for name, paths in skipped.items()
    ] + [
        {
            "gate": r.gate,
            "outcome": r.outcome,
            "say": say(r),
            "remedy": r.remedy,
            "how": how(r),
            "telling": telling(r),
            "run": r.run_id,
            "past": r in replaced,
            "output": r.output[-4000:],
            "failures": r.failures,
            "duration_ms": r.duration_ms,
            "exit_code": r.exit_code,
            "signal": r.signal,
            "attempts": [{k: v for k, v in one.items() if k != "tests"} for one in r.attempts],
            "tests": r.tests or None,
            "flaky": r.flaky,
            "flaky_tests": r.flaky_tests,
        }
        for r in [*counts, *replaced]
    ]


def _counted(entry: ReviewEntry, candidate: Candidate) -> set[tuple[str, str]] | None:
    """The gates, with their commands, whose results count: those of the present config, and what let it land. None
    where the config cannot be read, and of what has failed in its time: unknown is not past."""
    if entry.state == EntryState.FAILED and entry.kind != EntryKind.CHECK:
        return None
    config, problems = configs.usable(entry.rig.town.config, entry.rig.config)
    if problems and not config.refinery.gates:
        return None
    landing = None
    if entry.state == EntryState.MERGED:
        landing = candidate.landings.exclude(state=LandingState.ABANDONED).first()
    gates = {(g.name, g.command) for g in config.refinery.gates}
    if landing is not None:
        found = [row["result"] for row in landing.evidence if "result" in row]
        gates |= set(GateResult.objects.filter(pk__in=found).values_list("gate", "command"))
    return gates


def not_needed(entry: ReviewEntry, candidate: Candidate) -> dict[str, tuple[str, ...]]:
    """The gates that the candidate needs no result of, with their paths: as it landed, else by the present config."""
    landing = candidate.landings.exclude(state=LandingState.ABANDONED).first()
    if landing is not None:
        rows = (row for row in landing.evidence if row["outcome"] == "not_needed")
        return {row["gate"]: tuple(row["paths"]) for row in rows}
    gates = configs.usable(entry.rig.town.config, entry.rig.config)[0].refinery.gates
    return {g.name: g.paths for g in gates if g.paths and list(g.paths) in candidate.untouched}


_CODES = {127: " (command not found)", 126: " (command cannot be executed)"}


def ended_as(raw: Mapping[str, Any]) -> str:
    """How one attempt ended, as the shim tells it, in words."""
    if raw.get("limit"):
        return str(raw["limit"])
    if raw.get("timed_out"):
        return "timed out"
    if raw.get("signal"):
        return f"killed by signal {raw['signal']}"
    code = raw.get("exit_code")
    return f"exit {code}{_CODES.get(code or 0, '')}"


def how(result: GateResult) -> str:
    """How the gate ended, at which attempt, of how many tests."""
    limit = ""
    if result.attempts:
        limit = result.attempts[-1].get("limit")
    raw = {"timed_out": result.timed_out, "signal": result.signal, "exit_code": result.exit_code, "limit": limit}
    told = ended_as(raw)
    if len(result.attempts) > 1:
        before = ", ".join(ended_as(one) for one in result.attempts[:-1])
        told += f" at attempt {len(result.attempts)}, after {before}"
    if result.tests.get("total"):
        told += f", {result.tests['failed']} of {result.tests['total']} tests failed"
    if result.flaky:
        told += f", flaky: {', '.join(result.flaky_tests[:3]) or 'it'} has passed and failed on this very tree"
    return told


def say(result: GateResult) -> str:
    """One line for a person: how the gate ended, and where it first failed."""
    first = next(iter(result.failures), None)
    if first:
        return f"{how(result)}, first at {first['file']}:{first['line']} {first['text']}".rstrip()
    return how(result)


def telling(result: GateResult) -> str:
    """The one line that says why it did not pass (see `refinery.core.telling`), also of older results."""
    return result.telling or ("" if result.outcome == GateOutcome.PASS else f"{result.gate}: {say(result)}"[:200])


def view(g: GateResult, fails: int = 0) -> GateView:
    """A result as the rules see it. `fails`: how often the gate has failed on this tree."""
    alone = g.candidate.on_id is None and not g.candidate.seal_sha
    return GateView(
        gate=g.gate,
        command=g.command,
        tree=g.tree_sha,
        outcome=g.outcome,
        detail=how(g),
        id=g.pk,
        flaky=g.flaky,
        head=g.candidate.head_sha,
        alone=alone,
        fails=fails,
        remedy=g.remedy,
        telling=telling(g),
        run=g.run_id,
        exit=-g.signal if g.signal else g.exit_code,
        files=frozenset(str(place["file"]) for place in g.failures),
    )
