"""What a run is to do and what its agent is told: rows → order and brief. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agents.lifecycle import RunResult
from agents.models import Run
from beads import config as configs
from beads import inbox
from beads.errors import LostRace
from beads.lifecycle import Purpose
from beads.models import Bead, Convoy, Rig
from beads.prepared import Prepared
from refinery.core.rules.mayor import PLAN
from refinery.core.states import EntryKind, Judgement
from refinery.core.telling import led_by
from refinery.models import Candidate, ReviewEntry
from refinery.store.gates import steps_for
from refinery.store.results import gate_results
from refinery.tick import planning, words


@dataclass(frozen=True)
class Order:
    """A run to be queued. `words`: what people said that its brief gives to its agent; `account`: whose money it is."""

    rig: Rig
    target: str
    lane_convoy: Convoy | None
    steps: list[dict[str, Any]]
    brief: dict[str, Any]
    author: str
    lease: dict[str, int]
    prefix: str
    words: words.Words
    account: Bead


def lane_convoy(entry: ReviewEntry) -> Convoy | None:
    """The convoy whose own refinery serves the entry's lane; None for the rig refinery."""
    if entry.kind != EntryKind.CHANGE or entry.convoy is None:
        return None
    if not _is_branch_of(entry.convoy, entry.rig_id, entry.target):
        return None
    return entry.convoy


def _is_branch_of(convoy: Convoy, rig: int, name: str) -> bool:
    return convoy.branches.filter(rig=rig, name=name).exists()


REFINERY = frozenset({"review", "resolve", "triage"})  # what runs of a refinery are for
_ENTRY = Prepared(lambda pk: ReviewEntry.objects.select_related("bead", "source", "convoy__bead", "rig").filter(pk=pk))
_BUILT = Prepared(lambda entry, build_no: Candidate.objects.filter(entry=entry, build_no=build_no))


def order(bead: Bead, purpose: str, start_sha: str) -> Order:
    """The run for `bead`: a polecat's for issue beads, gates or a review for a merge request.

    Raises LostRace when the config lost the command meanwhile.
    """
    assert bead.rig is not None
    rig = bead.rig
    config = configs.effective(bead.town.config, rig.config)
    lease = {
        "start_seconds": int(config.dispatch.start_deadline.total_seconds()),
        "lease_seconds": int(config.dispatch.lease.total_seconds()),
        "heartbeat_seconds": max(int(config.dispatch.heartbeat.total_seconds()), 1),
    }
    entry = _entry_of(bead)
    target, author, lane, convoy = "", "", None, bead.convoy
    if entry is None:
        target = _target(bead)
    else:
        target, author, lane, convoy = entry.target, entry.author, lane_convoy(entry), convoy or entry.convoy
    brief: dict[str, Any] = {
        "kind": purpose,
        "title": bead.title,
        "body": bead.body,
        "gates": [
            {"name": g.name, "run": g.command, "timeout": g.timeout.total_seconds()} for g in config.refinery.gates
        ],
    }
    if convoy is not None:
        feature = _is_branch_of(convoy, rig.pk, target)
        brief["convoy"] = {"id": convoy.pk, "title": convoy.bead.title, "intermediate": feature}
    if purpose in ("gates", "check"):
        steps = _gate_steps(config.refinery, entry, purpose)
        if not steps:
            raise LostRace("no gate is to be run any more")
        brief["parallel"] = config.refinery.parallel_gates
        if purpose == "check":
            brief["every"] = True
    else:
        command = _agent_for(config.agents, purpose)
        if command is None:
            raise LostRace(f"no command is configured for {purpose} any more")
        steps = [_agent_step(command, purpose, bead.priority, _account(bead, entry))]
        brief["instructions"] = command.instructions
    if entry is not None:
        brief |= _review_context(entry, bead, purpose)
    told = words.Words()
    if purpose != "gates":
        about, told = _words(bead, entry, purpose)
        brief |= about | {"start": start_sha}
    brief |= _history(bead, purpose)
    return Order(rig, target, lane, steps, brief, author, lease, config.git.branch_prefix, told, _account(bead, entry))


