"""Comments in a part of a change, one commit or since the last review, are kept where the whole change has the line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from beads.actors import Actor
from refinery.decisions import reviews
from refinery.models import ReviewComment
from tests.web.ground import Ground, page, person, post


@pytest.fixture
def ground(tmp_path: Path, db: None, settings: Any) -> Ground:
    """Fresh ground."""
    settings.GASTOWN_HOME = str(tmp_path)
    return Ground(tmp_path)


def field(html: str, name: str) -> str:
    """The value of a hidden field of the form for a comment."""
    return html.split('id="at"')[1].split(f'name="{name}" value="')[1].split('"')[0]


def test_a_comment_on_a_line_of_one_commit_is_kept_where_the_whole_change_has_the_line(ground: Ground) -> None:
    rita = person("rita")
    one = ground.push("feature", {"a.py": "def f():\n    return 2\n\n\ndef g():\n    return 3\n", "tmp.py": "x = 1\n"})
    two = ground.push("feature", {"a.py": "# the new f\ndef f():\n    return 2\n\n\ndef g():\n    pass\n"}, None)
    ground.push("feature", {"tmp.py": None, "b.py": "y = 2\n"}, None)
    ground.push("main", {"keep.txt": "".join(f"{n}\n" for n in range(-3, 40))})  # the target goes on
    ground.git("checkout", "-q", "feature")
    entry = ground.submit()
    form = page(rita, entry, f"?commit={one}&at=0.n2")
    assert (field(form, "file"), field(form, "side"), field(form, "line")) == ("a.py", "new", "3")
    assert "(line 3 of the whole change)" in form
    back = field(form, "next").replace("&amp;", "&")
    answer = post(rita, entry, "comment", file="a.py", side="new", line=3, body="why two?", next=back)
    assert answer["Location"].endswith(f"?commit={one}&page=1#f0")
    assert "why two?" in page(rita, entry, f"?commit={one}").split('id="change"')[1]
    assert "why two?" in page(rita, entry, f"?commit={two}").split('id="change"')[1]
    assert "why two?" in page(rita, entry).split('id="change"')[1]
    old = page(rita, entry, f"?commit={one}&at=0.o2")
    assert (field(old, "side"), field(old, "line")) == ("old", "2")
    for gone in (f"?commit={one}&at=0.n6", f"?commit={one}&at=1.n1"):
        text = page(rita, entry, gone)
        assert "is not in the change as it would land" in text, gone
        assert '<form class="rv-form rv-write"' not in text
    assert ReviewComment.objects.count() == 1


def test_a_comment_is_written_in_what_changed_since_the_last_review(ground: Ground) -> None:
    rita = person("rita")
    first = ground.push("feature", {"a.py": "def f():\n    return 2\n"})
    entry = ground.submit()
    reviews.request_changes(entry, by=Actor("web", "rita"), body="three, please", items=[], head=first)
    ground.settle()
    ground.push("feature", {"a.py": "# f\ndef f():\n    return 3\n"})
    newer = ground.submit()
    form = page(rita, newer, "?since=review&at=0.n3")
    assert (field(form, "file"), field(form, "side"), field(form, "line")) == ("a.py", "new", "3")
    assert "is not in the change" in page(rita, newer, "?since=review&at=0.o2")  # it was never on the target
    post(rita, newer, "comment", file="a.py", side="new", line=3, body="or four")
    assert "or four" in page(rita, newer, "?since=review").split('id="change"')[1]
