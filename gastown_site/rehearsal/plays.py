"""What the model does: a play looks at the conversation so far and says what comes next. Pure.

`work` is a good one, for polecats and refineries alike; the others misbehave as models do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gastown_site.rehearsal.talk import Asked, Tokens, Turn

Play = Callable[[Asked], Turn]

TOOL = (
    'curl -fsS -H "Authorization: Bearer $GASTOWN_TOKEN" -H "Content-Type: application/json" '
    "-d '{data}' \"$GASTOWN_URL/api/tools/{name}\""
)
WRITE = (
    'mkdir -p work && echo "by the model" >> "work/$GASTOWN_BEAD.txt" && git add -A && '
    'git commit -q -m "Work of $GASTOWN_BEAD" && git log --oneline -1'
)
SUBMIT = "COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT"  # how mini-swe-agent ends
FEEDBACK = "The file ends too soon: it needs a second line."


def tool(name: str, data: str) -> str:
    """The command that calls one of Gastown's tools."""
    return TOOL.replace("{data}", data).replace("{name}", name)


def script(asked: Asked, steps: Sequence[str], last: str) -> Turn:
    """The next of these commands, then the last words."""
    done = len(asked.results)
    if not asked.shell:
        return Turn(text="A task")  # a title, a summary
    if done < len(steps):
        return Turn(text=f"Step {done + 1}.", command=steps[done])
    return Turn(text=last, command=f"echo {SUBMIT}" if SUBMIT in asked.prompt else "")


def is_refinery(asked: Asked) -> bool:
    """True when the prompt is a refinery's."""
    return "a refinery" in asked.prompt or "gt_request_changes" in asked.prompt


def work(asked: Asked) -> Turn:
    """Does the work and says so; as a refinery rejects the first time and approves the second."""
    if not is_refinery(asked):
        return script(asked, [WRITE, tool("gt_done", '{"summary": "wrote the file"}')], "The work is done.")
    if "## Earlier rounds" in asked.prompt:
        return script(asked, ["git log --oneline -3", tool("gt_done", '{"summary": "it is right now"}')], "Approved.")
    return script(asked, ["git show --stat", tool("gt_request_changes", f'{{"feedback": "{FEEDBACK}"}}')], "Rejected.")


def approve(asked: Asked) -> Turn:
    """As `work`, and a refinery approves at once."""
    if is_refinery(asked):
        return script(asked, [tool("gt_done", '{"summary": "fine"}')], "Approved.")
    return work(asked)


def hello(asked: Asked) -> Turn:
    """One command, then a word: what `agents check` asks for."""
    return script(asked, ["echo ready"], "ready")


def endless(asked: Asked) -> Turn:
    """Never stops."""
    return script(asked, [f"echo again {len(asked.results)}"] * 100_000, "")


def asks(asked: Asked) -> Turn:
    """Asks a question and ends, for nobody answers."""
    return Turn(text="Which of the two files shall I change?")


def lies(asked: Asked) -> Turn:
    """Says that it is done, and has done nothing."""
    return script(asked, [tool("gt_done", '{"summary": "all done and tested"}')], "All done and tested.")


def commits_nothing(asked: Asked) -> Turn:
    """Writes a file, and forgets to commit it."""
    return script(asked, ["mkdir -p work && echo x > work/new.txt", tool("gt_done", '{"summary": "done"}')], "Done.")


def overspends(asked: Asked) -> Turn:
    """Works as others do, for a fortune."""
    turn = work(asked)
    return Turn(turn.text, turn.command, tokens=Tokens(5_000_000, 1_000_000, 500_000))


def crashes(asked: Asked) -> Turn:
    """Its agent is gone in the midst of its work: the shell that it has started kills it."""
    return script(asked, ["mkdir -p work && echo half > work/half.txt && kill -9 $PPID"], "")


def forgets(asked: Asked) -> Turn:
    """Commits nothing at first, and works as others do when it is told so."""
    if "This is attempt" in asked.prompt:
        return work(asked)
    return commits_nothing(asked)


PLAYS: dict[str, Play] = {
    "work": work,
    "approve": approve,
    "hello": hello,
    "endless": endless,
    "asks": asks,
    "lies": lies,
    "commits-nothing": commits_nothing,
    "overspends": overspends,
    "crashes": crashes,
    "forgets": forgets,
}
