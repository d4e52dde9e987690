"""What commits say: trailers as git reads them, titles that are ones, authors as they are or made clean."""

from __future__ import annotations

import random
import subprocess

import pytest

from refinery.git import messages
from refinery.git.messages import Author, Written

ANN, BO = Author("Ann", "ann@example.org", "1700000000 +0530"), Author("Bo", "bo@example.org", "1700000001 -0200")
LINES = (
    "Fix the login", "", "", "Why: it was broken", "Signed-off-by: Ann <ann@example.org>", "  folded on", "\tmore",
    "plain words", "Co-authored-by: Cy <cy@example.org>", "(cherry picked from commit 1234)", "# a comment",
    "Fixes: #12", "Key : spaced", "no colon here", "http://example.org/x", "[ann: a typo]", "Reviewed-by:",
    "---", "Conflicts:", "\tfile.txt", "x y: z", " ", "-: dash", "Ünï: code", "Refs: a\r",
    "# ------------------------ >8 ------------------------",
)  # fmt: skip


def by_git(message: str) -> list[str]:
    command = ["git", "interpret-trailers", "--parse", "--no-divider"]
    out = subprocess.run(command, input=message.encode(), capture_output=True, check=True).stdout.decode()
    return out.split("\n")[:-1]


def written(message: str, author: Author = ANN, parents: int = 1) -> Written:
    return Written("c" * 40, tuple("p" * parents), author, author.when, message)


def ours(message: str) -> list[str]:
    return [f"{key}: {value}" for key, value in messages.parse_trailers(message)]


@pytest.mark.parametrize("seed", range(120))
def test_trailers_are_read_as_git_reads_them(seed: int) -> None:
    dice = random.Random(seed)
    message = "\n".join(dice.choice(LINES) for _ in range(dice.randint(1, 12))) + dice.choice(["", "\n", "\n\n"])
    assert ours(message) == by_git(message), repr(message)


@pytest.mark.parametrize("seed", range(120, 200))
def test_what_is_added_is_a_trailer_for_git_and_takes_none_away(seed: int) -> None:
    dice = random.Random(seed)
    body = "\n".join(dice.choice(LINES[:-1]) for _ in range(dice.randint(0, 10)))
    message = f"Title\n\n{body}".strip()
    made = messages.with_trailers(message, [("Bead", "gt-1"), ("Bead", "gt-1"), ("Merge-Request", "gt\n2")])
    assert by_git(made) == [*by_git(message + "\n"), "Bead: gt-1", "Merge-Request: gt 2"], repr(made)
    assert messages.with_trailers(made, [("Bead", "gt-1")]) == made


def test_g17_a_trailer_joins_the_block_that_is_there() -> None:
    made = messages.with_trailers("Fix\n\nSigned-off-by: Ann <ann@example.org>\n", [("Bead", "gt-1")])
    assert made == "Fix\n\nSigned-off-by: Ann <ann@example.org>\nBead: gt-1\n"
    assert messages.with_trailers("Fix: it\n", [("Bead", "gt-1")]) == "Fix: it\n\nBead: gt-1\n"


@pytest.mark.parametrize(
    ("asked", "subjects", "title"),
    [
        ("", ["fixup! Add x", "Add x", "Add y"], "Add x"),
        ("fixup! Add x", ["Add x", "fixup! Add x"], "Add x"),
        ("Make it faster", ["Add x"], "Make it faster"),
        ("", ["wip", "WIP: half", "Add y"], "Add y"),
        ("", ["squash! fixup! Add x"], "Add x"),
        ("", ["[WIP] add a door"], "add a door"),
        ("wip", ["wip"], "wip"),
        ("WIP limits for the board", ["Add x"], "WIP limits for the board"),
        ("WIP: the board", ["Add x"], "Add x"),
        ("Wipe the disk", ["Add x"], "Wipe the disk"),
        ("", ["amend! Add\nx\n\nbody"], "Add x"),
    ],
)
def test_g16_a_title_is_one(asked: str, subjects: list[str], title: str) -> None:
    assert messages.title_of(asked, [written(s) for s in subjects]) == title


def test_g16_one_commit_keeps_its_body_and_its_block() -> None:
    only = written("Add x\n\nBecause\nof y.\n\n[cy: a typo]\nSigned-off-by: Ann <ann@example.org>\n")
    made = messages.squash("Title", "a summary", [only], [("Bead", "gt-1")])
    assert made == ("Title\n\nBecause\nof y.\n\n[cy: a typo]\nSigned-off-by: Ann <ann@example.org>\nBead: gt-1\n")
    assert messages.squash("T", "a summary", [written("Add x")], []) == "T\n\na summary\n"
    signed = written("Add x\n\nSigned-off-by: Ann <ann@example.org>")
    made = messages.squash("T", "a summary", [signed], [("Bead", "gt-1")])
    assert made == "T\n\na summary\n\nSigned-off-by: Ann <ann@example.org>\nBead: gt-1\n"


