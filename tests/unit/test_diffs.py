"""Diffs as git writes them, hostile ones included, read into what a page shows. No database, no processes."""

from __future__ import annotations

import difflib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refinery.core.text import reveal_hidden, sanitize
from refinery.git import diffs, folders
from refinery.git.diffs import Change, Line, Patch
from refinery.git.line_map import Shift
from refinery.review import diffhtml
from refinery.review.highlight import colour

OLD, NEW, NONE = "a" * 40, "b" * 40, "0" * 40


def patch(body: str | bytes) -> Patch:
    raw = body.encode() if isinstance(body, str) else body
    (found,) = diffs.parse_patch(b"diff --git a/x b/x\nindex " + f"{OLD}..{NEW} 100644\n".encode() + raw)
    return found


def change(path: str = "x.py", **more: object) -> Change:
    return Change(**{"status": "M", "path": path, "old_path": path, "old_mode": "100644", "new_mode": "100644",
                     "old_id": OLD, "new_id": NEW, **more})  # type: ignore[arg-type]  # fmt: skip


def shown(lines: tuple[Line, ...]) -> list[tuple[str, int, int, str]]:
    return [(line.kind, line.old, line.new, line.text) for line in lines]


# -- the list of changed files --


def test_the_list_tells_status_modes_renames_and_counts() -> None:
    raw = (
        f":100644 100755 {OLD} {OLD} M\0run.sh\0:100644 100644 {OLD} {NEW} R087\0old name.py\0new/näme.py\0"
        f":000000 100644 {NONE} {NEW} A\0pic.png\0"
        "0\t0\trun.sh\x003\t1\t\0old name.py\0new/näme.py\0-\t-\tpic.png\0"
    )
    run, moved, picture = diffs.parse_changes(raw.encode())
    assert (run.mode_changed, run.old_mode, run.new_mode, run.lines) == (True, "100644", "100755", 0)
    assert (moved.status, moved.similarity, moved.old_path, moved.path) == ("R", 87, "old name.py", "new/näme.py")
    assert (moved.added, moved.removed, moved.binary) == (3, 1, False)
    assert (picture.status, picture.binary, picture.mode_changed) == ("A", True, False)


def test_a_name_with_tabs_newlines_and_broken_bytes_is_still_one_name() -> None:
    raw = f":100644 100644 {OLD} {NEW} M\0".encode() + b"a\tb\n\xff.txt\0" + b"1\t2\ta\tb\n\xff.txt\0"
    (found,) = diffs.parse_changes(raw)
    assert (found.path, found.added, found.removed) == ("a\tb\n\ufffd.txt", 1, 2)


def test_nothing_changed() -> None:
    assert diffs.parse_changes(b"") == []
    assert diffs.parse_patch(b"") == []
    assert diffs.pages([]) == [(0, 0)]


# -- hunks --


def test_lines_are_numbered_on_both_sides() -> None:
    found = patch("--- a/x\n+++ b/x\n@@ -1,3 +1,3 @@ def f():\n same\n-old\n+new\n end\n")
    (hunk,) = found.hunks
    assert hunk.title == "def f():"
    assert hunk.header == "@@ -1,3 +1,3 @@ def f():"
    assert shown(hunk.lines) == [
        ("same", 1, 1, "same"),
        ("del", 2, 0, "old"),
        ("add", 0, 2, "new"),
        ("same", 3, 3, "end"),
    ]


def test_content_that_looks_like_headers_is_content() -> None:
    body = "@@ -1,4 +1,4 @@\n---- a/y\n-diff --git a/z b/z\n-@@ -1 +1 @@\n-Binary files differ\n"
    body += "++++ b/y\n+diff --git a/z b/z\n+@@ -9 +9 @@\n+\\ No newline at end of file\n"
    found = patch(body)
    (hunk,) = found.hunks
    assert [line.text for line in hunk.lines[:3]] == ["--- a/y", "diff --git a/z b/z", "@@ -1 +1 @@"]
    assert [line.text for line in hunk.lines[4:]] == [
        "+++ b/y", "diff --git a/z b/z", "@@ -9 +9 @@", "\\ No newline at end of file",
    ]  # fmt: skip
    assert not found.binary


def test_no_newline_at_the_end_belongs_to_the_line_before() -> None:
    text = "@@ -1 +1 @@\n-old\n\\ No newline at end of file\n+new\n\\ No newline at end of file\n"
    (hunk,) = patch(text).hunks
    assert [(line.kind, line.bare) for line in hunk.lines] == [("del", True), ("add", True)]
    assert "no newline at the end" in diffhtml.table("x.py", patch(text), split=False)


