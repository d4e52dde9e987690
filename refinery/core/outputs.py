"""Where a gate failed, and why: files, lines and messages in the output of the tools that people use. Pure.

A small parser for each way in which tools say it; a new tool is a row in `PARSERS`. A parser looks at all lines and
gives what it understands; what several of them find is put in the output's order. The place of a failed test is the
deepest one of the project's own files. Where none finds anything, any mention of `file:line` counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

MAX_FAILURES = 20
MAX_TEXT = 300


class Place(NamedTuple):
    """A failure: the number of the output's line that tells of it, and what it says."""

    at: int
    file: str
    line: int
    text: str


Parser = Callable[[Sequence[str]], Iterable[Place]]

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]{0,500}(?:\x07|\x1b\\)|[@-Z\\-_])")
_FOREIGN = re.compile(r"(?:^|/)(?:node_modules|site-packages|dist-packages|\.venv|\.cargo)/|^/|^<|^\w:[\\/]|^node:")
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(?:Error|Exception|Warning|Exit|Interrupt|Failed|Iteration|Group)(?::.*)?$")


def plain(text: str) -> str:
    """The text without terminal colours, with plain line ends."""
    return _ANSI.sub("", text).replace("\r\n", "\n")


def first_failures(output: str) -> list[dict[str, Any]]:
    """The first places that failed, each once: `[{file, line, text}]`, at most `MAX_FAILURES`."""
    return parsed(output) or _once(_mentions(plain(output).split("\n")))


def parsed(output: str) -> list[dict[str, Any]]:
    """As `first_failures`, but only what a parser knows for a failure: no mere mention of a place."""
    lines = plain(output).split("\n")
    return _once(sorted((place for parse in PARSERS.values() for place in parse(lines)), key=lambda place: place.at))


def _once(places: Iterable[Place]) -> list[dict[str, Any]]:
    seen: dict[tuple[str, int], dict[str, Any]] = {}
    for place in places:
        file = place.file.removeprefix("./")
        text = " ".join(place.text.split())[:MAX_TEXT]
        seen.setdefault((file, place.line), {"file": file, "line": place.line, "text": text})
        if len(seen) >= MAX_FAILURES:
            break
    return list(seen.values())


def _own(file: str) -> bool:
    return not _FOREIGN.search(file)


# -- tools that say it in one line ----------------------------------------------------------------------------------

_PATH = r"(?P<file>[^\s:'\"][^:'\"\n]{0,300}?)"
_LINES = {
    "mypy": re.compile(rf"^{_PATH}:(?P<line>\d+)(?::\d+)?: error: (?P<text>.+)"),
    "gcc": re.compile(rf"^{_PATH}:(?P<line>\d+):\d+: (?:fatal )?error: (?P<text>.+)"),
    "ruff": re.compile(
        rf"^{_PATH}:(?P<line>\d+):\d+: (?P<text>(?:[A-Z]{{1,7}}\d{{2,4}}|invalid-syntax|SyntaxError)\b.+)"
    ),
    "tsc": re.compile(r"^(?P<file>[^\s:][^:\n]{0,300}?)\((?P<line>\d+),\d+\): error (?P<text>TS\d+: .+)"),
    "tsc, pretty": re.compile(rf"^{_PATH}:(?P<line>\d+):\d+ - error (?P<text>TS\d+: .+)"),
    "go build": re.compile(r"^(?:vet: )?(?P<file>[\w.][\w./-]{0,300}\.go):(?P<line>\d+)(?::\d+)?: (?P<text>.+)"),
}


def _one_line(pattern: re.Pattern[str]) -> Parser:
    def _parse(lines: Sequence[str]) -> Iterator[Place]:
        for at, line in enumerate(lines):
            if match := pattern.match(line[:2000]):
                yield Place(at, match["file"], int(match["line"]), match["text"])

    return _parse


# -- Python ---------------------------------------------------------------------------------------------------------

_TITLE = re.compile(r"^_{3,} (?P<name>\S.*?) _{3,}$")
_AT = re.compile(r"^(?P<file>[^\s:>][^:\n]{0,300}\.\w+):(?P<line>\d+): ?(?P<text>.*)$")
_FRAME = re.compile(r'^\s*File "(?P<file>[^"\n]{1,300})", line (?P<line>\d+)')
_HEAD = re.compile(r"^(?:FAIL|ERROR): (?P<name>\S+)")


