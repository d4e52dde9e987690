"""Gates as real processes on real candidates: their environment, several at once, what they leave and say."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.utils import timezone

from agents.models import Mail, Run
from agents.runner import Runner
from agents.runtime import processes, sandbox
from beads import config as configs
from beads import ledger
from refinery.decisions import merge_queue, operators, reviews
from refinery.models import Candidate, GateResult, Landing, ReviewEntry
from refinery.tick import invariants
from tests.acceptance.conftest import WHO, Stage
from tests.acceptance.test_runs import alive


@pytest.fixture
def operator(transactional_db: None) -> Client:
    """May see everything."""
    client = Client()
    client.force_login(User.objects.create_superuser("olga"))
    return client


@pytest.fixture(params=["bubblewrap", "unsandboxed"])
def walls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With a sandbox and without."""
    if request.param == sandbox.UNSANDBOXED:
        monkeypatch.setenv("GASTOWN_SANDBOX", "off")
    elif sandbox.available() != request.param:
        pytest.skip("bubblewrap does not work here")
    return str(request.param)


def gate(name: str, run: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "run": run, **more}


def test_a_gate_has_the_environment_that_its_config_gives_it_and_no_other_gate_has(stage: Stage) -> None:
    see = 'echo "MODE=${MODE-unset} CI=$CI PATH=$PATH"'
    stage.open(agents=False, gates=[gate("with", see, env={"MODE": "a b", "PATH": "/opt/x:/usr/bin:/bin"}), see])
    stage.commit("feature", {"f.txt": "f\n"})
    stage.await_phase(stage.submit("feature"), "merged")
    given, plain = GateResult.objects.order_by("id")
    assert given.output == "MODE=a b CI=true PATH=/opt/x:/usr/bin:/bin\n"
    assert plain.output.startswith("MODE=unset CI=true")
    assert given.command == f"MODE='a b' PATH=/opt/x:/usr/bin:/bin {see}"


_FORKS = "import os\nif os.fork() == 0:\n os.setsid()\n os.fork() or os.execlp(*['sleep'] * 2, '{}')"
DAEMON = f'python3 -c "{_FORKS}"'


def outcomes() -> dict[str, str]:
    """Of the changes' own gates."""
    return dict(GateResult.objects.exclude(entry__kind="check").values_list("gate", "outcome"))


def fails_with(file: str, given: dict[str, Any]) -> dict[str, Any]:
    """A gate that only does what it does where there is this file: on the target itself it passes."""
    return {**given, "run": f"if [ -e {file} ]; then {given['run']}; fi"}


def log_of(run: Run, stage: Stage) -> str:
    return (stage.runner.home / "runs" / run.pk / "log").read_text()


def test_one_after_the_other_the_first_failure_stops(stage: Stage) -> None:
    three = [gate("one", "true"), fails_with("f.txt", gate("two", "exit 3")), gate("three", "true")]
    stage.open(agents=False, gates=three)
    stage.commit("feature", {"f.txt": "f\n"})
    stage.await_phase(stage.submit("feature"), "failed")
    assert outcomes() == {"one": "pass", "two": "fail"}


def test_at_once_all_results_are_recorded_in_order_and_each_line_says_whose_it_is(stage: Stage, walls: str) -> None:
    """`first` can only pass while `third` runs; that `second` fails stops neither."""
    gates = [
        gate("first", "touch first; until [ -e third ]; do sleep 0.01; done; echo 'a.py:1: from first' >&2"),
        gate("second", "echo a.py:2: broken; exit 1"),
        gate("third", "touch third; until [ -e first ]; do sleep 0.01; done; printf 'no newline'"),
        gate("fourth", "echo b.py:4: broken; exit 2"),
    ]
    stage.open(agents=False, gates=[fails_with("f.txt", g) for g in gates], parallel_gates=True)
    stage.commit("feature", {"f.txt": "f\n"})
    entry = stage.await_phase(stage.submit("feature"), "failed")
    results = GateResult.objects.filter(entry=entry).order_by("id")
    assert [(r.gate, r.outcome, r.exit_code, r.sandbox) for r in results] == [
        ("first", "pass", 0, walls), ("second", "fail", 1, walls), ("third", "pass", 0, walls),
        ("fourth", "fail", 2, walls),
    ]  # fmt: skip
    assert results[2].output == "no newline"
    assert "second: a.py:2: broken" in entry.reason_text and "fourth: b.py:4: broken" in entry.reason_text
    mail = Mail.objects.get(kind="REWORK_REQUEST").body
    assert "a.py:2" in mail and "b.py:4" in mail
    log = log_of(Run.objects.get(kind="gates", bead=entry.pk), stage)
    assert "first | a.py:1: from first\n" in log and "third | no newline\n" in log


