"""The state of the tests' GitHub: one repository on a real bare git repository, people, pull requests, their talk.

Whoever plays a person calls its methods (`open`, `say`, `review`, `close`); the server (`tests.hosts.server`) shows the
same state over HTTP. Git is the truth as it is there: heads are read from the repository, a pull request whose head is
reachable from its base is merged, one whose branch is gone is closed.
"""

from __future__ import annotations

import copy
import datetime as dt
import itertools
import json
import subprocess
from dataclasses import dataclass, field
from email.utils import format_datetime
from pathlib import Path
from typing import Any

SHAPES: dict[str, Any] = json.loads((Path(__file__).parent / "shapes.json").read_text())
WRITES = ("write", "maintain", "admin")


@dataclass
class Pull:
    """A pull request. `fork`: the bare repository that its branch is in, where that is another one."""

    number: int
    title: str
    body: str
    author: str
    branch: str
    base: str
    draft: bool = False
    fork: Path | None = None
    state: str = "open"
    head: str = ""
    merge_sha: str = ""
    merged: bool = False
    updated: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    comments: list[dict[str, Any]] = field(default_factory=list)
    reviews: list[dict[str, Any]] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)


class GitHub:
    """One GitHub with one repository, `acme/proj`. `people`: login → right. `token`: who has it may write as `bot`."""

    def __init__(self, remote: Path) -> None:
        self.remote = remote
        self.owner, self.name = "acme", "proj"
        self.people: dict[str, str] = {"bot": "write"}
        self.token = "ghp_good"
        self.pulls: dict[int, Pull] = {}
        self.statuses: dict[str, dict[str, dict[str, Any]]] = {}
        self.hooks: list[tuple[str, dict[str, Any]]] = []  # that were not delivered yet: event, payload
        self.late: dict[int, str] = {}  # pull requests whose shown head is not the one that git has: number → head
        self.url = ""
        self._ids = itertools.count(1000)
        self._numbers = itertools.count(1)
        self._clock = dt.datetime.now(dt.UTC).replace(microsecond=0) - dt.timedelta(hours=1)

    # -- git --

    def git(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(
            ["git", "-c", "safe.directory=*", *words], cwd=self.remote, capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    def refresh(self) -> None:
        """What has happened to branches since: heads, merges by reachability, branches that are gone."""
        for pull in self.pulls.values():
            if pull.state != "open":
                continue
            if pull.fork is not None:
                self.git("fetch", "-q", str(pull.fork), f"+refs/heads/{pull.branch}:refs/pull/{pull.number}/head")
            head = self.git("rev-parse", "-q", "--verify", f"refs/heads/{pull.branch}", check=False)
            if pull.fork is not None:
                head = self.git("rev-parse", f"refs/pull/{pull.number}/head")
            base = self.git("rev-parse", f"refs/heads/{pull.base}")
            reached = self.git("merge-base", pull.head, base, check=False) == pull.head if pull.head else False
            if reached:
                self._end(pull, merged=True, sha=base)
            elif not head:
                self._end(pull)
            elif head != pull.head:
                pull.head = head
                self.git("update-ref", f"refs/pull/{pull.number}/head", head)
                self._touch(pull, "pull_request", "synchronize")

    def _end(self, pull: Pull, *, merged: bool = False, sha: str = "") -> None:
        pull.state, pull.merged, pull.merge_sha = "closed", merged, sha
        self._touch(pull, "pull_request", "closed")

    def now(self) -> dt.datetime:
        """GitHub's clock: each thing that happens is a second after the one before."""
        self._clock += dt.timedelta(seconds=1)
        return self._clock

    def date(self) -> str:
        """The same, for HTTP; no second goes by."""
        return format_datetime(self._clock, usegmt=True)

    # -- what people do --

    def open(self, author: str, branch: str, title: str = "A change", body: str = "", **more: Any) -> Pull:
        pull = Pull(next(self._numbers), title, body, author, branch, more.pop("base", "main"), **more)
        self.pulls[pull.number] = pull
        self.refresh()
        self._touch(pull, "pull_request", "opened")
        return pull

    def say(self, pull: Pull, who: str, body: str) -> dict[str, Any]:
        at = _text(self.now())
        comment = {"id": next(self._ids), "user": who, "body": body, "created_at": at, "updated_at": at}
        pull.comments.append(comment)
        self._touch(pull, "issue_comment", "created", comment=self.comment(pull, comment))
        return comment

    def edit(self, comment: dict[str, Any], body: str) -> None:
        """Somebody who may write changes what another has said: it stays the other's."""
        comment["body"], comment["updated_at"] = body, _text(self.now())

    def review(
        self, pull: Pull, who: str, state: str, body: str = "", lines: list[tuple[str, int, str]] | None = None
    ) -> dict[str, Any]:
        """`state`: APPROVED, CHANGES_REQUESTED or COMMENTED, of the head as it is; `lines`: file, line, words."""
        self.refresh()
        review = {"id": next(self._ids), "user": who, "state": state, "body": body, "sha": pull.head}
        review["submitted_at"] = _text(self.now())
        pull.reviews.append(review)
        for path, line, words in lines or []:
            told = {"id": next(self._ids), "user": who, "path": path, "line": line, "body": words}
            pull.lines.append(told | {"review": review["id"], "sha": pull.head})
        self._touch(pull, "pull_request_review", "submitted")
        return review

    def dismiss(self, pull: Pull, review: dict[str, Any]) -> None:
        review["state"] = "DISMISSED"
        self._touch(pull, "pull_request_review", "dismissed")

    def close(self, pull: Pull, who: str = "") -> None:
        self._end(pull)

    def squash(self, pull: Pull) -> str:
        """A person merges it there: one commit with the head's tree merged onto the base."""
        base = self.git("rev-parse", f"refs/heads/{pull.base}")
        tree = self.git("merge-tree", "--write-tree", base, pull.head)
        env = ["-c", "user.name=GitHub", "-c", "user.email=noreply@github.com"]
        sha = self.git(*env, "commit-tree", tree, "-p", base, "-m", f"{pull.title} (#{pull.number})")
        self.git("update-ref", f"refs/heads/{pull.base}", sha)
        self._end(pull, merged=True, sha=sha)
        return sha

    def _touch(self, pull: Pull, event: str, action: str, **more: Any) -> None:
        pull.updated = self.now()
        payload: dict[str, Any] = {"action": action, "repository": {"full_name": f"{self.owner}/{self.name}"}, **more}
        if event == "issue_comment":
            payload["issue"] = {"number": pull.number, "pull_request": {"url": "…"}}
        else:
            payload["pull_request"] = {"number": pull.number}
        self.hooks.append((event, payload))

    # -- how it is shown --

    def user(self, login: str) -> dict[str, Any]:
        shown: dict[str, Any] = copy.deepcopy(SHAPES["pull"]["user"])
        number = sum(map(ord, login))
        return shown | {"login": login, "id": number}

    def pull(self, pull: Pull, *, simple: bool = False) -> dict[str, Any]:
        shown: dict[str, Any] = copy.deepcopy(SHAPES["simple" if simple else "pull"])
        place = f"{self.url}/repos/{self.owner}/{self.name}"
        shown |= {"url": f"{place}/pulls/{pull.number}", "number": pull.number, "id": 5000 + pull.number}
        shown |= {"node_id": f"PR_{pull.number}", "html_url": f"http://github/{self.name}/pull/{pull.number}"}
        shown |= {"title": pull.title, "body": pull.body or None, "state": pull.state, "draft": pull.draft}
        shown |= {"user": self.user(pull.author), "updated_at": _text(pull.updated), "labels": []}
        shown |= {"merge_commit_sha": pull.merge_sha or None, "merged_at": None, "closed_at": None}
        if pull.state == "closed":
            shown["closed_at"] = _text(pull.updated)
        if pull.merged:
            shown["merged_at"] = _text(pull.updated)
        shown["base"]["ref"], shown["head"]["ref"], shown["head"]["sha"] = pull.base, pull.branch, pull.head
        shown["head"]["sha"] = self.late.get(pull.number, pull.head)
        shown["base"]["sha"] = self.git("rev-parse", f"refs/heads/{pull.base}", check=False) or "0" * 40
        for side, owner in (("base", self.owner), ("head", pull.author if pull.fork else self.owner)):
            shown[side]["repo"] |= {"full_name": f"{owner}/{self.name}", "name": self.name}
            shown[side]["label"] = f"{owner}:{shown[side]['ref']}"
        if not simple:
            shown |= {"merged": pull.merged, "mergeable": None, "mergeable_state": "unknown"}
            shown["merged_by"] = None
        return shown

    def comment(self, pull: Pull, comment: dict[str, Any]) -> dict[str, Any]:
        shown: dict[str, Any] = copy.deepcopy(SHAPES["comment"])
        place = f"{self.url}/repos/{self.owner}/{self.name}"
        shown |= {k: v for k, v in comment.items() if k != "user"} | {"user": self.user(comment["user"])}
        shown["issue_url"] = f"{place}/issues/{pull.number}"
        shown["html_url"] = f"http://github/{self.name}/pull/{pull.number}#issuecomment-{comment['id']}"
        return shown

    def reviewed(self, review: dict[str, Any]) -> dict[str, Any]:
        shown: dict[str, Any] = copy.deepcopy(SHAPES["review"])
        shown |= {"id": review["id"], "state": review["state"], "body": review["body"], "commit_id": review["sha"]}
        return shown | {"user": self.user(review["user"]), "submitted_at": review["submitted_at"]}

    def line(self, line: dict[str, Any]) -> dict[str, Any]:
        shown: dict[str, Any] = copy.deepcopy(SHAPES["line"])
        shown |= {"id": line["id"], "path": line["path"], "line": line["line"], "body": line["body"], "side": "RIGHT"}
        shown |= {"commit_id": line["sha"], "original_commit_id": line["sha"], "original_line": line["line"]}
        return shown | {"pull_request_review_id": line["review"], "user": self.user(line["user"])}

    def commits(self, pull: Pull) -> list[dict[str, Any]]:
        base = self.git("merge-base", f"refs/heads/{pull.base}", pull.head, check=False)
        rows = []
        for sha in self.git("rev-list", "--reverse", f"{base}..{pull.head}").split():
            shown: dict[str, Any] = copy.deepcopy(SHAPES["commit"])
            name, mail = self.git("show", "-s", "--format=%an%n%ae", sha).splitlines()
            shown["commit"]["author"] |= {"name": name, "email": mail}
            shown |= {"sha": sha, "author": None}
            if name.lower() in self.people:
                shown["author"] = self.user(name.lower())
            rows.append(shown)
        return rows


def _text(at: dt.datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