def _pytest(lines: Sequence[str]) -> Iterator[Place]:
    """Sections headed `____ name ____`: the last place in them that is one's own, and the first line marked `E`."""
    name, message, last, start = "", "", None, 0
    for at, line in enumerate([*lines, "="]):
        title = _TITLE.match(line)
        if title or line.startswith("="):
            if name and last:
                yield Place(start, last[0], last[1], f"{name}: {message or last[2]}")
            name, message, last, start = "", "", None, at
            if title:
                name = title["name"]
        elif name and line.startswith("E ") and not message:
            message = line[1:].strip()
        elif name and (found := _AT.match(line)) and _own(found["file"]):
            last = (found["file"], int(found["line"]), found["text"])
        elif name and line.startswith("E ") and (found := _FRAME.match(line[1:])) and _own(found["file"]):
            last = (found["file"], int(found["line"]), message)  # a file that cannot be read as Python


def _tracebacks(lines: Sequence[str]) -> Iterator[Place]:
    """Frames and the exception below them: unittest, scripts, and what cannot be compiled."""
    name, start = "", 0
    frames: list[tuple[str, int]] = []
    for at, line in enumerate(lines):
        if head := _HEAD.match(line):
            name, frames = f"{head['name']}: ", []
        elif line.startswith(("Ran ", "=====")):
            name, frames = "", []
        elif frame := _FRAME.match(line):
            frames.append((frame["file"], int(frame["line"])))
            if len(frames) == 1:
                start = at
        elif frames and not line.startswith(" ") and _EXCEPTION.match(line):
            file, number = next((f for f in reversed(frames) if _own(f[0])), frames[-1])
            yield Place(start, file, number, f"{name}{line}")
            frames = []


# -- Go -------------------------------------------------------------------------------------------------------------

_GO_TEST = re.compile(r"^\s*(?:=== (?:RUN|NAME|CONT)\s+|--- (?P<how>FAIL|PASS|SKIP): )(?P<name>\S+)")
_GO_AT = re.compile(r"^\s+(?P<file>[\w.-]+\.go):(?P<line>\d+): ?(?P<text>.*)$")
_GO_FRAME = re.compile(r"^\t(?P<file>\S+\.go):(?P<line>\d+)(?: \+0x[0-9a-f]+)?$")


def _go(lines: Sequence[str]) -> Iterator[Place]:
    """What failed tests have logged, and where they panicked. File names are without their package's directory."""
    failed = {m["name"] for m in map(_GO_TEST.match, lines) if m and m["how"] == "FAIL"}
    name, panic = "", ""
    for at, line in enumerate(lines):
        if test := _GO_TEST.match(line):
            name = test["name"]
        elif line.startswith("panic: "):
            panic = line
        elif panic and (frame := _GO_FRAME.match(line)) and _own(frame["file"]):
            yield Place(at, frame["file"], int(frame["line"]), panic)
            panic = ""
        elif name in failed and (found := _GO_AT.match(line)):
            below = (re.match(r"^\s+Error:\s+(.+)", after) for after in lines[at + 1 : at + 6])
            text = found["text"] or next((m[1] for m in below if m), "")
            yield Place(at, found["file"], int(found["line"]), f"{name}: {text}")


# -- Rust, and ruff, which points as rustc does ---------------------------------------------------------------------

_POINTED = re.compile(r"^\s*--> (?P<file>[^\s:][^:\n]{0,300}):(?P<line>\d+):\d+$")
_PANIC = re.compile(
    r"^thread '(?P<name>[^']*)'(?: \(\d+\))? panicked at (?:'(?P<old>.*)', )?"
    r"(?P<file>[^\s:][^:\n]{0,300}):(?P<line>\d+):\d+:?$"
)


def _rust(lines: Sequence[str]) -> Iterator[Place]:
    """`error[E…]: text` or a rule's name, with ` --> file:line:column` below; and tests that panicked."""
    for at, line in enumerate(lines):
        if at and (found := _POINTED.match(line)):
            text = lines[at - 1].strip()
            if text and not text.startswith(("warning", "note", "|", "=", "help", ":::")):
                yield Place(at - 1, found["file"], int(found["line"]), text)
        elif (panic := _PANIC.match(line)) and _own(panic["file"]):
            text = panic["old"] or next((rest for rest in lines[at + 1 : at + 2]), "")
            yield Place(at, panic["file"], int(panic["line"]), f"{panic['name']}: {text}")


# -- JavaScript -----------------------------------------------------------------------------------------------------

_JEST_AT = re.compile(r"^\s+at (?:[^()\n]{0,300}\()?(?P<file>[^\s:][^:\n]{0,300}):(?P<line>\d+):\d+\)?$")
_JEST_SYNTAX = re.compile(r"^\s*(?P<text>SyntaxError: (?P<file>[^\s:]{1,300}): .*)\((?P<line>\d+):\d+\)$")
_VITEST_AT = re.compile(r"^\s*❯ (?:\S.* )?(?P<file>[^\s:]{1,300}):(?P<line>\d+):\d+$")
_VITEST_HEAD = re.compile(r"^\s*FAIL\s+(?P<file>\S+?)(?: \[ .* \]| > (?P<name>.+))?$")
_ESLINT_AT = re.compile(r"^\s+(?P<line>\d+):\d+\s+error\s+(?P<text>\S.*)$")


