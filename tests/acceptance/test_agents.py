"""The real coding agents, each through its preset, against a scripted model: in the sandbox, as polecat and refinery.

`make agents` installs them. One that is not there, or cannot run here, is skipped with the reason.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agents import launches, trials, usage
from agents.lifecycle import Channel
from agents.models import Run, Usage
from agents.presets import PRESETS, Event, Start, bill
from agents.runtime import gitcmd, sandbox
from beads import config as configs
from beads import ledger, secrets
from beads.models import Bead
from gastown_site.rehearsal import PLAYS, ModelServer
from gastown_site.rehearsal.plays import WRITE, script
from refinery.pages import boards, transcripts
from tests.acceptance import modeldesk
from tests.acceptance.conftest import WHO, Stage
from tests.acceptance.scenes import NOBODY, Scene

pytestmark = pytest.mark.agents
site, door_stage = modeldesk.site, modeldesk.door_stage
KEY = "sk-the-real-key-of-the-town"


@dataclass(frozen=True)
class Cli:
    """What a preset is set to for the scripted model: which model, which base URL."""

    model: str
    base: str = "OPENAI_BASE_URL"
    path: str = "/v1"
    key: str = "OPENAI_API_KEY"


CLIS = {
    "claude": Cli("sonnet", "ANTHROPIC_BASE_URL", "", "ANTHROPIC_API_KEY"),
    "codex": Cli("scripted"),
    "opencode": Cli("openai/scripted"),
    "kilo": Cli("openai/scripted"),
    "mini": Cli("openai/scripted"),
    "gemini": Cli("gemini-2.5-pro", "GOOGLE_GEMINI_BASE_URL", "", "GEMINI_API_KEY"),
}


def address() -> str:
    """An address of this machine that is not the loopback: inside a box that one is the box's own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            pytest.skip("this machine has no address but the loopback: a box could not reach the scripted model")
        return str(probe.getsockname()[0])


@pytest.fixture
def model(tmp_path: Path, settings: Any) -> Iterator[ModelServer]:
    """The scripted model, which boxes may reach."""
    with ModelServer("work", host=address()) as served:
        owner = tmp_path / "owner.toml"
        owner.write_text(f'[allow]\nnetworks = ["{address()}:{served.port}"]\n')
        settings.GASTOWN_OWNER_CONFIG = str(owner)
        yield served


def agent(name: str, model: ModelServer, **more: Any) -> dict[str, Any]:
    """The config of a role that is this preset."""
    cli = CLIS[name]
    return {
        "preset": name, "model": cli.model, "secrets": [cli.key], "env": {cli.base: model.url + cli.path}, **more,
    }  # fmt: skip


def open_town(stage: Stage, name: str, model: ModelServer, *, refinery: bool = True, **more: Any) -> None:
    """A town of this agent. Skips where it is not installed, or no sandbox can be had."""
    if launches.found(configs.Config(), PRESETS[name]) is None:
        pytest.skip(f"{name} is not installed: make agents")
    if sandbox.available() == sandbox.UNSANDBOXED:
        pytest.skip(f"no sandbox can be started here: {sandbox.status().reason}")
    stage.open(agents=False, code_review=refinery)
    secrets.set_secret(stage.town, CLIS[name].key, KEY, str(WHO))
    agents = {"polecat": agent(name, model, **more)}
    if refinery:
        agents["refinery"] = agent(name, model)
    ledger.set_config(stage.rig, configs.validate({"agents": agents, "dispatch": {"max_attempts": 2}}))
    stage.rig.refresh_from_db()


def ended(stage: Stage, bead: Bead) -> Bead:
    """The bead once it has ended. kilo takes 8 s of a processor for each start, four times."""
    stage.until(lambda: Bead.objects.get(pk=bead.pk).status in ("closed", "failed"), 600)
    return Bead.objects.get(pk=bead.pk)