def _gate_steps(config: configs.RefineryConfig, entry: ReviewEntry | None, purpose: str) -> list[dict[str, Any]]:
    """The gates that a run is for, but for those that the entry's build touches nothing of."""
    gates = config.landing_gates
    if purpose == "check":
        gates = config.gates
    elif entry is not None and entry.admitted_at is None:
        gates = config.entry_gates
    if entry is None or (built := _built(entry)) is None:
        return steps_for(gates, ())
    return steps_for(gates, built.untouched)


def _account(bead: Bead, entry: ReviewEntry | None) -> Bead:
    """The bead whose change a run is for, be it a review, rework or conflict; of a convoy's landing, the convoy."""
    if entry is None:
        return bead
    if entry.source is not None:
        return entry.source
    if entry.convoy is not None:
        return entry.convoy.bead
    return entry.bead


def _agent_for(agents: configs.AgentsConfig, purpose: str) -> configs.AgentCommand | None:
    """Whose work a run is."""
    if purpose == PLAN:
        return agents.mayor
    if purpose in REFINERY:
        return agents.refinery
    return agents.polecat


def _agent_step(agent: configs.AgentCommand, purpose: str, priority: int, work: Bead) -> dict[str, Any]:
    """The step that is an agent: its command, or its preset and model; how that is started is settled where it runs.

    `work`: the bead that it is for. Its own model is for who works on it: a refinery is another program, and judges by
    its own.
    """
    if agent.preset is None:
        return {"name": "agent", "argv": list(agent.command)}
    own = ""
    if purpose not in REFINERY:
        own = work.model
    return {"name": "agent", "preset": str(agent.preset), "model": agent.model_for(purpose, priority, own)}


def _words(bead: Bead, entry: ReviewEntry | None, purpose: str) -> tuple[dict[str, Any], words.Words]:
    """What an agent is told of what was said and tried, and which of it are people's words that it is given."""
    found = words.family(bead, entry)
    told: dict[str, Any] = {"beads": list(found.ids), "rounds": words.rounds(found, bead.pk)}
    told["questions"] = words.questions(found.ids if purpose not in REFINERY else [bead.pk])
    if purpose in REFINERY and entry is not None:
        return told | {"asked": words.for_review(found, entry)}, words.Words()
    told["attempts"] = words.attempts(bead, purpose)
    if purpose == PLAN:
        told["request"] = planning.brief(bead)
    people = words.of_people(found.entries, bead.pk, entry)
    if purpose == Purpose.REWORK:
        told["rework"] = words.rework(bead, people)
    else:
        told["asked"] = list(people.said)
    return told, people


def _entry_of(bead: Bead) -> ReviewEntry | None:
    """The entry that a merge-request bead is, or that a rework or conflict bead unblocks."""
    key = bead.parent_id
    if bead.type == "merge_request":
        key = bead.pk
    if key is None:
        return None
    return next(iter(_ENTRY(key)), None)


def _built(entry: ReviewEntry) -> Candidate | None:
    """What the entry's latest build gave."""
    return next(iter(_BUILT(entry.pk, entry.build_no)), None)


def _change(candidate: Candidate) -> str:
    """By what it is known that all has landed that a candidate brings to the target: its head, or, where it brings
    others' changes, too, exactly this commit."""
    if candidate.on_id is not None or candidate.seal_sha:
        return candidate.sha
    return candidate.head_sha


def _target(bead: Bead) -> str:
    assert bead.rig is not None
    if bead.convoy is not None:
        branch = bead.convoy.branches.filter(rig=bead.rig).first()
        if branch is not None:
            return branch.name
    return bead.rig.default_branch


def _review_context(entry: ReviewEntry, bead: Bead, purpose: str) -> dict[str, Any]:
    candidate = _built(entry)
    context: dict[str, Any] = {
        "fetch_branch": entry.branch,
        "entry": {"id": entry.pk, "branch": entry.branch, "head": entry.head_sha, "target": entry.target},
    }
    if bead.purpose != Purpose.WORK:
        context |= bead.context
    if candidate is not None:
        if purpose == "resolve":
            context["conflict"] = {
                "base_sha": candidate.base_sha,
                "target": entry.target,
                "files": candidate.files,
            }
        else:
            context["candidate"] = {
                "sha": candidate.sha,
                "base": candidate.base_sha,
                "tree": candidate.tree_sha,
                "head": candidate.head_sha,
                "change": _change(candidate),
                "source_title": entry.bead.title,
            }
            context["gate_results"] = gate_results(entry, candidate)
    work = entry.source or entry.bead
    if entry.source is None and entry.kind == EntryKind.LANDING and entry.convoy is not None:
        work = entry.convoy.bead
    return context | {"title": work.title, "body": work.body}


