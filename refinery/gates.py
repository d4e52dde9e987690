"""The only writer of gate results, and the rule that tells *fail* from *error*.

Exit 0 passes. 126, 127, a signal, a time-out or a step that never ran to its end is an *error* of the gate or its
host: never merged past, never blamed on the author. Anything else is a *fail*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agents.models import Run
from beads.config import Gate
from refinery.models import Candidate, GateResult
from refinery.outputs import first_failures


def classify(exit_code: int | None, signal: int | None, timed_out: bool) -> str:
    """`pass`, `fail` or `error` (source: the contract, section Config)."""
    if timed_out or signal or exit_code is None or exit_code in (126, 127):
        return "error"
    return "pass" if exit_code == 0 else "fail"


def steps_for(gates: tuple[Gate, ...], untouched: Sequence[Sequence[str]] = ()) -> list[dict[str, Any]]:
    """The run's steps that execute these gates, in order, but for those whose paths are known to be untouched."""
    return [
        {
            "name": gate.name,
            "run": gate.run,
            "timeout": gate.timeout.total_seconds(),
            "retries": gate.retries,
            "network": gate.network,
            "env": gate.env,
            "command": gate.command,
        }
        for gate in gates
        if not gate.paths or list(gate.paths) not in untouched
    ]


def record(run: Run, candidate: Candidate) -> int:
    """Observation: write the results of a gates run for its candidate's tree; returns how many."""
    commands = {step["name"]: step.get("command") or step.get("run", "") for step in run.steps}
    results = [_result(run, candidate, step, commands) for step in run.step_results]
    GateResult.objects.bulk_create(results, ignore_conflicts=True)
    return len(results)


def _result(run: Run, candidate: Candidate, step: Mapping[str, Any], commands: Mapping[str, str]) -> GateResult:
    raw = step.get("outcome_raw") or {}
    exit_code, signal = raw.get("exit_code"), raw.get("signal")
    timed_out = bool(raw.get("timed_out"))
    output = str(step.get("output") or "")
    outcome = classify(exit_code, signal, timed_out)
    return GateResult(
        entry_id=candidate.entry_id,
        candidate=candidate,
        run=run,
        tree_sha=candidate.tree_sha,
        gate=str(step.get("name"))[:200],
        command=commands.get(str(step.get("name")), ""),
        outcome=outcome,
        exit_code=exit_code,
        signal=signal,
        timed_out=timed_out,
        duration_ms=int(step.get("duration_ms") or 0),
        output=output[-16384:],
        failures=first_failures(output) if outcome == "fail" else [],
        sandbox=run.sandbox,
    )


def say(result: GateResult) -> str:
    """One line for a person: how the gate ended, and where it first failed."""
    if result.timed_out:
        how = "timed out"
    elif result.signal:
        how = f"killed by signal {result.signal}"
    else:
        how = f"exit {result.exit_code}"
        if result.exit_code == 127:
            how += " (command not found)"
        elif result.exit_code == 126:
            how += " (command cannot be executed)"
    if result.failures:
        first = result.failures[0]
        how += f", first at {first['file']}:{first['line']} {first['text']}".rstrip()
    return how