def test_g16_several_commits_keep_every_author_and_every_trailer_once() -> None:
    commits = [
        written("Add x\n\nWhy.\n\nCo-authored-by: Cy <CY@example.org>\nSigned-off-by: Ann <ann@example.org>"),
        written("Add y\n\nFixes: #1\nSigned-off-by: Bo <bo@example.org>", BO),
        written("Merge branch 'main'", Author("Di", "di@example.org", ANN.when), parents=2),
        written("fixup! Add x", Author("Cy", "cy@example.org", ANN.when)),
        written("Add z\n\nSigned-off-by: Ann <ann@example.org>\nco-authored-by: Ann <ann@example.org>"),
    ]
    made = messages.squash("Title", "", commits, [("Bead", "gt-1")])
    assert made.startswith("Title\n\n* Add x\n\nWhy.\n\n* Add y\n\n* Add z\n\nCo-authored-by: Cy <CY@example.org>\n")
    assert by_git(made) == [
        "Co-authored-by: Cy <CY@example.org>",
        "Signed-off-by: Ann <ann@example.org>",
        "Fixes: #1",
        "Signed-off-by: Bo <bo@example.org>",
        "Co-authored-by: Bo <bo@example.org>",
        "Co-authored-by: Di <di@example.org>",
        "Bead: gt-1",
    ]
    assert messages.squash("Title", "Summary.", commits, []).startswith("Title\n\nSummary.\n\nCo-authored-by: Cy")


def test_g16_what_was_squashed_into_a_commit_says_what_autosquash_lets_it_say() -> None:
    commits = [
        written("Add x\n\nOld.\n\nRefs: a"),
        written("squash! Add x\n\nAnd more.\n\nRefs: b"),
        written("Add y\n\nWrong."),
        written("amend! Add y\n\nAdd y rightly\n\nRight."),
        written("fixup! Add y\n\nnot said"),
    ]
    made = messages.squash("T", "", commits, [])
    assert made == "T\n\n* Add x\n\nOld.\n\nAnd more.\n\n* Add y rightly\n\nRight.\n\nRefs: a\nRefs: b\n"


LATER = "1700000000 +0100"


@pytest.mark.parametrize(
    ("line", "author"),
    [
        (b". <a@b.org> 17 +0530", (".", "a@b.org", "17 +0530")),
        (b'Jr. "X" <a@b.org> 17 +0530', ('Jr. "X"', "a@b.org", "17 +0530")),
        (b"Epoch <a@b.org> 0 +0000", ("Epoch", "a@b.org", "0 +0000")),
        (b"Old <a@b.org> -100000 +0000", ("Old", "a@b.org", LATER)),
        (b"No Date <a@b.org>", ("No Date", "a@b.org", LATER)),
        (b"Far <a@b.org> 18446744073709551615 +0000", ("Far", "a@b.org", LATER)),
        (b" <a@b.org> 17 +0000", ("a@b.org", "a@b.org", "17 +0000")),
        (b"<a@b.org> 17 +0000", ("a@b.org", "a@b.org", "17 +0000")),
        (b"Zero <a@b.org> 0017 +0000", ("Zero", "a@b.org", "17 +0000")),
        (b"No Mail <> 17 +0000", ("No Mail", "", "17 +0000")),
        (b"Nobody 17 +0000", ("Nobody", "", "17 +0000")),
        (b"A<a<b@c.org>> 17 +0000", ("A", "a", "17 +0000")),
        (b"tz <a@b.org> 17 +25", ("tz", "a@b.org", LATER)),
        (b"", ("unknown", "", LATER)),
        (b"J\xf6rg <j@b.org> 17 +0000", ("Jörg", "j@b.org", "17 +0000")),
        (b"nul\0l <j@b.org> 17 +0000", ("null", "j@b.org", "17 +0000")),
    ],
)
def test_g4_an_author_is_as_the_commit_has_it_or_made_clean(line: bytes, author: tuple[str, str, str]) -> None:
    raw = b"tree x\nauthor " + line + b"\ncommitter c <c> 1 +0000\n\nauthor Fake <f@f> 1 +0000\n"
    found = messages.read_author(raw, LATER)
    assert (found.name, found.mail, found.when) == author