def test_a_line_of_a_megabyte_is_cut_and_says_so() -> None:
    (hunk,) = patch(b"@@ -0,0 +1,2 @@\n+" + b"x" * 1_000_000 + b"\n+end\n").hunks
    long, end = hunk.lines
    assert (len(long.text), long.cut) == (diffs.MAX_LINE, 1_000_000 - diffs.MAX_LINE)
    assert (end.text, end.new) == ("end", 2)
    html = diffhtml.table("x.py", Patch(OLD, NEW, (hunk,)), split=True)
    assert len(html) < 5000
    assert "998000 more characters" in html


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"a\xe2\x80\xaeb", "a⟨U+202E⟩b"),
        (b"zero\xe2\x80\x8bwidth", "zero⟨U+200B⟩width"),
        (b"nul\x00byte", "nul⟨U+0000⟩byte"),
        (b"\x1b[31mred", "⟨U+001B⟩[31mred"),
        (b"dos\r", "dos⟨U+000D⟩"),
        (b"a\x0bb\x0cc\xc2\x85d\xe2\x80\xa8e", "a⟨U+000B⟩b⟨U+000C⟩c⟨U+0085⟩d⟨U+2028⟩e"),
        (b"broken\xff", "broken\ufffd"),
        (b"tab\tstays", "tab\tstays"),
    ],
)
def test_what_hides_in_a_line_is_shown(raw: bytes, text: str) -> None:
    (hunk,) = patch(b"@@ -0,0 +1 @@\n+" + raw + b"\n").hunks
    assert [line.text for line in hunk.lines] == [text]


def test_binary_rename_and_mode_have_no_lines() -> None:
    raw = f"diff --git a/p b/p\nindex {OLD}..{NEW} 100644\nBinary files a/p and b/p differ\n"
    raw += "diff --git a/q b/r\nsimilarity index 100%\nrename from q\nrename to r\n"
    raw += "diff --git a/s b/s\nold mode 100644\nnew mode 100755\n"
    found = diffs.parse_patch(raw.encode())
    assert [(p.binary, p.hunks) for p in found] == [(True, ()), (False, ()), (False, ())]


def test_each_change_gets_its_own_lines_whatever_else_git_told() -> None:
    other = f"diff --git a/d/y b/d/y\nindex {NONE}..{'c' * 40}\n@@ -0,0 +1 @@\n+not asked for\n"
    link = f"diff --git a/l b/l\ndeleted file mode 100644\nindex {OLD}..{NONE}\n@@ -1 +0,0 @@\n-text\n"
    link += f"diff --git a/l b/l\nnew file mode 120000\nindex {NONE}..{NEW}\n@@ -0,0 +1 @@\n+target\n"
    found = diffs.match_patches([change("l", status="T"), change("moved", status="R", new_id=OLD)],
                                diffs.parse_patch((other + link).encode()))  # fmt: skip
    assert [[line.text for hunk in p.hunks for line in hunk.lines] for p in found] == [["text", "target"], []]


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_break_the_reader(raw: bytes) -> None:
    for found in diffs.parse_patch(b"diff --git a/x b/x\n@@ -1,5 +1,5 @@\n" + raw):
        for split in (False, True):
            assert "<script" not in diffhtml.table("x.py", found, split=split)


# -- what is collapsed, paged, folded --


@pytest.mark.parametrize(
    "path", ["uv.lock", "web/package-lock.json", "a/vendor/x.go", "x.min.js", "api_pb2.py", "t/__snapshots__/a.snap"]
)
def test_generated_files_are_known_by_name(path: str) -> None:
    assert change(path).generated
    assert diffs.collapsed(change(path, added=600)) == "generated"


def test_generated_files_are_known_by_what_they_say() -> None:
    assert patch("@@ -0,0 +1,2 @@\n+// Code generated by protoc. DO NOT EDIT.\n+package x\n").says_generated
    assert not patch("@@ -40 +40 @@\n-a\n+do not edit\n").says_generated


def test_large_files_are_collapsed_and_others_are_not() -> None:
    assert diffs.collapsed(change(added=2000)) == "large"
    assert diffs.collapsed(change(added=20, removed=20)) == ""


def test_five_thousand_files_are_paged_and_none_is_lost() -> None:
    many = [change(f"d{n % 50}/f{n}.py", added=1) for n in range(5000)]
    pages = diffs.pages(many)
    assert [n for start, end in pages for n in range(start, end)] == list(range(5000))
    assert max(end - start for start, end in pages) == 100
    assert folders.tree(many).count == 5000


def test_a_page_holds_so_many_lines() -> None:
    assert diffs.pages([change(f"{n}.py", added=1400) for n in range(4)]) == [(0, 2), (2, 4)]