def _jest(lines: Sequence[str]) -> Iterator[Place]:
    """`● test`, what was expected, and the first `at` that is one's own."""
    name, message, start = "", "", 0
    for at, line in enumerate(lines):
        text = line.strip()
        if line.startswith("  ● "):
            name, message, start = text.removeprefix("● "), "", at
        elif name and (syntax := _JEST_SYNTAX.match(line)):
            yield Place(start, syntax["file"], int(syntax["line"]), f"{name}: {syntax['text']}")
            name = ""
        elif name and (found := _JEST_AT.match(line)):
            if _own(found["file"]):
                yield Place(start, found["file"], int(found["line"]), f"{name}: {message}")
                name = ""
        elif name and not message:
            message = text
        elif name and text.startswith(("Expected:", "Received:", "Expected ", "Received ")) and len(message) < 200:
            message += f" {text}"


def _vitest(lines: Sequence[str]) -> Iterator[Place]:
    """` FAIL  file > test`, the error, and the first `❯` that is one's own."""
    name, message, start = "", "", 0
    for at, line in enumerate(lines):
        if head := _VITEST_HEAD.match(line):
            name, message, start = head["name"] or head["file"], "", at
        elif name and (found := _VITEST_AT.match(line)):
            if _own(found["file"]):
                yield Place(start, found["file"], int(found["line"]), f"{name}: {message}")
                name = ""
        elif name and not message:
            message = line.strip()


def _eslint(lines: Sequence[str]) -> Iterator[Place]:
    """A file's name by itself, and its errors indented below."""
    file = ""
    for at, line in enumerate(lines):
        if file and (found := _ESLINT_AT.match(line)):
            yield Place(at, file, int(found["line"]), found["text"])
        elif re.fullmatch(r"[^\s:][^:\n]{0,300}\.\w{1,6}", line):
            file = line
        elif not line.startswith(" "):
            file = ""


_MOCHA_BEGINS = re.compile(r"^ +\d+ failing\b")
_MOCHA_HEAD = re.compile(r"^ {2}\d+\) (?P<name>\S.*)$")


def _mocha(lines: Sequence[str]) -> Iterator[Place]:
    """`1) suite`, its test's name up to a colon, the error, and the first `at` that is one's own."""
    titles: list[str] = []
    message, start, begun = "", 0, False
    for at, line in enumerate(lines):
        text = line.strip()
        if _MOCHA_BEGINS.match(line):
            begun = True
        elif begun and (head := _MOCHA_HEAD.match(line)):
            titles, message, start = [head["name"]], "", at
        elif titles and not titles[-1].endswith(":"):
            titles.append(text)
            if not text or len(titles) > 9:
                titles = []
        elif titles and (found := _JEST_AT.match(line)):
            file = found["file"].removeprefix("file://")
            if _own(file):
                yield Place(start, file, int(found["line"]), f"{' › '.join(titles)} {message}")
                titles = []
        elif titles and text and (not message or message.endswith(":")):
            message = f"{message} {text}".strip()


_NOT_OK = re.compile(r"^\s*(?:not ok \d+(?: -)? |✖ )(?P<name>\S.*?)(?: \([\d.]+m?s\))?$")
_TAP_ENDS = re.compile(r"^\s*(?:ok \d|not ok \d|✔ |✖ |# Subtest|test at |\.\.\.$)")
_TAP_AT = re.compile(
    r"^\s*(?:(?:location|at): '?)?(?:at )?(?:\S.* \(|test at )?(?:file://)?(?P<file>[^\s:'()]{1,300}):(?P<line>\d+):\d+\)?'?$"
)
_TAP_SAID = re.compile(r"^\s+(?:(?:error|message): ['\"]?|(?=\w*(?:Error|Exception)\b))(?P<text>.*?)['\"]?$")


def _tap(lines: Sequence[str]) -> Iterator[Place]:
    """`not ok 1 - name` with YAML below it, and how Node prints the same for people."""
    for at, line in enumerate(lines):
        if head := _NOT_OK.match(line):
            block = list(takewhile(lambda below: not _TAP_ENDS.match(below), lines[at + 1 : at + 60]))
            said = next((n for n, below in enumerate(block) if _TAP_SAID.match(below)), None)
            places = [m for below in (*block, *lines[at - 1 : at]) if (m := _TAP_AT.match(below)) and _own(m["file"])]
            if said is not None and places:
                found = next((m for m in places if "location:" not in m[0]), places[0])
                text = _words(block[said:])
                if not text.endswith(("subtest failed", "subtests failed")):
                    yield Place(at, found["file"], int(found["line"]), f"{head['name']}: {text}")