def events(name: str, run: Run) -> list[Event]:
    """What the log of a run says, by its preset."""
    lines = Path(run.log_path).read_text(errors="replace").splitlines()
    return [event for line in lines for event in PRESETS[name].parse(line)]


@pytest.mark.parametrize("name", CLIS)
def test_a_bead_is_done_rejected_done_again_and_landed(stage: Stage, model: ModelServer, name: str) -> None:
    """Polecat, refinery that rejects, rework, refinery that approves; and the bill is the model's own."""
    open_town(stage, name, model)
    bead = ended(stage, stage.sling("Write the file", "Write a file of your own."))
    runs = list(Run.objects.exclude(kind="gates").order_by("created_at"))
    told = [(run.purpose, run.outcome, run.reason) for run in runs]
    assert bead.resolution == "merged", f"{told}\n{_logs(runs)}"
    assert [run.purpose for run in runs] == ["work", "review", "rework", "review"], told
    goes_on = bool(PRESETS[name].sessions)
    assert [bool(run.resumed) for run in runs] == [False, False, goes_on, goes_on], _logs(runs)
    assert {one.earlier for one in model.books if one.tools} == ({0, 1} if goes_on else {0})
    work = stage.git("ls-tree", "-r", "--name-only", "main", cwd=stage.remote).splitlines()
    assert f"work/{bead.pk}.txt" in work
    assert {one.key for one in model.books} == {KEY}
    assert all(KEY not in Path(run.log_path).read_text(errors="replace") for run in runs)
    taken = usage.total(usage.of_bead(bead))  # codex tells of all of a session that goes on, the others of a run
    charged = [one.tokens for one in model.books if one.status == 200 and one.tools]  # without titles
    said = taken.input, taken.cached, taken.output
    booked = sum(t.fresh for t in charged), sum(t.cached for t in charged), sum(t.output for t in charged)
    stream = Usage.objects.filter(channel=Channel.STREAM).values_list("input", "cached", "output")
    heard = tuple(sum(column) for column in zip(*stream, strict=True))
    if all(run.exit_code == 0 for run in runs):
        assert heard == said == booked
    else:  # what was ended by us, for its change has landed, has not told its last
        assert said <= booked and heard <= booked
    for run in runs:
        path = transcripts.file_of(run)
        assert path is not None, _logs(runs)
        assert {"text", "call", "result"} <= {row.kind for row in transcripts.rows(path)}, path.read_text()
        assert KEY not in path.read_text()


PROVIDERS = {
    "claude": "anthropic", "codex": "openai", "opencode": "openai", "kilo": "openai", "mini": "openai",
    "gemini": "google",
}  # fmt: skip


@pytest.mark.parametrize("name", PROVIDERS)
def test_by_the_model_door_three_lines_do_and_the_books_are_the_models_own(
    model: ModelServer, door_stage: Stage, name: str
) -> None:
    """The role names its preset alone: the key stays outside, and what each call used is booked."""
    stage = door_stage
    open_town(stage, name, model)
    cli = CLIS[name]
    role = {"preset": name, "model": cli.model}
    config = {
        "agents": {"polecat": role, "refinery": role},
        "providers": {PROVIDERS[name]: {"base_url": model.url + cli.path}},
        "dispatch": {"max_attempts": 2},
    }
    ledger.set_config(stage.rig, configs.validate(config))
    stage.rig.refresh_from_db()
    bead = ended(stage, stage.sling("Write the file", "Write a file of your own."))
    stage.until(lambda: not Run.objects.exclude(state="ended").exists())  # the last words of who reviewed cost, too
    runs = list(Run.objects.exclude(kind="gates").order_by("created_at"))
    assert bead.resolution == "merged", _logs(runs)
    assert {one.key for one in model.books} == {KEY}
    assert all(KEY not in Path(run.log_path).read_text(errors="replace") for run in runs)
    charged = [one.tokens for one in model.books if one.status == 200]
    booked = usage.total(usage.of_bead(bead))
    assert booked.calls == len(charged) and booked.uncounted == 0
    assert (booked.input, booked.cached, booked.output) == (
        sum(t.fresh for t in charged), sum(t.cached for t in charged), sum(t.output for t in charged),
    )  # fmt: skip


