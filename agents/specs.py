"""What a shim is told: the run's commands, variables, box and places, and for an agent its prompt."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings

from agents import boxes, guides, launches, mail, programs, prompts, work
from agents.leftovers import MARK
from agents.lifecycle import RunKind
from agents.models import Run
from agents.runtime import sandbox
from agents.runtime.names import mail_of
from agents.sessions import Going
from beads import config as configs
from beads import owner, secrets


@dataclass(frozen=True)
class Prepared:
    """What the runner has made for a run. `repos`: the mirror, and whatever else the workspace borrows objects from;
    `commands`: of `gt`, see `agents.api.commands`; `going`: with which session it goes on, and where that is kept."""

    run_dir: Path
    worktree: Path
    repos: Sequence[Path]
    start_sha: str
    commands: Sequence[Mapping[str, Any]] = ()
    going: Going | None = None


def spec_of(run: Run, made: Prepared, secret: str) -> dict[str, Any]:
    """The spec of a run's shim, JSON-able; `secret` is for its claim. Writes the prompt of an agent's run.

    Raises Invalid for a secret that is not set, and what `boxes.box_for` raises.
    """
    gates = run.kind == RunKind.GATES
    branch = "" if gates else _branch(run)
    env = {
        "PATH": os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin"),
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "GIT_TERMINAL_PROMPT": "0",
        "GASTOWN_TARGET": run.target,
        MARK: run.pk,
    }
    env |= _gates_env(run, made) if gates else _agents_env(run, made, branch)
    steps, values = _with_secrets(run, env)
    going = made.going
    launch = launches.of_run(run, work.workspace_of(run).home, going.name if going else "")
    if launch is not None:
        steps, env = launch.steps(steps, str(_prompt_file(made, "continue"))), {**launch.env, **env}
    box = _box(run, made, values, launch.shown if launch is not None else ())
    if not gates:
        _write_prompt(run, made, has_gt=_show_gt(made, box, env))
    candidate = run.brief.get("candidate") or {}
    return {
        "run": run.pk,
        "kind": str(run.kind),
        "url": settings.GASTOWN_URL,
        "claim_secret": secret,
        "start_seconds": run.start_seconds,
        "run_dir": str(made.run_dir),
        "worktree": str(made.worktree),
        "repo": str(made.repos[0]),
        "delivers": bool(run.branch),
        "branch": branch,
        "start_sha": made.start_sha,
        "steps": steps,
        "change": str(candidate.get("change", "")),
        "caches": str(Path(settings.GASTOWN_HOME) / "caches" / str(run.rig_id)),
        "parallel": bool(run.brief.get("parallel")),
        "every": bool(run.brief.get("every")),
        "env": env,
        "token_as": list(launch.token_as) if launch is not None else [],
        "session": going.spec() if going else None,
        "sandbox": box["kind"],
        "box": box,
    }


def _branch(run: Run) -> str:
    """The branch that an agent's run is on, also where it is to commit nothing."""
    return run.branch or f"gt/{_name(run)}/{run.bead_id}/{run.pk}"


def _name(run: Run) -> str:
    if run.agent is None:
        return ""
    return run.agent.name


def _gates_env(run: Run, made: Prepared) -> dict[str, str]:
    candidate = run.brief.get("candidate") or {}
    return {
        "HOME": "/tmp",  # noqa: S108 - its own inside the sandbox
        "CI": "true",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
        "GASTOWN_CANDIDATE": made.start_sha,
        "GASTOWN_BASE": str(candidate.get("base", "")),
    }


def _agents_env(run: Run, made: Prepared, branch: str) -> dict[str, str]:
    agent = _name(run)
    address = mail_of(agent)
    return {
        "HOME": str(work.workspace_of(run).home),
        "GIT_AUTHOR_NAME": agent,
        "GIT_AUTHOR_EMAIL": address,
        "GIT_COMMITTER_NAME": agent,
        "GIT_COMMITTER_EMAIL": address,
        "GASTOWN_URL": settings.GASTOWN_URL,
        "GASTOWN_ROLE": str(run.kind),
        "GASTOWN_AGENT": agent,
        "GASTOWN_BEAD": run.bead_id,
        "GASTOWN_BRANCH": branch,
        "GASTOWN_PROMPT_FILE": str(_prompt_file(made)),
    }


def _show_gt(made: Prepared, box: dict[str, Any], env: dict[str, str]) -> bool:
    """Put `gt` first on the run's PATH; False where that cannot be, which the run's log says."""
    if not made.commands:
        return False
    shown = programs.shown(Path(settings.GASTOWN_HOME), made.commands, sandbox.Box.of(box))
    if shown is None:
        box["notes"] = [*box["notes"], "no Python 3.9 or newer can be shown inside: there is no gt, tools are HTTP"]
        return False
    box["read_only"] = [*box["read_only"], *shown.read_only]
    box["path"] = [str(shown.path), *box["path"]]
    env["PATH"] = f"{shown.path}:{env.get('PATH', '')}"
    return True


def _prompt_file(made: Prepared, name: str = "prompt") -> Path:
    return made.run_dir / f"{name}.md"


def _write_prompt(run: Run, made: Prepared, *, has_gt: bool) -> None:
    """Write the prompt, with the mail that waits for the run, which is told of it by that. Who goes on with a session
    is given what is new, and where the whole is."""
    letters = mail.for_run(run)
    reader = prompts.Reader(str(run.kind), _name(run), run.bead_id, run.branch, run.target)
    told = [mail.data(m) for m in letters]
    text = prompts.render(
        run.brief,
        reader,
        guides=guides.named(made.repos[0], made.start_sha, run.purpose),
        mail=told,
        has_gt=has_gt,
    )
    mail.note_told(letters, run)
    _prompt_file(made).write_text(text)
    if made.going is not None and made.going.name:
        more = prompts.render_more(run.brief, reader, mail=told, whole=str(_prompt_file(made)))
        _prompt_file(made, "continue").write_text(more)


def _box(run: Run, made: Prepared, values: dict[str, str], program: Iterable[Path]) -> dict[str, Any]:
    """The run's box: besides its worktree it sees the objects that are borrowed, and an agent its own repository and
    what its `program` consists of."""
    home, shown = None, [*(repo / "objects" for repo in made.repos), *program]
    if run.kind != RunKind.GATES:
        space = work.workspace_of(run)
        home = space.home
        shown += [space.origin, _prompt_file(made)]
        if made.going is not None and made.going.name:
            shown.append(_prompt_file(made, "continue"))
    allow = owner.private_networks()
    places = boxes.Places(made.worktree, home=home, read_only=shown, secrets=values, allow=allow)
    return boxes.box_for(run, places)


def _with_secrets(run: Run, env: dict[str, str]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The run's steps, with the secrets that gates name as their variables; an agent's, and its role's own
    variables, go into `env`. Returns the secrets' values, too. Raises Invalid for one that is not set."""
    agent = boxes.agent_of(configs.effective(run.rig.town.config, run.rig.config), run)
    values: dict[str, str] = {}
    if agent is not None:
        values = secrets.for_run(run.rig.town, agent.secrets)
        env |= {**agent.env, **values}
    steps = []
    for step in run.steps:
        own = secrets.for_run(run.rig.town, step.get("secrets") or ())
        values |= own
        if own:
            step = {**step, "env": {**(step.get("env") or {}), **own}}
        steps.append(step)
    return steps, values
