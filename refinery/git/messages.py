"""What commits say, and what the commit that we make of them says: titles, trailers, authors. Pure: text in, text out.

Trailers are read as git itself reads them (`git interpret-trailers --parse --no-divider`): tests compare the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

# what `parse_log` reads; one git process tells all about the commits of a range
LOG = ["--date=raw", "-z", "--format=%H%x00%P%x00%an%x00%ae%x00%ad%x00%cd%x00%B"]
_FIELDS = 7
LATEST = 2**63 - 1  # seconds; git refuses dates beyond
MAX_TITLE = 300

_IDENT = re.compile(r"([^<>\n\0]*) <([^<>\n\0]*)> (0|[1-9][0-9]{0,18}) ([+-][0-9]{4})")
_WHEN = re.compile(r"(0|[1-9][0-9]{0,18}) ([+-][0-9]{4})")
_CRUD = re.compile(r"^[\x00-\x20.,:;<>\"\\']+|[\x00-\x20.,:;<>\"\\']+$")
_AUTOSQUASH = re.compile(r"(fixup|squash|amend)! ?(?:(?:fixup|squash|amend)! ?)*")
_WIP = re.compile(r"[\[(]?\bwip\b[\])]?\s*[:!-]?\s*", re.I)
_UNDONE = re.compile(r"[\[(]wip[\])]|wip\s*(?:[:!-]|$)", re.I)
_SPACE = " \t\n\r"  # git's isspace
_SCISSORS = "\n# ------------------------ >8 ------------------------\n"
_GENERATED = ("Signed-off-by: ", "(cherry picked from commit ")

Trailer = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Author:
    """Who and when, as a commit has it: `when` is git's "SECONDS ZONE"."""

    name: str
    mail: str
    when: str

    @property
    def ident(self) -> str:
        """Name and address."""
        return f"{self.name} <{self.mail}>"

    @property
    def line(self) -> str:
        """As it stands in a commit."""
        return f"{self.ident} {self.when}"


@dataclass(frozen=True, slots=True)
class Written:
    """A commit as it was written. `author` is None when git could not read it: see `read_author`."""

    sha: str
    parents: tuple[str, ...]
    author: Author | None
    committed: str
    message: str

    @property
    def subject(self) -> str:
        """Its first paragraph in one line, as git shows it."""
        return paragraphs(self.message)[0]


def text_of(raw: bytes) -> str:
    """Bytes of a commit as text. What is no UTF-8 is taken for Latin-1, as git itself does when it commits."""
    text = raw.decode("utf-8", "surrogateescape")
    return re.sub("[\udc80-\udcff]", lambda m: chr(ord(m[0]) - 0xDC00), text)


def parse_log(raw: bytes) -> list[Written]:
    """`git log` with LOG → the commits, in git's order."""
    words = text_of(raw).split("\0")
    found = []
    for at in range(0, len(words) - _FIELDS + 1, _FIELDS):
        sha, parents, name, mail, when, committed, message = words[at : at + _FIELDS]
        good = _IDENT.fullmatch(f"{name} <{mail}> {when}")
        # git shows 0 for a date that it cannot hold: the commit itself must be asked
        author = None
        if good and name and int(good[3]):
            author = Author(name, mail, when)
        found.append(Written(sha, tuple(parents.split()), author, committed, message))
    return found


