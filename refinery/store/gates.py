"""The only writer of gate results, and the rule that tells *fail* from *error*.

Exit 0 passes. 126, 127, a signal, a time-out, a limit that was reached or a step that never ran to its end is an
*error* of the gate or its host: never merged past, never blamed on the author. Anything else is a *fail*, unless it is
certain that something around the gate was missing (`refinery.core.remedies`), or likely, on the target's own head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agents.models import Run
from agents.runtime.sandbox import BUBBLEWRAP
from beads import ledger, prune
from beads.config import Gate
from refinery.core import remedies
from refinery.core.outputs import MAX_FAILURES, first_failures
from refinery.core.states import EntryKind, GateOutcome
from refinery.core.telling import of_gate
from refinery.models import Candidate, GateResult
from refinery.store import flakiness
from refinery.store.results import ended_as, say


def classify(exit_code: int | None, signal: int | None, timed_out: bool) -> str:
    """`pass`, `fail` or `error` (source: the contract, section Config)."""
    if timed_out or signal or exit_code is None or exit_code in (126, 127):
        return "error"
    if exit_code == 0:
        return "pass"
    return "fail"


def steps_for(gates: tuple[Gate, ...], untouched: Sequence[Sequence[str]] = ()) -> list[dict[str, Any]]:
    """The run's steps that execute these gates, in order, but for those whose paths are known to be untouched."""
    return [
        {
            "name": gate.name,
            "run": gate.run,
            "timeout": gate.timeout.total_seconds(),
            "retries": gate.retries,
            "network": list(gate.network),
            "nested": gate.nested,
            "memory": gate.memory,
            "processes": gate.processes,
            "disk": gate.disk,
            "tmp": gate.tmp,
            "env": gate.env,
            "secrets": list(gate.secrets),
            "command": gate.command,
            "junit": gate.junit,
            "cache": gate.cache,
            "cache_key": gate.cache_key,
        }
        for gate in gates
        if not gate.paths or list(gate.paths) not in untouched
    ]


def record(run: Run, candidate: Candidate) -> int:
    """Observation: write the results of a gates run for its candidate's tree; returns how many.

    A gate that has passed and failed on this tree, in this run or another, is marked, and the entry's history says so.
    """
    steps = {step["name"]: step for step in run.steps}
    known = set(GateResult.objects.filter(run=run).values_list("gate", flat=True))
    results = [_result(run, candidate, step, steps.get(step.get("name"), {})) for step in run.step_results]
    results = [result for result in results if result.gate not in known]
    same = GateResult.objects.filter(entry__rig=candidate.entry.rig_id, tree_sha=candidate.tree_sha)
    earlier = list(same.exclude(run=run).exclude(outcome=GateOutcome.ERROR).only("gate", "command", "outcome", "tests"))
    for result in results:
        _judge(result, [e for e in earlier if (e.gate, e.command) == (result.gate, result.command)])
        if result.flaky:
            told = {"gate": result.gate, "run": run.pk, "tests": result.flaky_tests}
            ledger.note(candidate.entry.bead, "flaky_gate", "gastown", f"{result.gate}: {say(result)}"[:2000], **told)
    GateResult.objects.bulk_create(results, ignore_conflicts=True)
    return len(results)


def _judge(result: GateResult, earlier: Sequence[GateResult]) -> None:
    """Mark a result as flaky by its own attempts and by what is known of the same tree."""
    attempts = result.attempts
    outcomes = [result.outcome, *(a["outcome"] for a in attempts), *(e.outcome for e in earlier)]
    reported = [a["tests"] for a in attempts] or [result.tests]
    result.flaky_tests = flakiness.unsteady([*reported, *(e.tests for e in earlier)])[:50]
    result.flaky = flakiness.mixed(outcomes) or bool(result.flaky_tests)


def _outcome(raw: Mapping[str, Any]) -> str:
    ended = bool(raw.get("timed_out") or raw.get("limit"))
    return classify(raw.get("exit_code"), raw.get("signal"), ended)


def _result(run: Run, candidate: Candidate, step: Mapping[str, Any], ordered: Mapping[str, Any]) -> GateResult:
    """What the shim tells of one step, as `ordered`."""
    raw = step.get("outcome_raw") or {}
    output = str(step.get("output") or "")
    outcome = _outcome(raw)
    attempts = [
        {
            "outcome": _outcome(one.get("outcome_raw") or {}),
            **(one.get("outcome_raw") or {}),
            "duration_ms": one.get("duration_ms", 0),
            "tests": _tests(one.get("tests") or {}),
        }
        for one in step.get("tries") or []
    ]
    tests = {}
    if attempts:
        tests = attempts[-1]["tests"]
    lacks = None if raw.get("limit") or raw.get("timed_out") else _lacks(run, raw, output, ordered, tests)
    if lacks and not lacks.certain and candidate.entry.kind != EntryKind.CHECK:
        lacks = None  # its author's own doing, until the target shows it, too
    if lacks and outcome == GateOutcome.FAIL:
        outcome = "error"
    return GateResult(
        entry_id=candidate.entry_id,
        candidate=candidate,
        run=run,
        tree_sha=candidate.tree_sha,
        gate=str(step.get("name"))[:200],
        command=ordered.get("command") or ordered.get("run", ""),
        outcome=outcome,
        exit_code=raw.get("exit_code"),
        signal=raw.get("signal"),
        timed_out=bool(raw.get("timed_out")),
        duration_ms=int(step.get("duration_ms") or 0),
        output=output[-16384:],
        failures=_places(tests, output) if outcome == GateOutcome.FAIL else [],
        telling=of_gate(str(step.get("name")), outcome, ended_as(raw), tests, output),
        attempts=attempts,
        tests=tests,
        sandbox=run.sandbox,
        remedy=lacks.text[:400] if lacks else "",
    )


def _lacks(
    run: Run, raw: Mapping[str, Any], output: str, ordered: Mapping[str, Any], tests: Mapping[str, Any]
) -> remedies.Remedy | None:
    return remedies.remedy(
        raw.get("exit_code"),
        output,
        network=ordered.get("network"),
        boxed=run.sandbox == BUBBLEWRAP,
        tests_failed=bool(tests.get("failed")),
    )


def _tests(told: Mapping[str, Any]) -> dict[str, Any]:
    """What reports say, with the place of each failed test: where its text points, else where the report has it."""
    failures = []
    for one in told.get("failures") or []:
        text = str(one.get("text") or "")
        found = first_failures(text)
        place = found[-1] if found else {"file": one.get("file") or "", "line": one.get("line")}
        message = str(one.get("message") or "").strip() or text.strip()
        failures.append({"name": one["name"], "message": message[:500], "file": place["file"], "line": place["line"]})
    if told:
        return {**told, "failures": failures}
    return {}


def _places(tests: Mapping[str, Any], output: str) -> list[dict[str, Any]]:
    """The first places that failed: what the output says; what only a report says, after that."""
    places = first_failures(output)
    seen = {(p["file"], p["line"]) for p in places}
    for one in tests.get("failures") or []:
        if one["file"] and one["line"] is not None and (one["file"], one["line"]) not in seen:
            first = (one["message"].splitlines() or [""])[0]
            places.append({"file": one["file"], "line": one["line"], "text": f"{one['name']}: {first}"[:300]})
    return places[:MAX_FAILURES]


def forget(entries: Sequence[str]) -> int:
    """Remove the results of these entries: they have been archived."""
    return prune.delete(GateResult.objects.filter(entry__any=entries))
