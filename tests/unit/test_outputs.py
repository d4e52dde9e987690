"""What tools said when something failed (real outputs, in `outputs/`) → files, lines and messages."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from refinery.core.outputs import MAX_FAILURES, first_failures, plain

SAMPLES = Path(__file__).parent / "outputs"
RUFF = [
    ("src/bad.py", 2, "invalid-syntax: Expected a parameter or the end of the parameter list"),
    ("src/calc.py", 1, "I001 [*] Import block is un-sorted or un-formatted"),
    ("src/typed.py", 6, "F821 Undefined name `undefined`"),
]
PYTEST = {
    "many": ("tests/test_math.py", 16, "test_many[2]: AssertionError: assert {'a': 2} == {'a': 1}"),
    "add": ("tests/test_math.py", 5, "test_add: assert 3 == 4"),
    "divide": ("src/calc.py", 8, "test_divide: ZeroDivisionError: division by zero"),
}
TSC = [
    ("src/index.ts", 1, "TS2322: Type 'number' is not assignable to type 'string'."),
    ("src/index.ts", 3, "TS2345: Argument of type 'string' is not assignable to parameter of type 'number'."),
]
EXPECTED = {
    "pytest": [PYTEST["many"], PYTEST["add"], PYTEST["divide"]],
    "pytest_short": [PYTEST["divide"], PYTEST["add"], PYTEST["many"]],
    "pytest_collect": [
        (
            "tests/test_broken.py",
            1,
            "ERROR collecting tests/test_broken.py: ModuleNotFoundError: No module named 'nothere'",
        )
    ],
    "unittest": [
        ("src/calc.py", 8, "test_divide: ZeroDivisionError: division by zero"),
        ("checks/test_unit.py", 7, "test_add: AssertionError: 3 != 4"),
    ],
    "py_compile": [("src/bad.py", 2, "SyntaxError: invalid syntax")],
    "ruff": RUFF,
    "ruff_concise": [RUFF[0], ("src/bad.py", 3, "invalid-syntax: unexpected EOF while parsing"), *RUFF[1:]],
    "mypy": [
        ("src/typed.py", 2, 'Incompatible return value type (got "int", expected "str") [return-value]'),
        (
            "src/typed.py",
            5,
            'Incompatible types in assignment (expression has type "str", variable has type "int") [assignment]',
        ),
        ("src/typed.py", 6, 'Name "undefined" is not defined [name-defined]'),
    ],
    "mypy_pretty": [
        ("src/typed.py", 2, 'Incompatible return value type (got "int", expected'),
        ("src/typed.py", 5, "Incompatible types in assignment (expression has type"),
        ("src/typed.py", 6, 'Name "undefined" is not defined [name-defined]'),
    ],
    "gcc": [("src/main.c", 4, "‘missing’ undeclared (first use in this function)")],
    "clang": [
        ("src/main.cpp", 4, "use of undeclared identifier 'missing'"),
        ("src/main.cpp", 1, "'nothere.h' file not found"),
    ],
    "go_test": [
        ("math_test.go", 10, "TestAdd: Add(1, 2) = 3; want 4"),
        ("math_test.go", 31, "TestTable/negative_numbers: Not equal:"),
    ],
    "go_test_v": [
        ("math_test.go", 10, "TestAdd: Add(1, 2) = 3; want 4"),
        ("math/math.go", 9, "panic: runtime error: index out of range [5] with length 3 [recovered]"),
    ],
    "go_build": [
        ("math.go", 5, "undefined: missing"),
        ("math/other.go", 12, '"os" imported and not used'),
        ("vetted/x.go", 3, "expected declaration, found funk"),
    ],
    "rustc": [
        ("src/lib.rs", 5, "error[E0425]: cannot find value `missing` in this scope"),
        ("src/lib.rs", 9, "error[E0308]: mismatched types"),
    ],
    "cargo_test": [
        ("src/lib.rs", 17, "tests::it_is_there: only 3 of them"),
        ("src/lib.rs", 11, "tests::it_adds: assertion `left == right` failed"),
    ],
    "cargo_test_old": [("src/lib.rs", 20, "tests::plain: not yet")],
    "jest": [
        (
            "src/sum.test.js",
            4,
            "adds 1 + 2 to equal 3: expect(received).toBe(expected) // Object.is equality Expected: 4 Received: 3",
        ),
        ("src/sum.js", 2, "deep › does not throw: TypeError: no such thing"),
        ("src/broken.test.js", 2, "Test suite failed to run: SyntaxError: src/broken.test.js: Unexpected token"),
    ],
    "vitest": [
        ("src/v.spec.mjs", 6, "numbers > adds 1 + 2: AssertionError: expected 3 to be 4 // Object.is equality"),
        ("src/v.mjs", 2, "numbers > does not throw: TypeError: no such thing"),
    ],
    "eslint": [("src/lint.js", 3, "'y' is never reassigned. Use 'const' instead prefer-const")],
    "tsc": TSC,
    "tsc_pretty": TSC,
    "mocha": [
        (
            "test/calc.spec.js",
            11,
            "Calculator › subtracts: AssertionError [ERR_ASSERTION]: Expected values to be strictly equal: 8 !== 2",
        ),
        ("test/calc.spec.js", 17, "Calculator › nested › divides: TypeError: calc.divide is not a function"),
        (
            "test/alone.spec.js",
            3,
            'stands alone: Error: Timeout of 2000ms exceeded. For async tests and hooks, ensure "done()" is called.',
        ),
    ],
    "node_tap": [
        ("test/calc.test.js", 7, "subtracts: Expected values to be strictly equal: 8 !== 2"),
        ("test/calc.test.js", 10, "throws: no such thing"),
    ],
    "node_spec": [
        (
            "test/calc.test.js",
            7,
            "subtracts: AssertionError [ERR_ASSERTION]: Expected values to be strictly equal: 8 !== 2",
        ),
        ("test/calc.test.js", 10, "throws: TypeError [Error]: no such thing"),
    ],
    "bats": [
        ("test/calc.bats", 11, 'subtracts: `[ "$result" -eq 2 ]\' failed'),
        ("test/calc.bats", 16, 'divides: `assert_equal "$result" 3\' failed'),
    ],
    "bats_pretty": [("test/calc.bats", 11, 'subtracts: `[ "$result" -eq 2 ]\' failed')],
    "maven": [("CalcTest.java", 11, "subtracts: expected: <2> but was: <8>")],
    "maven_compile": [("src/main/java/com/example/Calc.java", 5, "cannot find symbol")],
    "gradle": [
        (
            "CalcTest.java",
            11,
            "CalcTest > subtracts(): org.opentest4j.AssertionFailedError: expected: <2> but was: <8>",
        ),
        ("OtherTest.java", 9, "OtherTest > divides(): java.lang.ArithmeticException"),
    ],
    "other": [("config/app.yaml", 12, "unknown key 'colour"), ("lib/thing.rb", 7, "deprecated")],
}


def places(text: str) -> list[tuple[str, int, str]]:
    return [(f["file"], f["line"], f["text"]) for f in first_failures(text)]


def sample(name: str) -> str:
    return (SAMPLES / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_each_tools_failures_are_found_where_they_are(name: str) -> None:
    assert places(sample(name)) == EXPECTED[name]
    assert places(sample(name).replace("\n", "\r\n")) == EXPECTED[name]


def test_each_sample_has_its_expectation() -> None:
    assert {p.stem for p in SAMPLES.glob("*.txt")} == set(EXPECTED)


def test_several_tools_in_one_output_keep_its_order() -> None:
    names = ("tsc", "pytest", "rustc", "jest")
    assert places("\n".join(sample(n) for n in names)) == [p for n in names for p in EXPECTED[n]]


def test_colours_are_no_part_of_a_message() -> None:
    assert "\x1b" in sample("vitest") and "\x1b" not in plain(sample("vitest"))
    assert plain("a\x1b]8;;https://x.example\x1b\\link\x1b]8;;\x1b\\ \x1b[1;31mred\x1b[0m") == "alink red"


def test_warnings_and_remarks_are_no_failures() -> None:
    text = "a.py:1: note: see\nb.c:2:3: warning: unused\nc.py:3: error: wrong\n"
    assert places(text) == [("c.py", 3, "wrong")]


def test_paths_with_brackets_and_spaces() -> None:
    assert places("app/(shop)/[id]/page.tsx(3,7): error TS1005: ';' expected.") == [
        ("app/(shop)/[id]/page.tsx", 3, "TS1005: ';' expected.")
    ]
    assert places("my dir/a b.py:3: error: wrong") == [("my dir/a b.py", 3, "wrong")]


HOSTILE = [("a", 60000), ("(", 60000), ("a:1:", 15000), (" at (", 12000), ("___ ", 15000), ("\x1b]", 30000),
           ("--- FAIL: x\n", 5000), ('  File "', 7000), ("❯ a", 15000)]  # fmt: skip


@pytest.mark.parametrize("text", [word * times for word, times in HOSTILE])
def test_no_output_takes_long_to_read(text: str) -> None:
    began = time.process_time()
    assert len(first_failures(text)) <= MAX_FAILURES
    first_failures(text.replace("a", "a\n"))
    assert time.process_time() - began < 2
