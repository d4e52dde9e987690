"""The one line that tells a person why something failed: of a gate's results, of a log, of an agent's last words. Pure.

What a tool reports about its first failure comes first; else the last line of the log that says something: not a
summary, not a progress bar, not the trace of a shell, and not `make: *** [test] Error 1` where a better line is above.
All that is given back is harmless text on one line, at most `LIMIT` characters long.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from refinery.core.outputs import parsed
from refinery.core.states import GateOutcome
from refinery.core.text import sanitize

LIMIT = 200
NAME_LIMIT = 60
LOOKED_AT = 400  # lines from the end of a log
_CUT = 32 * 1024  # characters from the end of a log


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.I)


# A line that says what is wrong, in the words that tools use for it.
_TELLING = _any(
    r"error|fail|fatal|panic|assert|exception|traceback|violat|conflict|overflow|mismatch|✖|✗|✘|not ok\b",
    r"not found|no such|missing|cannot|can not|can['’]?t\b|could ?n[o'’]t|could not|unable|does not|doesn['’]t",
    r"unknown|undefined|undeclared|unresolved|unexpected|unrecognized|unsupported|invalid|illegal|expected",
    r"denied|refused|forbidden|unauthor|expired|not allowed|not permitted|must (?:be|not)|requires?\b|required",
    r"too (?:many|long|large|big)|no space|no network|out of memory|killed|aborted|core dumped|segmentation",
    r"timed? ?out|is not|isn['’]t|not (?:installed|supported|available|valid|logged|set|defined)",
)
# Good news in the same words, and what is only a warning.
_HARMLESS = _any(
    r"\b(?:0|no|zero) (?:errors?|failures?|failed|failing|problems?)\b",
    r"\b(?:errors?|failures?|failed)\s*[:=]\s*0\b(?!\.)",
    r"^\W*(?:\[?warn(?:ing)?\b|npm warn|note:|hint:|info\b|debug\b|deprecat)",
    r"^(?:not )?ok \d+ .*# (?:todo|skip)",
)
# What stands at the end of many logs and says only that something above went wrong. A new tool is a row.
_SUMMARIES = {
    "any": r"^(?:FAIL|PASS|ERROR|OK|FAILED|FAILURE|FAILURES!|ERRORS!)[.:!]?$|^Finished in |^exit status \d+$|"
    r"(?:exit(?:ed)?|return(?:ed)?|non-zero|status|finished)\b[^.]{0,30}\b(?:code|status)\b:? ?\d+\W*$",
    "pytest": r"^(?:=+|!+) .* (?:=+|!+)$|^\d+ (?:passed|failed|errors?|skipped|warnings?)\b.*\bin [\d.]+ ?m?s",
    "Python": r"^Traceback \(most recent call last\)|^The above exception|^FAILED \((?:failures|errors|skipped|un|exp)|"
    r"^Ran \d+ tests? in ",
    "ruff, mypy, tsc": r"fixable with the `--fix`|^No fixes available|^Found \d+ (?:errors?|issues?|problems?)\b",
    "go": r"^(?:FAIL|ok|PASS)\s+\S+\s+(?:[\d.]+m?s|\(cached\)|\[[\w ]+\])$|^FAIL\s+\S+$",
    "jest, vitest": r"^\s*(?:Tests?|Test Suites?|Test Files|Snapshots?|Time|Duration|Start at)\b[:\s.]|"
    r"^Ran all test suites|^Test suite failed to run$",
    "mocha": r"^\s*\d+ (?:passing|failing|pending)\b",
    "node --test": r"^(?:# |ℹ )(?:tests|suites|pass|fail|cancelled|skipped|todo|duration_ms)\b|^✖ failing tests:",
    "eslint": r"^✖ \d+ problems?|\bpotentially fixable with\b",
    "npm": r"^npm (?:ERR!|error)(?:\s*$|  | code (?!E)| errno| path | command | Exit status| Lifecycle script|"
    r" A complete log| Test failed\.| Failed at the | This is (?:probably not|related to npm not)| syscall| workspace |"
    r" location | signal | in workspace| To see a list| Did you mean| If you need help)",
    "pnpm, yarn": r"\s*ELIFECYCLE\b|^ ?ERR_PNPM_RECURSIVE|^error Command failed with exit code|^info Visit https",
    "cargo": r"^test result: |^error: (?:test failed, to rerun|aborting due to|could not compile|\d+ targets? failed)|"
    r"^(?:error|warning): build failed|^Some errors have detailed|^For more information about|^failures:$|"
    r"^note: run with `RUST_BACKTRACE|^stack backtrace:",
    "gcc, clang": r"^collect2: error: ld returned|^(?:clang|ld): error: linker command failed|"
    r"^\d+ (?:errors?|warnings?)(?: and \d+ (?:errors?|warnings?))?(?: generated| found)?\.?$",
    "make, ninja": r"^g?make(?:\[\d+\])?: (?:\*\*\* \[.*\] (?:Error|Terminated|Killed|Hangup|Interrupt)|Leaving|"
    r"Entering|Target .* not remade)|^ninja: build stopped",
    "maven": r"^\[(?:ERROR|INFO|WARNING)\]\s*(?:$|Tests run:|Failures:\s*$|Errors:\s*$|BUILD |-> \[Help|\[Help|  mvn |"
    r"To see the full|Re-run |For more information|Please refer|There are test failures|See |After correcting|-{5}|"
    r"Failed to execute goal .*(?:There are test failures|Compilation failure\W*$)|COMPILATION ERROR|\d+ errors?\s*$)",
    "gradle": r"^BUILD FAILED|^FAILURE: Build failed|^\* (?:Try|What went wrong|Get more help|Where|Exception is)|"
    r"^> (?:Run with|Get more help|There were failing tests|Task :\S+ FAILED|Compilation failed; see)|"
    r"^Execution failed for task|^\d+ tests? completed, \d+ failed|^\d+ actionable tasks?|^Caused by:$",
    "bats, rspec, phpunit": r"^\d+ (?:examples?|tests?), \d+ failures?|^Tests: \d+, Assertions",
}
_SUMMARY = _any(*_SUMMARIES.values())
# Frames of stacks, quoted code and pointers, and what a diff shows.
_DETAIL = _any(
    r"^\s*at (?:.+:\d+|async |new |<anonymous>|.+\((?:native|.+:\d+)\)?)|^goroutine \d+|^\t|^\s*# \./",
    r'^\s*File "[^"]+", line \d+|^\s*in <module>$|^\s+\d+: \S|^[\w./*()]+\((?:\{?0x|\.\.\.)',
    r"^\s*\d+\s*[|│]|^\s*[|│^~]|^\s*[❯>]\s*\d+\s*[|│]|^\s*❯ |^\s*-->|^\s*[-+] |^\s*\.\.\.",
    r"^\s*(?:code|name|operator|stack|failureType|duration_ms|location): ",
)
_PROGRESS = _any(
    r"[█▉▊▋▌▍▎▏░▒▓━⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏]|\d{1,3}%\s*[|\[(]|[|\[]\s*[=#>.\- ]{5,}[|\]]|^\s*\d{1,3}(?:\.\d+)?%",
    r"^[.FEsxX]+\s*\[\s*\d+%\]$",
    r"^(?:remote: )?(?:receiving|counting|compressing|resolving|writing|unpacking|updating) \w+:\s+\d+%",
    r"^\s*(?:downloading|downloaded|fetching|progress)\b[^:]*(?:\d+%|[\d.]+ ?[kmg]i?b)",
)
_TRACE = re.compile(r"^\++ \S")


def lines_of(text: str) -> list[str]:
    """The last lines of a log as a terminal would have left them: no escape sequences, each with words in it."""
    shown = sanitize(_overwritten(text[-_CUT:]))
    return [line for line in shown.split("\n")[-LOOKED_AT:] if any(c.isalnum() for c in line)]


def _overwritten(text: str) -> str:
    """What is left of lines that return to their start: progress bars show their last state."""
    rows = text.replace("\r\n", "\n").split("\n")
    return "\n".join(next((part for part in reversed(row.split("\r")) if part.strip()), "") for row in rows)


def short(text: str, limit: int = LIMIT) -> str:
    """On one line, at most so long."""
    text = " ".join(text.split())
    if len(text) <= limit:
        return text
    return f"{text[: limit - 1].rstrip()}…"


def led_by(mark: str, text: str) -> str:
    """`text` with a mark before it, such as `: `; nothing where there is no text."""
    return text and mark + text


def last_line(log: str) -> str:
    """The last line of a log that tells what went wrong; else the last that says anything; empty where none does."""
    return short(_pick(lines_of(log)))


def _pick(lines: Sequence[str]) -> str:
    said = [line for line in lines if not _noise(line)]
    telling = (line for line in reversed(said) if _wrong(line))
    any_ = (line for line in reversed(said) if not _TRACE.match(line) and not _DETAIL.search(line))
    rest = (line for line in reversed(lines) if not _PROGRESS.search(line) and not _TRACE.match(line))
    for found in (*telling, *any_, *rest):
        return re.sub(r"^(?:E\s{2,}|# {1,3}|\s+)", "", found)
    return "".join(lines[-1:])


def _noise(line: str) -> bool:
    return bool(_SUMMARY.search(line.strip()) or _PROGRESS.search(line))


def _wrong(line: str) -> bool:
    """True when a line says, in itself, that something is wrong."""
    return bool(
        _TELLING.search(line) and not _HARMLESS.search(line) and not _TRACE.match(line) and not _DETAIL.search(line)
    )


# -- gates ----------------------------------------------------------------------------------------------------------


def of_gate(gate: str, outcome: str, how: str, tests: Mapping[str, Any], output: str) -> str:
    """`unit: tests/test_core.py:11 test_sub: assert 8 == 2`: why a gate did not pass. `how`: how it ended.

    A *fail* is told by its first failed test (reports, then output), else by its log; an *error* by how it ended and
    the log's last telling line. Empty for a pass.
    """
    if outcome == GateOutcome.PASS:
        return ""
    name = short(sanitize(gate.strip().split("\n")[0]), NAME_LIMIT)
    if outcome == GateOutcome.ERROR:
        said = last_line(output)
        if said not in how:
            how = f"{how}: {said}"
        return short(f"{name}: {how}")
    return short(f"{name}: {sanitize(_first(tests, output)) or last_line(output) or f'{how}, and it printed nothing'}")


def _first(tests: Mapping[str, Any], output: str) -> str:
    """The first failure that a report or the output tells of, with its place."""
    for one in tests.get("failures") or []:
        message = next((line for line in str(one.get("message") or "").splitlines() if line.strip()), "")
        if message or one.get("file"):
            place = _place(one.get("file") or "", one.get("line"))
            return f"{place}{_without_module(str(one['name']), one.get('file') or '')}: {message}".rstrip(": ")
    for found in parsed(output):
        return f"{_place(found['file'], found['line'])}{found['text']}".rstrip()
    return ""


def _place(file: str, line: int | None) -> str:
    if not file:
        return ""
    if line is not None:
        file = f"{file}:{line}"
    return f"{file} "


def _without_module(name: str, file: str) -> str:
    """A test's name without what its file says anyway."""
    stem = file.rpartition("/")[2].partition(".")[0]
    if not stem or not re.search(rf"(?:^|\.){re.escape(stem)}\.", name):
        return name
    return name.partition(f"{stem}.")[2] or name


