"""The one line that tells why: of gates' results, of logs as tools print them, of agents' last words."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from refinery.core.outputs import parsed
from refinery.core.telling import LIMIT, alike, last_line, last_words, of_gate

SAMPLES = Path(__file__).parent / "outputs"
SUB = """\
F.                                                                       [100%]
=================================== FAILURES ===================================
___________________________________ test_sub ___________________________________

    def test_sub():
>       assert sub(5, 3) == 2
E       assert 8 == 2
E        +  where 8 = sub(5, 3)

tests/test_core.py:11: AssertionError
=========================== short test summary info ============================
FAILED tests/test_core.py::test_sub - assert 8 == 2
1 failed, 1 passed in 0.02s
"""


def failed(output: str, name: str = "unit") -> str:
    return of_gate(name, "fail", "exit 1", {}, output)


def test_a_failed_test_is_told_with_its_place_its_name_and_what_was_wrong() -> None:
    line = "unit: tests/test_core.py:11 test_sub: assert 8 == 2"
    assert failed(SUB) == line
    assert failed(f"{SUB}make: *** [Makefile:3: test] Error 1\n") == line
    coloured = SUB.replace("E ", "\x1b[1m\x1b[31mE ").replace("== 2\n", "== 2\x1b[0m\n").replace("\n", "\r\n")
    assert failed(coloured) == line


def test_what_a_report_says_comes_first() -> None:
    one = {"name": "tests.test_core.test_sub", "message": "assert 8 == 2\n +  where", "file": "tests/test_core.py"}
    line = "unit: tests/test_core.py:11 test_sub: assert 8 == 2"
    assert of_gate("unit", "fail", "exit 1", {"failures": [one | {"line": 11}]}, "something else.py:3: x") == line
    nowhere = {"failures": [{"name": "suite › adds", "message": "Expected 4\n", "file": "", "line": None}]}
    assert of_gate("unit", "fail", "exit 1", nowhere, SUB) == "unit: suite › adds: Expected 4"
    in_class = {"failures": [one | {"name": "com.example.CalcTest.sub", "file": "src/CalcTest.java", "line": None}]}
    assert of_gate("unit", "fail", "exit 1", in_class, "") == "unit: src/CalcTest.java sub: assert 8 == 2"
    silent = {"failures": [{"name": "t", "message": "", "file": "", "line": None}]}
    assert of_gate("unit", "fail", "exit 1", silent, SUB) == line


@pytest.mark.parametrize("name", sorted(p.stem for p in SAMPLES.glob("*.txt") if p.stem != "other"))
def test_each_tool_is_told_by_its_first_failure(name: str) -> None:
    text = (SAMPLES / f"{name}.txt").read_text()
    first = parsed(text)[0]
    assert failed(text) == f"unit: {first['file']}:{first['line']} {first['text']}"


LOGS = {
    "a shell": ("checking\ngate.sh: line 3: pytets: command not found\nbye\n",
                "gate.sh: line 3: pytets: command not found"),
    "dash": ("sh: 1: npm: not found\n", "sh: 1: npm: not found"),
    "the trace of a shell": ("+ cd app\n+ test -f missing.txt\n+ echo app/missing.txt is missing\n"
                             "app/missing.txt is missing\n+ exit 1\n", "app/missing.txt is missing"),
    "make": ("cc -c main.c\nmain.o: in function `main': undefined reference to `foo'\n"
             "collect2: error: ld returned 1 exit status\nmake: *** [Makefile:3: all] Error 1\n",
             "main.o: in function `main': undefined reference to `foo'"),
    "make alone": ("make: *** No rule to make target 'test'.  Stop.\n",
                   "make: *** No rule to make target 'test'. Stop."),
    "nothing but make": ("make: *** [Makefile:3: test] Error 1\n", "make: *** [Makefile:3: test] Error 1"),
    "make within make": ("a test failed: x\nmake[1]: *** [Makefile:2: t] Error 1\nmake[1]: Leaving directory 'a'\n"
                         "make: *** [Makefile:3: test] Error 2\n", "a test failed: x"),
    "pytest without places": ("F  [100%]\nFAILED tests/test_a.py::test_sub - assert 8 == 2\n1 failed in 0.02s\n",
                              "FAILED tests/test_a.py::test_sub - assert 8 == 2"),
    "pytest is missing": ("/usr/bin/python3: No module named pytest\n", "/usr/bin/python3: No module named pytest"),
    "coverage": ("TOTAL 10 3 71%\nFAIL Required test coverage of 80% not reached. Total coverage: 71.43%\n"
                 "====== 4 passed in 0.10s ======\n",
                 "FAIL Required test coverage of 80% not reached. Total coverage: 71.43%"),
    "npm": ('npm error Missing script: "test"\nnpm error\nnpm error To see a list of scripts, run:\n'
            "npm error   npm run\nnpm error A complete log of this run can be found in: /r/.npm/_logs/x-debug-0.log\n",
            'npm error Missing script: "test"'),
    "npm, old": ("Error: Cannot find module './sum'\nnpm ERR! code 1\nnpm ERR! path /app\nnpm ERR! command failed\n"
                 "npm ERR! Test failed.  See above for more details.\n", "Error: Cannot find module './sum'"),
    "pnpm": ("x is not defined\n ELIFECYCLE  Test failed. See above for more details.\n", "x is not defined"),
    "yarn": ("Type error: bad\nerror Command failed with exit code 1.\ninfo Visit https://yarnpkg.com/en/docs/cli/run "
             "for documentation about this command.\n", "Type error: bad"),
    "an own script": ("checking a.txt\nchecking b.txt\nb.txt: the header is wrong\n", "b.txt: the header is wrong"),
    "good news below": ("error: the lock file is out of date\nlint: 0 errors\nall files checked\n",
                        "error: the lock file is out of date"),
    "a warning below": ("Error: port 80 is taken\nwarning: deprecated option, cannot be used in 2.0\n",
                        "Error: port 80 is taken"),
    "a progress bar": ("fetching\nerror: out of space\nDownloading [======>     ] 45%\rDownloading [=========>] 80%\n",
                       "error: out of space"),
    "bars and spinners": ("broken pipe in stage 2\n 45%|████▌     | 45/100\n⠙ waiting\n", "broken pipe in stage 2"),
    "a stack of JavaScript": ("ReferenceError: foo is not defined\n    at Object.<anonymous> (/a/b.js:1:1)\n"
                              "    at node:internal/main/run_main_module:28:49\n\nNode.js v20.1.0\n",
                              "ReferenceError: foo is not defined"),
    "ruby": ("Failures:\n\n  1) Calc adds\n     Failure/Error: expect(1).to eq 2\n       expected: 2\n       got: 1\n"
             "     # ./spec/calc_spec.rb:6:in `block'\n\nFinished in 0.01 seconds\n1 example, 1 failure\n",
             "expected: 2"),
    "exit codes": ("the schema does not match\nscript returned exit code 3\nprocess exited with code 1\n",
                   "the schema does not match"),
    "a killed one": ("Killed\n", "Killed"),
    "blank and rulers": ("it broke\n\n-----------\n\n   \n", "it broke"),
    "nothing": ("\n \n---\n", ""),
}  # fmt: skip


@pytest.mark.parametrize("what", sorted(LOGS))
def test_the_last_telling_line_of_a_log(what: str) -> None:
    log, line = LOGS[what]
    assert last_line(log) == line
    assert last_line(log.replace("\n", "\r\n")) == line
    assert last_line(f"\x1b[31m{log}\x1b[0m") == line


def test_an_error_says_how_it_ended_and_what_was_said_last() -> None:
    how = "exit 127 (command not found)"
    line = of_gate("unit", "error", how, {}, "sh: 1: pytest: not found\n")
    assert line == "unit: exit 127 (command not found): sh: 1: pytest: not found"
    assert of_gate("unit", "error", "timed out", {}, "") == "unit: timed out"
    hint = 'this gate has no network: say network = "open" in its config'
    assert of_gate("ci", "error", "exit 126", {}, f"npm error code EAI_AGAIN\n{hint}\n") == f"ci: exit 126: {hint}"


def test_a_gate_that_says_nothing_and_a_gate_that_passed() -> None:
    assert failed("") == "unit: exit 1, and it printed nothing"
    assert of_gate("unit", "pass", "exit 0", {}, SUB) == ""


def test_hostile_output_stays_one_harmless_short_line() -> None:
    line = failed("error: \u202eevil\u202c\x07 \x1b]0;title\x07and \x1b[2Jmore\n")
    assert line == "unit: error: ⟨U+202E⟩evil⟨U+202C⟩⟨U+0007⟩ and more"
    long = failed(f"error: {'x' * 5000}\n", name="a gate\nof many lines " + "y" * 500)
    assert len(long) == LIMIT and "\n" not in long and long.startswith("a gate: error: xxx") and long.endswith("…")
    assert len(failed(SUB, name="n" * 300)) <= LIMIT


@pytest.mark.parametrize("text", ["error " * 40000, "=" * 60000, "a?" * 30000, '{"a":' * 20000, "\r" * 60000,
                                  "Should I " * 8000, "not ok 1 x\n" * 5000, "(((" * 20000])  # fmt: skip
def test_no_log_takes_long_to_read(text: str) -> None:
    began = time.monotonic()
    assert len(failed(text)) <= LIMIT and len(last_words(text)) <= LIMIT
    assert time.monotonic() - began < 3


# -- agents ---------------------------------------------------------------------------------------------------------

ROOT = "--dangerously-skip-permissions cannot be used with root/sudo privileges for security reasons"


def said(*events: object) -> str:
    return "".join(f"{json.dumps(event)}\n" for event in events)


WORDS = {
    "a set-up error": (f"{ROOT}\n", ROOT),
    "a question": ("I looked at the code.\nThere are two ways. Should I keep the old format?\n",
                   "Should I keep the old format?"),
    "a question of many": ("Done with the first part.\n\nDo you want me to delete the table? Or should I keep it?\n",
                           "Do you want me to delete the table? Or should I keep it?"),
    "a question before thanks": ("Which of the two APIs should be used?\n\nThank you.\n",
                                 "Which of the two APIs should be used?"),
    "a marked question": ("- **Should the column be nullable?**\n", "Should the column be nullable?"),
    "an error after a question": ("Shall I go on?\nError: Connection lost\n", "Error: Connection lost"),
    "no question": ("error: unknown option '--prnt'\n(Did you mean --print?)\n", "error: unknown option '--prnt'"),
    "stream-json of a result": (
        said({"type": "system", "subtype": "init", "cwd": "/x", "message": "hello"},
             {"type": "assistant", "message": {"content": [{"type": "text", "text": "Let me look."}]}},
             {"type": "result", "subtype": "error_during_execution", "is_error": True,
              "result": "Invalid API key · Please run /login", "session_id": "abc"}),
        "Invalid API key · Please run /login"),
    "stream-json of words": (
        said({"type": "assistant", "message": {"role": "assistant", "content": [
                 {"type": "text", "text": "I see.\nShould I change the public API?"}]}},
             {"type": "user", "message": {"content": [{"type": "tool_result", "content": "a.txt: error"}]}}),
        "Should I change the public API?"),
    "an error in an error": (
        said({"type": "turn.failed", "error": {"message": "unexpected status 401 Unauthorized"}}),
        "unexpected status 401 Unauthorized"),
    "an item": (said({"type": "item.completed", "item": {"type": "agent_message", "text": "I cannot write here."}},
                     {"type": "turn.completed", "usage": {"input_tokens": 3}}), "I cannot write here."),
    "a part": (said({"type": "error", "error": {"name": "ProviderAuthError", "data": {"message": "no key for x"}}}),
               "no key for x"),
    "a line cut at its start": ('ext":"the disk"},{"type":"text","text":"I looked.\\nI stop."}]}}\n', "I stop."),
    "words and JSON": ("starting\n" + said({"level": "info", "msg": "ready"}) + "fatal: no model is set\n",
                       "fatal: no model is set"),
    "JSON that says nothing": (said({"usage": {"input": 1}}), ""),
    "nothing": ("", ""),
}  # fmt: skip


@pytest.mark.parametrize("what", sorted(WORDS))
def test_o9_the_last_words_of_an_agent(what: str) -> None:
    log, line = WORDS[what]
    assert last_words(log) == line


def test_o9_what_differs_each_time_does_not_make_it_another_error() -> None:
    one = "2026-05-04T10:11:12.5Z [run-7x2k9fq3] request req_011CSHoEeqs5C35K2UUqR7Fy failed after 31 ms: no key"
    two = "2026-05-04T10:16:44Z [run-a81bb2c0] request req_011CSHoEfqt6D46L3VVrS8Gz failed after 1,207 ms: no key"
    assert alike(one) == alike(two)
    assert alike(one) != alike(one.replace("no key", "no model"))
    assert alike("pid 4711: /tmp/a1b2c3d4e5f6g7/x") == alike("pid 12: /tmp/b9b2c3d4e5f6z7/x")