def read_author(commit: bytes, otherwise: str) -> Author:
    """The author of a raw commit: as it has it where git accepts that, else made clean as `git am` does.

    `otherwise`: the date ("SECONDS ZONE") for one that has none, or one that git cannot hold.
    """
    header = commit.partition(b"\n\n")[0]
    line = next((row[7:] for row in header.split(b"\n") if row.startswith(b"author ")), b"")
    text = text_of(line).replace("\0", "")
    good = _IDENT.fullmatch(text)
    if good and good[1].strip() and int(good[3]) <= LATEST:
        return Author(good[1], good[2], f"{good[3]} {good[4]}")
    before, has_mail, rest = text.partition("<")
    mail = after = rest
    if ">" in rest:
        mail, _, after = rest.rpartition(">")
    mail = re.sub(r"[<>\n\s].*", "", mail.strip())
    if not has_mail:  # no address at all: a date at the end is no part of the name
        before, after = re.sub(r"\s-?\d+( [+-]\d{4})?$", "", text), text
    name = clean_name(before) or mail or "unknown"
    when = re.search(r"(?:^|\s)(\d+) ([+-]\d{4})$", after)
    dated = otherwise
    if when and int(when[1]) <= LATEST:
        dated = f"{int(when[1])} {when[2]}"
    if not valid_date(dated):
        dated = "0 +0000"
    return Author(name, mail, dated)


def valid_date(when: str) -> bool:
    """True for a date that git can hold."""
    found = _WHEN.fullmatch(when)
    return found is not None and int(found[1]) <= LATEST


def clean_name(name: str) -> str:
    """A name without what may stand in no commit, and without the punctuation that git takes off its ends."""
    return _CRUD.sub("", re.sub(r"[<>\n\0]", "", name))


def commit_object(tree: str, parents: Sequence[str], author: str, committer: str, message: str) -> bytes:
    """A commit as git stores it. `author` and `committer` are whole lines; the message is UTF-8."""
    lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents), f"author {author}", f"committer {committer}"]
    return ("\n".join(lines) + "\n\n" + message.replace("\0", "")).encode("utf-8", "replace")


def signed(commit: bytes, signature: str) -> bytes:
    """A commit with its signature, as git stores it: a header whose lines after the first begin with a space."""
    head, _, message = commit.partition(b"\n\n")
    lines = signature.strip().split("\n")
    return head + b"\ngpgsig " + "\n ".join(lines).encode("ascii") + b"\n\n" + message


# -- titles --


def paragraphs(message: str) -> tuple[str, str]:
    """The subject (the first paragraph, in one line) and the rest of a message."""
    lines = message.strip(_SPACE).split("\n")
    end = next((n for n, line in enumerate(lines) if not line.strip(_SPACE)), len(lines))
    return " ".join(" ".join(lines[:end]).split()), "\n".join(lines[end:]).strip("\n").rstrip(_SPACE)


def is_real(title: str, *, asked: bool = False) -> bool:
    """False for what says that it is no title yet: `fixup! …`, `squash! …`, `amend! …`, `wip`.

    `asked`: somebody has chosen it, who may well mean *WIP limits for the board*.
    """
    title, undone = title.strip(), _WIP
    if asked:
        undone = _UNDONE
    return bool(title) and not _AUTOSQUASH.match(title) and not undone.match(title)


def title_of(asked: str, commits: Sequence[Written]) -> str:
    """The title of a change: what was asked for if that is one, else the first real subject of its commits (the oldest
    first), else what is left of the first one without `fixup!` and the like."""
    named = [asked, *(c.subject for c in commits if len(c.parents) < 2), *(c.subject for c in commits)]
    real = asked
    if not is_real(asked, asked=True):
        real = next((title for title in named if is_real(title)), "")
    if not real:
        bare = (_WIP.sub("", _AUTOSQUASH.sub("", title.strip(), count=1), count=1) for title in named)
        real = next((title for title in bare if title.strip()), asked)
    return " ".join(real.split())


# -- trailers --


def split(message: str) -> tuple[str, str, str]:
    """(what comes before the trailers, the trailers' block, what git passes over at the end); a block may be empty."""
    end = _trailers_end(message)
    start = _trailers_start(message[:end])
    return message[:start], message[start:end], message[end:]


def parse_trailers(message: str) -> list[Trailer]:
    """The trailers of a message, values unfolded to one line."""
    return [(key, value) for key, value, _ in _rows(split(message)[1]) if key]


