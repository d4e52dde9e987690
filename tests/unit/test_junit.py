"""JUnit reports: what tools write is counted; what would harm is a note. And what makes a test flaky."""

from __future__ import annotations

import base64
import os
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from agents import reports
from agents.runtime import junit
from refinery.store.flakiness import mixed, unsteady


def report(text: str | bytes, path: str = "r.xml") -> dict[str, str]:
    data = text if isinstance(text, bytes) else text.encode()
    return {"path": path, "data": base64.b64encode(zlib.compress(data)).decode()}


def read(*texts: str | bytes) -> dict[str, Any]:
    return reports.read([report(text) for text in texts])


PYTEST = """<?xml version="1.0" encoding="utf-8"?><testsuites name="pytest tests"><testsuite name="pytest" errors="0"
failures="1" skipped="1" tests="3" time="0.1"><testcase classname="tests.test_math" name="test_add" time="0.001">
<failure message="assert 3 == 4&#10; +  where 3 = add(1, 2)">def test_add():
&gt;       assert add(1, 2) == 4
E       assert 3 == 4

tests/test_math.py:5: AssertionError</failure></testcase><testcase classname="tests.test_math" name="test_ok"/>
<testcase classname="tests.test_math" name="test_later"><skipped type="pytest.skip" message="l"/></testcase>
</testsuite></testsuites>"""
SUREFIRE = """<testsuite xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" name="org.example.SumTest" tests="2">
<testcase name="adds" classname="org.example.SumTest" time="0.01"><flakyFailure message="once" type="x">y</flakyFailure>
</testcase><testcase name="boom" classname="org.example.SumTest"><error message="java.lang.IllegalStateException"
type="java.lang.IllegalStateException"><![CDATA[at org.example.Sum.boom(Sum.java:9)]]></error></testcase></testsuite>"""
JEST = """<testsuites name="jest tests" tests="1" failures="1"><testsuite name="deep" errors="0" failures="1" tests="1">
<testcase classname="deep does not throw" name="deep does not throw" time="0.004" file="src/sum.test.js">
<failure>TypeError: no such thing</failure></testcase></testsuite></testsuites>"""


def test_what_tools_write_is_counted_and_failures_are_kept() -> None:
    found = read(PYTEST)
    assert (found["total"], found["failed"], found["skipped"], found["notes"]) == (3, 1, 1, [])
    (failure,) = found["failures"]
    assert failure["name"] == "tests.test_math.test_add"
    assert failure["message"].startswith("assert 3 == 4\n +  where")
    assert "tests/test_math.py:5: AssertionError" in failure["text"]


def test_several_reports_are_one_sum_and_a_tools_own_flaky_marks_count() -> None:
    found = read(PYTEST, SUREFIRE, JEST)
    assert (found["total"], found["failed"], found["flaky"]) == (6, 3, ["org.example.SumTest.adds"])
    assert [f["name"] for f in found["failures"]][1:] == ["org.example.SumTest.boom", "deep does not throw"]
    assert found["failures"][2]["file"] == "src/sum.test.js"


LAUGHS = "".join(f'<!ENTITY a{n + 1} "{f"&a{n};" * 10}">' for n in range(9))


@pytest.mark.parametrize(
    ("text", "needle"),
    [
        (f'<!DOCTYPE x [<!ENTITY a0 "ha">{LAUGHS}]><testsuite><testcase name="&a9;"/></testsuite>', "entities"),
        ('<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><testsuite>&e;</testsuite>', "entities"),
        ('<!DOCTYPE x [<!ENTITY % p SYSTEM "http://x.example/">%p;]><testsuite/>', "entities"),
        ("<testsuite><testcase name='cut off'", "not well-formed"),
        ("no XML at all", "not well-formed"),
        ("", "not well-formed"),
        (b"\x00\x01\x02", "not well-formed"),
        ('<?xml version="1.0" encoding="no-such"?><testsuite/>', "r.xml: "),
        ("<a>" * 100_000, "nested too deeply"),
        ("<testsuite>" + " " * (junit.MAX_FILE + 1) + "</testsuite>", "too large"),
    ],
)
def test_what_would_harm_is_a_note_and_the_rest_is_read(text: str | bytes, needle: str) -> None:
    began = time.process_time()
    found = read(text, PYTEST)
    assert time.process_time() - began < 3
    assert needle in found["notes"][0]
    assert found["total"] >= 3


def test_damaged_and_endless_reports_are_notes() -> None:
    bad = [{"path": "a", "data": "%%%"}, {"path": "b", "data": base64.b64encode(b"no zlib").decode()}]
    assert [n.split(": ")[1] for n in reports.read(bad)["notes"]] == ["arrived damaged", "arrived damaged"]
    cut = base64.b64encode(zlib.compress(b"<testsuite/>" * 50)[:-9]).decode()
    assert "too large" in reports.read([{"path": "c", "data": cut}])["notes"][0]
    assert reports.read([]) == {}