def _logs(runs: list[Run]) -> str:
    return "\n".join(Path(run.log_path).read_text(errors="replace")[-3000:] for run in runs if run.log_path)


def check(stage: Stage, name: str, **more: Any) -> trials.Trial:
    """Try this agent out as the town's polecat, with more or other keys in its config."""
    config = configs.effective(stage.rig.town.config, stage.rig.config)
    assert config.agents.polecat is not None
    told = config.agents.polecat.model_copy(update=more)
    return trials.attempt(config, "polecat", told, stage.town)


@pytest.mark.parametrize("name", CLIS)
def test_a_check_says_that_it_works_or_what_is_missing(stage: Stage, model: ModelServer, name: str) -> None:
    """A right key, a wrong one, a model that does not exist."""
    open_town(stage, name, model, refinery=False)
    model.play = PLAYS["hello"]
    works = check(stage, name)
    assert works.lacks == (), works.output
    assert works.version and works.bill

    model.keys = {"another"}
    refused = check(stage, name)
    assert [lack.field for lack in refused.lacks] == ["agents.polecat.secrets"], refused.output
    assert CLIS[name].key in refused.lacks[0].line

    model.keys, model.models = set(), {"the-only-one"}
    unknown = check(stage, name)
    assert [lack.field for lack in unknown.lacks] == ["agents.polecat.model"], unknown.output
    assert "\n" not in str(unknown.lacks[0]) and KEY not in unknown.output


def test_a_check_past_the_door_takes_the_key_by_the_towns_own_name(stage: Stage, model: ModelServer) -> None:
    """`[providers.…] secret`: as the door would, the check uses it, and a key that is refused is named by it."""
    open_town(stage, "claude", model, refinery=False)
    secrets.set_secret(stage.town, "LLM_KEY", KEY, str(WHO))
    provider = {"base_url": model.url, "secret": "LLM_KEY"}
    told = {"agents": {"polecat": {"preset": "claude", "model": "sonnet"}}, "providers": {"anthropic": provider}}
    ledger.set_config(stage.rig, configs.validate(told))
    stage.rig.refresh_from_db()
    model.play, model.keys = PLAYS["hello"], {KEY}
    works = check(stage, "claude")
    assert works.lacks == (), works.output
    model.keys = {"another"}
    assert "gastown secret set LLM_KEY" in check(stage, "claude").lacks[0].line


def readable(path: str) -> bool:
    """True when every user can come to this path."""
    places = [Path(path), *Path(path).parents]
    return all(place.stat().st_mode & 0o005 == 0o005 for place in places)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user, too; else all of these run as a user")