def _rows(block: str) -> list[tuple[str, str, str]]:
    """(key, value, the text itself) for each line of a block with its continuations; no key: it is no trailer."""
    found: list[tuple[str, str, str]] = []
    for line in block.split("\n"):
        if found and line[:1] and line[0] in _SPACE and found[-1][0]:
            key, value, text = found[-1]
            found[-1] = key, f"{value} {line.strip(_SPACE)}".strip(), f"{text}\n{line}"
            continue
        at = _separator(line)
        if at >= 1:
            found.append((line[:at].strip(_SPACE), line[at + 1 :].strip(_SPACE), line))
        elif line.strip(_SPACE):
            found.append(("", "", line))
    return found


def _separator(line: str) -> int:
    """Where the colon of a trailer's line is; -1: it is none."""
    spaced = False
    for at, c in enumerate(line):
        if c == ":":
            return at
        if not spaced and c.isascii() and (c.isalnum() or c == "-"):
            continue
        if at and c in " \t":
            spaced = True
            continue
        return -1
    return -1


def _trailers_end(message: str) -> int:
    """Where comments, blank lines and an old `Conflicts:` list at the end of a message begin."""
    cut = len(message)
    if message.startswith(_SCISSORS[1:]):
        cut = 0
    elif (found := message.find(_SCISSORS)) >= 0:
        cut = found + 1
    begin = at = 0
    conflicts = False
    while at < cut:
        newline = message.find("\n", at)
        after = len(message) if newline < 0 else newline + 1
        if message[at] in "#\n":
            begin = begin or at
        elif message.startswith("Conflicts:\n", at):
            conflicts = True
            begin = begin or at
        elif conflicts and message[at] == "\t":
            pass
        elif begin:
            begin, conflicts = 0, False
        at = after
    return begin or cut


def _trailers_start(text: str) -> int:
    """Where the block of trailers begins at the end of `text`; its length when there is none.

    The first paragraph is the title. The block is the last paragraph, if all its lines are trailers, or if one is of a
    kind that git writes and at least a quarter are trailers (source: git's trailer.c, find_trailer_start).
    """
    lines = re.findall(r"[^\n]*\n|[^\n]+", text)
    titled = 0
    for line in lines:
        if line[0] != "#" and not line.strip(_SPACE):
            break
        titled += 1
    trailers = others = continued = 0
    recognized, blank = False, True
    at = len(text)
    for line in reversed(lines[titled:]):
        if line[0] == "#":
            others, continued = others + continued, 0
        elif not line.strip(_SPACE):
            if not blank:
                others += continued
                fits = (recognized and trailers * 3 >= others) or (trailers and not others)
                if fits:
                    return at
                return len(text)
        else:
            blank = False
            if line.startswith(_GENERATED):
                trailers, continued, recognized = trailers + 1, 0, True
            elif line[0] not in _SPACE and _separator(line) >= 1:
                trailers, continued = trailers + 1, 0
            elif line[0] in _SPACE:
                continued += 1
            else:
                others, continued = others + 1 + continued, 0
        at -= len(line)
    return len(text)


def with_trailers(message: str, trailers: Iterable[Trailer]) -> str:
    """A message with trailers added to its block, or in a block of their own; those that it has are not repeated."""
    text = ""
    if message.strip(_SPACE):
        text = message.strip(_SPACE) + "\n"
    head, block, tail = split(text)
    known = {_same(key, value) for key, value, _ in _rows(block) if key}
    fresh = []
    for key, value in trailers:
        value = " ".join(value.split())
        if _same(key, value) not in known:
            known.add(_same(key, value))
            fresh.append(f"{key}: {value}\n")
    if not fresh:
        return text
    if not block.strip(_SPACE):
        if head.strip(_SPACE):
            head = head.rstrip(_SPACE) + "\n\n"
        else:
            head = ""
        return head + block + "".join(fresh) + tail
    return head + block.rstrip("\n") + "\n" + "".join(fresh) + tail