def _history(bead: Bead, purpose: str) -> dict[str, Any]:
    before = Run.objects.filter(bead=bead, purpose=purpose)
    last = before.order_by("-created_at").first()
    told: dict[str, Any] = {"attempt": before.count() + 1}
    if last is not None:
        told["previous"] = {"run": last.pk, "reason": last.reason}
        told["checkpoint"] = last.checkpoint
    at_work = before.filter(claimed_at__isnull=False).order_by("-created_at").first()
    if at_work is not None and at_work.salvage_ref.startswith("refs/"):
        told["saved"] = at_work.salvage_ref
    return told


def rework(entry: ReviewEntry, cause: str, number: int) -> tuple[str, dict[str, Any]]:
    """The text of a rework request and the context of its bead: who asks for what, file, line, what to do."""
    candidate = _built(entry)
    context: dict[str, Any] = {"branch": entry.branch}
    people = words.of_people(words.family(entry.bead, entry).entries, "", entry)
    said = list(people.said)
    if cause == "gates" and candidate is not None:
        failed = [r for r in gate_results(entry, candidate) if r["outcome"] == "fail"]
        said += [*_triage(entry, candidate), *(_red(result) for result in failed)]
        context["gate_results"] = failed
    else:
        said += _reviewers(entry)
    told = {"cause": cause, "round": number, "head": entry.head_sha, "said": said, **words.merged(said)}
    lines = [f"{entry.bead.title}: branch {entry.branch} at {entry.head_sha[:12]} for {entry.target}."]
    for one in said:
        lines.append(f"\n{one['by']} asks for changes:\n{one['feedback']}".rstrip())
        lines += [f"- {_item(item)}" for item in one["items"]]
    lines += [f"\nGate {r['gate']!r} has printed:\n{r['output'][-2000:]}" for r in context.get("gate_results", ())]
    return "\n".join(lines), context | {"rework": told}


def _item(item: dict[str, Any]) -> str:
    place = f"{item.get('file', '')}{led_by(':', str(item.get('line') or ''))}"
    hint = led_by(" Suggestion: ", str(item.get("suggestion") or ""))
    return f"{place}: {item.get('problem', '')}{hint}"


def _red(result: dict[str, Any]) -> dict[str, Any]:
    """What a failed gate asks for."""
    items = [
        {"file": f["file"], "line": f["line"], "problem": f["text"] or "gate failed here"} for f in result["failures"]
    ]
    feedback = f"Gate {result['gate']!r} failed: {result['say']}"
    return {"by": f"gate {result['gate']!r}", "person": False, "feedback": feedback, "items": items}


def _triage(entry: ReviewEntry, candidate: Candidate) -> list[dict[str, Any]]:
    """What the refinery has found out about the red gates of this candidate, if it has said so."""
    looks = Run.objects.select_related("agent").filter(
        bead=entry.bead_id, purpose="triage", start_sha=candidate.sha, result=RunResult.REQUEST_CHANGES
    )
    run = looks.order_by("created_at").last()
    if run is None:
        return []
    items = (inbox.payload_of(f"result:{run.pk}") or {}).get("items") or []
    return [_said(run.agent_name or run.pk, run.summary, items)]


def _reviewers(entry: ReviewEntry) -> list[dict[str, Any]]:
    """What the refinery's newest verdict on this head asks for, unless its author has answered it."""
    verdict = entry.verdicts.filter(head_sha=entry.head_sha, run__isnull=False).last()
    if verdict is None or verdict.decision != Judgement.REQUEST_CHANGES or verdict.pk <= (entry.answered_to_id or 0):
        return []
    return [_said(verdict.by, verdict.feedback, verdict.items)]


def _said(by: str, feedback: str, items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"by": by, "person": False, "feedback": feedback, "items": items}
