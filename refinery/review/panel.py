"""The review page's panel: what was said of a head, what follows, and which acts are still of use to this person.

What somebody has just said counts at once: the facts that the next tick takes in are read before the world, so that
nobody is offered what they have done, and nothing is both said and not said.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from beads import inbox
from beads.config import MergeStrategy
from beads.models import Fact
from refinery.core import approvals, standing
from refinery.core.entryviews import EntryView, VerdictView, person
from refinery.core.stages import Stage
from refinery.core.states import EntryKind, EntryState
from refinery.core.world import RigView
from refinery.models import ReviewEntry
from refinery.pages import boards

_SAID = ("entry.verdict", "entry.reject", "entry.retry")
_WAITS_FOR_GATES = frozenset(
    {
        *(Stage.UNPROVEN, Stage.UNBUILT, Stage.BUILDING, Stage.COUPLING, Stage.STALE, Stage.UNSETTLED),
        *(Stage.NEEDS_GATES, Stage.GATING, Stage.BATCHED, Stage.TARGET_MOVED),
    }
)
_WAITS_FOR_REVIEW = frozenset({Stage.NEEDS_REVIEW, Stage.REVIEWING, Stage.NO_REVIEWER})


@dataclass(frozen=True, slots=True)
class Word:
    """Something that a person said: `You approved this head`."""

    who: str
    text: str
    at: dt.datetime | str


@dataclass(frozen=True, slots=True)
class Panel:
    """`words`: who said what; `follows`: what comes of it; `offers`: the acts that are of use now."""

    words: tuple[Word, ...]
    follows: str
    offers: frozenset[str]
    needed: int = 0
    given: tuple[VerdictView, ...] = ()
    objection: VerdictView | None = None
    own: bool = False
    approved_by_me: bool = False


def unheard(entry: ReviewEntry) -> list[Fact]:
    """What people have said about an entry and no tick has taken in yet, oldest first. Read it before the world."""
    return list(inbox.waiting(entry.rig.town_id).filter(subject=entry.pk, kind__in=_SAID).order_by("id"))


def of(
    board: boards.Board, entry: ReviewEntry, data: dict[str, Any], who: str, facts: Sequence[Fact], *, steers: bool
) -> Panel:
    """The panel of one person. `data`: of `boards.entry_detail`; `facts`: see `unheard`; `steers`: may land it now."""
    if entry.kind == EntryKind.CHECK:
        return _of_check(entry, data, who, facts)
    view = board.world.entry.get(entry.pk)
    if view is None or entry.state != EntryState.ACTIVE:
        return _ended(entry, data, who, facts)
    fresh = _verdicts(view, facts)
    view = replace(view, verdicts=(*view.verdicts, *fresh))
    rig = board.world.rigs[view.rig]
    words = [*_of_verdicts(view, who), *_of_others(data, facts, who)]
    wishes = {f.kind.partition(".")[2] for f in facts}
    offers = _offers(view, rig, who, wishes, fresh)
    if steers and "reject" in offers and not data["land_now"]:
        offers |= {"land_now"}
    given = approvals.approvals(view)
    return Panel(
        tuple(words),
        _follows(view, rig, wishes, board),
        frozenset(offers),
        approvals.approvals_needed(view, rig.config),
        given,
        approvals.objection(view),
        approvals.is_own(entry.author, who),
        any(person(v.by) == person(who) for v in given),
    )


def _of_check(entry: ReviewEntry, data: dict[str, Any], who: str, facts: Sequence[Fact]) -> Panel:
    """Of a check of the target itself: nobody's change, so there is nothing to approve."""
    again = entry.state == EntryState.ACTIVE and bool(entry.held) and not facts
    told = f"A check of {entry.target} itself: what fails here is nobody's change."
    told += " Whoever fails in the same way waits for it; what passes lands."
    offered: frozenset[str] = frozenset()
    if again:
        offered = frozenset({"retry"})
    return Panel(tuple(_of_others(data, facts, who)), told, offered)


def _verdicts(view: EntryView, facts: Sequence[Fact]) -> list[VerdictView]:
    """What was said of this head and is not taken in yet, as if it were."""
    last = max((v.id for v in view.verdicts), default=0)
    return [
        VerdictView(
            last + number,
            str(fact.payload.get("decision")),
            view.head,
            fact.actor,
            True,
            fact.recorded_at,
            bool(fact.payload.get("merge_now")),
        )
        for number, fact in enumerate(facts, 1)
        if fact.kind == "entry.verdict" and fact.payload.get("head") == view.head
    ]


def _name(by: str, who: str) -> str:
    if person(by) == person(who):
        return "You"
    return by


_DECISIONS = {
    "approve": "approved this head",
    "request_changes": "asked for changes to this head",
    "withdraw": "took back what they had said of this head",
}


def _of_verdicts(view: EntryView, who: str) -> list[Word]:
    """Each person's newest word on this head, one's own first."""
    said = sorted(view.people, key=lambda v: (person(v.by) != person(who), v.id))
    return [Word(_name(v.by, who), _DECISIONS[v.decision], v.created_at) for v in said if v.decision in _DECISIONS]