def of_rework(cause: str, context: Mapping[str, Any]) -> str:
    """What a rework is about, in one line: why the gates failed, or what the reviewer's feedback begins with."""
    if cause == "gates":
        results = context.get("gate_results") or []
        return "; ".join(f"{r['telling']} (run {r['run']})" for r in results if r["telling"])
    return short(next(iter(str((context.get("rework") or {}).get("feedback") or "").strip().splitlines()), ""))


# -- agents ---------------------------------------------------------------------------------------------------------

_ASKS = re.compile(
    r"(?:^|(?<=[.!?:;]\s)|(?<=\*\*)|(?<=[-*•>] ))"
    r"(?P<said>(?:should|shall|may|can|could|would|will|do|does|did|is|are|am|which|what|where|when|who|how|why|please|"
    r"want|ok|okay|proceed|continue|confirm|or|if|before|to confirm|one question|question)\b[^?\n]{2,400}\?)",
    re.I,
)
_NO_QUESTION = re.compile(
    r"^(?:did you mean|what went wrong|what happened|is the .* running|are you sure you have)", re.I
)
_LAST_WORDS = 12  # lines in which a question still counts as the last word
# The fields in which agents that print JSON say something, the most telling first.
_FIELDS = (
    "error",
    "result",
    "message",
    "text",
    "content",
    "response",
    "item",
    "part",
    "data",
    "delta",
    "errors",
    "msg",
)
_BROKEN = re.compile(r'"(?:result|message|error|text)"\s*:\s*"((?:[^"\\]|\\.){1,4000})"?')
_OTHERS = frozenset({"user", "system", "tool_use", "tool_result", "session.created", "ping"})


