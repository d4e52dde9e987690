"""The mayor's own tools for talking with the person who asked: a question, an answer in words.

Each is also the result of the run: the mayor exits, and is started again when there is an answer. The seam to a general
`gt_ask`: for a run of the mayor that is `ask` here, for its question belongs to the request, and waits without a run.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from agents import filing, runs
from agents.api.tools import Args, Call, tool
from agents.lifecycle import Role
from beads import inbox
from beads.errors import Conflict, Invalid
from beads.lifecycle import BeadType

MAYOR = frozenset({Role.MAYOR})


class WordsArgs(Args):
    """gt_mayor_ask and gt_mayor_answer"""

    text: Annotated[str, Field(min_length=1, max_length=filing.MAX_ESCALATION)]


@tool("gt_mayor_ask", MAYOR, WordsArgs)
def ask_tool(call: Call, args: WordsArgs) -> dict[str, Any]:
    """Ask the person who asked you, once in a run (at most 16 KiB). Then exit: you are started again with what they
    answer."""
    return ask(call, args.text)


def ask(call: Call, text: str) -> dict[str, Any]:
    """The question of a run of the mayor. Raises Conflict when it has asked something else before."""
    return _say(call, "mayor.asked", text, "this run has asked before: exit, and you are given the answer")


@tool("gt_mayor_answer", MAYOR, WordsArgs)
def answer(call: Call, args: WordsArgs) -> dict[str, Any]:
    """Answer in words what you were asked (at most 16 KiB), where no work is wanted. Then exit."""
    return _say(call, "mayor.replied", args.text, "this run has answered before: exit")


def _say(call: Call, kind: str, text: str, twice: str) -> dict[str, Any]:
    """Record the words, once, and that the run has done its part."""
    run = call.run
    if run.bead.type != BeadType.MESSAGE:
        raise Conflict(f"nobody has asked for {run.bead_id}: it is a {run.bead.type}")
    if not text.strip():
        raise Invalid("text is empty", field="text")
    key = f"{kind}:{run.pk}"
    by = run.agent.name if run.agent else run.pk
    if not inbox.record(run.town, kind, run.pk, {"text": text.strip()}, actor=by, dedupe_key=key):
        if (inbox.payload_of(key) or {}).get("text") != text.strip():
            raise Conflict(twice)
        return {"repeat": True}
    inbox.record(run.town, "run.done", run.pk, {"summary": text.strip()}, actor=by, dedupe_key=f"result:{run.pk}")
    runs.poke(run.pk)
    return {"repeat": False}
