"""What people say to us in comments of a pull request: `/gastown land`. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

WORD = "/gastown"
VERBS = ("land", "queue", "priority", "retry", "cancel", "why")
HELP = "/gastown land, queue, priority 0 to 4, retry, cancel, or why"
_COMMAND = re.compile(rf"\s*{WORD}(?:[ \t]+([A-Za-z-]{{1,30}})(?:[ \t]+(\S{{1,30}}))?)?[ \t]*(?:\n|$)")


@dataclass(frozen=True, slots=True)
class Command:
    """A verb, and the number after `priority`. `wrong`: why it is none, for who wrote it. `by`: whose login."""

    verb: str
    number: int = 0
    wrong: str = ""
    by: str = ""


def is_command(body: str) -> bool:
    """True for a comment that begins with `/gastown`; a quoted one (`> /gastown land`) does not."""
    return body.lstrip()[: len(WORD) + 1].rstrip() == WORD


def parse(body: str) -> Command:
    """The command of a comment's first line."""
    found = _COMMAND.match(body.split("\n", 1)[0].rstrip("\r"))
    verb = (found[1] or "").lower() if found else ""
    if found is None or verb not in VERBS:
        return Command("", wrong=f"that is no command: {HELP}")
    if verb != "priority":
        return Command(verb) if not found[2] else Command("", wrong=f"{verb} takes no word: {HELP}")
    if not re.fullmatch(r"[0-4]", found[2] or ""):
        return Command("", wrong="priority wants a number from 0 (urgent) to 4")
    return Command(verb, int(found[2]))