def last_words(log: str) -> str:
    """What an agent has said last, in one line: a question that it asked, else the last telling line of its log.

    Of lines that are JSON only the words count.
    """
    lines = [line for row in lines_of(log) for line in _worded(row) if any(c.isalnum() for c in line)]
    end = lines[-_LAST_WORDS:]
    for at in range(len(end) - 1, -1, -1):
        if asked := [m["said"] for m in _ASKS.finditer(end[at]) if not _NO_QUESTION.match(m["said"])]:
            return short(" ".join(asked[-2:]))
        if _is_error(end[at]):
            break
    return short(_pick(lines))


def of_steps(steps: Sequence[Mapping[str, Any]]) -> str:
    """What the command of a run has said last, by its steps' results: often it is why it ended."""
    return of_transcript(steps) or _of_last(steps, "output")


def of_transcript(steps: Sequence[Mapping[str, Any]]) -> str:
    """What an agent has said last, where its run has a transcript; else empty. Not what its program has printed."""
    return _of_last(steps, "words")


def _of_last(steps: Sequence[Mapping[str, Any]], name: str) -> str:
    if not steps:
        return ""
    return last_words(str(steps[-1].get(name) or ""))


def _is_error(line: str) -> bool:
    """True for a line that is a program's and not an agent's: nothing asked above it was the last word."""
    return bool(re.match(r"\s*\W{0,3}(?:\w+ )?(?:[\w.]*(?:error|exception|fatal|panic|traceback))\b", line, re.I))