def test_the_tree_folds_single_folders_and_adds_up() -> None:
    found = folders.tree(
        [change("src/app/a.py", added=1), change("src/app/b.py", removed=2), change("README", added=4)]
    )
    assert (found.count, found.added, found.removed) == (3, 5, 2)
    (folder,) = found.folders
    assert (folder.name, [c.path for _, c in folder.files]) == ("src/app", ["src/app/a.py", "src/app/b.py"])


def test_removed_lines_stand_beside_the_added_ones() -> None:
    (hunk,) = patch("@@ -1,3 +1,4 @@\n one\n-two\n-three\n+TWO\n+THREE\n+four\n").hunks
    rows = [(p.left.text if p.left else "", p.right.text if p.right else "") for p in diffs.pairs(hunk.lines)]
    assert rows == [("one", "one"), ("two", "TWO"), ("three", "THREE"), ("", "four")]


def test_what_changed_within_a_line_is_found() -> None:
    assert diffs.changed_spans("value = old_name(1)", "value = new_name(1)") == ((8, 16), (8, 16))
    assert diffs.changed_spans("answer = 41", "answer = 42") == ((9, 11), (9, 11))
    assert diffs.changed_spans("f(a, b)", "f(a, b, c)") == ((6, 6), (6, 9))
    assert diffs.changed_spans("same", "same") == ((4, 4), (4, 4))
    assert diffs.changed_spans("return True", "import os") is None


@given(st.text("ab_ 1(", max_size=12), st.text("ab_ 1(", max_size=12))
def test_outside_the_marked_spans_both_lines_are_the_same(old: str, new: str) -> None:
    found = diffs.changed_spans(old, new)
    if found is not None:
        (start, end), (new_start, new_end) = found
        assert 0 <= start <= end <= len(old)
        assert new_start <= new_end <= len(new)
        assert (old[:start], old[end:]) == (new[:new_start], new[new_end:])


# -- HTML --


@pytest.mark.parametrize("split", [False, True])
def test_html_in_a_diff_is_text(split: bool) -> None:
    body = "@@ -1 +1 @@ <b>\n-<script>alert(1)</script>\n+<img src=x onerror=alert(1)>&amp;\n"
    html = diffhtml.table("x.html", patch(body), split=split)
    assert "<script" not in html
    assert "<img" not in html
    assert "style=" not in html
    assert "&amp;amp;" in html


def test_line_numbers_link_only_when_asked() -> None:
    found = patch("@@ -1 +1 @@\n-old\n+new\n")
    assert "<a " not in diffhtml.table("x.py", found, split=False)
    html = diffhtml.table("x.py", found, split=False, notes=diffhtml.Notes({("new", 1): "<p>note"}, "?at=0"))
    assert '<a href="?at=0o1#at">1</a>' in html
    assert html.index('href="?at=0n1#at"') < html.index("<p>note")


def test_hidden_characters_stand_out() -> None:
    html = diffhtml.table("x.py", patch("@@ -0,0 +1 @@\n+a = 1 # \u202e\n"), split=False)
    assert '<i class="rv-hid">⟨U+202E⟩</i>' in html


@pytest.mark.parametrize("path", ["x.py", "x.ts", "x.html", "x.rs", "Makefile", "x.unknown", "x.md", "x.json", "x.sh"])
@settings(deadline=None)  # a language's first use loads it
@given(lines=st.lists(st.text(st.characters(exclude_characters="\n\r"), max_size=40), max_size=6))
def test_colours_never_change_the_text(path: str, lines: list[str]) -> None:
    found = colour(path, [reveal_hidden(line) for line in lines])
    assert ["".join(text for _, text in row) for row in found] == [reveal_hidden(line) for line in lines]


def test_code_is_coloured() -> None:
    (row,) = colour("x.py", ["def f(): return 'x'"])
    assert ("k", "def") in row
    assert any(css.startswith("s") and "x" in text for css, text in row)


def test_tame_removes_ansi_and_visible_shows_it() -> None:
    assert sanitize("\x1b[31mred\x1b[0m\r\n\u202e") == "red\n⟨U+202E⟩"
    assert reveal_hidden("\x1b[0m") == "⟨U+001B⟩[0m"


def test_a_line_is_followed_from_one_version_to_the_next() -> None:
    before = [f"line {n}" for n in range(1, 31)]
    after = ["new", *before[:4], "changed", *before[5:20], *before[22:]]
    found = patch("".join(f"{line}\n" for line in difflib.unified_diff(before, after, "a/x", "b/x", lineterm="")))
    shift = Shift("x", found.hunks)
    for number, line in enumerate(before, 1):
        want = after.index(line) + 1 if line in after else None
        assert shift.of(number) == want, line
    assert Shift("x").of(7) == 7