@pytest.mark.parametrize("name", CLIS)
def test_it_works_in_the_sandbox_of_an_ordinary_user(tmp_path: Path, model: ModelServer, name: str) -> None:
    """As the stories above, which are root's here, without a town: a commit, and a bill that is right."""
    preset, cli = PRESETS[name], CLIS[name]
    place = launches.found(configs.Config(), preset)
    if place is None or sandbox.available() == sandbox.UNSANDBOXED:
        pytest.skip(f"{name} is not installed, or there is no sandbox: make agents, gastown doctor")
    hidden = [path for path in (*place.shown, *place.program) if not readable(path)]
    if hidden:
        pytest.skip(f"another user cannot read {hidden[0]}, of which {name} is made")
    model.play = lambda asked: script(asked, [WRITE], "Done.")
    root = Path(tempfile.mkdtemp(prefix="gastown-scene-"))
    root.chmod(0o755)
    try:
        scene = Scene(root, sandbox.required().bwrap, NOBODY)
        home, prompt, env = scene.home / "home", scene.home / "prompt.md", {cli.base: model.url + cli.path}
        launch = preset.start(Start(place.program, sandbox.HOME, cli.model, env, (cli.key,)))
        for path, text in {**{home / one: text for one, text in launch.files.items()}, prompt: "Do it.\n"}.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        home.mkdir(exist_ok=True)
        gitcmd.run_git(["init", "--quiet"], cwd=scene.workspace)
        for path in [root, *root.rglob("*")]:
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        who = {f"GIT_{one}_{part}": "mel@example.org" for one in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
        env |= {"GASTOWN_PROMPT_FILE": str(prompt), "GASTOWN_BEAD": "b1", cli.key: KEY, **who, **launch.env}
        reach = f"{address()}:{model.port}"
        limits = {"tmp": 1 << 30, "memory": 4 << 30, "processes": 512}
        shown = [str(prompt), *place.shown]
        spec = scene.spec(
            {"name": "agent", "argv": list(launch.argv), "timeout": 110},
            home=str(home), network=[reach], allow=[reach], limits=limits, read_only=shown,
        )  # fmt: skip
        told = scene.run({**spec, "kind": "polecat", "env": {**spec["env"], "PATH": "/usr/bin:/bin", **env}})
        assert told["results"][0]["outcome_raw"]["exit_code"] == 0, told
        made = gitcmd.run_git(["-c", "safe.directory=*", "log", "--format=%s"], cwd=scene.workspace, check=False).text
        assert made == "Work of b1"
        taken = bill(event for line in told["log"].splitlines() for event in preset.parse(line))
        charged = [one.tokens for one in model.books if one.tools]
        assert [u.output for u in taken.values()] == [sum(tokens.output for tokens in charged)]
    finally:
        shutil.rmtree(root)


@pytest.mark.parametrize(
    ("play", "reason"),
    [("lies", "nothing_changed"), ("commits-nothing", "uncommitted"), ("asks", "gt_done")],
)
def test_a_model_that_does_not_do_its_work_lands_nothing(
    stage: Stage, model: ModelServer, play: str, reason: str
) -> None:
    """Said to be done, not committed, asked instead: the bead is not closed as merged, and its reason tells why."""
    model.play = PLAYS[play]
    open_town(stage, "claude", model, refinery=False)
    before = stage.sha()
    bead = stage.sling("Write the file", "Write a file of your own.")
    run = stage.until(lambda: Run.objects.filter(kind="polecat", state="ended").first())
    told = f"{run.outcome} {run.reason} {run.work} {Bead.objects.get(pk=bead.pk).reason} {_phase(stage, bead)}"
    assert stage.sha() == before and reason in told, told


def _phase(stage: Stage, bead: Bead) -> str:
    stage.until(lambda: not Run.objects.exclude(state="ended").filter(bead=bead, claimed_at=None).exists())
    return f"{Bead.objects.get(pk=bead.pk).resolution} {boards.Board(stage.town).bead_phase(bead)}"


def test_a_busy_api_is_waited_for(stage: Stage, model: ModelServer) -> None:
    """429 and 500 on the way: claude tries again by itself, and the bead lands."""
    model.refuse(429, 500)
    model.play = PLAYS["approve"]
    open_town(stage, "claude", model)
    bead = ended(stage, stage.sling("Write the file", "Write a file of your own."))
    assert bead.resolution == "merged"
    assert [one.status for one in model.books if one.status != 200] == [429, 500]


def test_a_program_that_is_not_here_costs_no_attempt_and_says_how_to_get_it(
    stage: Stage, model: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_town(stage, "claude", model, refinery=False)
    monkeypatch.setattr(launches, "search_path", lambda config: "/nowhere")
    bead = stage.sling("Write the file", "")
    run = stage.until(lambda: Run.objects.filter(state="ended").first())
    assert "agents.polecat.preset: there is no claude on this machine: npm install -g" in run.reason
    assert run.claimed_at is None and Bead.objects.get(pk=bead.pk).status != "failed"