def _worded(row: str) -> Iterator[str]:
    """The words of a line of output: itself, or, where it is JSON, what it says."""
    text = row.strip()
    if not (text.startswith("{") or ('":"' in text and text.endswith("}"))):
        yield row
        return
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        if said := [_unescaped(m) for m in _BROKEN.findall(text)]:
            yield from said[-1].split("\n")
        elif '":"' not in text:
            yield row
        return
    yield from (_words(told) or "").split("\n")


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return text


def _words(told: Any, depth: int = 0) -> str:
    """What a JSON value says, or an empty string."""
    if isinstance(told, str):
        return sanitize(told)
    if depth > 6:
        return ""
    if isinstance(told, list):
        return next((said for one in reversed(told[-20:]) if (said := _words(one, depth + 1))), "")
    if not isinstance(told, dict) or str(told.get("type")) in _OTHERS:
        return ""
    for name in _FIELDS:
        if (value := told.get(name)) and (said := _words(value, depth + 1)):
            return said
    return ""


# -- the same again -------------------------------------------------------------------------------------------------

_VARYING = re.compile(
    r"\b\d{4}-\d\d-\d\d[T ][\d:.,]+(?:Z|[+-]\d\d:?\d\d)?|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|"
    r"\b(?:run|gt|req|msg|id)[-_]\w+|\b(?=\w*\d)[0-9a-z]{12,}\b|\b0x[0-9a-f]+\b|\d+(?:[.,:]\d+)*",
    re.I,
)


def alike(line: str) -> str:
    """A line without what differs from one time to the next: numbers, times, ids."""
    return " ".join(_VARYING.sub("#", line).casefold().split())
