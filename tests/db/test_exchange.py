"""Beads as lines of JSON: what bd has written comes in once and in order; what goes out is what bd reads."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from beads.models import Bead, Dependency, Fact
from tests.db.conftest import Place

BD = [
    {"id": "bd-9", "title": "An epic", "status": "open", "priority": 1, "issue_type": "epic"},
    {
        "id": "bd-2",
        "title": "Write the export",
        "description": "As CSV.",
        "acceptance_criteria": "It opens in a spreadsheet.",
        "status": "in_progress",
        "priority": 1,
        "issue_type": "feature",
        "external_ref": "gh-9",
        "assignee": "rita",
        "estimated_minutes": 30,
        "labels": ["x"],
        "dependencies": [
            {"issue_id": "bd-2", "depends_on_id": "bd-1", "type": "blocks", "created_by": "r"},
            {"issue_id": "bd-2", "depends_on_id": "bd-3", "type": "blocks", "created_by": "r"},
            {"issue_id": "bd-2", "depends_on_id": "bd-9", "type": "parent-child", "created_by": "r"},
        ],
    },
    {"id": "bd-1", "title": "Make the table", "description": "", "status": "open", "priority": 0, "issue_type": "task"},
    {"id": "bd-3", "title": "Done before", "status": "closed", "priority": 2, "closed_at": "2026-01-01T00:00:00Z"},
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file as bd writes it."""
    path = tmp_path / "issues.jsonl"
    write(path, BD)
    return path


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")


def said(*words: str) -> Any:
    out = io.StringIO()
    call_command("bead", *words, "--json", stdout=out)
    return json.loads(out.getvalue())["data"]


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit):
        call_command("bead", *words, "--json")
    return str(json.loads(capsys.readouterr().out)["error"]["message"])


def test_what_bd_has_written_comes_in_once_and_in_order(place: Place, file: Path) -> None:
    taken = said("import", str(file))
    assert (sorted(taken["made"]), taken["known"], taken["over"]) == (["bd-1", "bd-2"], [], ["bd-3"])
    table, export = (Bead.objects.get(pk=taken["made"][key]) for key in ("bd-1", "bd-2"))
    assert (export.title, export.priority, export.rig) == ("Write the export", 1, place.rig)
    for words in ("As CSV.", "## Acceptance criteria\n\nIt opens", "gh-9"):
        assert words in export.body
    assert list(export.blocked_by.values_list("on_id", flat=True)) == [table.pk]
    assert said("import", str(file)) == {"made": {}, "known": ["bd-1", "bd-2"], "over": ["bd-3"]}
    place.tick()
    assert place.running(bead=table)
    assert not export.runs.exists()
    write(file, [{"id": "bd-4", "title": "Later", "dependencies": [{"depends_on_id": "bd-2", "type": "blocks"}]}])
    later = said("import", str(file), "--rig", place.rig.slug)["made"]["bd-4"]
    assert Dependency.objects.get(bead=later).on_id == export.pk


def test_what_goes_out_is_what_bd_reads(place: Place, tmp_path: Path) -> None:
    first = place.bead("First")
    second = place.bead("Second", first)
    Bead.objects.filter(pk=second.pk).update(model="anthropic/dear")
    call_command("bead", "cancel", first.pk, "--reason", "not needed")
    place.tick()
    out = tmp_path / "out.jsonl"
    assert said("export", str(out)) == {"beads": 2, "file": str(out)}
    rows = {row["id"]: row for row in map(json.loads, out.read_text().splitlines())}
    assert (rows[first.pk]["status"], "closed_at" in rows[first.pk]) == ("closed", True)
    assert "closed_at" not in rows[second.pk]
    edge = rows[second.pk]["dependencies"][0]
    assert (edge["issue_id"], edge["depends_on_id"], edge["type"]) == (second.pk, first.pk, "blocks")
    assert set(rows[second.pk]) >= {"title", "description", "priority", "issue_type", "created_at", "updated_at"}
    own = rows[second.pk]["gastown"]
    assert (own["rig"], own["model"]) == (place.rig.slug, "anthropic/dear")
    assert said("import", str(out)) == {"made": {}, "known": [second.pk], "over": [first.pk]}
    assert len(said("export", "-")) == 2 and len(said("export", "-", "--status", "in_progress")) <= 1


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('{"id": "a", "title": "A"}\n{"id": "b"', "line 2: no JSON"),
        ("[1]\n", "line 1: a JSON object is wanted"),
        ('{"id": "a"}\n', "line 1: title: Field required"),
        ('{"id": "a", "title": "A", "priority": 9}\n', "line 1: priority"),
        ('{"id": "a", "title": "A", "priority": "1"}\n', "line 1: priority"),
        ('{"id": "a", "title": "A"}\n{"id": "a", "title": "B"}\n', "line 2: id 'a' is there twice"),
        ('{"id": "a", "title": "A\\u0000"}\n', "title contains a NUL byte"),
        ('{"id": "a", "title": "A", "gastown": {"rig": "none"}}\n', "no rig none"),
        ('{"id": "a", "title": "A", "description": "' + "x" * (2 << 20) + '"}\n', "line 1: longer than 1 MiB"),
        ("[" * 100_000 + "\n", "line 1: no JSON"),
        (
            '{"id": "a", "title": "A", "dependencies": [{"depends_on_id": "b"}]}\n'
            '{"id": "b", "title": "B", "dependencies": [{"depends_on_id": "a"}]}\n',
            "dependency cycle: a → b → a",
        ),
    ],
)
def test_a_line_that_is_wrong_is_named_and_nothing_is_made(
    place: Place, tmp_path: Path, lines: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"id": "good", "title": "Good"}\n' * (0 if "line" in words else 1) + lines)
    assert words in refused(capsys, "import", str(path))
    assert not Bead.objects.exists()
    assert not Fact.objects.exists()


def test_a_long_chain_and_a_file_that_is_not_there(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "chain.jsonl"
    links: list[dict[str, Any]] = [{"id": "n0", "title": "0"}]
    links += [{"id": f"n{n}", "title": str(n), "dependencies": [{"depends_on_id": f"n{n - 1}"}]} for n in range(1, 60)]
    write(path, list(reversed(links)))
    assert len(said("import", str(path))["made"]) == 60
    assert Dependency.objects.count() == 59
    assert "No such file" in refused(capsys, "import", str(tmp_path / "none"))
    assert "No such file" in refused(capsys, "export", str(tmp_path / "none" / "out"))