def _same(key: str, value: str) -> tuple[str, str]:
    return key.lower(), " ".join(value.split())


# -- squashing --


def squash(title: str, body: str, commits: Sequence[Written], ours: Sequence[Trailer]) -> str:
    """The message of the one commit that `commits` (the oldest first, authors read) become.

    One of them says something: its own text. Several: `body` (what the agent said of its work), else each one's
    subject and text. Then one block: their trailers, who else has written one of them, and ours.
    """
    told = list(_folded(commits))
    pieces = [text for _, text in told]
    if len(told) == 1 and split(f"x\n\n{pieces[0]}\n")[0].strip() != "x":
        body = pieces[0]
    elif len(told) > 1 and not body.strip():
        body = "\n\n".join(f"* {subject}\n\n{_without_trailers(text)}".rstrip() for subject, text in told)
    elif len(told) == 1:  # nothing but trailers: they may hold lines that are none (`[ann: a typo]`)
        body = "\n\n".join(part for part in (body.strip(), pieces[0]) if part)
    message = f"{title}\n\n{body.strip(_SPACE)}".rstrip(_SPACE)
    found = [t for commit in commits for t in parse_trailers(commit.message)]
    return with_trailers(message, _unique([*found, *_co_authors(commits)], commits, ours))


def _unique(found: Sequence[Trailer], commits: Sequence[Written], ours: Sequence[Trailer]) -> Iterator[Trailer]:
    """In order, without what was said before; nobody is named as co-author twice, nor beside being the author."""
    main = author_of(commits)
    named = set()
    if main:
        named = {_mail(main.ident)}
    for key, value in found:
        if key.lower() == "co-authored-by":
            if _mail(value) in named:
                continue
            named.add(_mail(value))
            key = "Co-authored-by"
        yield key, value
    yield from ours


def _co_authors(commits: Sequence[Written]) -> Iterator[Trailer]:
    for commit in commits:
        if commit.author is not None:
            yield "Co-authored-by", commit.author.ident


def _mail(ident: str) -> str:
    """By what people are told apart: the address, else the name."""
    found = re.search(r"<([^<>]+)>", ident)
    if found:
        return found[1].strip().lower()
    return re.sub(r"<.*", "", ident).strip().lower()


def author_of(commits: Sequence[Written]) -> Author | None:
    """The author of a change: that of its first own commit that is no merge."""
    own = [c for c in commits if len(c.parents) < 2] or commits
    if own:
        return own[0].author
    return None


def _folded(commits: Sequence[Written]) -> Iterator[tuple[str, str]]:
    """(subject, text) of each commit that says something of its own; merges do not. What `fixup!`, `squash!` and
    `amend!` stand for is done as `git rebase --autosquash` does it."""
    told: list[list[str]] = []
    for commit in commits:
        if len(commit.parents) > 1:
            continue
        subject, text = paragraphs(commit.message)
        kind = _AUTOSQUASH.match(subject)
        if kind is None:
            told.append([subject, text])
            continue
        meant = subject[kind.end() :]
        mate = next((one for one in told if one[0] == meant or one[0].startswith(meant)), None)
        if kind[1] == "amend" and mate is not None and text:
            mate[:] = paragraphs(text)
        elif kind[1] == "squash" and text and mate is not None:
            mate[1] = "\n\n".join(part for part in (_without_trailers(mate[1]), text) if part)
        elif mate is None and text and kind[1] != "fixup":
            told.append([meant, text])
    saying = [one for one in told if one[1] or is_real(one[0])]
    yield from ((subject, text) for subject, text in saying or told)


def _without_trailers(text: str) -> str:
    """The text of a commit without its trailers; what stands among them and is none stays."""
    head, block, tail = split(f"x\n\n{text}\n")
    rest = "\n".join(row for key, _, row in _rows(block) if not key)
    return "\n\n".join(part for part in (head[1:].strip(_SPACE), rest, tail.strip(_SPACE)) if part)