def test_many_bombs_at_once_have_one_bound_together() -> None:
    steps: list[Any] = [
        {"tries": [{"reports": [report(b"<a>" + b" " * junit.MAX_FILE)] * 3, "note": ""}]} for _ in range(50)
    ]
    began = time.process_time()
    reports.read_steps(steps)
    assert time.process_time() - began < 5
    assert all("too large" in step["tries"][0]["tests"]["notes"][0] for step in steps)


def test_a_huge_suite_is_counted_whole_and_shown_in_part() -> None:
    cases = "".join(f"<testcase name='t{n}'><failure>{'x' * 50}</failure></testcase>" for n in range(5000))
    found = read(f"<testsuite>{cases}</testsuite>")
    assert (found["total"], found["failed"], len(found["failures"])) == (5000, 5000, reports.MAX_FAILURES)


def test_text_that_no_database_takes_is_made_harmless() -> None:
    found = read("<testsuite><testcase name='a'><failure message='&#13;&#x85;'/></testcase></testsuite>")
    assert "\x00" not in found["failures"][0]["message"]


def test_the_collector_follows_no_links_and_opens_only_files(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.xml").write_text("<secret/>")
    tree = tmp_path / "tree"
    (tree / "reports" / "deep").mkdir(parents=True)
    (tree / "reports" / "a.xml").write_text("<a/>")
    (tree / "reports" / "deep" / "b.xml").write_text("<b/>")
    (tree / "reports" / "c.txt").write_text("c")
    (tree / "reports" / "link.xml").symlink_to(outside / "secret.xml")
    (tree / "reports" / "out").symlink_to(outside)
    (tree / "linked").symlink_to(outside)
    os.mkfifo(tree / "reports" / "pipe.xml")

    def paths(pattern: str, before: dict[str, junit.Mark] | None = None) -> list[str]:
        return sorted(r["path"] for r in junit.collect(tree, pattern, before or {})[0])

    assert paths("reports/*.xml") == ["reports/a.xml"]
    assert paths("reports/**/*.xml") == paths("**/*.xml") == ["reports/a.xml", "reports/deep/b.xml"]
    assert paths("linked/*.xml") == paths("reports/out/*.xml") == paths("nothing/*.xml") == []
    assert paths("reports/deep/b.xml") == ["reports/deep/b.xml"]
    before = junit.marks(tree, "reports/**/*.xml")
    (tree / "reports" / "a.xml").write_text("<again/>")
    assert paths("reports/**/*.xml", before) == ["reports/a.xml"]
    before = junit.marks(tree, "reports/**/*.xml")
    assert junit.collect(tree, "reports/**/*.xml", before) == ([], "no new report matches reports/**/*.xml")
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        paths("**/*.xml")
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_the_collector_has_bounds(tmp_path: Path) -> None:
    for n in range(junit.MAX_FILES + 5):
        (tmp_path / f"{n}.xml").write_text("<a/>")
    found, note = junit.collect(tmp_path, "*.xml", {})
    assert len(found) == junit.MAX_FILES and "not read" in note
    (tmp_path / "noise.xml").write_bytes(os.urandom(junit.MAX_SENT))
    found, note = junit.collect(tmp_path, "noise.xml", {})
    assert not found and note == "noise.xml: the reports are too large to be sent: not read"


def told(failed: list[str], total: int = 5, skipped: int = 0, count: int | None = None) -> dict[str, Any]:
    failures = [{"name": name} for name in failed]
    return {"total": total, "skipped": skipped, "failed": len(failed) if count is None else count, "failures": failures}


@pytest.mark.parametrize(
    ("told_of", "names"),
    [
        ([told(["a"]), told([])], ["a"]),
        ([told(["a"]), told(["b"])], ["a", "b"]),
        ([told(["a"]), told(["a"])], []),
        ([told(["a"]), told([], total=3)], []),  # it stopped at the first failure, or ran others
        ([told(["a"]), told([], skipped=1)], []),
        ([told(["a"]), told(["b"], count=60)], ["b"]),  # not all of the second one's failures are listed
        ([told(["a"]), {}], []),
        ([{**told([]), "flaky": ["c"]}], ["c"]),
    ],
)
def test_a_test_is_flaky_when_it_has_passed_and_failed(told_of: list[dict[str, Any]], names: list[str]) -> None:
    assert unsteady(told_of) == unsteady(list(reversed(told_of))) == names


def test_an_error_says_nothing_about_flakiness() -> None:
    assert mixed(["fail", "error", "pass"])
    assert not mixed(["error", "pass"]) and not mixed(["fail", "error"]) and not mixed([])


@pytest.mark.parametrize("piece", ["a<b/>", "a&#98;<b/>", "<![CDATA[a]]><b/>"])
def test_a_failure_that_comes_in_a_million_pieces_costs_no_time(piece: str) -> None:
    inside = piece * ((junit.MAX_FILE - 200) // len(piece))
    began = time.process_time()
    found = read(f"<testsuite><testcase name='t'><failure>{inside}</failure></testcase></testsuite>")
    assert time.process_time() - began < 10
    assert found["failed"] == 1 and len(found["failures"][0]["text"]) == reports.MAX_TEXT