def _words(block: Sequence[str]) -> str:
    """What a block says at its start; after a colon, or where YAML begins a text, what is below belongs to it."""
    words = [line.strip() for line in block[1:6]]
    if first := _TAP_SAID.match(block[0]):
        words = [first["text"], *words]
    words = [word for word in words if word and word not in ("|-", "|", ">-", ">")]
    if words and words[0].endswith(":"):
        return " ".join(words[:2])
    return "".join(words[:1])


# -- shells, Java ---------------------------------------------------------------------------------------------------

_BATS_HEAD = re.compile(r"^(?:not ok \d+ | ✗ )(?P<name>\S.*)$")
_BATS_AT = re.compile(r"in test file (?P<file>[^,\n]{1,300}), line (?P<line>\d+)\)$")


def _bats(lines: Sequence[str]) -> Iterator[Place]:
    """`not ok 2 name` or ` ✗ name`, the place in brackets, and the command that failed."""
    name, start = "", 0
    for at, line in enumerate(lines):
        if head := _BATS_HEAD.match(line):
            name, start = head["name"], at
        elif name and (found := _BATS_AT.search(line)):
            said = "".join(lines[at + 1 : at + 2]).lstrip("# ").strip()
            yield Place(start, found["file"], int(found["line"]), f"{name}: {said}")
            name = ""


_MAVEN_TEST = re.compile(
    r"^\[ERROR\]\s+(?:[\w.$]+\.)?(?P<of>[A-Z]\w*)(?:\$\w+)?\.(?P<name>\w+):(?P<line>\d+)(?:->\S+)? (?P<text>\S.*)$"
)
_MAVEN_FILE = re.compile(r"^\[ERROR\] (?P<file>[^\s:\[][^:\[\n]{0,300}):\[(?P<line>\d+),\d+\] (?P<text>.+)$")
_GRADLE_HEAD = re.compile(r"^(?P<name>\w[^>\n]{0,200} > .{1,200}) FAILED$")
_JAVA_AT = re.compile(r"\bat (?:.*\()?(?P<file>(?P<of>\w+)\.(?:java|kt|groovy|scala)):(?P<line>\d+)\)?$")


def _java(lines: Sequence[str]) -> Iterator[Place]:
    """Maven's list of failures and errors of the compiler; Gradle's `Class > test FAILED` with the place below it."""
    name, message, start = "", "", 0
    for at, line in enumerate(lines):
        if found := _MAVEN_TEST.match(line):
            yield Place(at, f"{found['of']}.java", int(found["line"]), f"{found['name']}: {found['text']}")
        elif found := _MAVEN_FILE.match(line):
            yield Place(at, found["file"], int(found["line"]), found["text"])
        elif head := _GRADLE_HEAD.match(line):
            name, message, start = head["name"], "", at
        elif name and (found := _JAVA_AT.search(line)) and re.search(rf"\b{found['of']}\b", name):
            said = message or line.strip().partition(" at ")[0]
            yield Place(start, found["file"], int(found["line"]), f"{name}: {said}")
            name = ""
        elif name and not message and line.startswith("    ") and not _JAVA_AT.search(line):
            message = line.strip()


PARSERS: dict[str, Parser] = {
    **{tool: _one_line(pattern) for tool, pattern in _LINES.items()},
    "pytest": _pytest,
    "unittest": _tracebacks,
    "go test": _go,
    "rustc, cargo test, ruff": _rust,
    "jest": _jest,
    "vitest": _vitest,
    "eslint": _eslint,
    "mocha": _mocha,
    "node --test, TAP": _tap,
    "bats": _bats,
    "maven, gradle": _java,
}

# -- any other ------------------------------------------------------------------------------------------------------

_FILE_LINE = re.compile(
    r"(?:^|[\s\"'(])(?:\./)?(?P<file>(?!https?://)[\w][\w./+-]{0,200}\.\w{1,8})"
    r"(?:\"?, line |:)(?P<line>\d{1,7})(?::\d+)?(?P<text>[^\n]{0,300})"
)


def _mentions(lines: Sequence[str]) -> Iterator[Place]:
    """`file:line` wherever it is mentioned."""
    for at, line in enumerate(lines):
        for match in _FILE_LINE.finditer(line):
            yield Place(at, match["file"], int(match["line"]), match["text"].strip(" :)\"'"))