def _of_others(data: dict[str, Any], facts: Sequence[Fact], who: str) -> list[Word]:
    """Rejections and retries: those that wait to be taken in, and the retry since which nothing has held it."""
    texts = {"entry.reject": "rejected it", "entry.retry": "asked to try again"}
    waiting = {f.kind: f for f in facts if f.kind in texts}
    words = [Word(_name(f.actor, who), texts[kind], f.recorded_at) for kind, f in waiting.items()]
    last = next((e for e in reversed(data["history"]) if e["kind"] in ("retried", "held", "new_head")), None)
    if last is not None and last["kind"] == "retried" and not waiting:
        words.append(Word(_name(last["actor"], who), "asked to try again", last["at"]))
    return words


def _offers(view: EntryView, rig: RigView, who: str, wishes: set[str], fresh: Sequence[VerdictView]) -> set[str]:
    """The acts that would still change something. `fresh`: verdicts that no tick has taken in yet."""
    pushing = view.landing is not None and view.landing.begun
    if pushing or view.reject_requested or "reject" in wishes:
        return set()
    offers = {"request_changes", "reject"}
    given, against = approvals.approvals(view), approvals.objection(view)
    if view.held and "retry" not in wishes and not fresh:
        offers.add("retry")
    mine = any(person(v.by) == person(who) for v in given)
    reworked = bool(view.waiting_for) or against in fresh
    if approvals.is_own(view.author, who) or reworked:
        return offers
    enough = len(given) >= max(approvals.approvals_needed(view, rig.config), 1) and against is None
    if not mine and not (enough and not view.held):
        offers.add("approve")
    by_hand = rig.config.refinery.merge_strategy == MergeStrategy.PR and not any(v.merge_now for v in given)
    if "approve" in offers or by_hand or against is not None:
        offers.add("merge")
    return offers


def _follows(view: EntryView, rig: RigView, wishes: set[str], board: boards.Board) -> str:
    """What comes next, in one sentence: the plan's, where nothing else is known."""
    if view.reject_requested or "reject" in wishes:
        return "It leaves the queue."
    if view.waiting_for:
        names = ", ".join(b.id for b in view.waiting_for)
        return f"{names} is under way for it: what comes of that is a new head, which comes back here."
    if approvals.objection(view) is not None:
        return "It goes back to its author, and comes back here with a new head."
    if view.held and not wishes & {"retry", "verdict"}:
        return "It is held until somebody lets it go on."
    missing = approvals.approvals_needed(view, rig.config) - len(approvals.approvals(view))
    if missing == 1:
        return "1 more approval is needed."
    if missing > 1:
        return f"{missing} more approvals are needed."
    return _lands(view, rig, wishes, board)


def _lands(view: EntryView, rig: RigView, wishes: set[str], board: boards.Board) -> str:
    """What an entry that nobody is asked about has still before it."""
    world = board.world
    stands = standing.standing(view, rig, world.now)  # not the world's own: what is not taken in yet is in this view
    decision = board.decided[f"entry {view.id}"]
    stage = Stage.UNBUILT if view.held else stands.stage
    if stage != Stage.LANDING and (frozen := world.frozen(view.rig, view.target)):
        return f"It lands once that is over: {frozen}."
    if stage != Stage.LANDING and world.paused:
        return "It lands once the town goes on."
    if stage != Stage.LANDING and rig.parked:
        return "It lands once the rig goes on."
    if stage in _WAITS_FOR_GATES:
        if rig.config.refinery.gates and not view.ties.waived:
            return "It lands once its gates have passed."
        return "It lands when its turn comes."
    if stage in _WAITS_FOR_REVIEW:
        return "It lands once it is reviewed and its gates have passed."
    if stage == Stage.GREEN and (wishes or decision.rule == "land"):
        return "It lands next."
    if stage == Stage.LANDING:
        return "It is being pushed: git decides."
    why = decision.why
    if wishes:
        why = stands.why
    return f"{why[:1].upper()}{why[1:]}."


def _ended(entry: ReviewEntry, data: dict[str, Any], who: str, facts: Sequence[Fact]) -> Panel:
    """Of an entry that has left the queue: how, and who let it."""
    words = tuple(_of_others({"history": []}, facts, who))
    if entry.state != EntryState.MERGED:
        waits = any(f.kind == "entry.retry" for f in facts)
        back = str(data["again"]).startswith("mq retry") and not waits
        follows = "It comes back into the queue."
        if not waits:
            follows = f"It has left the queue: {entry.reason.replace('_', ' ')}."
        return Panel(words, follows, frozenset({"retry"} if back else ()))
    newest = {person(v["by"]): v for v in data["verdicts"] if v["head"] == entry.head_sha and v["human"]}
    people = [_name(v["by"], who) for v in newest.values() if v["decision"] == "approve"]
    agents = [v["by"] for v in data["verdicts"] if v["head"] == entry.head_sha and not v["human"]]
    names = ["you" if name == "You" else name for name in people] or agents[-1:]
    by = "approved by nobody, for none had to"
    if names:
        by = f"approved by {', '.join(names)}"
    at = ""
    if entry.merge_sha:
        at = f" as {entry.merge_sha[:12]}"
    return Panel(words, f"It has landed on {entry.target}{at}; {by}.", frozenset())
