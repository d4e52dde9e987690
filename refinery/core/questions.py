"""What agents ask of people about their work, and what waits for the answer. Pure; part of `refinery.core.world`.

An agent that asks may go on meanwhile, and hear the answer in the same run. One that ends instead, without a result,
has used up no attempt: its work waits, without a process and without a slot, and the answer starts the next run.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from agents.lifecycle import RunOutcome
from refinery.core.beadviews import RunView

ASKS = "asks"  # the rule of what waits for an answer
_MAY_ASK = frozenset({"work", "rework", "conflict", "review"})


@dataclass(frozen=True, slots=True)
class AskedView:
    """What was asked about one bead. `open`: the oldest question that nobody has dealt with; `latest`: when the last
    one was asked, dealt with or not."""

    open: str
    latest: dt.datetime


def ended_asking(run: RunView, asked: AskedView | None) -> str:
    """Why a run that has ended without a result is no failed attempt: it has asked, or waits for what was asked before.
    Empty where it is one."""
    if asked is None or run.purpose not in _MAY_ASK or run.stop_requested or run.exit_error:
        return ""
    if asked.open:
        return f"it has asked a person, and waits for the answer: {asked.open}"
    if asked.latest >= run.created_at:
        return "it has asked a person, who has answered"
    return ""


def waits_for_answer(asked: AskedView | None, runs: Sequence[RunView]) -> str:
    """The question for whose answer a piece of work waits, which has these runs; empty where it waits for none: nothing
    is asked, its last run was lost by the host's fault and goes on, or a person has said since that it is to go on."""
    ended = [run for run in runs if not run.live]
    if asked is None or not ended or ended[-1].forgotten:
        return ""
    if ended[-1].outcome not in (RunOutcome.STOPPED, RunOutcome.FAILED):
        return ""
    return asked.open
