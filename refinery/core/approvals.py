"""Who has approved a change, who objects, and how many must approve: of people, and of exactly this head. Pure."""

from __future__ import annotations

from beads.config import Config, MergeStrategy
from refinery.core.entryviews import HOST, PERSON_THERE, EntryView, VerdictView, person
from refinery.core.order import is_feature_lane
from refinery.core.states import Judgement

_SIGNED_IN = ("web", "admin", HOST, PERSON_THERE)


def is_own(author: str, by: str) -> bool:
    """True when `by`, signed in, is the person who made the change. A shell's user names prove nothing about who wrote
    what: an approval on the command line is an operator's, and is recorded as one."""
    return ":" in author and by.partition(":")[0] in _SIGNED_IN and person(author) == person(by)


def approvals(entry: EntryView) -> tuple[VerdictView, ...]:
    """The approvals that count: of distinct people, on exactly this head, and none by its author."""
    return tuple(v for v in entry.people if v.decision == Judgement.APPROVE and not is_own(entry.author, v.by))


def objection(entry: EntryView) -> VerdictView | None:
    """A person's standing wish for changes to this head, or to an earlier one as long as no agent was given it: until
    that person approves it, or somebody merges over it."""
    if not entry.verdicts:
        return None
    merged_over = max((v.id for v in approvals(entry) if v.merge_now), default=0)
    over = {person(v.by): v.id for v in entry.verdicts if v.human and v.decision != Judgement.REQUEST_CHANGES}
    standing_ones = [v for v in entry.people if v.decision == Judgement.REQUEST_CHANGES]
    standing_ones += [v for v in entry.verdicts if v.pending and over.get(person(v.by), 0) < v.id]
    return max((v for v in standing_ones if v.id > merged_over), key=lambda v: v.id, default=None)


def approvals_needed(entry: EntryView, config: Config) -> int:
    """How many people must approve this head before it may land; 0 when none has to."""
    if is_feature_lane(entry):
        return 0
    if config.refinery.merge_strategy == MergeStrategy.PR:
        return config.pr.required_approvals
    return int(not config.refinery.auto_merge)