@pytest.mark.long
def test_a_time_out_of_one_ends_all_that_it_started_and_nothing_else(stage: Stage, walls: str) -> None:
    """`slow` leaves a daemon and ignores SIGTERM; `steady` and its daemon go on until after that."""
    mark = f"93{os.getpid()}"
    gates = [
        gate("slow", f"{DAEMON.format(mark + '.5')}; trap '' TERM; touch begun; sleep {mark}.6", timeout="8s"),
        gate("steady", f"{DAEMON.format(mark + '.7')}; touch steady; until [ -e go ]; do sleep 0.01; done"),
        gate("broken", "kill -9 $$"),
    ]
    stage.open(agents=False, gates=gates, parallel_gates=True)
    stage.commit("feature", {"f.txt": "f\n"})
    entry = stage.submit("feature")
    stage.until(lambda: alive(f"sleep\0{mark}.5") and alive(f"sleep\0{mark}.7"))
    stage.until(lambda: not alive(f"sleep\0{mark}.5") and not alive(f"sleep\0{mark}.6"))
    assert alive(f"sleep\0{mark}.7")
    run = Run.objects.get(kind="gates")
    assert run.state == "running"
    (stage.runner.home / "gates" / str(stage.rig.pk) / "0" / "tree" / "go").touch()
    stage.until(lambda: GateResult.objects.filter(entry=entry).count() == 3)
    assert outcomes() == {"slow": "error", "steady": "pass", "broken": "error"}
    assert GateResult.objects.get(gate="slow").timed_out
    assert GateResult.objects.get(gate="broken").signal == 9
    assert "gate slow: timed out after 8 s" in log_of(run, stage)
    assert alive(mark) == []


@pytest.mark.long
@pytest.mark.parametrize("how", ["stopped", "fenced"])
def test_a_stop_ends_all_of_them_and_says_nothing_about_the_candidate(stage: Stage, walls: str, how: str) -> None:
    mark = f"94{os.getpid()}"
    hang = "trap '' TERM; touch $0.ready; while true; do sleep 0.05; done"
    gates = [gate("a", f"{DAEMON.format(mark)}; {hang}"), gate("b", hang), gate("c", "exit 1")]
    stage.open(agents=False, gates=gates, parallel_gates=True)
    stage.commit("feature", {"f.txt": "f\n"})
    entry = stage.submit("feature")
    stage.until(lambda: alive(f"sleep\0{mark}") and Run.objects.filter(kind="gates", state="running").exists())
    run = Run.objects.get(kind="gates")
    if how == "stopped":
        merge_queue.reject(entry, by=WHO, reason="not wanted")
        stage.await_phase(entry, "failed")
    else:
        operators.fence_run(run, by=WHO, reason="as a test")  # another run is started for the same gates
    stage.until(lambda: not processes.marked("GASTOWN_RUN").get(run.pk) and stage.runner.shims.get(run.pk) is None)
    stage.until(lambda: Run.objects.get(pk=run.pk).state == "ended")
    assert set(outcomes()) <= {"c"}  # what had ended by itself


