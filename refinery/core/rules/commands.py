"""What people say to us in comments of a pull request: `/gastown land`. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

WORD = "/gastown"
VERBS = ("land", "queue", "priority", "retry", "cancel", "why")
HELP = "/gastown land COMMIT, queue, priority 0 to 4, retry, cancel, or why"
_SHA = re.compile(r"[0-9a-f]{16,64}")  # fewer characters can be met by another commit on purpose
_COMMAND = re.compile(rf"\s*{WORD}(?:[ \t]+([A-Za-z-]{{1,30}})(?:[ \t]+(\S{{1,64}}))?)?[ \t]*(?:\n|$)")


@dataclass(frozen=True, slots=True)
class Command:
    """A verb, and the number after `priority`. `sha`: the commit that `land` is about, or 16 characters of it and more.
    `wrong`: why it is none, for who wrote it. `by`: whose login."""

    verb: str
    number: int = 0
    sha: str = ""
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
    word = (found[2] or "").lower()
    if verb == "land" and _SHA.fullmatch(word):
        return Command(verb, sha=word)
    if verb != "priority" and word:
        return Command("", wrong=f"{verb} does not take {word[:20]!r}: {HELP}")
    if verb != "priority":
        return Command(verb)
    if not re.fullmatch(r"[0-4]", word):
        return Command("", wrong="priority wants a number from 0 (urgent) to 4")
    return Command(verb, int(word))
