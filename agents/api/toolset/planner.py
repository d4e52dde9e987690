"""What the mayor says to the person who asked: a question (`gt_ask`), or an answer in words.

Each is also the result of the run: the mayor exits, and is started again when its question is answered. So the request
waits without a run, for however long people take.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from agents import filing, runs
from agents.api.tools import Args, Call, tool
from agents.api.toolset.shared import MAYOR, sender
from agents.lifecycle import RunKind
from agents.models import Run
from beads import inbox
from beads.errors import Conflict, Invalid
from beads.lifecycle import BeadType


class WordsArgs(Args):
    """gt_mayor_answer"""

    text: Annotated[str, Field(min_length=1, max_length=filing.MAX_ESCALATION)]


def is_asked(run: Run) -> bool:
    """True for a run of the mayor that works on what a person has asked."""
    return run.kind == RunKind.MAYOR and run.bead.type == BeadType.MESSAGE


def ask(call: Call, text: str) -> dict[str, Any]:
    """What `gt_ask` is for such a run: its one question, answered as that tool answers. Conflict when it has asked
    something else before."""
    _say(call, "mayor.asked", text, "this run has asked before: exit, and you are started again with the answer")
    return {"id": call.run.bead_id, "state": "open", "answer": "", "by": ""}


@tool("gt_mayor_answer", MAYOR, WordsArgs)
def answer(call: Call, args: WordsArgs) -> dict[str, Any]:
    """Answer in words what you were asked (at most 16 KiB), where no work is wanted. Then exit."""
    return _say(call, "mayor.replied", args.text, "this run has answered before: exit")


def _say(call: Call, kind: str, text: str, twice: str) -> dict[str, Any]:
    """Record the words, once, and that the run has done its part."""
    run = call.run
    if not is_asked(run):
        raise Conflict(f"nobody has asked for {run.bead_id}: it is a {run.bead.type}")
    if not text.strip():
        raise Invalid("text is empty", field="text")
    key = f"{kind}:{run.pk}"
    by = sender(call)
    if not inbox.record(run.town, kind, run.pk, {"text": text.strip()}, actor=by, dedupe_key=key):
        if (inbox.payload_of(key) or {}).get("text") != text.strip():
            raise Conflict(twice)
        return {"repeat": True}
    inbox.record(run.town, "run.done", run.pk, {"summary": text.strip()}, actor=by, dedupe_key=f"result:{run.pk}")
    runs.poke(run.pk)
    return {"repeat": False}