def test_what_a_killed_shim_leaves_of_gates_at_once_is_ended(stage: Stage, walls: str) -> None:
    mark = f"92{os.getpid()}"
    hang = f"{DAEMON.format(mark)}; while true; do sleep 0.05; done"
    stage.open(agents=False, gates=[gate("a", hang), gate("b", hang)], parallel_gates=True)
    stage.commit("feature", {"f.txt": "f\n"})
    entry = stage.submit("feature")
    stage.until(lambda: len(alive(f"sleep\0{mark}")) == 2)
    run = Run.objects.get(kind="gates")
    stage.runner.shims[run.pk].send_signal(signal.SIGKILL)
    stage.until(lambda: Run.objects.get(pk=run.pk).outcome == "lost")
    first: Runner = stage.runner
    assert first.shims.get(run.pk) is None
    merge_queue.reject(entry, by=WHO, reason="enough")
    stage.await_phase(entry, "failed")
    stage.until(lambda: not alive(mark))


SOURCES = {"paths": ["src/**", "!src/**/*.md"]}


def test_a_gate_whose_paths_are_not_touched_is_not_needed_and_everybody_says_so(
    stage: Stage, operator: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    gates = [gate("unit", "exit 7", **SOURCES), gate("docs", "echo looked at", paths=["*.md"])]
    stage.open(agents=False, gates=gates)
    stage.commit("notes", {"src/notes.md": "read me\n"})
    entry = stage.submit("notes")
    stage.hold.add("land")
    stage.until(lambda: Landing.objects.filter(entry=entry).exists())
    words = "not needed: touches nothing under src/**, !src/**/*.md"
    assert words in operator.get(f"/reviews/{entry.pk}/").content.decode()
    stage.hold.clear()
    entry = stage.await_phase(entry, "merged")
    landing = Landing.objects.get(entry=entry)
    assert [(e["gate"], e["outcome"], e.get("paths")) for e in landing.evidence] == [
        ("docs", "pass", None), ("unit", "not_needed", ["src/**", "!src/**/*.md"]),
    ]  # fmt: skip
    assert outcomes() == {"docs": "pass"}
    assert invariants.look(stage.town, timezone.now()) == []
    ledger.set_config(stage.rig, configs.validate({"refinery": {"gates": ["true"]}}))  # it says what was, then
    call_command("mq", "show", entry.pk)
    assert f"gate unit: {words}" in capsys.readouterr().out
    assert words in operator.get(f"/reviews/{entry.pk}/").content.decode()


def test_a_gate_whose_paths_are_touched_by_a_change_a_rename_or_a_deletion_is_needed(stage: Stage) -> None:
    passes_on_main = "grep -q 'a = 1' src/a.py && test -e src/b.py || exit 7"
    stage.open(agents=False, gates=[gate("unit", passes_on_main, **SOURCES)])
    stage.commit("main", {"src/a.py": "a = 1\n" * 20, "src/b.py": "b = 1\n"})
    stage.commit("change", {"src/a.py": "a = 2\n"})
    stage.commit("rename", {})
    stage.git("mv", "src/a.py", "a.py")
    stage.git("commit", "-qm", "move it away")
    stage.git("push", "-q", str(stage.remote), "HEAD:refs/heads/rename")
    stage.commit("delete", {})
    stage.git("rm", "-q", "src/b.py")
    stage.git("commit", "-qm", "delete it")
    stage.git("push", "-q", str(stage.remote), "HEAD:refs/heads/delete")
    for branch in ("change", "rename", "delete"):
        assert stage.await_phase(stage.submit(branch), "failed").reason == "gates_failed"


def test_a_change_that_needs_no_gate_lands_and_is_not_called_ungated(stage: Stage, operator: Client) -> None:
    stage.open(agents=False, gates=[gate("unit", "exit 7", **SOURCES)], auto_merge=False)
    stage.commit("notes", {"notes.txt": "n\n"})
    entry = stage.await_phase(stage.submit("notes"), "awaiting_human")
    page = operator.get(f"/reviews/{entry.pk}/").content.decode()
    assert "not needed: touches nothing under src/**" in page and "ungated" not in page
    stage.hold.add("land")
    reviews.approve(entry, by=WHO)
    stage.until(lambda: Landing.objects.filter(entry=entry).exists())
    assert not Run.objects.filter(kind="gates").exists()
    stage.hold.clear()
    stage.await_phase(entry, "merged")


def test_a_car_is_judged_by_its_own_change_not_by_those_ahead(stage: Stage) -> None:
    stage.open(agents=False, gates=[gate("unit", "until [ -e go ]; do sleep 0.01; done", **SOURCES)])
    stage.commit("code", {"src/a.py": "a = 1\n"})
    stage.commit("notes", {"notes.txt": "n\n"})
    code, notes = stage.submit("code"), stage.submit("notes")
    stage.until(lambda: Candidate.objects.filter(entry=notes, on__entry=code).exists())
    stage.until(lambda: Run.objects.filter(kind="gates", state="running").exists())
    (stage.runner.home / "gates" / str(stage.rig.pk) / "0" / "tree" / "go").touch()
    stage.await_phase(notes, "merged")
    assert GateResult.objects.get().entry_id == code.pk
    assert [e["outcome"] for e in Landing.objects.get(entry=notes, state="landed").evidence] == ["not_needed"]


WRITE = (
    "import os,sys; n=int(sys.argv[1]); os.makedirs('reports',exist_ok=True);"
    "case='<testcase classname=\\'m\\' name=\\'t{}\\'>{}</testcase>'.format;"
    "bad='<failure message=\\'no good\\'>src/m.py:7: AssertionError</failure>';"
    "open('reports/r.xml','w').write('<testsuite>'+case(1,'')+case(2,bad if n else '')+'</testsuite>')"
)


def test_a_pass_after_a_failure_on_the_same_tree_is_never_merged_past_silently(
    stage: Stage, operator: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    run = f'n=1; [ -e .second ] && n=0; touch .second; python3 -c "{WRITE}" $n; exit $n'
    stage.open(agents=False, gates=[gate("unit", run, retries=2, junit="reports/*.xml")], auto_merge=False)
    stage.commit("feature", {"f.txt": "f\n"})
    entry = stage.await_phase(stage.submit("feature"), "awaiting_human")
    result = GateResult.objects.get()
    assert (result.outcome, result.flaky, result.flaky_tests) == ("pass", True, ["m.t2"])
    assert [(a["outcome"], a["exit_code"], a["tests"]["failed"]) for a in result.attempts] == [
        ("fail", 1, 1), ("pass", 0, 0),
    ]  # fmt: skip
    said = "at attempt 2, after exit 1, 0 of 2 tests failed, flaky: m.t2 has passed and failed on this very tree"
    call_command("mq", "show", entry.pk)
    assert f"gate unit: pass (exit 0 {said})" in capsys.readouterr().out
    page = operator.get(f"/reviews/{entry.pk}/").content.decode()
    assert said in page and "2 tests: 0 failed" in page
    assert "Flaky gates" in operator.get("/towns/main/").content.decode()
    assert (
        'gastown_gate_flakes_total{gate="unit",rig="proj",town="main"} 1.0' in operator.get("/metrics").content.decode()
    )
    assert entry.bead.events.filter(kind="flaky_gate").count() == 1
    stage.hold.add("land")
    reviews.approve(entry, by=WHO)
    stage.until(lambda: Landing.objects.filter(entry=entry).exists())
    assert Landing.objects.get().evidence[0]["flaky"] is True
    stage.hold.clear()
    stage.await_phase(entry, "merged")


def test_failed_tests_of_a_report_reach_the_author_and_links_out_of_the_worktree_do_not_reach_us(stage: Stage) -> None:
    secret = stage.root / "secret.xml"
    secret.write_text("<testsuite><testcase name='secret'><failure/></testcase></testsuite>")
    run = f'python3 -c "{WRITE}" 1; ln -s {secret} reports/s.xml; ln -s {stage.root} more; mkfifo reports/f.xml; exit 1'
    stage.open(agents=False, gates=[fails_with("f.txt", gate("unit", run, junit="**/*.xml"))])
    stage.commit("feature", {"f.txt": "f\n"})
    entry = stage.await_phase(stage.submit("feature"), "failed")
    result = GateResult.objects.get(entry=entry)
    assert (result.tests["total"], result.tests["failed"]) == (2, 1)
    assert result.tests["failures"] == [{"name": "m.t2", "message": "no good", "file": "src/m.py", "line": 7}]
    assert result.failures == [{"file": "src/m.py", "line": 7, "text": "m.t2: no good"}]
    assert "src/m.py:7" in Mail.objects.get(kind="REWORK_REQUEST").body


def test_a_report_that_is_missing_or_stale_is_a_note_and_no_error(stage: Stage) -> None:
    stage.open(agents=False, gates=[gate("unit", "true", junit="reports/*.xml")])
    stage.commit("feature", {"reports/old.xml": "<testsuite><testcase name='old'/></testsuite>"})
    stage.await_phase(stage.submit("feature"), "merged")
    tests = GateResult.objects.get().tests
    assert (tests["total"], tests["notes"]) == (0, ["no new report matches reports/*.xml"])


def test_what_a_gate_keeps_comes_back_as_its_own_copy_for_the_same_key_only(stage: Stage) -> None:
    run = "cat deps/made 2>/dev/null; cat lock.json; echo made from $(cat lock.json) >> deps/made || "
    run += "{ mkdir -p deps && echo made from $(cat lock.json) > deps/made; }; [ ! -e fail ]"
    kept = gate("unit", run, cache=["deps"], cache_key=["lock.json"])
    stage.open(agents=False, gates=[kept], train={"window": 1})
    stage.commit("main", {"lock.json": "one\n"})
    for branch, files in (
        ("bad", {"fail": "x\n"}),  # what fails keeps nothing
        ("first", {"f1": "1\n"}),
        ("second", {"f2": "2\n"}),
        ("third", {"f3": "3\n"}),  # it does not see what `second` wrote
        ("other", {"lock.json": "two\n"}),
    ):
        stage.commit(branch, files)
        stage.await_phase(stage.submit(branch), "merged", "failed")
    outputs = list(GateResult.objects.order_by("id").values_list("output", flat=True))
    first = [text.replace("sh: 1: cannot create deps/made: Directory nonexistent\n", "") for text in outputs]
    assert [text.splitlines()[:2] for text in first] == [
        ["one"], ["one"],  # of the target itself, when it was seen to pass
        ["one"], ["made from one", "one"], ["made from one", "one"], ["two"],
    ]  # fmt: skip


def test_what_a_gate_leaves_of_a_change_that_has_not_landed_decides_about_nobody_else(stage: Stage) -> None:
    run = "cat deps/made 2>/dev/null; mkdir -p deps && cp mark deps/made"
    kept = gate("unit", run, cache=["deps"], cache_key=["README.md"])
    stage.open(agents=False, gates=[kept], auto_merge=False)

    def gated(branch: str) -> ReviewEntry:
        stage.commit(branch, {"mark": f"by {branch}\n", f"{branch}.txt": "x\n"})
        return stage.await_phase(stage.submit(branch), "awaiting_human")

    waits = gated("first")
    gated("second")
    reviews.approve(waits, by=WHO, head=waits.head_sha)
    stage.await_phase(waits, "merged")
    gated("third")
    outputs = dict(GateResult.objects.order_by("id").values_list("entry__branch", "output"))
    assert outputs == {"first": "", "second": "", "third": "by first\n"}


def test_a_cache_that_is_a_link_is_neither_kept_nor_followed(stage: Stage) -> None:
    outside = stage.root / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    kept = gate("unit", f"ln -s '{outside}' deps; echo done", cache=["deps", "a/b"])
    stage.open(agents=False, gates=[kept])
    stage.commit("feature", {"f.txt": "f\n"})
    (stage.clone / "a").symlink_to(outside)
    stage.git("add", "a")
    stage.git("commit", "-qm", "a link")
    stage.git("push", "-q", str(stage.remote), "HEAD:refs/heads/feature")
    stage.await_phase(stage.submit("feature"), "merged")
    assert not list((stage.runner.home / "caches").glob("**/secret"))
    assert [p.name for p in outside.iterdir()] == ["secret"]
